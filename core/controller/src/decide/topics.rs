//! Creating and deleting topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use towpath_types::{BrokerId, TopicId, TopicName, limits};
use towpath_wire::ErrorCode;

use super::change::record;
use super::configs::NOBODY;
use super::placement::{Placer, new_partition};
use super::{AdminError, Decision};
use crate::{LocalMetadataLog, MetadataImage, MetadataRecord, TopicConfig, topic_config};

/// What a topic gets that does not say otherwise.
#[derive(Debug, Clone)]
pub struct TopicDefaults {
    /// `num.partitions`.
    pub partitions: i32,
    /// `default.replication.factor`.
    pub replication_factor: i16,
    /// The broker's defaults of topic configurations.
    pub configs: BTreeMap<String, String>,
}

/// The brokers of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The partition's index.
    pub partition: i32,
    /// Its brokers, the preferred leader first.
    pub brokers: Vec<BrokerId>,
}

/// A topic to create.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    /// Its name, not yet checked.
    pub name: String,
    /// Its partitions; -1 for the default.
    pub partitions: i32,
    /// Its replicas; -1 for the default.
    pub replication_factor: i16,
    /// The brokers of every partition; empty to let the controller choose.
    pub assignments: Vec<Assignment>,
    /// Configurations that differ from the defaults.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that is created (or would be).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its id.
    pub id: TopicId,
    /// Its partitions.
    pub partitions: i32,
    /// Its replicas.
    pub replication_factor: i16,
    /// Its configurations that differ from the defaults.
    pub configs: BTreeMap<String, String>,
}

/// Decides about new topics: one answer a topic, in the order of the request. The new ids come from `new_id`.
pub fn create_topics(
    image: &MetadataImage,
    topics: &[NewTopic],
    defaults: &TopicDefaults,
    mut new_id: impl FnMut() -> TopicId,
) -> Decision<Vec<Result<CreatedTopic, AdminError>>> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    topics.iter().for_each(|topic| *uses.entry(topic.name.as_str()).or_default() += 1);
    let mut records = Vec::new();
    let mut partitions = image.partition_count();
    let mut placer = Placer::new(image);
    let mut collisions: BTreeMap<String, String> = BTreeMap::new();
    let answer = topics
        .iter()
        .map(|topic| {
            if uses.get(topic.name.as_str()).is_some_and(|count| *count > 1) {
                return Err(AdminError::new(ErrorCode::InvalidRequest, "Duplicate topic name."));
            }
            let name = check_name(image, &topic.name)?;
            let folded = fold(&topic.name);
            if let Some(other) = collisions.get(&folded) {
                return Err(collision(&topic.name, other));
            }
            let (created, mut new) = create_topic(image, &name, topic, defaults, &mut placer, new_id())?;
            partitions = partitions.saturating_add(usize::try_from(created.partitions).unwrap_or(usize::MAX));
            if partitions > limits::PARTITIONS_MAX {
                partitions = partitions.saturating_sub(usize::try_from(created.partitions).unwrap_or(0));
                return Err(AdminError::new(
                    ErrorCode::PolicyViolation,
                    format!("The cluster would have more than {} partitions.", limits::PARTITIONS_MAX),
                ));
            }
            collisions.insert(folded, topic.name.clone());
            records.append(&mut new);
            Ok(created)
        })
        .collect();
    Decision { records, answer }
}

/// Kafka's metric names do not tell `.` from `_`, so two topics may not differ in that alone.
fn fold(name: &str) -> String {
    name.replace('.', "_")
}

fn collision(name: &str, other: &str) -> AdminError {
    AdminError::new(
        ErrorCode::InvalidTopicException,
        format!("Topic '{name}' collides with existing topic: {other}"),
    )
}

fn check_name(image: &MetadataImage, name: &str) -> Result<TopicName, AdminError> {
    let valid = TopicName::new(name)
        .map_err(|error| AdminError::new(ErrorCode::InvalidTopicException, error.to_string()))?;
    if name == LocalMetadataLog::TOPIC {
        // Its directory is that of the metadata log itself.
        let message = format!("Creation of internal topic {name} is prohibited.");
        return Err(AdminError::new(ErrorCode::InvalidRequest, message));
    }
    if image.topic(name).is_some() {
        let message = format!("Topic '{name}' already exists.");
        return Err(AdminError::new(ErrorCode::TopicAlreadyExists, message));
    }
    if name.contains(['.', '_']) {
        let folded = fold(name);
        let other = image.topics().find(|topic| fold(topic.name.as_str()) == folded);
        if let Some(other) = other {
            return Err(collision(name, other.name.as_str()));
        }
    }
    Ok(valid)
}

fn create_topic(
    image: &MetadataImage,
    name: &TopicName,
    topic: &NewTopic,
    defaults: &TopicDefaults,
    placer: &mut Placer<'_>,
    id: TopicId,
) -> Result<(CreatedTopic, Vec<MetadataRecord>), AdminError> {
    let configs = check_configs(image, &topic.configs, defaults)?;
    let (replicas, code) = if topic.assignments.is_empty() {
        (place(placer, topic, defaults)?, ErrorCode::InvalidReplicationFactor)
    } else {
        (check_assignments(image, topic)?, ErrorCode::InvalidReplicaAssignment)
    };
    let created = CreatedTopic {
        id,
        partitions: i32::try_from(replicas.len()).unwrap_or(i32::MAX),
        replication_factor: replicas.first().map_or(-1, |r| i16::try_from(r.len()).unwrap_or(i16::MAX)),
        configs,
    };
    let mut records = Vec::with_capacity(1 + created.configs.len() + replicas.len());
    records.push(MetadataRecord::Topic { name: name.clone(), id, mirror: None });
    records.extend(created.configs.iter().map(|(name, value)| MetadataRecord::TopicConfig {
        topic_id: id,
        name: name.clone(),
        value: Some(value.clone()),
    }));
    for (partition, replicas) in (0..).zip(replicas) {
        records.push(record(id, partition, new_partition(image, replicas, code)?));
    }
    Ok((created, records))
}

fn check_configs(
    image: &MetadataImage,
    configs: &[(String, Option<String>)],
    defaults: &TopicDefaults,
) -> Result<BTreeMap<String, String>, AdminError> {
    let mut checked = BTreeMap::new();
    for (name, value) in configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for topic configs: {name}");
            return Err(AdminError::new(ErrorCode::InvalidConfig, message));
        };
        topic_config::check(name, value)
            .map_err(|problem| AdminError::new(ErrorCode::InvalidConfig, problem.to_string()))?;
        if checked.insert(name.clone(), value.clone()).is_some() {
            let message = format!("Duplicate config name: {name}");
            return Err(AdminError::new(ErrorCode::InvalidConfig, message));
        }
    }
    TopicConfig::resolve(&checked, &image.topic_defaults(NOBODY, &defaults.configs))
        .map_err(|problem| AdminError::new(ErrorCode::InvalidConfig, problem.to_string()))?;
    Ok(checked)
}

/// Checks how many partitions and replicas are asked for, and places them.
fn place(
    placer: &mut Placer<'_>,
    topic: &NewTopic,
    defaults: &TopicDefaults,
) -> Result<Vec<Vec<BrokerId>>, AdminError> {
    let partitions = if topic.partitions == -1 { defaults.partitions } else { topic.partitions };
    if !(1..=limits::PARTITIONS_PER_TOPIC_MAX).contains(&partitions) {
        return Err(AdminError::new(
            ErrorCode::InvalidPartitions,
            format!(
                "Number of partitions was {partitions}; it must be between 1 and {}.",
                limits::PARTITIONS_PER_TOPIC_MAX
            ),
        ));
    }
    let asked = topic.replication_factor;
    let factor = if asked == -1 { defaults.replication_factor } else { asked };
    let count = usize::try_from(factor).unwrap_or(0);
    if count == 0 {
        let message =
            format!("Replication factor must be larger than 0, or -1 to use the default: {factor}.");
        return Err(AdminError::new(ErrorCode::InvalidReplicationFactor, message));
    }
    placer.next_topic();
    placer.place(usize::try_from(partitions).unwrap_or(0), count)
}

fn check_assignments(image: &MetadataImage, topic: &NewTopic) -> Result<Vec<Vec<BrokerId>>, AdminError> {
    if topic.partitions != -1 || topic.replication_factor != -1 {
        return Err(AdminError::new(
            ErrorCode::InvalidRequest,
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1.",
        ));
    }
    let invalid = |message: String| Err(AdminError::new(ErrorCode::InvalidReplicaAssignment, message));
    let mut by_index: BTreeMap<i32, &[BrokerId]> = BTreeMap::new();
    for assignment in &topic.assignments {
        if by_index.insert(assignment.partition, &assignment.brokers).is_some() {
            return invalid(format!(
                "Found multiple manual partition assignments for partition {}",
                assignment.partition
            ));
        }
        check_replicas(image, &assignment.brokers, &[])?;
    }
    if by_index.len() > usize::try_from(limits::PARTITIONS_PER_TOPIC_MAX).unwrap_or(0) {
        return Err(AdminError::new(ErrorCode::InvalidPartitions, "Too many partitions."));
    }
    if by_index.keys().zip(0..).any(|(index, expected)| *index != expected) {
        return invalid("partitions should be a consecutive 0-based integer sequence".to_owned());
    }
    let first = by_index.values().next().map_or(0, |brokers| brokers.len());
    if by_index.values().any(|brokers| brokers.len() != first) {
        return invalid(
            "The manual partition assignment has partitions with different numbers of replicas.".to_owned(),
        );
    }
    Ok(by_index.into_values().map(<[BrokerId]>::to_vec).collect())
}

/// Checks the brokers that a request names for one partition: each once, and registered, unless it is one of the
/// `present` replicas, which may stay where they are.
pub(super) fn check_replicas(
    image: &MetadataImage,
    brokers: &[BrokerId],
    present: &[BrokerId],
) -> Result<(), AdminError> {
    let invalid = |message: String| Err(AdminError::new(ErrorCode::InvalidReplicaAssignment, message));
    if brokers.is_empty() {
        return invalid("The manual partition assignment includes an empty replica list.".to_owned());
    }
    let mut seen = BTreeSet::new();
    for broker in brokers {
        if !seen.insert(broker) {
            return invalid(format!(
                "The manual partition assignment includes the broker {broker} more than once."
            ));
        }
        if image.broker(*broker).is_none() && !present.contains(broker) {
            return invalid(format!(
                "The manual partition assignment includes broker {broker}, but no such broker is registered."
            ));
        }
    }
    Ok(())
}

/// A topic to delete, by name or by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteTarget {
    /// The name, if it is by name.
    pub name: Option<String>,
    /// The id, if it is by id; else zero.
    pub id: TopicId,
}

/// A topic that is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: TopicName,
    /// Its id.
    pub id: TopicId,
}

/// Decides about topics to delete: one answer each, in the order of the request.
#[must_use]
pub fn delete_topics(
    image: &MetadataImage,
    targets: &[DeleteTarget],
) -> Decision<Vec<Result<DeletedTopic, AdminError>>> {
    let find = |target: &DeleteTarget| match &target.name {
        Some(_) if !target.id.is_zero() => Err(AdminError::new(
            ErrorCode::InvalidRequest,
            "You may not specify both topic name and topic id.",
        )),
        Some(name) => image.topic(name).ok_or_else(|| {
            AdminError::new(
                ErrorCode::UnknownTopicOrPartition,
                "This server does not host this topic-partition.",
            )
        }),
        None if target.id.is_zero() => {
            Err(AdminError::new(ErrorCode::InvalidRequest, "Neither topic name nor id were specified."))
        }
        None => image.topic_by_id(target.id).ok_or_else(|| {
            AdminError::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID.")
        }),
    };
    let mut uses: HashMap<TopicId, usize> = HashMap::new();
    for topic in targets.iter().filter_map(|target| find(target).ok()) {
        *uses.entry(topic.id).or_default() += 1;
    }
    let mut records = Vec::new();
    let answer = targets
        .iter()
        .map(|target| {
            let topic = find(target)?;
            if uses.get(&topic.id).is_some_and(|count| *count > 1) {
                return Err(AdminError::new(ErrorCode::InvalidRequest, "Duplicate topic name or id."));
            }
            records.push(MetadataRecord::RemoveTopic { topic_id: topic.id });
            Ok(DeletedTopic { name: topic.name.clone(), id: topic.id })
        })
        .collect();
    Decision { records, answer }
}
