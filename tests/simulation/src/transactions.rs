//! The transaction coordinator: the machine itself, over a replicated partition of `__transaction_state`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use towpath_coordinator::transaction::{
    AddPartitions, ClientVersion, EndTransaction, InitProducer, Partitions, TransactionCommand,
    TransactionReply, TransactionToken,
};
use towpath_coordinator::{
    EndMarker, LoadedEntry, Now, OffsetsRecord, TransactionConfig, TransactionMachine, TransactionalProducer,
    Waiter,
};
use towpath_log::{AppendOptions, Effort, VerificationGuard};
use towpath_record::Origin;
use towpath_replica::{Appended, Partition};
use towpath_types::{Offset, ProducerId, Rule, Rules, Term, TopicPartition};
use towpath_wire::ErrorCode;

use crate::coordination::{Written, append_records, load};
use crate::net::{Caller, MarkerKey, Party};
use crate::violation::{COMMITTED, Checked, Violation};

/// How often it is looked for transactions that have had their time.
const ABORT_INTERVAL_MS: i64 = 40;
/// How long an append may take.
const APPEND_MS: i64 = 500;
/// How long the leader of a partition may take to write a marker.
const MARKER_MS: i64 = 120;
/// Where the state stands in a record's value, and the number of `PrepareAbort`.
const STATE_AT: usize = 16;
const PREPARE_ABORT: u8 = 3;

/// What a client, or a partition's leader for it, asks of the coordinator.
#[derive(Debug, Clone)]
pub(crate) enum TransactionCall {
    Init { timeout_ms: i32, expected: Option<TransactionalProducer> },
    Add { producer: TransactionalProducer, partitions: Vec<TopicPartition>, tv2: bool },
    Verify { producer: TransactionalProducer, partition: TopicPartition },
    End { producer: TransactionalProducer, commit: bool, tv2: bool },
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asking {
    Client(Party, u64),
    Leader(Caller, u64),
}

/// What waits for the transaction coordinator's word at a partition's leader.
#[derive(Debug)]
pub(crate) struct Verifying {
    pub(crate) number: u64,
    pub(crate) guard: VerificationGuard,
    pub(crate) until: i64,
    pub(crate) write: TransactionalWrite,
}

/// A write within a transaction, on its way into a partition.
#[derive(Debug, Clone)]
pub(crate) struct TransactionalWrite {
    pub(crate) client: usize,
    pub(crate) number: u64,
    pub(crate) slot: usize,
    /// The topic as the client knows it.
    pub(crate) generation: u64,
    /// The transactional id.
    pub(crate) id: String,
    pub(crate) producer: TransactionalProducer,
    pub(crate) tv2: bool,
    pub(crate) what: Content,
}

/// What is written.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    Records {
        batch: Bytes,
        ids: Vec<u64>,
    },
    /// The offset of the producer's group.
    Offset(i64),
}

/// A marker that is appended and not known to be committed.
#[derive(Debug)]
pub(crate) struct Marking {
    pub(crate) slot: usize,
    pub(crate) key: MarkerKey,
    pub(crate) appended: Appended,
}

/// A marker on its way.
#[derive(Debug, Clone)]
pub(crate) struct MarkerItem {
    pub(crate) token: TransactionToken,
    pub(crate) marker: EndMarker,
    pub(crate) partition: TopicPartition,
    pub(crate) attempt: u64,
    due: i64,
}

/// What is to be told and done now.
#[derive(Debug, Default)]
pub(crate) struct Driven {
    pub(crate) told: Vec<(Asking, TransactionReply)>,
    pub(crate) appended: Option<(Appended, Written)>,
    pub(crate) timed_out: u64,
}

/// The coordinator in one term of leading.
pub(crate) struct TransactionDriver {
    pub(crate) term: Term,
    machine: TransactionMachine,
    queue: VecDeque<(TransactionToken, Vec<OffsetsRecord>)>,
    out: Option<(Vec<TransactionToken>, Appended, i64)>,
    asked: BTreeMap<Waiter, Asking>,
    next_waiter: u64,
    loaded_to: Option<Offset>,
    pub(crate) markers: Vec<MarkerItem>,
}

impl fmt::Debug for TransactionDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionDriver").field("term", &self.term).finish_non_exhaustive()
    }
}

impl TransactionDriver {
    /// Loads all ids from the partition, as a broker does that has become its leader.
    pub(crate) fn load(partition: &Partition, term: Term) -> Checked<Self> {
        let config =
            TransactionConfig { abort_interval_ms: ABORT_INTERVAL_MS, ..TransactionConfig::default() };
        let mut machine = TransactionMachine::new(config, term.leader_epoch.get());
        let loaded_to = load(partition, |entry| match entry {
            LoadedEntry::Record { key, value, producer: None, .. } => {
                machine.replay(key.as_ref(), value.as_ref()).map_err(|error| error.to_string())
            }
            _ => Err("a part of a transaction".to_owned()),
        })
        .map_err(|what| Violation::new(COMMITTED, format!("the state topic cannot be loaded: {what}")))?;
        Ok(Self {
            term,
            machine,
            queue: VecDeque::new(),
            out: None,
            asked: BTreeMap::new(),
            next_waiter: 0,
            loaded_to: Some(loaded_to),
            markers: Vec::new(),
        })
    }

    /// How many transactions are not over.
    pub(crate) fn unfinished(&self) -> usize {
        let stats = self.machine.stats();
        stats.ongoing + stats.prepared + stats.appends + usize::from(self.loaded_to.is_some())
    }

    /// Takes a call; the answer comes with [`Self::drive`], or at once.
    pub(crate) fn call(
        &mut self,
        now: Now,
        asking: Asking,
        id: &str,
        call: TransactionCall,
        ids: &mut i64,
    ) -> Vec<(Asking, TransactionReply)> {
        if self.loaded_to.is_some() {
            let error = ErrorCode::CoordinatorLoadInProgress;
            return vec![(asking, failure(&call, error))];
        }
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        let transactional_id = id.to_owned();
        let version = |tv2| if tv2 { ClientVersion::V2 } else { ClientVersion::V0 };
        let mut out = Vec::new();
        match call {
            TransactionCall::Init { timeout_ms, expected } => {
                let request = InitProducer { transactional_id, timeout_ms, expected };
                self.machine.init_producer_id(now, waiter, request, &mut out);
            }
            TransactionCall::Add { producer, partitions, tv2 } => {
                let partitions: Partitions = partitions.into_iter().collect();
                let request = AddPartitions { transactional_id, producer, partitions, version: version(tv2) };
                self.machine.add_partitions(now, waiter, &request, &mut out);
            }
            TransactionCall::Verify { producer, partition } => {
                let partitions = std::iter::once(&partition);
                let verified = self.machine.verify_partitions(id, producer, partitions);
                let code = verified
                    .map_or_else(|error| error, |codes| codes.first().copied().unwrap_or(ErrorCode::None));
                return vec![(asking, TransactionReply::Add(code))];
            }
            TransactionCall::End { producer, commit, tv2 } => {
                let request = EndTransaction { transactional_id, producer, commit, version: version(tv2) };
                self.machine.end_transaction(now, waiter, request, &mut out);
            }
        }
        self.asked.insert(waiter, asking);
        self.take(now, out, ids)
    }

    /// Carries commands out. Returns the answers.
    fn take(
        &mut self,
        now: Now,
        commands: Vec<TransactionCommand>,
        ids: &mut i64,
    ) -> Vec<(Asking, TransactionReply)> {
        let mut told = Vec::new();
        let mut commands = VecDeque::from(commands);
        while let Some(command) = commands.pop_front() {
            match command {
                TransactionCommand::Respond { waiter, reply } => {
                    told.extend(self.asked.remove(&waiter).map(|asking| (asking, reply)));
                }
                TransactionCommand::Append { token, records } => self.queue.push_back((token, records)),
                TransactionCommand::NewProducerId { token } => {
                    let mut out = Vec::new();
                    self.machine.producer_id(now, token, Ok(ProducerId::new(*ids)), &mut out);
                    *ids += 1;
                    commands.extend(out);
                }
                TransactionCommand::SendMarkers { token, marker, partitions, .. } => {
                    let due = now.monotonic_ms;
                    self.markers.extend(partitions.into_iter().map(|partition| MarkerItem {
                        token,
                        marker,
                        partition,
                        attempt: 0,
                        due,
                    }));
                }
            }
        }
        told
    }

    /// Goes on: with time, and with what waits for the log, one append at a time.
    pub(crate) fn drive(
        &mut self,
        partition: &Arc<Partition>,
        now: Now,
        rules: Rules,
        ids: &mut i64,
    ) -> Checked<Driven> {
        let mut driven = Driven::default();
        if let Some(end) = self.loaded_to {
            // Rule 18: what is not committed may be lost yet, and a marker cannot be taken back.
            if partition.high_watermark() < end && rules.holds(Rule::CoordinatorLoad) {
                return Ok(driven);
            }
            self.loaded_to = None;
            let mut commands = Vec::new();
            self.machine.loaded(now, &mut commands);
            driven.told.extend(self.take(now, commands, ids));
        }
        if self.machine.next_deadline_ms().is_some_and(|due| due <= now.monotonic_ms) {
            let mut commands = Vec::new();
            self.machine.tick(now, &mut commands);
            driven.timed_out = commands.iter().filter(|command| is_abort(command)).count() as u64;
            driven.told.extend(self.take(now, commands, ids));
        }
        if let Some((tokens, appended, until)) = self.out.take() {
            let result = match partition.is_committed(&appended) {
                Ok(true) => Some(Ok(())),
                Ok(false) if until < now.monotonic_ms => Some(Err(ErrorCode::CoordinatorNotAvailable)),
                Ok(false) => None,
                Err(_) => Some(Err(ErrorCode::NotCoordinator)),
            };
            match result {
                Some(result) => driven.told.extend(self.done(now, &tokens, result, ids)),
                None => {
                    self.out = Some((tokens, appended, until));
                    return Ok(driven);
                }
            }
        }
        if self.queue.is_empty() {
            return Ok(driven);
        }
        let (mut tokens, mut records) = (Vec::new(), Vec::new());
        for (token, more) in std::mem::take(&mut self.queue) {
            tokens.push(token);
            records.extend(more);
        }
        let options = AppendOptions { origin: Origin::Coordinator, effort: Effort::Any, guard: None };
        let (result, batch) = append_records(partition, (self.term, rules), &records, None, &options)?;
        match result {
            Ok(appended) => {
                self.out = Some((tokens, appended, now.monotonic_ms + APPEND_MS));
                driven.appended = Some((appended, Written::Batch(batch)));
            }
            Err(_) => {
                let error = Err(ErrorCode::CoordinatorNotAvailable);
                driven.told.extend(self.done(now, &tokens, error, ids));
            }
        }
        Ok(driven)
    }

    fn done(
        &mut self,
        now: Now,
        tokens: &[TransactionToken],
        result: Result<(), ErrorCode>,
        ids: &mut i64,
    ) -> Vec<(Asking, TransactionReply)> {
        let mut commands = Vec::new();
        for token in tokens {
            self.machine.appended(now, *token, result, &mut commands);
        }
        self.take(now, commands, ids)
    }

    /// The markers that are to be sent now. A term goes on under a newer leader epoch, which the markers have then.
    pub(crate) fn due_markers(&mut self, ms: i64, now: Term) -> Vec<MarkerItem> {
        let term = if now == self.term { now } else { self.term };
        let mut due = Vec::new();
        for item in self.markers.iter_mut().filter(|item| item.due <= ms) {
            item.due = ms + MARKER_MS;
            item.attempt += 1;
            item.marker.coordinator_epoch = term.leader_epoch.get();
            due.push(item.clone());
        }
        due
    }

    /// A marker is to be sent again soon.
    pub(crate) fn refused(&mut self, key: &MarkerKey, ms: i64) {
        let is_it = |item: &&mut MarkerItem| item.token == key.token && item.attempt == key.attempt;
        if let Some(item) = self.markers.iter_mut().filter(is_it).find(|item| item.partition == key.partition)
        {
            item.due = ms + 20;
        }
    }

    /// A marker is written, or its partition is gone.
    pub(crate) fn written(
        &mut self,
        now: Now,
        token: TransactionToken,
        partition: &TopicPartition,
        ids: &mut i64,
    ) -> Vec<(Asking, TransactionReply)> {
        self.markers.retain(|item| item.token != token || item.partition != *partition);
        let mut commands = Vec::new();
        self.machine.marker_written(now, token, partition, &mut commands);
        self.take(now, commands, ids)
    }

    /// Whether this very attempt to write a marker is still waited for.
    pub(crate) fn waits_for(&self, key: &MarkerKey) -> bool {
        self.markers.iter().any(|item| {
            item.token == key.token && item.partition == key.partition && item.attempt == key.attempt
        })
    }
}

/// Whether a command aborts a transaction.
fn is_abort(command: &TransactionCommand) -> bool {
    let TransactionCommand::Append { records, .. } = command else { return false };
    let state = |record: &OffsetsRecord| record.value.as_ref().and_then(|value| value.get(STATE_AT).copied());
    records.iter().any(|record| state(record) == Some(PREPARE_ABORT))
}

/// The refusal of a call.
pub(crate) const fn failure(call: &TransactionCall, error: ErrorCode) -> TransactionReply {
    match call {
        TransactionCall::Init { .. } => TransactionReply::Init(Err(error)),
        TransactionCall::Add { .. } | TransactionCall::Verify { .. } => TransactionReply::Add(error),
        TransactionCall::End { .. } => TransactionReply::End(Err(error)),
    }
}
