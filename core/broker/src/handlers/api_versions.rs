//! ApiVersions: which APIs there are, and in which versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_controller::decide::METADATA_VERSION;
use towpath_controller::{FeatureRange, MetadataImage};
use towpath_wire::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use towpath_wire::frame::encode_response;
use towpath_wire::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, Decoder, ErrorCode, Message};

use super::{Begun, Reply, RequestContext, served_versions};
use crate::connection::ConnectionEnd;
use crate::state::BrokerState;

/// A feature that brokers agree on, and the levels that this one knows (KIP-584).
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    pub(crate) min: i16,
    pub(crate) max: i16,
}

/// The features that this broker knows.
pub(crate) const FEATURES: &[Feature] = &[
    // That of Apache Kafka 4.3, whose semantics the broker has. Versions 0 to 3 of the answer cannot carry a feature that
    // begins at 0 (KAFKA-17011); this one does not.
    Feature { name: METADATA_VERSION, min: 7, max: 30 },
    // KIP-966: the cluster cannot do without it.
    Feature { name: "eligible.leader.replicas.version", min: 1, max: 1 },
    // KIP-890: the producer's epoch is raised with every transaction.
    Feature { name: "transaction.version", min: 0, max: 2 },
    // KIP-848: the consumer group protocol.
    Feature { name: "group.version", min: 0, max: 1 },
    // KIP-932: share groups.
    Feature { name: "share.version", min: 0, max: 1 },
];

/// The same for decisions.
pub(crate) fn supported_features() -> BTreeMap<String, FeatureRange> {
    let range = |feature: &Feature| FeatureRange { min: feature.min, max: feature.max };
    FEATURES.iter().map(|feature| (feature.name.to_owned(), range(feature))).collect()
}

/// The level of a feature that the cluster uses: what was set, else the newest that this broker knows.
fn level(image: &MetadataImage, feature: &Feature) -> i16 {
    image.features().get(feature.name).copied().unwrap_or(feature.max)
}

/// Whether the cluster uses a feature at all.
pub(crate) fn is_enabled(image: &MetadataImage, name: &str) -> bool {
    FEATURES.iter().any(|feature| feature.name == name && level(image, feature) > 0)
}

fn range(key: ApiKey) -> ApiVersion {
    let versions = served_versions(key);
    // librdkafka takes a broker whose Produce does not begin at 0 for one without compression (KAFKA-18659): versions
    // 0 to 2 are listed, and refused.
    let min_version = if key == ApiKey::Produce { 0 } else { versions.min };
    ApiVersion { api_key: key.code(), min_version, max_version: versions.max }
}

/// The answer to a version that is not known: at version 0, with the versions there are (KIP-511).
pub(super) fn unsupported_version(correlation_id: i32) -> Reply {
    let response = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![range(ApiKey::ApiVersions)],
        ..ApiVersionsResponse::default()
    };
    match encode_response(ApiKey::ApiVersions, 0, correlation_id, &response) {
        Ok(segments) => Reply::Frame(segments.into()),
        Err(_) => Reply::Close,
    }
}

pub(super) fn begin(
    broker: &Arc<BrokerState>,
    cx: &RequestContext,
    mut body: Decoder,
) -> Result<Begun, ConnectionEnd> {
    let request = ApiVersionsRequest::decode(&mut body, cx.version)?;
    Ok(Begun::Done(cx.reply(ApiKey::ApiVersions, &handle(broker, cx.version, &request))))
}

fn handle(broker: &BrokerState, version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if version >= 3 && !(is_name(&request.client_software_name) && is_name(&request.client_software_version))
    {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    let image = broker.image();
    // Older versions cannot carry a range that begins at 0 (KAFKA-17011). Of what is in use they tell all: librdkafka
    // and older Java clients learn of `transaction.version` by version 3.
    let known = FEATURES.iter().filter(|feature| version >= 4 || feature.min > 0);
    let supported = known.map(|feature| SupportedFeatureKey {
        name: feature.name.to_owned(),
        min_version: feature.min,
        max_version: feature.max,
    });
    let finalized = FEATURES.iter().filter_map(|feature| {
        let level = level(&image, feature);
        (level > 0).then(|| FinalizedFeatureKey {
            name: feature.name.to_owned(),
            max_version_level: level,
            min_version_level: level,
        })
    });
    ApiVersionsResponse {
        error_code: ErrorCode::None.code(),
        api_keys: broker.apis.iter().map(|key| range(*key)).collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.next_offset().get(),
        finalized_features: finalized.collect(),
        ..ApiVersionsResponse::default()
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, as Kafka checks it.
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}
