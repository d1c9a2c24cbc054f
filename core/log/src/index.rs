//! The two sparse indexes of a segment: offset → position and timestamp → offset.
//!
//! Entries gather in memory and go to the file a page at a time; the files are opened only to be read or written,
//! so that ten thousand idle partitions hold no descriptors for them. Indexes are disposable: they are rebuilt from
//! the segment whenever they are missing or make no sense.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::Disk;
use crate::error::LogError;
use crate::storage::{OpenMode, StorageFile};

/// Entries that gather before they are written: 4 KiB of the offset index, 2 MiB of the log.
const PENDING_MAX: usize = 512;

pub(crate) trait Entry: Copy + std::fmt::Debug {
    const BYTES: usize;
    fn encode(self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// The batch whose last offset is `base + relative` begins at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative: u32,
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (relative, position) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            relative: u32::from_be_bytes(*relative),
            position: u32::from_be_bytes(*position.first_chunk()?),
        })
    }
}

/// Up to `base + relative`, no record is younger than `timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) relative: u32,
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (timestamp, relative) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            timestamp: i64::from_be_bytes(*timestamp),
            relative: u32::from_be_bytes(*relative.first_chunk()?),
        })
    }
}

/// One index: what is in the file, then what is still in memory.
#[derive(Debug)]
pub(crate) struct Index<E> {
    path: PathBuf,
    on_disk: u64,
    pending: Vec<E>,
    last: Option<E>,
}

impl<E: Entry> Index<E> {
    /// An index without entries; a file that may be there is emptied by the first write.
    pub(crate) const fn empty(path: PathBuf) -> Self {
        Self { path, on_disk: 0, pending: Vec::new(), last: None }
    }

    /// Opens an existing index; `None` if the file is missing or its length makes no sense.
    pub(crate) fn open(disk: &Disk, path: PathBuf) -> Result<Option<Self>, LogError> {
        let file = match disk.did_read("open", &path, disk.storage.open(&path, OpenMode::Read)) {
            Err(error) if error.is_not_found() => return Ok(None),
            result => result?,
        };
        let bytes = disk.did_read("read", &path, file.bytes())?;
        if bytes % E::BYTES as u64 != 0 {
            return Ok(None);
        }
        let mut index = Self { path, on_disk: bytes / E::BYTES as u64, pending: Vec::new(), last: None };
        if let Some(last) = index.on_disk.checked_sub(1) {
            index.last = Some(index.read(disk, file.as_ref(), last)?);
        }
        Ok(Some(index))
    }

    pub(crate) const fn last(&self) -> Option<E> {
        self.last
    }

    pub(crate) fn len(&self) -> u64 {
        self.on_disk + self.pending.len() as u64
    }

    fn read(&self, disk: &Disk, file: &dyn StorageFile, at: u64) -> Result<E, LogError> {
        let mut bytes = [0; 12];
        let read = file.read_at(&mut bytes[..E::BYTES], at * E::BYTES as u64);
        let read = disk.did_read("read", &self.path, read)?;
        E::decode(&bytes[..read]).ok_or_else(|| LogError::corrupt(&self.path, "it is shorter than it was"))
    }

    /// Adds an entry; on an error it is not there.
    pub(crate) fn push(&mut self, disk: &Disk, entry: E) -> Result<(), LogError> {
        let last = self.last.replace(entry);
        self.pending.push(entry);
        if self.pending.len() < PENDING_MAX {
            return Ok(());
        }
        self.write_pending(disk).map(drop).inspect_err(|_| {
            self.pending.pop();
            self.last = last;
        })
    }

    /// Writes what is in memory, and returns the file.
    pub(crate) fn write_pending(&mut self, disk: &Disk) -> Result<Arc<dyn StorageFile>, LogError> {
        let mode = if self.on_disk == 0 { OpenMode::Truncate } else { OpenMode::Create };
        let file = disk.open_write(&self.path, mode)?;
        if !self.pending.is_empty() {
            let mut out = Vec::with_capacity(self.pending.len() * E::BYTES);
            for entry in &self.pending {
                entry.encode(&mut out);
            }
            let at = self.on_disk * E::BYTES as u64;
            disk.wrote("write", &self.path, file.write_at([&out, &[]], at))?;
            self.on_disk += self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(file)
    }

    /// Renames the file.
    pub(crate) fn rename(&mut self, disk: &Disk, to: PathBuf) -> Result<(), LogError> {
        disk.rename(&self.path, &to)?;
        self.path = to;
        Ok(())
    }

    /// Writes what is in memory and gives the memory back: the segment is closed.
    pub(crate) fn finish(&mut self, disk: &Disk) -> Result<(), LogError> {
        self.write_pending(disk)?;
        self.pending = Vec::new();
        Ok(())
    }

    /// Makes the file durable; nothing of it is in memory afterwards.
    pub(crate) fn sync(&mut self, disk: &Disk) -> Result<(), LogError> {
        let file = self.write_pending(disk)?;
        disk.wrote("sync", &self.path, file.sync_data())
    }

    /// The last entry for which `holds`; it must hold for a prefix of the entries.
    pub(crate) fn last_where(&self, disk: &Disk, holds: impl Fn(&E) -> bool) -> Result<Option<E>, LogError> {
        let in_memory = self.pending.partition_point(&holds);
        if in_memory > 0 {
            return Ok(self.pending.get(in_memory - 1).copied());
        }
        if self.on_disk == 0 {
            return Ok(None);
        }
        let file = disk.did_read("open", &self.path, disk.storage.open(&self.path, OpenMode::Read))?;
        let count = self.count_on_disk(disk, file.as_ref(), &holds)?;
        match count.checked_sub(1) {
            None => Ok(None),
            Some(at) => self.read(disk, file.as_ref(), at).map(Some),
        }
    }

    /// The first entry for which `holds` no longer holds; it must hold for a prefix of the entries.
    pub(crate) fn first_past(&self, disk: &Disk, holds: impl Fn(&E) -> bool) -> Result<Option<E>, LogError> {
        if self.on_disk > 0 && !self.pending.first().is_some_and(&holds) {
            let file = disk.did_read("open", &self.path, disk.storage.open(&self.path, OpenMode::Read))?;
            let count = self.count_on_disk(disk, file.as_ref(), &holds)?;
            if count < self.on_disk {
                return self.read(disk, file.as_ref(), count).map(Some);
            }
        }
        Ok(self.pending.get(self.pending.partition_point(&holds)).copied())
    }

    fn count_on_disk(
        &self,
        disk: &Disk,
        file: &dyn StorageFile,
        holds: impl Fn(&E) -> bool,
    ) -> Result<u64, LogError> {
        let (mut low, mut high) = (0, self.on_disk);
        while low < high {
            let middle = low + (high - low) / 2;
            if holds(&self.read(disk, file, middle)?) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Keeps the prefix for which `holds`.
    pub(crate) fn truncate_where(&mut self, disk: &Disk, holds: impl Fn(&E) -> bool) -> Result<(), LogError> {
        self.write_pending(disk)?;
        let file = disk.open_write(&self.path, OpenMode::Create)?;
        self.on_disk = self.count_on_disk(disk, file.as_ref(), holds)?;
        disk.wrote("truncate", &self.path, file.truncate(self.on_disk * E::BYTES as u64))?;
        self.last = match self.on_disk.checked_sub(1) {
            None => None,
            Some(at) => Some(self.read(disk, file.as_ref(), at)?),
        };
        Ok(())
    }
}
