//! Tests of the machine: a world around it, and one file per matter.

mod admin;
mod ends;
mod ids;
mod simulation;
mod touched;

use std::collections::{HashMap, VecDeque};

use super::*;
use crate::transaction::metadata::ClientVersion;
use crate::transaction::partitions::Partitions;
use towpath_types::ProducerEpoch;

const WALL_MS: i64 = 1_700_000_000_000;
const TIMEOUT_MS: i32 = 60_000;
const COORDINATOR_EPOCH: i32 = 3;

/// Markers that are to be sent.
type Markers = (TransactionToken, EndMarker, Vec<TopicPartition>);

/// A machine with a clock, a log, a supply of producer ids and somebody who remembers the answers.
struct World {
    machine: TransactionMachine,
    now_ms: i64,
    next_waiter: u64,
    next_id: i64,
    replies: HashMap<Waiter, TransactionReply>,
    appends: VecDeque<(TransactionToken, Vec<OffsetsRecord>)>,
    asking: VecDeque<TransactionToken>,
    markers: VecDeque<Markers>,
    /// What is committed.
    log: Vec<OffsetsRecord>,
    /// Whether appends are committed, and ids there, as soon as they are asked for.
    is_instant: bool,
}

fn producer(id: i64, epoch: i16) -> TransactionalProducer {
    TransactionalProducer { id: ProducerId::new(id), epoch: ProducerEpoch::new(epoch) }
}

fn partition(topic: &str, index: i32) -> TopicPartition {
    TopicPartition::new(topic.parse().unwrap(), index)
}

fn partitions(topic: &str, indexes: impl IntoIterator<Item = i32>) -> Partitions {
    indexes.into_iter().map(|index| partition(topic, index)).collect()
}

impl World {
    fn new() -> Self {
        Self::with_config(TransactionConfig::default())
    }

    fn with_config(config: TransactionConfig) -> Self {
        let mut world = Self {
            machine: TransactionMachine::new(config, COORDINATOR_EPOCH),
            now_ms: 0,
            next_waiter: 0,
            next_id: 1_000,
            replies: HashMap::new(),
            appends: VecDeque::new(),
            asking: VecDeque::new(),
            markers: VecDeque::new(),
            log: Vec::new(),
            is_instant: true,
        };
        world.act(|machine, now, out| machine.loaded(now, out));
        world
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    fn act(&mut self, act: impl FnOnce(&mut TransactionMachine, Now, &mut Vec<TransactionCommand>)) {
        let mut out = Vec::new();
        let now = self.now();
        act(&mut self.machine, now, &mut out);
        for command in out {
            match command {
                TransactionCommand::Respond { waiter, reply } => {
                    assert_eq!(self.replies.insert(waiter, reply), None, "{waiter:?} is answered twice");
                }
                TransactionCommand::Append { token, records } => {
                    assert!(!records.is_empty());
                    self.appends.push_back((token, records));
                }
                TransactionCommand::NewProducerId { token } => self.asking.push_back(token),
                TransactionCommand::SendMarkers { token, marker, partitions, .. } => {
                    assert!(!partitions.is_empty());
                    self.markers.push_back((token, marker, partitions));
                }
            }
        }
        if self.is_instant {
            self.settle();
        }
    }

    fn settle(&mut self) {
        while !self.appends.is_empty() || !self.asking.is_empty() {
            self.finish_append(Ok(()));
            self.give_id();
        }
    }

    fn finish_append(&mut self, result: Result<(), ErrorCode>) {
        let Some((token, records)) = self.appends.pop_front() else { return };
        if result.is_ok() {
            self.log.extend(records);
        }
        self.act(|machine, now, out| machine.appended(now, token, result, out));
    }

    fn give_id(&mut self) {
        let Some(token) = self.asking.pop_front() else { return };
        let id = ProducerId::new(self.next_id);
        self.next_id += 1;
        self.act(|machine, now, out| machine.producer_id(now, token, Ok(id), out));
    }

    fn ask(
        &mut self,
        act: impl FnOnce(&mut TransactionMachine, Now, Waiter, &mut Vec<TransactionCommand>),
    ) -> Waiter {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.act(|machine, now, out| act(machine, now, waiter, out));
        waiter
    }

    fn begin_init(&mut self, id: &str, expected: Option<TransactionalProducer>) -> Waiter {
        let request = InitProducer { transactional_id: id.into(), timeout_ms: TIMEOUT_MS, expected };
        self.ask(|machine, now, waiter, out| machine.init_producer_id(now, waiter, request, out))
    }

    fn init(&mut self, id: &str) -> Result<TransactionalProducer, ErrorCode> {
        self.init_as(id, None)
    }

    fn init_as(
        &mut self,
        id: &str,
        expected: Option<TransactionalProducer>,
    ) -> Result<TransactionalProducer, ErrorCode> {
        let waiter = self.begin_init(id, expected);
        match self.replies.remove(&waiter) {
            Some(TransactionReply::Init(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    fn begin_add(
        &mut self,
        id: &str,
        producer: TransactionalProducer,
        partitions: Partitions,
        version: ClientVersion,
    ) -> Waiter {
        let request = AddPartitions { transactional_id: id.into(), producer, partitions, version };
        self.ask(|machine, now, waiter, out| machine.add_partitions(now, waiter, &request, out))
    }

    fn add(&mut self, id: &str, producer: TransactionalProducer, partitions: Partitions) -> ErrorCode {
        let waiter = self.begin_add(id, producer, partitions, ClientVersion::V2);
        match self.replies.remove(&waiter) {
            Some(TransactionReply::Add(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn begin_end(
        &mut self,
        id: &str,
        producer: TransactionalProducer,
        commit: bool,
        version: ClientVersion,
    ) -> Waiter {
        let request = EndTransaction { transactional_id: id.into(), producer, commit, version };
        self.ask(|machine, now, waiter, out| machine.end_transaction(now, waiter, request, out))
    }

    fn end(
        &mut self,
        id: &str,
        producer: TransactionalProducer,
        commit: bool,
        version: ClientVersion,
    ) -> Result<TransactionalProducer, ErrorCode> {
        let waiter = self.begin_end(id, producer, commit, version);
        match self.replies.remove(&waiter) {
            Some(TransactionReply::End(result)) => result,
            other => panic!("{other:?}"),
        }
    }

    /// Writes all markers that are to be sent.
    fn write_markers(&mut self) {
        while let Some((token, _, partitions)) = self.markers.pop_front() {
            for partition in partitions {
                self.act(|machine, now, out| machine.marker_written(now, token, &partition, out));
            }
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        let end = self.now_ms + milliseconds;
        while let Some(deadline) = self.machine.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            self.act(|machine, now, out| machine.tick(now, out));
        }
        self.now_ms = end;
    }

    fn state(&self, id: &str) -> TransactionState {
        self.machine.id(id).unwrap().0
    }

    /// The next coordinator, which knows what the log says.
    fn reloaded(&self) -> Self {
        let mut next = Self::new();
        next.machine = TransactionMachine::new(self.machine.config.clone(), COORDINATOR_EPOCH + 1);
        next.now_ms = self.now_ms;
        next.next_id = self.next_id + 1_000;
        next.log.clone_from(&self.log);
        for record in &self.log {
            next.machine.replay(Some(&record.key), record.value.as_ref()).unwrap();
        }
        next.act(|machine, now, out| machine.loaded(now, out));
        next
    }
}
