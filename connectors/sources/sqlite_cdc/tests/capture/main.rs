//! Against real database files that another connection writes to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod changes;
mod changes_of_shape;
mod odd_rows;
mod world;
