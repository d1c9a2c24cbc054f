//! SaslHandshake (API key 17).

use towpath_wire_derive::Message;

/// The request of SaslHandshake, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = SaslHandshake, response = SaslHandshakeResponse, versions = "0-1", flexible = "none")]
pub struct SaslHandshakeRequest {
    /// The SASL mechanism chosen by the client.
    pub mechanism: String,
}

/// The answer to [`SaslHandshakeRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "none")]
pub struct SaslHandshakeResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The mechanisms enabled in the server.
    pub mechanisms: Vec<String>,
}
