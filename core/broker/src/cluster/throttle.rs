//! Bounds what reassignments fetch, so that moving partitions does not crowd out clients
//! (`follower.replication.throttled.rate`, KIP-73).

use std::time::Instant;

use parking_lot::Mutex;

/// How much may be saved up: bursts of a second.
const BURST_SECONDS: f64 = 1.0;

/// Bytes a second. What is fetched is counted after it has come, so the balance may be negative; nothing more is asked for
/// until it is not.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Throttle {
    /// No bound for the largest number.
    pub(crate) fn new(bytes_per_second: u64) -> Option<Self> {
        let rate = bytes_per_second as f64;
        let state = Mutex::new((rate * BURST_SECONDS, Instant::now()));
        (bytes_per_second != u64::MAX).then_some(Self { bytes_per_second: rate, state })
    }

    /// Whether something may be asked for at `now`.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let passed = now.saturating_duration_since(state.1).as_secs_f64();
        let most = self.bytes_per_second * BURST_SECONDS;
        *state = ((state.0 + passed * self.bytes_per_second).min(most), now);
        state.0 > 0.0
    }

    /// So many bytes came.
    pub(crate) fn take(&self, bytes: u64) {
        self.state.lock().0 -= bytes as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_came_too_fast_is_waited_for() {
        assert!(Throttle::new(u64::MAX).is_none());
        let throttle = Throttle::new(1000).unwrap();
        let begin = Instant::now();
        assert!(throttle.is_open(begin));
        throttle.take(4000);
        for seconds in 1..=2 {
            assert!(!throttle.is_open(begin + Duration::from_secs(seconds)), "{seconds} s");
        }
        assert!(throttle.is_open(begin + Duration::from_secs(4)));
        // Idle time is not saved up for ever.
        assert!(throttle.is_open(begin + Duration::from_secs(1000)));
        throttle.take(1500);
        assert!(!throttle.is_open(begin + Duration::from_secs(1000)));
    }
}
