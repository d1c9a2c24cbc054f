//! Those who wait for records, and how they are told.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use towpath_types::Offset;

use super::Partition;
use crate::FetchWaiter;

impl Partition {
    /// Makes a moved high watermark visible and wakes those who wait for it. The caller holds the role's lock.
    pub(super) fn publish(&self, moved: Option<Offset>) {
        let Some(moved) = moved else { return };
        self.high_watermark.store(moved.get(), Ordering::Release);
        self.moved.notify_waiters();
        self.tell_waiters();
        // A follower hears of it with its next answer; one that fetches without knowing it is answered at once.
    }

    /// Tells those who wait for records what is committed now. The caller holds the role's lock.
    pub(super) fn tell_waiters(&self) {
        let bytes = self.uncommitted.lock().take_below(self.high_watermark());
        for waiter in &*self.waiters.lock() {
            if bytes == 0 {
                // What was there when the partition was opened: nobody has counted it.
                waiter.wake();
            } else {
                waiter.committed(bytes);
            }
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
        for waiter in self.waiters.lock().iter().chain(&*self.followers_waiting.lock()) {
            waiter.wake();
        }
    }

    fn list(&self, follower: bool) -> &Mutex<Vec<Arc<FetchWaiter>>> {
        if follower { &self.followers_waiting } else { &self.waiters }
    }

    /// Adds a fetch to those that wait for records here: a follower's for any, others for committed ones.
    pub fn wait_for_records(&self, waiter: &Arc<FetchWaiter>, follower: bool) {
        self.list(follower).lock().push(Arc::clone(waiter));
    }

    /// Takes a fetch out again.
    pub fn stop_waiting(&self, waiter: &Arc<FetchWaiter>, follower: bool) {
        let mut waiters = self.list(follower).lock();
        if let Some(index) = waiters.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            waiters.swap_remove(index);
        }
        if waiters.is_empty() && waiters.capacity() > 64 {
            waiters.shrink_to(0);
        }
    }
}
