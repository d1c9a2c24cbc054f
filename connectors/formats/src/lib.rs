//! How a batch becomes bytes in a topic and back.
//!
//! `json` writes Debezium's envelope for change events (`before`, `after`, `source`, `op`, `ts_ms`) and the row alone
//! for flat and plain records; the schema is named by id in a header and kept in the schemas topic, or stands inline
//! as Kafka Connect writes it, or nowhere. `raw` writes the bytes of a bare row. Nothing builds a tree of values.
//!
//! What JSON has no form for: `NaN` and the infinities are strings, bytes are base64, decimals, times and UUIDs are
//! strings, fields that the source did not tell are left out.
#![forbid(unsafe_code)]

mod decoder;
mod encoder;
mod error;
pub mod header;
mod json;

pub use decoder::{Decoder, Incoming};
pub use encoder::{Encoded, Encoder};
pub use error::FormatError;
