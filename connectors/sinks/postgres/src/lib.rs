//! PostgreSQL as a sink: upsert or append, exactly once.
//!
//! The position of every partition lives in `towpath_sink_offsets` beside the data and moves in the data's own
//! transaction; an owner epoch in the same row fences older tasks (R6). Values travel as text and are cast by the
//! server, so that a table which is there already is written as it is.
#![forbid(unsafe_code)]

mod alter;
mod apply;
mod catalog;
mod cells;
mod columns;
mod computed;
mod config;
mod connector;
mod ddl;
mod errors;
mod nodelay;
mod offsets;
mod plan;
mod remembered;
mod session;
mod statements;
mod target;

pub use config::PostgresSink;
