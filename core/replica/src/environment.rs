//! What all partitions of a broker share.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use towpath_types::{BrokerId, Rules};

use crate::leader::LeaderSetup;
use crate::{Brokers, Flusher, Partition};

/// A clock that only goes forward: lag and timeouts are measured by it, so that a jump of the wall clock moves nobody out
/// of an ISR.
pub trait MonotonicClock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since some fixed moment.
    fn now_ms(&self) -> i64;
}

/// The system's monotonic clock.
#[derive(Debug)]
pub struct ProcessClock(Instant);

impl Default for ProcessClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl MonotonicClock for ProcessClock {
    fn now_ms(&self) -> i64 {
        i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// Partitions whose leader has something to say to the controller, each at most once.
#[derive(Debug, Default)]
pub struct IsrQueue {
    waiting: Mutex<Vec<Arc<Partition>>>,
    wake: Notify,
}

impl IsrQueue {
    pub(crate) fn push(&self, partition: Arc<Partition>) {
        self.waiting.lock().push(partition);
        self.wake.notify_one();
    }

    /// All that wait; they may come again from here on.
    #[must_use]
    pub fn take(&self) -> Vec<Arc<Partition>> {
        let taken = std::mem::take(&mut *self.waiting.lock());
        taken.iter().for_each(|partition| partition.taken_from_isr_queue());
        taken
    }

    /// Resolves when something waits.
    pub async fn filled(&self) {
        self.wake.notified().await;
    }
}

/// What all partitions of a broker share.
#[derive(Debug)]
pub struct Environment {
    me: BrokerId,
    lag_ms_max: i64,
    rules: Rules,
    clock: Arc<dyn MonotonicClock>,
    brokers: RwLock<Arc<Brokers>>,
    flusher: Arc<Flusher>,
    isr_queue: IsrQueue,
}

impl Environment {
    /// That of broker `me`; `lag_ms_max` is `replica.lag.time.max.ms`.
    #[must_use]
    pub fn new(me: BrokerId, lag_ms_max: i64, flusher: Arc<Flusher>) -> Self {
        Self {
            me,
            lag_ms_max,
            rules: Rules::ALL,
            clock: Arc::new(ProcessClock::default()),
            brokers: RwLock::default(),
            flusher,
            isr_queue: IsrQueue::default(),
        }
    }

    /// For simulations: with another clock, and without some rule.
    #[must_use]
    pub fn simulated(mut self, clock: Arc<dyn MonotonicClock>, rules: Rules) -> Self {
        self.clock = clock;
        self.rules = rules;
        self
    }

    /// This broker.
    #[must_use]
    pub const fn me(&self) -> BrokerId {
        self.me
    }

    /// Partitions whose leader has something to say to the controller.
    #[must_use]
    pub const fn isr_queue(&self) -> &IsrQueue {
        &self.isr_queue
    }

    /// Takes the brokers as the metadata have them now.
    pub fn set_brokers(&self, brokers: Brokers) {
        *self.brokers.write() = Arc::new(brokers);
    }

    pub(crate) fn brokers(&self) -> Arc<Brokers> {
        Arc::clone(&self.brokers.read())
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) const fn flusher(&self) -> &Arc<Flusher> {
        &self.flusher
    }

    pub(crate) const fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) const fn setup(&self) -> LeaderSetup {
        LeaderSetup { me: self.me, lag_ms_max: self.lag_ms_max, rules: self.rules }
    }
}
