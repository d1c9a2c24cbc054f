//! Topics that tests make up.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::TopicId;
use uuid::Uuid;

use crate::topics::{TopicInfo, Topics};

/// Topics by name, with their numbers of partitions. A topic's id follows from its name and its life.
#[derive(Debug, Clone, Default)]
pub(super) struct FakeTopics {
    pub(super) epoch: i64,
    topics: BTreeMap<String, (TopicId, i32)>,
    lives: u128,
    rack: Option<Arc<str>>,
}

impl FakeTopics {
    pub(super) fn of(topics: &[(&str, i32)]) -> Self {
        let mut all = Self::default();
        topics.iter().for_each(|(name, partitions)| all.set(name, *partitions));
        all
    }

    /// Makes a topic, or gives it another number of partitions.
    pub(super) fn set(&mut self, name: &str, partitions: i32) {
        self.epoch += 1;
        self.lives += 1;
        let id = self.topics.get(name).map_or(TopicId::new(Uuid::from_u128(self.lives)), |(id, _)| *id);
        self.topics.insert(name.to_owned(), (id, partitions));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.epoch += 1;
        self.topics.remove(name);
    }

    /// All replicas are in one rack from now on.
    pub(super) fn move_to(&mut self, rack: &str) {
        self.epoch += 1;
        self.rack = Some(Arc::from(rack));
    }

    pub(super) fn id(&self, name: &str) -> TopicId {
        self.topics[name].0
    }
}

impl Topics for FakeTopics {
    fn epoch(&self) -> i64 {
        self.epoch
    }

    fn by_name(&self, name: &str) -> Option<TopicInfo> {
        let (id, partitions) = self.topics.get(name)?;
        Some(TopicInfo { id: *id, name: Arc::from(name), partitions: *partitions })
    }

    fn by_id(&self, id: TopicId) -> Option<TopicInfo> {
        let (name, _) = self.topics.iter().find(|(_, (known, _))| *known == id)?;
        self.by_name(name)
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.topics.keys().map(|name| Arc::from(name.as_str())).collect()
    }

    fn racks(&self, _: TopicId, _: i32) -> Vec<Arc<str>> {
        self.rack.iter().cloned().collect()
    }
}
