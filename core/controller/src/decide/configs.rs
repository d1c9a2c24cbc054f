//! Changing the configurations of a topic.

use std::collections::{BTreeMap, BTreeSet};

use towpath_types::{PartitionEpoch, Rule};
use towpath_wire::ErrorCode;

use super::policy::TopicPolicy;
use super::{AdminError, ClusterPolicy, Decision};
use crate::topic_config::{self, ConfigType};
use crate::{MetadataImage, MetadataRecord, PartitionImage, TopicConfig, TopicImage};

/// What to do with one configuration (IncrementalAlterConfigs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigOperation {
    /// Set it.
    Set,
    /// Go back to the default.
    Delete,
    /// Add elements to a list.
    Append,
    /// Take elements out of a list.
    Subtract,
}

impl ConfigOperation {
    /// The operation of a number on the wire.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Set),
            1 => Some(Self::Delete),
            2 => Some(Self::Append),
            3 => Some(Self::Subtract),
            _ => None,
        }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub struct ConfigChange {
    /// The configuration.
    pub name: String,
    /// What to do.
    pub operation: ConfigOperation,
    /// With which value.
    pub value: Option<String>,
}

fn invalid(message: impl Into<String>) -> AdminError {
    AdminError::new(ErrorCode::InvalidConfig, message)
}

fn find<'a>(image: &'a MetadataImage, topic: &str) -> Result<&'a TopicImage, AdminError> {
    image.topic(topic).map(AsRef::as_ref).ok_or_else(|| {
        AdminError::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{topic}' does not exist."))
    })
}

/// Decides about single changes of a topic's configurations.
///
/// # Errors
/// [`AdminError`] when any of the changes cannot be; then none is made.
pub fn alter_topic_config(
    image: &MetadataImage,
    topic: &str,
    changes: &[ConfigChange],
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let topic = find(image, topic)?;
    let mut names = BTreeSet::new();
    let mut configs = topic.configs.clone();
    for change in changes {
        if !names.insert(change.name.as_str()) {
            let message = format!("Error due to duplicate config keys: {}", change.name);
            return Err(AdminError::new(ErrorCode::InvalidRequest, message));
        }
        apply(&mut configs, change, &policy.defaults.configs)?;
    }
    finish(image, topic, &configs, policy)
}

/// Decides about all of a topic's configurations at once: those not named go back to their defaults.
///
/// # Errors
/// [`AdminError`] when any of them is not valid; then nothing changes.
pub fn replace_topic_config(
    image: &MetadataImage,
    topic: &str,
    configs: &[(String, Option<String>)],
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let topic = find(image, topic)?;
    let mut new = BTreeMap::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for : {name}");
            return Err(AdminError::new(ErrorCode::InvalidRequest, message));
        };
        if new.insert(name.clone(), value.clone()).is_some() {
            let message = format!("Error due to duplicate config keys: {name}");
            return Err(AdminError::new(ErrorCode::InvalidRequest, message));
        }
    }
    finish(image, topic, &new, policy)
}

fn apply(
    configs: &mut BTreeMap<String, String>,
    change: &ConfigChange,
    broker: &BTreeMap<String, String>,
) -> Result<(), AdminError> {
    let key = topic_config::key(&change.name)
        .ok_or_else(|| invalid(topic_config::ConfigProblem::Unknown(change.name.clone()).to_string()))?;
    if change.operation == ConfigOperation::Delete {
        configs.remove(key.name);
        return Ok(());
    }
    let Some(value) = &change.value else {
        let message = format!("Null value not supported for : {}", key.name);
        return Err(AdminError::new(ErrorCode::InvalidRequest, message));
    };
    if change.operation == ConfigOperation::Set {
        configs.insert(key.name.to_owned(), value.clone());
        return Ok(());
    }
    if key.config_type != ConfigType::List {
        return Err(invalid(format!(
            "Can't {} to key {} because its type is not LIST.",
            if change.operation == ConfigOperation::Append { "APPEND" } else { "SUBTRACT" },
            key.name
        )));
    }
    let current = configs.get(key.name).or_else(|| broker.get(key.name)).map_or(key.default, String::as_str);
    let mut elements: Vec<&str> = topic_config::list(current).collect();
    for element in topic_config::list(value) {
        match change.operation {
            ConfigOperation::Append if !elements.contains(&element) => elements.push(element),
            ConfigOperation::Subtract => elements.retain(|present| *present != element),
            _ => {}
        }
    }
    let joined = elements.join(",");
    configs.insert(key.name.to_owned(), joined);
    Ok(())
}

/// Checks the whole, and makes the records of what differs.
fn finish(
    image: &MetadataImage,
    topic: &TopicImage,
    new: &BTreeMap<String, String>,
    policy: &ClusterPolicy,
) -> Result<Decision<()>, AdminError> {
    let broker = &policy.defaults.configs;
    for (name, value) in new {
        if topic.configs.get(name) != Some(value) {
            topic_config::check(name, value).map_err(|problem| invalid(problem.to_string()))?;
        }
    }
    TopicConfig::resolve(new, &image.topic_defaults(broker))
        .map_err(|problem| invalid(problem.to_string()))?;
    let record = |name: &String, value: Option<&String>| MetadataRecord::TopicConfig {
        topic_id: topic.id,
        name: name.clone(),
        value: value.cloned(),
    };
    let (before, after) =
        (policy.topic(image, topic), TopicPolicy::new(new, image.cluster_configs(), broker));
    let eligible =
        if after.asks_for_as_many_as(before) { Vec::new() } else { without_eligible_replicas(topic, policy) };
    let set = new.iter().filter(|(name, value)| topic.configs.get(*name) != Some(value));
    let removed = topic.configs.keys().filter(|name| !new.contains_key(*name));
    let records = set
        .map(|(name, value)| record(name, Some(value)))
        .chain(removed.map(|name| record(name, None)))
        .chain(eligible)
        .collect();
    Ok(Decision { records, answer: () })
}

/// Rule 11: who is eligible depends on how many had to be in sync; when that changes, nobody is any more. Where
/// nobody is in sync, nothing was acknowledged since, and those that are eligible stay so: they are all there is.
pub(super) fn without_eligible_replicas(topic: &TopicImage, policy: &ClusterPolicy) -> Vec<MetadataRecord> {
    if !policy.rules.holds(Rule::EligibleLeaderReplicas) {
        return Vec::new();
    }
    let concerned = (0..).zip(&topic.partitions).filter(|(_, state)| !state.isr.is_empty());
    concerned
        .filter(|(_, state)| !state.elr.is_empty())
        .map(|(index, state)| {
            let next = PartitionImage {
                elr: Vec::new(),
                partition_epoch: PartitionEpoch::new(state.partition_epoch.get().saturating_add(1)),
                ..state.clone()
            };
            super::change::record(topic.id, index, next)
        })
        .collect()
}
