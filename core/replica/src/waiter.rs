//! Those who wait for records.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

/// One fetch that waits on several partitions: woken when enough bytes were committed on all of them together, or
/// when one of them changes in another way.
#[derive(Debug)]
pub struct FetchWaiter {
    missing: AtomicI64,
    notify: Notify,
}

impl FetchWaiter {
    /// A waiter for `bytes` more bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Self> {
        let missing = AtomicI64::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        Arc::new(Self { missing, notify: Notify::new() })
    }

    /// Waits for `bytes` more bytes from now on.
    pub fn rearm(&self, bytes: usize) {
        self.missing.store(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Release);
    }

    /// `bytes` were committed.
    pub(crate) fn committed(&self, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX).max(1);
        if self.missing.fetch_sub(bytes, Ordering::AcqRel) <= bytes {
            self.notify.notify_one();
        }
    }

    /// Something else changed: look again.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Resolves when it is time to look. A wake-up that came before is not lost.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn wakes_when_enough_bytes_are_there_and_loses_no_wake_up() {
        let waiter = FetchWaiter::new(100);
        waiter.committed(60);
        assert!(tokio::time::timeout(Duration::from_millis(5), waiter.woken()).await.is_err());
        waiter.committed(40);
        waiter.woken().await;
        waiter.wake();
        waiter.woken().await;
    }
}
