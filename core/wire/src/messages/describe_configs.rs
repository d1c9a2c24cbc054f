//! DescribeConfigs (API key 32).

use towpath_wire_derive::Message;

/// The request of DescribeConfigs, versions 1-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeConfigs, response = DescribeConfigsResponse, versions = "1-4", flexible = "4+")]
pub struct DescribeConfigsRequest {
    /// The resources whose configurations we want to describe.
    pub resources: Vec<DescribeConfigsResource>,
    /// True if we should include all synonyms.
    pub include_synonyms: bool,
    /// True if we should include configuration documentation.
    #[wire(versions = "3+")]
    pub include_documentation: bool,
}

/// A part of [`DescribeConfigsRequest`]: one entry of `resources`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeConfigsResource {
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
    /// The configuration keys to list; null to list all configuration keys.
    #[wire(nullable = "0+")]
    pub configuration_keys: Option<Vec<String>>,
}

/// The answer to [`DescribeConfigsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-4", flexible = "4+")]
pub struct DescribeConfigsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The results for each resource.
    pub results: Vec<DescribeConfigsResult>,
}

/// A part of [`DescribeConfigsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeConfigsResult {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The resource type.
    pub resource_type: i8,
    /// The resource name.
    pub resource_name: String,
    /// Each listed configuration.
    pub configs: Vec<DescribeConfigsResourceResult>,
}

/// A part of [`DescribeConfigsResponse`]: one entry of `configs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeConfigsResourceResult {
    /// The configuration name.
    pub name: String,
    /// The configuration value.
    #[wire(nullable = "0+")]
    pub value: Option<String>,
    /// True if the configuration is read-only.
    pub read_only: bool,
    /// The configuration source.
    #[wire(ignorable, default = "-1")]
    pub config_source: i8,
    /// True if this configuration is sensitive.
    pub is_sensitive: bool,
    /// The synonyms for this configuration key.
    #[wire(ignorable)]
    pub synonyms: Vec<DescribeConfigsSynonym>,
    /// The configuration data type.
    #[wire(versions = "3+", ignorable)]
    pub config_type: i8,
    /// The configuration documentation.
    #[wire(versions = "3+", nullable = "0+", ignorable)]
    pub documentation: Option<String>,
}

/// A part of [`DescribeConfigsResponse`]: one entry of `synonyms`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeConfigsSynonym {
    /// The synonym name.
    pub name: String,
    /// The synonym value.
    #[wire(nullable = "0+")]
    pub value: Option<String>,
    /// The synonym source.
    pub source: i8,
}
