//! How far a partition has been written, and by whom: a small file that is replaced as a whole, under a lock.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use towpath_api::ConnectorError;
use towpath_types::TopicPartition;

use super::errors::io_error;
use super::names;

const VERSION: u32 = 1;

/// The file that is being written, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenFile {
    /// The first offset that it covers.
    pub(crate) first: i64,
    /// Its bytes that count.
    pub(crate) bytes: u64,
}

/// What the state file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) v: u32,
    /// The topic's id; empty where the cluster has none.
    pub(crate) topic_id: String,
    /// The task that may write.
    pub(crate) owner: String,
    /// The next offset.
    pub(crate) next: i64,
    pub(crate) open: Option<OpenFile>,
}

impl State {
    /// Nothing has been written.
    pub(crate) const fn empty() -> Self {
        Self { v: VERSION, topic_id: String::new(), owner: String::new(), next: 0, open: None }
    }

    /// Reads it; `None` if it is not there.
    ///
    /// R7: one that cannot be read stops the task.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, ConnectorError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&format!("read {}", path.display()), error)),
        };
        let unreadable = || {
            ConnectorError::terminal(
                "SINK_POSITION",
                format!("{} does not say how far the partition has been written", path.display()),
            )
            .with_hint("restore the file; or move it and the partition's files away to write everything anew")
        };
        let state: Self = serde_json::from_slice(&bytes).map_err(|error| unreadable().with_cause(error))?;
        if state.v == VERSION && state.next >= 0 { Ok(Some(state)) } else { Err(unreadable()) }
    }

    /// Replaces the file, durably.
    pub(crate) fn write(&self, path: &Path) -> Result<(), ConnectorError> {
        let failed = |error| io_error(&format!("write {}", path.display()), error);
        let bytes = serde_json::to_vec(self).map_err(|error| {
            ConnectorError::bug("SINK_FILE", "the position cannot be written").with_cause(error)
        })?;
        let temporary = path.with_extension("tmp");
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            sync_parent(path)
        };
        write().map_err(failed)
    }
}

/// Makes renames and new names in the directory of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Held while owner and files of a partition change; other processes and tasks wait.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(directory: &Path, partition: &TopicPartition) -> Result<Self, ConnectorError> {
        let path: PathBuf = names::lock(directory, partition);
        let failed = |error| io_error(&format!("lock {}", path.display()), error);
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        // Held for a few file operations only: no reason to give up on it.
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        Ok(Self { _file: file })
    }
}

/// A token that no other task has had.
pub(crate) fn new_owner() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}-{now}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
