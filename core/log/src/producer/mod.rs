//! What a partition remembers of idempotent (KIP-98) and transactional producers.

mod check;
mod snapshot;
mod verification;

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use towpath_record::{BatchHeader, ControlType, RecordBatch, control_record};
use towpath_types::{Offset, ProducerEpoch, ProducerId, limits};

use crate::txn_index::AbortedTxn;

pub(crate) use check::{Appender, Decision};
pub use verification::{TransactionCheck, VerificationGuard};
pub(crate) use verification::{Verifications, Wanted};

/// Batches of a producer whose repetition is recognised.
const BATCHES_KEPT: usize = 5;

/// One batch of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct BatchMark {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp: i64,
}

impl BatchMark {
    const fn first_sequence(&self) -> i32 {
        ((self.last_sequence as i64 - self.offset_delta as i64) & 0x7fff_ffff) as i32
    }
}

#[derive(Debug, Clone)]
struct ProducerEntry {
    epoch: i16,
    coordinator_epoch: i32,
    last_timestamp: i64,
    /// Where its last batch or marker ends; -1 after a snapshot that has none.
    last_offset: i64,
    /// Whether it has written since the last sweep of [`ProducerState::expire`], and when such a sweep was.
    wrote: bool,
    wrote_ms: i64,
    /// Where its open transaction begins, or -1.
    txn_first_offset: i64,
    /// Oldest first; the first `count` are valid.
    batches: [BatchMark; BATCHES_KEPT],
    count: u8,
}

impl ProducerEntry {
    const fn new(epoch: i16) -> Self {
        let none = BatchMark { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: -1 };
        Self {
            epoch,
            coordinator_epoch: -1,
            last_timestamp: -1,
            last_offset: -1,
            wrote: true,
            wrote_ms: 0,
            txn_first_offset: -1,
            batches: [none; BATCHES_KEPT],
            count: 0,
        }
    }

    fn marks(&self) -> &[BatchMark] {
        &self.batches[..usize::from(self.count)]
    }

    const fn is_open(&self) -> bool {
        self.txn_first_offset >= 0
    }

    fn push(&mut self, mark: BatchMark) {
        if usize::from(self.count) == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batches[BATCHES_KEPT - 1] = mark;
        } else {
            self.batches[usize::from(self.count)] = mark;
            self.count += 1;
        }
    }

    /// As in Kafka also where the epoch is an older one: the leader, which knew better, has taken it.
    const fn set_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.count = 0;
        }
    }
}

/// What `DescribeProducers` shows of one producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerSummary {
    /// The producer.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The last sequence number, or -1.
    pub last_sequence: i32,
    /// The timestamp of its last batch (ms).
    pub last_timestamp: i64,
    /// The epoch of the coordinator that last ended a transaction of it, or -1.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub txn_start_offset: Option<Offset>,
}

/// A marker as it stands in a control batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndMarker {
    pub(crate) commit: bool,
    pub(crate) coordinator_epoch: i32,
}

impl EndMarker {
    /// The marker in a batch, header and payload; none in one of records, in one that compaction has emptied, and in
    /// control batches of other kinds.
    pub(crate) fn of(header: &BatchHeader, parts: [&[u8]; 2]) -> Option<Self> {
        if !header.is_control() {
            return None;
        }
        Self::in_batch(&RecordBatch::parse(&Bytes::from(parts.concat())).ok()?)
    }

    /// As [`Self::of`].
    pub(crate) fn in_batch(batch: &RecordBatch) -> Option<Self> {
        if !batch.is_control() || batch.record_count == 0 {
            return None;
        }
        let records = batch.records().ok()?;
        let control = control_record(&records.iter().next()?.ok()?).ok()?;
        let commit = match control.control_type {
            ControlType::Commit => true,
            ControlType::Abort => false,
            ControlType::Other(_) => return None,
        };
        Some(Self { commit, coordinator_epoch: control.coordinator_epoch? })
    }
}

/// What a batch did to the transactions that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Began,
    /// One that began at `first` was ended.
    Ended {
        first: i64,
    },
}

/// The last trace of a producer that compaction must leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LastTrace {
    /// The batch that ends at this offset has its last sequence number.
    Data(i64),
    /// It has written only markers in this epoch: a control batch of it fences.
    Marker(i16),
}

#[derive(Debug, Default)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
    /// First offsets of the open transactions.
    open: BTreeSet<i64>,
}

impl ProducerState {
    pub(crate) fn clear(&mut self) {
        self.producers.clear();
        self.open.clear();
    }

    pub(crate) fn summaries(&self) -> Vec<ProducerSummary> {
        let summary = |(id, entry): (&i64, &ProducerEntry)| ProducerSummary {
            producer_id: ProducerId::new(*id),
            producer_epoch: ProducerEpoch::new(entry.epoch),
            last_sequence: entry.marks().last().map_or(-1, |mark| mark.last_sequence),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            txn_start_offset: entry.is_open().then(|| Offset::new(entry.txn_first_offset)),
        };
        let mut summaries: Vec<ProducerSummary> = self.producers.iter().map(summary).collect();
        summaries.sort_unstable_by_key(|it| it.producer_id.get());
        summaries
    }

    /// What compaction must leave of each producer.
    pub(crate) fn last_traces(&self) -> HashMap<i64, LastTrace> {
        let last = |entry: &ProducerEntry| {
            let marker = LastTrace::Marker(entry.epoch);
            entry.marks().last().map_or(marker, |mark| LastTrace::Data(mark.last_offset))
        };
        self.producers.iter().map(|(id, entry)| (*id, last(entry))).collect()
    }

    /// The first offset of the open transaction that began first.
    pub(crate) fn first_open(&self) -> Option<i64> {
        self.open.first().copied()
    }

    /// Whether any producer's transaction was ever ended here.
    pub(crate) fn has_ended(&self) -> bool {
        self.producers.values().any(|entry| entry.coordinator_epoch >= 0)
    }

    /// The entry of the transaction index that a batch brings, before [`Self::update`]: only where the marker aborts
    /// something.
    pub(crate) fn aborts(&self, header: &BatchHeader, marker: Option<EndMarker>) -> Option<AbortedTxn> {
        if marker.is_none_or(|marker| marker.commit) {
            return None;
        }
        let id = header.producer_id.get();
        let first = self.producers.get(&id).filter(|entry| entry.is_open())?.txn_first_offset;
        let other = self.open.iter().find(|other| **other != first).copied();
        Some(AbortedTxn {
            producer_id: id,
            first_offset: first,
            last_offset: header.base_offset.get(),
            last_stable_offset: other.unwrap_or_else(|| header.next_offset().get()),
        })
    }

    /// Takes note of a batch that is in the log; `header` has its final offsets. `marker` is what a control batch says.
    pub(crate) fn update(&mut self, header: &BatchHeader, marker: Option<EndMarker>) -> Change {
        if !header.has_producer_id() {
            return Change::None;
        }
        let id = header.producer_id.get();
        let epoch = header.producer_epoch.get();
        if !self.producers.contains_key(&id) {
            self.make_room();
        }
        let entry = self.producers.entry(id).or_insert_with(|| ProducerEntry::new(epoch));
        entry.wrote = true;
        entry.last_offset = header.last_offset().get();
        if header.is_control() {
            let Some(marker) = marker else {
                // Compaction has left it empty for its epoch alone.
                entry.set_epoch(epoch.max(entry.epoch));
                return Change::None;
            };
            entry.set_epoch(epoch);
            entry.last_timestamp = header.max_timestamp;
            entry.coordinator_epoch = marker.coordinator_epoch;
            let first = std::mem::replace(&mut entry.txn_first_offset, -1);
            return if first >= 0 && self.open.remove(&first) {
                Change::Ended { first }
            } else {
                Change::None
            };
        }
        entry.set_epoch(epoch);
        entry.last_timestamp = header.max_timestamp;
        entry.push(BatchMark {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset().get(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        if header.is_transactional() && !entry.is_open() {
            entry.txn_first_offset = header.base_offset.get();
            self.open.insert(entry.txn_first_offset);
            return Change::Began;
        }
        Change::None
    }

    /// Whether there are producers of whose last batches not all are known, as after a snapshot was read.
    pub(crate) fn has_forgotten_batches(&self) -> bool {
        self.producers.values().any(|entry| (1..BATCHES_KEPT).contains(&entry.marks().len()))
    }

    /// Takes over what `other`, which was read from the log, knows of batches before the last one of each producer.
    pub(crate) fn recall(&mut self, other: &Self) {
        for (id, entry) in &mut self.producers {
            let Some(found) = other.producers.get(id) else { continue };
            let last = |entry: &ProducerEntry| {
                entry.marks().last().map(|mark| (entry.epoch, mark.last_sequence, mark.last_offset))
            };
            let is_same = last(found) == last(entry);
            if is_same && found.count > entry.count {
                entry.batches = found.batches;
                entry.count = found.count;
            }
        }
    }

    /// R10: forgets the tenth of the producers that wrote longest ago, when there are too many. One with an open
    /// transaction stays: see [`Self::is_full`].
    fn make_room(&mut self) {
        if self.producers.len() < limits::PRODUCERS_PER_PARTITION_MAX {
            return;
        }
        // By place, not by the records' timestamps, which may be of any year.
        let mut places: Vec<i64> = self.producers.values().map(|entry| entry.last_offset).collect();
        let tenth = places.len() / 10;
        let (_, bound, _) = places.select_nth_unstable(tenth);
        let bound = *bound;
        self.producers.retain(|_, entry| entry.last_offset > bound || entry.is_open());
    }

    /// Whether there is no room for another producer, because all have a transaction open.
    fn is_full(&self) -> bool {
        self.open.len() >= limits::PRODUCERS_PER_PARTITION_MAX
    }

    /// Forgets producers that have not written for `expiration_ms` and have no open transaction. When they wrote is
    /// told by this broker's clock: the records' own timestamps, by which Kafka goes, may be of another year, and what
    /// is sent twice would then be taken twice.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            if std::mem::take(&mut entry.wrote) {
                entry.wrote_ms = now_ms;
            }
            entry.is_open() || now_ms.saturating_sub(entry.wrote_ms) < expiration_ms
        });
    }
}
