//! Why a message could not be read or written.

use crate::{ApiKey, VersionRange};

/// Why bytes are not the message that they should be. Positions count from the start of the decoder's bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error(
        "the message ends at byte {position}, where {needed} more bytes are needed and {remaining} remain"
    )]
    Truncated {
        /// Where the value begins.
        position: usize,
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A length is negative, or greater than what is left.
    #[error("length {length} at byte {position} is out of range: {remaining} bytes remain")]
    LengthOutOfRange {
        /// Where the content would begin.
        position: usize,
        /// The length as read.
        length: i64,
        /// Bytes that are left.
        remaining: usize,
    },
    /// An array claims more elements than the remaining bytes can hold.
    #[error("an array of {count} elements at byte {position} cannot be in the {remaining} bytes that remain")]
    TooManyElements {
        /// Where the first element would begin.
        position: usize,
        /// The number of elements as read.
        count: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// The decoded message would take far more memory than its bytes.
    #[error(
        "the message at byte {position} would take {needed} bytes of memory where {allowed} are left to it"
    )]
    MemoryExceeded {
        /// Where the array's first element would begin.
        position: usize,
        /// Bytes that the array would take.
        needed: usize,
        /// Bytes that the message may still take.
        allowed: usize,
    },
    /// A variable-length integer has more than 32 bits.
    #[error("a variable-length integer at byte {position} has more than 32 bits")]
    VarintOverflow {
        /// Where the integer begins.
        position: usize,
    },
    /// A string is not UTF-8.
    #[error("the string at byte {position} is not UTF-8")]
    InvalidUtf8 {
        /// Where the string's content begins.
        position: usize,
    },
    /// Null where the version does not allow it.
    #[error("null at byte {position}, where a value must be")]
    UnexpectedNull {
        /// Where the value should be.
        position: usize,
    },
    /// A tagged field's content is shorter than its size says.
    #[error("the tagged field that ends at byte {end} has {unread} bytes too many")]
    TaggedFieldSize {
        /// Where the field ends.
        end: usize,
        /// Bytes of it that are not part of its value.
        unread: usize,
    },
    /// A version that the message does not have.
    #[error("{message} has the versions {supported}, not {version}")]
    UnsupportedVersion {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: VersionRange,
    },
    /// A request of an API that Kafka 4.3 does not have.
    #[error("there is no API with the key {key}")]
    UnknownApiKey {
        /// The key as read.
        key: i16,
    },
    /// A request of another API than the one to be read.
    #[error("a request with the key {key} where one of {expected} should be")]
    UnexpectedApiKey {
        /// The key as read.
        key: i16,
        /// The API that should be there.
        expected: ApiKey,
    },
    /// Bytes follow the message.
    #[error("{remaining} bytes follow the message, which ends at byte {position}")]
    TrailingBytes {
        /// Where the message ends.
        position: usize,
        /// Bytes that follow.
        remaining: usize,
    },
}

/// Why a message cannot be written at a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A version that the message does not have.
    #[error("{message} has the versions {supported}, not {version}")]
    UnsupportedVersion {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// The versions there are.
        supported: VersionRange,
    },
    /// A field is set that the version does not have, and that may not be dropped.
    #[error("{message}.{field} is set, but version {version} does not have it")]
    FieldNotInVersion {
        /// Kafka's name of the struct.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// A field is null in a version that does not allow it.
    #[error("{message}.{field} is null, which version {version} does not allow")]
    NullNotAllowed {
        /// Kafka's name of the struct.
        message: &'static str,
        /// The field.
        field: &'static str,
        /// The version.
        version: i16,
    },
    /// A string, byte string, array or frame is longer than its length field can say.
    #[error("{length} is more than the length of {what} can be")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// How long it is, in bytes or elements.
        length: usize,
    },
}
