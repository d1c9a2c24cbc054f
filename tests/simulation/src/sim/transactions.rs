//! Transactions at the nodes: the coordinator, verification, markers, and the comparison with what was asked for.

use std::sync::Arc;

use towpath_coordinator::transaction::TransactionReply;
use towpath_coordinator::{EndMarker, Now};
use towpath_log::{AppendError, AppendOptions, Effort};
use towpath_record::{BatchHeader, Origin};
use towpath_replica::{Appended, Partition, PartitionError, TransactionCheck};
use towpath_types::Rule;
use towpath_wire::ErrorCode;

use super::{Simulation, trace};
use crate::coordination::{Written, log_marker};
use crate::groups::Told;
use crate::net::{Caller, MarkerKey, Message, Party, Refusal};
use crate::node::{Kind, Waiting};
use crate::records::{Entry, marker_id};
use crate::transactions::{
    Asking, Content, MarkerItem, Marking, TransactionCall, TransactionDriver, TransactionalWrite, Verifying,
    failure,
};
use crate::violation::{COMMITTED, Checked, GROUP_OFFSETS, Violation};

/// How long a leader waits for the coordinator's word, and a write to be committed.
const PATIENCE_MS: i64 = 250;
/// How many verifications a leader has out.
const VERIFYING_MAX: usize = 64;

impl Simulation {
    /// The coordinator's clocks: the wall clock jumps less than others, so that transactions come to an end.
    fn coordinator_now(&self, node: usize) -> Now {
        let ms = self.nodes[node].clock_ms(self.now);
        Now { monotonic_ms: ms, wall_ms: ms + self.nodes[node].wall_jumped_ms / 10 }
    }

    /// Transactions are served where their partition is led.
    pub(super) fn coordinate_transactions(
        &mut self,
        node: usize,
        slot: usize,
        partition: &Arc<Partition>,
    ) -> Checked {
        let (now, rules) = (self.coordinator_now(node), self.rules);
        let term = partition.term();
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let Some(term) = term.filter(|_| !process.is_offline()) else {
            if rules.holds(Rule::CoordinatorTerm) {
                process.transactions = None;
            }
            return Ok(());
        };
        let is_over = |known: &TransactionDriver| known.term != term && rules.holds(Rule::CoordinatorTerm);
        if process.transactions.as_ref().is_none_or(is_over) {
            process.transactions = Some(TransactionDriver::load(partition, term)?);
            self.counters.transaction_coordinators_loaded += 1;
            trace!(self, "node {node} coordinates transactions in {term:?}");
        }
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let Some(driver) = process.transactions.as_mut() else { return Ok(()) };
        let driven = driver.drive(partition, now, rules, &mut self.next_producer_id)?;
        let due = driver.due_markers(now.monotonic_ms, term);
        self.counters.transactions_timed_out += driven.timed_out;
        if let Some((appended, written)) = driven.appended {
            trace!(self, "coordinator {node} appends at {}", appended.info.first_offset);
            self.note_written(node, slot, partition, &appended, &written)?;
            self.touch(node, slot);
        }
        self.answer_transactions(node, driven.told);
        for item in due {
            self.send_marker(node, item);
        }
        Ok(())
    }

    fn answer_transactions(&mut self, node: usize, told: Vec<(Asking, TransactionReply)>) {
        for (asking, reply) in told {
            match asking {
                Asking::Client(client, number) => {
                    self.send(Party::Node(node), client, Message::Coordinated { number, reply });
                }
                Asking::Leader(caller, number) => {
                    let code = match reply {
                        TransactionReply::Add(code) => code,
                        _ => ErrorCode::UnknownServerError,
                    };
                    let message = Message::Verified { caller, number, code };
                    self.send(Party::Node(node), Party::Node(caller.node), message);
                }
            }
        }
    }

    /// A node is asked as the transaction coordinator.
    pub(super) fn take_coordinate(
        &mut self,
        node: usize,
        asking: Asking,
        id: &str,
        call: TransactionCall,
    ) -> Checked {
        // Where transactions have no epochs of their own, the end of one that comes when nobody waits for it any more would
        // be taken for the end of the next one (KIP-890): the connection is closed then, and what was on its way is lost.
        if let (TransactionCall::End { tv2: false, .. }, Asking::Client(Party::Transactor(client), number)) =
            (&call, asking)
            && !self.transactors[client].waits_for(number)
        {
            return Ok(());
        }
        let now = self.coordinator_now(node);
        let Some(slot) = self.coordination else { return Ok(()) };
        let leads = self.serving(node, slot).is_some_and(|partition| partition.is_leader());
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| process.serves) else {
            return Ok(());
        };
        let image = Arc::clone(&process.image);
        let exists = |partitions: &[towpath_types::TopicPartition]| {
            partitions.iter().all(|it| image.topic(it.topic.as_str()).is_some())
        };
        let told = match (&call, process.transactions.as_mut().filter(|_| leads)) {
            (_, None) => vec![(asking, failure(&call, ErrorCode::NotCoordinator))],
            // The coordinator must know whom to send markers to.
            (TransactionCall::Add { partitions, .. }, _) if !exists(partitions) => {
                vec![(asking, TransactionReply::Add(ErrorCode::UnknownTopicOrPartition))]
            }
            (_, Some(driver)) => driver.call(now, asking, id, call, &mut self.next_producer_id),
        };
        self.answer_transactions(node, told);
        self.touch(node, slot);
        Ok(())
    }

    /// Sends a marker to the leader of its partition.
    fn send_marker(&mut self, node: usize, item: MarkerItem) {
        self.counters.markers_sent += 1;
        self.counters.markers_retried += u64::from(item.attempt > 1);
        let now = self.coordinator_now(node);
        let is_gone =
            |image: &towpath_controller::MetadataImage| image.topic(item.partition.topic.as_str()).is_none();
        let is_deleted = self.quorum.head().is_some_and(|head| is_gone(head));
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let Some(driver) = process.transactions.as_mut() else { return };
        let (caller, term) = (Caller { node, process: process.number }, driver.term);
        if is_gone(&process.image) {
            // The newest metadata say so, not only those of this node.
            if is_deleted {
                let told = driver.written(now, item.token, &item.partition, &mut self.next_producer_id);
                self.answer_transactions(node, told);
            }
            return;
        }
        let index = usize::try_from(item.partition.partition).unwrap_or(usize::MAX);
        let state = process.image.topic(item.partition.topic.as_str());
        let leader = state.and_then(|topic| topic.partitions.get(index)).and_then(|state| state.leader);
        let Some(leader) = leader.and_then(|leader| self.index_of(leader)) else { return };
        let MarkerItem { token, marker, partition, attempt, .. } = item;
        trace!(self, "coordinator {node} sends {marker:?} for {partition} to {leader}, attempt {attempt}");
        let key = MarkerKey { caller, term, token, partition, attempt };
        self.send(Party::Node(node), Party::Node(leader), Message::Marker { key, marker });
    }

    /// The partition of a marker.
    fn slot_of(&self, key: &MarkerKey) -> Option<usize> {
        let partition = &key.partition;
        self.slots
            .iter()
            .position(|slot| slot.index == partition.partition && slot.name == partition.topic.as_str())
    }

    /// Whether the coordinator still waits for this attempt.
    fn is_awaited(&self, key: &MarkerKey) -> bool {
        let process = self.nodes[key.caller.node].process.as_ref();
        let process = process.filter(|process| process.number == key.caller.process);
        let driver = process.and_then(|process| process.transactions.as_ref());
        driver.is_some_and(|driver| driver.term == key.term && driver.waits_for(key))
    }

    pub(super) fn take_marker(&mut self, node: usize, key: MarkerKey, marker: EndMarker) -> Checked {
        // Without an epoch of its own, a transaction is not safe from a marker that comes when nobody waits for it any more:
        // the connection is closed then, and what was on its way there is lost.
        if !marker.bumps_epoch && !self.is_awaited(&key) {
            return Ok(());
        }
        let Some(slot) = self.slot_of(&key) else { return Ok(()) };
        let Some(partition) = self.serving(node, slot) else {
            self.answer_marker(node, key, false);
            return Ok(());
        };
        self.touch(node, slot);
        if self.slots[slot].kind == Kind::Offsets {
            let process = self.nodes[node].process.as_mut();
            let coordinator = process.and_then(|process| process.coordinator.as_mut());
            let told = match coordinator.filter(|_| partition.is_leader()) {
                Some(coordinator) => coordinator.end(key, marker),
                None => vec![Told::Coordinator(key, ErrorCode::NotLeaderOrFollower)],
            };
            self.tell(node, told);
            return Ok(());
        }
        match partition.append_marker(&log_marker(&marker)) {
            Ok(appended) => {
                trace!(
                    self,
                    "leader {node} appends {marker:?} to {} at {}", key.partition, appended.info.first_offset
                );
                self.note_written(node, slot, &partition, &appended, &Written::Marker(log_marker(&marker)))?;
                if let Some(process) = self.nodes[node].process.as_mut() {
                    process.marking.push(Marking { slot, key, appended });
                }
            }
            Err(error) => {
                trace!(self, "leader {node} refuses {marker:?} for {}: {error}", key.partition);
                self.counters.markers_refused += u64::from(matches!(error, PartitionError::Append(_)));
                self.answer_marker(node, key, false);
            }
        }
        Ok(())
    }

    fn answer_marker(&mut self, node: usize, key: MarkerKey, is_written: bool) {
        let to = Party::Node(key.caller.node);
        self.send(Party::Node(node), to, Message::Marked { key, is_written });
    }

    /// Tells coordinators of markers that are committed, or will not be.
    pub(super) fn acknowledge_markers(&mut self, node: usize, slot: usize, partition: &Arc<Partition>) {
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let mut done = Vec::new();
        process.marking.retain(|marking| {
            if marking.slot != slot {
                return true;
            }
            match partition.is_committed(&marking.appended) {
                Ok(false) => return true,
                Ok(true) => done.push((marking.key.clone(), true)),
                Err(_) => done.push((marking.key.clone(), false)),
            }
            false
        });
        for (key, is_written) in done {
            self.answer_marker(node, key, is_written);
        }
    }

    pub(super) fn take_marked(&mut self, node: usize, key: &MarkerKey, is_written: bool) -> Checked {
        let now = self.coordinator_now(node);
        let process = self.nodes[node].process.as_mut();
        let process = process.filter(|process| process.number == key.caller.process);
        let driver = process.and_then(|process| process.transactions.as_mut());
        let Some(driver) = driver.filter(|driver| driver.term == key.term) else { return Ok(()) };
        if is_written {
            let told = driver.written(now, key.token, &key.partition, &mut self.next_producer_id);
            self.answer_transactions(node, told);
        } else {
            driver.refused(key, now.monotonic_ms);
        }
        if let Some(slot) = self.coordination {
            self.touch(node, slot);
        }
        Ok(())
    }

    /// Tells those who asked the group coordinator.
    pub(super) fn tell(&mut self, node: usize, told: Vec<Told>) {
        for told in told {
            match told {
                Told::Reader(offset) => {
                    self.counters.offsets_committed += 1;
                    self.ledger.acknowledged = self.ledger.acknowledged.max(offset);
                }
                Told::Producer(client, number, code) => {
                    let result = refusal(code);
                    self.send(Party::Node(node), client, Message::Produced { number, result });
                }
                Told::Coordinator(key, code) => {
                    self.counters.markers_refused +=
                        u64::from(!matches!(code, ErrorCode::None | ErrorCode::NotLeaderOrFollower));
                    self.answer_marker(node, key, code == ErrorCode::None);
                }
            }
        }
    }

    fn refuse(&mut self, node: usize, write: &TransactionalWrite, code: ErrorCode) -> Checked {
        trace!(self, "node {node} refuses a write of {:?} to {}: {code:?}", write.producer, write.slot);
        let message = Message::Produced { number: write.number, result: refusal(code) };
        if message_is_final(code) {
            self.counters.writes_refused += 1;
        }
        self.send(Party::Node(node), Party::Transactor(write.client), message);
        Ok(())
    }

    /// A leader takes a write that belongs to a transaction.
    pub(super) fn take_write(&mut self, node: usize, write: TransactionalWrite) -> Checked {
        if self.slots[write.slot].generation != write.generation {
            return self.refuse(node, &write, ErrorCode::UnknownTopicId);
        }
        let Some(partition) = self.serving(node, write.slot) else {
            return self.refuse(node, &write, ErrorCode::NotLeaderOrFollower);
        };
        let check = match &write.what {
            Content::Records { batch, .. } => match BatchHeader::parse(batch) {
                Ok(header) => partition.transaction_check(&header, write.tv2),
                Err(_) => return Ok(()),
            },
            Content::Offset(_) => {
                let (id, epoch) = (write.producer.id, write.producer.epoch);
                partition.transaction_check_of(id, epoch, -1, write.tv2)
            }
        };
        let guard = match check {
            Ok(TransactionCheck::Append) => return self.put(node, &partition, write, None),
            Ok(TransactionCheck::Verify(guard)) => guard,
            Err(error) => return self.refuse(node, &write, code_of(&error)),
        };
        self.counters.verifications += 1;
        let (number, now) = (self.next_request, self.now);
        self.next_request += 1;
        let (Some(slot), Some(process)) = (self.coordination, self.nodes[node].process.as_mut()) else {
            return Ok(());
        };
        process.verifying.retain(|verifying| verifying.until > now);
        let leader = self.slots[slot].state(&process.image).and_then(|state| state.leader);
        let asking = Asking::Leader(Caller { node, process: process.number }, number);
        let at = partition.id().clone();
        let call = if write.tv2 {
            TransactionCall::Add { producer: write.producer, partitions: vec![at], tv2: true }
        } else {
            TransactionCall::Verify { producer: write.producer, partition: at }
        };
        let id = write.id.clone();
        let leader = leader.and_then(|leader| self.index_of(leader));
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        match leader.filter(|_| process.verifying.len() < VERIFYING_MAX) {
            Some(leader) => {
                process.verifying.push(Verifying { number, guard, until: now + PATIENCE_MS, write });
                let message = Message::Coordinate { asking, id, call };
                self.send(Party::Node(node), Party::Node(leader), message);
                Ok(())
            }
            None => self.refuse(node, &write, ErrorCode::NotEnoughReplicas),
        }
    }

    pub(super) fn take_verified(
        &mut self,
        node: usize,
        caller: Caller,
        number: u64,
        code: ErrorCode,
    ) -> Checked {
        let process = self.nodes[node].process.as_mut();
        let Some(process) = process.filter(|process| process.number == caller.process) else {
            return Ok(());
        };
        let place = process.verifying.iter().position(|verifying| verifying.number == number);
        let Some(place) = place else { return Ok(()) };
        let Verifying { guard, write, .. } = process.verifying.swap_remove(place);
        if code != ErrorCode::None {
            return self.refuse(node, &write, told(code, write.tv2));
        }
        match self.serving(node, write.slot) {
            Some(partition) => self.put(node, &partition, write, Some(guard)),
            None => self.refuse(node, &write, ErrorCode::NotLeaderOrFollower),
        }
    }

    /// Appends what may be appended.
    fn put(
        &mut self,
        node: usize,
        partition: &Arc<Partition>,
        write: TransactionalWrite,
        guard: Option<towpath_log::VerificationGuard>,
    ) -> Checked {
        let slot = write.slot;
        self.touch(node, slot);
        let (batch, ids) = match &write.what {
            Content::Records { batch, ids } => (batch.clone(), ids.clone()),
            Content::Offset(offset) => {
                let ms = self.nodes[node].clock_ms(self.now);
                let client = (Party::Transactor(write.client), write.number);
                let process = self.nodes[node].process.as_mut();
                let coordinator = process.and_then(|process| process.coordinator.as_mut());
                let Some(coordinator) = coordinator.filter(|_| partition.is_leader()) else {
                    return self.refuse(node, &write, ErrorCode::NotCoordinator);
                };
                let told = coordinator.commit_within(client, (&write.id, write.producer, *offset), guard, ms);
                self.tell(node, told);
                return Ok(());
            }
        };
        let options = AppendOptions { origin: Origin::Client, effort: Effort::Any, guard };
        match partition.append_with(batch.clone(), true, &options) {
            Ok(appended) => {
                if appended.info.duplicate {
                    self.counters.duplicates_suppressed += 1;
                } else {
                    trace!(
                        self,
                        "leader {node} appends {} at {} for {:?}: {ids:x?}",
                        self.names[slot],
                        appended.info.first_offset,
                        write.producer
                    );
                    self.note_appended(node, slot, partition, &appended, &batch)?;
                }
                let (until, number) = (self.now + PATIENCE_MS, write.number);
                let client = Party::Transactor(write.client);
                if let Some(process) = self.nodes[node].process.as_mut() {
                    process.waiting.push(Waiting { topic: slot, appended, ids, client, number, until });
                }
                Ok(())
            }
            Err(error) => self.refuse(node, &write, code_of(&error)),
        }
    }

    /// Brings the copy of a leader's log in line with what a coordinator had appended.
    pub(super) fn note_written(
        &mut self,
        node: usize,
        slot: usize,
        partition: &Partition,
        appended: &Appended,
        written: &Written,
    ) -> Checked {
        match written {
            Written::Batch(batch) => self.note_appended(node, slot, partition, appended, batch),
            Written::Marker(marker) => {
                let epoch = partition.leader_epoch().get();
                let id = marker_id(marker.producer_id.get() as u64, marker.commit);
                let entry = (appended.info.first_offset.get(), Entry { epoch, id });
                self.models[slot].appended(node, &[entry])
            }
        }
    }

    /// Compares the ends of transactions that have become committed with what was asked for.
    pub(super) fn decide_fates(&mut self, slot: usize) -> Checked {
        self.transactions.is_void |= self.models[slot].fates.is_void;
        for decided in std::mem::take(&mut self.models[slot].fates.news) {
            trace!(self, "{}: {decided:?}", self.names[slot]);
            let is_first = self.transactions.decided(slot, decided)?;
            self.counters.transactions_aborted += u64::from(is_first && !decided.commit);
            self.counters.group_offsets_committed += u64::from(decided.commit && decided.of_group);
        }
        Ok(())
    }

    /// What keeps transactions from being at rest; makes their producers come to rest when all else is.
    pub(super) fn unrest_of_transactions(&mut self) -> Checked<Option<String>> {
        let Some(coordination) = self.coordination else { return Ok(None) };
        if self.transactions.is_void {
            // Markers may be lost with what was allowed to be lost: nothing need come to an end.
            return Ok(None);
        }
        if let Some(unrest) = self.unrest_of_transactors() {
            return Ok(Some(unrest));
        }
        self.is_closing = true;
        let head = self.head()?;
        let leader = self.slots[coordination].state(&head).and_then(|state| state.leader);
        let leader = leader.and_then(|leader| self.index_of(leader));
        let process = leader.and_then(|leader| self.nodes[leader].process.as_ref());
        let Some(driver) = process.and_then(|process| process.transactions.as_ref()) else {
            return Ok(Some("there is no transaction coordinator".to_owned()));
        };
        if driver.unfinished() > 0 {
            return Ok(Some(format!(
                "{} transactions are not over: {:?}",
                driver.unfinished(),
                driver.markers
            )));
        }
        if let Some(busy) = self.transactors.iter().position(|transactor| !transactor.is_parked()) {
            return Ok(Some(format!("producer {busy} is busy: {:?}", self.transactors[busy])));
        }
        for (slot, name) in self.names.iter().enumerate() {
            let leader = self.slots[slot].state(&head).and_then(|state| state.leader);
            let leader = leader.and_then(|leader| self.index_of(leader));
            let process = leader.and_then(|leader| self.nodes[leader].process.as_ref());
            let partition = process.and_then(|process| process.partition(&self.slots[slot]));
            let Some(partition) = partition else { return Ok(Some(format!("{name} has no leader"))) };
            let (stable, end) = (partition.last_stable_offset(), partition.high_watermark());
            if stable != end {
                return Ok(Some(format!(
                    "{name} is stable up to {stable} of {end}: {:?}",
                    partition.producers()
                )));
            }
        }
        Ok(None)
    }

    /// At the end: what was acknowledged is there, and groups are where the committed transactions took them.
    pub(super) fn check_transactions(&self) -> Checked {
        if self.coordination.is_none() || self.transactions.is_void {
            return Ok(());
        }
        for (number, (slot, generation, id)) in self.transactions.owed() {
            let is_there = self.slots[*slot].generation == *generation;
            let model = &self.models[*slot];
            if is_there && model.deleted_to == 0 && !model.fates.has_committed(*id) {
                let detail = format!(
                    "transaction {number}: {id:#x} in {} was acknowledged and is not visible",
                    self.names[*slot]
                );
                return Err(Violation::new(COMMITTED, detail));
            }
        }
        let head = self.head()?;
        let leader = self.slots[self.offsets].state(&head).and_then(|state| state.leader);
        let leader = leader.and_then(|leader| self.index_of(leader));
        let process = leader.and_then(|leader| self.nodes[leader].process.as_ref());
        let coordinator = process.and_then(|process| process.coordinator.as_ref());
        let Some(coordinator) = coordinator.filter(|coordinator| coordinator.is_active()) else {
            return Ok(());
        };
        for id in 0..self.transactors.len() {
            let (known, expected) = (
                coordinator.committed(&super::transactors::name(id)),
                self.transactions.group_offsets.get(&id).copied(),
            );
            if known != expected {
                let detail = format!("group of id {id}: {known:?} is known, {expected:?} was committed last");
                return Err(Violation::new(GROUP_OFFSETS, detail));
            }
        }
        Ok(())
    }
}

/// What the producer is told of the coordinator's refusal.
const fn told(code: ErrorCode, tv2: bool) -> ErrorCode {
    match code {
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        ErrorCode::ConcurrentTransactions if !tv2 => ErrorCode::NotEnoughReplicas,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

const fn code_of(error: &PartitionError) -> ErrorCode {
    match error {
        PartitionError::Append(AppendError::InvalidProducerEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
        PartitionError::Append(AppendError::OutOfOrderSequence { .. }) => ErrorCode::OutOfOrderSequenceNumber,
        PartitionError::Append(AppendError::NotVerified { .. } | AppendError::InvalidTxnState { .. }) => {
            ErrorCode::InvalidTxnState
        }
        _ => ErrorCode::NotLeaderOrFollower,
    }
}

const fn message_is_final(code: ErrorCode) -> bool {
    matches!(refusal(code), Err(Refusal::Abortable | Refusal::OutOfOrder))
}

/// What a producer makes of a code.
const fn refusal(code: ErrorCode) -> Result<(), Refusal> {
    match code {
        ErrorCode::None => Ok(()),
        ErrorCode::NotLeaderOrFollower
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::ConcurrentTransactions
        | ErrorCode::UnknownTopicOrPartition => Err(Refusal::Retriable),
        _ => Err(Refusal::Abortable),
    }
}
