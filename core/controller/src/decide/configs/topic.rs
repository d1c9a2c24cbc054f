//! Configurations of topics.

use towpath_types::{BrokerId, PartitionEpoch, Rule, TopicName};
use towpath_wire::ErrorCode;

use super::super::policy::TopicPolicy;
use super::super::{AdminError, ClusterPolicy};
use super::{Current, bad_request, differences, records, refused};
use crate::topic_config;
use crate::{Configs, MetadataImage, MetadataRecord, PartitionImage, TopicConfig, TopicImage};

/// No broker: defaults of topics as all brokers have them.
pub(in super::super) const NOBODY: BrokerId = BrokerId::new(-1);

fn find<'a>(image: &'a MetadataImage, topic: &str) -> Result<&'a TopicImage, AdminError> {
    if topic.is_empty() {
        return Err(bad_request("Default topic resources are not allowed."));
    }
    TopicName::new(topic)
        .map_err(|error| AdminError::new(ErrorCode::InvalidTopicException, error.to_string()))?;
    image.topic(topic).map(AsRef::as_ref).ok_or_else(|| {
        AdminError::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{topic}' does not exist."))
    })
}

pub(super) fn current<'a>(
    image: &'a MetadataImage,
    topic: &str,
    policy: &'a ClusterPolicy,
) -> Result<Current<'a>, AdminError> {
    let topic = find(image, topic)?;
    let defaults = image.topic_defaults(NOBODY, &policy.defaults.configs);
    let unset = move |name: &str| {
        let key = topic_config::key(name).ok_or_else(|| refused(&topic_config::unknown(name)))?;
        Ok((key.as_key(), defaults.get(name).map_or(key.default, String::as_str).to_owned()))
    };
    Ok(Current { configs: &topic.configs, unset: Box::new(unset) })
}

pub(super) fn finish(
    image: &MetadataImage,
    topic: &str,
    new: &Configs,
    policy: &ClusterPolicy,
) -> Result<Vec<MetadataRecord>, AdminError> {
    let topic = find(image, topic)?;
    let changes = differences(&topic.configs, new);
    for (name, value) in &changes {
        if let Some(value) = value {
            topic_config::check(name, value).map_err(|problem| refused(&problem))?;
        }
    }
    let node = &policy.defaults.configs;
    TopicConfig::resolve(new, &image.topic_defaults(NOBODY, node)).map_err(|problem| refused(&problem))?;
    let before = policy.topic(image, topic);
    let after = TopicPolicy::new(new, |name| image.shared_default(name), node);
    let eligible =
        if after.asks_for_as_many_as(before) { Vec::new() } else { without_eligible_replicas(topic, policy) };
    let topic_id = topic.id;
    let record = move |name, value| MetadataRecord::TopicConfig { topic_id, name, value };
    Ok(records(&changes, record).chain(eligible).collect())
}

/// Rule 11: who is eligible depends on how many had to be in sync; when that changes, nobody is any more. Where
/// nobody is in sync, nothing was acknowledged since, and those that are eligible stay so: they are all there is.
pub(in super::super) fn without_eligible_replicas(
    topic: &TopicImage,
    policy: &ClusterPolicy,
) -> Vec<MetadataRecord> {
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
            super::super::change::record(topic.id, index, next)
        })
        .collect()
}
