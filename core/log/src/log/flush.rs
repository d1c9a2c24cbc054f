//! Making things durable, and closing.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use towpath_types::Offset;

use super::{Log, Unsynced, Writer};
use crate::checkpoint;
use crate::disk::Disk;
use crate::error::LogError;
use crate::segment::{LOG, SNAPSHOT, segment_path};
use crate::storage::OpenMode;

/// The name of the leader-epoch cache's file.
pub(crate) const EPOCHS_FILE: &str = "leader-epoch-checkpoint";

pub(super) fn sync_file(disk: &Disk, path: &Path) -> Result<(), LogError> {
    let file = disk.open_write(path, OpenMode::ReadWrite)?;
    disk.wrote("sync", path, file.sync_data())
}

impl Log {
    /// Makes everything that was appended before the call durable, and moves the recovery point there, which is
    /// returned. Appends and reads go on meanwhile; callers that wait for the same flush share it.
    ///
    /// # Errors
    /// [`LogError`]; after a failed fsync the directory is offline (R14). [`LogError::Closed`] once the partition is
    /// being deleted.
    pub fn flush(&self) -> Result<Offset, LogError> {
        self.disk.check()?;
        let wanted = self.log_end_offset();
        let guard = self.flushing.lock();
        // Someone else's flush, which began after our call, may have covered ours.
        if self.recovery_point() >= wanted && !self.has_unsynced() {
            return Ok(self.recovery_point());
        }
        let result = self.flush_locked();
        drop(guard);
        result
    }

    fn has_unsynced(&self) -> bool {
        let unsynced = self.unsynced.lock();
        !unsynced.closed.is_empty()
            || !unsynced.snapshots.is_empty()
            || self.dir_unsynced.load(Ordering::Acquire)
            || self.epochs.read().is_dirty()
    }

    /// The caller holds `flushing`.
    pub(super) fn flush_locked(&self) -> Result<Offset, LogError> {
        let disk = &self.disk;
        disk.check()?;
        self.check_not_deleted()?;
        // The end first: whatever was closed below it is in the lists by then.
        let end = self.log_end_offset().get();
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        let dir_unsynced = self.dir_unsynced.swap(false, Ordering::AcqRel);
        if let Err(error) = self.sync_all(end, &unsynced, dir_unsynced) {
            // Not what was not synced, but what has to be synced yet, if the directory is still in use.
            let mut waiting = self.unsynced.lock();
            waiting.closed.extend(unsynced.closed);
            waiting.snapshots.extend(unsynced.snapshots);
            self.dir_unsynced.fetch_or(dir_unsynced, Ordering::AcqRel);
            return Err(error);
        }
        self.recovery_point.fetch_max(end, Ordering::AcqRel);
        Ok(Offset::new(end))
    }

    /// Syncs the segments between the recovery point and `end`, and what else waits.
    fn sync_all(&self, end: i64, unsynced: &Unsynced, dir_unsynced: bool) -> Result<(), LogError> {
        let disk = &self.disk;
        let from = self.recovery_point().get();
        let segments = self.segments();
        for (index, segment) in segments.iter().enumerate() {
            let segment_end = segments.get(index + 1).map_or(i64::MAX, |next| next.base);
            if segment_end > from && segment.base < end && segment.size() > 0 {
                segment.sync(disk)?;
            }
        }
        for segment in &unsynced.closed {
            // Retention may have removed it meanwhile.
            if segments.iter().any(|known| known.base == segment.base) {
                segment.sync_indexes(disk)?;
            }
        }
        for path in &unsynced.snapshots {
            match sync_existing(disk, path) {
                Err(error) if error.is_not_found() => {}
                result => result?,
            }
        }
        self.write_epochs()?;
        if dir_unsynced {
            disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Writes the leader-epoch cache, if it has changed since.
    pub(super) fn write_epochs(&self) -> Result<(), LogError> {
        let Some(entries) = self.epochs.write().take_dirty() else { return Ok(()) };
        let path = self.dir.join(EPOCHS_FILE);
        checkpoint::write_epochs(&self.disk, &path, &entries).inspect_err(|_| self.epochs.write().set_dirty())
    }

    /// Writes everything out for a clean shutdown: indexes, a producer snapshot, all of it durable. Nothing can be
    /// appended afterwards; reads still work.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn close(&self) -> Result<(), LogError> {
        let guard = self.flushing.lock();
        let mut writer = self.writer.lock();
        if writer.closed || self.is_deleted() {
            return Ok(());
        }
        self.disk.check()?;
        writer.closed = true;
        if !writer.changed {
            // As it was opened: the files of the last clean shutdown are all there.
            return Ok(());
        }
        let Writer { active, file, room, .. } = &mut *writer;
        self.disk.wrote("truncate", &active.path(LOG), room.give_back(file.as_ref(), active.size()))?;
        active.finish(&self.disk)?;
        writer.active.sync_indexes(&self.disk)?;
        let snapshot: PathBuf = segment_path(&self.dir, self.log_end_offset().get(), SNAPSHOT);
        writer.producers.write_snapshot(&self.disk, &snapshot)?;
        sync_file(&self.disk, &snapshot)?;
        self.dir_unsynced.store(true, Ordering::Release);
        drop(writer);
        self.flush_locked()?;
        drop(guard);
        self.tail.lock().clear();
        Ok(())
    }

    /// Refuses all further work: the partition is being deleted. When this returns, nobody works on its files.
    pub(crate) fn shut(&self) {
        self.deleted.store(true, Ordering::Release);
        let _cleaning = self.cleaning.lock();
        let _flushing = self.flushing.lock();
        self.writer.lock().closed = true;
        self.tail.lock().clear();
    }
}

/// Syncs a file that may be gone.
fn sync_existing(disk: &Disk, path: &Path) -> Result<(), LogError> {
    let file = disk.did_read("open", path, disk.storage.open(path, OpenMode::ReadWrite))?;
    disk.wrote("sync", path, file.sync_data())
}
