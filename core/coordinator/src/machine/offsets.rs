//! The committed offsets of one group.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use towpath_types::{ProducerId, TopicId};
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
    /// Its place in the order of the log: of a transactional and a plain commit of one partition the later one counts.
    pub(super) stamp: u64,
}

impl Committed {
    fn size_in_bytes(&self) -> usize {
        OFFSET_OVERHEAD + self.metadata.len()
    }

    /// The most that it takes at a place that has no offset yet, on its way to the log and there.
    pub(super) fn room_needed(&self, (topic, _): &Place) -> usize {
        2 * OFFSET_OVERHEAD + topic.len() + self.size_in_bytes()
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

    pub(super) fn from_value(value: OffsetCommitValue, stamp: u64) -> Self {
        Self {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata,
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: (value.expire_timestamp >= 0).then_some(value.expire_timestamp),
            topic_id: TopicId::new(value.topic_id),
            stamp,
        }
    }
}

/// A partition of a group's offsets.
pub(super) type Place = (Arc<str>, i32);

/// Commits of a partition that are on their way to the log.
#[derive(Debug, Default)]
struct InFlight {
    plain: u32,
    transactional: u32,
}

/// What a group has committed. Only what is committed in the log is in here; what is on its way to the log is
/// counted beside it, so that a deletion reaches it, too. What belongs to an open transaction waits for its end.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    topics: BTreeMap<Arc<str>, BTreeMap<i32, Committed>>,
    in_flight: BTreeMap<Place, InFlight>,
    /// By producer. A producer stays until its transaction ends, even when its offsets have been deleted.
    pending: BTreeMap<ProducerId, BTreeMap<Place, Committed>>,
    bytes: usize,
}

impl Offsets {
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.in_flight.is_empty() && self.pending.is_empty()
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

    /// Forgets an offset, and what open transactions would put in its place.
    pub(super) fn remove(&mut self, place: &Place) {
        for offsets in self.pending.values_mut() {
            if let Some(old) = offsets.remove(place) {
                self.bytes -= OFFSET_OVERHEAD + old.size_in_bytes();
            }
        }
        let (topic, partition) = place;
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
    pub(super) fn begin(&mut self, place: Place, committed: &Committed, is_transactional: bool) {
        self.bytes += committed.size_in_bytes();
        let count = self.in_flight.entry(place).or_default();
        if is_transactional {
            count.transactional += 1;
        } else {
            count.plain += 1;
        }
    }

    /// A commit of `place` is in the log, or will never be.
    pub(super) fn end(&mut self, place: &Place, committed: &Committed, is_transactional: bool) {
        let Entry::Occupied(mut entry) = self.in_flight.entry(place.clone()) else { return };
        let count = entry.get_mut();
        let counter = if is_transactional { &mut count.transactional } else { &mut count.plain };
        if *counter > 0 {
            *counter -= 1;
            self.bytes -= committed.size_in_bytes();
        }
        if count.plain + count.transactional == 0 {
            entry.remove();
        }
    }

    /// An offset of an open transaction is in the log.
    pub(super) fn put_pending(&mut self, producer: ProducerId, place: Place, committed: Committed) {
        if !self.pending.contains_key(&producer) {
            self.bytes += OFFSET_OVERHEAD;
        }
        self.bytes += OFFSET_OVERHEAD + committed.size_in_bytes();
        if let Some(old) = self.pending.entry(producer).or_default().insert(place, committed) {
            self.bytes -= OFFSET_OVERHEAD + old.size_in_bytes();
        }
    }

    /// A producer's transaction has ended: its offsets become visible, or are dropped.
    pub(super) fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        let Some(offsets) = self.pending.remove(&producer) else { return };
        self.bytes -= OFFSET_OVERHEAD;
        for (place, committed) in offsets {
            self.bytes -= OFFSET_OVERHEAD + committed.size_in_bytes();
            let newer = |old: &Committed| old.stamp > committed.stamp;
            if commit && !self.get(&place.0, place.1).is_some_and(newer) {
                self.put(place, committed);
            }
        }
    }

    /// The producers whose transactions are open.
    pub(super) fn open_transactions(&self) -> impl Iterator<Item = ProducerId> {
        self.pending.keys().copied()
    }

    /// Whether an open transaction may yet change the offset of the partition.
    pub(super) fn is_unstable(&self, topic: &str, partition: i32) -> bool {
        if self.pending.is_empty() && self.in_flight.is_empty() {
            return false;
        }
        let place: Place = (Arc::from(topic), partition);
        self.pending.values().any(|offsets| offsets.contains_key(&place))
            || self.in_flight.get(&place).is_some_and(|count| count.transactional > 0)
    }

    /// Whether there is, or is about to be, an offset of the partition.
    pub(super) fn knows(&self, topic: &str, partition: i32) -> bool {
        self.get(topic, partition).is_some() || self.is_changing(&(Arc::from(topic), partition))
    }

    /// Whether a commit of the partition is on its way, to the log or to the end of its transaction.
    pub(super) fn is_changing(&self, place: &Place) -> bool {
        self.in_flight.contains_key(place) || self.pending.values().any(|offsets| offsets.contains_key(place))
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
        let pending = self.pending.values().flat_map(|offsets| offsets.keys().cloned());
        let mut places: Vec<Place> = committed.chain(self.in_flight.keys().cloned()).chain(pending).collect();
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
            stamp: 0,
        }
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut offsets = Offsets::default();
        let place: Place = (Arc::from("t"), 0);
        offsets.begin(place.clone(), &committed("on its way"), false);
        offsets.begin(place.clone(), &committed(""), true);
        assert!(offsets.knows("t", 0) && !offsets.is_empty() && offsets.is_unstable("t", 0));
        offsets.put(place.clone(), committed("long metadata"));
        offsets.put(place.clone(), committed(""));
        assert_eq!(offsets.places(), std::slice::from_ref(&place));
        offsets.end(&place, &committed("on its way"), false);
        assert!(offsets.is_changing(&place));
        offsets.end(&place, &committed(""), true);
        offsets.end(&place, &committed(""), true);
        offsets.remove(&place);
        offsets.remove(&place);
        assert!(offsets.is_empty());
        assert_eq!(offsets.size_in_bytes(), 0);
    }

    #[test]
    fn a_transactions_offsets_wait_for_its_end() {
        let mut offsets = Offsets::default();
        let (place, other): (Place, Place) = ((Arc::from("t"), 0), (Arc::from("t"), 1));
        let producer = ProducerId::new(7);
        offsets.put_pending(producer, place.clone(), Committed { offset: 5, stamp: 1, ..committed("x") });
        offsets.put_pending(producer, place.clone(), Committed { offset: 6, stamp: 2, ..committed("") });
        offsets.put_pending(producer, other.clone(), Committed { offset: 7, stamp: 3, ..committed("") });
        assert!(offsets.is_unstable("t", 0) && !offsets.is_unstable("t", 2));
        assert_eq!(offsets.get("t", 0), None);
        // A plain commit that stands later in the log outlives the transaction's end.
        offsets.put(other, Committed { offset: 8, stamp: 4, ..committed("") });
        offsets.end_transaction(producer, true);
        let offset = |partition| offsets.get("t", partition).map(|committed| committed.offset);
        assert_eq!((offset(0), offset(1)), (Some(6), Some(8)));
        assert_eq!(offsets.open_transactions().count(), 0);

        offsets.put_pending(producer, place.clone(), Committed { offset: 9, ..committed("") });
        offsets.end_transaction(producer, false);
        assert_eq!(offsets.get("t", 0).map(|committed| committed.offset), Some(6));
        offsets.put_pending(producer, place.clone(), Committed { offset: 9, ..committed("") });
        offsets.remove(&place);
        assert_eq!(offsets.open_transactions().count(), 1, "deleted, but the transaction is open");
        offsets.end_transaction(producer, true);
        offsets.remove(&(Arc::from("t"), 1));
        assert!(offsets.is_empty());
        assert_eq!(offsets.size_in_bytes(), 0);
    }
}
