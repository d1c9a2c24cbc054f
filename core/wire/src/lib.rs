//! The Kafka protocol of Apache Kafka 4.3: messages, frames, error codes. No I/O.
//!
//! - [`messages`] holds one file per API with the request, the response and their parts as plain structs; the
//!   attributes on their fields are the schema, and `#[derive(Message)]` turns it into code.
//! - [`Message`] encodes and decodes a message at a version, [`Request`] names a request's API and response.
//! - [`frame`] holds headers and whole frames, [`ApiKey`] the APIs, [`ErrorCode`] the errors.
//! - [`codec`] holds the primitives, and the field tables ([`codec::StructDescriptor`]).
//!
//! Decoding is bounded (R10): a length is checked against the bytes that are there before anything is allocated
//! for it, and what a frame may make us allocate is proportional to its size. Byte strings and records are slices
//! of the frame: nothing is copied, and the frame lives as long as one of them does.

extern crate self as towpath_wire;

mod api_key;
pub mod codec;
mod error_code;
pub mod frame;
mod message;
pub mod messages;
mod version;

pub use api_key::{ApiKey, UnknownApiKey, request_header_version, response_header_version};
pub use codec::{DecodeError, Decoder, EncodeError, Encoder, Segments};
pub use error_code::ErrorCode;
pub use message::{Message, Request};
pub use messages::*;
pub use version::VersionRange;
