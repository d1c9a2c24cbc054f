//! One share partition at work: its machine, and the task that loads it, writes for it and ends its locks. It belongs to one
//! term of leading the partition; when that ends, or a write fails for good, it ends, and whoever comes next reads what is
//! stored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
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
use super::{OfPartition, beginning, members, persister};
use crate::state::BrokerState;

/// How long the state may take to be read, and what was acknowledged to be written, over changes of the coordinator.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether anybody still needs the share partition.
const LOOK: Duration = Duration::from_secs(5);
/// How long whoever asks is told why the share partition could not be loaded, before it is tried anew.
const REST: Duration = Duration::from_secs(1);

/// How far a share partition is.
enum Phase {
    Loading,
    Active(Box<SharePartitionMachine>),
    /// Nobody had needed it: whoever comes has it read anew.
    Ended,
    /// It could not be loaded, or has a fault: it rests, and whoever asks is told why.
    Failed(ErrorCode),
    /// Whoever waits is told why; whoever comes has it read anew.
    Closed(ErrorCode),
}

struct Core {
    phase: Phase,
    /// When it was last looked whether what was read is what is stored, and since when somebody wants that to be known.
    known_at: Instant,
    wanted_at: Option<Instant>,
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
    /// Its task writes nothing any more.
    is_finished: AtomicBool,
    finished: Notify,
}

/// An acknowledgement that was taken.
pub(crate) enum Taken {
    /// Nothing had to be stored.
    Done,
    /// It is answered when it is stored.
    Stored(oneshot::Receiver<Result<(), ErrorCode>>),
}

/// What those are told who ask for a share partition that cannot be loaded: what clients know of a fetch.
const fn told(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::OffsetNotAvailable | ErrorCode::KafkaStorageError => error,
        ErrorCode::UnknownServerError | ErrorCode::GroupIdNotFound => ErrorCode::UnknownServerError,
        _ => ErrorCode::NotLeaderOrFollower,
    }
}

impl SharePartition {
    pub(super) fn new(key: ShareKey, partition: Arc<Partition>, term: Term, news: Arc<Notify>) -> Arc<Self> {
        let born = Instant::now();
        let core = Core {
            phase: Phase::Loading,
            known_at: born,
            wanted_at: None,
            waiters: HashMap::new(),
            next_token: 0,
        };
        Arc::new(Self {
            key,
            partition,
            term,
            born,
            core: Mutex::new(core),
            wake: Notify::new(),
            news,
            is_finished: AtomicBool::new(false),
            finished: Notify::new(),
        })
    }

    pub(crate) const fn log(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// Whether it serves a term, or why not for a while; none when another one has to come in its place.
    pub(super) fn serves(&self, term: Term) -> Option<Result<(), ErrorCode>> {
        if self.term != term {
            return None;
        }
        match self.core.lock().phase {
            Phase::Loading | Phase::Active(_) => Some(Ok(())),
            Phase::Failed(error) => Some(Err(error)),
            Phase::Ended | Phase::Closed(_) => None,
        }
    }

    /// Whether it has ended because nobody had needed it.
    pub(super) fn has_ended_idle(&self) -> bool {
        matches!(self.core.lock().phase, Phase::Ended)
    }

    /// Whether it was looked since then whether what was read is what is stored; if not, that is done.
    fn is_known_since(&self, since: Instant) -> bool {
        let mut core = self.core.lock();
        if core.known_at >= since {
            return true;
        }
        core.wanted_at = core.wanted_at.max(Some(since));
        drop(core);
        self.wake.notify_one();
        false
    }

    fn has_to_look(&self) -> bool {
        let core = self.core.lock();
        core.wanted_at.is_some_and(|since| since > core.known_at)
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
            Phase::Ended => Err(ErrorCode::NotLeaderOrFollower),
            Phase::Failed(error) | Phase::Closed(error) => Err(*error),
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

    /// Where to read for somebody who wants records and whose session began at `since`; none while it is being loaded, or
    /// as many are out as may be. None either before it is known whether what was read is still stored: it may have been
    /// set back or deleted while nobody was in the group.
    ///
    /// # Errors
    /// Why the share partition is not served any more.
    pub(crate) fn next_offset(
        &self,
        settings: ShareSettings,
        since: Instant,
    ) -> Result<Option<i64>, ErrorCode> {
        let next = self.act(settings, |machine, _| machine.next_offset())?;
        Ok(next.flatten().filter(|_| self.is_known_since(since)))
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
        self.end(Phase::Closed(error), error);
    }

    fn end(&self, phase: Phase, error: ErrorCode) {
        let mut core = self.core.lock();
        if matches!(core.phase, Phase::Loading | Phase::Active(_)) {
            core.phase = phase;
        }
        for (_, waiter) in core.waiters.drain() {
            // Whoever asked may be gone.
            let _gone = waiter.send(Err(error));
        }
        drop(core);
        self.wake.notify_one();
        self.news.notify_waiters();
    }

    fn is_over(&self) -> bool {
        let is_closed = !matches!(self.core.lock().phase, Phase::Loading | Phase::Active(_));
        is_closed || self.partition.term() != Some(self.term)
    }

    /// Waits until it writes nothing any more.
    async fn finished(&self) {
        loop {
            let notified = self.finished.notified();
            if self.is_finished.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    /// The share partition's life. It begins when the one has ended in whose place it comes: what that one still writes
    /// would else be written over what this one has.
    pub(super) async fn run(self: Arc<Self>, broker: Weak<BrokerState>, before: Option<Arc<Self>>) {
        if let Some(before) = before {
            before.finished().await;
        }
        // In a task of its own: whoever waits is told also when it has a fault.
        let work = tokio::spawn(Arc::clone(&self).work(Weak::clone(&broker)));
        let failed = work.await.unwrap_or_else(|error| {
            tracing::error!(share_partition = %self.key, %error, "a share partition has a fault");
            error.is_panic().then_some(ErrorCode::UnknownServerError)
        });
        match failed {
            Some(error) => self.end(Phase::Failed(error), error),
            // Whoever asks again finds the one that reads it anew, or the new leader.
            None => self.close(ErrorCode::NotLeaderOrFollower),
        }
        self.is_finished.store(true, Ordering::Release);
        self.finished.notify_waiters();
        if failed.is_some() {
            // It is not tried again at once, for ever.
            tokio::time::sleep(REST).await;
        }
        if let Some(broker) = broker.upgrade() {
            broker.shares.forget(&self.key, &self);
        }
    }

    /// Until it is not needed any more, or a write fails. If it cannot be loaded: what those are told who ask.
    async fn work(self: Arc<Self>, broker: Weak<BrokerState>) -> Option<ErrorCode> {
        let state_epoch = match self.load(&broker).await {
            Ok(state_epoch) => state_epoch,
            Err(_) if self.is_over() => return None,
            Err(error) => {
                tracing::warn!(share_partition = %self.key, %error, "a share partition cannot be loaded");
                return Some(told(error));
            }
        };
        if let Err(error) = self.serve(&broker, state_epoch).await {
            tracing::warn!(share_partition = %self.key, %error, "a share partition is given up; it is read anew");
        }
        None
    }

    async fn serve(&self, broker: &Weak<BrokerState>, state_epoch: i32) -> Result<(), ErrorCode> {
        loop {
            let Some(broker) = broker.upgrade() else { return Ok(()) };
            // R6: another one may have come in its place.
            if self.is_over() {
                return Ok(());
            }
            if self.has_to_look() {
                self.verify(&broker, state_epoch).await?;
            }
            let (write, deadline_ms) = {
                let mut core = self.core.lock();
                let Phase::Active(machine) = &mut core.phase else { return Ok(()) };
                if machine.tick(self.now_ms()) {
                    self.news.notify_waiters();
                }
                (machine.take_write(), machine.next_deadline_ms())
            };
            if let Some(write) = write {
                self.store(&broker, state_epoch, write).await?;
                continue;
            }
            if self.close_if_idle(&broker) {
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
            core.phase = Phase::Ended;
        }
        ends
    }

    /// Reads what is stored; the state epoch.
    async fn load(&self, broker: &Weak<BrokerState>) -> Result<i32, ErrorCode> {
        let gone = ErrorCode::NotLeaderOrFollower;
        let broker = broker.upgrade().ok_or(gone)?;
        let goes_on = || !self.is_over() && !broker.is_stopping();
        let now = Instant::now();
        let stored = persister::patiently(PATIENCE, goes_on, || self.read(&broker)).await?;
        let settings = broker.share_settings(&self.key.group).of_partition();
        let machine = SharePartitionMachine::load(&stored, settings).map_err(|reason| {
            tracing::error!(share_partition = %self.key, reason, "the state of a share partition cannot be used");
            ErrorCode::UnknownServerError
        })?;
        let mut core = self.core.lock();
        if !matches!(core.phase, Phase::Loading) {
            return Err(gone);
        }
        core.phase = Phase::Active(Box::new(machine));
        core.known_at = now;
        drop(core);
        self.news.notify_waiters();
        Ok(stored.summary.state_epoch)
    }

    /// One attempt to read the state. Where there is none, or none that says where it begins, that is stored before a record
    /// is given out.
    async fn read(&self, broker: &Arc<BrokerState>) -> Result<SharedState, ErrorCode> {
        let leader_epoch = self.term.leader_epoch.get();
        let mut stored = persister::read(broker, &self.key, leader_epoch).await?;
        if stored.summary.state_epoch < 0 {
            members::have(broker, &self.key).await?;
            let start_offset = beginning::of(broker, &self.key.group, &self.partition)?;
            persister::initialize(broker, &self.key, 0, start_offset).await?;
            stored = persister::read(broker, &self.key, leader_epoch).await?;
        }
        if stored.summary.state_epoch < 0 {
            // Deleted meanwhile.
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if stored.summary.start_offset < 0 {
            let write = ShareWrite {
                state_epoch: stored.summary.state_epoch,
                leader_epoch,
                start_offset: beginning::of(broker, &self.key.group, &self.partition)?,
                delivery_complete_count: 0,
                batches: Vec::new(),
            };
            persister::write(broker, &self.key, &write).await?;
            stored.summary.start_offset = write.start_offset;
        }
        Ok(stored)
    }

    /// Looks whether what was read is still what is stored.
    async fn verify(&self, broker: &Arc<BrokerState>, state_epoch: i32) -> Result<(), ErrorCode> {
        let now = Instant::now();
        let goes_on = || !self.is_over() && !broker.is_stopping();
        let stored = persister::patiently(PATIENCE, goes_on, || persister::summary(broker, &self.key)).await;
        if stored?.state_epoch != state_epoch {
            return Err(ErrorCode::FencedStateEpoch);
        }
        self.core.lock().known_at = now;
        self.news.notify_waiters();
        Ok(())
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
