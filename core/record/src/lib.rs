//! Record batch v2: views without copying, builder, validation, capped compression.
//!
//! A [`RecordBatch`] is a parsed [`BatchHeader`] beside the batch's own bytes; its records are read in place (or
//! from the decompressed payload) by [`Records`]. [`BatchBuilder`] writes batches, [`validate`] is what a leader
//! checks before it appends one, and the setters of [`edit`] change the few header fields that a broker owns.
//! Nothing here allocates for a length it has not checked (R10).
#![forbid(unsafe_code)]

mod batch;
mod builder;
mod compression;
mod control;
pub mod edit;
mod error;
mod header;
mod recompress;
mod records;
mod snappy;
mod validate;
mod varint;
mod walk;

pub use batch::{Batches, RecordBatch, batches};
pub use builder::{BatchBuilder, record_bytes};
pub use compression::{Codec, Compression, Compressor, decompress};
pub use control::{ControlRecord, ControlType, MARKER_BYTES, control_record, marker_batch};
pub use error::{BatchError, BuildError, InvalidRecord, ValidateError};
pub use header::{BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, TimestampType};
pub use recompress::recompress;
pub use records::{Header, HeaderIter, Headers, Record, RecordIter, Records};
pub use validate::{Origin, ValidBatch, ValidateOptions, validate};
