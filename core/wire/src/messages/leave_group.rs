//! LeaveGroup (API key 13).

use towpath_wire_derive::Message;

/// The request of LeaveGroup, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = LeaveGroup, response = LeaveGroupResponse, versions = "0-5", flexible = "4+")]
pub struct LeaveGroupRequest {
    /// The group.
    pub group_id: String,
    /// The id that the coordinator gave to the member.
    #[wire(versions = "0-2")]
    pub member_id: String,
    /// List of leaving member identities.
    #[wire(versions = "3+")]
    pub members: Vec<MemberIdentity>,
}

/// A part of [`LeaveGroupRequest`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MemberIdentity {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(nullable = "3+", default = "null")]
    pub group_instance_id: Option<String>,
    /// The reason why the member left the group.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub reason: Option<String>,
}

/// The answer to [`LeaveGroupRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "4+")]
pub struct LeaveGroupResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// List of leaving member responses.
    #[wire(versions = "3+")]
    pub members: Vec<MemberResponse>,
}

/// A part of [`LeaveGroupResponse`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MemberResponse {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(nullable = "3+")]
    pub group_instance_id: Option<String>,
    /// The error code; 0 for none.
    pub error_code: i16,
}
