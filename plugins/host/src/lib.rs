//! Runs plugins: implements the connectors' traits over WASM components.
//!
//! - [`Plugins`] loads components by path, or by name and version (`admission.rs`: what is locked and signed, as it must
//!   be), under the names that the user's YAML gives them, and makes factories of them that stand beside the built-in ones.
//! - One store per task (`instance.rs`): its memory is bounded, an epoch deadline ends its calls, and it is thrown away
//!   after whatever went wrong in it (R11).
//! - What a source or a sink does outside (HTTP, TCP, secrets, state) is done here, as far as the YAML grants it, within
//!   bounds and deadlines.
//! - Records cross in one flat buffer (`towpath_api::batch::flat`), which is checked before it is believed.
//!
//! The contract is in `plugins/wit`. This is the only crate that uses wasmtime.

mod admission;
pub mod bench;
mod bindings;
mod cache;
mod component;
mod configured;
mod describe;
mod engine;
mod error;
mod grants;
mod http;
mod inspect;
mod instance;
mod loader;
mod memory;
mod options;
mod outside;
mod reload;
mod schema;
mod secrets;
mod sink;
mod source;
mod state;
mod tcp;
mod tls;
mod transform;
mod versions;

pub use error::PluginError;
pub use inspect::Inspection;
pub use loader::{Identified, Plugins};
