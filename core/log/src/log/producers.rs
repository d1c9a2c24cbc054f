//! The state of producers and transactions, from snapshots and from the log: at the start and after a truncation.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{Log, parse_name};
use crate::disk::Disk;
use crate::error::LogError;
use crate::producer::{Change, EndMarker, ProducerState};
use crate::scan::{HeaderScan, Placed, read_batch};
use crate::segment::{LOG, SCAN_WINDOW_BYTES, SNAPSHOT, Segment, segment_path};
use crate::storage::DirEntry;
use crate::txn_index::AbortedTxn;
use crate::unstable::{Ended, Unstable};

/// Bytes of the log before a producer snapshot in which batches are looked for that it does not hold: five of the usual
/// size, several times over.
const RECALLED_BYTES: u64 = 256 * 1024;

/// A transaction's end that a replay has met.
struct Met<'a> {
    /// Where its marker is.
    segment: &'a Arc<Segment>,
    ended: Ended,
    aborted: Option<AbortedTxn>,
}

/// The offsets of the producer snapshots among these files, in no order.
pub(super) fn snapshot_offsets(entries: &[DirEntry]) -> Vec<i64> {
    let names = entries.iter().filter_map(|entry| parse_name(&entry.name));
    names.filter(|(_, suffix)| *suffix == SNAPSHOT).map(|(offset, _)| offset).collect()
}

impl Log {
    /// Removes the producer snapshots past `offset`, and returns the others.
    pub(super) fn drop_snapshots_after(
        &self,
        offset: i64,
        mut snapshots: Vec<i64>,
    ) -> Result<Vec<i64>, LogError> {
        for snapshot in snapshots.iter().filter(|snapshot| **snapshot > offset) {
            self.disk.remove_file(&segment_path(&self.dir, *snapshot, SNAPSHOT))?;
        }
        snapshots.retain(|snapshot| *snapshot <= offset);
        Ok(snapshots)
    }

    /// Removes those of these producer snapshots that nobody will read again: earlier clean shutdowns left them. Those
    /// at a segment's base and the newest stay.
    pub(super) fn drop_old_snapshots(&self, snapshots: &[i64]) -> Result<(), LogError> {
        let segments = self.segments();
        let newest = snapshots.iter().max();
        let mut old: Vec<i64> = snapshots
            .iter()
            .filter(|offset| Some(*offset) != newest)
            .filter(|offset| segments.binary_search_by_key(*offset, |segment| segment.base).is_err())
            .copied()
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        // One that could not be read is gone by now, and another is the newest.
        let newest = self.snapshot_offsets()?.into_iter().max();
        old.retain(|offset| Some(*offset) != newest);
        for offset in old {
            self.disk.remove_file(&segment_path(&self.dir, offset, SNAPSHOT))?;
        }
        Ok(())
    }

    /// The offsets of the producer snapshots that are there, in no order.
    pub(super) fn snapshot_offsets(&self) -> Result<Vec<i64>, LogError> {
        let entries = self.disk.did_read("list", &self.dir, self.disk.storage.list(&self.dir))?;
        Ok(snapshot_offsets(&entries))
    }

    /// The newest of these snapshots up to `at_most` that can be read, and its offset; without one, nothing from the
    /// beginning of all offsets on. One that is older than the first segment is none, as in Kafka: markers may have been
    /// between the two, and a transaction would seem to be open for ever.
    fn newest_snapshot(&self, at_most: i64, snapshots: &[i64]) -> Result<(ProducerState, i64), LogError> {
        let first = self.first_segment_base_offset().get();
        let usable = snapshots.iter().filter(|offset| (first..=at_most).contains(*offset));
        let mut offsets: Vec<i64> = usable.copied().collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        for offset in offsets {
            let path = segment_path(&self.dir, offset, SNAPSHOT);
            if let Some(state) = ProducerState::read_snapshot(&self.disk, &path)? {
                return Ok((state, offset));
            }
            // It is looked for once more where transactions are loaded, and is gone by then.
            tracing::warn!(path = %path.display(), "unreadable producer snapshot ignored");
            self.disk.remove_file(&path)?;
        }
        Ok((ProducerState::default(), i64::MIN))
    }

    /// The producer state at `end`: the newest of these snapshots that can be read, and what follows it in the log.
    pub(super) fn load_producers(&self, end: i64, snapshots: &[i64]) -> Result<ProducerState, LogError> {
        let (mut state, from) = self.newest_snapshot(end, snapshots)?;
        if from < end {
            self.replay_producers(&mut state, from..end, |_| Ok(()))?;
        }
        self.recall_batches(&mut state, from, end)?;
        Ok(state)
    }

    /// A snapshot has the last batch of each producer only. Those before it are looked for in the log right before the
    /// snapshot, so that a producer that repeats all that it had in flight is understood after a restart as well.
    fn recall_batches(&self, state: &mut ProducerState, from: i64, end: i64) -> Result<(), LogError> {
        if !state.has_forgotten_batches() {
            return Ok(());
        }
        let segments = self.segments();
        let before = segments.partition_point(|segment| segment.base < from);
        let (mut start, mut left) = (from, RECALLED_BYTES);
        for segment in segments[..before].iter().rev() {
            start = segment.offset_before(&self.disk, from, left)?;
            left = left.saturating_sub(segment.size());
            if left == 0 || start > segment.base {
                break;
            }
        }
        let mut recalled = ProducerState::default();
        self.replay_producers(&mut recalled, start..end, |_| Ok(()))?;
        state.recall(&recalled);
        Ok(())
    }

    /// What a log that is being opened knows of transactions. The indexes of aborted transactions of the segments that
    /// begin at the offsets `unindexed` are made anew; transactions whose markers are not below the high watermark are
    /// remembered.
    pub(super) fn load_transactions(
        &self,
        producers: &ProducerState,
        range: Range<i64>,
        snapshots: &[i64],
        unindexed: &BTreeSet<i64>,
    ) -> Result<Unstable, LogError> {
        let Range { start: high_watermark, end } = range;
        let first_unindexed = unindexed.first().copied();
        let has_unsettled = producers.has_ended() && self.has_markers(high_watermark, end)?;
        let from = has_unsettled.then_some(high_watermark).into_iter().chain(first_unindexed).min();
        let mut ended = Vec::new();
        if let Some(from) = from {
            let (mut state, start) = self.newest_snapshot(from, snapshots)?;
            self.replay_producers(&mut state, start..end, |met| {
                if let Some(aborted) = met.aborted.filter(|_| unindexed.contains(&met.segment.base)) {
                    met.segment.make_room_for_aborted(&self.disk)?;
                    met.segment.push_aborted(aborted);
                }
                if met.ended.marker >= high_watermark {
                    ended.push(met.ended);
                }
                Ok(())
            })?;
        }
        for segment in self.segments().iter().filter(|segment| unindexed.contains(&segment.base)) {
            segment.settle_transactions(&self.disk)?;
        }
        Ok(Unstable::new(producers.first_open(), ended))
    }

    /// Whether any transaction was ended at or after `from`.
    fn has_markers(&self, from: i64, end: i64) -> Result<bool, LogError> {
        let mut found = false;
        self.each_header(from..end, |_, _, placed| {
            found |= placed.header.is_control() && placed.header.has_producer_id();
            Ok(!found)
        })?;
        Ok(found)
    }

    /// Brings `state` from the beginning of the range to its end, and tells each transaction's end on the way.
    fn replay_producers(
        &self,
        state: &mut ProducerState,
        range: Range<i64>,
        mut meet: impl FnMut(Met<'_>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        self.each_header(range, |disk, segment, placed| {
            let header = &placed.header;
            if !header.has_producer_id() {
                return Ok(true);
            }
            let marker = if header.is_control() {
                let file = segment.file(disk)?;
                EndMarker::in_batch(&read_batch(disk, file.as_ref(), &segment.path(LOG), placed)?)
            } else {
                None
            };
            let aborted = state.aborts(header, marker);
            if let Change::Ended { first } = state.update(header, marker) {
                let ended = Ended { marker: header.base_offset.get(), first };
                meet(Met { segment, ended, aborted })?;
            }
            Ok(true)
        })
    }

    /// Reads the headers of the batches that have an offset in the range, until `each` returns false.
    fn each_header(
        &self,
        range: Range<i64>,
        mut each: impl FnMut(&Disk, &Arc<Segment>, &Placed) -> Result<bool, LogError>,
    ) -> Result<(), LogError> {
        let segments = self.segments();
        for (index, segment) in segments.iter().enumerate() {
            let segment_end = segments.get(index + 1).map_or(i64::MAX, |next| next.base);
            if segment_end <= range.start || segment.base >= range.end || segment.size() == 0 {
                continue;
            }
            let start = segment.find(&self.disk, range.start.max(segment.base), segment.size())?;
            let Some(start) = start else { continue };
            let file = segment.file(&self.disk)?;
            let path = segment.path(LOG);
            let bytes = start.position..segment.size();
            let mut scan = HeaderScan::new(&self.disk, file.as_ref(), &path, bytes, SCAN_WINDOW_BYTES);
            while let Some(placed) = scan.next()? {
                if placed.header.base_offset.get() >= range.end {
                    break;
                }
                if placed.header.last_offset().get() >= range.start && !each(&self.disk, segment, &placed)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
