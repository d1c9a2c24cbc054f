//! Killing towpath at random moments, and delivering what is left.

use std::time::Duration;

use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use towpath_harness::Towpath;

/// Random kills from a seed that a failure shows.
#[derive(Debug)]
pub struct Fire {
    random: StdRng,
    /// The seed: `TOWPATH_SEED` repeats a run's moments.
    pub seed: u64,
}

impl Fire {
    /// A seed from the environment, or a fresh one; either is printed.
    ///
    /// # Errors
    /// When the seed in the environment is no number.
    pub fn new() -> Result<Self> {
        let seed = match std::env::var("TOWPATH_SEED") {
            Ok(text) => text.parse()?,
            Err(_) => rand::random(),
        };
        Ok(Self { random: StdRng::seed_from_u64(seed), seed })
    }

    /// Lets it run for a while, and kills it with -9.
    ///
    /// # Errors
    /// If it ended by itself before that, or cannot be started again.
    pub fn strike(&mut self, towpath: &mut Towpath, wait: std::ops::Range<Duration>) -> Result<()> {
        let wait = self.random.random_range(wait.start.as_millis() as u64..wait.end.as_millis() as u64);
        std::thread::sleep(Duration::from_millis(wait));
        if !towpath.is_running()? {
            bail!("towpath ended by itself (seed {})\n{}", self.seed, towpath.log_tail());
        }
        towpath.kill9()?;
        towpath.start_again()
    }
}

/// Ends the running towpath with -9 once more, and delivers everything with `--until-idle`.
///
/// # Errors
/// If it does not end with 0 in time.
pub fn deliver(towpath: &mut Towpath, timeout: Duration) -> Result<()> {
    if towpath.is_running()? {
        towpath.kill9()?;
    }
    towpath.set_arguments(&["--until-idle"]);
    towpath.spawn()?;
    let status = towpath.wait(timeout)?;
    if !status.success() {
        bail!("towpath up --until-idle ended with {status}\n{}", towpath.log_tail());
    }
    Ok(())
}
