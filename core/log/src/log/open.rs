//! Opening a log: after a clean shutdown, and after a crash.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};

use bytes::{Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use towpath_record::{BatchHeader, HEADER_BYTES, RecordBatch};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::flush::EPOCHS_FILE;
use super::producers::snapshot_offsets;
use super::{Log, Unsynced, Writer};
use crate::checkpoint;
use crate::clean;
use crate::compacted::CompactedOffsets;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::epoch::EpochCache;
use crate::error::LogError;
use crate::producer::{ProducerState, Verifications};
use crate::room::Room;
use crate::scan::HeaderScan;
use crate::segment::{INDEX, LOG, SCAN_WINDOW_BYTES, Segment, TIME_INDEX, TXN_INDEX, segment_path};
use crate::storage::{DirEntry, StorageFile};
use crate::tail::Tail;
use crate::txn_index::TxnIndex;
use crate::unstable::Unstable;

/// What the directory knows of a log that is to be opened.
#[derive(Debug, Clone)]
pub(crate) struct OpenLog {
    pub(crate) partition: TopicPartition,
    pub(crate) topic_id: TopicId,
    pub(crate) config: LogConfig,
    /// Whether the last shutdown was clean.
    pub(crate) clean: bool,
    pub(crate) recovery_point: Offset,
    pub(crate) log_start: Offset,
    /// As of the last checkpoint.
    pub(crate) high_watermark: Offset,
    pub(crate) compacted: Arc<CompactedOffsets>,
}

/// Splits `%020d.suffix`.
pub(crate) fn parse_name(name: &str) -> Option<(i64, &str)> {
    let (base, suffix) = name.split_at_checked(20)?;
    if !base.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((base.parse().ok()?, suffix.strip_prefix('.')?))
}

/// The first offsets of the segments that have a file of a kind.
struct Bases {
    logs: BTreeSet<i64>,
    transactions: BTreeSet<i64>,
}

/// The segments of a log that is being opened.
struct Found {
    segments: Vec<Arc<Segment>>,
    next_offset: i64,
    /// The base offset of the first segment that was scanned after a crash.
    recovered_from: Option<i64>,
    /// The base offsets of the segments whose index of aborted transactions has to be made anew.
    unindexed: BTreeSet<i64>,
}

/// What a scan of one segment gave.
struct Recovered {
    segment: Segment,
    next_offset: i64,
    has_markers: bool,
    /// Bytes past the last good batch, which are to go.
    bad: Option<String>,
}

impl Log {
    /// Opens the log in `dir`, which exists, and makes it ready for use.
    pub(crate) fn open(disk: &Arc<Disk>, dir: &Path, open: OpenLog) -> Result<Arc<Self>, LogError> {
        disk.check()?;
        let dir: Arc<Path> = Arc::from(dir);
        let mut entries = disk.did_read("list", &dir, disk.storage.list(&dir))?;
        if clean::finish_swaps(disk, &dir, &entries)? {
            entries = disk.did_read("list", &dir, disk.storage.list(&dir))?;
        }
        let bases = find_segments(disk, &dir, &entries)?;
        let mut found = load_segments(disk, &dir, &bases, &open)?;
        let mut log_start = open.log_start.get().max(found.segments.first().map_or(0, |first| first.base));
        if found.next_offset < log_start || found.segments.is_empty() {
            for segment in found.segments.drain(..) {
                tracing::warn!(partition = %open.partition, base = segment.base, "segment before the log start offset removed");
                crate::segment::remove_segment(disk, &dir, segment.base)?;
            }
            found.next_offset = log_start;
            found.segments.push(Segment::create(disk, &dir, log_start)?);
        }
        log_start = log_start.max(0);
        let active = Arc::clone(&found.segments[found.segments.len() - 1]);
        let file = active.file(disk)?;
        let next_offset = found.next_offset;
        let high_watermark = open.high_watermark.get().clamp(log_start, next_offset.max(log_start));
        let epochs = load_epochs(disk, &dir, &found, log_start)?;
        let recovery_point =
            if open.clean { next_offset } else { open.recovery_point.get().min(next_offset) };
        let mut log = Self {
            disk: Arc::clone(disk),
            dir,
            partition: open.partition,
            topic_id: open.topic_id,
            config: RwLock::new(Arc::new(open.config)),
            flushing: Mutex::new(()),
            cleaning: Mutex::new(()),
            interrupts: AtomicUsize::new(0),
            writer: Mutex::new(Writer {
                active,
                file,
                room: Room::default(),
                producers: ProducerState::default(),
                verifications: Verifications::default(),
                closed: false,
                changed: !open.clean,
            }),
            unsynced: Mutex::new(Unsynced::default()),
            segments: RwLock::new(Arc::new(found.segments)),
            tail: Mutex::new(Tail::new(Arc::clone(disk))),
            epochs: RwLock::new(epochs),
            unstable: Unstable::new(None, Vec::new()),
            compacted: open.compacted,
            log_start: AtomicI64::new(log_start),
            log_end: AtomicI64::new(next_offset),
            recovery_point: AtomicI64::new(recovery_point),
            recovery_point_stale: AtomicBool::new(open.recovery_point.get() > next_offset),
            dir_unsynced: AtomicBool::new(true),
            deleted: AtomicBool::new(false),
        };
        let snapshots = log.drop_snapshots_after(next_offset, snapshot_offsets(&entries))?;
        let producers = log.load_producers(next_offset, &snapshots)?;
        log.unstable =
            log.load_transactions(&producers, high_watermark..next_offset, &snapshots, &found.unindexed)?;
        log.writer.lock().producers = producers;
        log.drop_old_snapshots(&snapshots)?;
        if found.recovered_from.is_some() {
            log.settle(found.recovered_from)?;
        }
        Ok(Arc::new(log))
    }

    /// Makes durable what a recovery has kept, so that it is not lost by the next crash.
    fn settle(&self, from: Option<i64>) -> Result<(), LogError> {
        let _flushing = self.flushing.lock();
        let segments = self.segments();
        let from = from.unwrap_or(0);
        for segment in segments.iter().filter(|segment| segment.base >= from) {
            segment.sync(&self.disk)?;
        }
        if let Some((_active, closed)) = segments.split_last() {
            self.unsynced.lock().closed.extend(closed.iter().filter(|closed| closed.base >= from).cloned());
        }
        self.flush_locked().map(drop)
    }
}

/// Tidies the directory and returns the segments' base offsets, in order.
fn find_segments(disk: &Disk, dir: &Path, entries: &[DirEntry]) -> Result<Bases, LogError> {
    let of_kind = |kind: &str| -> BTreeSet<i64> {
        let names = entries.iter().filter_map(|entry| parse_name(&entry.name));
        names.filter(|(_, suffix)| *suffix == kind).map(|(base, _)| base).collect()
    };
    let bases = Bases { logs: of_kind(LOG), transactions: of_kind(TXN_INDEX) };
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        let stray_index = parse_name(&entry.name).is_some_and(|(base, suffix)| {
            [INDEX, TIME_INDEX, TXN_INDEX].contains(&suffix) && !bases.logs.contains(&base)
        });
        if stray_index || entry.name.ends_with(".deleted") || entry.name.ends_with(".tmp") {
            disk.remove_file(&dir.join(&entry.name))?;
        }
    }
    Ok(bases)
}

fn load_segments(disk: &Disk, dir: &Arc<Path>, known: &Bases, open: &OpenLog) -> Result<Found, LogError> {
    let bases: Vec<i64> = known.logs.iter().copied().collect();
    // After a crash everything from the segment on that holds the last flushed record may be torn.
    let last_flushed = open.recovery_point.get().saturating_sub(1);
    let trusted = if open.clean {
        bases.len()
    } else {
        bases.partition_point(|base| *base <= last_flushed).saturating_sub(1)
    };
    let mut found = Found {
        segments: Vec::with_capacity(bases.len()),
        next_offset: 0,
        recovered_from: None,
        unindexed: BTreeSet::new(),
    };
    for (index, base) in bases.iter().enumerate() {
        let is_last = index + 1 == bases.len();
        if index < trusted && load_trusted(disk, dir, *base, is_last, open, &mut found)? {
            if known.transactions.contains(base) {
                load_aborted(disk, dir, *base, &mut found)?;
            }
            continue;
        }
        if found.recovered_from.is_some() && *base > found.next_offset && *base > open.recovery_point.get() {
            // The end of the segment before was lost although this one was not: nothing after a loss counts.
            drop_lost(disk, dir, open, found.next_offset, &bases[index..])?;
            break;
        }
        found.recovered_from.get_or_insert(*base);
        let expected = found.next_offset.max(*base);
        let recovered = recover_segment(disk, dir, *base, expected, &open.config)?;
        found.next_offset = recovered.next_offset.max(*base);
        if recovered.has_markers {
            recovered.segment.rebuild_transactions();
            found.unindexed.insert(*base);
        } else {
            disk.remove_file(&recovered.segment.path(TXN_INDEX))?;
        }
        let segment = Arc::new(recovered.segment);
        if let Some(problem) = recovered.bad {
            cut(disk, dir, open, &segment, &problem, &bases[index + 1..])?;
            found.segments.push(segment);
            break;
        }
        if !is_last {
            segment.finish(disk)?;
        }
        found.segments.push(segment);
    }
    Ok(found)
}

/// Opens a segment that a clean shutdown or an earlier flush vouches for. `false`: it has to be scanned.
fn load_trusted(
    disk: &Disk,
    dir: &Arc<Path>,
    base: i64,
    is_last: bool,
    open: &OpenLog,
    found: &mut Found,
) -> Result<bool, LogError> {
    let path = segment_path(dir, base, LOG);
    let file = disk.did_read("open", &path, disk.storage.open(&path, crate::storage::OpenMode::ReadWrite))?;
    let size = disk.did_read("read", &path, file.bytes())?;
    let segment = match Segment::open(disk, dir, base, size)? {
        Some(segment) => segment,
        // Nothing was ever appended, so nothing was ever written out.
        None if size == 0 => Segment::unindexed(disk, dir, base),
        None => {
            tracing::warn!(partition = %open.partition, base, "index missing or not sane, rebuilding it");
            reindex(disk, dir, base, file.as_ref(), size, &open.config)?
        }
    };
    if is_last {
        segment.set_file(file);
        match segment.read_end(disk)? {
            (next_offset, position) if position == size => found.next_offset = next_offset,
            // Whoever wrote the marker of a clean shutdown was wrong about this one.
            _ => return Ok(false),
        }
    }
    found.segments.push(Arc::new(segment));
    Ok(true)
}

/// Opens the index of aborted transactions of the segment that was loaded last; one that makes no sense is made anew.
fn load_aborted(disk: &Disk, dir: &Path, base: i64, found: &mut Found) -> Result<(), LogError> {
    let Some(segment) = found.segments.last().filter(|segment| segment.base == base) else { return Ok(()) };
    let path = segment_path(dir, base, TXN_INDEX);
    match TxnIndex::open(disk, path.clone(), base)? {
        Some(index) => segment.set_transactions(index),
        None => {
            tracing::warn!(path = %path.display(), "not sane, rebuilding it");
            segment.rebuild_transactions();
            found.unindexed.insert(base);
        }
    }
    Ok(())
}

/// Rebuilds the indexes of a segment whose content is trusted.
fn reindex(
    disk: &Disk,
    dir: &Arc<Path>,
    base: i64,
    file: &dyn StorageFile,
    size: u64,
    config: &LogConfig,
) -> Result<Segment, LogError> {
    let segment = Segment::unindexed(disk, dir, base);
    let path = segment.path(LOG);
    let mut scan = HeaderScan::new(disk, file, &path, 0..size, SCAN_WINDOW_BYTES);
    while let Some(placed) = scan.next()? {
        segment.note(disk, config, &placed.header)?;
    }
    if segment.size() != size {
        return Err(LogError::corrupt(&path, format!("no batch begins at byte {}", segment.size())));
    }
    segment.finish(disk)?;
    segment.sync_indexes(disk)?;
    Ok(segment)
}

/// Scans a segment after a crash: every batch with its checksum, up to the first bad one.
fn recover_segment(
    disk: &Disk,
    dir: &Arc<Path>,
    base: i64,
    expected: i64,
    config: &LogConfig,
) -> Result<Recovered, LogError> {
    let segment = Segment::unindexed(disk, dir, base);
    let path = segment.path(LOG);
    let file = segment.file(disk)?;
    let size = disk.did_read("read", &path, file.bytes())?;
    let mut has_markers = false;
    let mut next_offset = expected;
    let mut bad = None;
    let mut buffer = BytesMut::new();
    while segment.size() < size {
        match check_batch(disk, file.as_ref(), &path, segment.size()..size, next_offset, base, &mut buffer)? {
            Ok(header) => {
                next_offset = header.next_offset().get();
                has_markers |= header.is_control() && header.has_producer_id();
                segment.note(disk, config, &header)?;
            }
            Err(problem) => {
                bad = Some(format!("at byte {} of {size}: {problem}", segment.size()));
                break;
            }
        }
    }
    Ok(Recovered { segment, next_offset, has_markers, bad })
}

/// Reads one batch and says what is wrong with it, if anything.
fn check_batch(
    disk: &Disk,
    file: &dyn StorageFile,
    path: &Path,
    range: std::ops::Range<u64>,
    next_offset: i64,
    segment_base: i64,
    buffer: &mut BytesMut,
) -> Result<Result<BatchHeader, String>, LogError> {
    let available = range.end - range.start;
    let mut head = [0; HEADER_BYTES];
    let read = disk.did_read("read", path, file.read_at(&mut head, range.start))?;
    let header = match BatchHeader::parse(&head[..read]) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let size = header.size_in_bytes();
    if size as u64 > available {
        return Ok(Err(format!("a batch of {size} bytes is cut short")));
    }
    let relative = header.last_offset().get().saturating_sub(segment_base);
    if header.base_offset.get() < next_offset
        || header.last_offset_delta < 0
        || header.record_count < 0
        || relative > i64::from(i32::MAX)
    {
        return Ok(Err(format!("offset {} does not belong here", header.base_offset)));
    }
    buffer.clear();
    buffer.resize(size, 0);
    let read = disk.did_read("read", path, file.read_at(buffer, range.start))?;
    buffer.truncate(read);
    let bytes: Bytes = buffer.split().freeze();
    let checked = RecordBatch::parse(&bytes).and_then(|batch| batch.verify_crc());
    // The memory is used again for the next batch.
    if let Ok(back) = bytes.try_into_mut() {
        *buffer = back;
    }
    Ok(checked.map(|()| header).map_err(|error| error.to_string()))
}

/// Removes segments that do not follow what is there.
fn drop_lost(disk: &Disk, dir: &Path, open: &OpenLog, end: i64, lost: &[i64]) -> Result<(), LogError> {
    tracing::warn!(
        partition = %open.partition, end, segments = lost.len(),
        "records before these segments were not written before the crash; the log ends before them"
    );
    for base in lost.iter().rev() {
        crate::segment::remove_segment(disk, dir, *base)?;
    }
    disk.sync_dir(dir)
}

/// Cuts a segment at its last good batch and removes those after it.
fn cut(
    disk: &Disk,
    dir: &Path,
    open: &OpenLog,
    segment: &Segment,
    problem: &str,
    later: &[i64],
) -> Result<(), LogError> {
    tracing::warn!(
        partition = %open.partition, segment = segment.base, problem, later_segments = later.len(),
        "the log ends in a batch that was not written whole; it is truncated there"
    );
    // First those: they must not come back after this one was cut.
    for base in later.iter().rev() {
        crate::segment::remove_segment(disk, dir, *base)?;
    }
    disk.sync_dir(dir)?;
    let path = segment.path(LOG);
    let file = segment.file(disk)?;
    disk.wrote("truncate", &path, file.truncate(segment.size()))?;
    disk.wrote("sync", &path, file.sync_data())
}

/// The leader-epoch cache: from its file, and from the batches where the file cannot know better.
fn load_epochs(disk: &Disk, dir: &Path, found: &Found, log_start: i64) -> Result<EpochCache, LogError> {
    let from_file = checkpoint::read_epochs(disk, &dir.join(EPOCHS_FILE))?;
    let scan_from = match (&from_file, found.recovered_from) {
        (None, _) => Some(i64::MIN),
        (Some(_), from) => from,
    };
    let mut epochs = EpochCache::new(from_file.unwrap_or_default());
    if let Some(from) = scan_from {
        epochs.truncate_from_end(Offset::new(from));
        let mut end = None;
        for segment in found.segments.iter().filter(|segment| segment.base >= from && segment.size() > 0) {
            let file = segment.file(disk)?;
            let path = segment.path(LOG);
            let mut scan = HeaderScan::new(disk, file.as_ref(), &path, 0..segment.size(), SCAN_WINDOW_BYTES);
            while let Some(placed) = scan.next()? {
                // What is deleted may be of another history than what follows, after an unclean election.
                let is_deleted = placed.header.last_offset().get() < log_start;
                if !is_deleted && placed.header.partition_leader_epoch > epochs.latest() {
                    // Before a gap, as where a follower appends.
                    let start = *end.get_or_insert(Offset::new(segment.base));
                    epochs.assign(placed.header.partition_leader_epoch, start);
                }
                end = Some(placed.header.next_offset());
            }
        }
    }
    epochs.truncate_from_end(Offset::new(found.next_offset));
    epochs.truncate_from_start(Offset::new(log_start));
    Ok(epochs)
}
