//! DeleteAcls (API key 31).

use towpath_wire_derive::Message;

/// The request of DeleteAcls, versions 1-3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteAcls, response = DeleteAclsResponse, versions = "1-3", flexible = "2+")]
pub struct DeleteAclsRequest {
    /// The filters to use when deleting ACLs.
    pub filters: Vec<DeleteAclsFilter>,
}

/// A part of [`DeleteAclsRequest`]: one entry of `filters`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteAclsFilter {
    /// The resource type.
    pub resource_type_filter: i8,
    /// The resource name; null to match any resource name.
    #[wire(nullable = "0+")]
    pub resource_name_filter: Option<String>,
    /// The pattern type.
    #[wire(default = "3")]
    pub pattern_type_filter: i8,
    /// The principal filter; null to accept all principals.
    #[wire(nullable = "0+")]
    pub principal_filter: Option<String>,
    /// The host filter; null to accept all hosts.
    #[wire(nullable = "0+")]
    pub host_filter: Option<String>,
    /// The ACL operation.
    pub operation: i8,
    /// The permission type.
    pub permission_type: i8,
}

/// The answer to [`DeleteAclsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-3", flexible = "2+")]
pub struct DeleteAclsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The results for each filter.
    pub filter_results: Vec<DeleteAclsFilterResult>,
}

/// A part of [`DeleteAclsResponse`]: one entry of `filter_results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteAclsFilterResult {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The ACLs which matched this filter.
    pub matching_acls: Vec<DeleteAclsMatchingAcl>,
}

/// A part of [`DeleteAclsResponse`]: one entry of `matching_acls`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteAclsMatchingAcl {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The ACL resource type.
    pub resource_type: i8,
    /// The ACL resource name.
    pub resource_name: String,
    /// The ACL resource pattern type.
    #[wire(default = "3")]
    pub pattern_type: i8,
    /// The ACL principal.
    pub principal: String,
    /// The host name.
    pub host: String,
    /// The ACL operation.
    pub operation: i8,
    /// The ACL permission type.
    pub permission_type: i8,
}
