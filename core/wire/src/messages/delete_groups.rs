//! DeleteGroups (API key 42).

use towpath_wire_derive::Message;

/// The request of DeleteGroups, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteGroups, response = DeleteGroupsResponse, versions = "0-2", flexible = "2+")]
pub struct DeleteGroupsRequest {
    /// The group names to delete.
    pub groups_names: Vec<String>,
}

/// The answer to [`DeleteGroupsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "2+")]
pub struct DeleteGroupsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The deletion results.
    pub results: Vec<DeletableGroupResult>,
}

/// A part of [`DeleteGroupsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeletableGroupResult {
    /// The group.
    pub group_id: String,
    /// The error code; 0 for none.
    pub error_code: i16,
}
