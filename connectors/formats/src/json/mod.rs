//! JSON: Debezium's envelope or the row alone, with the schema elsewhere, inline or nowhere.

pub(crate) mod connect;
pub(crate) mod encode;
pub(crate) mod infer;
pub(crate) mod plan;
pub(crate) mod scan;
pub(crate) mod temporal;
pub(crate) mod text;

/// A JSON value that would not survive verbatim — SQL's null and JSON's null would meet, white space around a value
/// would be lost — is written as an object of this one member that holds its text.
pub(crate) const JSON_TEXT_MEMBER: &str = "{\"$json\":";

/// What Debezium writes for a column that its database did not tell.
pub(crate) const UNAVAILABLE: &str = "__debezium_unavailable_value";
