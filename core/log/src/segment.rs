//! One segment: a file of batches and its two indexes.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use towpath_record::{BatchHeader, TimestampType};
use towpath_types::Offset;

use crate::config::LogConfig;
use crate::disk::Disk;
use crate::error::LogError;
use crate::index::{Index, OffsetEntry, TimeEntry};
use crate::scan::{HeaderScan, Placed, read_batch};
use crate::storage::{OpenMode, StorageFile};
use crate::txn_index::{AbortedTxn, TxnIndex};

pub(crate) const LOG: &str = "log";
pub(crate) const INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Bytes read at a time when a batch is looked for from an index entry on.
const LOOKUP_WINDOW_BYTES: usize = 8 * 1024;
/// Bytes read at a time when headers of a whole segment are read.
pub(crate) const SCAN_WINDOW_BYTES: usize = 128 * 1024;

/// `%020d.suffix` in `dir`.
pub(crate) fn segment_path(dir: &Path, base: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base:020}.{suffix}"))
}

#[derive(Debug)]
pub(crate) struct Indexes {
    pub(crate) offsets: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    transactions: TxnIndex,
    bytes_since_entry: u64,
    /// Compaction has replaced the segment: the files under these names are another's.
    retired: bool,
}

impl Indexes {
    pub(crate) fn empty(dir: &Path, base: i64) -> Self {
        Self {
            offsets: Index::empty(segment_path(dir, base, INDEX)),
            times: Index::empty(segment_path(dir, base, TIME_INDEX)),
            transactions: TxnIndex::empty(segment_path(dir, base, TXN_INDEX)),
            bytes_since_entry: 0,
            retired: false,
        }
    }

    /// The last offset entry for which `holds`; none once the segment is retired, so that readers which still hold
    /// it read from its beginning.
    fn offset_where(
        &self,
        disk: &Disk,
        holds: impl Fn(&OffsetEntry) -> bool,
    ) -> Result<Option<OffsetEntry>, LogError> {
        if self.retired { Ok(None) } else { self.offsets.last_where(disk, holds) }
    }
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base: i64,
    dir: Arc<Path>,
    file: OnceLock<Arc<dyn StorageFile>>,
    size: AtomicU64,
    /// The largest timestamp, or -1.
    max_timestamp: AtomicI64,
    /// The last offset of the first batch that has it.
    max_timestamp_offset: AtomicI64,
    /// The largest timestamp of the first batch, or -1: where `segment.ms` counts from. `i64::MIN`: not read yet.
    first_timestamp: AtomicI64,
    /// When this process made or opened the segment: where `segment.ms` counts from when records have no timestamps.
    opened_ms: i64,
    /// Whether there are aborted transactions: most readers need not look.
    has_aborted: AtomicBool,
    indexes: Mutex<Indexes>,
}

impl Segment {
    /// A new, empty segment.
    pub(crate) fn create(disk: &Disk, dir: &Arc<Path>, base: i64) -> Result<Arc<Self>, LogError> {
        let path = segment_path(dir, base, LOG);
        let file = disk.open_write(&path, OpenMode::Truncate)?;
        let segment = Self::assemble(disk, dir, base, 0, Indexes::empty(dir, base));
        segment.first_timestamp.store(-1, Ordering::Relaxed);
        // Nobody else has seen the segment yet.
        let _ = segment.file.set(file);
        Ok(Arc::new(segment))
    }

    fn assemble(disk: &Disk, dir: &Arc<Path>, base: i64, size: u64, indexes: Indexes) -> Self {
        Self {
            base,
            dir: Arc::clone(dir),
            file: OnceLock::new(),
            size: AtomicU64::new(size),
            max_timestamp: AtomicI64::new(-1),
            max_timestamp_offset: AtomicI64::new(base),
            first_timestamp: AtomicI64::new(i64::MIN),
            opened_ms: disk.clock.now_ms(),
            has_aborted: AtomicBool::new(indexes.transactions.len() > 0),
            indexes: Mutex::new(indexes),
        }
    }

    /// Opens a segment of `size` bytes whose indexes can be trusted; `None` if they cannot.
    pub(crate) fn open(disk: &Disk, dir: &Arc<Path>, base: i64, size: u64) -> Result<Option<Self>, LogError> {
        let Some(offsets) = Index::<OffsetEntry>::open(disk, segment_path(dir, base, INDEX))? else {
            return Ok(None);
        };
        let Some(times) = Index::<TimeEntry>::open(disk, segment_path(dir, base, TIME_INDEX))? else {
            return Ok(None);
        };
        if offsets.last().is_some_and(|last| u64::from(last.position) >= size)
            || (times.last().is_none() && size > 0)
        {
            return Ok(None);
        }
        let last_time = times.last();
        let transactions = TxnIndex::empty(segment_path(dir, base, TXN_INDEX));
        let indexes = Indexes { offsets, times, transactions, bytes_since_entry: 0, retired: false };
        let segment = Self::assemble(disk, dir, base, size, indexes);
        if let Some(last) = last_time {
            segment.max_timestamp.store(last.timestamp, Ordering::Relaxed);
            segment.max_timestamp_offset.store(base + i64::from(last.relative), Ordering::Relaxed);
        }
        Ok(Some(segment))
    }

    /// A segment whose indexes are to be rebuilt by [`Self::note`] for each batch.
    pub(crate) fn unindexed(disk: &Disk, dir: &Arc<Path>, base: i64) -> Self {
        Self::assemble(disk, dir, base, 0, Indexes::empty(dir, base))
    }

    /// Takes a file that is open already.
    pub(crate) fn set_file(&self, file: Arc<dyn StorageFile>) {
        // One that is there already is as good.
        let _ = self.file.set(file);
    }

    /// An empty segment that compaction fills; its files have `stage` after their names.
    pub(crate) fn cleaned(
        disk: &Disk,
        dir: &Arc<Path>,
        base: i64,
        stage: &str,
        file: Arc<dyn StorageFile>,
    ) -> Self {
        let indexes = Indexes {
            offsets: Index::empty(segment_path(dir, base, &format!("{INDEX}{stage}"))),
            times: Index::empty(segment_path(dir, base, &format!("{TIME_INDEX}{stage}"))),
            transactions: TxnIndex::empty(segment_path(dir, base, &format!("{TXN_INDEX}{stage}"))),
            bytes_since_entry: 0,
            retired: false,
        };
        let segment = Self::assemble(disk, dir, base, 0, indexes);
        segment.first_timestamp.store(-1, Ordering::Relaxed);
        // Nobody else has seen the segment yet.
        let _ = segment.file.set(file);
        segment
    }

    /// Renames the index files to another stage, except for that of aborted transactions.
    pub(crate) fn move_indexes(&self, disk: &Disk, dir: &Path, stage: &str) -> Result<(), LogError> {
        let indexes = &mut *self.indexes.lock();
        indexes.offsets.rename(disk, segment_path(dir, self.base, &format!("{INDEX}{stage}")))?;
        indexes.times.rename(disk, segment_path(dir, self.base, &format!("{TIME_INDEX}{stage}")))
    }

    /// Renames the index of aborted transactions to another stage, if there is one.
    pub(crate) fn move_transactions(&self, disk: &Disk, dir: &Path, stage: &str) -> Result<(), LogError> {
        let to = segment_path(dir, self.base, &format!("{TXN_INDEX}{stage}"));
        self.indexes.lock().transactions.rename(disk, to)
    }

    /// Compaction is about to replace the segment: whoever still holds it goes on with the open file, without
    /// indexes, except for that of aborted transactions: it has what is left out of the new one.
    pub(crate) fn retire(&self, disk: &Disk) -> Result<(), LogError> {
        self.file(disk)?;
        let indexes = &mut *self.indexes.lock();
        indexes.transactions.keep_open(disk)?;
        indexes.retired = true;
        Ok(())
    }

    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        segment_path(&self.dir, self.base, suffix)
    }

    /// The file, opened when it is first needed.
    pub(crate) fn file(&self, disk: &Disk) -> Result<Arc<dyn StorageFile>, LogError> {
        if let Some(file) = self.file.get() {
            return Ok(Arc::clone(file));
        }
        let path = self.path(LOG);
        let file = disk.did_read("open", &path, disk.storage.open(&path, OpenMode::ReadWrite))?;
        Ok(Arc::clone(self.file.get_or_init(|| file)))
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        self.max_timestamp.load(Ordering::Relaxed)
    }

    pub(crate) fn max_timestamp_offset(&self) -> i64 {
        self.max_timestamp_offset.load(Ordering::Relaxed)
    }

    /// Where `segment.ms` counts from: the first batch's timestamp, or -1.
    pub(crate) fn first_timestamp(&self, disk: &Disk) -> Result<i64, LogError> {
        let known = self.first_timestamp.load(Ordering::Relaxed);
        if known != i64::MIN {
            return Ok(known);
        }
        let first = self.scan(disk, 0..self.size(), HEADER_WINDOW)?.1;
        let timestamp = first.map_or(-1, |placed| placed.header.max_timestamp);
        self.first_timestamp.store(timestamp, Ordering::Relaxed);
        Ok(timestamp)
    }

    /// The first header of a range, and the file.
    fn scan(
        &self,
        disk: &Disk,
        range: std::ops::Range<u64>,
        window: usize,
    ) -> Result<(Arc<dyn StorageFile>, Option<Placed>), LogError> {
        let file = self.file(disk)?;
        let path = self.path(LOG);
        let first = HeaderScan::new(disk, file.as_ref(), &path, range, window).next()?;
        Ok((file, first))
    }

    /// The time by which retention judges the segment: its largest timestamp, or when it was last written.
    pub(crate) fn retention_timestamp(&self, disk: &Disk) -> Result<i64, LogError> {
        let timestamp = self.max_timestamp();
        if timestamp >= 0 {
            return Ok(timestamp);
        }
        let path = self.path(LOG);
        disk.did_read("read", &path, self.file(disk)?.modified_ms())
    }

    /// Takes note of a batch that was written (or found) at the end of the segment. Only one writer calls this.
    pub(crate) fn note(&self, disk: &Disk, config: &LogConfig, header: &BatchHeader) -> Result<(), LogError> {
        let position = self.size.load(Ordering::Relaxed);
        let last_offset = header.last_offset().get();
        if header.max_timestamp > self.max_timestamp() {
            self.max_timestamp.store(header.max_timestamp, Ordering::Relaxed);
            self.max_timestamp_offset.store(last_offset, Ordering::Relaxed);
        }
        if position == 0 {
            self.first_timestamp.store(header.max_timestamp, Ordering::Relaxed);
        }
        {
            let indexes = &mut *self.indexes.lock();
            if indexes.bytes_since_entry > config.index_interval_bytes {
                let entry = OffsetEntry {
                    relative: self.relative(last_offset)?,
                    position: u32::try_from(position)
                        .map_err(|_| LogError::corrupt(&self.path(LOG), "it is larger than 4 GiB"))?,
                };
                indexes.offsets.push(disk, entry)?;
                self.push_time(disk, indexes)?;
                indexes.bytes_since_entry = 0;
            }
            indexes.bytes_since_entry += header.size_in_bytes() as u64;
        }
        self.size.store(position + header.size_in_bytes() as u64, Ordering::Release);
        Ok(())
    }

    fn relative(&self, offset: i64) -> Result<u32, LogError> {
        offset
            .checked_sub(self.base)
            .and_then(|relative| u32::try_from(relative).ok())
            .filter(|relative| *relative <= i32::MAX as u32)
            .ok_or_else(|| {
                LogError::corrupt(&self.path(LOG), format!("offset {offset} does not belong into it"))
            })
    }

    fn push_time(&self, disk: &Disk, indexes: &mut Indexes) -> Result<(), LogError> {
        let timestamp = self.max_timestamp();
        let newer = indexes.times.last().is_none_or(|last| timestamp > last.timestamp);
        if timestamp >= 0 && newer {
            let relative = self.relative(self.max_timestamp_offset())?;
            indexes.times.push(disk, TimeEntry { timestamp, relative })?;
        }
        Ok(())
    }

    /// Whether the segment takes no more: Kafka's rules for rolling.
    pub(crate) fn is_full(
        &self,
        disk: &Disk,
        config: &LogConfig,
        header: &BatchHeader,
        last_offset: i64,
    ) -> Result<bool, LogError> {
        let size = self.size.load(Ordering::Relaxed);
        let bytes = header.size_in_bytes() as u64;
        if last_offset.saturating_sub(self.base) > i64::from(i32::MAX) {
            return Ok(true);
        }
        if size == 0 {
            return Ok(false);
        }
        if size + bytes > config.segment_bytes.min(i32::MAX as u64) {
            return Ok(true);
        }
        let first = self.first_timestamp(disk)?;
        let age_ms = match first {
            first if first >= 0 => header.max_timestamp.saturating_sub(first),
            // Records without timestamps: the broker's own clock must do.
            _ => disk.clock.now_ms().saturating_sub(self.opened_ms),
        };
        if age_ms > config.segment_ms_effective().saturating_sub(self.jitter_ms(config)) {
            return Ok(true);
        }
        let indexes = self.indexes.lock();
        Ok(indexes.offsets.len() >= config.segment_index_bytes / 8
            || indexes.times.len() >= config.segment_index_bytes / 12)
    }

    /// This segment's part of `segment.jitter.ms`, which keeps the segments of many partitions from rolling all at
    /// once: always the same one for the same segment.
    fn jitter_ms(&self, config: &LogConfig) -> i64 {
        let bound = config.segment_jitter_ms.min(config.segment_ms_effective());
        if bound <= 0 {
            return 0;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (&self.dir, self.base).hash(&mut hasher);
        // Fewer than `bound`, which is an i64.
        (hasher.finish() % bound as u64) as i64
    }

    /// Writes the indexes out with the last time entry: the segment is closed, or the log is.
    pub(crate) fn finish(&self, disk: &Disk) -> Result<(), LogError> {
        let indexes = &mut *self.indexes.lock();
        let timestamp = self.max_timestamp();
        if timestamp < 0 && self.size() > 0 && indexes.times.last().is_none() {
            // No record has a timestamp; the entry says so, and that the index is whole.
            indexes.times.push(disk, TimeEntry { timestamp: -1, relative: 0 })?;
        }
        self.push_time(disk, indexes)?;
        indexes.offsets.finish(disk)?;
        indexes.times.finish(disk)?;
        indexes.transactions.finish(disk)
    }

    pub(crate) fn sync_indexes(&self, disk: &Disk) -> Result<(), LogError> {
        let indexes = &mut *self.indexes.lock();
        indexes.offsets.sync(disk)?;
        indexes.times.sync(disk)?;
        indexes.transactions.sync(disk)
    }

    /// Takes the index of aborted transactions that was found on disk.
    pub(crate) fn set_transactions(&self, index: TxnIndex) {
        self.has_aborted.store(index.len() > 0, Ordering::Release);
        self.indexes.lock().transactions = index;
    }

    /// Makes sure that the next [`Self::push_aborted`] finds room.
    pub(crate) fn make_room_for_aborted(&self, disk: &Disk) -> Result<(), LogError> {
        self.indexes.lock().transactions.make_room(disk)
    }

    /// A transaction was aborted by a marker in this segment.
    pub(crate) fn push_aborted(&self, entry: AbortedTxn) {
        self.indexes.lock().transactions.push(entry);
        self.has_aborted.store(true, Ordering::Release);
    }

    /// The index of aborted transactions is about to be made anew, up to [`Self::settle_transactions`].
    pub(crate) fn rebuild_transactions(&self) {
        self.set_transactions(TxnIndex::rebuilding(self.path(TXN_INDEX)));
    }

    /// The index of aborted transactions, which was made anew, takes its place, durably.
    pub(crate) fn settle_transactions(&self, disk: &Disk) -> Result<(), LogError> {
        let indexes = &mut *self.indexes.lock();
        indexes.transactions.settle(disk)?;
        indexes.transactions.finish(disk)
    }

    /// Adds the aborted transactions that overlap `from..upper` and whose markers are in this segment. Returns whether
    /// no later segment can have others.
    pub(crate) fn collect_aborted(
        &self,
        disk: &Disk,
        from: i64,
        upper: i64,
        out: &mut Vec<AbortedTxn>,
    ) -> Result<bool, LogError> {
        if !self.has_aborted.load(Ordering::Acquire) {
            return Ok(false);
        }
        self.indexes.lock().transactions.collect(disk, from, upper, out)
    }

    /// An offset after all batches that end at or before byte `end`, close to it; `None` if the index does not tell.
    pub(crate) fn offset_after(&self, disk: &Disk, end: u64) -> Result<Option<i64>, LogError> {
        let indexes = self.indexes.lock();
        if indexes.retired {
            return Ok(None);
        }
        let entry = indexes.offsets.first_past(disk, |entry| u64::from(entry.position) < end)?;
        Ok(entry.map(|entry| self.base.saturating_add(i64::from(entry.relative))))
    }

    pub(crate) fn sync(&self, disk: &Disk) -> Result<(), LogError> {
        disk.check()?;
        let file = self.file(disk)?;
        disk.wrote("sync", &self.path(LOG), file.sync_data())
    }

    /// The first batch whose last offset is at least `offset`, before byte `end`.
    pub(crate) fn find(&self, disk: &Disk, offset: i64, end: u64) -> Result<Option<Placed>, LogError> {
        let from = self.position_before(disk, offset)?;
        let file = self.file(disk)?;
        let path = self.path(LOG);
        let mut scan = HeaderScan::new(disk, file.as_ref(), &path, from..end, LOOKUP_WINDOW_BYTES);
        while let Some(placed) = scan.next()? {
            if placed.header.last_offset().get() >= offset {
                return Ok(Some(placed));
            }
        }
        Ok(None)
    }

    /// An offset about `bytes` before that of `offset`, or the first one.
    pub(crate) fn offset_before(&self, disk: &Disk, offset: i64, bytes: u64) -> Result<i64, LogError> {
        let end = self.find(disk, offset, self.size())?.map_or(self.size(), |placed| placed.position);
        let position = end.saturating_sub(bytes);
        let entry = self.indexes.lock().offset_where(disk, |entry| u64::from(entry.position) <= position)?;
        Ok(entry.map_or(self.base, |entry| self.base.saturating_add(i64::from(entry.relative))))
    }

    /// A position from which on a batch with `offset` is found.
    fn position_before(&self, disk: &Disk, offset: i64) -> Result<u64, LogError> {
        let entry = self
            .indexes
            .lock()
            .offset_where(disk, |entry| self.base.saturating_add(i64::from(entry.relative)) <= offset)?;
        Ok(entry.map_or(0, |entry| u64::from(entry.position)))
    }

    /// The end of the last whole batch that ends within `limit` bytes of the file and lies below offset `upper`,
    /// at or after `from`, which is a batch's beginning.
    pub(crate) fn end_within(&self, disk: &Disk, from: u64, limit: u64, upper: i64) -> Result<u64, LogError> {
        let entry = self.indexes.lock().offset_where(disk, |entry| {
            u64::from(entry.position) <= limit && self.base.saturating_add(i64::from(entry.relative)) < upper
        })?;
        // The entry's own batch is below `upper`, so whatever is before it is.
        let mut end = entry.map_or(from, |entry| u64::from(entry.position).max(from));
        let file = self.file(disk)?;
        let path = self.path(LOG);
        let mut scan = HeaderScan::new(disk, file.as_ref(), &path, end..self.size(), LOOKUP_WINDOW_BYTES);
        while let Some(placed) = scan.next()? {
            if placed.end() > limit || placed.header.last_offset().get() >= upper {
                break;
            }
            end = placed.end();
        }
        Ok(end)
    }

    /// The offset after the last whole batch, and where it ends; read from the last index entry on. What the
    /// batches say of timestamps is taken into account.
    pub(crate) fn read_end(&self, disk: &Disk) -> Result<(i64, u64), LogError> {
        let from = self.indexes.lock().offsets.last().map_or(0, |last| u64::from(last.position));
        let file = self.file(disk)?;
        let path = self.path(LOG);
        let mut scan = HeaderScan::new(disk, file.as_ref(), &path, from..self.size(), SCAN_WINDOW_BYTES);
        let mut end = (self.base, from);
        while let Some(placed) = scan.next()? {
            end = (placed.header.next_offset().get(), placed.end());
            if placed.header.max_timestamp > self.max_timestamp() {
                self.max_timestamp.store(placed.header.max_timestamp, Ordering::Relaxed);
                self.max_timestamp_offset.store(placed.header.last_offset().get(), Ordering::Relaxed);
            }
        }
        self.indexes.lock().bytes_since_entry = end.1 - from;
        Ok(end)
    }

    /// The first record at or after `from` whose timestamp is at least `target`.
    pub(crate) fn find_timestamp(
        &self,
        disk: &Disk,
        target: i64,
        from: i64,
    ) -> Result<Option<(i64, Offset)>, LogError> {
        let position = {
            let indexes = self.indexes.lock();
            let entry = match indexes.retired {
                true => None,
                false => indexes.times.last_where(disk, |entry| entry.timestamp <= target)?,
            };
            let offset = entry.map_or(self.base, |entry| self.base + i64::from(entry.relative)).max(from);
            let entry = indexes
                .offset_where(disk, |entry| self.base.saturating_add(i64::from(entry.relative)) <= offset)?;
            entry.map_or(0, |entry| u64::from(entry.position))
        };
        let file = self.file(disk)?;
        let path = self.path(LOG);
        let mut scan =
            HeaderScan::new(disk, file.as_ref(), &path, position..self.size(), LOOKUP_WINDOW_BYTES);
        while let Some(placed) = scan.next()? {
            if placed.header.max_timestamp < target || placed.header.last_offset().get() < from {
                continue;
            }
            let batch = read_batch(disk, file.as_ref(), &path, &placed)?;
            if batch.timestamp_type() == TimestampType::LogAppendTime && batch.base_offset.get() >= from {
                return Ok(Some((batch.max_timestamp, batch.base_offset)));
            }
            let corrupt = |error: towpath_record::BatchError| LogError::corrupt(&path, error.to_string());
            for record in &batch.records().map_err(corrupt)? {
                let record = record.map_err(corrupt)?;
                if record.timestamp >= target && record.offset.get() >= from {
                    return Ok(Some((record.timestamp, record.offset)));
                }
            }
        }
        Ok(None)
    }

    /// Cuts the segment at `position`, where the batch of `offset` begins; all that was known of it is read anew.
    pub(crate) fn truncate(&self, disk: &Disk, position: u64, offset: i64) -> Result<(), LogError> {
        let path = self.path(LOG);
        let file = self.file(disk)?;
        self.size.store(position, Ordering::Release);
        disk.wrote("truncate", &path, file.truncate(position))?;
        disk.wrote("sync", &path, file.sync_data())?;
        let indexes = &mut *self.indexes.lock();
        indexes.transactions.truncate(disk, offset)?;
        self.has_aborted.store(indexes.transactions.len() > 0, Ordering::Release);
        indexes.offsets.truncate_where(disk, |entry| u64::from(entry.position) < position)?;
        let rescan = indexes.offsets.last().map_or(0, |last| u64::from(last.position));
        let mut scan = HeaderScan::new(disk, file.as_ref(), &path, 0..position, LOOKUP_WINDOW_BYTES);
        let first = scan.next()?.map_or(-1, |placed| placed.header.max_timestamp);
        self.first_timestamp.store(first, Ordering::Relaxed);
        let mut end = self.base;
        let mut scan = HeaderScan::new(disk, file.as_ref(), &path, rescan..position, SCAN_WINDOW_BYTES);
        let mut tail = Vec::new();
        while let Some(placed) = scan.next()? {
            end = placed.header.next_offset().get();
            tail.push((placed.header.max_timestamp, placed.header.last_offset().get()));
        }
        indexes.times.truncate_where(disk, |entry| self.base + i64::from(entry.relative) < end)?;
        let last = indexes.times.last();
        let mut max =
            last.map_or((-1, self.base), |last| (last.timestamp, self.base + i64::from(last.relative)));
        for (timestamp, offset) in tail {
            if timestamp > max.0 {
                max = (timestamp, offset);
            }
        }
        self.max_timestamp.store(max.0, Ordering::Relaxed);
        self.max_timestamp_offset.store(max.1, Ordering::Relaxed);
        indexes.bytes_since_entry = position - rescan;
        Ok(())
    }
}

/// Enough for the first header.
const HEADER_WINDOW: usize = 64;

/// Renames a segment's files away and removes them; readers that hold the file go on reading it.
pub(crate) fn remove_segment(disk: &Disk, dir: &Path, base: i64) -> Result<(), LogError> {
    // The log goes first: an index without a log is removed at the next start.
    for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX] {
        let path = segment_path(dir, base, suffix);
        let deleted = segment_path(dir, base, &format!("{suffix}.deleted"));
        disk.check()?;
        match disk.storage.rename(&path, &deleted) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            result => disk.wrote("rename", &path, result)?,
        }
        disk.remove_file(&deleted)?;
    }
    Ok(())
}
