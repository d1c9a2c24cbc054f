//! Offsets and transactions, told by the order of what is in the log.

use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::TxnOffsetCommitRequest;
use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};

use super::*;
use crate::record::{self, Entry};

pub(super) const PRODUCERS: i64 = 3;

/// A partition by topic.
pub(super) type Place = (String, i32);

/// What a reader of the log knows of the group's offsets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Model {
    /// With the place of the record in the log.
    offsets: BTreeMap<Place, (usize, i64)>,
    pending: BTreeMap<i64, BTreeMap<Place, (usize, i64)>>,
    next: usize,
}

impl Model {
    pub(super) fn of(log: &[LoadedEntry]) -> Self {
        let mut model = Self::default();
        log.iter().for_each(|entry| model.take_entry(entry));
        model
    }

    pub(super) fn take(&mut self, appended: &Appended) {
        let mut written = Vec::new();
        appended.clone().write_to(&mut written);
        written.iter().for_each(|entry| self.take_entry(entry));
    }

    fn take_entry(&mut self, entry: &LoadedEntry) {
        self.next += 1;
        match entry {
            LoadedEntry::Marker { producer, commit, .. } => {
                let pending = self.pending.remove(&producer.id.get()).unwrap_or_default();
                for (place, offset) in pending.into_iter().filter(|_| *commit) {
                    if self.offsets.get(&place).is_none_or(|old| old.0 < offset.0) {
                        self.offsets.insert(place, offset);
                    }
                }
            }
            LoadedEntry::Record { key, value, producer, .. } => {
                let Entry::Offset(key, value) = record::decode(key.as_ref(), value.as_ref()).unwrap() else {
                    return;
                };
                let place = (key.topic, key.partition);
                match (value, producer) {
                    (Some(value), Some(producer)) => {
                        let pending = self.pending.entry(producer.id.get()).or_default();
                        pending.insert(place, (self.next, value.offset));
                    }
                    (Some(value), None) => {
                        self.offsets.insert(place, (self.next, value.offset));
                    }
                    (None, _) => {
                        self.offsets.remove(&place);
                        for pending in self.pending.values_mut() {
                            pending.remove(&place);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn offsets(&self) -> BTreeMap<Place, i64> {
        self.offsets.iter().map(|(place, (_, offset))| (place.clone(), *offset)).collect()
    }

    /// Whether no transaction is open.
    pub(super) fn is_quiet(&self) -> bool {
        self.pending.is_empty()
    }

    pub(super) fn is_pending(&self, place: &Place) -> bool {
        self.pending.values().any(|pending| pending.contains_key(place))
    }
}

impl Simulation {
    /// A producer that belongs to nobody commits offsets, or ends its transaction.
    pub(super) fn step_transaction(&mut self) {
        let producer = self.random.random_range(0..PRODUCERS);
        if self.random.random_bool(0.4) {
            let commit = self.random.random_bool(0.6);
            self.end_transaction(producer, commit);
            return;
        }
        let request = TxnOffsetCommitRequest {
            transactional_id: format!("t{producer}"),
            group_id: GROUP.into(),
            producer_id: producer,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: (*TOPICS.choose(&mut self.random).unwrap()).to_owned(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: self.random.random_range(0..3),
                    committed_offset: self.random.random_range(0..1_000),
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        self.ask(|machine, now, waiter, out| machine.txn_offset_commit(now, waiter, &request, out));
    }

    pub(super) fn end_transaction(&mut self, producer: i64, commit: bool) {
        let producer = TransactionalProducer { id: ProducerId::new(producer), epoch: ProducerEpoch::new(0) };
        let marker = EndMarker { producer, coordinator_epoch: 1, commit, bumps_epoch: false };
        self.ask(|machine, _, waiter, out| machine.end_transaction(waiter, marker, out));
    }
}
