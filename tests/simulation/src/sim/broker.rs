//! A node as a broker: its life in the cluster, its fetches, its changes of ISRs.

use std::sync::Arc;

use towpath_controller::decide::{AlterPartition, IsrMember, PartitionIsr, Registration, TopicIsrs};
use towpath_controller::{MetadataImage, RegisterBroker};
use towpath_replica::{
    Applied, FetchPlan, FetchPosition, FollowerAnswer, FollowerFetch, Isolation, LeaderAnswer, Partition,
    PartitionError, ProposalAnswer, Reader,
};
use towpath_types::{BrokerEpoch, Offset, Rule};
use towpath_wire::ErrorCode;

use super::{Event, Simulation, trace};
use crate::model::Seen;
use crate::net::{Call, CallAnswer, Caller, FetchOutcome, Message, Party};
use crate::node::{CLUSTER, IsrRequest, Process, Stage};
use crate::profile::HEARTBEAT_MS;
use crate::records::{entries, read_log};
use crate::violation::{Checked, INTERNAL, RANGE, RECOVERY, Violation};

/// How long an answer is waited for.
const PATIENCE_MS: i64 = 150;

impl Simulation {
    /// Starts a process on a node.
    pub(super) fn start_node(&mut self, node: usize) -> Checked {
        let number = self.next_process;
        self.next_process += 1;
        self.nodes[node].pass_time(self.now);
        self.nodes[node].is_doomed = false;
        self.nodes[node].start(number, self.rules, self.log)?;
        trace!(self, "node {node} starts as process {number}, {:?}", self.nodes[node].ending);
        self.reload(node)?;
        if !self.rules.holds(Rule::Registration) {
            // Without rule 12 it serves by the metadata of its last life at once.
            let image = Arc::clone(&self.nodes[node].last_image);
            self.apply(node, &image)?;
        }
        let view = self.quorum.active.unwrap_or(node);
        if let Some(process) = &mut self.nodes[node].process {
            process.view = view;
        }
        let after = self.between(1, 20);
        self.plan(after, Event::NodeTick { node, process: number });
        for topic in 0..self.names.len() {
            let after = self.between(5, 40);
            self.plan(after, Event::FetchDue { node, process: number, topic });
        }
        Ok(())
    }

    /// Compares what is on the disk with what was there.
    fn reload(&mut self, node: usize) -> Checked {
        let ending = self.nodes[node].ending;
        let logs = self.nodes[node].process.as_ref().map(|process| process.logs.clone()).unwrap_or_default();
        for topic in 0..self.names.len() {
            let slot = &self.slots[topic];
            let log = logs.iter().find(|log| slot.is_at(log.partition(), log.topic_id()));
            let content = match log {
                Some(log) => {
                    read_log(log, slot.is_compacted).map_err(|error| Violation::new(RECOVERY, error))?
                }
                None if self.models[topic].mirror(node).is_some() => (0, Vec::new()),
                None => continue,
            };
            let lost = self.models[topic].reloaded(node, content, ending).map_err(|violation| Violation {
                detail: format!("{}: {}", self.names[topic], violation.detail),
                ..violation
            })?;
            if lost > 0 {
                self.counters.records_lost_by_crashes += lost;
                trace!(self, "node {node} has lost {lost} record(s) of {}", self.names[topic]);
            }
            if log.is_none() {
                self.models[topic].removed(node);
            }
        }
        Ok(())
    }

    /// The node goes by an image from here on.
    fn apply(&mut self, node: usize, image: &Arc<MetadataImage>) -> Checked {
        let (id, log) = (self.nodes[node].id, self.log);
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let mut removed = Vec::new();
        if !process.serves {
            removed.extend(process.remove_strays(id, image));
            process.serves = true;
        }
        removed.extend(process.apply(id, image, log)?);
        for (partition, id) in removed {
            trace!(self, "node {node} removes its replica of {partition}");
            if let Some(topic) = self.slots.iter().position(|slot| slot.is_at(&partition, id)) {
                self.models[topic].removed(node);
            }
        }
        self.touch_all(node);
        Ok(())
    }

    pub(super) fn node_tick(&mut self, node: usize, process: u64) -> Checked {
        if self.nodes[node].process.as_ref().is_none_or(|running| running.number != process) {
            return Ok(());
        }
        let again = self.between(15, 40);
        self.plan(again, Event::NodeTick { node, process });
        self.hear_metadata(node)?;
        self.speak_to_controller(node);
        self.change_isrs(node);
        self.act_as_controller(node)?;
        self.keep_house(node);
        self.touch_all(node);
        Ok(())
    }

    /// Takes newer metadata, as far as they have come.
    fn hear_metadata(&mut self, node: usize) -> Checked {
        let late = if self.settling { 0 } else { self.between(0, self.profile.metadata_late_ms) };
        let active = self.quorum.active.filter(|active| self.links.connects(node, *active, self.now));
        let (now, id) = (self.now, self.nodes[node].id);
        let is_deaf = self.nodes[node].deaf_until > now;
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        if let Some(active) = active {
            process.view = active;
        }
        let known = process.image.next_offset();
        let fork = self.quorum.forks.get(&process.view).filter(|fork| fork.next_offset() > known);
        let newer = match fork {
            Some(fork) => Some(Arc::clone(fork)),
            None if is_deaf || active.is_none() => None,
            None => {
                let images = &self.quorum.images;
                let heard = images.partition_point(|(at, _)| *at <= now - late);
                images[..heard].last().map(|(_, image)| Arc::clone(image))
            }
        };
        let Some(newer) = newer else { return Ok(()) };
        let is_forked = !self.quorum.forks.is_empty() && !Arc::ptr_eq(&newer, &process.image);
        if newer.next_offset() <= known && !is_forked {
            return Ok(());
        }
        if !process.serves {
            // Rule 12: nothing is done by metadata of another life.
            let own = newer.broker(id).map(|broker| broker.epoch);
            let is_known = process.stage == Stage::Registered && own.is_some_and(|own| own >= process.epoch);
            if !is_known {
                return Ok(());
            }
        }
        trace!(self, "node {node} goes by the metadata before {}", newer.next_offset());
        self.apply(node, &newer)
    }

    fn speak_to_controller(&mut self, node: usize) {
        let (now, id) = (self.now, self.nodes[node].id);
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        let caller = Caller { node, process: process.number };
        let call = match process.stage {
            Stage::Registering if process.asks_until <= now => {
                process.asks_until = now + PATIENCE_MS;
                let broker = RegisterBroker {
                    fenced: true,
                    ..RegisterBroker::new(id, process.incarnation, "n".to_owned(), 1)
                };
                let previous_broker_epoch = process.previous_epoch;
                let cluster_id = CLUSTER.to_owned();
                Call::Register(Box::new(Registration { cluster_id, broker, previous_broker_epoch }))
            }
            Stage::Registered if process.heartbeat_due <= now => {
                process.heartbeat_due = now + HEARTBEAT_MS;
                Call::Heartbeat {
                    epoch: process.epoch,
                    next: process.image.next_offset(),
                    // R14: a broker without a disk leads nothing and is in no ISR.
                    want_fence: process.is_offline(),
                    want_shutdown: process.is_stopping,
                }
            }
            _ => return,
        };
        let view = process.view;
        self.send(Party::Node(node), Party::Node(view), Message::Ask { caller, call });
    }

    /// Asks for the changes of ISRs that leaders propose; one request is out at a time.
    fn change_isrs(&mut self, node: usize) {
        let (now, number, id) = (self.now, self.next_request, self.nodes[node].id);
        let slots = self.slots.clone();
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if process.stage != Stage::Registered || !process.serves {
            return;
        }
        if process.isr.as_ref().is_some_and(|out| out.until > now) {
            return;
        }
        if let Some(out) = process.isr.take() {
            for (topic, id, proposal) in out.proposals {
                let slot = Some(&slots[topic]).filter(|slot| slot.id == Some(id));
                if let Some(partition) = slot.and_then(|slot| process.partition(slot)) {
                    partition.isr_answered(&proposal, ProposalAnswer::Retry);
                    partition.consider_isr();
                }
            }
        }
        process.manager.consider_isrs();
        let mut queued: Vec<Arc<Partition>> = process.environment.isr_queue().take();
        queued.sort_by(|a, b| a.id().cmp(b.id()));
        let proposals: Vec<_> = queued
            .iter()
            .filter_map(|partition| {
                let (id, topic_id) = (partition.id(), partition.topic_id());
                let topic = slots.iter().position(|slot| slot.is_at(id, topic_id))?;
                Some((topic, topic_id, partition.propose_isr()?))
            })
            .collect();
        if proposals.is_empty() {
            return;
        }
        let topics = proposals.iter().map(|(topic, topic_id, proposal)| TopicIsrs {
            topic_id: *topic_id,
            partitions: vec![PartitionIsr {
                partition: slots[*topic].index,
                leader_epoch: proposal.leader_epoch,
                partition_epoch: proposal.partition_epoch,
                isr: proposal
                    .isr
                    .iter()
                    .map(|(broker_id, broker_epoch)| IsrMember {
                        broker_id: *broker_id,
                        broker_epoch: *broker_epoch,
                    })
                    .collect(),
                recovering: false,
            }],
        });
        let request = AlterPartition { broker_id: id, broker_epoch: process.epoch, topics: topics.collect() };
        let caller = Caller { node, process: process.number };
        let view = process.view;
        process.isr = Some(IsrRequest { number, proposals: proposals.clone(), until: now + PATIENCE_MS });
        self.next_request += 1;
        for (topic, _, proposal) in &proposals {
            trace!(self, "node {node} proposes for {}: {proposal:?}", self.names[*topic]);
        }
        let call = Call::Alter { number, request: Box::new(request) };
        self.send(Party::Node(node), Party::Node(view), Message::Ask { caller, call });
    }

    /// Checkpoints and segments; a directory that failed is replaced with its process.
    fn keep_house(&mut self, node: usize) {
        let checkpoints = self.chance(40);
        let Some(process) = self.nodes[node].process.as_mut() else { return };
        if process.is_offline() {
            if !std::mem::replace(&mut self.nodes[node].is_doomed, true) {
                self.counters.directories_offline += 1;
                trace!(self, "node {node}'s directory is offline");
                let after = self.between(20, 200);
                self.plan(after, Event::Repair(node));
            }
            return;
        }
        if checkpoints {
            // What fails takes the directory offline.
            drop(process.manager.checkpoint());
            process.manager.enforce_retention();
            let size = |process: &Process| -> u64 {
                let partitions = process.manager.partitions().into_iter();
                partitions.filter(|it| it.log().config().compact).map(|it| it.log().size_in_bytes()).sum()
            };
            let before = size(process);
            process.manager.compact(&towpath_log::CleanOptions::default());
            if size(process) < before {
                self.counters.compactions += 1;
            }
        }
    }

    pub(super) fn take_answer(&mut self, node: usize, caller: Caller, answer: CallAnswer) -> Checked {
        let id = self.nodes[node].id;
        let Some(process) = self.nodes[node].process.as_mut().filter(|p| p.number == caller.process) else {
            return Ok(());
        };
        match answer {
            CallAnswer::Registered(Ok(epoch)) => {
                if process.stage == Stage::Registering {
                    process.stage = Stage::Registered;
                    process.epoch = epoch;
                }
            }
            CallAnswer::Registered(Err(_)) => {}
            CallAnswer::Heartbeat(Ok(should_stop)) => {
                if should_stop && process.is_stopping {
                    self.stop_cleanly(node)?;
                }
            }
            CallAnswer::Heartbeat(Err(ErrorCode::StaleBrokerEpoch)) => {
                // Another incarnation is registered: the process ends, and its operator starts it again.
                trace!(self, "broker {id} is told that it is another one");
                self.kill(node);
            }
            CallAnswer::Heartbeat(Err(_)) => process.heartbeat_due = self.now,
            CallAnswer::Altered { number, answers } => {
                let Some(out) = process.isr.take_if(|out| out.number == number) else { return Ok(()) };
                for ((topic, id, proposal), answer) in out.proposals.iter().zip(answers) {
                    let slot = Some(&self.slots[*topic]).filter(|slot| slot.id == Some(*id));
                    if let Some(partition) = slot.and_then(|slot| process.partition(slot)) {
                        partition.isr_answered(proposal, answer);
                        partition.consider_isr();
                    }
                    if answer == ProposalAnswer::Refused {
                        self.counters.isr_changes_refused += 1;
                    }
                    trace!(self, "node {node} is answered {answer:?} about {}", self.names[*topic]);
                    self.touched.push((node, *topic));
                }
            }
        }
        Ok(())
    }

    pub(super) fn fetch_due(&mut self, node: usize, process: u64, topic: usize) -> Checked {
        if self.nodes[node].process.as_ref().is_none_or(|running| running.number != process) {
            return Ok(());
        }
        let again = self.between(15, 50);
        self.plan(again, Event::FetchDue { node, process, topic });
        self.fetch(node, topic)
    }

    fn fetch(&mut self, node: usize, topic: usize) -> Checked {
        let (now, bytes) = (self.now, self.profile.fetch_bytes);
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let Some(partition) = process.partition(&self.slots[topic]).filter(|_| process.serves) else {
            return Ok(());
        };
        // R1: the leader counts what this fetch says is here.
        if partition.flush_fetched().is_err() {
            return Ok(());
        }
        if !process.is_offline() {
            // As in `observe`.
            self.models[topic].durable(node, partition.log().recovery_point().get());
        }
        let Some(plan) = partition.plan_fetch() else { return Ok(()) };
        let key = (topic, plan.leader);
        if process.fetches.get(&key).is_some_and(|(_, until)| *until > now) {
            return Ok(());
        }
        process.fetches.insert(key, (plan, now + PATIENCE_MS));
        let (caller, epoch) = (Caller { node, process: process.number }, process.epoch);
        if let Some(leader) = self.index_of(plan.leader) {
            let message = Message::Fetch { caller, topic, epoch, plan, bytes };
            self.send(Party::Node(node), Party::Node(leader), message);
        }
        Ok(())
    }

    pub(super) fn serving(&self, node: usize, topic: usize) -> Option<Arc<Partition>> {
        let process = self.nodes[node].process.as_ref().filter(|process| process.serves)?;
        process.partition(&self.slots[topic])
    }

    pub(super) fn answer_fetch(
        &mut self,
        node: usize,
        caller: Caller,
        topic: usize,
        epoch: BrokerEpoch,
        plan: &FetchPlan,
        bytes: usize,
    ) -> Checked {
        let Some(partition) = self.serving(node, topic) else { return Ok(()) };
        let fetch = FollowerFetch {
            broker: self.nodes[caller.node].id,
            broker_epoch: epoch,
            log_end: plan.offset,
            log_start: plan.log_start,
        };
        let position = FetchPosition {
            offset: plan.offset,
            current_leader_epoch: plan.leader_epoch,
            last_fetched_epoch: plan.last_fetched_epoch,
            bytes_max: bytes,
            min_one: true,
            isolation: Isolation::ReadUncommitted,
        };
        let outcome = match partition.fetch(Reader::Follower(fetch), &position) {
            Ok(fetched) => {
                let records = fetched.data.into_bytes();
                let answer = match fetched.diverging {
                    Some((epoch, end)) => {
                        trace!(
                            self,
                            "node {node}'s {} parts from node {}'s, {plan:?}, where epoch {epoch} ends, at {end}: {:?}",
                            self.names[topic],
                            caller.node,
                            partition.log().epoch_entries()
                        );
                        LeaderAnswer::Diverging { epoch, end }
                    }
                    None => LeaderAnswer::Records,
                };
                match records {
                    Ok(records) => FetchOutcome::Answer(FollowerAnswer {
                        answer,
                        records,
                        high_watermark: fetched.high_watermark,
                        log_start: fetched.log_start_offset,
                    }),
                    Err(_) => FetchOutcome::Refused,
                }
            }
            Err(PartitionError::OutOfRange { .. }) => FetchOutcome::OutOfRange,
            Err(error) => {
                self.counters.fetches_refused += 1;
                trace!(
                    self,
                    "node {node} refuses node {}'s fetch of {}: {error}", caller.node, self.names[topic]
                );
                FetchOutcome::Refused
            }
        };
        self.touch(node, topic);
        let message = Message::Fetched { caller, topic, plan: *plan, outcome };
        self.send(Party::Node(node), Party::Node(caller.node), message);
        Ok(())
    }

    pub(super) fn answer_range(&mut self, node: usize, caller: Caller, topic: usize, plan: FetchPlan) {
        let Some(partition) = self.serving(node, topic) else { return };
        let range = || {
            partition.check_epoch(plan.leader_epoch)?;
            Ok::<_, PartitionError>((partition.earliest_offset()?, partition.leader_log_end()?))
        };
        let outcome = match range() {
            Ok((start, end)) => FetchOutcome::Answer(FollowerAnswer {
                answer: LeaderAnswer::OutOfRange { start, end },
                records: bytes::Bytes::new(),
                high_watermark: Offset::ZERO,
                log_start: Offset::ZERO,
            }),
            Err(_) => FetchOutcome::Refused,
        };
        let message = Message::Fetched { caller, topic, plan, outcome };
        self.send(Party::Node(node), Party::Node(caller.node), message);
    }

    pub(super) fn take_fetched(
        &mut self,
        node: usize,
        caller: Caller,
        topic: usize,
        plan: FetchPlan,
        outcome: FetchOutcome,
    ) -> Checked {
        let Some(process) = self.nodes[node].process.as_mut().filter(|p| p.number == caller.process) else {
            return Ok(());
        };
        let key = (topic, plan.leader);
        // An answer to a request that is not waited for any more came over a connection that is closed.
        if process.fetches.get(&key).is_none_or(|(out, _)| *out != plan) {
            return Ok(());
        }
        let answer = match outcome {
            FetchOutcome::OutOfRange => {
                if let Some(leader) = self.index_of(plan.leader) {
                    let message = Message::Range { caller, topic, plan };
                    self.send(Party::Node(node), Party::Node(leader), message);
                }
                return Ok(());
            }
            FetchOutcome::Refused => {
                process.fetches.remove(&key);
                return Ok(());
            }
            FetchOutcome::Answer(answer) => answer,
        };
        process.fetches.remove(&key);
        let Some(partition) = process.partition(&self.slots[topic]) else { return Ok(()) };
        let before = partition.log().log_end_offset();
        let applied = partition.apply_fetched(&plan, &answer);
        self.follow_log(node, topic, &partition, before, &answer, &applied)?;
        self.touch(node, topic);
        if applied.is_ok() && partition.log().log_end_offset() != before {
            return self.fetch(node, topic);
        }
        Ok(())
    }

    /// Brings the copy of a follower's log in line with what it did.
    fn follow_log(
        &mut self,
        node: usize,
        topic: usize,
        partition: &Partition,
        before: Offset,
        answer: &FollowerAnswer,
        applied: &Result<Applied, PartitionError>,
    ) -> Checked {
        let end = partition.log().log_end_offset();
        let model = &mut self.models[topic];
        match applied {
            Ok(Applied::Cut(to)) => {
                let is_restart = matches!(answer.answer, LeaderAnswer::OutOfRange { .. });
                model.cut(node, to.get());
                if let LeaderAnswer::OutOfRange { start, end } = answer.answer
                    && (*to < start || *to > end)
                {
                    let detail = format!(
                        "{}: node {node} goes to {to}; its leader has what is from {start} to {end}",
                        self.names[topic]
                    );
                    return Err(Violation::new(RANGE, detail));
                }
                if is_restart {
                    self.counters.restarts_of_logs += 1;
                } else if *to < before {
                    self.counters.truncations += 1;
                }
                trace!(
                    self,
                    "node {node} cuts {} from {before} to {to}: {:?}",
                    self.names[topic],
                    partition.log().epoch_entries()
                );
            }
            Ok(Applied::Nothing) if answer.answer != LeaderAnswer::Records || !answer.records.is_empty() => {
                self.counters.answers_discarded += 1;
            }
            Ok(_) => {}
            Err(error) => {
                trace!(self, "node {node} cannot take what it fetched of {}: {error}", self.names[topic]);
                if partition.log().offline_reason().is_some() {
                    // Half a truncation may be done: nothing is known of what will be there.
                    self.models[topic].durable(node, 0);
                    self.nodes[node].ending = crate::model::Ending::Lost;
                }
            }
        }
        let mirror_end = self.models[topic].mirror(node).map_or(0, crate::model::Mirror::end);
        if end.get() > mirror_end && matches!(applied, Ok(Applied::Appended(_)) | Err(_)) {
            let read = entries(&answer.records).map_err(|error| Violation::new(INTERNAL, error))?;
            let new: Vec<_> = read
                .into_iter()
                .filter(|(offset, _)| *offset >= before.get() && *offset < end.get())
                .collect();
            trace!(self, "node {node} appends {} from {before} to {end}", self.names[topic]);
            self.models[topic].appended(node, &new)?;
            self.models[topic].fill(node, end.get());
        }
        Ok(())
    }

    pub(super) fn flush(&mut self, node: usize, process: u64) -> Checked {
        let running = self.nodes[node].process.as_mut().filter(|running| running.number == process);
        if let Some(running) = running {
            running.flush_planned = false;
            running.flusher.flush_queued();
            self.touch_all(node);
        }
        Ok(())
    }

    /// What a replica says of itself now.
    pub(super) fn seen(partition: &Partition) -> Seen {
        Seen {
            leads: partition.is_leader(),
            stable: partition.last_stable_offset().get(),
            epoch: partition.leader_epoch().get(),
            high_watermark: partition.high_watermark().get(),
        }
    }
}
