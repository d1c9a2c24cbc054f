//! One data directory as all of its logs see it: storage, clock, and whether it is still fit for use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::LogError;
use crate::storage::{Clock, OpenMode, Storage, StorageFile};

/// Bytes of the largest small file (checkpoints, metadata) that is read whole.
const SMALL_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whether the process or the system has too many files open.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) root: PathBuf,
    offline: OnceLock<String>,
    tail_bytes: AtomicUsize,
    tail_bytes_max: usize,
}

impl Disk {
    pub(crate) fn new(
        storage: Arc<dyn Storage>,
        clock: Arc<dyn Clock>,
        root: PathBuf,
        tail_bytes_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            storage,
            clock,
            root,
            offline: OnceLock::new(),
            tail_bytes: AtomicUsize::new(0),
            tail_bytes_max,
        })
    }

    /// R14: nothing is done on a directory that has failed.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        match self.offline.get() {
            None => Ok(()),
            Some(reason) => Err(LogError::Offline { dir: self.root.clone(), reason: reason.clone() }),
        }
    }

    pub(crate) fn offline_reason(&self) -> Option<&str> {
        self.offline.get().map(String::as_str)
    }

    /// Takes the result of a write, fsync or rename; a failure takes the directory offline for good (R14).
    pub(crate) fn wrote<T>(
        &self,
        what: &'static str,
        path: &Path,
        result: io::Result<T>,
    ) -> Result<T, LogError> {
        result.map_err(|source| {
            if self.offline.set(format!("cannot {what} {}: {source}", path.display())).is_ok() {
                tracing::error!(dir = %self.root.display(), path = %path.display(), %source, "cannot {what}: the log directory is offline");
            }
            LogError::Io { what, path: path.to_owned(), source }
        })
    }

    /// Takes the result of a read; a failure is reported and changes nothing.
    pub(crate) fn did_read<T>(
        &self,
        what: &'static str,
        path: &Path,
        result: io::Result<T>,
    ) -> Result<T, LogError> {
        result.map_err(|source| LogError::Io { what, path: path.to_owned(), source })
    }

    /// Opens a file to write to it. That the process has no file descriptor left says nothing about the disk: the
    /// caller leaves everything as it was and may try again, when a connection has ended.
    pub(crate) fn open_write(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn StorageFile>, LogError> {
        self.check()?;
        match self.storage.open(path, mode) {
            Err(source) if is_out_of_descriptors(&source) => {
                Err(LogError::Io { what: "open", path: path.to_owned(), source })
            }
            result => self.wrote("open", path, result),
        }
    }

    /// The directory takes no more work: something that cannot be undone was left half done.
    pub(crate) fn fail(&self, error: &LogError) {
        if self.offline.set(error.to_string()).is_ok() {
            tracing::error!(dir = %self.root.display(), %error, "the log directory is offline");
        }
    }

    /// Makes a directory's entries durable; as with [`Self::open_write`], a lack of file descriptors is not the disk's
    /// fault.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<(), LogError> {
        self.check()?;
        match self.storage.sync_dir(path) {
            Err(source) if is_out_of_descriptors(&source) => {
                Err(LogError::Io { what: "open", path: path.to_owned(), source })
            }
            result => self.wrote("sync", path, result),
        }
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<(), LogError> {
        self.check()?;
        self.wrote("rename", from, self.storage.rename(from, to))
    }

    /// Removes a directory with everything in it; as with [`Self::open_write`], a lack of file descriptors is not the
    /// disk's fault.
    pub(crate) fn remove_dir_all(&self, path: &Path) -> Result<(), LogError> {
        match self.storage.remove_dir_all(path) {
            Err(source) if is_out_of_descriptors(&source) => {
                Err(LogError::Io { what: "remove", path: path.to_owned(), source })
            }
            result => self.wrote("remove", path, result),
        }
    }

    /// Removes a file, which may be gone already.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), LogError> {
        self.check()?;
        match self.storage.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => self.wrote("remove", path, result),
        }
    }

    /// Reads a small file whole; `None` if it does not exist.
    pub(crate) fn read_small(&self, path: &Path) -> Result<Option<Vec<u8>>, LogError> {
        let file = match self.storage.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => self.did_read("open", path, result)?,
        };
        let bytes = self.did_read("read", path, file.bytes())?;
        if bytes > SMALL_FILE_BYTES_MAX {
            return Err(LogError::corrupt(path, format!("{bytes} bytes are too many for this file")));
        }
        let mut content = vec![0; bytes as usize];
        let read = self.did_read("read", path, file.read_at(&mut content, 0))?;
        content.truncate(read);
        Ok(Some(content))
    }

    /// Replaces a small file so that after a crash either the old or the new content is there: temporary file,
    /// fsync, rename, fsync of the directory.
    pub(crate) fn replace(&self, path: &Path, content: &[u8]) -> Result<(), LogError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let file = self.open_write(&temporary, OpenMode::Truncate)?;
        self.wrote("write", &temporary, file.write_at([content, &[]], 0))?;
        self.wrote("sync", &temporary, file.sync_data())?;
        self.rename(&temporary, path)?;
        if let Some(parent) = path.parent() {
            self.sync_dir(parent)?;
        }
        Ok(())
    }

    /// Takes bytes from the bound on what all logs keep in memory (R10).
    pub(crate) fn take_tail_bytes(&self, bytes: usize) -> bool {
        self.tail_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|sum| *sum <= self.tail_bytes_max)
            })
            .is_ok()
    }

    pub(crate) fn give_tail_bytes(&self, bytes: usize) {
        self.tail_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
