//! Quorum (API key 20001, ours): one message of the metadata quorum. What is inside is the quorum's own business.

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of Quorum, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Quorum, response = QuorumResponse, versions = "0", flexible = "0+")]
pub struct QuorumRequest {
    /// The message.
    pub message: Bytes,
}

/// The answer to [`QuorumRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct QuorumResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The answer to the message; empty on an error.
    pub message: Bytes,
}
