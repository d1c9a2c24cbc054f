//! Those who wait for records, and how they are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use towpath_types::Offset;

use super::Partition;
use crate::FetchWaiter;

/// What somebody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// Any records: a follower.
    Appended,
    /// Records below the high watermark.
    Committed,
    /// Records below the last stable offset (`read_committed`).
    Stable,
}

/// Tells each that so many bytes have come.
fn tell(waiters: &Mutex<Vec<Arc<FetchWaiter>>>, bytes: u64) {
    for waiter in &*waiters.lock() {
        if bytes == 0 {
            // What was there when the partition was opened: nobody has counted it.
            waiter.wake();
        } else {
            waiter.committed(bytes);
        }
    }
}

impl Partition {
    /// Makes a moved high watermark visible and wakes those who wait for it. The caller holds the role's lock.
    pub(super) fn publish(&self, moved: Option<Offset>) {
        let Some(moved) = moved else { return };
        self.high_watermark.store(moved.get(), Ordering::Release);
        self.log.high_watermark_moved(moved);
        self.moved.notify_waiters();
        self.tell_waiters();
        // A follower hears of it with its next answer; one that fetches without knowing it is answered at once.
    }

    /// Tells those who wait for records what is committed now. The caller holds the role's lock.
    pub(super) fn tell_waiters(&self) {
        let high_watermark = self.high_watermark();
        let bytes = self.uncommitted.lock().take_below(high_watermark);
        tell(&self.waiters, bytes);
        let stable = self.log.last_stable_offset(high_watermark);
        let is_behind = stable < high_watermark;
        let was_behind = self.told_behind.swap(is_behind, Ordering::Relaxed);
        let has_moved = self.told_stable.swap(stable.get(), Ordering::Relaxed) != stable.get();
        if !is_behind && !was_behind {
            // Without transactions both are the same.
            tell(&self.waiters_stable, bytes);
        } else if has_moved {
            // By how many bytes nobody has counted.
            tell(&self.waiters_stable, 0);
        }
    }

    /// Tells followers that so many bytes were appended.
    pub(super) fn tell_followers(&self, bytes: u64) {
        for waiter in &*self.followers_waiting.lock() {
            waiter.committed(bytes);
        }
    }

    /// Everybody looks again.
    pub(super) fn wake_all(&self) {
        self.moved.notify_waiters();
        for awaited in [Awaited::Committed, Awaited::Stable, Awaited::Appended] {
            self.list(awaited).lock().iter().for_each(|waiter| waiter.wake());
        }
    }

    const fn list(&self, awaited: Awaited) -> &Mutex<Vec<Arc<FetchWaiter>>> {
        match awaited {
            Awaited::Appended => &self.followers_waiting,
            Awaited::Committed => &self.waiters,
            Awaited::Stable => &self.waiters_stable,
        }
    }

    /// Adds a fetch to those that wait for records here.
    pub fn wait_for_records(&self, waiter: &Arc<FetchWaiter>, awaited: Awaited) {
        self.list(awaited).lock().push(Arc::clone(waiter));
    }

    /// Takes a fetch out again.
    pub fn stop_waiting(&self, waiter: &Arc<FetchWaiter>, awaited: Awaited) {
        let mut waiters = self.list(awaited).lock();
        if let Some(index) = waiters.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            waiters.swap_remove(index);
        }
        if waiters.is_empty() && waiters.capacity() > 64 {
            waiters.shrink_to(0);
        }
    }
}
