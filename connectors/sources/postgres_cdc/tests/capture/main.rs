//! `postgres_cdc` against a real PostgreSQL: one server for all tests, a database for each.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod changes;
mod checks;
mod columns;
mod restarts;
mod snapshots;
mod support;
mod types;
