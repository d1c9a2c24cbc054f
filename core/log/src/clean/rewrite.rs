//! One run over a log: learning the newest offset of each key, then writing what stays.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use towpath_record::{BatchBuilder, BatchError, BatchHeader, BuildError, Codec, RecordBatch, TimestampType};

use super::keys::KeyMap;
use super::swap::discard;
use super::transactions::Transactions;
use super::{CLEANED, CleanStats};
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, Segments};
use crate::producer::{EndMarker, LastTrace};
use crate::scan::{HeaderScan, read_batch};
use crate::segment::{LOG, SCAN_WINDOW_BYTES, Segment, segment_path};
use crate::storage::{OpenMode, StorageFile};

/// Bytes that gather before they are written.
const OUT_BYTES: usize = 1 << 20;

/// One run over a log.
pub(super) struct Cleaning<'a> {
    pub(super) log: &'a Log,
    pub(super) disk: &'a Disk,
    pub(super) config: &'a LogConfig,
    pub(super) now_ms: i64,
    /// Offsets after which a batch leaves at least its header: the end of what is compacted, and the high watermark. The
    /// log's end would be lost with it.
    pub(super) bounds: [i64; 2],
    pub(super) map: KeyMap,
    /// All segments of the log as it was: where aborted transactions are looked for.
    pub(super) segments: Segments,
    pub(super) transactions: Transactions,
    /// Offsets at which leader epochs begin: the last batch of the epoch before leaves at least its header. A replica that
    /// fetches what is left would not know of that epoch otherwise (rule 4): as a leader it would make others cut off what
    /// they have of it, although it was committed, and their high watermarks would go back.
    pub(super) epoch_starts: Vec<i64>,
    /// What each producer must leave behind.
    pub(super) producers: HashMap<i64, LastTrace>,
    pub(super) stats: CleanStats,
}

/// What becomes of a batch.
enum Fate {
    AsItIs,
    Rewritten(Bytes),
    Gone,
}

#[derive(Debug, thiserror::Error)]
enum CleanError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl CleanError {
    fn at(self, path: &Path) -> LogError {
        match self {
            Self::Log(error) => error,
            other => LogError::corrupt(path, other.to_string()),
        }
    }
}

/// A cleaned segment's file and what is to be written to it.
struct Out {
    file: Arc<dyn StorageFile>,
    bytes: Vec<u8>,
    written: u64,
}

impl Out {
    fn write(&mut self, disk: &Disk, path: &Path) -> Result<(), LogError> {
        disk.wrote("write", path, self.file.write_at([&self.bytes, &[]], self.written))?;
        self.written += self.bytes.len() as u64;
        self.bytes.clear();
        Ok(())
    }
}

fn corrupt(path: &Path, error: &BatchError) -> LogError {
    LogError::corrupt(path, error.to_string())
}

impl Cleaning<'_> {
    /// The aborted transactions of the part of a segment that ends at `end`.
    fn meet_aborted(&mut self, from: i64, end: i64) -> Result<(), LogError> {
        let aborted = self.log.aborted_within(&self.segments, from, end)?;
        self.transactions.add(aborted);
        Ok(())
    }

    /// Enters the keys of a segment, which ends at `end`, into the map; `false` when the map is full, with `map.end` where
    /// it was. Aborted records count for nothing.
    pub(super) fn learn(&mut self, segment: &Segment, from: i64, end: i64) -> Result<bool, LogError> {
        self.meet_aborted(from.max(segment.base), end)?;
        let file = segment.file(self.disk)?;
        let path = segment.path(LOG);
        let mut scan = HeaderScan::new(self.disk, file.as_ref(), &path, 0..segment.size(), SCAN_WINDOW_BYTES);
        while let Some(placed) = scan.next()? {
            // A deletion or a truncation waits for us.
            self.log.check_cleaning()?;
            let header = &placed.header;
            if header.last_offset().get() < from {
                continue;
            }
            if header.is_control() {
                let batch = read_batch(self.disk, file.as_ref(), &path, &placed)?;
                self.transactions.marker(header, EndMarker::in_batch(&batch));
                continue;
            }
            if self.transactions.is_aborted(header) {
                continue;
            }
            let batch = read_batch(self.disk, file.as_ref(), &path, &placed)?;
            for record in &batch.records().map_err(|error| corrupt(&path, &error))? {
                let record = record.map_err(|error| corrupt(&path, &error))?;
                let Some(key) = record.key.filter(|_| record.offset.get() >= from) else { continue };
                if !self.map.note(key, record.offset.get()) {
                    self.map.end = record.offset.get();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Writes a group of segments, the last of which ends at `end`, as one, without what is outdated.
    pub(super) fn rewrite(
        &mut self,
        dir: &Arc<Path>,
        group: &[Arc<Segment>],
        end: i64,
    ) -> Result<Arc<Segment>, LogError> {
        let base = group.first().map_or(0, |first| first.base);
        self.rewrite_into(dir, base, group, end).inspect_err(|_| discard(self.disk, dir, base))
    }

    fn rewrite_into(
        &mut self,
        dir: &Arc<Path>,
        base: i64,
        group: &[Arc<Segment>],
        end: i64,
    ) -> Result<Arc<Segment>, LogError> {
        let path = segment_path(dir, base, &format!("{LOG}{CLEANED}"));
        let file = self.disk.open_write(&path, OpenMode::Truncate)?;
        let cleaned = Segment::cleaned(self.disk, dir, base, CLEANED, Arc::clone(&file));
        let mut out = Out { file, bytes: Vec::new(), written: 0 };
        for (index, segment) in group.iter().enumerate() {
            let segment_end = group.get(index + 1).map_or(end, |next| next.base);
            self.meet_aborted(segment.base, segment_end)?;
            self.stats.bytes_before += segment.size();
            let source = segment.file(self.disk)?;
            let source_path = segment.path(LOG);
            let range = 0..segment.size();
            let mut scan =
                HeaderScan::new(self.disk, source.as_ref(), &source_path, range, SCAN_WINDOW_BYTES);
            while let Some(placed) = scan.next()? {
                self.log.check_cleaning()?;
                let batch = read_batch(self.disk, source.as_ref(), &source_path, &placed)?;
                batch.verify_crc().map_err(|error| corrupt(&source_path, &error))?;
                let fate = self.fate(&batch, &cleaned).map_err(|error| error.at(&source_path))?;
                let bytes = match fate {
                    Fate::Gone => continue,
                    Fate::AsItIs => batch.bytes().clone(),
                    Fate::Rewritten(bytes) => bytes,
                };
                let header = BatchHeader::parse(&bytes).map_err(|error| corrupt(&source_path, &error))?;
                cleaned.note(self.disk, self.config, &header)?;
                out.bytes.extend_from_slice(&bytes);
                if out.bytes.len() >= OUT_BYTES {
                    out.write(self.disk, &path)?;
                }
            }
        }
        out.write(self.disk, &path)?;
        self.stats.bytes_after += out.written;
        self.disk.wrote("sync", &path, out.file.sync_data())?;
        cleaned.finish(self.disk)?;
        cleaned.sync_indexes(self.disk)?;
        self.disk.sync_dir(dir)?;
        Ok(Arc::new(cleaned))
    }

    fn fate(&mut self, batch: &RecordBatch, cleaned: &Segment) -> Result<Fate, CleanError> {
        let count = u64::try_from(batch.record_count).unwrap_or(0);
        if batch.is_control() {
            return self.marker_fate(batch, cleaned);
        }
        self.stats.records_read += count;
        if self.transactions.is_aborted(batch.header()) {
            self.emptied(batch)
        } else {
            self.records_fate(batch)
        }
    }

    /// A marker stays as long as there are records of its transaction, and `delete.retention.ms` longer (KIP-534): a reader
    /// that has read such a record has to read the marker.
    fn marker_fate(&mut self, batch: &RecordBatch, cleaned: &Segment) -> Result<Fate, CleanError> {
        let fate = self.transactions.marker(batch.header(), EndMarker::in_batch(batch));
        if let Some(entry) = fate.entry {
            cleaned.make_room_for_aborted(self.disk)?;
            cleaned.push_aborted(entry);
        }
        if !fate.discardable {
            return Ok(Fate::AsItIs);
        }
        match batch.delete_horizon_ms() {
            _ if batch.record_count == 0 => self.emptied(batch),
            Some(horizon) if horizon <= self.now_ms => self.emptied(batch),
            Some(_) => Ok(Fate::AsItIs),
            None => {
                let records = batch.records()?;
                let kept = records.iter().collect::<Result<Vec<_>, _>>()?;
                Ok(Fate::Rewritten(self.build(batch, &kept, true)?))
            }
        }
    }

    fn records_fate(&mut self, batch: &RecordBatch) -> Result<Fate, CleanError> {
        let records = batch.records()?;
        let horizon = batch.delete_horizon_ms();
        let tombstones_stay = horizon.is_none_or(|horizon| self.now_ms < horizon);
        let mut kept = Vec::with_capacity(records.len());
        let mut has_tombstone = false;
        for record in &records {
            let record = record?;
            let is_past_map = record.offset.get() >= self.map.end;
            let newest = record.key.is_some_and(|key| self.map.is_newest(key, record.offset.get()));
            let stays = is_past_map || (newest && (record.value.is_some() || tombstones_stay));
            if stays {
                has_tombstone |= record.value.is_none();
                kept.push(record);
            }
        }
        self.stats.records_kept += kept.len() as u64;
        if kept.is_empty() {
            return self.emptied(batch);
        }
        // KIP-534: the first compaction that meets a tombstone says until when it stays.
        let stamp = has_tombstone && horizon.is_none();
        if kept.len() == records.len() && !stamp {
            return Ok(Fate::AsItIs);
        }
        Ok(Fate::Rewritten(self.build(batch, &kept, stamp)?))
    }

    /// Nothing of a batch stays, except for its header where that says something.
    fn emptied(&self, batch: &RecordBatch) -> Result<Fate, CleanError> {
        if !self.must_stay(batch) {
            return Ok(Fate::Gone);
        }
        if batch.record_count == 0 && batch.delete_horizon_ms().is_none() {
            return Ok(Fate::AsItIs);
        }
        Ok(Fate::Rewritten(self.build(batch, &[], false)?))
    }

    /// Whether a batch leaves at least its header: it carries a producer's last sequence number, or the epoch of one that
    /// has written only markers, or it is the last of its leader epoch, or before a bound.
    fn must_stay(&self, batch: &RecordBatch) -> bool {
        let is_last_trace = batch.has_producer_id()
            && match self.producers.get(&batch.producer_id.get()) {
                Some(LastTrace::Data(last)) => batch.last_offset().get() == *last,
                Some(LastTrace::Marker(epoch)) => batch.is_control() && batch.producer_epoch.get() == *epoch,
                None => false,
            };
        let end = batch.next_offset().get();
        is_last_trace || self.bounds.contains(&end) || self.epoch_starts.binary_search(&end).is_ok()
    }

    fn build(
        &self,
        batch: &RecordBatch,
        kept: &[towpath_record::Record<'_>],
        stamp: bool,
    ) -> Result<Bytes, CleanError> {
        let compression = batch.compression()?;
        let mut builder = BatchBuilder::new(Codec::from(compression));
        builder.set_like(batch.header());
        if stamp {
            builder.set_delete_horizon(self.now_ms.saturating_add(self.config.delete_retention_ms));
        } else if kept.is_empty() {
            builder.clear_delete_horizon();
        }
        let mut max_timestamp = i64::MIN;
        let mut headers = Vec::new();
        for record in kept {
            headers.clear();
            headers.extend(record.headers);
            let delta = (record.offset.get() - batch.base_offset.get()) as i32;
            builder.append_at(delta, record.timestamp, record.key, record.value, &headers)?;
            max_timestamp = max_timestamp.max(record.timestamp);
        }
        if batch.timestamp_type() == TimestampType::CreateTime && !kept.is_empty() {
            builder.set_max_timestamp(max_timestamp);
        }
        Ok(builder.build()?)
    }
}
