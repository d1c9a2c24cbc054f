//! A small file system of its own, which can be full at a word.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::watchdog::{self, Undo};

/// A tmpfs of bounded size. Unmounted on drop.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    bytes: u64,
}

impl Disk {
    /// Mounts it at `path`, which is made.
    ///
    /// # Errors
    /// If this process may not mount.
    pub fn mount(path: &Path, bytes: u64) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let text = path.to_str().context("a path that is not UTF-8")?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "towpath-test", text])?;
        let disk = Self { path: path.to_owned(), bytes };
        watchdog::watch(Undo::Mount, text)?;
        Ok(disk)
    }

    /// Whether this process may mount.
    #[must_use]
    pub fn can_mount(folder: &Path) -> bool {
        Self::mount(&folder.join("probe"), 1 << 20).is_ok()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on, at most `left` more bytes can be written.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn fill(&self, left: u64) -> Result<()> {
        let now = rustix::fs::statvfs(&self.path).context("how full is the file system?")?;
        let used = now.f_blocks.saturating_sub(now.f_bfree).saturating_mul(now.f_frsize);
        self.resize(used.saturating_add(left).max(4096))
    }

    /// Undoes [`Disk::fill`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn clear(&self) -> Result<()> {
        self.resize(self.bytes)
    }

    fn resize(&self, bytes: u64) -> Result<()> {
        let text = self.path.to_str().context("a path that is not UTF-8")?;
        run("mount", &["-o", &format!("remount,size={bytes}"), text])
    }

    /// Removes everything in it.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn wipe(&self) -> Result<()> {
        wipe(&self.path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(text) = self.path.to_str()
            && run("umount", &["-l", text]).is_ok()
        {
            watchdog::forget(Undo::Mount, text);
        }
    }
}

/// Removes everything in a folder.
///
/// # Errors
/// If something cannot be removed.
pub fn wipe(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::TempDir;

    #[test]
    fn is_full_at_a_word() {
        let folder = TempDir::new("disk").unwrap();
        let disk = match Disk::mount(&folder.join("mounted"), 8 << 20) {
            Ok(disk) => disk,
            Err(e) => {
                eprintln!("NOT TESTED: {e:#}");
                return;
            }
        };
        let mut file = std::fs::File::create(disk.path().join("a")).unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        disk.fill(64 << 10).unwrap();
        let error = file.write_all(&vec![1; 1 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.clear().unwrap();
        file.write_all(&vec![1; 1 << 20]).unwrap();
        drop(file);
        disk.wipe().unwrap();
        assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 0);
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(path.to_str().unwrap()));
    }
}
