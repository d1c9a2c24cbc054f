//! UpdateFeatures (KIP-584).

use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{Decision, FeatureUpdate, UpgradeType, update_features};
use towpath_wire::update_features::{FeatureUpdateKey, UpdatableFeatureResult};
use towpath_wire::{ErrorCode, UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::api_versions::supported_features;
use super::{RequestContext, told};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

fn update(version: i16, key: &FeatureUpdateKey) -> Option<FeatureUpdate> {
    let upgrade = match (version, key.allow_downgrade) {
        (0, false) => UpgradeType::Upgrade,
        (0, true) => UpgradeType::SafeDowngrade,
        _ => UpgradeType::from_code(key.upgrade_type)?,
    };
    Some(FeatureUpdate { name: key.feature.clone(), level: key.max_version_level, upgrade })
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let updates: Option<Vec<_>> = request.feature_updates.iter().map(|key| update(cx.version, key)).collect();
    let Some(updates) = updates else {
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            error_message: Some("There is no such kind of upgrade.".to_owned()),
            ..UpdateFeaturesResponse::default()
        };
    };
    let (supported, validate_only) = (supported_features(), request.validate_only);
    let decide = move |image: &MetadataImage| {
        let decision = update_features(image, &supported, &updates);
        if validate_only { Decision::unchanged(decision.answer) } else { decision }
    };
    let mut response = UpdateFeaturesResponse::default();
    match broker.change(decide).await {
        Ok(answers) => {
            // From version 2 on there is one answer for all (KIP-584's second part).
            let first = answers.iter().find_map(|answer| answer.as_ref().err().cloned());
            (response.error_code, response.error_message) = told(first.map_or(Ok(()), Err));
            let named = request.feature_updates.into_iter().zip(answers);
            response.results = named
                .map(|(key, answer)| {
                    let (error_code, error_message) = told(answer);
                    UpdatableFeatureResult { feature: key.feature, error_code, error_message }
                })
                .collect();
            if cx.version < 2 {
                (response.error_code, response.error_message) = (0, None);
            }
        }
        Err(error) => {
            response.error_code = error.code().code();
            response.error_message = Some(ErrorChain(&error).to_string());
        }
    }
    response
}
