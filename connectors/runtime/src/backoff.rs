//! When a failed task is tried again.

use std::time::Duration;

use rand::Rng as _;
use towpath_api::RetrySpec;

/// Doubling waits with jitter.
#[derive(Debug)]
pub(crate) struct Backoff {
    spec: RetrySpec,
    failures: u32,
}

impl Backoff {
    pub(crate) const fn new(spec: RetrySpec) -> Self {
        Self { spec, failures: 0 }
    }

    /// There was progress: the next failure is the first again.
    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure: between half and all of the doubled span, and at least what the error asks.
    pub(crate) fn next(&mut self, at_least: Duration) -> Duration {
        let span = self.spec.delay_min.saturating_mul(1 << self.failures.min(20)).min(self.spec.delay_max);
        self.failures = self.failures.saturating_add(1);
        span.mul_f64(rand::rng().random_range(0.5..=1.0)).max(at_least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_progress() {
        let spec = RetrySpec::default();
        let mut backoff = Backoff::new(spec);
        let mut before = Duration::ZERO;
        for _ in 0..4 {
            let wait = backoff.next(Duration::ZERO);
            assert!(wait * 2 >= before && wait <= spec.delay_max);
            before = wait;
        }
        for _ in 0..100 {
            let _ = backoff.next(Duration::ZERO);
        }
        assert!(backoff.next(Duration::ZERO) >= spec.delay_max / 2);
        backoff.reset();
        assert!(backoff.next(Duration::ZERO) <= spec.delay_min);
        assert_eq!(backoff.next(Duration::from_secs(99)), Duration::from_secs(99));
    }
}
