//! Those who wait for records, and how they are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

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

/// Consumers that wait for records.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    committed: Vec<Arc<FetchWaiter>>,
    stable: Vec<Arc<FetchWaiter>>,
}

/// Tells each that so many bytes have come.
fn tell(waiters: &[Arc<FetchWaiter>], bytes: u64) {
    for waiter in waiters {
        if bytes == 0 {
            // What was there when the partition was opened: nobody has counted it.
            waiter.wake();
        } else {
            waiter.committed(bytes);
        }
    }
}

fn take_out(waiters: &mut Vec<Arc<FetchWaiter>>, waiter: &Arc<FetchWaiter>) {
    if let Some(index) = waiters.iter().position(|other| Arc::ptr_eq(other, waiter)) {
        waiters.swap_remove(index);
    }
    if waiters.is_empty() && waiters.capacity() > 64 {
        waiters.shrink_to(0);
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
        let waiters = self.waiters.lock();
        tell(&waiters.committed, bytes);
        let before = self.told_stable.load(Ordering::Relaxed);
        let now = self.stable_to_tell();
        self.told_stable.store(now, Ordering::Relaxed);
        match (before, now) {
            // Without transactions both are the same.
            (i64::MAX, i64::MAX) => tell(&waiters.stable, bytes),
            // By how many bytes it has moved nobody has counted.
            _ if before != now => tell(&waiters.stable, 0),
            _ => {}
        }
    }

    /// The last stable offset; the largest number where it is the high watermark.
    pub(super) fn stable_to_tell(&self) -> i64 {
        let high_watermark = self.high_watermark();
        let stable = self.log.last_stable_offset(high_watermark);
        if stable < high_watermark { stable.get() } else { i64::MAX }
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
        let waiters = self.waiters.lock();
        let consumers = waiters.committed.iter().chain(&waiters.stable);
        for waiter in consumers.chain(&*self.followers_waiting.lock()) {
            waiter.wake();
        }
    }

    /// Adds a fetch to those that wait for records here.
    pub fn wait_for_records(&self, waiter: &Arc<FetchWaiter>, awaited: Awaited) {
        let waiter = Arc::clone(waiter);
        match awaited {
            Awaited::Appended => self.followers_waiting.lock().push(waiter),
            Awaited::Committed => self.waiters.lock().committed.push(waiter),
            Awaited::Stable => self.waiters.lock().stable.push(waiter),
        }
    }

    /// Takes a fetch out again.
    pub fn stop_waiting(&self, waiter: &Arc<FetchWaiter>, awaited: Awaited) {
        match awaited {
            Awaited::Appended => take_out(&mut self.followers_waiting.lock(), waiter),
            Awaited::Committed => take_out(&mut self.waiters.lock().committed, waiter),
            Awaited::Stable => take_out(&mut self.waiters.lock().stable, waiter),
        }
    }
}
