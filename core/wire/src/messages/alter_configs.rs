//! AlterConfigs (API key 33).

use towpath_wire_derive::Message;

/// The request of AlterConfigs, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterConfigs, response = AlterConfigsResponse, versions = "0-2", flexible = "2+")]
pub struct AlterConfigsRequest {
    /// The updates for each resource.
    pub resources: Vec<AlterConfigsResource>,
    /// Whether to check the request without doing it.
    pub validate_only: bool,
}

/// A part of [`AlterConfigsRequest`]: one entry of `resources`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterConfigsResource {
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
    /// The configurations.
    pub configs: Vec<AlterableConfig>,
}

/// A part of [`AlterConfigsRequest`]: one entry of `configs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterableConfig {
    /// The configuration key name.
    pub name: String,
    /// The value to set for the configuration key.
    #[wire(nullable = "0+")]
    pub value: Option<String>,
}

/// The answer to [`AlterConfigsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "2+")]
pub struct AlterConfigsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The responses for each resource.
    pub responses: Vec<AlterConfigsResourceResponse>,
}

/// A part of [`AlterConfigsResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterConfigsResourceResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
}
