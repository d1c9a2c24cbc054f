//! What clients can make a `towpath` process hold (R10): after each attempt it lives, serves others, and has not grown
//! by more than it says it may. All of it over sockets against the real binary; memory is what the kernel says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]
#![allow(clippy::print_stdout, reason = "how close it came to the limit")]

mod amplification;
mod bombs;
mod crowds;
mod frames;
mod readers;
mod support;
