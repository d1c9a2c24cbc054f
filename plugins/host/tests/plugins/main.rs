//! Plugins, built from source and run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod contract;
mod hostile;
mod loading;
mod reload;
mod support;
