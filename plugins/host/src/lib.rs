//! Runs plugins: implements the connectors' traits over WASM components.
//!
//! - [`Plugins`] loads components by path, under the names that the user's YAML gives them, and makes factories of them
//!   that stand beside the built-in ones.
//! - One store per task (`instance.rs`): its memory is bounded, an epoch deadline ends its calls, and it is thrown away
//!   after whatever went wrong in it (R11).
//! - Records cross in one flat buffer (`towpath_api::batch::flat`), which is checked before it is believed.
//!
//! The contract is in `plugins/wit`. This is the only crate that uses wasmtime.

pub mod bench;
mod bindings;
mod cache;
mod component;
mod describe;
mod engine;
mod error;
mod inspect;
mod instance;
mod loader;
mod options;
mod reload;
mod schema;
mod state;
mod transform;

pub use error::PluginError;
pub use inspect::Inspection;
pub use loader::Plugins;
