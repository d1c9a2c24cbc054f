//! One partition of the state topic: its machine, and the task that loads it and then writes for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use towpath_types::{Offset, Term, TopicId};
use towpath_wire::ErrorCode;

use crate::log::{CoordinatorBatch, CoordinatorLog, CoordinatorLogError, LoadedChunk, LoadedEntry};
use crate::machine::Waiter;
use crate::record::OffsetsRecord;
use crate::service::{Clock, PartitionState};
use crate::share::machine::{ShareCommand, ShareReply, ShareStateConfig, ShareStateMachine, ShareToken};

/// Bytes read at a time while loading.
const LOAD_BYTES: usize = 1024 * 1024;
/// Bytes of records that one append collects; a single larger change goes alone.
const APPEND_BYTES: usize = 256 * 1024;
/// How long loading waits after a failed read, at first and at most.
const LOAD_RETRY_MIN: Duration = Duration::from_millis(200);
const LOAD_RETRY_MAX: Duration = Duration::from_secs(10);

/// What there is to tell about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharePartitionStatus {
    /// The partition of the state topic.
    pub partition: i32,
    /// How far it is.
    pub state: PartitionState,
    /// Why it failed.
    pub error: Option<String>,
    /// Share partitions.
    pub states: usize,
}

struct Core {
    state: PartitionState,
    error: Option<String>,
    machine: ShareStateMachine,
    waiters: HashMap<Waiter, oneshot::Sender<ShareReply>>,
    queue: VecDeque<(ShareToken, Vec<OffsetsRecord>)>,
    next_waiter: u64,
    /// Topics that were deleted while it was being loaded.
    deleted: BTreeSet<TopicId>,
}

/// A partition that this broker leads, for one term.
pub(super) struct Partition {
    id: i32,
    term: Term,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    wake: Notify,
    finished: Notify,
    is_finished: AtomicBool,
}

/// Tells that the task has ended, however it ends.
struct Finished<'a>(&'a Partition);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Nobody waits for answers that will not come, and nothing is served from a state that is half changed.
            let mut core = self.0.core.lock();
            core.state = PartitionState::Failed;
            core.error = Some("the coordinator has a fault; its log says more".to_owned());
            core.waiters.clear();
        }
        self.0.is_finished.store(true, Ordering::Release);
        self.0.finished.notify_waiters();
    }
}

impl Partition {
    pub(super) fn new(
        id: i32,
        term: Term,
        config: ShareStateConfig,
        log: &Arc<dyn CoordinatorLog>,
        clock: &Arc<dyn Clock>,
    ) -> Arc<Self> {
        let core = Core {
            state: PartitionState::Loading,
            error: None,
            machine: ShareStateMachine::new(config),
            waiters: HashMap::new(),
            queue: VecDeque::new(),
            next_waiter: 0,
            deleted: BTreeSet::new(),
        };
        Arc::new(Self {
            id,
            term,
            log: Arc::clone(log),
            clock: Arc::clone(clock),
            core: Mutex::new(core),
            wake: Notify::new(),
            finished: Notify::new(),
            is_finished: AtomicBool::new(false),
        })
    }

    pub(super) const fn term(&self) -> Term {
        self.term
    }

    pub(super) fn status(&self) -> SharePartitionStatus {
        let core = self.core.lock();
        let (state, error) = (core.state, core.error.clone());
        SharePartitionStatus { partition: self.id, state, error, states: core.machine.len() }
    }

    const fn served(state: PartitionState) -> Result<(), ErrorCode> {
        match state {
            PartitionState::Active => Ok(()),
            PartitionState::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            PartitionState::Failed => Err(ErrorCode::CoordinatorNotAvailable),
            PartitionState::Closed => Err(ErrorCode::NotCoordinator),
        }
    }

    pub(super) fn look<R>(&self, look: impl FnOnce(&ShareStateMachine) -> R) -> Result<R, ErrorCode> {
        let core = self.core.lock();
        Self::served(core.state)?;
        Ok(look(&core.machine))
    }

    /// Lets the machine act for somebody who waits for the answer. It has acted when this returns; the answer comes when
    /// it is there, or never when the partition is given up.
    pub(super) fn ask(
        &self,
        act: impl FnOnce(&mut ShareStateMachine, i64, Waiter, &mut Vec<ShareCommand>),
    ) -> Result<oneshot::Receiver<ShareReply>, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core.lock();
        Self::served(core.state)?;
        let waiter = Waiter(core.next_waiter);
        core.next_waiter += 1;
        core.waiters.insert(waiter, sender);
        let now_ms = self.clock.now_ms();
        self.act(&mut core, |machine, out| act(machine, now_ms, waiter, out));
        Ok(receiver)
    }

    pub(super) fn topics_deleted(&self, topics: &[TopicId]) {
        let mut core = self.core.lock();
        match core.state {
            PartitionState::Active => {
                let now_ms = self.clock.now_ms();
                let is_gone = |topic: TopicId| topics.contains(&topic);
                self.act(&mut core, |machine, out| machine.topics_deleted(now_ms, &is_gone, out));
            }
            PartitionState::Loading => core.deleted.extend(topics),
            PartitionState::Failed | PartitionState::Closed => {}
        }
    }

    fn act(&self, core: &mut Core, act: impl FnOnce(&mut ShareStateMachine, &mut Vec<ShareCommand>)) {
        let mut commands = Vec::new();
        act(&mut core.machine, &mut commands);
        for command in commands {
            match command {
                ShareCommand::Respond { waiter, reply } => {
                    if let Some(sender) = core.waiters.remove(&waiter) {
                        // Whoever asked may be gone; its connection broke.
                        let _gone = sender.send(reply);
                    }
                }
                ShareCommand::Append { token, records } => {
                    core.queue.push_back((token, records));
                    self.wake.notify_one();
                }
            }
        }
    }

    /// Gives the partition up. What is on its way to the log is still written and answered.
    pub(super) fn close(&self) {
        self.core.lock().state = PartitionState::Closed;
        self.wake.notify_one();
    }

    pub(super) async fn finished(&self) {
        loop {
            let notified = self.finished.notified();
            if self.is_finished.load(Ordering::Acquire) {
                return;
            }
            notified.await;
        }
    }

    fn is_closed(&self) -> bool {
        self.core.lock().state == PartitionState::Closed
    }

    /// The partition's life.
    pub(super) async fn run(self: Arc<Self>) {
        let _finished = Finished(&self);
        if self.load().await {
            self.write().await;
        }
        let mut core = self.core.lock();
        if core.state == PartitionState::Closed {
            self.act(&mut core, |machine, out| machine.unload(ErrorCode::NotCoordinator, out));
            core.waiters.clear();
            core.queue.clear();
        }
    }

    /// Reads the log; true when the partition is active.
    async fn load(&self) -> bool {
        let mut from = Offset::ZERO;
        let mut retry = LOAD_RETRY_MIN;
        loop {
            if self.is_closed() {
                return false;
            }
            let chunk = match self.log.read(self.id, self.term, from, LOAD_BYTES).await {
                Ok(chunk) => chunk,
                Err(error @ CoordinatorLogError::Corrupt { .. }) => {
                    self.fail(&error.to_string());
                    return false;
                }
                Err(error) => {
                    if !self.wait_after(&error, &mut retry).await {
                        return false;
                    }
                    continue;
                }
            };
            retry = LOAD_RETRY_MIN;
            if let Err(reason) = self.replay(&chunk) {
                self.fail(&reason);
                return false;
            }
            if !chunk.at_end && chunk.next_offset <= from {
                self.fail(&format!("reading does not get past offset {from}"));
                return false;
            }
            from = chunk.next_offset;
            if chunk.at_end {
                break;
            }
        }
        self.until_committed(from).await && self.activate()
    }

    /// Waits until all that was read is committed: what is told before may never have been (R3).
    async fn until_committed(&self, end: Offset) -> bool {
        let mut retry = LOAD_RETRY_MIN;
        loop {
            let closed = async {
                while !self.is_closed() {
                    self.wake.notified().await;
                }
            };
            let committed = tokio::select! {
                committed = self.log.committed(self.id, self.term, end) => committed,
                () = closed => return false,
            };
            match committed {
                Ok(()) => return true,
                Err(error) => {
                    if !self.wait_after(&error, &mut retry).await {
                        return false;
                    }
                }
            }
        }
    }

    /// Lets some time pass after a failure to read; false when the partition is closed, as it is when its term has ended.
    async fn wait_after(&self, error: &CoordinatorLogError, retry: &mut Duration) -> bool {
        let is_over = matches!(error, CoordinatorLogError::NotLeader { .. });
        if is_over && self.log.term(self.id) != Some(self.term) {
            self.close();
            return false;
        }
        tracing::warn!(partition = self.id, %error, "the share groups' state topic cannot be read; trying again");
        // Closing is noticed at the latest when this has passed.
        tokio::time::sleep(*retry).await;
        *retry = (*retry * 2).min(LOAD_RETRY_MAX);
        !self.is_closed()
    }

    fn activate(&self) -> bool {
        // Without the lock: whoever knows the topics may be telling which are deleted.
        let mut unknown = self.core.lock().machine.topics();
        unknown.retain(|topic| !self.log.has_topic(*topic));
        let mut core = self.core.lock();
        if core.state != PartitionState::Loading {
            return false;
        }
        core.state = PartitionState::Active;
        let deleted = std::mem::take(&mut core.deleted);
        let now_ms = self.clock.now_ms();
        self.act(&mut core, |machine, out| {
            machine.topics_deleted(now_ms, &|topic| deleted.contains(&topic), out);
            machine.topics_unknown(now_ms, &unknown, out);
        });
        let states = core.machine.len();
        if states > 0 {
            tracing::info!(partition = self.id, states, "the states of share partitions are loaded");
        }
        true
    }

    fn replay(&self, chunk: &LoadedChunk) -> Result<(), String> {
        let mut core = self.core.lock();
        for entry in &chunk.entries {
            match entry {
                LoadedEntry::Record { offset, key, value, producer: None } => core
                    .machine
                    .replay(key.as_ref(), value.as_ref())
                    .map_err(|error| format!("the record at offset {offset} is of no use: {error}"))?,
                // It has no meaning here, and whoever has sent it has changed nothing.
                LoadedEntry::Marker { .. } => {}
                LoadedEntry::Record { offset, .. } => {
                    return Err(format!("the record at offset {offset} is part of a transaction"));
                }
            }
        }
        Ok(())
    }

    /// R7: nothing is served from a log that cannot be understood as a whole.
    fn fail(&self, reason: &str) {
        let partition = self.id;
        tracing::error!(partition, reason, "the share groups' state topic cannot be loaded");
        let mut core = self.core.lock();
        if core.state != PartitionState::Closed {
            core.state = PartitionState::Failed;
            core.error = Some(reason.to_owned());
        }
    }

    /// What goes into the next append: everything that waits, within reason.
    fn next_append(&self) -> (Vec<ShareToken>, Vec<OffsetsRecord>) {
        let mut core = self.core.lock();
        let (mut tokens, mut records) = (Vec::new(), Vec::new());
        let mut bytes = 0usize;
        while let Some((_, next)) = core.queue.front() {
            bytes += next.iter().map(OffsetsRecord::size_in_bytes).sum::<usize>();
            if !tokens.is_empty() && bytes > APPEND_BYTES {
                break;
            }
            if let Some((token, next)) = core.queue.pop_front() {
                tokens.push(token);
                records.extend(next);
            }
        }
        (tokens, records)
    }

    /// Writes what the machine wants written, one append at a time.
    async fn write(&self) {
        loop {
            let (tokens, records) = self.next_append();
            if tokens.is_empty() {
                if self.is_closed() {
                    return;
                }
                self.wake.notified().await;
                continue;
            }
            let result = if records.is_empty() {
                Ok(())
            } else {
                let batch = CoordinatorBatch::Records { records: &records, producer: None };
                // R6: in this term, or not at all.
                self.log.append(self.id, self.term, batch).await
            };
            if let Err(error) = &result {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(partition = self.id, %error, cause, "states of share partitions could not be stored");
            }
            let result = result.map_err(|error| error.error_code());
            let mut core = self.core.lock();
            for token in tokens {
                self.act(&mut core, |machine, out| machine.appended(token, result, out));
            }
        }
    }
}
