//! `postgres_cdc` against a real PostgreSQL: one server for all tests, a database for each.

mod checks;
mod changes;
mod restarts;
mod snapshots;
mod support;
mod types;
