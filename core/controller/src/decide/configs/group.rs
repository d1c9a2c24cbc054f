//! Configurations of groups.

use towpath_types::GroupId;
use towpath_wire::ErrorCode;

use super::super::{AdminError, ClusterPolicy};
use super::{Current, bad_request, differences, records, refused};
use crate::group_config::{self, ConsumerGroupConfig, ShareGroupConfig};
use crate::{Configs, MetadataImage, MetadataRecord};

/// Bytes that the names and configurations of groups may take (R10): every node holds them.
const GROUPS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that a group's configurations take beside its name.
const GROUP_BYTES: usize = 512;

fn check_name(group: &str) -> Result<(), AdminError> {
    if group.is_empty() {
        return Err(bad_request("Default group resources are not allowed."));
    }
    GroupId::new(group).map(drop).map_err(|error| bad_request(error.to_string()))
}

pub(super) fn current<'a>(
    image: &'a MetadataImage,
    group: &str,
    policy: &'a ClusterPolicy,
) -> Result<Current<'a>, AdminError> {
    check_name(group)?;
    let unset = move |name: &str| {
        let config = group_config::key(name).ok_or_else(|| refused(&group_config::unknown(name)))?;
        let default = config
            .broker_name
            .and_then(|name| policy.groups.get(name))
            .map(String::as_str)
            .or(config.key.default);
        Ok((config.key, default.unwrap_or_default().to_owned()))
    };
    Ok(Current { configs: image.dynamic_configs().group(group), unset: Box::new(unset) })
}

pub(super) fn finish(
    image: &MetadataImage,
    group: &str,
    new: &Configs,
    policy: &ClusterPolicy,
) -> Result<Vec<MetadataRecord>, AdminError> {
    let dynamic = image.dynamic_configs();
    let old = dynamic.group(group);
    let changes = differences(old, new);
    for (name, value) in &changes {
        if let Some(value) = value {
            group_config::check(name, value).map_err(|problem| refused(&problem))?;
        }
    }
    if !new.is_empty() {
        ConsumerGroupConfig::resolve(new, &policy.groups).map_err(|problem| refused(&problem))?;
        ShareGroupConfig::resolve(new, &policy.groups).map_err(|problem| refused(&problem))?;
    }
    if old.is_empty() && !new.is_empty() {
        let held: usize = dynamic.groups().map(|(name, _)| name.len() + GROUP_BYTES).sum();
        if held + group.len() + GROUP_BYTES > GROUPS_BYTES_MAX {
            let message = "Too many groups would have configurations of their own.";
            return Err(AdminError::new(ErrorCode::PolicyViolation, message));
        }
    }
    let group = group.to_owned();
    let record = move |name, value| MetadataRecord::GroupConfig { group: group.clone(), name, value };
    Ok(records(&changes, record).collect())
}
