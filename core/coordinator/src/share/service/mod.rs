//! The driver: which partition a share partition's state belongs to, and the shapes of requests and answers.

mod partition;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use towpath_types::TopicId;
use towpath_wire::ErrorCode;

use self::partition::Partition;
pub use self::partition::SharePartitionStatus;
use super::machine::{
    ShareCommand, ShareReply, ShareStateConfig, ShareStateMachine, ShareWrite, SharedState,
};
use super::state::{ShareKey, StateSummary};
use crate::hash::partition_for;
use crate::log::{CoordinatorLog, CoordinatorLogError};
use crate::machine::Waiter;
use crate::service::{Clock, SystemClock};

struct Inner {
    config: ShareStateConfig,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
    partitions: Mutex<HashMap<i32, Arc<Partition>>>,
    is_stopped: AtomicBool,
}

/// The share coordinator of a broker. Cheap to clone. A partition of the state topic is loaded when its broker begins to
/// lead it, or when it is first asked for.
#[derive(Clone)]
pub struct ShareCoordinator {
    inner: Arc<Inner>,
}

impl fmt::Debug for ShareCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.inner.partitions.lock().len();
        f.debug_struct("ShareCoordinator").field("partitions", &loaded).finish_non_exhaustive()
    }
}

impl ShareCoordinator {
    /// A coordinator over `log`, by the system's clock.
    #[must_use]
    pub fn new(config: ShareStateConfig, log: Arc<dyn CoordinatorLog>) -> Self {
        Self::with_clock(config, log, Arc::new(SystemClock))
    }

    /// A coordinator by a clock of its own.
    #[must_use]
    pub fn with_clock(config: ShareStateConfig, log: Arc<dyn CoordinatorLog>, clock: Arc<dyn Clock>) -> Self {
        let partitions = Mutex::new(HashMap::new());
        Self { inner: Arc::new(Inner { config, log, clock, partitions, is_stopped: AtomicBool::new(false) }) }
    }

    /// This broker leads `partition` from now on: loads it. Does nothing when it does not, or does already.
    pub fn elected(&self, partition: i32) {
        // Whoever asks for a state of it is told the same.
        let _not_led = self.partition(partition);
    }

    /// This broker does not lead `partition` any more: whoever waits is told to look for the new coordinator.
    pub fn resigned(&self, partition: i32) {
        if let Some(partition) = self.inner.partitions.lock().remove(&partition) {
            partition.close();
        }
    }

    /// Stops: what is on its way to the log is written, everybody else who waits is answered.
    pub async fn shutdown(&self) {
        self.inner.is_stopped.store(true, Ordering::Release);
        let partitions: Vec<_> =
            self.inner.partitions.lock().drain().map(|(_, partition)| partition).collect();
        partitions.iter().for_each(|partition| partition.close());
        for partition in partitions {
            partition.finished().await;
        }
    }

    /// How each partition is doing, in order.
    #[must_use]
    pub fn status(&self) -> Vec<SharePartitionStatus> {
        let partitions: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        let mut statuses: Vec<_> = partitions.iter().map(|partition| partition.status()).collect();
        statuses.sort_by_key(|status| status.partition);
        statuses
    }

    /// The partition of the state topic that holds a share partition, by its name (`group:topic id:partition`); `None`
    /// while there is no such topic.
    #[must_use]
    pub fn partition_of(&self, key: &str) -> Option<i32> {
        Some(partition_for(key, self.inner.log.partition_count()?))
    }

    /// Makes sure that the state topic is there or on its way.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        if self.inner.log.partition_count().is_some() {
            return Ok(());
        }
        self.inner.log.ensure_topic().await
    }

    fn partition(&self, id: i32) -> Result<Arc<Partition>, ErrorCode> {
        if self.inner.is_stopped.load(Ordering::Acquire) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let mut partitions = self.inner.partitions.lock();
        // With the lock held: of two that ask, none goes by an older term than the other.
        let Some(term) = self.inner.log.term(id) else {
            if let Some(partition) = partitions.remove(&id) {
                partition.close();
            }
            return Err(ErrorCode::NotCoordinator);
        };
        if let Some(partition) = partitions.get(&id) {
            if partition.term() == term {
                return Ok(Arc::clone(partition));
            }
            partition.close();
        }
        let inner = &self.inner;
        let partition = Partition::new(id, term, inner.config.clone(), &inner.log, &inner.clock);
        partitions.insert(id, Arc::clone(&partition));
        tokio::spawn(Arc::clone(&partition).run());
        Ok(partition)
    }

    fn find(&self, key: &ShareKey) -> Result<Arc<Partition>, ErrorCode> {
        let id = self.partition_of(&key.to_string()).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        self.partition(id)
    }

    async fn ask(
        &self,
        key: &ShareKey,
        act: impl FnOnce(&mut ShareStateMachine, i64, Waiter, &mut Vec<ShareCommand>),
    ) -> ShareReply {
        let later = self.find(key)?.ask(act)?;
        later.await.unwrap_or(Err(ErrorCode::NotCoordinator))
    }

    /// Begins a share partition, or begins it anew under a newer state epoch; waits until that is committed.
    ///
    /// # Errors
    /// What the caller is told: `FENCED_STATE_EPOCH`, or that it is not coordinated here.
    pub async fn initialize(
        &self,
        key: ShareKey,
        state_epoch: i32,
        start_offset: i64,
    ) -> Result<(), ErrorCode> {
        let begin = (state_epoch, start_offset);
        let name = key.clone();
        self.ask(&name, |machine, now_ms, waiter, out| machine.initialize(now_ms, waiter, key, begin, out))
            .await
            .map(|_| ())
    }

    /// Reads a state; leaders of older epochs write nothing from then on. The state epoch is -1 where there is none.
    ///
    /// # Errors
    /// What the caller is told: `FENCED_LEADER_EPOCH`, or that it is not coordinated here.
    pub async fn read(&self, key: ShareKey, leader_epoch: i32) -> Result<SharedState, ErrorCode> {
        let name = key.clone();
        self.ask(&name, |machine, now_ms, waiter, out| machine.read(now_ms, waiter, key, leader_epoch, out))
            .await?
            .ok_or(ErrorCode::UnknownServerError)
    }

    /// Writes what has changed; waits until it is committed.
    ///
    /// # Errors
    /// What the caller is told: that it is fenced (R6), or that the state is not coordinated here.
    pub async fn write(&self, key: ShareKey, write: &ShareWrite) -> Result<(), ErrorCode> {
        let name = key.clone();
        self.ask(&name, |machine, now_ms, waiter, out| machine.write(now_ms, waiter, key, write, out))
            .await
            .map(|_| ())
    }

    /// Forgets a share partition; waits until that is committed.
    ///
    /// # Errors
    /// What the caller is told: that it is not coordinated here.
    pub async fn delete(&self, key: ShareKey) -> Result<(), ErrorCode> {
        let name = key.clone();
        self.ask(&name, |machine, now_ms, waiter, out| machine.delete(now_ms, waiter, key, out))
            .await
            .map(|_| ())
    }

    /// What is known of a share partition without its batches; `None` where it was never begun.
    ///
    /// # Errors
    /// What the caller is told: that it is not coordinated here.
    pub fn summary(&self, key: &ShareKey) -> Result<Option<StateSummary>, ErrorCode> {
        self.find(key)?.look(|machine| machine.summary(key))
    }

    /// Forgets the share partitions of topics that are gone, where they are coordinated here.
    pub fn topics_deleted(&self, topics: &[TopicId]) {
        let led: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        for partition in led {
            partition.topics_deleted(topics);
        }
    }
}
