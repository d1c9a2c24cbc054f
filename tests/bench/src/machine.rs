//! What the machine is, and putting it into a known state: cores, page cache.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Advice, fadvise};
use rustix::thread::{CpuSet, sched_setaffinity};
use towpath_harness::{Guarded, TempDir};

/// Words that start a server on core 0, if there is another core for the load.
pub(crate) fn server_prefix() -> Vec<String> {
    if cores() < 2 { Vec::new() } else { ["taskset", "-c", "0"].map(str::to_owned).to_vec() }
}

/// Moves this thread, and what it starts from now on, to core 1, away from the server.
pub(crate) fn pin_load() -> Result<()> {
    if cores() < 2 {
        return Ok(());
    }
    let mut set = CpuSet::new();
    set.set(1);
    sched_setaffinity(None, &set).context("cannot move to core 1")
}

/// Lets this thread run on any core again.
pub(crate) fn unpin_load() -> Result<()> {
    let mut set = CpuSet::new();
    (0..cores()).for_each(|core| set.set(core));
    sched_setaffinity(None, &set).context("cannot move to all cores")
}

fn cores() -> usize {
    // This thread's own affinity would hide the other cores once it is pinned.
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// Processor, cores, memory, kernel.
pub(crate) fn description() -> String {
    let line = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let found = text.lines().find(|line| line.starts_with(key));
        found.and_then(|line| line.split_once(':')).map_or_else(String::new, |(_, v)| v.trim().to_owned())
    };
    let kib: u64 = line("/proc/meminfo", "MemTotal").split(' ').next().unwrap_or("").parse().unwrap_or(0);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{}, {} cores, {} GiB, Linux {}; load average at the end {}",
        line("/proc/cpuinfo", "model name"),
        cores(),
        kib.div_ceil(1 << 20),
        kernel.trim(),
        load.split(' ').next().unwrap_or("?"),
    )
}

/// The command that repeats the run.
pub(crate) fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p towpath-bench -- {}", arguments.join(" "))
}

/// Touches memory that the page cache is about to use: on a virtual machine, the first touch of a page costs many
/// times its use. Writes a file of that size and removes it.
pub(crate) fn warm_page_cache(bytes: u64) -> Result<()> {
    let folder = TempDir::new("warm")?;
    let mut file = File::create(folder.join("file")).context("cannot warm the page cache")?;
    let block = vec![0x5a; 1 << 20];
    for _ in 0..bytes.div_ceil(1 << 20) {
        file.write_all(&block).context("cannot warm the page cache")?;
    }
    Ok(())
}

/// Takes the log segments below a folder out of the page cache (`fdatasync`, then `POSIX_FADV_DONTNEED`), and checks
/// that they are out.
pub(crate) fn evict_segments(folder: &Path) -> Result<()> {
    let files = segments(folder)?;
    if files.is_empty() {
        bail!("there is no segment in {}", folder.display());
    }
    let mut bytes = 0;
    for path in &files {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.sync_data().with_context(|| format!("cannot flush {}", path.display()))?;
        fadvise(&file, 0, None, Advice::DontNeed).context("cannot advise the kernel")?;
        bytes += file.metadata()?.len();
    }
    let mut fincore = Command::new("fincore");
    fincore.args(["--bytes", "--noheadings", "--output", "RES"]).args(&files);
    let text = Guarded::run("fincore", fincore, Duration::from_secs(30))?;
    let resident: u64 = text.split_whitespace().filter_map(|n| n.parse::<u64>().ok()).sum();
    if resident > bytes / 20 {
        bail!("{resident} of {bytes} bytes are still in the page cache");
    }
    Ok(())
}

/// Reads the log segments below a folder, so that they are in the page cache.
pub(crate) fn load_segments(folder: &Path) -> Result<()> {
    for path in segments(folder)? {
        let mut file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    Ok(())
}

/// The log segments below a folder.
pub(crate) fn segments(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let list = std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in list {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.path().extension().is_some_and(|ext| ext == "log") {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_leave_the_page_cache_and_come_back() {
        let folder = TempDir::new("evict").unwrap();
        assert!(evict_segments(folder.path()).is_err(), "nothing to evict must not pass for cold");
        std::fs::create_dir(folder.join("t-0")).unwrap();
        let path = folder.join("t-0/00000000000000000000.log");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        evict_segments(folder.path()).unwrap();
        load_segments(folder.path()).unwrap();
        let mut fincore = Command::new("fincore");
        fincore.args(["--bytes", "--noheadings", "--output", "RES"]).arg(&path);
        let text = Guarded::run("fincore", fincore, Duration::from_secs(5)).unwrap();
        assert!(text.trim().parse::<u64>().unwrap() >= 1 << 19, "{text}");
    }
}
