//! ListGroups (API key 16).

use towpath_wire_derive::Message;

/// The request of ListGroups, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ListGroups, response = ListGroupsResponse, versions = "0-5", flexible = "3+")]
pub struct ListGroupsRequest {
    /// The states of the groups we want to list.
    #[wire(versions = "4+")]
    pub states_filter: Vec<String>,
    /// The types of the groups we want to list.
    #[wire(versions = "5+")]
    pub types_filter: Vec<String>,
}

/// The answer to [`ListGroupsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "3+")]
pub struct ListGroupsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// Each group in the response.
    pub groups: Vec<ListedGroup>,
}

/// A part of [`ListGroupsResponse`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListedGroup {
    /// The group.
    pub group_id: String,
    /// The kind of group, e.g. `consumer`.
    pub protocol_type: String,
    /// The group state name.
    #[wire(versions = "4+", ignorable)]
    pub group_state: String,
    /// The group type name.
    #[wire(versions = "5+", ignorable)]
    pub group_type: String,
}
