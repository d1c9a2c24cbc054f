//! UpdateFeatures (KIP-584).

use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{Decision, FeatureUpdate, UpgradeType, update_features};
use towpath_wire::update_features::{FeatureUpdateKey, UpdatableFeatureResult};
use towpath_wire::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use super::api_versions::supported_features;
use super::{RequestContext, told};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

fn update(version: i16, key: &FeatureUpdateKey) -> FeatureUpdate {
    let upgrade = match (version, key.allow_downgrade) {
        (0, false) => UpgradeType::Upgrade,
        (0, true) => UpgradeType::SafeDowngrade,
        _ => UpgradeType::from_code(key.upgrade_type),
    };
    FeatureUpdate { name: key.feature.clone(), level: key.max_version_level, upgrade }
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let updates: Vec<_> = request.feature_updates.iter().map(|key| update(cx.version, key)).collect();
    let (supported, validate_only) = (supported_features(), request.validate_only);
    let decide = move |image: &MetadataImage| {
        let decision = update_features(image, &supported, &updates);
        if validate_only { Decision::unchanged(decision.answer) } else { decision }
    };
    let mut response = UpdateFeaturesResponse::default();
    match broker.change(decide).await {
        Ok(answer) => {
            // One error is that of all, and then there is nothing to say of each; as Kafka's controller answers.
            let names = request.feature_updates.into_iter().filter(|_| answer.is_ok());
            response.results = names
                .map(|key| UpdatableFeatureResult { feature: key.feature, ..UpdatableFeatureResult::default() })
                .collect();
            (response.error_code, response.error_message) = told(answer);
        }
        Err(error) => {
            response.error_code = error.code().code();
            response.error_message = Some(ErrorChain(&error).to_string());
        }
    }
    response
}
