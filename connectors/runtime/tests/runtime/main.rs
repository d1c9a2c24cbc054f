//! The supervisor over real brokers, with scripted connectors.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod contract;
mod kafka;
mod letters;
mod losses;
mod pipelines;
mod positions;
mod superseded;
mod world;
