//! Write a Towpath plugin in Rust: implement [`Transform`], [`Source`] or [`Sink`], and export it with
//! [`export_transform!`], [`export_source!`] or [`export_sink!`].
//!
//! ```
//! use towpath_sdk::{Batch, Config, Descriptor, Error, Output, Transform, Value};
//!
//! /// Drops records whose field `level` is `debug`.
//! struct DropDebug;
//!
//! impl Transform for DropDebug {
//!     fn descriptor() -> Descriptor {
//!         Descriptor::new("drop_debug", "0.1.0", "Drops debug lines")
//!     }
//!
//!     fn open(_: &Config) -> Result<Self, Error> {
//!         Ok(Self)
//!     }
//!
//!     fn process(&mut self, batch: &Batch<'_>, out: &mut Output<'_>) -> Result<(), Error> {
//!         for record in batch.records() {
//!             let level = record.after().and_then(|row| row.by_name("level"));
//!             if level != Some(Value::Text("debug")) {
//!                 out.keep(record);
//!             }
//!         }
//!         Ok(())
//!     }
//! }
//!
//! # #[cfg(target_arch = "wasm32")]
//! towpath_sdk::export_transform!(DropDebug);
//! # fn main() {}
//! ```
//!
//! Built by `towpath plugin build`, named in the YAML under `plugins:`, and then a `type:` like any other.

mod batch;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings_sink;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings_source;
mod config;
mod describe;
mod error;
mod host;
mod output;
mod outside;
mod records;
mod row;
mod schema;
mod sink;
mod source;
mod transform;

pub use batch::{Batch, Headers, Op, Record};
pub use config::{Config, Setting};
pub use describe::{Descriptor, Element, Guarantee, OptionSpec, Problem, Shape};
pub use error::{Error, Rejection};
pub use host::{Level, log, monotonic_ns, now_ms, random};
pub use output::{Output, Rewrite};
pub use outside::{http, secrets, state, tcp};
pub use records::{NewRecord, Records, RejectedInput};
pub use row::{Row, RowEdit, RowWriter, TextWriter, Value};
pub use schema::{ColumnId, Computed, Field, Scalar, Schema, Schemas, SourceBlock, Type};
pub use sink::{Assigned, Delivery, Positions, Sink, TopicPartition, Written};
pub use source::{Budget, Offsets, Polled, Position, Source, Task};
pub use transform::Transform;
