//! One budget of memory for the requests and answers of all connections (R10).
//!
//! Memory is counted when it is there, not when it is announced: a connection's buffer grows with the bytes that
//! arrive. When the budget is used up, reading waits; the connections that hold part of a request, or answers that
//! nobody reads, and have made no progress for the longest time are then closed, so that those that do make progress
//! are served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

/// How long a connection may stand still before it may be closed for its memory.
const STALL_MS_MIN: u64 = 250;
/// How long one is spared that stands still because it waits for memory, or for its client to read.
const BLOCKED_MS_MIN: u64 = 2_000;
/// Bytes that no connection is closed for while it has requests in work.
const SMALL_BYTES: usize = 16 * 1024;
/// How long a reader waits for memory before it looks again.
pub(crate) const RETRY: Duration = Duration::from_millis(50);

/// The budget.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
    /// Bytes of connections that were told to close and have not given them back yet.
    closing: AtomicI64,
    started: Instant,
    freed: Notify,
    connections: Mutex<Slab<Arc<Account>>>,
}

/// What a connection does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Activity {
    /// It waits for requests, or for the rest of one.
    Reading,
    /// It has requests in work. It is not closed for their memory: it gives it back by itself.
    Working,
    /// It waits for memory.
    Blocked,
    /// It writes answers.
    Writing,
}

impl Activity {
    const fn of(number: u8) -> Self {
        match number {
            1 => Self::Working,
            2 => Self::Blocked,
            3 => Self::Writing,
            _ => Self::Reading,
        }
    }
}

/// One connection's part of it.
#[derive(Debug)]
pub(crate) struct Account {
    held: AtomicUsize,
    /// Bytes of `held` that are the beginning of a request.
    partial: AtomicUsize,
    /// Milliseconds since the budget was made.
    progress_ms: AtomicU64,
    /// An [`Activity`].
    activity: AtomicU8,
    closing: AtomicBool,
    /// What it held when it was told to close: its part of [`MemoryBudget::closing`]. Both change with the list of
    /// connections locked.
    closing_bytes: AtomicUsize,
    close: Notify,
}

/// A connection's account; dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Arc<MemoryBudget>,
    account: Arc<Account>,
    key: usize,
}

impl MemoryBudget {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicUsize::new(0),
            closing: AtomicI64::new(0),
            started: Instant::now(),
            freed: Notify::new(),
            connections: Mutex::new(Slab::new()),
        })
    }

    /// Bytes held by all connections.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        self.used() >= self.limit
    }

    /// Whether most of it is free.
    pub(crate) fn is_ample(&self) -> bool {
        self.used() < self.limit / 4
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// An account for a new connection.
    pub(crate) fn lease(self: &Arc<Self>) -> Lease {
        let account = Arc::new(Account {
            held: AtomicUsize::new(0),
            partial: AtomicUsize::new(0),
            progress_ms: AtomicU64::new(self.now_ms()),
            activity: AtomicU8::new(Activity::Reading as u8),
            closing: AtomicBool::new(false),
            closing_bytes: AtomicUsize::new(0),
            close: Notify::new(),
        });
        let key = self.connections.lock().insert(Arc::clone(&account));
        Lease { budget: Arc::clone(self), account, key }
    }

    /// Waits until memory was given back, or it is time to look again.
    pub(crate) async fn wait(&self) {
        let freed = self.freed.notified();
        if self.is_exhausted() {
            // The time running out is an answer as good as memory: the caller looks again.
            let _ = tokio::time::timeout(RETRY, freed).await;
        }
    }

    /// Closes the connections that have stood still for the longest time, as many as it takes.
    pub(crate) fn reclaim(&self) -> usize {
        let closing = usize::try_from(self.closing.load(Ordering::Relaxed)).unwrap_or(0);
        let Some(mut excess) = (self.used() + 1).checked_sub(self.limit.saturating_add(closing)) else {
            return 0;
        };
        if excess == 0 {
            return 0;
        }
        let now = self.now_ms();
        let connections = self.connections.lock();
        let mut candidates: Vec<(bool, u64, &Arc<Account>)> = Vec::new();
        for (_, account) in connections.iter() {
            let still = now.saturating_sub(account.progress_ms.load(Ordering::Relaxed));
            let (waits, spared) = match Activity::of(account.activity.load(Ordering::Relaxed)) {
                // A request that waits for long must not shield half of another one.
                Activity::Working if account.partial.load(Ordering::Relaxed) > SMALL_BYTES => {
                    (true, BLOCKED_MS_MIN)
                }
                Activity::Working => continue,
                Activity::Reading => (false, STALL_MS_MIN),
                Activity::Blocked | Activity::Writing => (true, BLOCKED_MS_MIN),
            };
            let holds = account.held.load(Ordering::Relaxed) > 0;
            if still >= spared && holds && !account.closing.load(Ordering::Relaxed) {
                candidates.push((waits, u64::MAX - still, account));
            }
        }
        candidates.sort_unstable_by_key(|(waits, order, _)| (*waits, *order));
        let mut closed = 0;
        for (_, _, account) in candidates {
            if excess == 0 {
                break;
            }
            let held = account.held.load(Ordering::Relaxed);
            if !account.closing.swap(true, Ordering::Relaxed) {
                account.closing_bytes.store(held, Ordering::Relaxed);
                self.closing.fetch_add(held as i64, Ordering::Relaxed);
                account.close.notify_one();
                excess = excess.saturating_sub(held);
                closed += 1;
            }
        }
        closed
    }

    /// Tells every connection to close.
    pub(crate) fn close_all(&self) {
        for (_, account) in self.connections.lock().iter() {
            account.close.notify_one();
        }
    }

    /// Closes the connections that have been idle for `idle`; how many there were.
    pub(crate) fn close_idle(&self, idle: Duration) -> usize {
        let limit = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let now = self.now_ms();
        let mut closed = 0;
        for (_, account) in self.connections.lock().iter() {
            let still = now.saturating_sub(account.progress_ms.load(Ordering::Relaxed));
            // Whoever does not read its answers is ended by the writer, and sooner.
            let is_idle = Activity::of(account.activity.load(Ordering::Relaxed)) == Activity::Reading;
            if still >= limit && is_idle {
                account.close.notify_one();
                closed += 1;
            }
        }
        closed
    }
}

impl Lease {
    /// Sets what the connection holds now.
    pub(crate) fn set(&self, bytes: usize) {
        let before = self.account.held.swap(bytes, Ordering::Relaxed);
        if bytes > before {
            self.budget.used.fetch_add(bytes - before, Ordering::Relaxed);
        } else if bytes < before {
            let used = self.budget.used.fetch_sub(before - bytes, Ordering::Relaxed);
            if used >= self.budget.limit {
                self.budget.freed.notify_waiters();
            }
        }
    }

    /// Sets how much of what the connection holds is the beginning of a request.
    pub(crate) fn set_partial(&self, bytes: usize) {
        self.account.partial.store(bytes, Ordering::Relaxed);
    }

    /// The connection read or wrote something.
    pub(crate) fn progress(&self) {
        self.account.progress_ms.store(self.budget.now_ms(), Ordering::Relaxed);
    }

    /// What the connection does from here on.
    pub(crate) fn set_activity(&self, activity: Activity) {
        self.account.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// Resolves when the connection has to go.
    pub(crate) async fn closed(&self) {
        self.account.close.notified().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.set(0);
        let mut connections = self.budget.connections.lock();
        connections.try_remove(self.key);
        let closing = self.account.closing_bytes.load(Ordering::Relaxed);
        self.budget.closing.fetch_sub(closing as i64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_still(lease: &Lease, ms: u64) {
        // The budget's clock starts at zero: going back in time is done by making the past shorter.
        let now = lease.budget.now_ms();
        lease.account.progress_ms.store(now.saturating_sub(ms), Ordering::Relaxed);
    }

    fn old_budget(limit: usize) -> Arc<MemoryBudget> {
        let mut budget = MemoryBudget::new(limit);
        if let Some(budget) = Arc::get_mut(&mut budget)
            && let Some(past) = budget.started.checked_sub(Duration::from_secs(60))
        {
            budget.started = past;
        }
        budget
    }

    fn is_closing(lease: &Lease) -> bool {
        lease.account.closing.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = MemoryBudget::new(100);
        let lease = budget.lease();
        lease.set(70);
        lease.set(40);
        let other = budget.lease();
        other.set(60);
        assert!(budget.is_exhausted());
        drop(other);
        assert_eq!(budget.used(), 40);
        assert!(!budget.is_exhausted());
        drop(lease);
        assert_eq!(budget.used(), 0);
        assert!(budget.connections.lock().is_empty());
    }

    #[test]
    fn those_that_stand_still_the_longest_are_closed_and_no_more_than_needed() {
        let budget = old_budget(100);
        let leases: Vec<Lease> = (0..4).map(|_| budget.lease()).collect();
        for (lease, still) in leases.iter().zip([1_000, 3_000, 2_000, 10]) {
            lease.set(30);
            stand_still(lease, still);
        }
        assert_eq!(budget.reclaim(), 1, "120 of 100 are held: one connection is enough");
        assert!(is_closing(&leases[1]));
        assert_eq!(budget.reclaim(), 0, "what is on its way back is counted");
        leases[3].set(70);
        assert_eq!(budget.reclaim(), 2);
        assert!(is_closing(&leases[0]) && is_closing(&leases[2]));
        assert!(!is_closing(&leases[3]), "one that made progress lives");
        drop(leases);
        assert_eq!((budget.used(), budget.closing.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_changes_after_the_order_to_close_leaves_no_trace() {
        let budget = old_budget(100);
        for later in [0, 10, 90] {
            let lease = budget.lease();
            lease.set(101);
            stand_still(&lease, 1_000);
            assert_eq!(budget.reclaim(), 1);
            lease.set(later);
            drop(lease);
            assert_eq!((budget.used(), budget.closing.load(Ordering::Relaxed)), (0, 0), "{later}");
        }
    }

    #[test]
    fn work_and_empty_hands_are_spared_and_the_blocked_come_last() {
        let budget = old_budget(100);
        let (busy, empty, blocked, stalled) =
            (budget.lease(), budget.lease(), budget.lease(), budget.lease());
        for lease in [&busy, &blocked, &stalled] {
            lease.set(50);
        }
        for lease in [&busy, &empty, &blocked, &stalled] {
            stand_still(lease, 20_000);
        }
        stand_still(&stalled, 300);
        busy.set_activity(Activity::Working);
        blocked.set_activity(Activity::Blocked);
        assert_eq!(budget.reclaim(), 2);
        assert!(is_closing(&stalled) && is_closing(&blocked));
        assert!(!is_closing(&busy) && !is_closing(&empty));
    }

    #[test]
    fn a_request_that_waits_does_not_shield_half_of_another() {
        let budget = old_budget(100_000);
        let (waiting, shielded, quick) = (budget.lease(), budget.lease(), budget.lease());
        for (lease, partial, still) in
            [(&waiting, 0, 60_000), (&shielded, 50_000, 3_000), (&quick, 50_000, 500)]
        {
            lease.set(60_000);
            lease.set_partial(partial);
            lease.set_activity(Activity::Working);
            stand_still(lease, still);
        }
        assert_eq!(budget.reclaim(), 1);
        assert!(is_closing(&shielded) && !is_closing(&waiting) && !is_closing(&quick));
    }

    #[test]
    fn answers_that_nobody_reads_make_room_but_not_at_once() {
        let budget = old_budget(100);
        let (slow, stuck) = (budget.lease(), budget.lease());
        for (lease, still) in [(&slow, 1_000), (&stuck, 3_000)] {
            lease.set(60);
            lease.set_activity(Activity::Writing);
            stand_still(lease, still);
        }
        assert_eq!(budget.reclaim(), 1);
        assert!(is_closing(&stuck) && !is_closing(&slow), "a slow reader is given two seconds");
        assert_eq!(budget.close_idle(Duration::ZERO), 0, "writing is not idling");
    }
}
