//! Exponential backoff with jitter.

use std::time::Duration;

use rand::Rng;

/// Grows from a first to a largest delay; each delay is drawn from ±20 % around its nominal length.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first_ms: u64,
    max_ms: u64,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first_ms: u64, max_ms: u64) -> Self {
        Self { first_ms, max_ms: max_ms.max(first_ms), failures: 0 }
    }

    /// The delay after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let nominal = self.first_ms.saturating_mul(1 << self.failures.min(20)).min(self.max_ms);
        self.failures = self.failures.saturating_add(1);
        Duration::from_micros(nominal.saturating_mul(rand::rng().random_range(800..=1200)))
    }

    /// Begins again after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(100, 1_000);
        for nominal in [100, 200, 400, 800, 1_000, 1_000] {
            let delay = backoff.next().as_millis();
            assert!((nominal * 8 / 10..=nominal * 12 / 10).contains(&delay), "{delay} for {nominal}");
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(120));
    }
}
