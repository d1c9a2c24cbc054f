//! CPU and time that a piece of work took another process.

use std::time::{Duration, Instant};

use anyhow::Result;
use towpath_harness::stats::{Usage, usage};

/// A reading to be compared with a later one.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    before: Usage,
    begin: Instant,
}

/// What was used since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Meter {
    /// Begins.
    pub(crate) fn start(pid: u32) -> Result<Self> {
        Ok(Self { pid, before: usage(pid)?, begin: Instant::now() })
    }

    /// What was used until now.
    pub(crate) fn spent(&self) -> Result<Spent> {
        let wall = self.begin.elapsed();
        let after = usage(self.pid)?;
        Ok(Spent { cpu: cpu_between(&self.before, &after), wall })
    }
}

/// Readings of several processes that do one piece of work together.
#[derive(Debug)]
pub(crate) struct Meters(Vec<Meter>);

impl Meters {
    /// Begins.
    pub(crate) fn start(pids: &[u32]) -> Result<Self> {
        pids.iter().map(|pid| Meter::start(*pid)).collect::<Result<_>>().map(Self)
    }

    /// What all of them used until now; the wall time is that of the first.
    pub(crate) fn spent(&self) -> Result<Spent> {
        let mut sum = Spent { cpu: Duration::ZERO, wall: Duration::ZERO };
        for meter in &self.0 {
            let spent = meter.spent()?;
            sum = Spent { cpu: sum.cpu + spent.cpu, wall: sum.wall.max(spent.wall) };
        }
        Ok(sum)
    }
}

/// The kernel's sum over all threads has steps of 10 ms; the threads' own counters are exact, but miss the threads
/// that have ended. The exact one counts unless it has missed something.
fn cpu_between(before: &Usage, after: &Usage) -> Duration {
    const STEP: Duration = Duration::from_millis(20);
    let coarse = after.cpu.saturating_sub(before.cpu);
    let exact = after.cpu_live_threads.saturating_sub(before.cpu_live_threads);
    if exact + STEP < coarse { coarse } else { exact }
}

impl Spent {
    /// Work per second of wall time.
    pub(crate) fn rate(&self, amount: f64) -> f64 {
        amount / self.wall.as_secs_f64()
    }

    /// CPU seconds per amount of work.
    pub(crate) fn cpu_s_per(&self, amount: f64) -> f64 {
        self.cpu.as_secs_f64() / amount
    }

    /// CPU microseconds per amount of work.
    pub(crate) fn cpu_us_per(&self, amount: f64) -> f64 {
        self.cpu_s_per(amount) * 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cpu_ms: u64, live_ms: u64) -> Usage {
        Usage {
            rss_bytes: 0,
            peak_rss_bytes: 0,
            cpu: Duration::from_millis(cpu_ms),
            cpu_live_threads: Duration::from_millis(live_ms),
            threads: 1,
            open_files: 0,
        }
    }

    #[test]
    fn threads_that_ended_are_counted() {
        assert_eq!(cpu_between(&at(100, 97), &at(110, 114)), Duration::from_millis(17));
        assert_eq!(cpu_between(&at(100, 97), &at(1_100, 400)), Duration::from_millis(1_000));
        assert_eq!(cpu_between(&at(100, 97), &at(1_100, 50)), Duration::from_millis(1_000));
    }

    #[test]
    fn the_meter_sees_this_process_work() {
        let meter = Meter::start(std::process::id()).unwrap();
        let until = Instant::now() + Duration::from_millis(60);
        let mut x = 1u64;
        while Instant::now() < until {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(7));
        }
        let spent = meter.spent().unwrap();
        assert!(spent.wall >= Duration::from_millis(60) && spent.cpu > Duration::ZERO);
        let own = std::process::id();
        let two = Meters::start(&[own, own]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert!(two.spent().unwrap().wall >= Duration::from_millis(5));
        assert!(spent.rate(60.0) <= 1_000.0 && spent.cpu_us_per(1.0) > 0.0);
    }
}
