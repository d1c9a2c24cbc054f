//! A follower's side of an incremental fetch session (KIP-227): only what has changed is asked for again.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_replica::{FetchPlan, Partition};
use towpath_types::{BrokerEpoch, BrokerId, Offset, TopicId};
use towpath_wire::FetchRequest;
use towpath_wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use uuid::Uuid;

/// Bytes of one partition in an answer (`replica.fetch.max.bytes`).
pub(crate) const PARTITION_BYTES: i32 = 1024 * 1024;
/// Bytes of an answer (`replica.fetch.response.max.bytes`).
pub(crate) const RESPONSE_BYTES: i32 = 10 * 1024 * 1024;
/// How long the leader waits for records (`replica.fetch.wait.max.ms`).
pub(crate) const WAIT_MS: i32 = 500;
/// `replica.fetch.min.bytes`.
pub(crate) const MIN_BYTES: i32 = 1;
/// The last epoch of a session; after it comes 1.
const EPOCH_MAX: i32 = i32::MAX;

/// A partition of a fetch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) partition: Arc<Partition>,
    pub(crate) plan: FetchPlan,
    pub(crate) high_watermark: Offset,
}

type Key = (Uuid, i32);

/// What the leader was last told of a partition.
type Told = (FetchPlan, Offset);

/// The session with one leader.
#[derive(Debug, Default)]
pub(crate) struct FollowerSession {
    id: i32,
    epoch: i32,
    told: HashMap<Key, Told>,
}

pub(crate) fn key(topic: TopicId, partition: i32) -> Key {
    (topic.get(), partition)
}

impl FollowerSession {
    /// The next request for exactly these partitions.
    pub(crate) fn request(
        &mut self,
        me: BrokerId,
        epoch: BrokerEpoch,
        wanted: &HashMap<Key, Wanted>,
    ) -> FetchRequest {
        let mut topics: HashMap<Uuid, Vec<FetchPartition>> = HashMap::new();
        for ((topic, index), wanted) in wanted {
            let told = (wanted.plan, wanted.high_watermark);
            if self.told.get(&(*topic, *index)) == Some(&told) {
                continue;
            }
            self.told.insert((*topic, *index), told);
            topics.entry(*topic).or_default().push(fetch_partition(*index, wanted));
        }
        let mut forgotten: HashMap<Uuid, Vec<i32>> = HashMap::new();
        self.told.retain(|(topic, index), _| {
            let stays = wanted.contains_key(&(*topic, *index));
            if !stays {
                forgotten.entry(*topic).or_default().push(*index);
            }
            stays
        });
        let forgotten = if self.epoch == 0 { HashMap::new() } else { forgotten };
        FetchRequest {
            replica_state: ReplicaState { replica_id: me.get(), replica_epoch: epoch.get() },
            max_wait_ms: WAIT_MS,
            min_bytes: MIN_BYTES,
            max_bytes: RESPONSE_BYTES,
            session_id: self.id,
            session_epoch: self.epoch,
            topics: topics
                .into_iter()
                .map(|(topic_id, partitions)| FetchTopic { topic_id, partitions, ..FetchTopic::default() })
                .collect(),
            forgotten_topics_data: forgotten
                .into_iter()
                .map(|(topic_id, partitions)| ForgottenTopic {
                    topic_id,
                    partitions,
                    ..ForgottenTopic::default()
                })
                .collect(),
            ..FetchRequest::default()
        }
    }

    /// The leader answered, in the session `id`; none where it keeps none.
    pub(crate) fn answered(&mut self, id: i32) {
        if id == 0 {
            self.reset();
            return;
        }
        self.id = id;
        self.epoch = if self.epoch == EPOCH_MAX { 1 } else { self.epoch + 1 };
    }

    /// The next request begins a new session.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// A partition is asked for again, whatever the leader was told.
    pub(crate) fn repeat(&mut self, key: &Key) {
        self.told.remove(key);
    }
}

fn fetch_partition(index: i32, wanted: &Wanted) -> FetchPartition {
    FetchPartition {
        partition: index,
        current_leader_epoch: wanted.plan.leader_epoch.get(),
        fetch_offset: wanted.plan.offset.get(),
        last_fetched_epoch: wanted.plan.last_fetched_epoch.get(),
        log_start_offset: wanted.plan.log_start.get(),
        partition_max_bytes: PARTITION_BYTES,
        high_watermark: wanted.high_watermark.get(),
        ..FetchPartition::default()
    }
}
