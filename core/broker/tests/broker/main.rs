//! The broker's public face, spoken to by hand over streams of this process and over TCP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod admin;
mod configs;
mod dirs;
mod features;
mod fetch;
mod groups;
mod limits;
mod offline;
mod produce;
mod protocol;
mod restart;
mod share;
mod support;
mod transactions;
