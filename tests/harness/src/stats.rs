//! What a process uses, from `/proc`.

use std::time::Duration;

use anyhow::{Context, Result};

/// A moment's reading of one process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// The most resident memory so far, bytes.
    pub peak_rss_bytes: u64,
    /// CPU time of all threads, ended ones included (10 ms steps).
    pub cpu: Duration,
    /// CPU time of the threads alive now, from schedstat (nanoseconds, exact).
    pub cpu_live_threads: Duration,
    /// How many threads there are.
    pub threads: u32,
    /// How many file descriptors are open.
    pub open_files: usize,
}

/// Reads `/proc/<pid>`.
///
/// # Errors
/// If the process is gone.
pub fn usage(pid: u32) -> Result<Usage> {
    let root = format!("/proc/{pid}");
    let read = |name: &str| {
        std::fs::read_to_string(format!("{root}/{name}")).with_context(|| format!("process {pid} is gone"))
    };
    let status = read("status")?;
    let kib = |key: &str| -> u64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    };
    let stat = read("stat")?;
    // The name in parentheses may hold anything; after it, utime and stime are fields 14 and 15 of the whole line.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let cpu = Duration::from_millis((ticks(11) + ticks(12)) * 10);
    let mut live_ns: u64 = 0;
    for task in std::fs::read_dir(format!("{root}/task")).with_context(|| format!("process {pid} is gone"))? {
        // A thread may end between the listing and the reading.
        if let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) {
            live_ns += text.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    let open_files = std::fs::read_dir(format!("{root}/fd")).map_or(0, Iterator::count);
    Ok(Usage {
        rss_bytes: kib("VmRSS:") * 1024,
        peak_rss_bytes: kib("VmHWM:") * 1024,
        cpu,
        cpu_live_threads: Duration::from_nanos(live_ns),
        threads: u32::try_from(kib("Threads:")).unwrap_or(u32::MAX),
        open_files,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_process() {
        let before = usage(std::process::id()).unwrap();
        let mut x = 1u64;
        let until = std::time::Instant::now() + Duration::from_millis(80);
        while std::time::Instant::now() < until {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
        let after = usage(std::process::id()).unwrap();
        assert!(after.rss_bytes > 500_000 && after.peak_rss_bytes >= after.rss_bytes / 2);
        assert!(after.cpu_live_threads > before.cpu_live_threads || after.cpu > before.cpu);
        assert!(after.threads >= 1 && after.open_files >= 3);
    }
}
