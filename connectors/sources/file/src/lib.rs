//! Files as a source: lines or JSON lines, read once or followed; rotation by rename, by copy and truncate, and by new
//! names is survived.
//!
//! - `options`: what the YAML says; `connector`: checks and opening.
//! - `identity`: which file is which, whatever it is called; `reader`: one file, line by line.
//! - `task`: all files of a task, and the records.
#![forbid(unsafe_code)]

mod connector;
mod identity;
mod options;
mod reader;
mod task;

pub use options::File;
