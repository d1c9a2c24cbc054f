//! The cluster's topics as group coordination sees them.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_controller::{MetadataImage, TopicImage};
use towpath_coordinator::{TopicInfo, Topics};
use towpath_types::TopicId;

/// The topics of an image, and the racks of their replicas.
#[derive(Debug)]
pub(crate) struct GroupTopics(Arc<MetadataImage>);

impl GroupTopics {
    pub(crate) const fn new(image: Arc<MetadataImage>) -> Self {
        Self(image)
    }

    /// What was set for one group; checked when it was.
    fn group_config(&self, group: &str, name: &str) -> Option<i32> {
        self.0.dynamic_configs().group(group).get(name)?.trim().parse().ok()
    }

    /// Whether groups see a difference between two images: topics, numbers of partitions, racks, their own settings.
    pub(crate) fn differ(before: &MetadataImage, after: &MetadataImage) -> bool {
        let groups_differ = before.dynamic_configs().groups().ne(after.dynamic_configs().groups());
        if groups_differ || before.topics().len() != after.topics().len() {
            return true;
        }
        let racks = |image: &MetadataImage| -> Vec<_> {
            image.brokers().map(|broker| (broker.id, broker.rack.clone())).collect()
        };
        let has_racks = after.brokers().any(|broker| broker.rack.is_some());
        if has_racks && racks(before) != racks(after) {
            return true;
        }
        let is_same = |known: &Arc<TopicImage>, topic: &Arc<TopicImage>| {
            // Most are the very same: an image shares what has not changed with the one before.
            Arc::ptr_eq(known, topic)
                || known.partitions.len() == topic.partitions.len()
                    && (!has_racks || replicas(known).eq(replicas(topic)))
        };
        after.topics().any(|topic| before.topic_by_id(topic.id).is_none_or(|known| !is_same(known, topic)))
    }
}

fn replicas(topic: &TopicImage) -> impl Iterator<Item = &[towpath_types::BrokerId]> {
    topic.partitions.iter().map(|partition| partition.replicas.as_slice())
}

fn info(topic: &Arc<TopicImage>) -> TopicInfo {
    TopicInfo {
        id: topic.id,
        name: Arc::from(topic.name.as_str()),
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
    }
}

impl Topics for GroupTopics {
    fn epoch(&self) -> i64 {
        self.0.next_offset().get()
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        self.0.topic(name).map(info)
    }

    fn by_id(&self, id: TopicId) -> Option<TopicInfo> {
        self.0.topic_by_id(id).map(info)
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.0.topics().map(|topic| Arc::from(topic.name.as_str())).collect()
    }

    fn racks(&self, topic: TopicId, partition: i32) -> Vec<Arc<str>> {
        let found = self.0.topic_by_id(topic);
        let index = usize::try_from(partition).ok();
        let replicas = found.and_then(|topic| topic.partitions.get(index?)).map(|it| it.replicas.as_slice());
        let racks: BTreeSet<&str> = replicas
            .unwrap_or_default()
            .iter()
            .filter_map(|id| self.0.broker(*id)?.rack.as_deref())
            .collect();
        racks.into_iter().map(Arc::from).collect()
    }

    fn session_timeout_ms(&self, group: &str) -> Option<i32> {
        self.group_config(group, "consumer.session.timeout.ms")
    }

    fn share_session_timeout_ms(&self, group: &str) -> Option<i32> {
        self.group_config(group, "share.session.timeout.ms")
    }

    fn share_heartbeat_interval_ms(&self, group: &str) -> Option<i32> {
        self.group_config(group, "share.heartbeat.interval.ms")
    }

    fn heartbeat_interval_ms(&self, group: &str) -> Option<i32> {
        self.group_config(group, "consumer.heartbeat.interval.ms")
    }
}
