//! Transactional producers: of both versions, some with the same transactional id, some that fall asleep or die.

use bytes::Bytes;
use std::collections::BTreeMap;

use rand::Rng as _;
use towpath_coordinator::TransactionalProducer;
use towpath_coordinator::transaction::TransactionReply;
use towpath_types::{TopicName, TopicPartition};
use towpath_wire::ErrorCode;

use super::{Event, Simulation, trace};
use crate::net::{Message, Party, Refusal};
use crate::node::Kind;
use crate::records::{OF_GROUP, transactional_batch, transactional_id};
use crate::transactions::{Asking, Content, TransactionCall, TransactionalWrite};
use crate::violation::{Checked, INTERNAL, Violation};

/// How long a producer waits for an answer.
const REQUEST_MS: i64 = 200;

/// The transactional id, which is also the name of the producer's group.
pub(super) fn name(id: usize) -> String {
    format!("id-{id}")
}

/// How far a producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Asks who it is.
    Init,
    /// Has no transaction.
    Rest,
    /// Says which partitions it will write to, as it has to before version 2.
    Add,
    Write,
    /// Says that it will commit offsets, as it has to before version 2.
    AddOffsets,
    Offsets,
    End,
    /// Does nothing any more.
    Parked,
}

/// A batch that is to be written.
#[derive(Debug)]
struct Out {
    number: u64,
    slot: usize,
    generation: u64,
    batch: Bytes,
    ids: Vec<u64>,
    until: i64,
    attempts: u32,
    is_written: bool,
}

/// A transactional producer.
#[derive(Debug)]
pub(super) struct Transactor {
    id: usize,
    tv2: bool,
    producer: Option<TransactionalProducer>,
    /// Who it says it was, when it asks for another epoch.
    expected: Option<TransactionalProducer>,
    step: Step,
    /// Its transaction.
    number: u64,
    commits: bool,
    with_offsets: bool,
    /// What became of some record is not known.
    is_tainted: bool,
    writes: Vec<Out>,
    sequences: BTreeMap<usize, i32>,
    /// The request that is out, and until when it is waited for.
    request: u64,
    until: i64,
    attempts: u32,
    asleep_until: i64,
    /// Transactions that ended as it wanted since the cluster was healed.
    pub(super) since_heal: u64,
}

impl Transactor {
    pub(super) fn is_parked(&self) -> bool {
        self.step == Step::Parked
    }

    /// Whether the answer to a request is still waited for.
    pub(super) fn waits_for(&self, request: u64) -> bool {
        self.request == request && self.until != 0
    }

    fn go(&mut self, step: Step) {
        (self.step, self.until, self.attempts) = (step, 0, 0);
    }

    /// Another process takes its place.
    fn restart(&mut self, until: i64) {
        self.producer = None;
        self.expected = None;
        self.is_tainted = false;
        self.writes.clear();
        self.sequences.clear();
        self.go(Step::Init);
        self.until = until;
    }

    fn abort(&mut self) {
        self.commits = false;
        self.is_tainted = true;
        self.go(Step::End);
    }
}

impl Simulation {
    pub(super) fn begin_transactors(&mut self) {
        for index in 0..self.profile.transactors {
            let tv2 = self.chance(self.profile.tv2);
            // The third and the fourth fight with the first and the second.
            let id = index % 2;
            self.transactors.push(Transactor {
                id,
                tv2,
                producer: None,
                expected: None,
                step: Step::Init,
                number: 0,
                commits: false,
                with_offsets: false,
                is_tainted: false,
                writes: Vec::new(),
                sequences: BTreeMap::new(),
                request: 0,
                until: 0,
                attempts: 0,
                asleep_until: 0,
                since_heal: 0,
            });
            let after = self.between(180, 260) + if index > 1 { self.between(100, 700) } else { 0 };
            self.plan(after, Event::Transact(index));
        }
    }

    pub(super) fn transact(&mut self, index: usize) -> Checked {
        if self.transactors[index].is_parked() {
            return Ok(());
        }
        let again = self.between(15, 45);
        self.plan(again, Event::Transact(index));
        let transactor = &self.transactors[index];
        if transactor.asleep_until > self.now || transactor.until > self.now {
            return Ok(());
        }
        self.proceed(index)
    }

    /// Does what is next.
    fn proceed(&mut self, index: usize) -> Checked {
        if self.transactors[index].asleep_until > self.now {
            return Ok(());
        }
        if !self.settling && self.transactors[index].producer.is_some() && self.chance(self.profile.zombies) {
            let until = self.now + self.between(30, 900);
            if self.chance(300) {
                trace!(self, "producer {index} dies");
                self.transactors[index].restart(until.min(self.now + 200));
            } else {
                trace!(self, "producer {index} sleeps until {until}");
                self.transactors[index].asleep_until = until;
            }
            return Ok(());
        }
        match self.transactors[index].step {
            Step::Init | Step::Rest if self.may_park(index) => {
                self.transactors[index].step = Step::Parked;
                Ok(())
            }
            Step::Parked => Ok(()),
            Step::Init => {
                let timeout_ms = self.random.random_range(150..600);
                let expected = self.transactors[index].expected;
                self.ask_coordinator(index, TransactionCall::Init { timeout_ms, expected })
            }
            Step::Rest => self.begin_transaction(index),
            Step::Add => {
                let slots = self.transactors[index].writes.iter().map(|out| out.slot).collect();
                self.add(index, slots)
            }
            Step::AddOffsets => self.add(index, vec![self.offsets]),
            Step::Write => self.write(index),
            Step::Offsets => self.write_offset(index),
            Step::End => {
                let transactor = &self.transactors[index];
                let (number, commit, tv2) = (transactor.number, transactor.commits, transactor.tv2);
                let Some(producer) = transactor.producer else { return Ok(()) };
                self.transactions.asks(number, commit);
                trace!(self, "producer {index} asks to end {number}: commit is {commit}");
                self.ask_coordinator(index, TransactionCall::End { producer, commit, tv2 })
            }
        }
    }

    fn patience(&self) -> u32 {
        if self.settling { 5 } else { self.profile.patience }
    }

    /// Whether a producer need not go on: at the end, and where another one has its id.
    fn may_park(&self, index: usize) -> bool {
        let transactor = &self.transactors[index];
        let is_second = index > transactor.id;
        self.is_closing || (self.settling && is_second && transactor.step == Step::Init)
    }

    fn ask_coordinator(&mut self, index: usize, call: TransactionCall) -> Checked {
        let Some(slot) = self.coordination else { return Ok(()) };
        let number = self.next_request;
        self.next_request += 1;
        let until = self.now + REQUEST_MS;
        let transactor = &mut self.transactors[index];
        (transactor.request, transactor.until) = (number, until);
        let id = name(transactor.id);
        let leader = self.known_leader(slot);
        let Some(leader) = leader else {
            self.transactors[index].until = self.now + 20;
            return Ok(());
        };
        let asking = Asking::Client(Party::Transactor(index), number);
        self.send(Party::Transactor(index), Party::Node(leader), Message::Coordinate { asking, id, call });
        Ok(())
    }

    fn add(&mut self, index: usize, slots: Vec<usize>) -> Checked {
        let Some(producer) = self.transactors[index].producer else { return Ok(()) };
        let mut partitions = Vec::with_capacity(slots.len());
        for slot in slots {
            let name = TopicName::new(&self.slots[slot].name)
                .map_err(|error| Violation::new(INTERNAL, error.to_string()))?;
            partitions.push(TopicPartition::new(name, self.slots[slot].index));
        }
        self.ask_coordinator(index, TransactionCall::Add { producer, partitions, tv2: false })
    }

    fn begin_transaction(&mut self, index: usize) -> Checked {
        if self.is_quiet {
            return Ok(());
        }
        let data: Vec<usize> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].kind == Kind::Data).collect();
        let count = self.random.random_range(1..=data.len().min(3));
        // Scripts have them commit, and write everywhere.
        let (count, with_offsets, commits) = match self.is_calm {
            true => (data.len(), false, true),
            false => (count, self.chance(500), self.chance(750)),
        };
        let id = self.transactors[index].id;
        let number = self.transactions.begin(id);
        let Some(producer) = self.transactors[index].producer else { return Ok(()) };
        let first = self.random.random_range(0..data.len());
        let mut writes = Vec::with_capacity(count);
        let mut place = 0;
        for nth in 0..count {
            let slot = data[(first + nth) % data.len()];
            let records = self.random.random_range(1..=2u64);
            let ids: Vec<u64> = (place..place + records)
                .map(|place| transactional_id(producer.id.get() as u64, number, place))
                .collect();
            place += records;
            debug_assert!(place < OF_GROUP);
            let sequence = self.transactors[index].sequences.entry(slot).or_default();
            let batch = transactional_batch(producer, &ids, *sequence, self.slots[slot].is_compacted)?;
            *sequence += i32::try_from(records).unwrap_or(0);
            let generation = self.slots[slot].generation;
            writes.push(Out {
                number: self.next_request,
                slot,
                generation,
                batch,
                ids,
                until: 0,
                attempts: 0,
                is_written: false,
            });
            self.next_request += 1;
        }
        trace!(self, "producer {index} ({producer:?}) begins transaction {number} in {count} partitions");
        let transactor = &mut self.transactors[index];
        transactor.number = number;
        (transactor.with_offsets, transactor.commits, transactor.writes) = (with_offsets, commits, writes);
        transactor.go(if transactor.tv2 { Step::Write } else { Step::Add });
        self.proceed(index)
    }

    fn write(&mut self, index: usize) -> Checked {
        let (now, patience) = (self.now, self.patience());
        let mut sends = Vec::new();
        let transactor = &mut self.transactors[index];
        let Some(producer) = transactor.producer else { return Ok(()) };
        for out in &mut transactor.writes {
            if out.is_written || out.until > now {
                continue;
            }
            out.attempts += 1;
            out.until = now + REQUEST_MS;
            sends.push(TransactionalWrite {
                client: index,
                number: out.number,
                slot: out.slot,
                generation: out.generation,
                id: name(transactor.id),
                producer,
                tv2: transactor.tv2,
                what: Content::Records { batch: out.batch.clone(), ids: out.ids.clone() },
            });
        }
        if transactor.writes.iter().any(|out| out.attempts > patience) {
            transactor.abort();
            return Ok(());
        }
        for write in sends {
            self.send_write(index, write);
        }
        Ok(())
    }

    fn send_write(&mut self, index: usize, write: TransactionalWrite) {
        if let Some(leader) = self.known_leader(write.slot) {
            self.send(Party::Transactor(index), Party::Node(leader), Message::Write(Box::new(write)));
        }
    }

    fn write_offset(&mut self, index: usize) -> Checked {
        let (number, slot) = (self.next_request, self.offsets);
        self.next_request += 1;
        let (until, patience) = (self.now + REQUEST_MS, self.patience());
        let transactor = &mut self.transactors[index];
        transactor.attempts += 1;
        if transactor.attempts > patience {
            transactor.abort();
            return Ok(());
        }
        (transactor.request, transactor.until) = (number, until);
        let Some(producer) = transactor.producer else { return Ok(()) };
        let write = TransactionalWrite {
            client: index,
            number,
            slot,
            generation: self.slots[slot].generation,
            id: name(transactor.id),
            producer,
            tv2: transactor.tv2,
            what: Content::Offset(i64::try_from(transactor.number).unwrap_or(0)),
        };
        self.send_write(index, write);
        Ok(())
    }

    /// All of one step is done.
    fn go_on(&mut self, index: usize) -> Checked {
        let transactor = &mut self.transactors[index];
        let next = match transactor.step {
            Step::Add => Step::Write,
            Step::Write if transactor.with_offsets && !transactor.tv2 => Step::AddOffsets,
            Step::Write if transactor.with_offsets => Step::Offsets,
            Step::AddOffsets => Step::Offsets,
            _ => Step::End,
        };
        transactor.go(next);
        self.proceed(index)
    }

    /// A write is answered.
    pub(super) fn take_written(&mut self, index: usize, number: u64, result: Result<(), Refusal>) -> Checked {
        let retry = self.now + self.between(5, 40);
        let transactor = &mut self.transactors[index];
        if transactor.step == Step::Offsets && transactor.request == number {
            match result {
                Ok(()) => return self.go_on(index),
                Err(Refusal::Retriable) => transactor.until = retry,
                Err(_) => transactor.abort(),
            }
            return Ok(());
        }
        if transactor.step != Step::Write {
            return Ok(());
        }
        let Some(out) = transactor.writes.iter_mut().find(|out| out.number == number && !out.is_written)
        else {
            return Ok(());
        };
        match result {
            Ok(()) => {
                out.is_written = true;
                let (slot, generation, ids) = (out.slot, out.generation, out.ids.clone());
                let is_done = transactor.writes.iter().all(|out| out.is_written);
                let transaction = transactor.number;
                self.transactions.written(transaction, slot, generation, &ids);
                if is_done { self.go_on(index) } else { Ok(()) }
            }
            Err(Refusal::Retriable) => {
                out.until = retry;
                Ok(())
            }
            Err(Refusal::OutOfOrder | Refusal::Abortable) => {
                transactor.abort();
                Ok(())
            }
        }
    }

    /// The transaction coordinator answers.
    pub(super) fn take_coordinated(&mut self, index: usize, number: u64, reply: TransactionReply) -> Checked {
        let retry = self.now + self.between(5, 40);
        let later = self.now + self.between(30, 300);
        let transactor = &mut self.transactors[index];
        if transactor.request != number || transactor.until == 0 {
            return Ok(());
        }
        let code = match (reply, transactor.step) {
            (TransactionReply::Init(Ok(producer)), Step::Init) => {
                transactor.producer = Some(producer);
                transactor.sequences.clear();
                transactor.is_tainted = false;
                transactor.go(Step::Rest);
                return self.proceed(index);
            }
            (TransactionReply::Add(ErrorCode::None), Step::Add | Step::AddOffsets) => {
                return self.go_on(index);
            }
            (TransactionReply::End(Ok(producer)), Step::End) => return self.ended(index, producer),
            (TransactionReply::Init(Err(code)), Step::Init)
            | (TransactionReply::Add(code), Step::Add | Step::AddOffsets)
            | (TransactionReply::End(Err(code)), Step::End) => code,
            _ => return Ok(()),
        };
        trace!(self, "producer {index} is told {code:?} in {:?}", self.transactors[index].step);
        let transactor = &mut self.transactors[index];
        match code {
            ErrorCode::ConcurrentTransactions
            | ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::UnknownTopicOrPartition => transactor.until = retry,
            ErrorCode::ProducerFenced
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::InvalidProducerIdMapping => {
                self.counters.producers_fenced += 1;
                transactor.restart(later);
            }
            _ if transactor.step == Step::Add => transactor.abort(),
            _ => transactor.restart(later),
        }
        Ok(())
    }

    fn ended(&mut self, index: usize, producer: TransactionalProducer) -> Checked {
        let transactor = &mut self.transactors[index];
        let number = transactor.number;
        transactor.since_heal += 1;
        transactor.writes.clear();
        let is_committed = transactor.commits;
        if transactor.tv2 {
            transactor.producer = Some(producer);
            transactor.sequences.clear();
            transactor.is_tainted = false;
            transactor.go(Step::Rest);
        } else if transactor.is_tainted {
            // It does not know where its sequence numbers stand.
            transactor.expected = transactor.producer;
            transactor.go(Step::Init);
        } else {
            transactor.go(Step::Rest);
        }
        trace!(self, "producer {index} is told that {number} has ended, commit is {is_committed}");
        if is_committed {
            self.counters.transactions_committed += 1;
            self.transactions.acknowledge(number)?;
        }
        Ok(())
    }

    /// Whether no producer has a transaction.
    pub(crate) fn producers_rest(&self) -> bool {
        self.transactors.iter().all(|transactor| matches!(transactor.step, Step::Rest | Step::Parked))
    }

    /// Transactional producers do nothing for a while.
    pub(crate) fn send_producers_to_sleep(&mut self, ms: i64) {
        trace!(self, "script: transactional producers sleep for {ms} ms");
        let until = self.now + ms;
        self.transactors.iter_mut().for_each(|transactor| transactor.asleep_until = until);
    }

    /// The producers that have not got anywhere since the cluster was healed.
    pub(super) fn unrest_of_transactors(&self) -> Option<String> {
        let stuck = self.transactors.iter().find(|one| {
            let same = self.transactors.iter().filter(|other| other.id == one.id);
            same.map(|other| other.since_heal).sum::<u64>() == 0
        })?;
        Some(format!("a transactional producer gets nowhere: {stuck:?}"))
    }
}
