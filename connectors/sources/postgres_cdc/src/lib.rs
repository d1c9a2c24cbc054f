//! PostgreSQL change data capture: a consistent snapshot by parallel COPY, then logical replication (`pgoutput`).
//!
//! What a user sees is in [`PostgresCdcFactory`]'s descriptor. Inside: `wire` talks to the server, `catalog` asks what
//! is there, `setup` keeps publication and slot, `snapshot` copies, `stream` follows, `source` ties them together,
//! `offsets` is what is stored and how positions are ordered, `evolution` what becomes of a table's columns.
#![forbid(unsafe_code)]

mod catalog;
mod cells;
mod check;
mod config;
mod connector;
mod errors;
mod evolution;
mod lsn;
mod offsets;
mod pgoutput;
mod session;
mod setup;
mod shape;
mod slot;
mod snapshot;
mod source;
mod stream;
mod streaming;
mod tracked;
mod upkeep;
mod values;
mod wire;

pub use connector::PostgresCdcFactory;
