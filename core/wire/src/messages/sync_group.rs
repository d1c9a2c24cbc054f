//! SyncGroup (API key 14).

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of SyncGroup, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = SyncGroup, response = SyncGroupResponse, versions = "0-5", flexible = "4+")]
pub struct SyncGroupRequest {
    /// The group.
    pub group_id: String,
    /// The generation of the group.
    pub generation_id: i32,
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "3+", nullable = "3+", default = "null")]
    pub group_instance_id: Option<String>,
    /// The kind of group, e.g. `consumer`.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub protocol_type: Option<String>,
    /// The name of the protocol.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub protocol_name: Option<String>,
    /// Each assignment.
    pub assignments: Vec<SyncGroupRequestAssignment>,
}

/// A part of [`SyncGroupRequest`]: one entry of `assignments`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct SyncGroupRequestAssignment {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The member assignment.
    pub assignment: Bytes,
}

/// The answer to [`SyncGroupRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "4+")]
pub struct SyncGroupResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The kind of group, e.g. `consumer`.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub protocol_type: Option<String>,
    /// The name of the protocol.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub protocol_name: Option<String>,
    /// The member assignment.
    pub assignment: Bytes,
}
