//! What the author of a plugin needs: [`new`] writes a project to begin with, [`build`] makes components of one.
//!
//! A Rust plugin is compiled for `wasm32-unknown-unknown`. Where rustup can add that target, that is all; where it
//! cannot, `rustc-from-debian` fetches a compiler that knows it. The core module then becomes a component here. JavaScript
//! and Python become components together with their interpreters, by tools of the languages' own registries (`toolchains`). Go
//! makes a core module as well, for a system that is not there: what it asks of one comes from the contract (`wasi`).
#![forbid(unsafe_code)]

mod build;
mod error;
mod files;
mod golang;
mod new;
mod script;
mod templates;
mod toolchain;
mod wasi;

pub use build::{Built, build};
pub use error::ToolError;
pub use new::{Kind, Language, new};
