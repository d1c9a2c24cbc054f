//! SQLite change data capture: triggers write an outbox row in the application's own transaction, so that changes of
//! any process are seen, also those made while Towpath was down (data-semantics §3).
//!
//! - `options`: what the YAML says; `connector`: checks and opening.
//! - `database`: the connection and everything that is asked of it; `capture`: outbox, triggers, table definitions.
//! - `displaced`: rows that `REPLACE` removes.
//! - `literal`: the outbox's form of a row, SQL literals as `quote()` writes them.
//! - `table`: a captured table and its schema; `records`: rows into records.
//! - `task`: a running capture; `plan`: which tables are copied, and from where; `copy`: the rows that are there first.
//!
//! A column that is to be dropped is named by the triggers, and SQLite refuses it while they are there. An application
//! that does so drops them first, in the same transaction (`DROP TRIGGER "_towpath_<pipeline>_<n>_c"`, `_u`, `_d`). As
//! with a table that is made anew under its old name, Towpath then sets up others, and copies the table again after a
//! truncate: nobody knows what happened in between.
#![forbid(unsafe_code)]

mod capture;
mod connector;
mod copy;
mod database;
mod displaced;
mod literal;
mod options;
mod plan;
mod records;
mod table;
mod task;

pub use options::SqliteCdc;
