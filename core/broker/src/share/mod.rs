//! Share groups (KIP-932) where the records are: on the leader of each partition. [`partition`] decides, [`live`] writes for
//! it through the [`persister`], [`sessions`] know who fetches what.

pub(crate) mod beginning;
pub(crate) mod fetching;
pub(crate) mod live;
mod members;
pub(crate) mod partition;
pub(crate) mod persister;
pub(crate) mod sessions;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use towpath_controller::group_config::ShareGroupConfig;
use towpath_coordinator::share::ShareKey;
use towpath_types::{TopicId, limits};
use towpath_wire::ErrorCode;

use self::live::SharePartition;
use self::partition::ShareSettings;
use self::sessions::{Place, ShareSessions};
use crate::handlers::partition_error_code;
use crate::state::BrokerState;

/// Records of one partition that may be with members at the same time, at most (Kafka's bound).
const LOCKS_MAX: usize = 10_000;

/// What a broker has of share groups.
#[derive(Default)]
pub(crate) struct Shares {
    pub(crate) sessions: ShareSessions,
    partitions: Mutex<HashMap<ShareKey, Arc<SharePartition>>>,
    /// Wakes those of a group who wait for records.
    news: Mutex<News>,
}

/// What wakes those who wait, by group.
#[derive(Default)]
struct News {
    by_group: HashMap<Arc<str>, Arc<Notify>>,
    /// With more groups than this, it is looked for those that nobody waits for.
    looks_at: usize,
}

impl News {
    fn of(&mut self, group: &Arc<str>, sessions: usize) -> Arc<Notify> {
        if self.by_group.len() > self.looks_at {
            // R10: twice as many as there are sessions, and as were needed when it was last looked.
            self.by_group.retain(|_, notify| Arc::strong_count(notify) > 1);
            self.looks_at = 2 * sessions.max(self.by_group.len());
        }
        Arc::clone(self.by_group.entry(Arc::clone(group)).or_default())
    }
}

impl fmt::Debug for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shares").field("partitions", &self.partitions.lock().len()).finish_non_exhaustive()
    }
}

/// What the partitions of a group go by.
pub(crate) trait OfPartition {
    fn of_partition(&self) -> ShareSettings;
}

impl OfPartition for ShareGroupConfig {
    fn of_partition(&self) -> ShareSettings {
        ShareSettings {
            lock_ms: i64::from(self.record_lock_duration_ms),
            deliveries_max: i16::try_from(self.delivery_count_limit).unwrap_or(i16::MAX),
            // R10: whatever was set before there was a bound.
            locks_max: usize::try_from(self.partition_max_record_locks).unwrap_or(1).min(LOCKS_MAX),
        }
    }
}

impl Shares {
    /// What wakes those of a group who wait for records.
    pub(crate) fn news(&self, group: &Arc<str>) -> Arc<Notify> {
        let sessions = self.sessions.len();
        self.news.lock().of(group, sessions)
    }

    /// A share partition that this broker leads, loaded or being loaded.
    ///
    /// # Errors
    /// What whoever asks is told; for a while also why the last one could not be loaded.
    pub(crate) fn get(
        &self,
        broker: &Arc<BrokerState>,
        group: &Arc<str>,
        (topic, index): Place,
    ) -> Result<Arc<SharePartition>, ErrorCode> {
        let topic = TopicId::new(topic);
        let replicas = broker.replicas.topic_by_id(topic).ok_or(ErrorCode::UnknownTopicId)?;
        let partition = replicas.partition(index).map_err(|error| partition_error_code(&error))?;
        let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let term = partition.term().ok_or(ErrorCode::NotLeaderOrFollower)?;
        let key = ShareKey { group: Arc::clone(group), topic, partition: index };
        let news = self.news(group);
        let mut partitions = self.partitions.lock();
        if let Some(known) = partitions.get(&key)
            && let Some(serves) = known.serves(term)
        {
            return serves.map(|()| Arc::clone(known));
        }
        if partitions.len() >= limits::SHARE_PARTITIONS_MAX && !partitions.contains_key(&key) {
            tracing::warn!(share_partition = %key, "no room for another share partition");
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let shared = SharePartition::new(key.clone(), partition, term, news);
        let before = partitions.insert(key, Arc::clone(&shared));
        drop(partitions);
        if let Some(before) = &before {
            // It may be of a replica that has moved to another directory, and not know.
            before.close(ErrorCode::NotLeaderOrFollower);
        }
        tokio::spawn(Arc::clone(&shared).run(Arc::downgrade(broker), before));
        Ok(shared)
    }

    /// One that has ended.
    fn forget(&self, key: &ShareKey, ended: &Arc<SharePartition>) {
        let mut partitions = self.partitions.lock();
        if partitions.get(key).is_some_and(|known| Arc::ptr_eq(known, ended)) {
            partitions.remove(key);
        }
    }

    /// A member fetches no more: what it has of these partitions comes back.
    pub(crate) fn end_session(&self, broker: &BrokerState, group: &str, member: &str) {
        let places = self.sessions.end(group, member);
        let settings = broker.share_settings(group).of_partition();
        let is_empty = !self.sessions.has_group(group);
        let of_group = |key: &ShareKey| {
            *key.group == *group && (is_empty || places.contains(&(key.topic.get(), key.partition)))
        };
        let known: Vec<_> = self
            .partitions
            .lock()
            .iter()
            .filter(|(key, _)| of_group(key))
            .map(|(_, partition)| Arc::clone(partition))
            .collect();
        for partition in known {
            partition.release(settings, member);
            partition.look();
        }
    }

    /// A connection has ended, and with it the sessions of those who fetched over it.
    pub(crate) fn connection_ended(&self, broker: &BrokerState, connection: u64) {
        for (group, member) in self.sessions.of_connection(connection) {
            tracing::debug!(%group, %member, "a member of a share group has lost its connection");
            self.end_session(broker, &group, &member);
        }
    }

    /// The broker stops, in so far as others do not wait for it: whoever waits for a write is told to ask the next leader.
    pub(crate) fn close(&self) {
        let all: Vec<_> = self.partitions.lock().values().cloned().collect();
        all.iter().for_each(|partition| partition.close(ErrorCode::NotLeaderOrFollower));
    }
}

impl BrokerState {
    /// What holds for a share group.
    pub(crate) fn share_settings(&self, group: &str) -> ShareGroupConfig {
        let image = self.image();
        // What is set is checked when it is; what another version has set may not be known here.
        let set = image.dynamic_configs().group(group);
        ShareGroupConfig::resolve(set, &self.config.settings).unwrap_or_else(|problem| {
            tracing::warn!(group, %problem, "a share group's configuration is not valid; the broker's holds");
            ShareGroupConfig::of_broker(&self.config.settings)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_nobody_waits_for_are_forgotten() {
        let mut news = News::default();
        let kept = news.of(&Arc::from("kept"), 1);
        for number in 0..100 {
            news.of(&Arc::from(format!("group-{number}")), 1);
            assert!(news.by_group.len() <= 4, "{}", news.by_group.len());
        }
        assert!(Arc::ptr_eq(&kept, &news.of(&Arc::from("kept"), 1)));
    }
}
