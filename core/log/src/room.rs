//! Room on the disk ahead of a segment's end.
//!
//! A file system that looks for room block by block, as a file grows, spends a quarter of an append's time on that. A
//! segment that has shown that it grows gets its room in steps; what is left over is given back when the segment is full
//! or closed. After a crash it stays, one step at most, until then. The file's length is that of its records throughout.

use std::io;

use crate::storage::StorageFile;

/// Segments that are smaller take their room as they grow: ten thousand small partitions keep nothing for themselves.
const GROWN_BYTES: u64 = 1024 * 1024;
/// As much as there is already, but no more than this.
const STEP_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What a segment's file has got.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Where the last step ends; 0 before the first.
    end: u64,
    /// There is none to be had: appends find out themselves what the disk still takes.
    refused: bool,
}

impl Room {
    /// Called before an append from `size` to `end`, into a segment that will not pass `segment_bytes` by much.
    pub(crate) fn ahead(&mut self, file: &dyn StorageFile, size: u64, end: u64, segment_bytes: u64) {
        if end <= self.end || size < GROWN_BYTES || self.refused {
            return;
        }
        let wanted = (end + size.min(STEP_BYTES_MAX)).min(segment_bytes);
        if wanted <= end {
            return;
        }
        match file.reserve(size..wanted) {
            Ok(()) => self.end = wanted,
            Err(error) => {
                self.refused = true;
                if error.kind() != io::ErrorKind::Unsupported {
                    // A disk that is nearly full may have given a part of it. The append says what it thinks of the disk.
                    let _others_need_it = file.truncate(size);
                }
            }
        }
    }

    /// Gives back what the segment did not use, and begins anew.
    pub(crate) fn give_back(&mut self, file: &dyn StorageFile, size: u64) -> io::Result<()> {
        let had = std::mem::take(self).end;
        if had > size { file.truncate(size) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::file_storage::FileStorage;
    use crate::storage::{OpenMode, Storage};

    #[test]
    fn what_is_left_over_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = FileStorage.open(&path, OpenMode::Create).unwrap();
        let block = vec![7; 256 * 1024];
        let (mut room, mut size) = (Room::default(), 0);
        for _ in 0..20 {
            let end = size + block.len() as u64;
            room.ahead(file.as_ref(), size, end, 1 << 30);
            file.write_at([&block, &[]], size).unwrap();
            size = end;
        }
        let held = || {
            let metadata = std::fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), size, "the length is that of what was written");
            metadata.blocks() * 512
        };
        if room.refused {
            println!("NOT TESTED: the file system under {} gives no room ahead", dir.path().display());
            return;
        }
        assert!(held() > size + (1 << 20), "{} of {size}", held());
        room.give_back(file.as_ref(), size).unwrap();
        file.sync_data().unwrap();
        assert!(held() <= size + 64 * 1024, "{} of {size}", held());
    }

    #[test]
    fn small_files_and_the_segments_end_take_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = FileStorage.open(&dir.path().join("file"), OpenMode::Create).unwrap();
        let mut room = Room::default();
        room.ahead(file.as_ref(), GROWN_BYTES - 1, GROWN_BYTES + 100, 1 << 30);
        assert_eq!(room.end, 0);
        room.ahead(file.as_ref(), GROWN_BYTES, GROWN_BYTES + 100, GROWN_BYTES);
        assert_eq!(room.end, 0);
    }
}
