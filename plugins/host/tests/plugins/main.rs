//! Plugins, built from source and run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod connectors;
mod contract;
mod exports;
mod hostile;
mod hostile_scripts;
mod languages;
mod loading;
mod outside;
mod redis;
mod reload;
mod scripts;
mod sinks;
mod sources;
mod support;
mod takeover;
mod tls;
