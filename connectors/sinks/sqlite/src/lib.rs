//! SQLite as a sink: upsert or append, exactly once.
//!
//! The position of every partition lives in `towpath_sink_offsets` in the same file and moves in the data's own
//! transaction; an owner epoch in the same row fences older tasks (R6).
#![forbid(unsafe_code)]

mod alter;
mod apply;
mod cells;
mod config;
mod connector;
mod database;
mod errors;
mod plan;
mod remembered;
mod statements;
mod table;
mod target;

pub use config::SqliteSink;
