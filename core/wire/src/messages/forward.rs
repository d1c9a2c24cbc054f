//! Forward (API key 20002, ours): a client's request that only the active controller can answer, with whom it came
//! from, as in Kafka's Envelope (KIP-590); or a broker's own request to another one.

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of Forward, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Forward, response = ForwardResponse, versions = "0", flexible = "0+")]
pub struct ForwardRequest {
    /// The name that the client gives itself; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub client_id: Option<String>,
    /// The client's host as group descriptions show it, e.g. `/10.0.0.7`.
    pub client_host: String,
    /// The whole request: header and body, without the length.
    pub request: Bytes,
    /// Whether it is for the broker that gets it, not for the active controller.
    pub is_for_broker: bool,
}

/// The answer to [`ForwardRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ForwardResponse {
    /// The error code of forwarding; 0 for none. Errors of the request itself are inside `response`.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The offset of the metadata log that the forwarding node has to apply before it passes the answer on, so that
    /// its client sees what it did; -1 for none.
    #[wire(default = "-1")]
    pub metadata_offset: i64,
    /// The active controller as the answering node knows it; -1 if unknown.
    #[wire(default = "-1")]
    pub controller_id: i32,
    /// The whole answer: length, header and body; empty on an error.
    pub response: Bytes,
}
