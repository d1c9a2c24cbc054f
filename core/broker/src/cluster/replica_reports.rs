//! Tells the active controller which replicas of this broker cannot be used, since their directory has failed or is gone,
//! and which can be used again (KIP-858).

use std::collections::BTreeMap;
use std::time::Duration;

use towpath_controller::decide::ReplicaState;
use towpath_types::{BrokerId, TopicId};
use towpath_wire::assign_replicas_to_dirs::{DirectoryData, PartitionData, TopicData};
use towpath_wire::{AssignReplicasToDirsRequest, ErrorCode};
use uuid::Uuid;

use super::ClusterNode;
use crate::error::BrokerError;
use crate::state::BrokerState;

/// How long one report may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long until the next attempt.
const RETRY: Duration = Duration::from_millis(100);

/// Kafka's ids that are no directory's: of one that is not told, of one that is gone, and of one that is not known, which
/// here says that it has failed.
const ONLINE: Uuid = Uuid::nil();
const LOST: Uuid = Uuid::from_u64_pair(0, 1);
const OFFLINE: Uuid = Uuid::from_u64_pair(0, 2);

/// What an id in a request says of the replicas in that directory.
pub(super) fn state_of(directory: Uuid) -> ReplicaState {
    match directory {
        LOST => ReplicaState::Lost,
        OFFLINE => ReplicaState::Offline,
        _ => ReplicaState::Online,
    }
}

type Partitions = BTreeMap<TopicId, Vec<i32>>;

/// Replicas of this broker, as the metadata that it goes by have them, that are offline and not known to be; and those
/// that are known to be and are not.
fn differences(broker: &BrokerState) -> (Partitions, Partitions) {
    let image = broker.image();
    let me: BrokerId = broker.config.node_id;
    let has_failed = broker.replicas.dirs().has_offline();
    let (mut offline, mut online) = (Partitions::new(), Partitions::new());
    for topic in image.topics() {
        let replicas = broker.replicas.topic_by_id(topic.id);
        for (index, state) in (0..).zip(&topic.partitions) {
            let is_known = state.offline.contains(&me);
            if !state.replicas.contains(&me) || (!has_failed && !is_known) {
                continue;
            }
            let is_offline = replicas.as_ref().is_some_and(|topic| topic.is_offline(index));
            match (is_offline, is_known) {
                (true, false) => offline.entry(topic.id).or_default().push(index),
                // Not before there is something that can be used.
                (false, true) if replicas.as_ref().is_some_and(|t| t.open_partition(index).is_some()) => {
                    online.entry(topic.id).or_default().push(index);
                }
                _ => {}
            }
        }
    }
    (offline, online)
}

async fn tell(node: &ClusterNode, directory: Uuid, partitions: &Partitions) -> bool {
    let topic = |(id, indexes): (&TopicId, &Vec<i32>)| TopicData {
        topic_id: id.get(),
        partitions: indexes.iter().map(|index| PartitionData { partition_index: *index }).collect(),
    };
    let request = AssignReplicasToDirsRequest {
        broker_id: node.me().get(),
        broker_epoch: node.broker_epoch().get(),
        directories: vec![DirectoryData { id: directory, topics: partitions.iter().map(topic).collect() }],
    };
    match node.ask_controller(&request, PATIENCE).await {
        Ok(response) if response.error_code == ErrorCode::None.code() => true,
        Ok(response) => {
            tracing::debug!(
                code = response.error_code,
                "the controller does not take what became of replicas"
            );
            false
        }
        Err(error) => {
            tracing::debug!(%error, "nobody hears what became of replicas");
            false
        }
    }
}

/// Tells what has changed since the controller was last told.
pub(super) async fn report(node: &ClusterNode, broker: &BrokerState) {
    let (offline, online) = differences(broker);
    if !offline.is_empty() && tell(node, OFFLINE, &offline).await {
        let count: usize = offline.values().map(Vec::len).sum();
        tracing::warn!(count, "replicas on directories that have failed: others lead in their place");
    }
    if !online.is_empty() {
        tell(node, ONLINE, &online).await;
    }
}

/// Tells what was lost with directories that are gone, before this broker may lead anything; then what was lost begins anew
/// as what follows.
///
/// # Errors
/// [`BrokerError`] when the node fails meanwhile.
pub(super) async fn report_lost(node: &ClusterNode, broker: &BrokerState) -> Result<(), BrokerError> {
    let dirs = broker.replicas.dirs();
    let (offline, _) = differences(broker);
    let is_gone = dirs.unusable().iter().any(|dir| dir.path.is_none());
    if offline.is_empty() {
        return Ok(());
    }
    // Where one of them has only failed, nobody knows which of them had what: it may come back.
    let all_gone = is_gone && dirs.unusable().iter().all(|dir| dir.path.is_none());
    // What is in several directories is not lost: whoever runs the broker says which is right.
    let is_twice =
        |id: TopicId, index: i32| broker.replicas.topic_by_id(id).is_some_and(|topic| topic.is_twice(index));
    let (mut lost, mut kept) = (Partitions::new(), Partitions::new());
    for (id, indexes) in offline {
        for index in indexes {
            let into = if all_gone && !is_twice(id, index) { &mut lost } else { &mut kept };
            into.entry(id).or_default().push(index);
        }
    }
    for (state, partitions) in [(LOST, &lost), (OFFLINE, &kept)] {
        while !partitions.is_empty() && !tell(node, state, partitions).await {
            node.wait_or_fail(tokio::time::sleep(RETRY)).await?;
        }
    }
    if all_gone && dirs.forget_gone() {
        tracing::warn!("what was in data directories that are gone is fetched from other brokers");
        broker.unmade.lock().extend(lost.into_keys());
    }
    Ok(())
}
