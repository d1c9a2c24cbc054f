//! Seeded, rate-limited synthetic records: record *n* is the same on every machine and after every restart.
//!
//! - `options`: what the YAML says; `field`: what a field can hold; `task`: the records and their pace.
#![forbid(unsafe_code)]

mod field;
mod options;
mod task;

pub use options::Generate;
