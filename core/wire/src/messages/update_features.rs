//! UpdateFeatures (API key 57).

use towpath_wire_derive::Message;

/// The request of UpdateFeatures, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = UpdateFeatures, response = UpdateFeaturesResponse, versions = "0-2", flexible = "0+")]
pub struct UpdateFeaturesRequest {
    /// Milliseconds to wait for the result.
    #[wire(default = "60000")]
    pub timeout_ms: i32,
    /// The list of updates to finalized features.
    pub feature_updates: Vec<FeatureUpdateKey>,
    /// Whether to check the request without doing it.
    #[wire(versions = "1+")]
    pub validate_only: bool,
}

/// A part of [`UpdateFeaturesRequest`]: one entry of `feature_updates`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FeatureUpdateKey {
    /// The name of the finalized feature to be updated.
    pub feature: String,
    /// The new maximum version level for the finalized feature.
    pub max_version_level: i16,
    /// DEPRECATED in version 1 (see DowngradeType).
    #[wire(versions = "0")]
    pub allow_downgrade: bool,
    /// Determine which type of upgrade will be performed: 1 will perform an upgrade only (default), 2 is safe
    /// downgrades only (lossless), 3 is unsafe downgrades (lossy).
    #[wire(versions = "1+", default = "1")]
    pub upgrade_type: i8,
}

/// The answer to [`UpdateFeaturesRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "0+")]
pub struct UpdateFeaturesResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// Results for each feature update.
    #[wire(versions = "0-1", ignorable)]
    pub results: Vec<UpdatableFeatureResult>,
}

/// A part of [`UpdateFeaturesResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct UpdatableFeatureResult {
    /// The name of the finalized feature.
    pub feature: String,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
}
