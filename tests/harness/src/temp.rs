//! Temporary folders that go away with the test, and stay for a look when `TOWPATH_KEEP` is set.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::watchdog;

/// A temporary folder, removed on drop and when the test process dies.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
    keep: bool,
}

impl TempDir {
    /// Makes `<system temp>/towpath-<name>-XXXXXX`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(name: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("towpath-{name}-"))
            .tempdir()
            .context("cannot make a temporary folder")?;
        let keep = std::env::var_os("TOWPATH_KEEP").is_some();
        let path = folder.keep();
        if !keep {
            watchdog::watch_folder(&path)?;
        }
        Ok(Self { path, keep })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside it.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A server that is still dying may write once more while the folder is removed.
        for _ in 0..5 {
            match std::fs::remove_dir_all(&self.path) {
                Ok(()) => {
                    watchdog::forget_folder(&self.path);
                    return;
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
    }
}
