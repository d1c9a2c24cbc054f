//! What a partition remembers of idempotent producers (KIP-98), and its snapshots.

use std::collections::HashMap;
use std::path::Path;

use towpath_record::BatchHeader;
use towpath_types::{Offset, ProducerEpoch, ProducerId, limits};

use crate::disk::Disk;
use crate::error::{AppendError, LogError};
use crate::storage::OpenMode;

/// Batches of a producer whose repetition is recognised.
const BATCHES_KEPT: usize = 5;
const SNAPSHOT_VERSION: i16 = 1;
const SNAPSHOT_HEADER_BYTES: usize = 10;
const SNAPSHOT_ENTRY_BYTES: usize = 46;

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
    /// Whether it has written since the last sweep of [`ProducerState::expire`], and when such a sweep was.
    wrote: bool,
    wrote_ms: i64,
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

    fn push(&mut self, mark: BatchMark) {
        if usize::from(self.count) == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batches[BATCHES_KEPT - 1] = mark;
        } else {
            self.batches[usize::from(self.count)] = mark;
            self.count += 1;
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

/// What to do with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Append,
    /// It is in the log already, at these offsets.
    Duplicate {
        first: Offset,
        last: Offset,
        timestamp: i64,
    },
}

#[derive(Debug, Default)]
pub(crate) struct ProducerState {
    producers: HashMap<i64, ProducerEntry>,
}

impl ProducerState {
    pub(crate) fn clear(&mut self) {
        self.producers.clear();
    }

    pub(crate) fn summaries(&self) -> Vec<ProducerSummary> {
        let summary = |(id, entry): (&i64, &ProducerEntry)| ProducerSummary {
            producer_id: ProducerId::new(*id),
            producer_epoch: ProducerEpoch::new(entry.epoch),
            last_sequence: entry.marks().last().map_or(-1, |mark| mark.last_sequence),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            txn_start_offset: (entry.txn_first_offset >= 0).then(|| Offset::new(entry.txn_first_offset)),
        };
        self.producers.iter().map(summary).collect()
    }

    /// The last offset of each producer's records.
    pub(crate) fn last_offsets(&self) -> HashMap<i64, i64> {
        let last = |entry: &ProducerEntry| entry.marks().last().map(|mark| mark.last_offset);
        self.producers.iter().filter_map(|(id, entry)| Some((*id, last(entry)?))).collect()
    }

    /// Checks a produced batch: is it new, a repetition, or out of order?
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Decision, AppendError> {
        if !header.has_producer_id() || header.is_control() {
            return Ok(Decision::Append);
        }
        let Some(entry) = self.producers.get(&header.producer_id.get()) else {
            return Ok(Decision::Append);
        };
        let epoch = header.producer_epoch.get();
        if epoch < entry.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id: header.producer_id,
                found: header.producer_epoch,
                current: ProducerEpoch::new(entry.epoch),
            });
        }
        let last = entry.marks().last().map_or(-1, |mark| mark.last_sequence);
        let out_of_order = AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            found: header.base_sequence,
            last,
        };
        if epoch > entry.epoch {
            return if header.base_sequence == 0 { Ok(Decision::Append) } else { Err(out_of_order) };
        }
        let repeated = entry.marks().iter().find(|mark| {
            mark.first_sequence() == header.base_sequence && mark.last_sequence == header.last_sequence()
        });
        if let Some(mark) = repeated {
            return Ok(Decision::Duplicate {
                first: Offset::new(mark.last_offset - i64::from(mark.offset_delta)),
                last: Offset::new(mark.last_offset),
                timestamp: mark.timestamp,
            });
        }
        // Sequences wrap from MAX to 0; after -1 (only markers so far) comes 0.
        let expected = if last == i32::MAX { 0 } else { last + 1 };
        if header.base_sequence == expected { Ok(Decision::Append) } else { Err(out_of_order) }
    }

    /// Takes note of a batch that is in the log; `header` has its final offsets. `marker` is the coordinator epoch
    /// of a transaction marker.
    pub(crate) fn update(&mut self, header: &BatchHeader, marker: Option<i32>) {
        if !header.has_producer_id() {
            return;
        }
        let id = header.producer_id.get();
        let epoch = header.producer_epoch.get();
        if !self.producers.contains_key(&id) {
            self.make_room();
        }
        let entry = self.producers.entry(id).or_insert_with(|| ProducerEntry::new(epoch));
        if epoch > entry.epoch {
            entry.epoch = epoch;
            entry.count = 0;
        }
        entry.last_timestamp = header.max_timestamp;
        entry.wrote = true;
        if header.is_control() {
            entry.txn_first_offset = -1;
            if let Some(coordinator_epoch) = marker {
                entry.coordinator_epoch = coordinator_epoch;
            }
            return;
        }
        if header.is_transactional() && entry.txn_first_offset < 0 {
            entry.txn_first_offset = header.base_offset.get();
        }
        entry.push(BatchMark {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset().get(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
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

    /// R10: forgets the tenth of the producers that wrote longest ago, when there are too many.
    fn make_room(&mut self) {
        if self.producers.len() < limits::PRODUCERS_PER_PARTITION_MAX {
            return;
        }
        let mut times: Vec<i64> = self.producers.values().map(|entry| entry.last_timestamp).collect();
        let tenth = times.len() / 10;
        let (_, bound, _) = times.select_nth_unstable(tenth);
        let bound = *bound;
        self.producers.retain(|_, entry| entry.last_timestamp > bound || entry.txn_first_offset >= 0);
    }

    /// Forgets producers that have not written for `expiration_ms` and have no open transaction. When they wrote is
    /// told by this broker's clock: the records' own timestamps, by which Kafka goes, may be of another year, and what
    /// is sent twice would then be taken twice.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.retain(|_, entry| {
            if std::mem::take(&mut entry.wrote) {
                entry.wrote_ms = now_ms;
            }
            entry.txn_first_offset >= 0 || now_ms.saturating_sub(entry.wrote_ms) < expiration_ms
        });
    }

    /// Writes a snapshot; the caller syncs it before the recovery point moves.
    pub(crate) fn write_snapshot(&self, disk: &Disk, path: &Path) -> Result<(), LogError> {
        let mut out = Vec::with_capacity(SNAPSHOT_HEADER_BYTES + self.producers.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&SNAPSHOT_VERSION.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.producers.len() as i32).to_be_bytes());
        for (id, entry) in &self.producers {
            let mark = entry.marks().last();
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&entry.epoch.to_be_bytes());
            out.extend_from_slice(&mark.map_or(-1, |mark| mark.last_sequence).to_be_bytes());
            out.extend_from_slice(&mark.map_or(-1, |mark| mark.last_offset).to_be_bytes());
            out.extend_from_slice(&mark.map_or(0, |mark| mark.offset_delta).to_be_bytes());
            out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
            out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&entry.txn_first_offset.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[6..]);
        out[2..6].copy_from_slice(&crc.to_be_bytes());
        let file = disk.open_write(path, OpenMode::Truncate)?;
        disk.wrote("write", path, file.write_at([&out, &[]], 0))
    }

    /// Reads a snapshot; `None` if it cannot be trusted (it is then ignored, and the log replayed).
    pub(crate) fn read_snapshot(disk: &Disk, path: &Path) -> Result<Option<Self>, LogError> {
        let Some(content) = disk.read_small(path)? else { return Ok(None) };
        Ok(Self::decode(&content))
    }

    fn decode(content: &[u8]) -> Option<Self> {
        let mut at = 0;
        let version = i16::from_be_bytes(take(content, &mut at)?);
        let crc = u32::from_be_bytes(take(content, &mut at)?);
        if version != SNAPSHOT_VERSION || crc32c::crc32c(&content[at..]) != crc {
            return None;
        }
        let count = usize::try_from(i32::from_be_bytes(take(content, &mut at)?)).ok()?;
        if content.len() - at != count.checked_mul(SNAPSHOT_ENTRY_BYTES)? {
            return None;
        }
        let mut state = Self::default();
        for _ in 0..count {
            let id = i64::from_be_bytes(take(content, &mut at)?);
            let mut entry = ProducerEntry::new(i16::from_be_bytes(take(content, &mut at)?));
            let mark = BatchMark {
                last_sequence: i32::from_be_bytes(take(content, &mut at)?),
                last_offset: i64::from_be_bytes(take(content, &mut at)?),
                offset_delta: i32::from_be_bytes(take(content, &mut at)?),
                timestamp: i64::from_be_bytes(take(content, &mut at)?),
            };
            entry.last_timestamp = mark.timestamp;
            entry.coordinator_epoch = i32::from_be_bytes(take(content, &mut at)?);
            entry.txn_first_offset = i64::from_be_bytes(take(content, &mut at)?);
            if mark.last_offset >= 0 {
                entry.push(mark);
            }
            state.producers.insert(id, entry);
        }
        Some(state)
    }
}

fn take<const N: usize>(content: &[u8], at: &mut usize) -> Option<[u8; N]> {
    let part = content.get(*at..)?.first_chunk::<N>()?;
    *at += N;
    Some(*part)
}
