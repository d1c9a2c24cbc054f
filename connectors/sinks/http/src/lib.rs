//! HTTP as a sink: batched POST with retries, at least once.
//!
//! A request carries records of one partition in order, under an `Idempotency-Key` made of the offsets that it covers,
//! so that a receiver can drop what it has already. A batch counts when every request of it was answered with 2xx.
#![forbid(unsafe_code)]

mod config;
mod delivery;
mod response;
mod sink;

pub use config::HttpSink;
