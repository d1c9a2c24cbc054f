//! Reading whole batches.

use std::fs::File;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use towpath_types::Offset;

use super::{Log, Segments};
use crate::disk::Disk;
use crate::error::{LogError, ReadError};
use crate::scan::read_range;
use crate::segment::{LOG, Segment};
use crate::storage::StorageFile;
use crate::tail::TailRead;

/// A piece of a segment's file. The file stays readable while the slice is held, also when retention removes the
/// segment; only a truncation (of a follower) can make it shorter than it was.
#[derive(Debug, Clone)]
pub struct FileSlice {
    disk: Arc<Disk>,
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    /// Where it begins in the file.
    pub position: u64,
    /// How many bytes it has.
    pub length: usize,
}

impl FileSlice {
    /// The system's file, where there is one: for `sendfile` from [`Self::position`].
    #[must_use]
    pub fn sendfile_source(&self) -> Option<Arc<File>> {
        self.file.sendfile_source()
    }

    /// An offset after all of its batches, and close to it: `segments` are those that were read.
    pub(super) fn offset_after(&self, segments: &[Arc<Segment>]) -> Result<Option<i64>, LogError> {
        let end = self.position + self.length as u64;
        if let Some(offset) = self.segment.offset_after(&self.disk, end)? {
            return Ok(Some(offset));
        }
        let next = segments.partition_point(|segment| segment.base <= self.segment.base);
        Ok(segments.get(next).map(|next| next.base))
    }

    /// Reads the bytes into memory.
    ///
    /// # Errors
    /// [`LogError::Io`], or [`LogError::Corrupt`] if the file has become shorter.
    pub fn read(&self) -> Result<Bytes, LogError> {
        let path = self.segment.path(LOG);
        let bytes = read_range(&self.disk, self.file.as_ref(), &path, self.position, self.length)?;
        if bytes.len() < self.length {
            return Err(LogError::corrupt(&path, "it was truncated while it was read"));
        }
        Ok(bytes)
    }
}

/// What a read found: whole batches, one after the other.
#[derive(Debug, Clone)]
pub enum FetchedData {
    /// Nothing below the bound yet, or nothing that fits.
    Empty,
    /// Batches that are in memory.
    Memory(Vec<Bytes>),
    /// Batches in a file.
    File(FileSlice),
}

impl FetchedData {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Memory(parts) => parts.iter().map(Bytes::len).sum(),
            Self::File(slice) => slice.length,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece; read from the file if need be.
    ///
    /// # Errors
    /// [`LogError`] of [`FileSlice::read`].
    pub fn into_bytes(self) -> Result<Bytes, LogError> {
        match self {
            Self::Empty => Ok(Bytes::new()),
            Self::Memory(mut parts) if parts.len() == 1 => Ok(parts.swap_remove(0)),
            Self::Memory(parts) => {
                let mut joined = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
                for part in parts {
                    joined.extend_from_slice(&part);
                }
                Ok(joined.freeze())
            }
            Self::File(slice) => slice.read(),
        }
    }
}

impl Log {
    /// Reads whole batches from the one that *contains* `from` (or the next one, where compaction has left a gap),
    /// as long as they lie below `upper_bound` (the high watermark or the last stable offset) and fit into
    /// `bytes_max`; the first one also if it does not fit, if `min_one`.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] before the log start or past the log end; [`ReadError::Storage`].
    pub fn read(
        &self,
        from: Offset,
        bytes_max: usize,
        upper_bound: Offset,
        min_one: bool,
    ) -> Result<FetchedData, ReadError> {
        let read = self.read_with(from, bytes_max, upper_bound, min_one, |_, _, _| Ok(()));
        read.map(|(data, ())| data)
    }

    /// Reads, and then looks for more in the segments that were read, below the bound that was read to.
    pub(super) fn read_with<T: Default>(
        &self,
        from: Offset,
        bytes_max: usize,
        upper_bound: Offset,
        min_one: bool,
        look: impl Fn(&[Arc<Segment>], &FetchedData, i64) -> Result<T, LogError>,
    ) -> Result<(FetchedData, T), ReadError> {
        loop {
            let log_start = self.log_start_offset();
            let log_end = self.log_end_offset();
            if from < log_start || from > log_end {
                return Err(ReadError::OutOfRange { requested: from, log_start, log_end });
            }
            let upper = upper_bound.min(log_end).get();
            if from.get() >= upper {
                return Ok((FetchedData::Empty, T::default()));
            }
            let read = self.read_below(from.get(), upper, bytes_max, min_one);
            let looked = read.and_then(|(data, segments)| {
                let found = look(&segments, &data, upper)?;
                Ok((data, found))
            });
            match looked {
                // Retention removed the segment between our look and the read: the log start has moved.
                Err(error) if error.is_not_found() && self.log_start_offset() > log_start => {}
                result => return Ok(result?),
            }
        }
    }

    fn read_below(
        &self,
        from: i64,
        upper: i64,
        bytes_max: usize,
        min_one: bool,
    ) -> Result<(FetchedData, Segments), LogError> {
        // The list first: compaction forgets the tail's places before it shows the new segments.
        let segments = self.segments();
        let tail = self.tail.lock().read(from, upper, bytes_max, min_one);
        match tail {
            TailRead::Before => {}
            TailRead::Nothing => return Ok((FetchedData::Empty, segments)),
            TailRead::Memory(parts) => return Ok((FetchedData::Memory(parts), segments)),
            TailRead::Place { segment, position, length } => {
                if let Ok(index) = segments.binary_search_by_key(&segment, |segment| segment.base) {
                    let data = self.slice(&segments[index], position, length)?;
                    return Ok((data, segments));
                }
            }
        }
        let segments = self.segments();
        let data = self.read_segments(&segments, from, upper, bytes_max, min_one)?;
        Ok((data, segments))
    }

    fn read_segments(
        &self,
        segments: &[Arc<Segment>],
        from: i64,
        upper: i64,
        bytes_max: usize,
        min_one: bool,
    ) -> Result<FetchedData, LogError> {
        let first = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        for segment in &segments[first..] {
            let Some(placed) = segment.find(&self.disk, from, segment.size())? else { continue };
            let size = placed.header.size_in_bytes();
            if placed.header.last_offset().get() >= upper || (size > bytes_max && !min_one) {
                return Ok(FetchedData::Empty);
            }
            if size >= bytes_max {
                return self.slice(segment, placed.position, size);
            }
            let limit = placed.position.saturating_add(bytes_max as u64);
            let end = segment.end_within(&self.disk, placed.end(), limit, upper)?;
            return self.slice(segment, placed.position, (end - placed.position) as usize);
        }
        Ok(FetchedData::Empty)
    }

    fn slice(&self, segment: &Arc<Segment>, position: u64, length: usize) -> Result<FetchedData, LogError> {
        Ok(FetchedData::File(FileSlice {
            disk: Arc::clone(&self.disk),
            segment: Arc::clone(segment),
            file: segment.file(&self.disk)?,
            position,
            length,
        }))
    }
}
