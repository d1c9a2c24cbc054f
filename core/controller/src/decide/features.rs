//! The features that the cluster uses (KIP-584, KIP-1022).

use std::collections::{BTreeMap, BTreeSet};

use towpath_wire::ErrorCode;

use super::{AdminError, Decision};
use crate::{FeatureRange, MetadataImage, MetadataRecord};

/// The feature by whose level Kafka's controllers know which metadata records there are (KIP-778).
pub const METADATA_VERSION: &str = "metadata.version";

/// What can be done with a feature that nobody named: to do without it.
const DISABLED: FeatureRange = FeatureRange { min: 0, max: 0 };

/// Which way a feature's level may go, by the numbers of UpdateFeatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeType {
    /// A number that means nothing.
    Unknown,
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
    pub const fn from_code(code: i8) -> Self {
        match code {
            1 => Self::Upgrade,
            2 => Self::SafeDowngrade,
            3 => Self::UnsafeDowngrade,
            _ => Self::Unknown,
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
/// controllers can work with the levels of `supported`, every broker with those that it registered; where no level was
/// ever set, the newest of `supported` is in use.
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
            let set = image.features().get(&update.name).copied();
            let newest = supported.get(&update.name).map_or(0, |range| range.max);
            let present = set.unwrap_or(newest);
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
    if *upgrade == UpgradeType::Unknown {
        return invalid("The controller does not support the given upgrade type.".to_owned());
    }
    if *level < 0 {
        return invalid("A feature version cannot be less than 0.".to_owned());
    }
    let controller = supported.get(name).copied();
    unsupported(*level, "The controller", controller).map_or(Ok(()), &invalid)?;
    for broker in image.brokers() {
        let range = broker.features.get(name).copied();
        unsupported(*level, &format!("Broker {}", broker.id), range).map_or(Ok(()), &invalid)?;
    }
    if controller.is_none() {
        return invalid(format!("Feature {name} not found."));
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
        // As in Kafka, since every level brought records that older ones do not know.
        _ if name == METADATA_VERSION && *level < present => Err(AdminError::new(
            ErrorCode::InvalidUpdateVersion,
            format!(
                "Unsupported metadata.version downgrade from {present} to {level}. Refusing to perform the requested \
                 downgrade because it might delete metadata information."
            ),
        )),
        _ => Ok(()),
    }
}

/// Why somebody who knows the levels of `range`, or nothing of the feature, cannot work with `level`.
fn unsupported(level: i16, who: &str, range: Option<FeatureRange>) -> Option<String> {
    match range {
        _ if range.unwrap_or(DISABLED).contains(level) => None,
        None => Some(format!("{who} does not support this feature.")),
        Some(FeatureRange { min, max }) => Some(format!("{who} only supports versions {min}-{max}.")),
    }
}
