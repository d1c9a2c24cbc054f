//! One partition of the offsets topic: its machine, the task that loads it and then writes and lets time pass for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use towpath_types::{Offset, Term};
use towpath_wire::ErrorCode;
use uuid::Uuid;

use super::Clock;
use crate::config::GroupConfig;
use crate::log::{
    CoordinatorBatch, CoordinatorLog, CoordinatorLogError, EndMarker, LoadedChunk, LoadedEntry,
    TransactionalProducer,
};
use crate::machine::{
    AppendToken, Command, GroupMachine, HeldBytes, MachineStats, Now, RECORD_OVERHEAD, Reply,
    ResolvedRegexes, Waiter, append_bytes, resolve_regexes,
};
use crate::record::OffsetsRecord;
use crate::topics::Topics;

/// Bytes read at a time while loading.
const LOAD_BYTES: usize = 1024 * 1024;
/// Bytes of records that one append collects; a single larger change goes alone.
const APPEND_BYTES: usize = 256 * 1024;
/// How long loading waits after a failed read, at first and at most.
const LOAD_RETRY_MIN: Duration = Duration::from_millis(200);
const LOAD_RETRY_MAX: Duration = Duration::from_secs(10);

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionState {
    /// The log is being read.
    Loading,
    /// Requests are served.
    Active,
    /// The log cannot be read; nothing is served from half of it (R7).
    Failed,
    /// The broker gives the partition up, or stops.
    Closed,
}

/// What there is to tell about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition of the offsets topic.
    pub partition: i32,
    /// How far it is.
    pub state: PartitionState,
    /// Why it failed.
    pub error: Option<String>,
    /// How much it holds.
    pub stats: MachineStats,
}

/// What waits for the log.
enum Queued {
    Records { token: AppendToken, records: Vec<OffsetsRecord>, producer: Option<TransactionalProducer> },
    Marker { token: AppendToken, marker: EndMarker },
}

/// What goes into one append.
enum Batch {
    Records { records: Vec<OffsetsRecord>, producer: Option<TransactionalProducer> },
    Marker(EndMarker),
}

struct Core {
    state: PartitionState,
    error: Option<String>,
    machine: GroupMachine,
    waiters: HashMap<Waiter, oneshot::Sender<Reply>>,
    queue: VecDeque<Queued>,
    /// Groups whose regular expressions are to be resolved; each at most once.
    resolving: VecDeque<(Arc<str>, Vec<String>)>,
    commands: Vec<Command>,
    /// The deadline that the task sleeps towards.
    armed_ms: i64,
    next_waiter: u64,
}

/// A partition that this broker leads, for one term.
pub(super) struct Partition {
    id: i32,
    term: Term,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
    born: Instant,
    core: Mutex<Core>,
    wake_writer: Notify,
    wake_timer: Notify,
    wake_resolver: Notify,
    finished: Notify,
    is_finished: AtomicBool,
}

impl Partition {
    pub(super) fn new(
        id: i32,
        term: Term,
        config: GroupConfig,
        log: Arc<dyn CoordinatorLog>,
        clock: Arc<dyn Clock>,
        topics: Arc<dyn Topics>,
        held: Arc<HeldBytes>,
    ) -> Arc<Self> {
        let mut machine = GroupMachine::new(config, Box::new(Uuid::new_v4)).sharing(held);
        machine.topics_changed(topics);
        let core = Core {
            state: PartitionState::Loading,
            error: None,
            machine,
            waiters: HashMap::new(),
            queue: VecDeque::new(),
            resolving: VecDeque::new(),
            commands: Vec::new(),
            armed_ms: i64::MAX,
            next_waiter: 0,
        };
        Arc::new(Self {
            id,
            term,
            log,
            clock,
            born: Instant::now(),
            core: Mutex::new(core),
            wake_writer: Notify::new(),
            wake_timer: Notify::new(),
            wake_resolver: Notify::new(),
            finished: Notify::new(),
            is_finished: AtomicBool::new(false),
        })
    }

    pub(super) const fn term(&self) -> Term {
        self.term
    }

    pub(super) fn status(&self) -> PartitionStatus {
        let core = self.core.lock();
        let (state, error) = (core.state, core.error.clone());
        PartitionStatus { partition: self.id, state, error, stats: core.machine.stats() }
    }

    pub(super) fn topics_changed(&self, topics: Arc<dyn Topics>) {
        self.core.lock().machine.topics_changed(topics);
    }

    fn now(&self) -> Now {
        let monotonic_ms = i64::try_from(self.born.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { monotonic_ms, wall_ms: self.clock.now_ms() }
    }

    /// Lets the machine act at once.
    ///
    /// # Errors
    /// What a client is told while the partition is not active.
    pub(super) fn act<R>(
        &self,
        act: impl FnOnce(&mut GroupMachine, Now, &mut Vec<Command>) -> R,
    ) -> Result<R, ErrorCode> {
        let mut core = self.core.lock();
        match core.state {
            PartitionState::Active => Ok(self.act_locked(&mut core, act)),
            PartitionState::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            PartitionState::Failed => Err(ErrorCode::CoordinatorNotAvailable),
            PartitionState::Closed => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Lets the machine act for somebody who waits for the answer.
    ///
    /// # Errors
    /// As [`Partition::act`].
    pub(super) async fn ask(
        &self,
        act: impl FnOnce(&mut GroupMachine, Now, Waiter, &mut Vec<Command>),
    ) -> Result<Reply, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut core = self.core.lock();
            match core.state {
                PartitionState::Active => {}
                PartitionState::Loading => return Err(ErrorCode::CoordinatorLoadInProgress),
                PartitionState::Failed => return Err(ErrorCode::CoordinatorNotAvailable),
                PartitionState::Closed => return Err(ErrorCode::NotCoordinator),
            }
            let waiter = Waiter(core.next_waiter);
            core.next_waiter += 1;
            core.waiters.insert(waiter, sender);
            self.act_locked(&mut core, |machine, now, out| act(machine, now, waiter, out));
        }
        receiver.await.map_err(|_| ErrorCode::NotCoordinator)
    }

    fn act_locked<R>(
        &self,
        core: &mut Core,
        act: impl FnOnce(&mut GroupMachine, Now, &mut Vec<Command>) -> R,
    ) -> R {
        let mut commands = std::mem::take(&mut core.commands);
        let result = act(&mut core.machine, self.now(), &mut commands);
        let mut wake_writer = false;
        for command in commands.drain(..) {
            match command {
                Command::Respond { waiter, reply } => {
                    if let Some(sender) = core.waiters.remove(&waiter) {
                        // Whoever asked may be gone; its connection broke.
                        let _gone = sender.send(reply);
                    }
                }
                Command::Append { token, records, producer } => {
                    core.queue.push_back(Queued::Records { token, records, producer });
                    wake_writer = true;
                }
                Command::AppendMarker { token, marker } => {
                    core.queue.push_back(Queued::Marker { token, marker });
                    wake_writer = true;
                }
                Command::ResolveRegexes { group, expressions } => {
                    core.resolving.push_back((group, expressions));
                    self.wake_resolver.notify_one();
                }
            }
        }
        core.commands = commands;
        if wake_writer {
            self.wake_writer.notify_one();
        }
        if core.machine.next_deadline_ms().unwrap_or(i64::MAX) < core.armed_ms {
            self.wake_timer.notify_one();
        }
        result
    }

    /// Gives the partition up; [`Partition::finished`] tells when that is done. What is on its way to the log is
    /// still written and answered.
    pub(super) fn close(&self) {
        let mut core = self.core.lock();
        if core.state != PartitionState::Closed {
            core.state = PartitionState::Closed;
        }
        drop(core);
        self.wake_writer.notify_one();
        self.wake_timer.notify_one();
        self.wake_resolver.notify_one();
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
            tokio::join!(self.write(), self.pass_time(), self.resolve());
        }
        if self.is_closed() {
            let mut core = self.core.lock();
            self.act_locked(&mut core, |machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
            core.waiters.clear();
            core.queue.clear();
        }
    }

    /// Reads the log; true when the partition is active.
    async fn load(&self) -> bool {
        let mut from = Offset::ZERO;
        let mut records = 0usize;
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
            records += chunk.entries.len();
            let (next, at_end) = (chunk.next_offset, chunk.at_end);
            if let Err(reason) = self.replay(&chunk) {
                self.fail(&reason);
                return false;
            }
            if at_end {
                from = next;
                break;
            }
            if next <= from {
                self.fail(&format!("reading does not get past offset {from}"));
                return false;
            }
            from = next;
        }
        self.until_committed(from).await && self.activate(records)
    }

    /// Waits until all that was read is committed; what is served before may never have been (R3). False when the
    /// partition is closed.
    async fn until_committed(&self, end: Offset) -> bool {
        let mut retry = LOAD_RETRY_MIN;
        loop {
            let closed = async {
                loop {
                    let notified = self.wake_timer.notified();
                    if self.is_closed() {
                        return;
                    }
                    notified.await;
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
        if matches!(error, CoordinatorLogError::NotLeader { .. }) && self.log.term(self.id) != Some(self.term)
        {
            self.close();
            return false;
        }
        tracing::warn!(partition = self.id, %error, "the coordinator's topic cannot be read; trying again");
        // Closing is noticed at the latest when this has passed.
        tokio::time::sleep(*retry).await;
        *retry = (*retry * 2).min(LOAD_RETRY_MAX);
        !self.is_closed()
    }

    fn activate(&self, records: usize) -> bool {
        let mut core = self.core.lock();
        if core.state != PartitionState::Loading {
            return false;
        }
        core.state = PartitionState::Active;
        self.act_locked(&mut core, |machine, now, out| machine.loaded(now, out));
        if records > 0 {
            let groups = core.machine.stats().groups;
            tracing::info!(partition = self.id, records, groups, "groups and offsets are loaded");
        }
        true
    }

    fn replay(&self, chunk: &LoadedChunk) -> Result<(), String> {
        let mut core = self.core.lock();
        for entry in &chunk.entries {
            let (LoadedEntry::Record { offset, .. } | LoadedEntry::Marker { offset, .. }) = entry;
            core.machine
                .replay(entry)
                .map_err(|error| format!("the record at offset {offset} is of no use: {error}"))?;
        }
        Ok(())
    }

    /// R7: nothing is served from a log that cannot be understood as a whole.
    fn fail(&self, reason: &str) {
        tracing::error!(
            partition = self.id,
            reason,
            "the offsets topic cannot be loaded; its groups are not served"
        );
        let mut core = self.core.lock();
        if core.state != PartitionState::Closed {
            core.state = PartitionState::Failed;
            core.error = Some(reason.to_owned());
        }
    }

    /// What goes into the next append: everything that waits, within reason. What belongs to a transaction goes alone.
    fn next_append(&self) -> Option<(Vec<AppendToken>, Batch)> {
        let batch_bytes_max = self.log.batch_bytes_max(self.id);
        let mut core = self.core.lock();
        core.machine.set_batch_bytes_max(batch_bytes_max);
        let mut tokens = Vec::new();
        let mut records = match core.queue.pop_front()? {
            Queued::Marker { token, marker } => return Some((vec![token], Batch::Marker(marker))),
            Queued::Records { token, records, producer } => {
                tokens.push(token);
                if producer.is_some() {
                    return Some((tokens, Batch::Records { records, producer }));
                }
                records
            }
        };
        let size = |records: &[OffsetsRecord]| -> usize {
            records.iter().map(|record| record.size_in_bytes() + RECORD_OVERHEAD).sum()
        };
        let (mut bytes, bytes_max) = (size(&records), append_bytes(batch_bytes_max).min(APPEND_BYTES));
        while let Some(Queued::Records { token, records: next, producer: None }) = core.queue.front_mut() {
            bytes += size(next);
            if bytes > bytes_max {
                break;
            }
            tokens.push(*token);
            records.append(next);
            core.queue.pop_front();
        }
        Some((tokens, Batch::Records { records, producer: None }))
    }

    /// Writes what the machine wants written, one append at a time.
    async fn write(&self) {
        loop {
            let Some((tokens, batch)) = self.next_append() else {
                if self.is_closed() {
                    return;
                }
                self.wake_writer.notified().await;
                continue;
            };
            let batch = match &batch {
                Batch::Records { records, producer } => {
                    CoordinatorBatch::Records { records, producer: *producer }
                }
                Batch::Marker(marker) => CoordinatorBatch::Marker(*marker),
            };
            let result = self.log.append(self.id, self.term, batch).await;
            if let Err(error) = &result {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(partition = self.id, %error, cause, "groups or offsets could not be stored");
            }
            let result = result.map_err(|error| error.error_code());
            let mut core = self.core.lock();
            for token in tokens {
                self.act_locked(&mut core, |machine, now, out| machine.appended(now, token, result, out));
            }
        }
    }

    /// Resolves regular expressions, one group at a time, on a thread where that holds up nothing.
    async fn resolve(&self) {
        loop {
            let next = {
                let mut core = self.core.lock();
                if core.state == PartitionState::Closed {
                    return;
                }
                core.resolving.pop_front().map(|job| (job, core.machine.topics()))
            };
            let Some(((group, expressions), topics)) = next else {
                self.wake_resolver.notified().await;
                continue;
            };
            let resolving = tokio::task::spawn_blocking(move || resolve_regexes(&expressions, &*topics));
            let resolved = resolving.await.unwrap_or_else(|error| {
                tracing::error!(partition = self.id, %group, %error, "regular expressions could not be resolved");
                ResolvedRegexes::default()
            });
            let mut core = self.core.lock();
            if core.state == PartitionState::Active {
                self.act_locked(&mut core, |machine, now, out| {
                    machine.regexes_resolved(now, &group, resolved, out);
                });
            }
        }
    }

    /// Lets time pass.
    async fn pass_time(&self) {
        loop {
            let deadline_ms = {
                let mut core = self.core.lock();
                if core.state == PartitionState::Closed {
                    return;
                }
                core.armed_ms = core.machine.next_deadline_ms().unwrap_or(i64::MAX);
                core.armed_ms
            };
            let wait_ms = u64::try_from(deadline_ms - self.now().monotonic_ms).unwrap_or(0);
            // A day at most: adding i64::MAX to an instant would overflow.
            let wait = Duration::from_millis(wait_ms.min(24 * 60 * 60 * 1_000));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake_timer.notified() => continue,
            }
            let mut core = self.core.lock();
            if core.state == PartitionState::Active {
                self.act_locked(&mut core, |machine, now, out| machine.tick(now, out));
            }
        }
    }
}

/// Says that a partition's life is over, also where it ended by a panic.
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
