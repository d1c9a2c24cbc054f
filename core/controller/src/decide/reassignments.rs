//! Moving partitions to other brokers (KIP-455).

use std::collections::BTreeSet;

use towpath_types::{BrokerId, TopicName};
use towpath_wire::ErrorCode;

use super::change::{Cluster, PartitionChange, find_partition, find_topic, record};
use super::elections::PartitionRef;
use super::topics::check_replicas;
use super::{AdminError, ClusterPolicy, Decision};
use crate::{MetadataImage, PartitionImage, TopicImage};

/// What one partition's replicas shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: PartitionRef,
    /// The replicas, the preferred leader first; none to undo the reassignment that is going on.
    pub replicas: Option<Vec<BrokerId>>,
}

/// A reassignment that is going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OngoingReassignment {
    /// The topic.
    pub topic: TopicName,
    /// The partition.
    pub partition: i32,
    /// All replicas, those that leave included.
    pub replicas: Vec<BrokerId>,
    /// Those that come.
    pub adding: Vec<BrokerId>,
    /// Those that leave.
    pub removing: Vec<BrokerId>,
}

/// Decides about reassignments: one answer a partition, in the order of the request. Without
/// `allow_replication_factor_change` a partition keeps as many replicas as it has (KIP-860).
#[must_use]
pub fn alter_partition_reassignments(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    reassignments: &[Reassignment],
    allow_replication_factor_change: bool,
) -> Decision<Vec<Result<(), AdminError>>> {
    let cluster = Cluster::new(image, policy);
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    let answer = reassignments
        .iter()
        .map(|asked| {
            let PartitionRef { topic, partition } = &asked.partition;
            if !seen.insert((topic.as_str(), *partition)) {
                return Err(AdminError::new(ErrorCode::InvalidRequest, "The partition is named twice."));
            }
            let topic = find_topic(image, topic)?;
            let old = find_partition(topic, *partition).ok_or_else(AdminError::unknown_partition)?;
            let next = match &asked.replicas {
                Some(target) => {
                    check_replicas(image, target, &old.replicas)?;
                    if !allow_replication_factor_change {
                        check_factor(old, target)?;
                    }
                    reassign(&cluster, topic, old, target)
                }
                None => revert(&cluster, topic, old)?,
            };
            records.extend(next.map(|state| record(topic.id, *partition, state)));
            Ok(())
        })
        .collect();
    Decision { records, answer }
}

fn check_factor(old: &PartitionImage, target: &[BrokerId]) -> Result<(), AdminError> {
    let factor = old.original().count();
    if target.len() == factor {
        return Ok(());
    }
    let message = format!("The replication factor is changed from {factor} to {}", target.len());
    Err(AdminError::new(ErrorCode::InvalidReplicationFactor, message))
}

/// Rule 13: the replicas are the target and, until all of it is in sync, those before it. Replicas of an earlier
/// reassignment that are in neither go at once, unless nobody else is in sync.
fn reassign(
    cluster: &Cluster<'_>,
    topic: &TopicImage,
    old: &PartitionImage,
    target: &[BrokerId],
) -> Option<PartitionImage> {
    let mut original: Vec<BrokerId> = old.original().collect();
    let is_kept = |replica: &BrokerId| target.contains(replica) || original.contains(replica);
    let mut isr: Vec<BrokerId> = old.isr.iter().copied().filter(is_kept).collect();
    if isr.is_empty() {
        original.clone_from(&old.replicas);
        isr.clone_from(&old.isr);
    }
    let mut change =
        PartitionChange::new(*cluster, cluster.policy.topic(cluster.image, topic), old).with_isr(isr);
    change.adding = target.iter().copied().filter(|replica| !original.contains(replica)).collect();
    change.removing = original.iter().copied().filter(|replica| !target.contains(replica)).collect();
    change.replicas = target.iter().chain(&change.removing).copied().collect();
    change.finish()
}

/// Goes back to the replicas before a reassignment.
fn revert(
    cluster: &Cluster<'_>,
    topic: &TopicImage,
    old: &PartitionImage,
) -> Result<Option<PartitionImage>, AdminError> {
    if !old.is_reassigning() {
        let message = "No partition reassignment is in progress.";
        return Err(AdminError::new(ErrorCode::NoReassignmentInProgress, message));
    }
    let topic_policy = cluster.policy.topic(cluster.image, topic);
    let replicas: Vec<BrokerId> = old.original().collect();
    let isr: Vec<BrokerId> = old.isr.iter().copied().filter(|member| replicas.contains(member)).collect();
    // Whoever has all records must not be dropped for those that lack some; nor the last leader, if there is nobody else.
    let candidates = [&old.isr, &old.elr, &old.last_known_elr].into_iter().find(|list| !list.is_empty());
    let candidates = candidates.map_or(&[][..], Vec::as_slice);
    let none_is_left = !candidates.iter().any(|candidate| replicas.contains(candidate));
    let is_unclean = none_is_left && !candidates.is_empty();
    let mut change = PartitionChange::new(*cluster, topic_policy, old).with_isr(isr);
    change.replicas = replicas;
    change.adding.clear();
    change.removing.clear();
    let next = change.finish();
    if is_unclean && (!topic_policy.unclean || next.as_ref().is_none_or(|next| next.leader.is_none())) {
        let message =
            "Unable to revert the partition assignment, since that would require an unclean leader election.";
        return Err(AdminError::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(next)
}

/// The reassignments that are going on, of the partitions named or of all.
#[must_use]
pub fn list_partition_reassignments(
    image: &MetadataImage,
    partitions: Option<&[PartitionRef]>,
) -> Vec<OngoingReassignment> {
    let ongoing = |topic: &TopicImage, partition: i32, state: &PartitionImage| OngoingReassignment {
        topic: topic.name.clone(),
        partition,
        replicas: state.replicas.clone(),
        adding: state.adding_replicas.clone(),
        removing: state.removing_replicas.clone(),
    };
    if let Some(partitions) = partitions {
        let mut seen = BTreeSet::new();
        let named = partitions.iter().filter(|asked| seen.insert((asked.topic.as_str(), asked.partition)));
        return named
            .filter_map(|asked| {
                let topic = image.topic(&asked.topic)?;
                let state = find_partition(topic, asked.partition).filter(|state| state.is_reassigning())?;
                Some(ongoing(topic, asked.partition, state))
            })
            .collect();
    }
    let all = image.topics().flat_map(|topic| (0..).zip(&topic.partitions).map(move |(i, p)| (topic, i, p)));
    all.filter(|(_, _, state)| state.is_reassigning()).map(|(t, i, state)| ongoing(t, i, state)).collect()
}

/// One move of a plan.
pub(super) fn move_to(topic: &TopicImage, partition: i32, replicas: Vec<BrokerId>) -> Reassignment {
    let partition = PartitionRef { topic: topic.name.to_string(), partition };
    Reassignment { partition, replicas: Some(replicas) }
}
