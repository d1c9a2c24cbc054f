//! Elections that somebody asks for, or that even out who leads what (KIP-460).

use std::collections::BTreeMap;

use towpath_types::{BrokerId, TopicName};
use towpath_wire::ErrorCode;

use super::change::{Cluster, Election, PartitionChange, find_partition, find_topic, record};
use super::{AdminError, ClusterPolicy, Decision};
use crate::{MetadataImage, MetadataRecord, PartitionImage, TopicImage};

/// The kind of an election, by the numbers of ElectLeaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica of the assignment, if it is in sync.
    Preferred,
    /// Whoever is there, for partitions without a leader; records may be lost. That an operator asks for it is
    /// enough, whatever the topic's `unclean.leader.election.enable` says.
    Unclean,
}

impl ElectionKind {
    /// The kind of a number on the wire.
    #[must_use]
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            0 => Some(Self::Preferred),
            1 => Some(Self::Unclean),
            _ => None,
        }
    }
}

/// A partition that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRef {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// What became of the election of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElectionResult {
    /// The partition.
    pub partition: PartitionRef,
    /// Whether a leader was elected.
    pub result: Result<(), AdminError>,
}

/// Decides about elections: of the partitions named, one answer each in the order of the request; or of all
/// partitions, and then those that need none are not spoken of.
#[must_use]
pub fn elect_leaders(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    kind: ElectionKind,
    partitions: Option<&[PartitionRef]>,
) -> Decision<Vec<ElectionResult>> {
    let cluster = Cluster::new(image, policy);
    let mut records = Vec::new();
    let mut answer = Vec::new();
    if let Some(partitions) = partitions {
        let mut seen = std::collections::BTreeSet::new();
        for asked in partitions {
            let result = if seen.insert((asked.topic.as_str(), asked.partition)) {
                find_topic(image, &asked.topic)
                    .and_then(|topic| elect(&cluster, topic, asked.partition, kind, &mut records))
            } else {
                Err(AdminError::new(ErrorCode::InvalidRequest, "The partition is named twice."))
            };
            answer.push(ElectionResult { partition: asked.clone(), result });
        }
        return Decision { records, answer };
    }
    for topic in image.topics() {
        for partition in indices(topic) {
            let result = elect(&cluster, topic, partition, kind, &mut records);
            if !matches!(&result, Err(error) if error.code == ErrorCode::ElectionNotNeeded) {
                let topic = topic.name.to_string();
                answer.push(ElectionResult { partition: PartitionRef { topic, partition }, result });
            }
        }
    }
    Decision { records, answer }
}

fn indices(topic: &TopicImage) -> std::ops::Range<i32> {
    0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

fn elect(
    cluster: &Cluster<'_>,
    topic: &TopicImage,
    partition: i32,
    kind: ElectionKind,
    records: &mut Vec<MetadataRecord>,
) -> Result<(), AdminError> {
    let old = find_partition(topic, partition).ok_or_else(AdminError::unknown_partition)?;
    let (needed, election, unavailable) = match kind {
        ElectionKind::Preferred => {
            (!has_preferred_leader(old), Election::Preferred, ErrorCode::PreferredLeaderNotAvailable)
        }
        ElectionKind::Unclean => {
            (old.leader.is_none(), Election::Unclean, ErrorCode::EligibleLeadersNotAvailable)
        }
    };
    if !needed {
        let message = "Leader election not needed for topic partition.";
        return Err(AdminError::new(ErrorCode::ElectionNotNeeded, message));
    }
    let change = PartitionChange::new(*cluster, cluster.policy.topic(cluster.image, topic), old)
        .with_election(election);
    match change.finish() {
        Some(next) if next.leader.is_some() && next.leader != old.leader => {
            records.push(record(topic.id, partition, next));
            Ok(())
        }
        _ if kind == ElectionKind::Preferred => {
            Err(AdminError::new(unavailable, "The preferred leader was not available."))
        }
        _ => Err(AdminError::new(unavailable, "Eligible topic partition leaders are not available.")),
    }
}

fn has_preferred_leader(partition: &PartitionImage) -> bool {
    partition.leader.is_some() && partition.leader == partition.replicas.first().copied()
}

/// Decides about leaders that are not the preferred ones (`auto.leader.rebalance.enable`): where of the partitions
/// that prefer a broker more than `max_imbalance_percent` are led by others, those that it can lead go back to it. At
/// most `limit` partitions change; the answer is how many do.
#[must_use]
pub fn rebalance_leaders(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    max_imbalance_percent: u32,
    limit: usize,
) -> Decision<usize> {
    let mut preferring: BTreeMap<BrokerId, (u64, u64)> = BTreeMap::new();
    for partition in image.topics().flat_map(|topic| &topic.partitions) {
        if let Some(preferred) = partition.replicas.first() {
            let (all, elsewhere) = preferring.entry(*preferred).or_default();
            *all += 1;
            *elsewhere += u64::from(!has_preferred_leader(partition));
        }
    }
    let is_imbalanced = |broker: &BrokerId| {
        let (all, elsewhere) = preferring.get(broker).copied().unwrap_or_default();
        elsewhere * 100 > all * u64::from(max_imbalance_percent)
    };
    let cluster = Cluster::new(image, policy);
    let mut elected = 0;
    let records = cluster.each_partition(
        |partition| {
            let Some(preferred) = partition.replicas.first() else { return false };
            let is_due = elected < limit
                && !has_preferred_leader(partition)
                && partition.isr.contains(preferred)
                && cluster.can_lead(*preferred)
                && is_imbalanced(preferred);
            elected += usize::from(is_due);
            is_due
        },
        |change| change.with_election(Election::Preferred),
    );
    Decision { records, answer: elected }
}

/// Decides about partitions without a leader whose topics allow unclean elections
/// (`unclean.leader.election.enable`); to be asked from time to time, since the configuration may have been set after
/// the leader was lost. At most `limit` partitions change; the answer names them.
#[must_use]
pub fn elect_where_unclean_is_allowed(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    limit: usize,
) -> Decision<Vec<(TopicName, i32)>> {
    let cluster = Cluster::new(image, policy);
    let (mut records, mut answer) = (Vec::new(), Vec::new());
    for topic in image.topics() {
        let topic_policy = policy.topic(image, topic);
        if !topic_policy.unclean {
            continue;
        }
        for (index, old) in (0..).zip(&topic.partitions) {
            if old.leader.is_some() || answer.len() >= limit {
                continue;
            }
            let next = PartitionChange::new(cluster, topic_policy, old).finish();
            if let Some(next) = next.filter(|next| next.leader.is_some()) {
                records.push(record(topic.id, index, next));
                answer.push((topic.name.clone(), index));
            }
        }
    }
    Decision { records, answer }
}
