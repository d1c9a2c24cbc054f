//! Walks over the batches of a segment file.

use std::path::Path;

use bytes::{Bytes, BytesMut};
use towpath_record::{BatchError, BatchHeader, HEADER_BYTES, RecordBatch};

use crate::disk::Disk;
use crate::error::LogError;
use crate::storage::StorageFile;

/// Reads headers only, through a small window.
pub(crate) struct HeaderScan<'a> {
    disk: &'a Disk,
    file: &'a dyn StorageFile,
    path: &'a Path,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    window_bytes: usize,
}

/// A header and where its batch begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

impl Placed {
    /// Where the next batch begins.
    pub(crate) const fn end(&self) -> u64 {
        self.position + self.header.size_in_bytes() as u64
    }
}

impl<'a> HeaderScan<'a> {
    /// A scan of `position..end`; `window_bytes` is read at a time.
    pub(crate) const fn new(
        disk: &'a Disk,
        file: &'a dyn StorageFile,
        path: &'a Path,
        range: std::ops::Range<u64>,
        window_bytes: usize,
    ) -> Self {
        Self {
            disk,
            file,
            path,
            position: range.start,
            end: range.end,
            window: Vec::new(),
            window_at: 0,
            window_bytes,
        }
    }

    /// The next header; `None` at the end, also where the last batch is not whole.
    pub(crate) fn next(&mut self) -> Result<Option<Placed>, LogError> {
        if self.end.saturating_sub(self.position) < HEADER_BYTES as u64 {
            return Ok(None);
        }
        let inside = self.position.checked_sub(self.window_at).map(|at| at as usize);
        let at = match inside {
            Some(at) if at.saturating_add(HEADER_BYTES) <= self.window.len() => at,
            _ => {
                let want = (self.window_bytes as u64).min(self.end - self.position) as usize;
                self.window.resize(want.max(HEADER_BYTES), 0);
                let read = self.file.read_at(&mut self.window, self.position);
                let read = self.disk.did_read("read", self.path, read)?;
                self.window.truncate(read);
                self.window_at = self.position;
                0
            }
        };
        let header = match BatchHeader::parse(&self.window[at..]) {
            Ok(header) => header,
            Err(BatchError::Truncated { .. }) => return Ok(None),
            Err(error) => {
                return Err(LogError::corrupt(self.path, format!("at byte {}: {error}", self.position)));
            }
        };
        let placed = Placed { position: self.position, header };
        if placed.end() > self.end {
            return Ok(None);
        }
        self.position = placed.end();
        Ok(Some(placed))
    }
}

/// Reads one whole batch.
pub(crate) fn read_batch(
    disk: &Disk,
    file: &dyn StorageFile,
    path: &Path,
    placed: &Placed,
) -> Result<RecordBatch, LogError> {
    let bytes = read_range(disk, file, path, placed.position, placed.header.size_in_bytes())?;
    RecordBatch::parse(&bytes).map_err(|error| LogError::corrupt(path, error.to_string()))
}

/// Reads `length` bytes, fewer at the end of the file.
pub(crate) fn read_range(
    disk: &Disk,
    file: &dyn StorageFile,
    path: &Path,
    position: u64,
    length: usize,
) -> Result<Bytes, LogError> {
    let mut buffer = BytesMut::zeroed(length);
    let read = disk.did_read("read", path, file.read_at(&mut buffer, position))?;
    buffer.truncate(read);
    Ok(buffer.freeze())
}
