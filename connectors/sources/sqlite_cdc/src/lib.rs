//! SQLite change data capture: triggers write an outbox row in the application's own transaction, so that changes of
//! any process are seen, also those made while Towpath was down (data-semantics §3).
//!
//! - `options`: what the YAML says; `connector`: checks and opening.
//! - `database`: the connection and everything that is asked of it; `capture`: outbox, triggers, table definitions.
//! - `literal`: the outbox's form of a row, SQL literals as `quote()` writes them.
//! - `table`: a captured table and its schema; `records`: rows into records.
//! - `task`: a running capture; `copy`: the rows that are there first.
#![forbid(unsafe_code)]

mod capture;
mod connector;
mod copy;
mod database;
mod literal;
mod options;
mod records;
mod table;
mod task;

pub use options::SqliteCdc;
