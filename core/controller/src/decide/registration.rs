//! Brokers that begin to serve, and brokers that are gone for good.

use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, Rule};
use towpath_wire::ErrorCode;

use super::change::{Cluster, involves, record};
use super::{AdminError, ClusterPolicy, Decision};
use crate::{MetadataImage, MetadataRecord, PartitionImage, RegisterBroker};

/// A broker of a cluster that begins to serve (BrokerRegistration, KIP-631).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The cluster that it belongs to by what is on its disk.
    pub cluster_id: String,
    /// Who it is and where it is reached. Whether it is fenced is not its choice.
    pub broker: RegisterBroker,
    /// The broker epoch that its last clean shutdown belonged to; -1 where there was none, or the disk is empty
    /// (KIP-966).
    pub previous_broker_epoch: BrokerEpoch,
}

/// Decides about a broker of a cluster that begins to serve; answers its broker epoch, which is the offset of its
/// registration. `session_alive` says whether the incarnation that is registered now was heard within the session
/// timeout ([`crate::Liveness::session_alive`]).
///
/// The broker is fenced until its heartbeats show that it knows of this registration. Whatever it led or was in sync
/// for is taken from it in the same decision, and before it: what its last incarnation had says nothing about what
/// this one has. Where its data directory is another one than before, it is not the last known leader of anything
/// either: partitions that nobody else can lead wait for an unclean election by hand.
///
/// # Errors
/// [`AdminError`]: `INCONSISTENT_CLUSTER_ID`, `DUPLICATE_BROKER_REGISTRATION` while another incarnation serves,
/// `UNSUPPORTED_VERSION` where it cannot work with a feature that the cluster uses.
pub fn register_broker(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    registration: &Registration,
    session_alive: bool,
) -> Result<Decision<BrokerEpoch>, AdminError> {
    let broker = &registration.broker;
    let id = broker.broker_id;
    if registration.cluster_id != image.cluster_id() {
        let message = format!(
            "Expected cluster ID {}, but got cluster ID {}",
            image.cluster_id(),
            registration.cluster_id
        );
        return Err(AdminError::new(ErrorCode::InconsistentClusterId, message));
    }
    let stored = image.broker(id);
    if let Some(stored) = stored {
        if stored.incarnation == broker.incarnation {
            // The answer to the request before was lost.
            return Ok(Decision::unchanged(stored.epoch));
        }
        // A fenced broker does nothing that another incarnation could disturb.
        if session_alive && !stored.fenced && policy.holds(Rule::Registration) {
            return Err(AdminError::new(
                ErrorCode::DuplicateBrokerRegistration,
                "Another broker is registered with that broker id. If the broker was recently restarted this should \
                 self-resolve once the heartbeat manager expires the broker's session.",
            ));
        }
    }
    check_features(image, broker)?;
    let disks = (stored.and_then(|stored| stored.directory), broker.directory);
    let is_clean = stored.is_some_and(|stored| stored.epoch == registration.previous_broker_epoch);
    let stop = match disks {
        (Some(before), Some(now)) if before != now => Stop::EmptyDisk,
        _ if is_clean => Stop::Clean,
        _ => Stop::Unclean,
    };
    let mut records = leave(image, policy, id, stop);
    records.push(MetadataRecord::RegisterBroker(RegisterBroker {
        fenced: true,
        in_controlled_shutdown: false,
        ..broker.clone()
    }));
    let offset = image.next_offset().get() + i64::try_from(records.len()).unwrap_or(i64::MAX) - 1;
    Ok(Decision { records, answer: BrokerEpoch::new(offset) })
}

/// What a broker still has of what it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Everything.
    Clean,
    /// It may lack the last records.
    Unclean,
    /// Nothing: its data directory is another one, or it does not come back.
    EmptyDisk,
}

/// Rule 11: where a broker's last stop was not clean, it may have lost records that it acknowledged, so it is not
/// eligible either. One that has nothing any more is not the last known leader of anything, either: elected as such, it
/// would make all others truncate what they have.
fn leave(image: &MetadataImage, policy: &ClusterPolicy, id: BrokerId, stop: Stop) -> Vec<MetadataRecord> {
    let holds = policy.holds(Rule::EligibleLeaderReplicas);
    let unclean = (holds && stop != Stop::Clean).then_some(id);
    let lost = (holds && stop == Stop::EmptyDisk).then_some(id);
    let cluster = Cluster { unclean, lost, ..Cluster::new(image, policy).going(id) };
    cluster.each_partition(
        |partition| {
            involves(partition, id)
                || (unclean.is_some() && partition.elr.contains(&id))
                || (lost.is_some() && partition.last_known_elr.contains(&id))
                || partition.offline.contains(&id)
        },
        |change| change.without(id).with_offline(id, false),
    )
}

fn check_features(image: &MetadataImage, broker: &RegisterBroker) -> Result<(), AdminError> {
    for (name, level) in image.features() {
        let range = broker.features.get(name);
        if !range.is_some_and(|range| range.contains(*level)) {
            let has = range.map_or_else(
                || "does not support it".to_owned(),
                |range| format!("supports {} to {}", range.min, range.max),
            );
            let message = format!(
                "Unable to register because the broker does not support finalized version {level} of {name}: it {has}."
            );
            return Err(AdminError::new(ErrorCode::UnsupportedVersion, message));
        }
    }
    Ok(())
}

/// Decides about a node without a cluster that begins to serve: it is unfenced at once. Where it stopped without
/// order, what it had not flushed may be gone, so the partitions that it leads begin a new leader epoch: readers then
/// see that the log may have changed (KIP-320).
#[must_use]
pub fn register_single_broker(image: &MetadataImage, broker: &RegisterBroker, clean: bool) -> Decision<()> {
    let mut records = vec![MetadataRecord::RegisterBroker(broker.clone())];
    if !clean {
        for topic in image.topics() {
            for (index, partition) in (0..).zip(&topic.partitions) {
                if partition.leader == Some(broker.broker_id) {
                    let state = PartitionImage {
                        leader_epoch: LeaderEpoch::new(partition.leader_epoch.get().saturating_add(1)),
                        partition_epoch: PartitionEpoch::new(
                            partition.partition_epoch.get().saturating_add(1),
                        ),
                        ..partition.clone()
                    };
                    records.push(record(topic.id, index, state));
                }
            }
        }
    }
    Decision { records, answer: () }
}

/// Decides about a broker that is gone for good (UnregisterBroker). What it has does not count any more: should it
/// ever come back, it is a new broker.
///
/// # Errors
/// [`AdminError`]: `BROKER_ID_NOT_REGISTERED`; `INVALID_REQUEST` while it is not fenced, since it serves.
pub fn unregister_broker(
    image: &MetadataImage,
    policy: &ClusterPolicy,
    id: BrokerId,
) -> Result<Decision<()>, AdminError> {
    let broker = image.broker(id).ok_or_else(|| {
        AdminError::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("Broker ID {id} is not currently registered"),
        )
    })?;
    if !broker.fenced {
        let message =
            format!("Broker {id} is in service; stop it before it is removed from the cluster's metadata.");
        return Err(AdminError::new(ErrorCode::InvalidRequest, message));
    }
    let mut records = leave(image, policy, id, Stop::EmptyDisk);
    records.push(MetadataRecord::UnregisterBroker { broker_id: id, epoch: broker.epoch });
    Ok(Decision { records, answer: () })
}
