//! What group coordination needs of the cluster's metadata. The broker implements it over its image.

use std::fmt;
use std::sync::Arc;

use towpath_types::TopicId;

/// A topic as groups see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// The id.
    pub id: TopicId,
    /// The name.
    pub name: Arc<str>,
    /// How many partitions it has; they are numbered from 0 on.
    pub partitions: i32,
}

/// The topics of the cluster at one moment. A change makes a new one, which is given to
/// [`GroupMachine::topics_changed`](crate::GroupMachine::topics_changed).
pub trait Topics: Send + Sync + fmt::Debug {
    /// Differs from what it was whenever a topic, its number of partitions or a rack of its replicas has changed: the
    /// offset of the last metadata record that did so, for example.
    fn epoch(&self) -> i64;

    /// The topic with this name.
    fn by_name(&self, name: &str) -> Option<TopicInfo>;

    /// The topic with this id.
    fn by_id(&self, id: TopicId) -> Option<TopicInfo>;

    /// The names of all topics, for regular expressions.
    fn names(&self) -> Vec<Arc<str>>;

    /// The racks that have a replica of a partition, in order and each once; empty when brokers have none.
    fn racks(&self, topic: TopicId, partition: i32) -> Vec<Arc<str>>;

    /// `consumer.session.timeout.ms` of one consumer group, where it has one of its own.
    fn session_timeout_ms(&self, _group: &str) -> Option<i32> {
        None
    }

    /// `share.session.timeout.ms` of one share group, where it has one of its own.
    fn share_session_timeout_ms(&self, _group: &str) -> Option<i32> {
        None
    }

    /// `share.heartbeat.interval.ms` of one share group, where it has one of its own.
    fn share_heartbeat_interval_ms(&self, _group: &str) -> Option<i32> {
        None
    }

    /// `consumer.heartbeat.interval.ms` of one consumer group, where it has one of its own.
    fn heartbeat_interval_ms(&self, _group: &str) -> Option<i32> {
        None
    }
}

/// No topics: what there is until the metadata is known.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoTopics;

impl Topics for NoTopics {
    fn epoch(&self) -> i64 {
        -1
    }

    fn by_name(&self, _: &str) -> Option<TopicInfo> {
        None
    }

    fn by_id(&self, _: TopicId) -> Option<TopicInfo> {
        None
    }

    fn names(&self) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn racks(&self, _: TopicId, _: i32) -> Vec<Arc<str>> {
        Vec::new()
    }
}
