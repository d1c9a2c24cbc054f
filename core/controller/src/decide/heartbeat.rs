//! Heartbeats of brokers: unfencing, controlled shutdown; and fencing those that are not heard any more.

use towpath_types::{BrokerEpoch, BrokerId, Offset, Rule};
use towpath_wire::ErrorCode;

use super::change::{Cluster, involves};
use super::{AdminError, ClusterPolicy, Decision};
use crate::{BrokerRegistration, MetadataImage, MetadataRecord, PartitionImage};

/// A broker's heartbeat (BrokerHeartbeat, KIP-631), and what the active controller knows of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The broker.
    pub broker_id: BrokerId,
    /// Its incarnation.
    pub broker_epoch: BrokerEpoch,
    /// The offset of the next metadata record that it will read; it knows all before.
    pub metadata_offset: Offset,
    /// Whether it wants to be fenced.
    pub want_fence: bool,
    /// Whether it wants to stop.
    pub want_shutdown: bool,
    /// The least `metadata_offset` of the other active brokers ([`crate::Liveness::lowest_offset_of_others`]); none
    /// without others.
    pub lowest_offset_of_others: Option<Offset>,
    /// What all others must know before it may stop: the end of the metadata log when the last of its leaderships
    /// was moved ([`crate::Liveness::shutdown_offset`]); none where that is not known, and then all that there is.
    pub shutdown_offset: Option<Offset>,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// Whether the broker knows of its own registration.
    pub is_caught_up: bool,
    /// Whether it is fenced.
    pub is_fenced: bool,
    /// Whether it may stop now.
    pub should_shut_down: bool,
    /// Whether it is in a controlled shutdown. If records come with this answer, their end is the new
    /// `shutdown_offset` of the broker.
    pub in_controlled_shutdown: bool,
}

/// Decides about a heartbeat.
///
/// # Errors
/// [`AdminError`]: `BROKER_ID_NOT_REGISTERED`, `STALE_BROKER_EPOCH` from another incarnation than the registered one.
pub fn heartbeat(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    beat: &Heartbeat,
) -> Result<Decision<HeartbeatAnswer>, AdminError> {
    let id = beat.broker_id;
    let broker = image.broker(id).ok_or_else(|| {
        AdminError::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("No broker registration found for broker id {id}"),
        )
    })?;
    check_epoch(broker, beat.broker_epoch)?;
    let is_caught_up = beat.metadata_offset.get() > broker.epoch.get();
    let answer = HeartbeatAnswer {
        is_caught_up,
        is_fenced: broker.fenced,
        should_shut_down: false,
        in_controlled_shutdown: broker.in_controlled_shutdown,
    };
    if broker.fenced {
        // Rule 12: before it knows of its registration, it would act on metadata of another time.
        let may_serve = is_caught_up || !policy.holds(Rule::Registration);
        if beat.want_shutdown {
            return Ok(Decision::unchanged(HeartbeatAnswer { should_shut_down: true, ..answer }));
        }
        if beat.want_fence || !may_serve {
            return Ok(Decision::unchanged(answer));
        }
        let answer = HeartbeatAnswer { is_fenced: false, in_controlled_shutdown: false, ..answer };
        return Ok(Decision { records: unfence(image, policy, broker), answer });
    }
    if beat.want_shutdown {
        return Ok(shut_down(image, policy, broker, beat, answer));
    }
    if beat.want_fence {
        let records = fence(image, policy, broker);
        return Ok(Decision { records, answer: HeartbeatAnswer { is_fenced: true, ..answer } });
    }
    Ok(Decision::unchanged(answer))
}

/// Whether a request comes from the registered incarnation (R6).
pub(super) fn check_epoch(broker: &BrokerRegistration, epoch: BrokerEpoch) -> Result<(), AdminError> {
    if broker.epoch == epoch {
        return Ok(());
    }
    let message = format!("Expected broker epoch {}, but got broker epoch {epoch}", broker.epoch);
    Err(AdminError::new(ErrorCode::StaleBrokerEpoch, message))
}

/// Decides about a broker that is not heard any more (rule 10). Nothing is decided about one that is fenced already
/// or not registered.
#[must_use]
pub fn fence_broker(image: &MetadataImage, policy: &ClusterPolicy, id: BrokerId) -> Decision<()> {
    let broker = image.broker(id).filter(|broker| !broker.fenced);
    let records = broker.map(|broker| fence(image, policy, broker)).unwrap_or_default();
    Decision { records, answer: () }
}

/// As [`fence_broker`], but only while this incarnation is the registered one: another one may have registered since it
/// was found to be gone (R6).
#[must_use]
pub fn fence_incarnation(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    id: BrokerId,
    epoch: BrokerEpoch,
) -> Decision<()> {
    if image.broker(id).is_some_and(|broker| broker.epoch == epoch) {
        fence_broker(image, policy, id)
    } else {
        Decision::unchanged(())
    }
}

const fn state(broker: &BrokerRegistration, fenced: bool, in_controlled_shutdown: bool) -> MetadataRecord {
    MetadataRecord::BrokerState { broker_id: broker.id, epoch: broker.epoch, fenced, in_controlled_shutdown }
}

fn fence(image: &MetadataImage, policy: &ClusterPolicy, broker: &BrokerRegistration) -> Vec<MetadataRecord> {
    let id = broker.id;
    let mut records = vec![state(broker, true, broker.in_controlled_shutdown)];
    let cluster = Cluster::new(image, policy).going(id);
    records.extend(cluster.each_partition(|partition| involves(partition, id), |change| change.without(id)));
    records
}

/// Partitions that nobody could lead get a leader, if it is this one's to be.
fn unfence(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    broker: &BrokerRegistration,
) -> Vec<MetadataRecord> {
    let mut records = vec![state(broker, false, false)];
    let cluster = Cluster::new(image, policy).coming(broker.id);
    records.extend(cluster.each_partition(|partition| partition.leader.is_none(), |change| change));
    records
}

/// Rule 12: a broker that wants to stop first leaves the ISRs that have other members, and hands over what it leads;
/// when all others know of that, it may stop. Where it is all that there is it leads on to the end: a partition is not
/// better off without a leader.
fn shut_down(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    broker: &BrokerRegistration,
    beat: &Heartbeat,
    answer: HeartbeatAnswer,
) -> Decision<HeartbeatAnswer> {
    let id = broker.id;
    let cluster = Cluster::new(image, policy).going(id);
    let can_do_without = |partition: &PartitionImage| {
        let mut others = partition.isr.iter().filter(|member| **member != id);
        match partition.leader {
            Some(leader) if leader == id => others.any(|other| cluster.can_lead(*other)),
            _ => others.next().is_some(),
        }
    };
    let moves = cluster.each_partition(
        |partition| involves(partition, id) && can_do_without(partition),
        |change| change.without(id),
    );
    let answer = HeartbeatAnswer { in_controlled_shutdown: true, ..answer };
    if !broker.in_controlled_shutdown || !moves.is_empty() {
        let mut records = vec![state(broker, false, true)];
        records.extend(moves);
        return Decision { records, answer };
    }
    let known_to_all = beat.shutdown_offset.unwrap_or_else(|| image.next_offset());
    let may_stop = beat.lowest_offset_of_others.is_none_or(|lowest| lowest >= known_to_all)
        || !policy.holds(Rule::Registration);
    if !may_stop {
        return Decision::unchanged(answer);
    }
    let records = fence(image, policy, broker);
    Decision { records, answer: HeartbeatAnswer { is_fenced: true, should_shut_down: true, ..answer } }
}
