//! One share partition at work: its machine, and the task that loads it, writes for it and ends its locks. It belongs to one
//! term of leading the partition; when that ends, or a write fails for good, it ends, and whoever comes next reads what is
//! stored.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use towpath_coordinator::share::{ShareKey, ShareWrite, SharedState};
use towpath_replica::Partition;
use towpath_types::Term;
use towpath_wire::ErrorCode;

use super::partition::{
    AckToken, Acknowledgement, Acquired, Run, SharePartitionMachine, ShareSettings, Wish, Write,
};
use super::{OfPartition, beginning, persister};
use crate::state::BrokerState;

/// How long the state may take to be read, and what was acknowledged to be written, over changes of the coordinator.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether anybody still needs the share partition.
const LOOK: Duration = Duration::from_secs(5);

/// How far a share partition is.
enum Phase {
    Loading,
    Active(Box<SharePartitionMachine>),
    /// Whoever asks is told why.
    Closed(ErrorCode),
}

struct Core {
    phase: Phase,
    waiters: HashMap<AckToken, oneshot::Sender<Result<(), ErrorCode>>>,
    next_token: u64,
}

/// A share partition that this broker leads.
pub(crate) struct SharePartition {
    key: ShareKey,
    partition: Arc<Partition>,
    term: Term,
    born: Instant,
    core: Mutex<Core>,
    wake: Notify,
    /// Tells those of the group who wait for records that there may be some.
    news: Arc<Notify>,
}

/// An acknowledgement that was taken.
pub(crate) enum Taken {
    /// Nothing had to be stored.
    Done,
    /// It is answered when it is stored.
    Stored(oneshot::Receiver<Result<(), ErrorCode>>),
}

impl SharePartition {
    pub(super) fn new(key: ShareKey, partition: Arc<Partition>, term: Term, news: Arc<Notify>) -> Arc<Self> {
        let core = Core { phase: Phase::Loading, waiters: HashMap::new(), next_token: 0 };
        let (core, wake) = (Mutex::new(core), Notify::new());
        Arc::new(Self { key, partition, term, born: Instant::now(), core, wake, news })
    }

    pub(crate) const fn log(&self) -> &Arc<Partition> {
        &self.partition
    }

    pub(super) fn is_of(&self, term: Term) -> bool {
        self.term == term && !matches!(self.core.lock().phase, Phase::Closed(_))
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.born.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Lets the machine act; none while it is being loaded.
    ///
    /// # Errors
    /// Why the share partition is not served any more.
    fn act<T>(
        &self,
        settings: ShareSettings,
        act: impl FnOnce(&mut SharePartitionMachine, i64) -> T,
    ) -> Result<Option<T>, ErrorCode> {
        if self.partition.term() != Some(self.term) {
            self.close(ErrorCode::NotLeaderOrFollower);
        }
        let mut core = self.core.lock();
        match &mut core.phase {
            Phase::Loading => Ok(None),
            Phase::Closed(error) => Err(*error),
            Phase::Active(machine) => {
                machine.configure(settings);
                let now_ms = self.now_ms();
                if machine.tick(now_ms) {
                    self.wake.notify_one();
                }
                let result = act(machine, now_ms);
                self.wake.notify_one();
                Ok(Some(result))
            }
        }
    }

    /// Where to read for somebody who wants records; none while it is being loaded, or as many are out as may be.
    ///
    /// # Errors
    /// Why the share partition is not served any more.
    pub(crate) fn next_offset(&self, settings: ShareSettings) -> Result<Option<i64>, ErrorCode> {
        self.act(settings, |machine, _| machine.next_offset()).map(Option::flatten)
    }

    /// The log begins at `offset` now.
    pub(crate) fn log_starts_at(&self, settings: ShareSettings, offset: i64) -> Result<(), ErrorCode> {
        self.act(settings, |machine, _| machine.log_starts_at(offset)).map(|_| ())
    }

    /// Gives out records that were read.
    ///
    /// # Errors
    /// Why the share partition is not served any more.
    pub(crate) fn acquire(
        &self,
        settings: ShareSettings,
        from: i64,
        runs: &[Run],
        wish: &Wish,
    ) -> Result<Vec<Acquired>, ErrorCode> {
        let given = self.act(settings, |machine, now_ms| machine.acquire(now_ms, from, runs, wish))?;
        Ok(given.unwrap_or_default())
    }

    /// Takes what a member says of records that it has.
    ///
    /// # Errors
    /// What the member is told.
    pub(crate) fn acknowledge(
        &self,
        settings: ShareSettings,
        member: &str,
        said: &[Acknowledgement],
    ) -> Result<Taken, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let token = {
            let mut core = self.core.lock();
            core.next_token += 1;
            let token = AckToken(core.next_token);
            core.waiters.insert(token, sender);
            token
        };
        let taken = self.act(settings, |machine, now_ms| machine.acknowledge(now_ms, member, said, token));
        match taken {
            Ok(Some(Ok(true))) => Ok(Taken::Stored(receiver)),
            // While it loads nobody has anything of it.
            Ok(None) => self.forget(token, ErrorCode::InvalidRecordState),
            Ok(Some(Err(error))) | Err(error) => self.forget(token, error),
            Ok(Some(Ok(false))) => {
                self.core.lock().waiters.remove(&token);
                self.news.notify_waiters();
                Ok(Taken::Done)
            }
        }
    }

    fn forget(&self, token: AckToken, error: ErrorCode) -> Result<Taken, ErrorCode> {
        self.core.lock().waiters.remove(&token);
        Err(error)
    }

    /// A member has gone: what it has comes back.
    pub(crate) fn release(&self, settings: ShareSettings, member: &str) {
        if self.act(settings, |machine, _| machine.release_member(member)) == Ok(Some(true)) {
            self.news.notify_waiters();
        }
    }

    /// Somebody has stopped fetching: perhaps nobody needs it any more.
    pub(crate) fn look(&self) {
        self.wake.notify_one();
    }

    /// Ends it, with what those are told who wait.
    pub(crate) fn close(&self, error: ErrorCode) {
        let mut core = self.core.lock();
        if !matches!(core.phase, Phase::Closed(_)) {
            core.phase = Phase::Closed(error);
        }
        for (_, waiter) in core.waiters.drain() {
            // Whoever asked may be gone.
            let _gone = waiter.send(Err(error));
        }
        drop(core);
        self.wake.notify_one();
        self.news.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        matches!(self.core.lock().phase, Phase::Closed(_))
    }

    fn is_over(&self) -> bool {
        self.is_closed() || self.partition.term() != Some(self.term)
    }

    /// The share partition's life.
    pub(super) async fn run(self: Arc<Self>, broker: Weak<BrokerState>) {
        let error = match self.work(&broker).await {
            Ok(()) => ErrorCode::NotLeaderOrFollower,
            Err(error) => {
                tracing::warn!(share_partition = %self.key, %error, "a share partition is given up; it is read anew");
                // Whoever asks again finds the one that reads it anew, or the new leader.
                ErrorCode::NotLeaderOrFollower
            }
        };
        self.close(error);
        if let Some(broker) = broker.upgrade() {
            broker.shares.forget(&self.key, &self);
        }
    }

    /// Until it is not needed any more, or fails.
    async fn work(&self, broker: &Weak<BrokerState>) -> Result<(), ErrorCode> {
        let state_epoch = self.load(broker).await?;
        loop {
            let (write, deadline_ms) = {
                let mut core = self.core.lock();
                let Phase::Active(machine) = &mut core.phase else { return Ok(()) };
                if machine.tick(self.now_ms()) {
                    self.news.notify_waiters();
                }
                (machine.take_write(), machine.next_deadline_ms())
            };
            let Some(broker) = broker.upgrade() else { return Ok(()) };
            if let Some(write) = write {
                self.store(&broker, state_epoch, write).await?;
                continue;
            }
            if self.is_over() || self.close_if_idle(&broker) {
                return Ok(());
            }
            drop(broker);
            let wait_ms = deadline_ms.map(|at_ms| at_ms.saturating_sub(self.now_ms()).max(1));
            let wait = wait_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(LOOK, Duration::from_millis);
            tokio::select! {
                () = self.wake.notified() => {}
                () = tokio::time::sleep(wait.min(LOOK)) => {}
            }
        }
    }

    /// Ends it when nobody of the group fetches and all is stored. Whoever comes at the same moment finds that, and has
    /// it read anew.
    fn close_if_idle(&self, broker: &BrokerState) -> bool {
        let mut core = self.core.lock();
        let is_idle = match &core.phase {
            Phase::Active(machine) => machine.is_idle(),
            _ => false,
        };
        let ends = is_idle && !broker.shares.sessions.has_group(&self.key.group);
        if ends {
            core.phase = Phase::Closed(ErrorCode::NotLeaderOrFollower);
        }
        ends
    }

    /// Reads what is stored; the state epoch.
    async fn load(&self, broker: &Weak<BrokerState>) -> Result<i32, ErrorCode> {
        let gone = ErrorCode::NotLeaderOrFollower;
        let broker = broker.upgrade().ok_or(gone)?;
        let goes_on = || !self.is_over() && !broker.is_stopping();
        let stored = persister::patiently(PATIENCE, goes_on, || self.read(&broker)).await?;
        let from = beginning::of(&broker, &self.key.group, &self.partition)?;
        let settings = broker.share_settings(&self.key.group).of_partition();
        let machine = SharePartitionMachine::load(&stored, from, settings).map_err(|reason| {
            tracing::error!(share_partition = %self.key, reason, "the state of a share partition cannot be used");
            ErrorCode::UnknownServerError
        })?;
        let mut core = self.core.lock();
        if !matches!(core.phase, Phase::Loading) {
            return Err(gone);
        }
        core.phase = Phase::Active(Box::new(machine));
        drop(core);
        self.news.notify_waiters();
        Ok(stored.summary.state_epoch)
    }

    /// One attempt to read the state; where there is none, it is begun.
    async fn read(&self, broker: &Arc<BrokerState>) -> Result<SharedState, ErrorCode> {
        let leader_epoch = self.term.leader_epoch.get();
        let stored = persister::read(broker, &self.key, leader_epoch).await?;
        if stored.summary.state_epoch >= 0 {
            return Ok(stored);
        }
        persister::initialize(broker, &self.key, 0, -1).await?;
        persister::read(broker, &self.key, leader_epoch).await
    }

    async fn store(
        &self,
        broker: &Arc<BrokerState>,
        state_epoch: i32,
        write: Write,
    ) -> Result<(), ErrorCode> {
        let write = ShareWrite {
            state_epoch,
            leader_epoch: self.term.leader_epoch.get(),
            start_offset: write.start_offset,
            delivery_complete_count: write.done,
            batches: write.batches,
        };
        // Also while the broker stops: somebody waits for the answer.
        let goes_on = || !self.is_over();
        persister::patiently(PATIENCE, goes_on, || persister::write(broker, &self.key, &write)).await?;
        let mut core = self.core.lock();
        let Phase::Active(machine) = &mut core.phase else { return Ok(()) };
        for token in machine.written() {
            if let Some(waiter) = core.waiters.remove(&token) {
                // Whoever asked may be gone.
                let _gone = waiter.send(Ok(()));
            }
        }
        drop(core);
        self.news.notify_waiters();
        Ok(())
    }
}
