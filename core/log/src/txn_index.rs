//! The aborted transactions of a segment, in Kafka's `.txnindex` format: one entry for every ABORT marker that ended
//! something, in the order of the markers.
//!
//! Most segments have none, and then there is no file. Entries gather in memory; whatever was not written out before a
//! crash is rebuilt from the log.

use std::path::PathBuf;
use std::sync::Arc;

use towpath_types::{Offset, ProducerId};

use crate::disk::Disk;
use crate::error::LogError;
use crate::storage::{OpenMode, StorageFile};

/// Bytes of one entry (`AbortedTxn` v0).
const ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;
/// Entries that gather before they are written.
const PENDING_MAX: usize = 512;
/// Entries that are read at a time.
const CHUNK_ENTRIES: u64 = 256;

/// A transaction whose records `read_committed` readers must not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Who wrote them.
    pub producer_id: ProducerId,
    /// The first of them that the log had when the transaction was aborted.
    pub first_offset: Offset,
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTxn {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// The marker's.
    pub(crate) last_offset: i64,
    /// The last stable offset once the marker was there, whatever the high watermark: it never goes back from entry to
    /// entry, so that a search knows where it may end.
    pub(crate) last_stable_offset: i64,
}

impl AbortedTxn {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for field in [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset] {
            out.extend_from_slice(&field.to_be_bytes());
        }
    }

    /// `None` for an entry of another version.
    fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Self> {
        let field = |at: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[at..at + 8]);
            i64::from_be_bytes(raw)
        };
        (i16::from_be_bytes([bytes[0], bytes[1]]) == VERSION).then(|| Self {
            producer_id: field(2),
            first_offset: field(10),
            last_offset: field(18),
            last_stable_offset: field(26),
        })
    }

    /// What a reader is told.
    pub(crate) const fn told(&self) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId::new(self.producer_id),
            first_offset: Offset::new(self.first_offset),
        }
    }
}

/// The index of one segment.
#[derive(Debug)]
pub(crate) struct TxnIndex {
    path: PathBuf,
    /// Whether there is a file.
    exists: bool,
    on_disk: u64,
    pending: Vec<AbortedTxn>,
    /// Where the file goes once it is whole: `path` is a temporary one until then.
    replaces: Option<PathBuf>,
    /// The file, once compaction has replaced the segment: its name is another's then.
    kept: Option<Arc<dyn StorageFile>>,
}

impl TxnIndex {
    /// An index without entries and without a file. One that is there all the same is emptied by the first write.
    pub(crate) const fn empty(path: PathBuf) -> Self {
        Self { path, exists: false, on_disk: 0, pending: Vec::new(), replaces: None, kept: None }
    }

    /// One that is made anew, in a temporary file. What is at `place` stays there until [`Self::settle`]: where a crash comes
    /// first, it is made anew at the next start again.
    pub(crate) fn rebuilding(place: PathBuf) -> Self {
        let mut temporary = place.as_os_str().to_owned();
        temporary.push(".tmp");
        Self { replaces: Some(place), ..Self::empty(temporary.into()) }
    }

    /// Puts what was made anew in its place, durably. Without any entry there is no file.
    pub(crate) fn settle(&mut self, disk: &Disk) -> Result<(), LogError> {
        let Some(place) = self.replaces.clone() else { return self.sync(disk) };
        if self.len() == 0 {
            disk.remove_file(&place)?;
        } else {
            self.sync(disk)?;
            disk.rename(&self.path, &place)?;
        }
        if let Some(dir) = place.parent() {
            disk.sync_dir(dir)?;
        }
        self.path = place;
        self.replaces = None;
        Ok(())
    }

    /// Opens the file, which exists, of the segment that begins at `base`; `None` if it makes no sense.
    pub(crate) fn open(disk: &Disk, path: PathBuf, base: i64) -> Result<Option<Self>, LogError> {
        let file = disk.did_read("open", &path, disk.storage.open(&path, OpenMode::Read))?;
        let bytes = disk.did_read("read", &path, file.bytes())?;
        if bytes % ENTRY_BYTES as u64 != 0 {
            return Ok(None);
        }
        let on_disk = bytes / ENTRY_BYTES as u64;
        let index = Self { exists: true, on_disk, ..Self::empty(path) };
        let (mut at, mut last) = (0, base.saturating_sub(1));
        while at < index.on_disk {
            let Ok(chunk) = index.read(disk, file.as_ref(), at, CHUNK_ENTRIES) else { return Ok(None) };
            at += chunk.len() as u64;
            for entry in chunk {
                if entry.last_offset <= last || entry.first_offset > entry.last_offset {
                    return Ok(None);
                }
                last = entry.last_offset;
            }
        }
        Ok(Some(index))
    }

    pub(crate) fn len(&self) -> u64 {
        self.on_disk + self.pending.len() as u64
    }

    /// Makes sure that the next [`Self::push`] finds room.
    pub(crate) fn make_room(&mut self, disk: &Disk) -> Result<(), LogError> {
        if self.pending.len() < PENDING_MAX { Ok(()) } else { self.write_pending(disk).map(drop) }
    }

    /// Adds an entry whose marker is after all that are there.
    pub(crate) fn push(&mut self, entry: AbortedTxn) {
        self.pending.push(entry);
    }

    fn write_pending(&mut self, disk: &Disk) -> Result<Arc<dyn StorageFile>, LogError> {
        let mode = if self.exists { OpenMode::Create } else { OpenMode::Truncate };
        let file = disk.open_write(&self.path, mode)?;
        self.exists = true;
        if !self.pending.is_empty() {
            let mut out = Vec::with_capacity(self.pending.len() * ENTRY_BYTES);
            self.pending.iter().for_each(|entry| entry.encode(&mut out));
            let at = self.on_disk * ENTRY_BYTES as u64;
            disk.wrote("write", &self.path, file.write_at([&out, &[]], at))?;
            self.on_disk += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(file)
    }

    /// Writes what is in memory and gives the memory back: the segment is closed.
    pub(crate) fn finish(&mut self, disk: &Disk) -> Result<(), LogError> {
        if !self.pending.is_empty() {
            self.write_pending(disk)?;
        }
        self.pending = Vec::new();
        Ok(())
    }

    /// Makes the file durable, if there is anything to write or a file.
    pub(crate) fn sync(&mut self, disk: &Disk) -> Result<(), LogError> {
        if !self.exists && self.pending.is_empty() {
            return Ok(());
        }
        let file = self.write_pending(disk)?;
        disk.wrote("sync", &self.path, file.sync_data())
    }

    /// Renames the file, if there is one.
    pub(crate) fn rename(&mut self, disk: &Disk, to: PathBuf) -> Result<(), LogError> {
        if self.exists {
            disk.rename(&self.path, &to)?;
        }
        self.path = to;
        Ok(())
    }

    /// Compaction is about to replace the segment: readers that still hold it find the entries in the open file.
    pub(crate) fn keep_open(&mut self, disk: &Disk) -> Result<(), LogError> {
        if self.on_disk > 0 && self.kept.is_none() {
            self.kept = Some(self.open_read(disk)?);
        }
        Ok(())
    }

    fn open_read(&self, disk: &Disk) -> Result<Arc<dyn StorageFile>, LogError> {
        match &self.kept {
            Some(file) => Ok(Arc::clone(file)),
            None => disk.did_read("open", &self.path, disk.storage.open(&self.path, OpenMode::Read)),
        }
    }

    /// Removes the entries whose marker is at or after `offset`.
    pub(crate) fn truncate(&mut self, disk: &Disk, offset: i64) -> Result<(), LogError> {
        self.pending.retain(|entry| entry.last_offset < offset);
        if self.on_disk == 0 || !self.pending.is_empty() {
            return Ok(());
        }
        let file = disk.open_write(&self.path, OpenMode::Create)?;
        let keep = self.count_below(disk, file.as_ref(), offset)?;
        if keep < self.on_disk {
            self.on_disk = keep;
            disk.wrote("truncate", &self.path, file.truncate(keep * ENTRY_BYTES as u64))?;
        }
        Ok(())
    }

    /// How many entries of the file have their marker below `offset`.
    fn count_below(&self, disk: &Disk, file: &dyn StorageFile, offset: i64) -> Result<u64, LogError> {
        let (mut low, mut high) = (0, self.on_disk);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.read(disk, file, middle, 1)?;
            if entry.first().is_some_and(|entry| entry.last_offset < offset) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Reads up to `count` entries from the one at `at` on; at least one.
    fn read(
        &self,
        disk: &Disk,
        file: &dyn StorageFile,
        at: u64,
        count: u64,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        let count = count.min(self.on_disk.saturating_sub(at)) as usize;
        let mut bytes = vec![0; count * ENTRY_BYTES];
        let read = file.read_at(&mut bytes, at * ENTRY_BYTES as u64);
        let read = disk.did_read("read", &self.path, read)?;
        if count == 0 || read < bytes.len() {
            return Err(LogError::corrupt(&self.path, "it is shorter than it was"));
        }
        let (entries, _) = bytes.as_chunks::<ENTRY_BYTES>();
        let decoded: Option<Vec<AbortedTxn>> = entries.iter().map(AbortedTxn::decode).collect();
        decoded.ok_or_else(|| LogError::corrupt(&self.path, "an entry has an unknown version"))
    }

    /// Adds to `out` the transactions that overlap `from..upper`. Returns whether no later one can: an entry's last
    /// stable offset has reached `upper`.
    pub(crate) fn collect(
        &self,
        disk: &Disk,
        from: i64,
        upper: i64,
        out: &mut Vec<AbortedTxn>,
    ) -> Result<bool, LogError> {
        let mut take = |entry: &AbortedTxn| {
            if entry.last_offset >= from && entry.first_offset < upper {
                out.push(*entry);
            }
            entry.last_stable_offset >= upper
        };
        if self.on_disk > 0 {
            let file = self.open_read(disk)?;
            let mut at = self.count_below(disk, file.as_ref(), from)?;
            while at < self.on_disk {
                let chunk = self.read(disk, file.as_ref(), at, CHUNK_ENTRIES)?;
                at += chunk.len() as u64;
                if chunk.iter().any(&mut take) {
                    return Ok(true);
                }
            }
        }
        Ok(self.pending.iter().any(take))
    }
}
