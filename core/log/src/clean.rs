//! Compaction (`cleanup.policy=compact`): of each key the newest record stays, at its offset.
//!
//! Closed segments below the high watermark are read once to learn the newest offset of each key, as far as memory
//! allows, and once to be rewritten without what is outdated. Batches of transactions and control batches are kept
//! as they are. The swap follows Kafka's names: a crash leaves either the old segments or the new one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use towpath_record::{BatchBuilder, BatchError, BuildError, Codec, RecordBatch, TimestampType};
use towpath_types::Offset;

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, parse_name};
use crate::scan::{HeaderScan, read_batch};
use crate::segment::{
    INDEX, LOG, SCAN_WINDOW_BYTES, SNAPSHOT, Segment, TIME_INDEX, TXN_INDEX, remove_segment, segment_path,
};
use crate::storage::{DirEntry, OpenMode};

const CLEANED: &str = ".cleaned";
const SWAP: &str = ".swap";
/// Bytes that an entry of the key map takes beside its key.
const MAP_ENTRY_BYTES: usize = 64;
/// Bytes that gather before they are written.
const OUT_BYTES: usize = 1 << 20;

/// The bounds of one compaction.
#[derive(Debug, Clone, Copy)]
pub struct CleanOptions {
    /// Bytes that the map of keys may take (`log.cleaner.dedupe.buffer.size`). Keys that no longer fit are left for
    /// the next compaction.
    pub map_bytes_max: usize,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self { map_bytes_max: 16 * 1024 * 1024 }
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanStats {
    /// Where the next compaction begins: everything below has one record per key.
    pub clean_to: Offset,
    /// Records that were read.
    pub records_read: u64,
    /// Records that stayed.
    pub records_kept: u64,
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of the segments after.
    pub bytes_after: u64,
}

/// The newest offset of each key below `end`.
struct KeyMap {
    offsets: HashMap<Box<[u8]>, i64>,
    bytes: usize,
    bytes_max: usize,
    end: i64,
}

impl KeyMap {
    /// `false`: there is no room.
    fn note(&mut self, key: &[u8], offset: i64) -> bool {
        if let Some(newest) = self.offsets.get_mut(key) {
            *newest = offset;
            return true;
        }
        let bytes = key.len() + MAP_ENTRY_BYTES;
        if self.bytes + bytes > self.bytes_max && !self.offsets.is_empty() {
            return false;
        }
        self.bytes += bytes;
        self.offsets.insert(key.into(), offset);
        true
    }

    fn is_newest(&self, key: &[u8], offset: i64) -> bool {
        offset >= self.end || self.offsets.get(key).is_none_or(|newest| offset >= *newest)
    }
}

/// One run over a log.
struct Cleaning<'a> {
    log: &'a Log,
    disk: &'a Disk,
    config: &'a LogConfig,
    now_ms: i64,
    bound: i64,
    map: KeyMap,
    /// The last offset of each producer, whose batch must leave its sequence number behind.
    producers: HashMap<i64, i64>,
    stats: CleanStats,
}

fn corrupt(path: &Path, error: &BatchError) -> LogError {
    LogError::corrupt(path, error.to_string())
}

impl Log {
    /// Whether a compaction is due: enough of the log is dirty (`min.cleanable.dirty.ratio`), or it has been for
    /// too long (`max.compaction.lag.ms`). `clean_to` is where the last compaction ended.
    pub(crate) fn is_clean_due(&self, clean_to: Offset, high_watermark: Offset) -> Result<bool, LogError> {
        let config = self.config();
        let now_ms = self.disk().clock.now_ms();
        let cleanable = self.cleanable(&config, high_watermark.get(), now_ms);
        let first_dirty = clean_to.max(self.log_start_offset()).get();
        Ok(config.compact && is_due(self.disk(), &config, &cleanable, first_dirty, now_ms)?)
    }

    /// Compacts the log if it is due. The bound must be below a recovery point that is on disk: recovery takes the
    /// gaps that compaction leaves for losses, unless it knows better. Appends and reads go on. A deletion ends it
    /// with [`LogError::Closed`].
    pub(crate) fn clean(
        &self,
        clean_to: Offset,
        bound: Offset,
        options: &CleanOptions,
    ) -> Result<Option<CleanStats>, LogError> {
        let config = self.config();
        if !config.compact {
            return Ok(None);
        }
        let _cleaning = self.cleaning.lock();
        self.disk().check()?;
        self.check_not_deleted()?;
        let now_ms = self.disk().clock.now_ms();
        let cleanable = self.cleanable(&config, bound.get(), now_ms);
        let first_dirty = clean_to.max(self.log_start_offset()).get();
        if !is_due(self.disk(), &config, &cleanable, first_dirty, now_ms)? {
            return Ok(None);
        }
        let end = cleanable.last().map_or(first_dirty, |(_, end)| *end);
        let mut cleaning = Cleaning {
            log: self,
            disk: self.disk(),
            config: &config,
            now_ms,
            bound: bound.get(),
            map: KeyMap { offsets: HashMap::new(), bytes: 0, bytes_max: options.map_bytes_max, end },
            producers: self.producer_offsets(),
            stats: CleanStats {
                clean_to: Offset::new(end),
                records_read: 0,
                records_kept: 0,
                bytes_before: 0,
                bytes_after: 0,
            },
        };
        for (segment, segment_end) in &cleanable {
            if *segment_end > first_dirty && !cleaning.learn(segment, first_dirty)? {
                break;
            }
        }
        let map_end = cleaning.map.end;
        cleaning.stats.clean_to = Offset::new(map_end);
        let involved: Vec<Arc<Segment>> = cleanable
            .iter()
            .filter(|(segment, _)| segment.base < map_end)
            .map(|(segment, _)| Arc::clone(segment))
            .collect();
        let last_end =
            cleanable.iter().rfind(|(segment, _)| segment.base < map_end).map_or(0, |(_, end)| *end);
        for group in groups(&config, &involved, last_end) {
            let cleaned = cleaning.rewrite(&self.dir, group)?;
            self.check_not_deleted()?;
            // What is half replaced is for the next start to sort out.
            self.replace_group(group, cleaned).inspect_err(|error| self.disk().fail(error))?;
        }
        tracing::debug!(partition = %self.partition(), stats = ?cleaning.stats, "log compacted");
        Ok(Some(cleaning.stats))
    }

    /// The closed segments that may be compacted now, each with the offset after it.
    fn cleanable(&self, config: &LogConfig, high_watermark: i64, now_ms: i64) -> Vec<(Arc<Segment>, i64)> {
        let segments = self.segments();
        let too_new = now_ms.saturating_sub(config.compaction_lag_ms_min);
        segments
            .iter()
            .zip(segments.iter().skip(1).map(|next| next.base))
            .take_while(|(segment, end)| {
                let settled = config.compaction_lag_ms_min == 0 || segment.max_timestamp() <= too_new;
                *end <= high_watermark && settled
            })
            .map(|(segment, end)| (Arc::clone(segment), end))
            .collect()
    }

    /// Puts the cleaned segment in the place of the group, in memory and then on disk.
    fn replace_group(&self, group: &[Arc<Segment>], cleaned: Arc<Segment>) -> Result<(), LogError> {
        let disk = self.disk();
        for segment in group {
            segment.retire(disk)?;
        }
        let _flushing = self.flushing.lock();
        // Places in closed segments change: forgotten before a reader can see the new list.
        self.tail.lock().clear();
        {
            let mut segments = self.segments.write();
            let list = segments.iter().filter(|segment| segment.base >= cleaned.base);
            let list = list.filter(|segment| group.iter().all(|old| !Arc::ptr_eq(old, segment)));
            let before = segments.iter().filter(|segment| segment.base < cleaned.base);
            let list: Vec<Arc<Segment>> =
                before.chain(std::iter::once(&cleaned)).chain(list).cloned().collect();
            *segments = Arc::new(list);
        }
        let base = cleaned.base;
        let with = |suffix: &str, stage: &str| segment_path(&self.dir, base, &format!("{suffix}{stage}"));
        cleaned.move_indexes(disk, &self.dir, SWAP)?;
        disk.rename(&with(LOG, CLEANED), &with(LOG, SWAP))?;
        disk.sync_dir(&self.dir)?;
        // From here on the new segment counts. The old ones go oldest first, so that no tombstone goes before what
        // it deletes.
        for suffix in [INDEX, TIME_INDEX, TXN_INDEX] {
            disk.remove_file(&segment_path(&self.dir, base, suffix))?;
        }
        for old in group.iter().filter(|old| old.base != base) {
            remove_segment(disk, &self.dir, old.base)?;
            disk.remove_file(&segment_path(&self.dir, old.base, SNAPSHOT))?;
        }
        cleaned.move_indexes(disk, &self.dir, "")?;
        disk.rename(&with(LOG, SWAP), &segment_path(&self.dir, base, LOG))?;
        disk.sync_dir(&self.dir)
    }
}

fn is_due(
    disk: &Disk,
    config: &LogConfig,
    cleanable: &[(Arc<Segment>, i64)],
    first_dirty: i64,
    now_ms: i64,
) -> Result<bool, LogError> {
    let total: u64 = cleanable.iter().map(|(segment, _)| segment.size()).sum();
    let dirty = cleanable.iter().filter(|(_, end)| *end > first_dirty);
    let dirty_bytes: u64 = dirty.clone().map(|(segment, _)| segment.size()).sum();
    if dirty_bytes == 0 {
        return Ok(false);
    }
    if dirty_bytes as f64 / total as f64 > config.dirty_ratio_min {
        return Ok(true);
    }
    for (segment, _) in dirty {
        let first = segment.first_timestamp(disk)?;
        if first >= 0 && now_ms.saturating_sub(first) > config.compaction_lag_ms_max {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs of segments that fit into one by size and by range of offsets.
fn groups<'a>(config: &LogConfig, segments: &'a [Arc<Segment>], end: i64) -> Vec<&'a [Arc<Segment>]> {
    let mut groups = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        let segment_end = segments.get(index + 1).map_or(end, |next| next.base);
        let span = segment_end.saturating_sub(segments[start].base);
        let fits = bytes + segment.size() <= config.segment_bytes && span <= i64::from(i32::MAX);
        if index > start && !fits {
            groups.push(&segments[start..index]);
            start = index;
            bytes = 0;
        }
        bytes += segment.size();
    }
    if start < segments.len() {
        groups.push(&segments[start..]);
    }
    groups
}

/// What becomes of a batch.
enum Fate {
    AsItIs,
    Rewritten(Bytes),
    Gone,
}

impl Cleaning<'_> {
    /// Enters a segment's keys into the map; `false` when the map is full, with `map.end` where it was.
    fn learn(&mut self, segment: &Segment, from: i64) -> Result<bool, LogError> {
        let file = segment.file(self.disk)?;
        let path = segment.path(LOG);
        let mut scan = HeaderScan::new(self.disk, file.as_ref(), &path, 0..segment.size(), SCAN_WINDOW_BYTES);
        while let Some(placed) = scan.next()? {
            // A deletion waits for us.
            self.log.check_not_deleted()?;
            let header = &placed.header;
            if header.last_offset().get() < from || header.is_control() || header.is_transactional() {
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

    /// Writes a group of segments as one, without what is outdated.
    fn rewrite(&mut self, dir: &Arc<Path>, group: &[Arc<Segment>]) -> Result<Arc<Segment>, LogError> {
        let base = group.first().map_or(0, |first| first.base);
        let path = segment_path(dir, base, &format!("{LOG}{CLEANED}"));
        let file = self.disk.open_write(&path, OpenMode::Truncate)?;
        let cleaned = Segment::cleaned(self.disk, dir, base, CLEANED, Arc::clone(&file));
        let mut out: Vec<u8> = Vec::new();
        let mut written = 0u64;
        for segment in group {
            self.stats.bytes_before += segment.size();
            let source = segment.file(self.disk)?;
            let source_path = segment.path(LOG);
            let range = 0..segment.size();
            let mut scan =
                HeaderScan::new(self.disk, source.as_ref(), &source_path, range, SCAN_WINDOW_BYTES);
            while let Some(placed) = scan.next()? {
                self.log.check_not_deleted()?;
                let batch = read_batch(self.disk, source.as_ref(), &source_path, &placed)?;
                batch.verify_crc().map_err(|error| corrupt(&source_path, &error))?;
                let bytes = match self.fate(&batch, &source_path)? {
                    Fate::Gone => continue,
                    Fate::AsItIs => batch.bytes().clone(),
                    Fate::Rewritten(bytes) => bytes,
                };
                let header = towpath_record::BatchHeader::parse(&bytes)
                    .map_err(|error| corrupt(&source_path, &error))?;
                cleaned.note(self.disk, self.config, &header)?;
                out.extend_from_slice(&bytes);
                if out.len() >= OUT_BYTES {
                    self.disk.wrote("write", &path, file.write_at([&out, &[]], written))?;
                    written += out.len() as u64;
                    out.clear();
                }
            }
        }
        self.disk.wrote("write", &path, file.write_at([&out, &[]], written))?;
        self.stats.bytes_after += written + out.len() as u64;
        self.disk.wrote("sync", &path, file.sync_data())?;
        cleaned.finish(self.disk)?;
        cleaned.sync_indexes(self.disk)?;
        self.disk.sync_dir(dir)?;
        Ok(Arc::new(cleaned))
    }

    fn fate(&mut self, batch: &RecordBatch, path: &Path) -> Result<Fate, LogError> {
        if batch.is_control() || batch.is_transactional() {
            return Ok(Fate::AsItIs);
        }
        let records = batch.records().map_err(|error| corrupt(path, &error))?;
        let horizon = batch.delete_horizon_ms();
        let tombstones_stay = horizon.is_none_or(|horizon| self.now_ms < horizon);
        let mut kept = Vec::with_capacity(records.len());
        let mut has_tombstone = false;
        for record in &records {
            let record = record.map_err(|error| corrupt(path, &error))?;
            let is_past_map = record.offset.get() >= self.map.end;
            let newest = record.key.is_some_and(|key| self.map.is_newest(key, record.offset.get()));
            let stays = is_past_map || (newest && (record.value.is_some() || tombstones_stay));
            if stays {
                has_tombstone |= record.value.is_none();
                kept.push(record);
            }
        }
        self.stats.records_read += records.len() as u64;
        self.stats.records_kept += kept.len() as u64;
        // KIP-534: the first compaction that meets a tombstone says until when it stays.
        let stamp = has_tombstone && horizon.is_none();
        if kept.len() == records.len() && !stamp && (!kept.is_empty() || self.must_stay(batch)) {
            return Ok(Fate::AsItIs);
        }
        if kept.is_empty() && !self.must_stay(batch) {
            return Ok(Fate::Gone);
        }
        let built = self.build(batch, &kept, stamp);
        built.map(Fate::Rewritten).map_err(|error| LogError::corrupt(path, error.to_string()))
    }

    /// Whether a batch leaves at least its header: it carries a producer's last sequence number, or the high
    /// watermark.
    fn must_stay(&self, batch: &RecordBatch) -> bool {
        let last_offset = batch.last_offset().get();
        let is_producers_last =
            batch.has_producer_id() && self.producers.get(&batch.producer_id.get()) == Some(&last_offset);
        is_producers_last || batch.next_offset().get() == self.bound
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

#[derive(Debug, thiserror::Error)]
enum CleanError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Build(#[from] BuildError),
}

/// Finishes or undoes a compaction that a crash interrupted. `.cleaned` files mean that it had not come to the
/// point where the new segment counts; `.swap` files, that it had. Returns whether the directory has changed.
pub(crate) fn finish_swaps(disk: &Disk, dir: &Path, entries: &[DirEntry]) -> Result<bool, LogError> {
    let staged = |stage: &str| -> Vec<(i64, String)> {
        let parse =
            |name: &str| parse_name(name.strip_suffix(stage)?).map(|(base, _)| (base, name.to_owned()));
        entries.iter().filter_map(|entry| parse(&entry.name)).collect()
    };
    let cleaned = staged(CLEANED);
    let mut swaps = staged(SWAP);
    if let Some(first) = cleaned.iter().map(|(base, _)| *base).min() {
        swaps.retain(|(base, name)| {
            let undone = *base >= first;
            undone.then(|| disk.remove_file(&dir.join(name))).is_none_or(|removed| removed.is_err())
        });
    }
    for (_, name) in &cleaned {
        disk.remove_file(&dir.join(name))?;
    }
    let log_swap = format!("{LOG}{SWAP}");
    let mut logs: Vec<i64> =
        swaps.iter().filter(|(_, name)| name.ends_with(&log_swap)).map(|(base, _)| *base).collect();
    logs.sort_unstable();
    for base in &logs {
        finish_swap(disk, dir, *base, entries)?;
    }
    for (base, name) in &swaps {
        // An index without its log: the rename of the log comes last.
        if !logs.contains(base) {
            disk.remove_file(&dir.join(name))?;
        }
    }
    let changed = !cleaned.is_empty() || !swaps.is_empty();
    if changed {
        disk.sync_dir(dir)?;
    }
    Ok(changed)
}

fn finish_swap(disk: &Disk, dir: &Path, base: i64, entries: &[DirEntry]) -> Result<(), LogError> {
    let path = segment_path(dir, base, &format!("{LOG}{SWAP}"));
    let file = disk.did_read("open", &path, disk.storage.open(&path, OpenMode::Read))?;
    let size = disk.did_read("read", &path, file.bytes())?;
    let mut next_offset = base;
    let mut scan = HeaderScan::new(disk, file.as_ref(), &path, 0..size, SCAN_WINDOW_BYTES);
    while let Some(placed) = scan.next()? {
        next_offset = placed.header.next_offset().get();
    }
    for suffix in [INDEX, TIME_INDEX, TXN_INDEX] {
        disk.remove_file(&segment_path(dir, base, suffix))?;
    }
    let mut covered: Vec<i64> = entries
        .iter()
        .filter_map(|entry| parse_name(&entry.name))
        .filter(|(other, suffix)| *suffix == LOG && *other > base && *other < next_offset)
        .map(|(other, _)| other)
        .collect();
    covered.sort_unstable();
    for other in covered {
        remove_segment(disk, dir, other)?;
    }
    for suffix in [INDEX, TIME_INDEX] {
        let swap = segment_path(dir, base, &format!("{suffix}{SWAP}"));
        match disk.storage.rename(&swap, &segment_path(dir, base, suffix)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            result => disk.wrote("rename", &swap, result)?,
        }
    }
    disk.rename(&path, &segment_path(dir, base, LOG))?;
    disk.sync_dir(dir)
}
