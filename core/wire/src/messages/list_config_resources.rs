//! ListConfigResources (API key 74).

use towpath_wire_derive::Message;

/// The request of ListConfigResources, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ListConfigResources, response = ListConfigResourcesResponse, versions = "0-1", flexible = "0+")]
pub struct ListConfigResourcesRequest {
    /// The list of resource type.
    #[wire(versions = "1+")]
    pub resource_types: Vec<i8>,
}

/// The answer to [`ListConfigResourcesRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct ListConfigResourcesResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// Each config resource in the response.
    pub config_resources: Vec<ConfigResource>,
}

/// A part of [`ListConfigResourcesResponse`]: one entry of `config_resources`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ConfigResource {
    /// The resource name.
    pub resource_name: String,
    /// The resource type.
    #[wire(versions = "1+", ignorable, default = "16")]
    pub resource_type: i8,
}
