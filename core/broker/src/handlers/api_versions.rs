//! ApiVersions: which APIs there are, and in which versions.

use std::sync::Arc;

use towpath_wire::api_versions::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use towpath_wire::frame::encode_response;
use towpath_wire::{ApiKey, ApiVersionsRequest, ApiVersionsResponse, Decoder, ErrorCode, Message};

use super::{Begun, Reply, RequestContext, served_versions};
use crate::connection::ConnectionEnd;
use crate::state::BrokerState;

/// The metadata version of Apache Kafka 4.3, whose semantics the broker has.
const METADATA_VERSION: i16 = 30;

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
    ApiVersionsResponse {
        error_code: ErrorCode::None.code(),
        api_keys: broker.apis.iter().map(|key| range(*key)).collect(),
        supported_features: vec![SupportedFeatureKey {
            name: "metadata.version".to_owned(),
            // Versions 0 to 3 cannot carry a feature that begins at 0 (KAFKA-17011); this one does not.
            min_version: 7,
            max_version: METADATA_VERSION,
        }],
        finalized_features_epoch: broker.controller.image().next_offset().get(),
        finalized_features: vec![FinalizedFeatureKey {
            name: "metadata.version".to_owned(),
            max_version_level: METADATA_VERSION,
            min_version_level: METADATA_VERSION,
        }],
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
