//! IncrementalAlterConfigs (API key 44).

use towpath_wire_derive::Message;

/// The request of IncrementalAlterConfigs, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = IncrementalAlterConfigs, response = IncrementalAlterConfigsResponse, versions = "0-1", flexible = "1+")]
pub struct IncrementalAlterConfigsRequest {
    /// The incremental updates for each resource.
    pub resources: Vec<AlterConfigsResource>,
    /// Whether to check the request without doing it.
    pub validate_only: bool,
}

/// A part of [`IncrementalAlterConfigsRequest`]: one entry of `resources`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterConfigsResource {
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
    /// The configurations.
    pub configs: Vec<AlterableConfig>,
}

/// A part of [`IncrementalAlterConfigsRequest`]: one entry of `configs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterableConfig {
    /// The configuration key name.
    pub name: String,
    /// The type (Set, Delete, Append, Subtract) of operation.
    pub config_operation: i8,
    /// The value to set for the configuration key.
    #[wire(nullable = "0+")]
    pub value: Option<String>,
}

/// The answer to [`IncrementalAlterConfigsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "1+")]
pub struct IncrementalAlterConfigsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The responses for each resource.
    pub responses: Vec<AlterConfigsResourceResponse>,
}

/// A part of [`IncrementalAlterConfigsResponse`]: one entry of `responses`.
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
