//! What every message and every request can do.

use std::fmt::Debug;

use bytes::BytesMut;

use crate::codec::{DecodeError, Decoder, EncodeError, Encoder, Value};
use crate::{ApiKey, VersionRange};

/// A message with versions of its own: a request, a response, or the value of an internal topic.
///
/// Derived together with its field table by `#[derive(towpath_wire_derive::Message)]`.
pub trait Message: Value + Default + Clone + PartialEq + Debug {
    /// Kafka's name of the message, e.g. `ProduceRequest`.
    const NAME: &'static str;
    /// The versions that Apache Kafka 4.3 knows.
    const VERSIONS: VersionRange;
    /// The first version with compact lengths and tagged fields (KIP-482); `None` when no version has them.
    const FLEXIBLE_FROM: Option<i16>;

    /// Whether `version` has compact lengths and tagged fields.
    #[must_use]
    fn is_flexible(version: i16) -> bool {
        Self::FLEXIBLE_FROM.is_some_and(|from| version >= from)
    }

    /// Reads the message at `version`. What follows it is left in `d`: see [`Decoder::finish`].
    ///
    /// # Errors
    /// [`DecodeError`] when the version is not in [`Self::VERSIONS`] or the bytes are not such a message.
    fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(DecodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
                supported: Self::VERSIONS,
            });
        }
        Self::decode_value(d, version, Self::is_flexible(version))
    }

    /// Appends the message at `version` to `buf`, copying everything. On an error `buf` is as it was.
    ///
    /// # Errors
    /// [`EncodeError`] when the version is not in [`Self::VERSIONS`], or cannot carry what the message holds.
    fn encode(&self, buf: &mut BytesMut, version: i16) -> Result<(), EncodeError> {
        let before = buf.len();
        let mut encoder = Encoder::copying(std::mem::take(buf));
        let result = self.encode_to(&mut encoder, version);
        *buf = encoder.into_buffer();
        if result.is_err() {
            buf.truncate(before);
        }
        result
    }

    /// Writes the message at `version`; long byte strings and records become segments of their own, uncopied.
    ///
    /// # Errors
    /// [`EncodeError`] when the version is not in [`Self::VERSIONS`], or cannot carry what the message holds.
    fn encode_to(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError> {
        if !Self::VERSIONS.contains(version) {
            return Err(EncodeError::UnsupportedVersion {
                message: Self::NAME,
                version,
                supported: Self::VERSIONS,
            });
        }
        self.encode_value(e, version, Self::is_flexible(version))
    }
}

/// A message that a client sends and that has an answer.
pub trait Request: Message {
    /// The API.
    const KEY: ApiKey;
    /// The answer; it has the request's version.
    type Response: Message;
}

#[cfg(test)]
mod tests;
