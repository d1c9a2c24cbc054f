//! Adding partitions to topics.

use std::collections::HashMap;

use towpath_types::{BrokerId, limits};
use towpath_wire::ErrorCode;

use super::change::record;
use super::placement::{Placer, new_partition};
use super::topics::check_replicas;
use super::{AdminError, Decision};
use crate::{MetadataImage, MetadataRecord};

/// A topic that shall have more partitions.
#[derive(Debug, Clone)]
pub struct MorePartitions {
    /// The topic.
    pub name: String,
    /// The number of partitions that it shall have.
    pub count: i32,
    /// The brokers of every new partition; none to let the controller choose.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// Decides about more partitions: one answer a topic, in the order of the request.
#[must_use]
pub fn create_partitions(
    image: &MetadataImage,
    topics: &[MorePartitions],
) -> Decision<Vec<Result<(), AdminError>>> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    topics.iter().for_each(|topic| *uses.entry(topic.name.as_str()).or_default() += 1);
    let mut records = Vec::new();
    let mut total = image.partition_count();
    let mut placer = Placer::new(image);
    let answer = topics
        .iter()
        .map(|topic| {
            if uses.get(topic.name.as_str()).is_some_and(|count| *count > 1) {
                return Err(AdminError::new(ErrorCode::InvalidRequest, "Duplicate topic name."));
            }
            let mut new = add(image, topic, total, &mut placer)?;
            total += new.len();
            records.append(&mut new);
            Ok(())
        })
        .collect();
    Decision { records, answer }
}

fn add(
    image: &MetadataImage,
    asked: &MorePartitions,
    total: usize,
    placer: &mut Placer<'_>,
) -> Result<Vec<MetadataRecord>, AdminError> {
    let topic = image.topic(&asked.name).ok_or_else(|| {
        AdminError::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    })?;
    let current = topic.partitions.len();
    let invalid = |message: String| Err(AdminError::new(ErrorCode::InvalidPartitions, message));
    let wanted = match usize::try_from(asked.count) {
        Ok(wanted) if wanted == current => {
            return invalid(format!("Topic already has {current} partition(s)."));
        }
        Ok(wanted) if wanted > current => wanted,
        _ => {
            return invalid(format!(
                "The topic {} currently has {current} partition(s); {} would not be an increase.",
                asked.name, asked.count
            ));
        }
    };
    if asked.count > limits::PARTITIONS_PER_TOPIC_MAX || total + (wanted - current) > limits::PARTITIONS_MAX {
        return invalid(format!("{} partitions are more than this cluster allows.", asked.count));
    }
    let factor = topic.partitions.first().map_or(1, |partition| partition.goal().count());
    let (replicas, code) = match &asked.assignments {
        Some(assignments) => {
            if assignments.len() != wanted - current {
                return Err(AdminError::new(
                    ErrorCode::InvalidReplicaAssignment,
                    format!(
                        "Attempted to add {} additional partition(s), but {} assignment(s) were specified.",
                        wanted - current,
                        assignments.len()
                    ),
                ));
            }
            for brokers in assignments {
                check_assignment(image, brokers, factor)?;
            }
            (assignments.clone(), ErrorCode::InvalidReplicaAssignment)
        }
        None => {
            placer.count_topic(&topic.partitions);
            (placer.place(wanted - current, factor)?, ErrorCode::InvalidReplicationFactor)
        }
    };
    let indices = i32::try_from(current).unwrap_or(i32::MAX)..;
    indices
        .zip(replicas)
        .map(|(index, replicas)| Ok(record(topic.id, index, new_partition(image, replicas, code)?)))
        .collect()
}

fn check_assignment(image: &MetadataImage, brokers: &[BrokerId], factor: usize) -> Result<(), AdminError> {
    check_replicas(image, brokers, &[])?;
    if brokers.len() == factor {
        return Ok(());
    }
    let message = format!("An assignment has {} replica(s), but the topic has {factor}.", brokers.len());
    Err(AdminError::new(ErrorCode::InvalidReplicaAssignment, message))
}
