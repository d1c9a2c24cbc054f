//! Changes of the ISR that leaders ask for (AlterPartition, KIP-497).

use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, Rule, TopicId};
use towpath_wire::ErrorCode;

use super::change::{Cluster, PartitionChange, find_partition, record};
use super::heartbeat::check_epoch;
use super::{AdminError, ClusterPolicy, Decision};
use crate::{MetadataImage, MetadataRecord, PartitionImage, TopicImage};

/// A broker's request to change the ISRs of partitions that it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterPartition {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its incarnation.
    pub broker_epoch: BrokerEpoch,
    /// By topic.
    pub topics: Vec<TopicIsrs>,
}

/// The partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIsrs {
    /// The topic.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<PartitionIsr>,
}

/// One partition's new ISR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionIsr {
    /// The partition.
    pub partition: i32,
    /// The leader epoch in which the leader decided.
    pub leader_epoch: LeaderEpoch,
    /// The state of the partition that the leader goes out from.
    pub partition_epoch: PartitionEpoch,
    /// The new ISR.
    pub isr: Vec<IsrMember>,
    /// Whether the leader has still to recover from an unclean election (KIP-704).
    pub recovering: bool,
}

/// A member of a new ISR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IsrMember {
    /// The broker.
    pub broker_id: BrokerId,
    /// The incarnation whose fetches the leader saw; -1 where it saw none, which is enough only for a broker that is
    /// in the ISR (KIP-903).
    pub broker_epoch: BrokerEpoch,
}

/// A partition's state after a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionAnswer {
    /// Its leader.
    pub leader: Option<BrokerId>,
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// The ISR.
    pub isr: Vec<BrokerId>,
    /// Whether the leader has still to recover.
    pub recovering: bool,
    /// The number of this state.
    pub partition_epoch: PartitionEpoch,
}

/// One answer a partition, in the order of the request; or the code of its refusal.
pub type TopicAnswers = Vec<Result<PartitionAnswer, ErrorCode>>;

/// Decides about changes of ISRs: one answer a partition, in the order of the request. `NEW_LEADER_ELECTED` says that
/// the change was made and completed a reassignment that changed the leader epoch; the metadata tell the rest.
///
/// # Errors
/// [`AdminError`]: `STALE_BROKER_EPOCH` from a broker that is not registered, or as another incarnation.
pub fn alter_partition(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    request: &AlterPartition,
) -> Result<Decision<Vec<TopicAnswers>>, AdminError> {
    let broker = image.broker(request.broker_id).ok_or_else(|| {
        let message = format!("No broker registration found for broker id {}", request.broker_id);
        AdminError::new(ErrorCode::StaleBrokerEpoch, message)
    })?;
    check_epoch(broker, request.broker_epoch)?;
    let cluster = Cluster::new(image, policy);
    let mut records = Vec::new();
    let mut changed = std::collections::BTreeSet::new();
    let mut alter = |topic: Option<&TopicImage>, asked: &PartitionIsr| {
        let topic = topic.ok_or(ErrorCode::UnknownTopicId)?;
        // The second change of a partition goes out from a state that the first one makes a thing of the past.
        if !changed.insert((topic.id, asked.partition)) {
            return Err(ErrorCode::InvalidUpdateVersion);
        }
        alter_one(&cluster, request.broker_id, topic, asked, &mut records)
    };
    let answer = request
        .topics
        .iter()
        .map(|asked| {
            let topic = image.topic_by_id(asked.topic_id).map(AsRef::as_ref);
            asked.partitions.iter().map(|partition| alter(topic, partition)).collect()
        })
        .collect();
    Ok(Decision { records, answer })
}

fn alter_one(
    cluster: &Cluster<'_>,
    sender: BrokerId,
    topic: &TopicImage,
    asked: &PartitionIsr,
    records: &mut Vec<MetadataRecord>,
) -> Result<PartitionAnswer, ErrorCode> {
    let old = find_partition(topic, asked.partition).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if cluster.policy.holds(Rule::AlterPartitionChecks) {
        check(cluster.image, sender, old, asked)?;
    } else {
        check_shape(old, asked)?;
    }
    let isr = asked.isr.iter().map(|member| member.broker_id).collect();
    let mut change =
        PartitionChange::new(*cluster, cluster.policy.topic(cluster.image, topic), old).with_isr(isr);
    change.recovering = asked.recovering;
    let Some(next) = change.finish() else { return Ok(PartitionAnswer::of(old)) };
    let answer = PartitionAnswer::of(&next);
    records.push(record(topic.id, asked.partition, next));
    // A reassignment was completed by this; the sender may be the leader no more (KIP-841).
    if answer.leader_epoch == old.leader_epoch { Ok(answer) } else { Err(ErrorCode::NewLeaderElected) }
}

/// No replica twice, none that does not belong to the partition.
fn check_shape(old: &PartitionImage, asked: &PartitionIsr) -> Result<(), ErrorCode> {
    let mut ids: Vec<BrokerId> = asked.isr.iter().map(|member| member.broker_id).collect();
    let all_belong = ids.iter().all(|id| old.replicas.contains(id));
    ids.sort_unstable();
    ids.dedup();
    if all_belong && !ids.is_empty() && ids.len() == asked.isr.len() {
        Ok(())
    } else {
        Err(ErrorCode::InvalidRequest)
    }
}

/// Rule 9, in Kafka's order.
fn check(
    image: &MetadataImage,
    sender: BrokerId,
    old: &PartitionImage,
    asked: &PartitionIsr,
) -> Result<(), ErrorCode> {
    // Whoever knows more than this node has heard a newer controller.
    if asked.leader_epoch > old.leader_epoch || asked.partition_epoch > old.partition_epoch {
        return Err(ErrorCode::NotController);
    }
    if asked.leader_epoch < old.leader_epoch {
        return Err(ErrorCode::FencedLeaderEpoch);
    }
    if old.leader != Some(sender) {
        return Err(ErrorCode::InvalidRequest);
    }
    if asked.partition_epoch < old.partition_epoch {
        return Err(ErrorCode::InvalidUpdateVersion);
    }
    check_shape(old, asked)?;
    if !asked.isr.iter().any(|member| member.broker_id == sender) {
        return Err(ErrorCode::InvalidRequest);
    }
    // Who is done with recovery does not begin it again; before that it is alone.
    if asked.recovering && (asked.isr.len() > 1 || !old.recovering) {
        return Err(ErrorCode::InvalidRequest);
    }
    if asked.isr.iter().all(|member| is_eligible(image, old, *member)) {
        Ok(())
    } else {
        Err(ErrorCode::IneligibleReplica)
    }
}

/// Whether a broker may be in sync (KIP-841): in service, not on its way out, and the very incarnation that the
/// leader saw (KIP-903), with a replica that it can use (KIP-858). A leader on its way out leads on while it is the last; it does not ask for itself.
fn is_eligible(image: &MetadataImage, old: &PartitionImage, member: IsrMember) -> bool {
    let IsrMember { broker_id, broker_epoch } = member;
    let Some(broker) = image.broker(broker_id).filter(|_| !old.offline.contains(&broker_id)) else {
        return false;
    };
    let same = broker.epoch == broker_epoch
        || (broker_epoch == BrokerEpoch::new(-1) && old.isr.contains(&broker_id));
    let in_service = broker.is_active() || (old.leader == Some(broker_id) && !broker.fenced);
    same && in_service
}

impl PartitionAnswer {
    fn of(partition: &PartitionImage) -> Self {
        Self {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            isr: partition.isr.clone(),
            recovering: partition.recovering,
            partition_epoch: partition.partition_epoch,
        }
    }
}
