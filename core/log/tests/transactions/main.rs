//! Transactions in a log: what is checked, what is open, what is aborted, and what a reader sees of it, whatever happens
//! to the process, the machine, and the log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod compaction;
mod indexes;
mod model;
mod producers;
mod seeds;
