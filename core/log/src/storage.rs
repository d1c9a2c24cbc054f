//! What the log asks of a disk and of a clock. Synchronous on purpose: appends are short positional writes.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; made if it does not exist, kept as it is if it does.
    Create,
    /// For reading and writing; made, or emptied.
    Truncate,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name, without the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// An open file.
pub trait StorageFile: Send + Sync + Debug {
    /// Reads up to `out.len()` bytes at `at`; fewer only at the end of the file.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes both parts, one after the other, at `at`, and all of them.
    ///
    /// # Errors
    /// The system's; what was written before it is undefined.
    fn write_at(&self, parts: [&[u8]; 2], at: u64) -> io::Result<()>;

    /// Writes all parts, one after the other, at `at`, and all of them.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    fn write_all_at(&self, parts: &[&[u8]], at: u64) -> io::Result<()> {
        let mut at = at;
        for part in parts {
            self.write_at([part, &[]], at)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes the content and the length durable.
    ///
    /// # Errors
    /// The system's. After one, nothing is known about what is durable (R14).
    fn sync_data(&self) -> io::Result<()>;

    /// Sets the length.
    ///
    /// # Errors
    /// The system's.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Finds room on the disk for what will be written there; the file's length stays.
    ///
    /// # Errors
    /// `Unsupported` where that brings nothing, and the system's: the file can be written to as before then.
    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        let _ = range;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn bytes(&self) -> io::Result<u64>;

    /// When the file was last written (ms since 1970).
    ///
    /// # Errors
    /// The system's.
    fn modified_ms(&self) -> io::Result<i64>;

    /// The system's file, where there is one that `sendfile` can read from.
    fn sendfile_source(&self) -> Option<Arc<File>> {
        None
    }
}

/// A lock on a directory; dropping it releases it.
pub trait StorageLock: Send + Sync + Debug {}

/// A file system.
pub trait Storage: Send + Sync + Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>>;

    /// Renames a file or directory, replacing a file. Durable only after [`Storage::sync_dir`].
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The entries of a directory, in no order.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Makes a directory and those above it, where they do not exist.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the directory's entries durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks a file (made if need be) for this process; `WouldBlock` if another holds it.
    ///
    /// # Errors
    /// The system's.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>>;
}

/// A clock that tests and the simulator can hold in their hands.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> i64;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}
