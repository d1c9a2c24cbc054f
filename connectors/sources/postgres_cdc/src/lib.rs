//! PostgreSQL change data capture.
#![forbid(unsafe_code)]

mod catalog;
mod cells;
mod errors;
mod lsn;
mod pgoutput;
mod session;
mod shape;
mod values;
mod wire;
