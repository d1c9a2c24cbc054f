//! The committed offsets of one group.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use towpath_types::TopicId;
use towpath_wire::OffsetCommitValue;

/// Bytes that an offset takes beside its metadata.
const OFFSET_OVERHEAD: usize = 96;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Committed {
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    pub(super) metadata: String,
    pub(super) commit_timestamp_ms: i64,
    /// When the client asked for a retention of its own (versions 2 to 4).
    pub(super) expire_timestamp_ms: Option<i64>,
    /// Zero when it was not known.
    pub(super) topic_id: TopicId,
}

impl Committed {
    fn size_in_bytes(&self) -> usize {
        OFFSET_OVERHEAD + self.metadata.len()
    }

    pub(super) fn to_value(&self) -> OffsetCommitValue {
        OffsetCommitValue {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            commit_timestamp: self.commit_timestamp_ms,
            expire_timestamp: self.expire_timestamp_ms.unwrap_or(-1),
            topic_id: self.topic_id.get(),
        }
    }

    pub(super) fn from_value(value: OffsetCommitValue) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
            topic_id: TopicId::new(value.topic_id),
        }
    }
}

/// A partition of a group's offsets.
pub(super) type Place = (Arc<str>, i32);

/// What a group has committed. Only what is committed in the log is in here; what is on its way to the log is
/// counted beside it, so that a deletion reaches it, too.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
    in_flight: BTreeMap<Place, u32>,
    bytes: usize,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.in_flight.is_empty()
    }

    pub(super) const fn size_in_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.topics.get(topic)?.get(&partition)
    }

    /// The shared form of a topic's name.
    pub(super) fn topic_name(&self, topic: &str) -> Arc<str> {
        self.topics.get_key_value(topic).map_or_else(|| Arc::from(topic), |(name, _)| Arc::clone(name))
    }

    pub(super) fn put(&mut self, (topic, partition): Place, committed: Committed) {
        if !self.topics.contains_key(&topic) {
            self.bytes += OFFSET_OVERHEAD + topic.len();
        }
        self.bytes += committed.size_in_bytes();
        if let Some(old) = self.topics.entry(topic).or_default().insert(partition, committed) {
            self.bytes -= old.size_in_bytes();
        }
    }

    pub(super) fn remove(&mut self, (topic, partition): &Place) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if let Some(old) = partitions.remove(partition) {
            self.bytes -= old.size_in_bytes();
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.bytes -= OFFSET_OVERHEAD + topic.len();
        }
    }

    /// A commit of `place` goes to the log.
    pub(super) fn begin(&mut self, place: Place) {
        self.bytes += OFFSET_OVERHEAD;
        *self.in_flight.entry(place).or_default() += 1;
    }

    /// A commit of `place` is in the log, or will never be.
    pub(super) fn end(&mut self, place: &Place) {
        if let Entry::Occupied(mut count) = self.in_flight.entry(place.clone()) {
            self.bytes -= OFFSET_OVERHEAD;
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Whether there is, or is about to be, an offset of the partition.
    pub(super) fn knows(&self, topic: &str, partition: i32) -> bool {
        self.get(topic, partition).is_some() || self.in_flight.contains_key(&(Arc::from(topic), partition))
    }

    pub(super) fn is_in_flight(&self, place: &Place) -> bool {
        self.in_flight.contains_key(place)
    }

    /// Everything committed.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, Committed>)> {
        self.topics.iter()
    }

    /// Every partition that has, or is about to have, an offset.
    pub(super) fn places(&self) -> Vec<Place> {
        let committed = self.topics.iter().flat_map(|(topic, partitions)| {
            partitions.keys().map(|partition| (Arc::clone(topic), *partition))
        });
        let mut places: Vec<Place> = committed.chain(self.in_flight.keys().cloned()).collect();
        places.sort_unstable();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(metadata: &str) -> Committed {
        Committed {
            offset: 1,
            leader_epoch: -1,
            metadata: metadata.to_owned(),
            commit_timestamp_ms: 0,
            expire_timestamp_ms: None,
            topic_id: TopicId::ZERO,
        }
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut offsets = Offsets::default();
        let place: Place = (Arc::from("t"), 0);
        offsets.begin(place.clone());
        offsets.begin(place.clone());
        assert!(offsets.knows("t", 0) && !offsets.is_empty());
        offsets.put(place.clone(), committed("long metadata"));
        offsets.put(place.clone(), committed(""));
        assert_eq!(offsets.places(), std::slice::from_ref(&place));
        offsets.end(&place);
        assert!(offsets.is_in_flight(&place));
        offsets.end(&place);
        offsets.end(&place);
        offsets.remove(&place);
        offsets.remove(&place);
        assert!(offsets.is_empty());
        assert_eq!(offsets.size_in_bytes(), 0);
    }
}
