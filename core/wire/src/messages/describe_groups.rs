//! DescribeGroups (API key 15).

use bytes::Bytes;
use towpath_wire_derive::Message;

/// The request of DescribeGroups, versions 0-6.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeGroups, response = DescribeGroupsResponse, versions = "0-6", flexible = "5+")]
pub struct DescribeGroupsRequest {
    /// The names of the groups to describe.
    pub groups: Vec<String>,
    /// Whether to include authorized operations.
    #[wire(versions = "3+")]
    pub include_authorized_operations: bool,
}

/// The answer to [`DescribeGroupsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-6", flexible = "5+")]
pub struct DescribeGroupsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// Each described group.
    pub groups: Vec<DescribedGroup>,
}

/// A part of [`DescribeGroupsResponse`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribedGroup {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(versions = "6+", nullable = "6+", default = "null")]
    pub error_message: Option<String>,
    /// The group.
    pub group_id: String,
    /// The group state string, or the empty string.
    pub group_state: String,
    /// The kind of group, e.g. `consumer`.
    pub protocol_type: String,
    /// The group protocol data, or the empty string.
    pub protocol_data: String,
    /// The group members.
    pub members: Vec<DescribedGroupMember>,
    /// The operations the client may do, as a bit set; -2147483648 if not asked for.
    #[wire(versions = "3+", default = "-2147483648")]
    pub authorized_operations: i32,
}

/// A part of [`DescribeGroupsResponse`]: one entry of `members`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribedGroupMember {
    /// The id that the coordinator gave to the member.
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "4+", nullable = "4+", ignorable, default = "null")]
    pub group_instance_id: Option<String>,
    /// The client id used in the member's latest join group request.
    pub client_id: String,
    /// The client host.
    pub client_host: String,
    /// The metadata corresponding to the current group protocol in use.
    pub member_metadata: Bytes,
    /// The current assignment provided by the group leader.
    pub member_assignment: Bytes,
}
