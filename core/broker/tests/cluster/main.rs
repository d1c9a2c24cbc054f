//! Several brokers of one cluster in this process, each with a runtime of its own, so that one can be killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

#[path = "../broker/support.rs"]
mod support;

mod admin;
mod brokers;
mod configs;
mod dirs;
mod failover;
mod groups;
mod nodes;
mod reading;
mod restarts;
mod shares;
