//! How fast a link may fetch: a bucket that fills with its bandwidth.

use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// What one fetch asks for at least: brokers answer with a whole batch whatever is asked.
const AT_A_TIME_MIN: usize = 64 << 10;

/// See the module. What was fetched counts when it is there, so that the next fetch waits for what the last one took
/// too much.
#[derive(Debug)]
pub(crate) struct Pacer {
    /// Bytes a second; nothing without a limit.
    rate: Option<u64>,
    /// When everything that was fetched is paid for.
    paid_at: Mutex<Instant>,
}

impl Pacer {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), paid_at: Mutex::new(Instant::now()) }
    }

    /// Until when nothing may be fetched.
    pub(crate) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.rate?;
        Some(*self.paid_at.lock()).filter(|at| *at > now)
    }

    /// How much one fetch may ask for, of `most`: a quarter of a second's.
    pub(crate) fn at_a_time(&self, most: usize) -> usize {
        let share = |rate: u64| usize::try_from(rate / 4).unwrap_or(usize::MAX).max(AT_A_TIME_MIN);
        self.rate.map_or(most, |rate| share(rate).min(most))
    }

    pub(crate) fn spend(&self, bytes: usize, now: Instant) {
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        let mut paid_at = self.paid_at.lock();
        *paid_at = (*paid_at).max(now) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fetched_is_paid_for() {
        let pacer = Pacer::new(Some(1_000_000));
        let begun = Instant::now();
        let (mut now, mut fetched) = (begun, 0);
        while now - begun < Duration::from_secs(10) {
            match pacer.not_before(now) {
                Some(at) => now = at,
                None => {
                    let bytes = pacer.at_a_time(1 << 20);
                    pacer.spend(bytes, now);
                    fetched += bytes;
                }
            }
        }
        assert!((9_900_000..10_500_000).contains(&fetched), "{fetched}");
    }

    #[test]
    fn without_a_limit_there_is_none() {
        let (pacer, now) = (Pacer::new(None), Instant::now());
        pacer.spend(usize::MAX, now);
        assert_eq!((pacer.not_before(now), pacer.at_a_time(7)), (None, 7));
        assert!(Pacer::new(Some(0)).at_a_time(usize::MAX) == AT_A_TIME_MIN);
    }
}
