//! Heartbeat (API key 12).

use towpath_wire_derive::Message;

/// The request of Heartbeat, versions 0-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Heartbeat, response = HeartbeatResponse, versions = "0-4", flexible = "4+")]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: String,
    /// The generation of the group.
    pub generation_id: i32,
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "3+", nullable = "3+", default = "null")]
    pub group_instance_id: Option<String>,
}

/// The answer to [`HeartbeatRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "4+")]
pub struct HeartbeatResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
