//! DescribeAcls (API key 29).

use towpath_wire_derive::Message;

/// The request of DescribeAcls, versions 1-3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeAcls, response = DescribeAclsResponse, versions = "1-3", flexible = "2+")]
pub struct DescribeAclsRequest {
    /// The resource type.
    pub resource_type_filter: i8,
    /// The resource name; null to match any resource name.
    #[wire(nullable = "0+")]
    pub resource_name_filter: Option<String>,
    /// The resource pattern to match.
    #[wire(default = "3")]
    pub pattern_type_filter: i8,
    /// The principal to match; null to match any principal.
    #[wire(nullable = "0+")]
    pub principal_filter: Option<String>,
    /// The host to match; null to match any host.
    #[wire(nullable = "0+")]
    pub host_filter: Option<String>,
    /// The operation to match.
    pub operation: i8,
    /// The permission type to match.
    pub permission_type: i8,
}

/// The answer to [`DescribeAclsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-3", flexible = "2+")]
pub struct DescribeAclsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// Each Resource that is referenced in an ACL.
    pub resources: Vec<DescribeAclsResource>,
}

/// A part of [`DescribeAclsResponse`]: one entry of `resources`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeAclsResource {
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
    /// The resource pattern type.
    #[wire(default = "3")]
    pub pattern_type: i8,
    /// The ACLs.
    pub acls: Vec<AclDescription>,
}

/// A part of [`DescribeAclsResponse`]: one entry of `acls`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AclDescription {
    /// The ACL principal.
    pub principal: String,
    /// The host name.
    pub host: String,
    /// The ACL operation.
    pub operation: i8,
    /// The ACL permission type.
    pub permission_type: i8,
}
