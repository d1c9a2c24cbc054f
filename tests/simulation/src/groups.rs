//! The group coordinator of the offsets topic: the machine itself, over a replicated partition.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use towpath_coordinator::machine::AppendToken;
use towpath_coordinator::{
    Command, EndMarker, GroupConfig, GroupMachine, Now, OffsetsRecord, Reply, TransactionalProducer, Waiter,
};
use towpath_log::{AppendOptions, Effort, VerificationGuard};
use towpath_record::Origin;
use towpath_replica::{Appended, Partition, PartitionError};
use towpath_types::{Offset, Rule, Rules, Term};
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::txn_offset_commit::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
use towpath_wire::{ErrorCode, OffsetCommitRequest, TxnOffsetCommitRequest};
use uuid::Uuid;

use crate::coordination::{Written, append_records, load, log_marker};
use crate::net::{MarkerKey, Party};
use crate::violation::{Checked, GROUPS, Violation};

/// The group of the reader without transactions.
pub(crate) const GROUP: &str = "readers";
const TOPIC: &str = "t0";
/// How long an append may take.
const APPEND_MS: i64 = 500;

/// What is appended in one piece.
enum Work {
    Records(Vec<OffsetsRecord>, Option<TransactionalProducer>),
    Marker(EndMarker),
}

/// Who waits for what.
#[derive(Debug, Clone)]
enum Asker {
    Reader(i64),
    Producer(Party, u64),
    Coordinator(MarkerKey),
}

/// What somebody is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// The reader: an offset is committed.
    Reader(i64),
    /// A transactional producer.
    Producer(Party, u64, ErrorCode),
    /// A transaction coordinator: its marker is written, or not.
    Coordinator(MarkerKey, ErrorCode),
}

/// The answers that are due now, and what was appended.
type Driven = (Vec<Told>, Option<(Appended, Written)>);

/// The coordinator in one term of leading.
pub(crate) struct Coordinator {
    pub(crate) term: Term,
    machine: GroupMachine,
    queue: VecDeque<(AppendToken, Work)>,
    out: Option<(AppendToken, Appended, i64)>,
    asked: Vec<(Waiter, Asker)>,
    next_waiter: u64,
    /// Until all before is committed, nothing is served.
    loaded_to: Option<Offset>,
    proofs: BTreeMap<(i64, i16), VerificationGuard>,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("term", &self.term).finish_non_exhaustive()
    }
}

const fn now(ms: i64) -> Now {
    Now { monotonic_ms: ms, wall_ms: ms }
}

impl Coordinator {
    /// Loads all groups from the partition, as a broker does that has become its leader.
    pub(crate) fn load(partition: &Partition, term: Term) -> Checked<Self> {
        let mut next = 0u128;
        let ids = Box::new(move || {
            next += 1;
            Uuid::from_u128(next)
        });
        let mut machine = GroupMachine::new(GroupConfig::default(), ids);
        let loaded_to = load(partition, |entry| machine.replay(entry).map_err(|error| error.to_string()))
            .map_err(|what| Violation::new(GROUPS, what))?;
        Ok(Self {
            term,
            machine,
            queue: VecDeque::new(),
            out: None,
            asked: Vec::new(),
            next_waiter: 0,
            loaded_to: Some(loaded_to),
            proofs: BTreeMap::new(),
        })
    }

    /// Whether it serves.
    pub(crate) const fn is_active(&self) -> bool {
        self.loaded_to.is_none()
    }

    fn waiter(&mut self, asker: Asker) -> Waiter {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.asked.push((waiter, asker));
        waiter
    }

    /// A client commits an offset.
    pub(crate) fn commit(&mut self, offset: i64, ms: i64) -> Vec<Told> {
        if !self.is_active() {
            return Vec::new();
        }
        let waiter = self.waiter(Asker::Reader(offset));
        let request = OffsetCommitRequest {
            group_id: GROUP.to_owned(),
            generation_id_or_member_epoch: -1,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![OffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let mut commands = Vec::new();
        self.machine.commit_offsets(now(ms), waiter, &request, 8, &mut commands);
        self.take(commands)
    }

    /// A producer commits an offset of its group within its transaction, which was verified.
    pub(crate) fn commit_within(
        &mut self,
        client: (Party, u64),
        (group, producer, offset): (&str, TransactionalProducer, i64),
        guard: Option<VerificationGuard>,
        ms: i64,
    ) -> Vec<Told> {
        if !self.is_active() {
            return vec![Told::Producer(client.0, client.1, ErrorCode::CoordinatorLoadInProgress)];
        }
        if let Some(guard) = guard {
            self.proofs.insert((producer.id.get(), producer.epoch.get()), guard);
        }
        let waiter = self.waiter(Asker::Producer(client.0, client.1));
        let request = TxnOffsetCommitRequest {
            transactional_id: group.to_owned(),
            group_id: group.to_owned(),
            producer_id: producer.id.get(),
            producer_epoch: producer.epoch.get(),
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: TOPIC.to_owned(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let mut commands = Vec::new();
        self.machine.txn_offset_commit(now(ms), waiter, &request, &mut commands);
        self.take(commands)
    }

    /// A transaction coordinator ends a producer's transaction.
    pub(crate) fn end(&mut self, key: MarkerKey, marker: EndMarker) -> Vec<Told> {
        if !self.is_active() {
            return vec![Told::Coordinator(key, ErrorCode::NotLeaderOrFollower)];
        }
        let waiter = self.waiter(Asker::Coordinator(key));
        let mut commands = Vec::new();
        self.machine.end_transaction(waiter, marker, &mut commands);
        self.take(commands)
    }

    /// The offset that a group has, if any.
    pub(crate) fn committed(&self, group: &str) -> Option<i64> {
        let request = OffsetFetchRequestGroup {
            group_id: group.to_owned(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: TOPIC.to_owned(),
                partition_indexes: vec![0],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        };
        let answer = self.machine.fetch_offsets(&request, false);
        let found = answer.topics.first()?.partitions.first()?.committed_offset;
        (found >= 0).then_some(found)
    }

    /// Carries commands out. Returns the answers.
    fn take(&mut self, commands: Vec<Command>) -> Vec<Told> {
        let mut told = Vec::new();
        for command in commands {
            match command {
                Command::Append { token, records, producer } => {
                    self.queue.push_back((token, Work::Records(records, producer)));
                }
                Command::AppendMarker { token, marker } => {
                    self.queue.push_back((token, Work::Marker(marker)));
                }
                Command::Respond { waiter, reply } => {
                    let place = self.asked.iter().position(|(asked, _)| *asked == waiter);
                    let asker = place.map(|place| self.asked.swap_remove(place).1);
                    told.extend(asker.and_then(|asker| answer(asker, &reply)));
                }
                // Nobody here subscribes by a pattern.
                Command::ResolveRegexes { .. } => {}
            }
        }
        told
    }

    /// Goes on with what waits for the log: one append at a time.
    pub(crate) fn drive(&mut self, partition: &Arc<Partition>, ms: i64, rules: Rules) -> Checked<Driven> {
        let mut told = Vec::new();
        if let Some(end) = self.loaded_to {
            // Rule 18.
            if partition.high_watermark() < end && rules.holds(Rule::CoordinatorLoad) {
                return Ok((told, None));
            }
            self.loaded_to = None;
            let mut commands = Vec::new();
            self.machine.loaded(now(ms), &mut commands);
            told.extend(self.take(commands));
        }
        if let Some((token, appended, until)) = self.out.take() {
            let result = match partition.is_committed(&appended) {
                Ok(true) => Some(Ok(())),
                Ok(false) if until < ms => Some(Err(ErrorCode::CoordinatorNotAvailable)),
                Ok(false) => None,
                Err(_) => Some(Err(ErrorCode::NotCoordinator)),
            };
            match result {
                Some(result) => told.extend(self.done(token, result, ms)),
                None => {
                    self.out = Some((token, appended, until));
                    return Ok((told, None));
                }
            }
        }
        let Some((token, work)) = self.queue.pop_front() else { return Ok((told, None)) };
        let (result, written) = match work {
            Work::Records(records, producer) => {
                let key = producer.map(|producer| (producer.id.get(), producer.epoch.get()));
                let guard = key.and_then(|key| self.proofs.remove(&key));
                let options = AppendOptions { origin: Origin::Coordinator, effort: Effort::Any, guard };
                let (result, batch) =
                    append_records(partition, (self.term, rules), &records, producer, &options)?;
                (result, Written::Batch(batch))
            }
            Work::Marker(marker) => {
                let marker = log_marker(&marker);
                let result = match rules.holds(Rule::CoordinatorTerm) {
                    true => partition.append_marker_in_term(self.term, &marker),
                    false => partition.append_marker(&marker),
                };
                (result, Written::Marker(marker))
            }
        };
        match result {
            Ok(appended) => {
                self.out = Some((token, appended, ms + APPEND_MS));
                Ok((told, Some((appended, written))))
            }
            Err(error) => {
                let code = match error {
                    PartitionError::Append(_) => ErrorCode::InvalidTxnState,
                    _ => ErrorCode::CoordinatorNotAvailable,
                };
                told.extend(self.done(token, Err(code), ms));
                Ok((told, None))
            }
        }
    }

    fn done(&mut self, token: AppendToken, result: Result<(), ErrorCode>, ms: i64) -> Vec<Told> {
        let mut commands = Vec::new();
        self.machine.appended(now(ms), token, result, &mut commands);
        self.take(commands)
    }
}

fn answer(asker: Asker, reply: &Reply) -> Option<Told> {
    match (asker, reply) {
        (Asker::Reader(offset), Reply::Commit(response)) => {
            let mut partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.all(|partition| partition.error_code == 0).then_some(Told::Reader(offset))
        }
        (Asker::Producer(client, number), Reply::TransactionalCommit(response)) => {
            let codes = response.topics.iter().flat_map(|topic| &topic.partitions);
            let code = codes.map(|partition| partition.error_code).find(|code| *code != 0).unwrap_or(0);
            Some(Told::Producer(client, number, ErrorCode::from_code(code)))
        }
        (Asker::Coordinator(key), Reply::EndTransaction(code)) => Some(Told::Coordinator(key, *code)),
        _ => None,
    }
}

/// What the client of the group was told.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct GroupLedger {
    /// The largest offset whose commit was acknowledged.
    pub(crate) acknowledged: i64,
    /// The largest offset that was ever asked to be committed.
    pub(crate) asked: i64,
}
