//! What can be wrong with a batch.

use crate::Compression;

/// A batch whose bytes cannot be read. To a client this is `CORRUPT_MESSAGE`, unless said otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The bytes end before the batch does.
    #[error("the record batch is cut short: {needed} bytes needed, {available} there")]
    Truncated {
        /// Bytes that the batch says it has.
        needed: usize,
        /// Bytes that are there.
        available: usize,
    },
    /// `batch_length` is smaller than the header that it covers, or negative.
    #[error("the record batch's length field says {0}, which no batch can have")]
    Length(i32),
    /// Not record batch v2 (older message sets are not supported since Kafka 4.0).
    #[error("the record batch has magic {0}; only 2 is supported")]
    Magic(i8),
    /// The checksum does not match the bytes.
    #[error("the record batch's CRC-32C is {stored:#010x}, but its bytes give {computed:#010x}")]
    Crc {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// A compression id that Kafka does not define.
    #[error("unknown compression id {0}")]
    UnknownCompression(u8),
    /// The codec could not read the payload.
    #[error("the {compression} payload cannot be decompressed")]
    Decompress {
        /// The codec.
        compression: Compression,
        /// Its complaint.
        #[source]
        source: std::io::Error,
    },
    /// R10: the payload decompresses to more than allowed.
    #[error("the record batch decompresses to more than {max} bytes")]
    UncompressedTooLarge {
        /// The bound.
        max: usize,
    },
    /// A record's structure contradicts itself.
    #[error("record {index} of the batch is malformed: {problem}")]
    Record {
        /// The record's index in its batch.
        index: i32,
        /// What is wrong.
        problem: &'static str,
    },
    /// The header contradicts itself.
    #[error("the record batch's header is inconsistent: {0}")]
    Header(&'static str),
}

/// Why a record could not be added to a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A key, value, header or the whole batch has more bytes than an `i32` can say, or than the bound allows.
    #[error("the record batch would have more than {max} bytes")]
    TooLarge {
        /// The bound.
        max: usize,
    },
    /// Offsets inside a batch grow.
    #[error("offset delta {delta} does not follow {last}")]
    OffsetOrder {
        /// The delta asked for.
        delta: i32,
        /// The last delta of the batch.
        last: i32,
    },
    /// The codec failed.
    #[error("compression with {compression} failed")]
    Compress {
        /// The codec.
        compression: Compression,
        /// Its complaint.
        #[source]
        source: std::io::Error,
    },
}

/// One record that the broker refuses (`BatchIndexAndErrorMessage` of the produce response).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRecord {
    /// The record's index in its batch.
    pub index: i32,
    /// Why.
    pub problem: &'static str,
}

/// Why a produced batch is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// `CORRUPT_MESSAGE`.
    #[error(transparent)]
    Corrupt(#[from] BatchError),
    /// `INVALID_RECORD` for the whole batch.
    #[error("invalid record batch: {0}")]
    InvalidBatch(&'static str),
    /// `INVALID_RECORD`, with the records at fault.
    #[error("{} invalid record(s) in the batch, first at index {}: {}", .0.len(), .0[0].index, .0[0].problem)]
    InvalidRecords(Vec<InvalidRecord>),
    /// `INVALID_TIMESTAMP`, with the records at fault.
    #[error("{} record(s) with a timestamp out of range, first at index {}: {}", .0.len(), .0[0].index, .0[0].problem)]
    InvalidTimestamps(Vec<InvalidRecord>),
    /// `MESSAGE_TOO_LARGE`.
    #[error("the record batch has {bytes} bytes, more than the {max} allowed by max.message.bytes")]
    TooLarge {
        /// The batch's size.
        bytes: usize,
        /// `max.message.bytes`.
        max: usize,
    },
    /// The batch could not be compressed with the topic's codec.
    #[error(transparent)]
    Rewrite(BuildError),
    /// `UNSUPPORTED_COMPRESSION_TYPE`.
    #[error("{0} is not allowed here")]
    UnsupportedCompression(Compression),
}
