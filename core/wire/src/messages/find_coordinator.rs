//! FindCoordinator (API key 10).

use towpath_wire_derive::Message;

/// The request of FindCoordinator, versions 0-6.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = FindCoordinator, response = FindCoordinatorResponse, versions = "0-6", flexible = "3+")]
pub struct FindCoordinatorRequest {
    /// The coordinator key.
    #[wire(versions = "0-3")]
    pub key: String,
    /// The coordinator key type.
    #[wire(versions = "1+")]
    pub key_type: i8,
    /// The coordinator keys.
    #[wire(versions = "4+")]
    pub coordinator_keys: Vec<String>,
}

/// The answer to [`FindCoordinatorRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-6", flexible = "3+")]
pub struct FindCoordinatorResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    #[wire(versions = "0-3")]
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(versions = "1-3", nullable = "1-3", ignorable)]
    pub error_message: Option<String>,
    /// The broker.
    #[wire(versions = "0-3")]
    pub node_id: i32,
    /// The host name.
    #[wire(versions = "0-3")]
    pub host: String,
    /// The port.
    #[wire(versions = "0-3")]
    pub port: i32,
    /// Each coordinator result in the response.
    #[wire(versions = "4+")]
    pub coordinators: Vec<Coordinator>,
}

/// A part of [`FindCoordinatorResponse`]: one entry of `coordinators`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Coordinator {
    /// The coordinator key.
    pub key: String,
    /// The broker.
    pub node_id: i32,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "4+", ignorable)]
    pub error_message: Option<String>,
}
