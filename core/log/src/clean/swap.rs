//! A compacted segment takes the place of the old ones, whatever happens on the way.

use std::path::Path;
use std::sync::Arc;

use super::{CLEANED, SWAP};
use crate::disk::Disk;
use crate::error::LogError;
use crate::log::{Log, parse_name};
use crate::scan::HeaderScan;
use crate::segment::{
    INDEX, LOG, SCAN_WINDOW_BYTES, SNAPSHOT, Segment, TIME_INDEX, TXN_INDEX, remove_segment, segment_path,
};
use crate::storage::{DirEntry, OpenMode};

impl Log {
    /// Puts the cleaned segment in the place of the group, in memory and then on disk.
    pub(super) fn replace_group(
        &self,
        group: &[Arc<Segment>],
        cleaned: Arc<Segment>,
    ) -> Result<(), LogError> {
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
        cleaned.move_transactions(disk, &self.dir, SWAP)?;
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
        disk.sync_dir(&self.dir)?;
        // Last of all: it cannot be told from the old one, and nobody would miss it.
        cleaned.move_transactions(disk, &self.dir, "")?;
        disk.sync_dir(&self.dir)
    }
}

/// Removes what a compaction has written that was given up. What cannot be removed goes at the next start, or is written
/// over by the next compaction.
pub(super) fn discard(disk: &Disk, dir: &Path, base: i64) {
    for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX] {
        let _left = disk.remove_file(&segment_path(dir, base, &format!("{suffix}{CLEANED}")));
    }
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
    for (base, name) in swaps.iter().filter(|(base, _)| !logs.contains(base)) {
        if name.ends_with(&format!(".{TXN_INDEX}{SWAP}")) {
            // Only this one comes after its log.
            disk.rename(&dir.join(name), &segment_path(dir, *base, TXN_INDEX))?;
        } else {
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
    move_if_there(disk, dir, base, INDEX)?;
    move_if_there(disk, dir, base, TIME_INDEX)?;
    disk.rename(&path, &segment_path(dir, base, LOG))?;
    disk.sync_dir(dir)?;
    move_if_there(disk, dir, base, TXN_INDEX)
}

fn move_if_there(disk: &Disk, dir: &Path, base: i64, suffix: &str) -> Result<(), LogError> {
    let swap = segment_path(dir, base, &format!("{suffix}{SWAP}"));
    match disk.storage.rename(&swap, &segment_path(dir, base, suffix)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => disk.wrote("rename", &swap, result),
    }
}
