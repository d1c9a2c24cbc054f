//! CreateAcls (API key 30).

use towpath_wire_derive::Message;

/// The request of CreateAcls, versions 1-3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = CreateAcls, response = CreateAclsResponse, versions = "1-3", flexible = "2+")]
pub struct CreateAclsRequest {
    /// The ACLs that we want to create.
    pub creations: Vec<AclCreation>,
}

/// A part of [`CreateAclsRequest`]: one entry of `creations`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AclCreation {
    /// The type of the resource.
    pub resource_type: i8,
    /// The resource name for the ACL.
    pub resource_name: String,
    /// The pattern type for the ACL.
    #[wire(default = "3")]
    pub resource_pattern_type: i8,
    /// The principal for the ACL.
    pub principal: String,
    /// The host name.
    pub host: String,
    /// The operation type for the ACL (read, write, etc.).
    pub operation: i8,
    /// The permission type for the ACL (allow, deny, etc.).
    pub permission_type: i8,
}

/// The answer to [`CreateAclsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-3", flexible = "2+")]
pub struct CreateAclsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The results for each ACL creation.
    pub results: Vec<AclCreationResult>,
}

/// A part of [`CreateAclsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AclCreationResult {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
}
