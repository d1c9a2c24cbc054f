//! One partition of the state topic: its machine, the task that loads it and then writes and lets time pass for it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use towpath_types::{Offset, Term, TopicPartition};
use towpath_wire::ErrorCode;

use super::ProducerIds;
use super::markers::{Coordinates, MarkerJob, MarkerSender};
use crate::log::{CoordinatorBatch, CoordinatorLog, CoordinatorLogError, LoadedChunk, LoadedEntry};
use crate::machine::{Now, Waiter};
use crate::record::OffsetsRecord;
use crate::service::{Clock, PartitionState};
use crate::transaction::config::TransactionConfig;
use crate::transaction::machine::{
    TransactionCommand, TransactionMachine, TransactionReply, TransactionStats, TransactionToken,
};

/// Bytes read at a time while loading.
const LOAD_BYTES: usize = 1024 * 1024;
/// Bytes of records that one append collects; a single larger change goes alone.
const APPEND_BYTES: usize = 256 * 1024;
/// How long loading waits after a failed read, at first and at most.
const LOAD_RETRY_MIN: Duration = Duration::from_millis(200);
const LOAD_RETRY_MAX: Duration = Duration::from_secs(10);

/// What there is to tell about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionPartitionStatus {
    /// The partition of the state topic.
    pub partition: i32,
    /// How far it is.
    pub state: PartitionState,
    /// Why it failed.
    pub error: Option<String>,
    /// How much it holds.
    pub stats: TransactionStats,
}

/// What the partitions of a coordinator share.
pub(super) struct Surroundings {
    pub(super) config: TransactionConfig,
    pub(super) log: Arc<dyn CoordinatorLog>,
    pub(super) ids: Arc<dyn ProducerIds>,
    pub(super) sender: Arc<MarkerSender>,
    pub(super) clock: Arc<dyn Clock>,
}

struct Core {
    state: PartitionState,
    error: Option<String>,
    machine: TransactionMachine,
    waiters: HashMap<Waiter, oneshot::Sender<TransactionReply>>,
    queue: VecDeque<(TransactionToken, Vec<OffsetsRecord>)>,
    /// The deadline that the task sleeps towards.
    armed_ms: i64,
    next_waiter: u64,
}

/// A partition that this broker leads, for one term.
pub(super) struct Partition {
    id: i32,
    term: Term,
    around: Arc<Surroundings>,
    born: Instant,
    core: Mutex<Core>,
    wake_writer: Notify,
    wake_timer: Notify,
    finished: Notify,
    is_finished: AtomicBool,
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

impl Partition {
    pub(super) fn new(id: i32, term: Term, around: Arc<Surroundings>) -> Arc<Self> {
        let core = Core {
            state: PartitionState::Loading,
            error: None,
            machine: TransactionMachine::new(around.config.clone(), term.leader_epoch.get()),
            waiters: HashMap::new(),
            queue: VecDeque::new(),
            armed_ms: i64::MAX,
            next_waiter: 0,
        };
        Arc::new(Self {
            id,
            term,
            around,
            born: Instant::now(),
            core: Mutex::new(core),
            wake_writer: Notify::new(),
            wake_timer: Notify::new(),
            finished: Notify::new(),
            is_finished: AtomicBool::new(false),
        })
    }

    pub(super) const fn id(&self) -> i32 {
        self.id
    }

    pub(super) const fn coordinates(&self) -> Coordinates {
        Coordinates { partition: self.id, leader_epoch: self.term.leader_epoch }
    }

    pub(super) const fn term(&self) -> Term {
        self.term
    }

    /// The epoch for markers that are sent now. A term goes on under a newer leader epoch, where this broker has heard of its
    /// next election before it heard that another one was elected in between; and that one may have sent markers, after
    /// which those of an older epoch are refused (rule 19).
    pub(super) fn coordinator_epoch(&self) -> i32 {
        let now = self.around.log.term(self.id).filter(|now| *now == self.term);
        now.unwrap_or(self.term).leader_epoch.get()
    }

    pub(super) fn status(&self) -> TransactionPartitionStatus {
        let core = self.core.lock();
        let (state, error) = (core.state, core.error.clone());
        TransactionPartitionStatus { partition: self.id, state, error, stats: core.machine.stats() }
    }

    fn now(&self) -> Now {
        let monotonic_ms = i64::try_from(self.born.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { monotonic_ms, wall_ms: self.around.clock.now_ms() }
    }

    const fn served(state: PartitionState) -> Result<(), ErrorCode> {
        match state {
            PartitionState::Active => Ok(()),
            PartitionState::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            PartitionState::Failed => Err(ErrorCode::CoordinatorNotAvailable),
            PartitionState::Closed => Err(ErrorCode::NotCoordinator),
        }
    }

    /// Looks at the machine.
    ///
    /// # Errors
    /// What a client is told while the partition is not active.
    pub(super) fn look<R>(&self, look: impl FnOnce(&TransactionMachine, Now) -> R) -> Result<R, ErrorCode> {
        let core = self.core.lock();
        Self::served(core.state)?;
        Ok(look(&core.machine, self.now()))
    }

    /// Lets the machine act for somebody who waits for the answer. It has acted when this returns; the answer comes when
    /// it is there, or never when the partition is given up.
    ///
    /// # Errors
    /// What a client is told while the partition is not active.
    pub(super) fn ask(
        self: &Arc<Self>,
        act: impl FnOnce(&mut TransactionMachine, Now, Waiter, &mut Vec<TransactionCommand>),
    ) -> Result<oneshot::Receiver<TransactionReply>, ErrorCode> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core.lock();
        Self::served(core.state)?;
        let waiter = Waiter(core.next_waiter);
        core.next_waiter += 1;
        core.waiters.insert(waiter, sender);
        self.act(&mut core, |machine, now, out| act(machine, now, waiter, out));
        Ok(receiver)
    }

    /// A marker is in a partition's log, or the partition is gone.
    pub(super) fn marker_written(self: &Arc<Self>, token: TransactionToken, partition: &TopicPartition) {
        let mut core = self.core.lock();
        if core.state == PartitionState::Active {
            self.act(&mut core, |machine, now, out| machine.marker_written(now, token, partition, out));
        }
    }

    fn act(
        self: &Arc<Self>,
        core: &mut Core,
        act: impl FnOnce(&mut TransactionMachine, Now, &mut Vec<TransactionCommand>),
    ) {
        let mut commands = Vec::new();
        act(&mut core.machine, self.now(), &mut commands);
        for command in commands {
            match command {
                TransactionCommand::Respond { waiter, reply } => {
                    if let Some(sender) = core.waiters.remove(&waiter) {
                        // Whoever asked may be gone; its connection broke.
                        let _gone = sender.send(reply);
                    }
                }
                TransactionCommand::Append { token, records } => {
                    core.queue.push_back((token, records));
                    self.wake_writer.notify_one();
                }
                TransactionCommand::NewProducerId { token } => self.get_producer_id(token),
                TransactionCommand::SendMarkers { token, marker, partitions, .. } => {
                    let coordinator = Arc::clone(self);
                    self.around.sender.send(MarkerJob { coordinator, token, marker, partitions });
                }
            }
        }
        if core.machine.next_deadline_ms().unwrap_or(i64::MAX) < core.armed_ms {
            self.wake_timer.notify_one();
        }
    }

    /// Asks for a producer id; at most one for each transactional id.
    fn get_producer_id(self: &Arc<Self>, token: TransactionToken) {
        let partition = Arc::clone(self);
        tokio::spawn(async move {
            let result = partition.around.ids.next().await;
            let mut core = partition.core.lock();
            if core.state == PartitionState::Active {
                partition.act(&mut core, |machine, now, out| machine.producer_id(now, token, result, out));
            }
        });
    }

    /// Gives the partition up; [`Partition::finished`] tells when that is done. What is on its way to the log is
    /// still written and answered.
    pub(super) fn close(&self) {
        self.core.lock().state = PartitionState::Closed;
        self.wake_writer.notify_one();
        self.wake_timer.notify_one();
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

    pub(super) fn is_closed(&self) -> bool {
        self.core.lock().state == PartitionState::Closed
    }

    /// The partition's life.
    pub(super) async fn run(self: Arc<Self>) {
        let _finished = Finished(&self);
        if self.load().await {
            tokio::join!(self.write(), self.pass_time());
        }
        let mut core = self.core.lock();
        if core.state == PartitionState::Closed {
            self.act(&mut core, |machine, _, out| machine.unload(ErrorCode::NotCoordinator, out));
            core.waiters.clear();
            core.queue.clear();
        }
    }

    /// Reads the log; true when the partition is active.
    async fn load(self: &Arc<Self>) -> bool {
        let mut from = Offset::ZERO;
        let mut records = 0usize;
        let mut retry = LOAD_RETRY_MIN;
        loop {
            if self.is_closed() {
                return false;
            }
            let chunk = match self.around.log.read(self.id, self.term, from, LOAD_BYTES).await {
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
        self.until_committed(from).await && self.activate(records)
    }

    /// Waits until all that was read is committed; what is served before may never have been (R3), and a marker that
    /// was sent cannot be taken back. False when the partition is closed.
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
                committed = self.around.log.committed(self.id, self.term, end) => committed,
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
        if is_over && self.around.log.term(self.id) != Some(self.term) {
            self.close();
            return false;
        }
        tracing::warn!(partition = self.id, %error, "the state topic cannot be read; trying again");
        // Closing is noticed at the latest when this has passed.
        tokio::time::sleep(*retry).await;
        *retry = (*retry * 2).min(LOAD_RETRY_MAX);
        !self.is_closed()
    }

    fn activate(self: &Arc<Self>, records: usize) -> bool {
        let mut core = self.core.lock();
        if core.state != PartitionState::Loading {
            return false;
        }
        core.state = PartitionState::Active;
        self.act(&mut core, |machine, now, out| machine.loaded(now, out));
        if records > 0 {
            let TransactionStats { ids, ongoing, prepared, .. } = core.machine.stats();
            tracing::info!(partition = self.id, records, ids, ongoing, prepared, "transactions are loaded");
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
        tracing::error!(
            partition,
            reason,
            "the state topic cannot be loaded; its transactions are not served"
        );
        let mut core = self.core.lock();
        if core.state != PartitionState::Closed {
            core.state = PartitionState::Failed;
            core.error = Some(reason.to_owned());
        }
    }

    /// What goes into the next append: everything that waits, within reason.
    fn next_append(&self) -> (Vec<TransactionToken>, Vec<OffsetsRecord>) {
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
    async fn write(self: &Arc<Self>) {
        loop {
            let (tokens, records) = self.next_append();
            if tokens.is_empty() {
                if self.is_closed() {
                    return;
                }
                self.wake_writer.notified().await;
                continue;
            }
            let batch = CoordinatorBatch::Records { records: &records, producer: None };
            // R6: in this term, or not at all.
            let result = self.around.log.append(self.id, self.term, batch).await;
            if let Err(error) = &result {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::warn!(partition = self.id, %error, cause, "transactions could not be stored");
            }
            let result = result.map_err(|error| error.error_code());
            let mut core = self.core.lock();
            for token in tokens {
                self.act(&mut core, |machine, now, out| machine.appended(now, token, result, out));
            }
        }
    }

    /// Lets time pass.
    async fn pass_time(self: &Arc<Self>) {
        loop {
            let deadline_ms = {
                let mut core = self.core.lock();
                if core.state == PartitionState::Closed {
                    return;
                }
                core.armed_ms = core.machine.next_deadline_ms().unwrap_or(i64::MAX);
                core.armed_ms
            };
            let wait_ms = u64::try_from(deadline_ms.saturating_sub(self.now().monotonic_ms)).unwrap_or(0);
            // A day at most: adding i64::MAX to an instant would overflow.
            let wait = Duration::from_millis(wait_ms.min(24 * 60 * 60 * 1_000));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.wake_timer.notified() => continue,
            }
            let mut core = self.core.lock();
            if core.state == PartitionState::Active {
                self.act(&mut core, |machine, now, out| machine.tick(now, out));
            }
        }
    }
}
