//! JSON-lines files as a sink, rolled, exactly once by offset-named files.
//!
//! A finished file is called `<topic>-<partition>-<first offset>-<last offset>.jsonl` and never changes. The newest
//! records are in one that ends in `.inprogress`; how much of it counts is kept beside it and moves with every flush,
//! so that what a crash leaves beyond is cut off. An owner's token in the same place fences older tasks (R6).
#![forbid(unsafe_code)]

mod config;
mod errors;
mod names;
mod partition;
mod sink;
mod state;

pub use config::FileSink;
