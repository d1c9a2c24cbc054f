//! ApiVersions (API key 18).

use towpath_wire_derive::Message;

/// The request of ApiVersions, versions 0-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ApiVersions, response = ApiVersionsResponse, versions = "0-4", flexible = "3+")]
pub struct ApiVersionsRequest {
    /// The name of the client.
    #[wire(versions = "3+", ignorable)]
    pub client_software_name: String,
    /// The version of the client.
    #[wire(versions = "3+", ignorable)]
    pub client_software_version: String,
}

/// The answer to [`ApiVersionsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "3+")]
pub struct ApiVersionsResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The APIs supported by the broker.
    pub api_keys: Vec<ApiVersion>,
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "1+", ignorable)]
    pub throttle_time_ms: i32,
    /// Features supported by the broker.
    #[wire(versions = "3+", tag = 0, tagged = "3+", ignorable)]
    pub supported_features: Vec<SupportedFeatureKey>,
    /// The monotonically increasing epoch for the finalized features information.
    #[wire(versions = "3+", tag = 1, tagged = "3+", ignorable, default = "-1")]
    pub finalized_features_epoch: i64,
    /// List of cluster-wide finalized features.
    #[wire(versions = "3+", tag = 2, tagged = "3+", ignorable)]
    pub finalized_features: Vec<FinalizedFeatureKey>,
    /// Set by a KRaft controller if the required configurations for ZK migration are present.
    #[wire(versions = "3+", tag = 3, tagged = "3+", ignorable)]
    pub zk_migration_ready: bool,
}

/// A part of [`ApiVersionsResponse`]: one entry of `api_keys`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ApiVersion {
    /// The API index.
    pub api_key: i16,
    /// The minimum supported version, inclusive.
    pub min_version: i16,
    /// The maximum supported version, inclusive.
    pub max_version: i16,
}

/// A part of [`ApiVersionsResponse`]: one entry of `supported_features`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct SupportedFeatureKey {
    /// The name of the feature.
    pub name: String,
    /// The minimum supported version for the feature.
    pub min_version: i16,
    /// The maximum supported version for the feature.
    pub max_version: i16,
}

/// A part of [`ApiVersionsResponse`]: one entry of `finalized_features`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FinalizedFeatureKey {
    /// The name of the feature.
    pub name: String,
    /// The cluster-wide finalized max version level for the feature.
    pub max_version_level: i16,
    /// The cluster-wide finalized min version level for the feature.
    pub min_version_level: i16,
}
