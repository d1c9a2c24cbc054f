//! Watching rows arrive: from the first ones seen to the last.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::meter::{Meter, Spent};

const PAUSE: Duration = Duration::from_millis(4);
const TIMEOUT: Duration = Duration::from_secs(600);

/// What arrived between the first look that saw something and the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    rows: f64,
    spent: Spent,
}

/// Waits until `count` says that `rows` more than `before` have arrived, and measures process `pid` from the first look
/// that saw some: how long a worker takes to start is not what is compared here.
pub(crate) fn arrival(
    pid: u32,
    before: u64,
    rows: u64,
    mut count: impl FnMut() -> Result<u64>,
) -> Result<Arrival> {
    let deadline = Instant::now() + TIMEOUT;
    let mut next = |least: u64| loop {
        let there = count()?;
        if there >= least {
            return Ok(there);
        }
        if Instant::now() >= deadline {
            bail!("{} of {rows} rows arrived within {TIMEOUT:?}", there.saturating_sub(before));
        }
        std::thread::sleep(PAUSE);
    };
    let first = next(before + 1)?;
    let meter = Meter::start(pid)?;
    if first >= before + rows {
        bail!("all {rows} rows were there at the first look: too few to measure");
    }
    next(before + rows)?;
    let spent = meter.spent()?;
    Ok(Arrival { rows: (before + rows - first) as f64, spent })
}

impl Arrival {
    /// Thousand rows per second, and CPU microseconds per row.
    pub(crate) fn figures(&self) -> Vec<f64> {
        vec![self.spent.rate(self.rows / 1e3), self.spent.cpu_us_per(self.rows)]
    }

    /// How long it took.
    pub(crate) fn wall(&self) -> Duration {
        self.spent.wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_the_first_look_that_saw_something() {
        let mut looks = [10, 10, 15, 60, 110].into_iter();
        let seen = arrival(std::process::id(), 10, 100, || Ok(looks.next().unwrap())).unwrap();
        assert!((seen.rows - 95.0).abs() < f64::EPSILON && seen.wall() >= PAUSE);
        assert!(arrival(std::process::id(), 10, 100, || Ok(110)).is_err(), "no time to measure");
        assert!(arrival(std::process::id(), 10, 100, || bail!("died")).is_err());
    }
}
