//! Producers, consumers, and the reader that commits its offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng as _;
use towpath_log::AppendError;
use towpath_record::{Origin, batches};
use towpath_replica::{
    AbortedTransaction, Appended, FetchPosition, Isolation, Partition, PartitionError, Reader,
};
use towpath_types::{LeaderEpoch, Offset};

use super::{Event, Simulation, trace};
use crate::groups::GROUP;
use crate::net::{ClientId, Message, Party, Refusal};
use crate::node::{Kind, Waiting};
use crate::records::{Entry, LOOSE, batch, entries, entries_of, id, marker_of};
use crate::violation::{Checked, GROUPS, INTERNAL, VISIBLE, Violation};

/// How long a producer waits for an answer.
const REQUEST_MS: i64 = 250;
/// How often a producer without idempotence tries.
const ATTEMPTS_MAX: u32 = 3;

/// A batch that is out.
#[derive(Debug, Clone)]
struct Out {
    number: u64,
    batch: Bytes,
    ids: Vec<u64>,
    until: i64,
    attempts: u32,
    out_of_order: u32,
    sequence: i32,
}

/// A producer; one batch is out at a time.
#[derive(Debug)]
pub(super) struct Producer {
    topic: usize,
    /// `acks=all`, and idempotent.
    all: bool,
    producer_id: u64,
    next_number: u64,
    sequence: i32,
    out: Option<Out>,
    /// Acknowledged since the cluster was healed.
    pub(super) since_heal: u64,
}

/// A consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) topic: usize,
    position: i64,
    from_followers: bool,
}

impl Consumer {
    /// The topic is another one.
    pub(super) const fn begin_anew(&mut self) {
        self.position = 0;
    }
}

impl Simulation {
    pub(super) fn begin_clients(&mut self) {
        let data = self.slots.iter().filter(|slot| slot.kind == Kind::Data).count();
        for topic in 0..data {
            // Of several partitions, and beside transactions, not all need every client.
            let is_crowded = self.profile.transactional || self.slots[topic].index > 0;
            let skipped = match is_crowded {
                false => 0,
                true if topic == 0 => 1,
                true => 2,
            };
            for all in [true, true, false].into_iter().skip(skipped) {
                let producer_id = self.producers.len() as u64 + 1;
                self.producers.push(Producer {
                    topic,
                    all,
                    producer_id,
                    next_number: 1,
                    sequence: 0,
                    out: None,
                    since_heal: 0,
                });
            }
            for from_followers in [false, true] {
                self.consumers.push(Consumer { topic, position: 0, from_followers });
            }
        }
        for producer in 0..self.producers.len() {
            let after = self.between(150, 250);
            self.plan(after, Event::Produce(producer));
        }
        for consumer in 0..self.consumers.len() {
            let after = self.between(200, 300);
            self.plan(after, Event::Consume(consumer));
        }
        self.plan(250, Event::CommitOffset);
        self.begin_transactors();
    }

    /// The leader of a topic as some node knows it.
    pub(super) fn known_leader(&mut self, topic: usize) -> Option<usize> {
        let asked = self.random.random_range(0..self.nodes.len());
        let node = &self.nodes[asked];
        let process = node.process.as_ref().filter(|process| process.serves && !node.is_paused)?;
        let leader = self.slots[topic].state(&process.image)?.leader?;
        self.index_of(leader)
    }

    pub(super) fn produce(&mut self, index: usize) -> Checked {
        let again = self.between(5, self.profile.produce_every_ms);
        self.plan(again, Event::Produce(index));
        if self.is_quiet {
            return Ok(());
        }
        let now = self.now;
        let producer = &mut self.producers[index];
        match &mut producer.out {
            Some(out) if out.until > now => return Ok(()),
            Some(out) if !producer.all && out.attempts >= ATTEMPTS_MAX => {
                producer.out = None;
                return Ok(());
            }
            Some(_) => {}
            None => {
                let count = self.random.random_range(1..=2u64);
                let (first, producer_id) = (producer.next_number, producer.producer_id);
                let sequence = producer.sequence;
                let is_keyed = self.slots[producer.topic].is_compacted;
                let batch = batch(producer_id, first, count, producer.all.then_some(sequence), is_keyed)?;
                let loose = if producer.all { 0 } else { LOOSE };
                let ids = (first..first + count).map(|number| id(producer_id, number) | loose).collect();
                producer.next_number += count;
                producer.sequence += i32::try_from(count).unwrap_or(0);
                let number = self.next_request;
                self.next_request += 1;
                producer.out =
                    Some(Out { number, batch, ids, until: 0, attempts: 0, out_of_order: 0, sequence });
            }
        }
        let Some(leader) = self.known_leader(self.producers[index].topic) else { return Ok(()) };
        let producer = &mut self.producers[index];
        let Some(out) = producer.out.as_mut() else { return Ok(()) };
        out.until = now + REQUEST_MS;
        out.attempts += 1;
        let message = Message::Produce {
            client: index,
            number: out.number,
            topic: producer.topic,
            batch: out.batch.clone(),
            ids: out.ids.clone(),
            all: producer.all,
        };
        self.send(Party::Client(index), Party::Node(leader), message);
        Ok(())
    }

    pub(super) fn take_produce(
        &mut self,
        node: usize,
        client: ClientId,
        number: u64,
        topic: usize,
        (batch, ids): (Bytes, Vec<u64>),
        all: bool,
    ) -> Checked {
        let until = self.now + REQUEST_MS;
        let process = self.nodes[node].process.as_ref().filter(|process| process.serves);
        let partition = process.and_then(|process| process.partition(&self.slots[topic]));
        let Some(partition) = partition else {
            let message = Message::Produced { number, result: Err(Refusal::Retriable) };
            self.send(Party::Node(node), Party::Client(client), message);
            return Ok(());
        };
        self.touch(node, topic);
        let result = match partition.append(batch.clone(), all, Origin::Client) {
            Ok(appended) => {
                if appended.info.duplicate {
                    self.counters.duplicates_suppressed += 1;
                } else {
                    trace!(
                        self,
                        "leader {node} appends {} at {}: {ids:x?}",
                        self.names[topic],
                        appended.info.first_offset
                    );
                    self.note_appended(node, topic, &partition, &appended, &batch)?;
                }
                if all {
                    if let Some(process) = self.nodes[node].process.as_mut() {
                        let client = Party::Client(client);
                        process.waiting.push(Waiting { topic, appended, ids, client, number, until });
                    }
                    return Ok(());
                }
                self.counters.acknowledged_by_leader += 1;
                Ok(())
            }
            Err(error) => {
                self.counters.produce_refused += 1;
                let is_order =
                    matches!(error, PartitionError::Append(AppendError::OutOfOrderSequence { .. }));
                Err(if is_order { Refusal::OutOfOrder } else { Refusal::Retriable })
            }
        };
        let message = Message::Produced { number, result };
        self.send(Party::Node(node), Party::Client(client), message);
        Ok(())
    }

    /// Brings the copy of a leader's log in line with an append.
    pub(super) fn note_appended(
        &mut self,
        node: usize,
        topic: usize,
        partition: &Partition,
        appended: &Appended,
        batch: &Bytes,
    ) -> Checked {
        let epoch = partition.leader_epoch().get();
        let read = entries(batch).map_err(|error| Violation::new(INTERNAL, error))?;
        let first = appended.info.first_offset.get();
        let new: Vec<(i64, Entry)> =
            (first..).zip(read).map(|(offset, (_, entry))| (offset, Entry { epoch, ..entry })).collect();
        self.models[topic].appended(node, &new)
    }

    pub(super) fn take_produced(&mut self, client: ClientId, number: u64, result: Result<(), Refusal>) {
        let fresh = self.producers.len() as u64;
        let retry = self.now + self.between(5, 40);
        let producer = &mut self.producers[client];
        let Some(out) = producer.out.as_mut().filter(|out| out.number == number) else { return };
        match result {
            Ok(()) => {
                producer.out = None;
                producer.since_heal += 1;
            }
            Err(Refusal::Retriable | Refusal::Abortable) => out.until = retry,
            Err(Refusal::OutOfOrder) => {
                out.until = retry;
                out.out_of_order += 1;
                // A deposed leader may say so, too: whoever says it again and again is believed.
                if out.out_of_order > 3 || out.sequence == 0 {
                    producer.out = None;
                    producer.producer_id += fresh;
                    producer.sequence = 0;
                }
            }
        }
    }

    pub(super) fn consume(&mut self, index: usize) -> Checked {
        let again = self.between(20, 80);
        self.plan(again, Event::Consume(index));
        let (topic, from_followers) = (self.consumers[index].topic, self.consumers[index].from_followers);
        let node = if from_followers {
            Some(self.random.random_range(0..self.nodes.len()))
        } else {
            self.known_leader(topic)
        };
        let Some(node) = node.filter(|node| self.nodes[*node].is_running()) else { return Ok(()) };
        self.nodes[node].pass_time(self.now);
        let process = self.nodes[node].process.as_ref().filter(|process| process.serves);
        let Some(partition) = process.and_then(|process| process.partition(&self.slots[topic])) else {
            return Ok(());
        };
        self.check_latest(node, topic, &partition)?;
        let is_stable = self.profile.transactional && self.chance(600);
        let isolation = if is_stable { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let position = FetchPosition {
            offset: Offset::new(self.consumers[index].position),
            current_leader_epoch: LeaderEpoch::NONE,
            last_fetched_epoch: LeaderEpoch::NONE,
            bytes_max: 1 << 16,
            min_one: true,
            isolation,
        };
        let reader = if from_followers { Reader::AnyReplica } else { Reader::Consumer };
        match partition.fetch(reader, &position) {
            Ok(fetched) => {
                let aborted = fetched.aborted.unwrap_or_default();
                let Ok(bytes) = fetched.data.into_bytes() else { return Ok(()) };
                if is_stable {
                    return self.consume_stable(index, node, &bytes, aborted);
                }
                let read = entries(&bytes).map_err(|error| Violation::new(VISIBLE, error))?;
                let new: Vec<_> =
                    read.into_iter().filter(|(offset, _)| *offset >= position.offset.get()).collect();
                self.models[topic].consumed(node, &new)?;
                let count = new.len() as u64;
                if from_followers && !partition.is_leader() {
                    self.counters.consumed_from_followers += count;
                } else {
                    self.counters.consumed += count;
                }
                if let Some((last, _)) = new.last() {
                    self.consumers[index].position = last + 1;
                }
            }
            Err(PartitionError::OutOfRange { log_start, .. }) => {
                // Before the log's start it goes on there; past the end of a replica that is behind it waits.
                let consumer = &mut self.consumers[index];
                if consumer.position < log_start.get() || self.models[topic].was_reset {
                    consumer.position = log_start.get();
                }
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Takes what a `read_committed` consumer takes out of an answer (Kafka's `CompletedFetch`).
    fn consume_stable(
        &mut self,
        index: usize,
        node: usize,
        bytes: &Bytes,
        mut aborted: Vec<AbortedTransaction>,
    ) -> Checked {
        let wrong = |error: String| Violation::new(VISIBLE, error);
        let (topic, from) = (self.consumers[index].topic, self.consumers[index].position);
        aborted.sort_by_key(|transaction| transaction.first_offset);
        let mut aborted = aborted.into_iter().peekable();
        let (mut leaves_out, mut taken, mut end) = (BTreeSet::new(), Vec::new(), from);
        for batch in batches(bytes) {
            let batch = batch.map_err(|error| wrong(error.to_string()))?;
            let last = batch.last_offset();
            while let Some(transaction) = aborted.next_if(|transaction| transaction.first_offset <= last) {
                leaves_out.insert(transaction.producer_id);
            }
            end = batch.next_offset().get();
            let mut found = Vec::new();
            entries_of(&batch, &mut found).map_err(wrong)?;
            if batch.is_control() {
                if found.iter().any(|(_, entry)| marker_of(entry.id).is_some_and(|(_, commit)| !commit)) {
                    leaves_out.remove(&batch.producer_id);
                }
                continue;
            }
            if batch.is_transactional() && leaves_out.contains(&batch.producer_id) {
                continue;
            }
            taken.extend(found.into_iter().filter(|(offset, _)| *offset >= from));
        }
        self.counters.consumed_stable += taken.len() as u64;
        self.models[topic].consumed_stable(node, (from, end), &taken)?;
        self.consumers[index].position = self.consumers[index].position.max(end);
        Ok(())
    }

    /// KIP-207: whoever leads now does not say that less is visible than was acknowledged.
    fn check_latest(&self, node: usize, topic: usize, partition: &Arc<Partition>) -> Checked {
        let head = self.head()?;
        let state = self.slots[topic].state(&head);
        let is_current = state.is_some_and(|state| {
            state.leader == Some(self.nodes[node].id) && state.leader_epoch == partition.leader_epoch()
        });
        let model = &self.models[topic];
        if !is_current || model.is_unsettled() || self.nodes[node].lost_since_registration {
            return Ok(());
        }
        match partition.latest_offset(Isolation::ReadUncommitted) {
            Ok(latest) if latest.get() < model.acknowledged_end() => {
                let detail = format!(
                    "{}: leader {node} ends at {latest}, acknowledged is what is before {}",
                    self.names[topic],
                    model.acknowledged_end()
                );
                Err(Violation::new(VISIBLE, detail))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn commit_offset(&mut self) -> Checked {
        let again = self.between(30, 90);
        self.plan(again, Event::CommitOffset);
        let topic = self.offsets;
        let Some(node) = self.known_leader(topic).filter(|node| self.nodes[*node].is_running()) else {
            return Ok(());
        };
        self.nodes[node].pass_time(self.now);
        let ms = self.nodes[node].clock_ms(self.now);
        self.check_offsets(node, topic)?;
        let offset = self.ledger.asked + 1;
        let process = self.nodes[node].process.as_mut();
        let coordinator = process.and_then(|process| process.coordinator.as_mut());
        let Some(coordinator) = coordinator.filter(|coordinator| coordinator.is_active()) else {
            return Ok(());
        };
        let told = coordinator.commit(offset, ms);
        self.ledger.asked = offset;
        self.tell(node, told);
        self.touch(node, topic);
        Ok(())
    }

    /// The coordinator that leads now knows all that was acknowledged.
    pub(super) fn check_offsets(&mut self, node: usize, topic: usize) -> Checked {
        if self.models[topic].is_unsettled() || self.models[topic].was_reset {
            self.ledger.acknowledged = 0;
            return Ok(());
        }
        let head = self.head()?;
        let state = self.slots[topic].state(&head);
        let Some(process) = self.nodes[node].process.as_ref() else { return Ok(()) };
        let epoch = process.partition(&self.slots[topic]).map(|partition| partition.leader_epoch());
        let is_current = state.is_some_and(|state| {
            state.leader == Some(self.nodes[node].id) && Some(state.leader_epoch) == epoch
        });
        let Some(coordinator) = process.coordinator.as_ref().filter(|it| is_current && it.is_active()) else {
            return Ok(());
        };
        let found = coordinator.committed(GROUP).unwrap_or(0);
        if found < self.ledger.acknowledged || found > self.ledger.asked {
            let detail = format!(
                "coordinator {node} knows {found}; {} was acknowledged, {} asked for",
                self.ledger.acknowledged, self.ledger.asked
            );
            return Err(Violation::new(GROUPS, detail));
        }
        Ok(())
    }
}
