//! Cutting the log's end off: what a follower does when it has diverged from its leader.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::MutexGuard;
use towpath_types::Offset;

use super::{Log, Writer};
use crate::error::LogError;
use crate::room::Room;
use crate::segment::{Segment, remove_segment};

impl Log {
    /// Removes the records from `target` on, with what indexes, epochs and producer state say of them. The log end
    /// offset is `target` afterwards, unless it was lower already, or `target` lies within a batch (batches are whole, so
    /// the log then ends where that one began) or after one that compaction has removed. It is durable when this returns.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn truncate_to(&self, target: Offset) -> Result<(), LogError> {
        let _cleaning = self.stop_cleaning();
        let _flushing = self.flushing.lock();
        let mut writer = self.writer.lock();
        self.check_open(&writer)?;
        let end = self.log_end_offset();
        if target >= end {
            // A leader that never wrote has left its epoch at the log's end. It is not the history of any other leader.
            self.epochs.write().truncate_from_end(end);
            return self.write_epochs();
        }
        self.compacted.lower(&self.partition, target)?;
        // What is half truncated is for the next start to sort out.
        self.truncate_locked(&mut writer, target).inspect_err(|error| self.disk.fail(error))
    }

    /// Takes the place of a compaction, which ends early: it may take minutes, and a follower's fetches wait.
    fn stop_cleaning(&self) -> MutexGuard<'_, ()> {
        self.interrupts.fetch_add(1, Ordering::AcqRel);
        let guard = self.cleaning.lock();
        self.interrupts.fetch_sub(1, Ordering::AcqRel);
        guard
    }

    fn truncate_locked(&self, writer: &mut Writer, target: Offset) -> Result<(), LogError> {
        let first = self.segments().first().map_or(0, |segment| segment.base);
        if target.get() < first {
            return self.restart_at(writer, target.get());
        }
        writer.changed = true;
        self.begin_truncation(target.get());
        let (kept, removed): (Vec<_>, Vec<_>) =
            self.segments().iter().cloned().partition(|segment| segment.base <= target.get());
        self.remove_from_end(&removed)?;
        let Some(last) = kept.last().cloned() else {
            return self.restart_at(writer, target.get());
        };
        *self.segments.write() = Arc::new(kept);
        if let Some(placed) = last.find(&self.disk, target.get(), last.size())? {
            last.truncate(&self.disk, placed.position, placed.header.base_offset.get())?;
        }
        let target = self.end_after_cut(&last, target)?;
        self.recovery_point.fetch_min(target.get(), Ordering::AcqRel);
        writer.file = last.file(&self.disk)?;
        writer.room = Room::default();
        writer.active = last;
        self.log_end.store(target.get(), Ordering::Release);
        self.log_start.fetch_min(target.get(), Ordering::AcqRel);
        self.epochs.write().truncate_from_end(target);
        self.write_epochs()?;
        let snapshots = self.drop_snapshots_after(target.get(), self.snapshot_offsets()?)?;
        self.disk.sync_dir(&self.dir)?;
        writer.producers = self.load_producers(target.get(), &snapshots)?;
        // What was verified was so for another history.
        writer.verifications.clear();
        self.unstable.cut(writer.producers.first_open(), target.get());
        Ok(())
    }

    /// Where the log ends once its last segment is cut at `target`: not past the batches that are left, since nothing else on
    /// disk says where it ends. What a batch held before `target` is gone as well; and after an unclean election compaction
    /// may have removed what was right before it, in favour of records that have just been cut off.
    fn end_after_cut(&self, last: &Segment, target: Offset) -> Result<Offset, LogError> {
        let (end, _) = last.read_end(&self.disk)?;
        let start = self.log_start_offset();
        // The checkpoint of log starts says where a log begins that holds nothing.
        let end = if start < target { Offset::new(end).max(start) } else { Offset::new(end) };
        if end >= target {
            return Ok(target);
        }
        self.compacted.lower(&self.partition, end)?;
        Ok(end)
    }

    /// Removes everything and begins anew at `offset`: the leader no longer has what would follow.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn truncate_fully_and_start_at(&self, offset: Offset) -> Result<(), LogError> {
        let _cleaning = self.stop_cleaning();
        let _flushing = self.flushing.lock();
        let mut writer = self.writer.lock();
        self.check_open(&writer)?;
        self.compacted.lower(&self.partition, offset)?;
        self.restart_at(&mut writer, offset.get()).inspect_err(|error| self.disk.fail(error))
    }

    fn begin_truncation(&self, target: i64) {
        self.tail.lock().clear();
        self.recovery_point_stale.store(true, Ordering::Release);
        self.recovery_point.fetch_min(target, Ordering::AcqRel);
    }

    /// Removes segments, the newest first, so that a crash on the way leaves no gap.
    fn remove_from_end(&self, removed: &[Arc<Segment>]) -> Result<(), LogError> {
        let mut unsynced = self.unsynced.lock();
        unsynced.closed.retain(|segment| removed.iter().all(|gone| gone.base != segment.base));
        unsynced.snapshots.clear();
        drop(unsynced);
        for segment in removed.iter().rev() {
            remove_segment(&self.disk, &self.dir, segment.base)?;
        }
        // They must not come back after what is before them was cut.
        self.disk.sync_dir(&self.dir)
    }

    fn restart_at(&self, writer: &mut Writer, offset: i64) -> Result<(), LogError> {
        writer.changed = true;
        self.begin_truncation(offset);
        let segments = self.segments();
        self.remove_from_end(&segments)?;
        self.drop_snapshots_after(i64::MIN, self.snapshot_offsets()?)?;
        let segment = Segment::create(&self.disk, &self.dir, offset)?;
        writer.file = segment.file(&self.disk)?;
        writer.room = Room::default();
        writer.active = Arc::clone(&segment);
        writer.producers.clear();
        writer.verifications.clear();
        self.unstable.clear();
        *self.segments.write() = Arc::new(vec![segment]);
        self.log_end.store(offset, Ordering::Release);
        self.log_start.store(offset, Ordering::Release);
        self.epochs.write().clear();
        self.write_epochs()?;
        self.disk.sync_dir(&self.dir)
    }
}
