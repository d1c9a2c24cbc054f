//! The files of one member's store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use towpath_log::{OpenMode, Storage, StorageFile};

use crate::RecordError;

/// Bytes of the largest file that is read whole.
pub(crate) const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why the store of a member cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is damaged at byte {at}: {problem}", path.display())]
    Corrupt { path: PathBuf, at: u64, problem: String },
    #[error("the store of the metadata quorum is offline: {0}")]
    Offline(String),
    #[error("{0}")]
    Foreign(String),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Io { ref source, .. } => Self::new(source.kind(), error),
            error @ StoreError::Corrupt { .. } => Self::new(io::ErrorKind::InvalidData, error),
            error => Self::other(error),
        }
    }
}

/// A directory, and whether it is still fit for use.
#[derive(Debug)]
pub(crate) struct Files {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    offline: OnceLock<String>,
}

impl Files {
    /// Opens the directory; makes it if it is not there.
    pub(crate) fn open(storage: Arc<dyn Storage>, dir: PathBuf) -> Result<Self, StoreError> {
        let files = Self { storage, dir, offline: OnceLock::new() };
        let made = files.storage.create_dir_all(&files.dir);
        files.wrote("make", &files.dir, made)?;
        if let Some(parent) = files.dir.parent() {
            files.wrote("sync", parent, files.storage.sync_dir(parent))?;
        }
        Ok(files)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Locks the directory for this process.
    pub(crate) fn lock(&self) -> Result<Box<dyn towpath_log::StorageLock>, StoreError> {
        let path = self.path(".lock");
        let result = self.storage.lock(&path);
        result.map_err(|source| StoreError::Io { what: "lock", path, source })
    }

    /// R14: nothing is written to a store that has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.offline.get().map_or(Ok(()), |reason| Err(StoreError::Offline(reason.clone())))
    }

    /// Takes the result of a write, fsync or rename; after a failure the store is not written to any more (R14).
    pub(crate) fn wrote<T>(
        &self,
        what: &'static str,
        path: &Path,
        result: io::Result<T>,
    ) -> Result<T, StoreError> {
        result.map_err(|source| {
            if self.offline.set(format!("cannot {what} {}: {source}", path.display())).is_ok() {
                tracing::error!(path = %path.display(), %source, "cannot {what}: the metadata quorum's store is offline");
            }
            StoreError::Io { what, path: path.to_owned(), source }
        })
    }

    fn did_read<T>(&self, what: &'static str, path: &Path, result: io::Result<T>) -> Result<T, StoreError> {
        result.map_err(|source| StoreError::Io { what, path: path.to_owned(), source })
    }

    /// The names of the files.
    pub(crate) fn list(&self) -> Result<Vec<String>, StoreError> {
        let entries = self.did_read("list", &self.dir, self.storage.list(&self.dir))?;
        Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect())
    }

    /// Reads a file whole; `None` if it does not exist.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let file = match self.storage.open(path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => self.did_read("open", path, result)?,
        };
        let bytes = self.did_read("read", path, file.bytes())?;
        if bytes > FILE_BYTES_MAX {
            let problem = format!("{bytes} bytes are too many for this file");
            return Err(StoreError::Corrupt { path: path.to_owned(), at: 0, problem });
        }
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        let read = self.did_read("read", path, file.read_at(&mut content, 0))?;
        content.truncate(read);
        Ok(Some(content))
    }

    pub(crate) fn open_file(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn StorageFile>, StoreError> {
        self.check()?;
        self.wrote("open", path, self.storage.open(path, mode))
    }

    pub(crate) fn sync_dir(&self) -> Result<(), StoreError> {
        self.check()?;
        self.wrote("sync", &self.dir, self.storage.sync_dir(&self.dir))
    }

    /// Replaces a file so that after a crash either the old or the new content is there, and when this returns, the
    /// new one.
    pub(crate) fn replace(&self, path: &Path, parts: [&[u8]; 2]) -> Result<(), StoreError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".tmp");
        let temporary = PathBuf::from(name);
        let file = self.open_file(&temporary, OpenMode::Truncate)?;
        self.wrote("write", &temporary, file.write_at(parts, 0))?;
        self.wrote("sync", &temporary, file.sync_data())?;
        self.wrote("rename", &temporary, self.storage.rename(&temporary, path))?;
        self.sync_dir()
    }

    /// Removes a file, which may be gone already.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.check()?;
        match self.storage.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => self.wrote("remove", path, result),
        }
    }
}
