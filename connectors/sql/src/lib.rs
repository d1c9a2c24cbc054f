//! What the SQL sources and sinks share: quoting, table names and globs, PostgreSQL's arrays and type names.
#![forbid(unsafe_code)]

pub mod name;
pub mod pg_array;
pub mod pg_type;
pub mod quote;
pub mod sink;

pub use name::{NameError, TableName, TablePattern};
pub use quote::{Dialect, ident, idents, literal};
