//! UnregisterBroker (API key 64).

use towpath_wire_derive::Message;

/// The request of UnregisterBroker, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = UnregisterBroker, response = UnregisterBrokerResponse, versions = "0", flexible = "0+")]
pub struct UnregisterBrokerRequest {
    /// The broker id to unregister.
    pub broker_id: i32,
}

/// The answer to [`UnregisterBrokerRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct UnregisterBrokerResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
}
