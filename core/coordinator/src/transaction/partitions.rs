//! The partitions that a transaction has touched.

use std::collections::{BTreeMap, BTreeSet};

use towpath_types::{TopicName, TopicPartition};

/// Bytes of a topic's entry in a record, beside its name.
const TOPIC_OVERHEAD: usize = 8;
/// Bytes of a partition in a record.
const PARTITION_BYTES: usize = 4;
/// Bytes of memory for a partition: in a set, and while a marker for it is on its way.
const PARTITION_MEMORY: usize = 128;

/// A set of partitions, by topic, that knows how many they are and how many bytes a record of them takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Partitions {
    topics: BTreeMap<TopicName, BTreeSet<i32>>,
    count: usize,
    bytes: usize,
}

impl Partitions {
    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that they take in a record, at most.
    #[must_use]
    pub const fn size_in_record(&self) -> usize {
        self.bytes
    }

    /// Bytes of memory that they take, about.
    #[must_use]
    pub const fn size_in_memory(&self) -> usize {
        self.bytes + self.count * PARTITION_MEMORY
    }

    /// Adds a partition; false when it was there already.
    pub fn insert(&mut self, partition: TopicPartition) -> bool {
        let name_bytes = partition.topic.as_str().len() + TOPIC_OVERHEAD;
        let indexes = self.topics.entry(partition.topic).or_default();
        let is_new_topic = indexes.is_empty();
        let is_new = indexes.insert(partition.partition);
        if is_new {
            self.count += 1;
            self.bytes += PARTITION_BYTES + if is_new_topic { name_bytes } else { 0 };
        }
        is_new
    }

    /// Takes a partition out; false when it was not there.
    pub fn remove(&mut self, partition: &TopicPartition) -> bool {
        let Some(indexes) = self.topics.get_mut(&partition.topic) else { return false };
        if !indexes.remove(&partition.partition) {
            return false;
        }
        self.count -= 1;
        self.bytes -= PARTITION_BYTES;
        if indexes.is_empty() {
            self.bytes -= partition.topic.as_str().len() + TOPIC_OVERHEAD;
            self.topics.remove(&partition.topic);
        }
        true
    }

    /// Whether a partition is among them.
    #[must_use]
    pub fn contains(&self, partition: &TopicPartition) -> bool {
        self.topics.get(&partition.topic).is_some_and(|indexes| indexes.contains(&partition.partition))
    }

    /// Whether all of them are among `others`.
    #[must_use]
    pub fn is_subset(&self, others: &Self) -> bool {
        self.topics
            .iter()
            .all(|(topic, indexes)| others.topics.get(topic).is_some_and(|others| indexes.is_subset(others)))
    }

    /// Adds all of `others`.
    pub fn extend(&mut self, others: &Self) {
        for partition in others.iter() {
            self.insert(partition);
        }
    }

    /// By topic, in order.
    pub fn topics(&self) -> impl Iterator<Item = (&TopicName, &BTreeSet<i32>)> {
        self.topics.iter()
    }

    /// One after the other, in order.
    pub fn iter(&self) -> impl Iterator<Item = TopicPartition> + '_ {
        self.topics.iter().flat_map(|(topic, indexes)| {
            indexes.iter().map(|index| TopicPartition::new(topic.clone(), *index))
        })
    }
}

impl FromIterator<TopicPartition> for Partitions {
    fn from_iter<I: IntoIterator<Item = TopicPartition>>(iter: I) -> Self {
        let mut partitions = Self::default();
        for partition in iter {
            partitions.insert(partition);
        }
        partitions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn partition(topic: u8, index: i32) -> TopicPartition {
        TopicPartition::new(TopicName::new(&format!("topic-{topic}")).unwrap(), index)
    }

    proptest! {
        #[test]
        fn a_set_of_partitions_is_a_set(steps in prop::collection::vec((any::<bool>(), 0u8..4, 0i32..4), 0..60)) {
            let mut set = Partitions::default();
            let mut model = BTreeSet::new();
            for (adds, topic, index) in steps {
                let partition = partition(topic, index);
                if adds {
                    prop_assert_eq!(set.insert(partition.clone()), model.insert(partition));
                } else {
                    prop_assert_eq!(set.remove(&partition), model.remove(&partition));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.iter().collect::<BTreeSet<_>>(), model.clone());
                let again: Partitions = model.iter().cloned().collect();
                prop_assert_eq!(set.size_in_record(), again.size_in_record());
                prop_assert!(model.iter().all(|partition| set.contains(partition)));
            }
        }
    }

    #[test]
    fn sets_are_compared_and_joined() {
        let small: Partitions = [partition(1, 0)].into_iter().collect();
        let mut large: Partitions = [partition(1, 1), partition(2, 0)].into_iter().collect();
        assert!(!small.is_subset(&large) && Partitions::default().is_subset(&small));
        large.extend(&small);
        assert!(small.is_subset(&large) && !large.is_subset(&small));
        assert_eq!((large.len(), large.topics().count()), (3, 2));
        assert_eq!(Partitions::default().size_in_memory(), 0);
    }
}
