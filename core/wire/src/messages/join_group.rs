//! JoinGroup (API key 11).

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of JoinGroup, versions 0-9.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = JoinGroup, response = JoinGroupResponse, versions = "0-9", flexible = "6+")]
pub struct JoinGroupRequest {
    /// The group.
    pub group_id: String,
    /// The coordinator considers the consumer dead if it receives no heartbeat after this timeout
    /// (milliseconds).
    pub session_timeout_ms: i32,
    /// The maximum time (milliseconds) that the coordinator will wait for each member to rejoin when
    /// rebalancing the group.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub rebalance_timeout_ms: i32,
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "5+", nullable = "5+", default = "null")]
    pub group_instance_id: Option<String>,
    /// The kind of group, e.g. `consumer`.
    pub protocol_type: String,
    /// The list of protocols that the member supports.
    pub protocols: Vec<JoinGroupRequestProtocol>,
    /// The reason why the member (re-)joins the group.
    #[wire(versions = "8+", nullable = "8+", ignorable, default = "null")]
    pub reason: Option<String>,
}

/// A part of [`JoinGroupRequest`]: one entry of `protocols`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct JoinGroupRequestProtocol {
    /// The protocol name.
    pub name: String,
    /// What the client wrote beside the offset.
    pub metadata: Bytes,
}

/// The answer to [`JoinGroupRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-9", flexible = "6+")]
pub struct JoinGroupResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "2+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The generation of the group.
    #[wire(default = "-1")]
    pub generation_id: i32,
    /// The kind of group, e.g. `consumer`.
    #[wire(versions = "7+", nullable = "7+", ignorable, default = "null")]
    pub protocol_type: Option<String>,
    /// The name of the protocol.
    #[wire(nullable = "7+")]
    pub protocol_name: Option<String>,
    /// The leader of the group.
    pub leader: String,
    /// True if the leader must skip running the assignment.
    #[wire(versions = "9+")]
    pub skip_assignment: bool,
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The group members.
    pub members: Vec<JoinGroupResponseMember>,
}

/// A part of [`JoinGroupResponse`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct JoinGroupResponseMember {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub group_instance_id: Option<String>,
    /// The group member metadata.
    pub metadata: Bytes,
}
