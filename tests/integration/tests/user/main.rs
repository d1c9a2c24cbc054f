//! What a user types and sees: whole processes, real servers, and the words that come out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod command_line;
mod dead_letters;
mod mirrors;
mod other_cluster;
mod pages;
mod plugins;
mod plugins_by_name;
mod quickstart;
mod restarts;
mod secrets;
mod support;
mod terminal;
