//! One partition.

mod append;
mod attached;
mod burst;
mod flush;
mod lookup;
mod open;
mod producers;
mod read;
mod retention;
mod transactions;
mod truncate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicPartition};

pub use append::{AppendInfo, AppendOptions, Effort};
pub(crate) use open::{OpenLog, parse_name};

pub use lookup::TimestampAndOffset;
pub use read::{FetchedData, FileSlice};
pub use transactions::Marker;

use crate::compacted::CompactedOffsets;
use crate::config::LogConfig;
use crate::disk::Disk;
use crate::epoch::{EpochCache, EpochEntry};
use crate::error::LogError;
use crate::producer::{ProducerState, Verifications};
use crate::room::Room;
use crate::segment::Segment;
use crate::storage::StorageFile;
use crate::tail::Tail;
use crate::unstable::Unstable;

pub(crate) type Segments = Arc<Vec<Arc<Segment>>>;

/// What only the writer touches.
#[derive(Debug)]
pub(crate) struct Writer {
    active: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    room: Room,
    producers: ProducerState,
    verifications: Verifications,
    closed: bool,
    /// Whether there is anything that a clean shutdown has to write.
    changed: bool,
}

/// What waits for the next flush. Taken before the writer's lock, never after it.
#[derive(Debug, Default)]
pub(crate) struct Unsynced {
    /// Closed segments whose indexes are not durable yet.
    closed: Vec<Arc<Segment>>,
    /// Producer snapshots that are not durable yet.
    snapshots: Vec<PathBuf>,
}

/// One partition's log: one writer at a time, readers beside it.
///
/// Locks, in the order in which they may be taken: `cleaning`, `flushing`, `writer`, then any of the others for a
/// moment.
#[derive(Debug)]
pub struct Log {
    disk: Arc<Disk>,
    pub(crate) dir: Arc<Path>,
    partition: TopicPartition,
    topic_id: TopicId,
    config: RwLock<Arc<LogConfig>>,
    /// Held while files are synced, so that truncation and flush do not meet.
    pub(crate) flushing: Mutex<()>,
    /// Held while segments are compacted.
    pub(crate) cleaning: Mutex<()>,
    /// How many truncations wait for `cleaning`: a compaction gives way to them.
    interrupts: AtomicUsize,
    writer: Mutex<Writer>,
    unsynced: Mutex<Unsynced>,
    pub(crate) segments: RwLock<Segments>,
    pub(crate) tail: Mutex<Tail>,
    epochs: RwLock<EpochCache>,
    unstable: Unstable,
    compacted: Arc<CompactedOffsets>,
    log_start: AtomicI64,
    log_end: AtomicI64,
    recovery_point: AtomicI64,
    /// The recovery point on disk is past the one in memory (after a truncation): until it is written again, rolled
    /// segments are synced at once, because recovery would take them for flushed.
    recovery_point_stale: AtomicBool,
    /// New files whose directory entries are not durable yet.
    dir_unsynced: AtomicBool,
    /// The partition is being deleted: the paths are about to be nobody's, or another topic's. Set before the locks
    /// are taken, so that whoever has them ends early; looked at by whoever has got them.
    deleted: AtomicBool,
}

impl Log {
    /// Which partition this is.
    #[must_use]
    pub const fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    /// The topic's id (`partition.metadata`).
    #[must_use]
    pub const fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// The directory of its files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Arc<LogConfig> {
        Arc::clone(&self.config.read())
    }

    /// Replaces the settings; the next append goes by them.
    pub fn set_config(&self, config: LogConfig) {
        *self.config.write() = Arc::new(config);
    }

    /// The first offset that readers may see.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        Offset::new(self.log_start.load(Ordering::Acquire))
    }

    /// The offset of the next record.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        Offset::new(self.log_end.load(Ordering::Acquire))
    }

    /// Everything below is durable.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        Offset::new(self.recovery_point.load(Ordering::Acquire))
    }

    /// Why the directory takes no more work, if it does not (R14).
    #[must_use]
    pub fn offline_reason(&self) -> Option<&str> {
        self.disk.offline_reason()
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn size_in_bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.size()).sum()
    }

    /// Bytes of the segments that hold `from` or anything after it: what a lagging reader has before it.
    #[must_use]
    pub fn bytes_from(&self, from: Offset) -> u64 {
        let segments = self.segments();
        let first = segments.partition_point(|segment| segment.base <= from.get()).saturating_sub(1);
        segments[first..].iter().map(|segment| segment.size()).sum()
    }

    /// How many segments there are.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments().len()
    }

    /// The first offset of the oldest segment.
    #[must_use]
    pub fn first_segment_base_offset(&self) -> Offset {
        Offset::new(self.segments().first().map_or(0, |segment| segment.base))
    }

    /// The first offset of the active segment.
    #[must_use]
    pub fn active_segment_base_offset(&self) -> Offset {
        Offset::new(self.segments().last().map_or(0, |segment| segment.base))
    }

    /// The newest leader epoch that the log knows, or [`LeaderEpoch::NONE`].
    #[must_use]
    pub fn latest_epoch(&self) -> LeaderEpoch {
        self.epochs.read().latest()
    }

    /// All leader epochs with their first offsets.
    #[must_use]
    pub fn epoch_entries(&self) -> Vec<EpochEntry> {
        self.epochs.read().entries().to_vec()
    }

    /// Where the largest epoch up to `epoch` ends (`OffsetForLeaderEpoch`, KIP-101/279): that epoch and the offset
    /// after its last record. `None` if `epoch` is newer than anything the log knows.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let log_end = self.log_end_offset();
        self.epochs.read().end_offset_for(epoch, log_end)
    }

    /// The leader epoch of the record at `offset`.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.read().epoch_at(offset)
    }

    /// A new leader begins here (also without a record): its epoch starts at the log end offset.
    pub fn assign_epoch(&self, epoch: LeaderEpoch) {
        let writer = self.writer.lock();
        self.epochs.write().assign(epoch, self.log_end_offset());
        drop(writer);
    }

    /// Gives back the memory that holds recent batches: for logs that have been idle for a while.
    pub fn release_memory(&self) {
        self.tail.lock().release();
    }

    pub(crate) fn segments(&self) -> Segments {
        Arc::clone(&self.segments.read())
    }

    pub(crate) fn check_open(&self, writer: &Writer) -> Result<(), LogError> {
        self.disk.check()?;
        if writer.closed { Err(LogError::Closed(self.partition.to_string())) } else { Ok(()) }
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Whoever works on files by their paths asks, with `cleaning` or `flushing` held.
    pub(crate) fn check_not_deleted(&self) -> Result<(), LogError> {
        if self.is_deleted() { Err(LogError::Closed(self.partition.to_string())) } else { Ok(()) }
    }

    /// A compaction asks now and then, with `cleaning` held, whether it may go on.
    pub(crate) fn check_cleaning(&self) -> Result<(), LogError> {
        self.check_not_deleted()?;
        match self.interrupts.load(Ordering::Acquire) {
            0 => Ok(()),
            _ => Err(LogError::Interrupted(self.partition.to_string())),
        }
    }

    pub(crate) const fn compacted(&self) -> &Arc<CompactedOffsets> {
        &self.compacted
    }

    pub(crate) const fn disk(&self) -> &Arc<Disk> {
        &self.disk
    }

    /// The recovery point is on disk as it is in memory.
    pub(crate) fn recovery_point_written(&self, written: Offset) {
        if written <= self.recovery_point() {
            self.recovery_point_stale.store(false, Ordering::Release);
        }
    }
}
