//! The features that the cluster uses (KIP-584, KIP-1022).

use std::collections::{BTreeMap, BTreeSet};

use towpath_wire::ErrorCode;

use super::{AdminError, Decision};
use crate::{FeatureRange, MetadataImage, MetadataRecord};

/// Which way a feature's level may go, by the numbers of UpdateFeatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    /// Up only.
    Upgrade,
    /// Down, as long as nothing is lost.
    SafeDowngrade,
    /// Down, whatever is lost.
    UnsafeDowngrade,
}

impl UpgradeType {
    /// The type of a number on the wire.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            1 => Some(Self::Upgrade),
            2 => Some(Self::SafeDowngrade),
            3 => Some(Self::UnsafeDowngrade),
            _ => None,
        }
    }
}

/// A feature's new level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureUpdate {
    /// The feature.
    pub name: String,
    /// Its level; 0 to do without it.
    pub level: i16,
    /// Which way it may go.
    pub upgrade: UpgradeType,
}

/// Decides about levels of features: one answer each, in the order of the request. All are updated or none. The
/// controllers can work with the levels of `supported`, every broker with those that it registered.
#[must_use]
pub fn update_features(
    image: &MetadataImage,
    supported: &BTreeMap<String, FeatureRange>,
    updates: &[FeatureUpdate],
) -> Decision<Vec<Result<(), AdminError>>> {
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    let mut answer: Vec<Result<(), AdminError>> = updates
        .iter()
        .map(|update| {
            if !seen.insert(update.name.as_str()) {
                return Err(AdminError::new(ErrorCode::InvalidRequest, "The feature is named twice."));
            }
            let present = image.features().get(&update.name).copied().unwrap_or(0);
            check(image, supported, update, present)?;
            if update.level != present {
                records.push(MetadataRecord::FeatureLevel { name: update.name.clone(), level: update.level });
            }
            Ok(())
        })
        .collect();
    let failed = updates.iter().zip(&answer).find(|(_, result)| result.is_err());
    if let Some((update, _)) = failed {
        let message = format!(
            "The update failed for all features since the following feature had an error: {}",
            update.name
        );
        let refused = AdminError::new(ErrorCode::FeatureUpdateFailed, message);
        answer.iter_mut().filter(|result| result.is_ok()).for_each(|result| *result = Err(refused.clone()));
        records.clear();
    }
    Decision { records, answer }
}

fn check(
    image: &MetadataImage,
    supported: &BTreeMap<String, FeatureRange>,
    update: &FeatureUpdate,
    present: i16,
) -> Result<(), AdminError> {
    let FeatureUpdate { name, level, upgrade } = update;
    let invalid = |problem: String| {
        let message = format!("Invalid update version {level} for feature {name}. {problem}");
        Err(AdminError::new(ErrorCode::InvalidUpdateVersion, message))
    };
    if *level < 0 {
        return invalid("A feature version cannot be negative.".to_owned());
    }
    let Some(range) = supported.get(name) else {
        return invalid("The controller does not support this feature.".to_owned());
    };
    // Level 0 is to do without the feature, which needs nobody's support.
    let supports = |range: &FeatureRange| *level == 0 || range.contains(*level);
    if !supports(range) {
        return invalid(format!("The controller only supports versions {}-{}.", range.min, range.max));
    }
    for broker in image.brokers().filter(|_| *level != 0) {
        match broker.features.get(name) {
            None => return invalid(format!("Broker {} does not support this feature.", broker.id)),
            Some(range) if !supports(range) => {
                let (min, max) = (range.min, range.max);
                return invalid(format!("Broker {} only supports versions {min}-{max}.", broker.id));
            }
            Some(_) => {}
        }
    }
    match upgrade {
        UpgradeType::Upgrade if *level < present => invalid(
            "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe \
             downgrade."
                .to_owned(),
        ),
        UpgradeType::SafeDowngrade | UpgradeType::UnsafeDowngrade if *level > present => {
            invalid("Can't downgrade to a newer version.".to_owned())
        }
        _ => Ok(()),
    }
}
