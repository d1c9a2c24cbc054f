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

/// Decides about levels of features: all are updated or none, and the answer is that of the first that cannot be. The
/// controllers can work with the levels of `supported`, every broker with those that it registered; where no level was
/// ever set, the newest of `supported` is in use.
#[must_use]
pub fn update_features(
    image: &MetadataImage,
    supported: &BTreeMap<String, FeatureRange>,
    updates: &[FeatureUpdate],
) -> Decision<Result<(), AdminError>> {
    let mut seen = BTreeSet::new();
    let mut records = Vec::new();
    for update in updates {
        let set = image.features().get(&update.name).copied();
        let newest = supported.get(&update.name).map_or(0, |range| range.max);
        let present = set.unwrap_or(newest);
        let checked = if seen.insert(update.name.as_str()) {
            check(image, supported, update, present)
        } else {
            Err(AdminError::new(
                ErrorCode::InvalidRequest,
                format!("The feature {} is named twice.", update.name),
            ))
        };
        if let Err(error) = checked {
            let message = format!(
                "The update failed for all features since the following feature had an error: {}",
                error.message
            );
            return Decision::unchanged(Err(AdminError { message, ..error }));
        }
        if update.level != present {
            records.push(MetadataRecord::FeatureLevel { name: update.name.clone(), level: update.level });
        }
    }
    Decision { records, answer: Ok(()) }
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

#[cfg(test)]
mod tests {
    use super::super::support::*;
    use super::*;
    use crate::RegisterBroker;

    #[test]
    fn features_change_together() {
        let mut image = MetadataImage::new();
        let range = |min, max| BTreeMap::from([("f".to_owned(), FeatureRange { min, max })]);
        let register = MetadataRecord::RegisterBroker(RegisterBroker { features: range(1, 4), ..broker(1) });
        commit(&mut image, Decision { records: vec![register], answer: () });
        let mut supported = range(1, 5);
        supported.insert("g".to_owned(), FeatureRange { min: 0, max: 1 });
        let update = |name: &str, level, upgrade| FeatureUpdate { name: name.to_owned(), level, upgrade };
        use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
        let refused = |image: &MetadataImage, updates: &[FeatureUpdate]| -> ErrorCode {
            let decision = update_features(image, &supported, updates);
            assert!(decision.records.is_empty());
            decision.answer.err().map_or(ErrorCode::None, |error| error.code)
        };
        let decision = update_features(&image, &supported, &[update("f", 3, SafeDowngrade)]);
        assert_eq!(commit(&mut image, decision), Ok(()));
        assert_eq!(image.features()["f"], 3);
        for bad in [
            update("f", 5, Upgrade),
            update("f", 6, Upgrade),
            update("f", -1, Upgrade),
            update("f", 2, Upgrade),
            update("f", 4, SafeDowngrade),
            update("g", 1, Upgrade),
            update("h", 1, Upgrade),
        ] {
            assert_eq!(
                refused(&image, std::slice::from_ref(&bad)),
                ErrorCode::InvalidUpdateVersion,
                "{bad:?}"
            );
        }
        let both = [update("f", 4, Upgrade), update("h", 1, Upgrade)];
        assert_eq!(refused(&image, &both), ErrorCode::InvalidUpdateVersion);
        let twice = [update("f", 4, Upgrade), update("f", 4, Upgrade)];
        assert_eq!(refused(&image, &twice), ErrorCode::InvalidRequest);
        assert_eq!(refused(&image, &[update("f", 3, Upgrade)]), ErrorCode::None, "as it is");
        let decision = update_features(&image, &supported, &[update("f", 0, UnsafeDowngrade)]);
        assert!(commit(&mut image, decision).is_err());
        assert_eq!(image.features()["f"], 3, "no broker has level 0");
        assert_eq!(refused(&image, &[update("h", 0, UnsafeDowngrade)]), ErrorCode::InvalidUpdateVersion);
        let unknown = [update("f", 3, UpgradeType::from_code(9))];
        assert_eq!(refused(&image, &unknown), ErrorCode::InvalidUpdateVersion);
    }

    /// Until a level is set the newest one is in use: it can be lowered, and raised again.
    #[test]
    fn a_feature_goes_down_and_up() {
        use UpgradeType::{SafeDowngrade, UnsafeDowngrade, Upgrade};
        let mut image = MetadataImage::new();
        let supported = BTreeMap::from([
            ("f".to_owned(), FeatureRange { min: 0, max: 2 }),
            (METADATA_VERSION.to_owned(), FeatureRange { min: 7, max: 30 }),
        ]);
        let register =
            MetadataRecord::RegisterBroker(RegisterBroker { features: supported.clone(), ..broker(1) });
        commit(&mut image, Decision { records: vec![register], answer: () });
        let update = |image: &mut MetadataImage, name: &str, level, upgrade| {
            let update = FeatureUpdate { name: name.to_owned(), level, upgrade };
            let decision = update_features(image, &supported, &[update]);
            commit(image, decision).map_err(|error| error.code)
        };
        let invalid = Err(ErrorCode::InvalidUpdateVersion);
        assert_eq!(update(&mut image, "f", 1, Upgrade), invalid);
        assert_eq!(update(&mut image, "f", 2, SafeDowngrade), Ok(()));
        for level in [1, 0] {
            assert_eq!(update(&mut image, "f", level, SafeDowngrade), Ok(()));
            assert_eq!(image.features()["f"], level);
        }
        assert_eq!(update(&mut image, "f", 1, UnsafeDowngrade), invalid);
        assert_eq!(update(&mut image, "f", 2, Upgrade), Ok(()));
        assert_eq!(update(&mut image, METADATA_VERSION, 30, Upgrade), Ok(()));
        for upgrade in [SafeDowngrade, UnsafeDowngrade] {
            assert_eq!(update(&mut image, METADATA_VERSION, 29, upgrade), invalid);
            assert_eq!(update(&mut image, METADATA_VERSION, 0, upgrade), invalid);
        }
    }
}
