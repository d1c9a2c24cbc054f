//! SaslAuthenticate (API key 36).

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of SaslAuthenticate, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = SaslAuthenticate, response = SaslAuthenticateResponse, versions = "0-2", flexible = "2+")]
pub struct SaslAuthenticateRequest {
    /// The SASL authentication bytes from the client, as defined by the SASL mechanism.
    pub auth_bytes: Bytes,
}

/// The answer to [`SaslAuthenticateRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "2+")]
pub struct SaslAuthenticateResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The SASL authentication bytes from the server, as defined by the SASL mechanism.
    pub auth_bytes: Bytes,
    /// Number of milliseconds after which only re-authentication over the existing connection to create a new
    /// session can occur.
    #[wire(versions = "1+", ignorable)]
    pub session_lifetime_ms: i64,
}
