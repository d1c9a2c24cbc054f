//! What is looked at after every step: the replicas that it touched.

use std::sync::Arc;

use towpath_replica::Partition;
use towpath_types::{BrokerId, Rule};

use super::{Event, Simulation, trace};
use crate::groups::Coordinator;
use crate::net::{Message, Party, Refusal};
use crate::node::Kind;
use crate::violation::{BELIEF, CANDIDATES, Checked, LEADER_COMPLETENESS, SUPERSET, Violation};

impl Simulation {
    /// Looks at one replica, and does what follows from its state: acknowledgements, flushes, groups.
    pub(super) fn observe(&mut self, node: usize, topic: usize) -> Checked {
        let Some(process) = self.nodes[node].process.as_ref() else { return Ok(()) };
        let Some(partition) = process.partition(&self.slots[topic]) else { return Ok(()) };
        if !process.is_offline() {
            // What is durable in a directory that failed was said when it did.
            self.models[topic].durable(node, partition.log().recovery_point().get());
        }
        let seen = Self::seen(&partition);
        let grown = self.models[topic].observe(node, seen)?;
        if grown > 0 {
            self.counters.committed += grown;
            trace!(self, "{} is committed before {} (leader {node})", self.names[topic], seen.high_watermark);
            self.check_candidates(topic)?;
        }
        if seen.leads {
            self.check_leader(node, topic, &partition)?;
        }
        self.acknowledge(node, topic, &partition)?;
        self.decide_fates(topic)?;
        match self.slots[topic].kind {
            Kind::Offsets => self.coordinate(node, topic, &partition)?,
            Kind::Transactions => self.coordinate_transactions(node, topic, &partition)?,
            Kind::Data => {}
        }
        if self.profile.transactional {
            self.acknowledge_markers(node, topic, &partition);
        }
        self.plan_flush(node, &partition);
        Ok(())
    }

    fn plan_flush(&mut self, node: usize, partition: &Partition) {
        let log = partition.log();
        if !partition.counts_when_flushed() || log.recovery_point() >= log.log_end_offset() {
            return;
        }
        let after = self.between(1, 8);
        let Some(process) = self.nodes[node].process.as_mut().filter(|process| !process.flush_planned) else {
            return;
        };
        process.flush_planned = true;
        let process = process.number;
        self.plan(after, Event::Flush { node, process });
    }

    /// Every member of the controller's ISR and ELR has all that is committed, unless it has lost records in a crash
    /// and the controller does not know of that yet.
    pub(super) fn check_candidates(&mut self, topic: usize) -> Checked {
        let head = self.head()?;
        let Some(state) = self.slots[topic].state(&head) else {
            return Ok(());
        };
        for member in state.isr.iter().chain(&state.elr) {
            let Some(node) = self.index_of(*member) else { continue };
            if self.nodes[node].lost_since_registration {
                continue;
            }
            let invariant = if state.leader == Some(*member) { LEADER_COMPLETENESS } else { CANDIDATES };
            self.models[topic].check_candidate(node, invariant).map_err(|violation| Violation {
                detail: format!("{}: {}; {state:?}", self.names[topic], violation.detail),
                ..violation
            })?;
        }
        Ok(())
    }

    /// The leader counts whoever the controller counts, and only what these have.
    fn check_leader(&mut self, node: usize, topic: usize, partition: &Partition) -> Checked {
        let head = self.head()?;
        let Some(state) = self.slots[topic].state(&head) else {
            return Ok(());
        };
        if state.leader != Some(self.nodes[node].id) || state.leader_epoch != partition.leader_epoch() {
            return Ok(());
        }
        let maximal = partition.maximal_isr();
        if let Some(missing) = state.isr.iter().find(|member| !maximal.contains(member)) {
            let detail = format!(
                "{}: leader {node} goes by {maximal:?}, {missing} is not in it; {state:?}",
                self.names[topic]
            );
            return Err(Violation::new(SUPERSET, detail));
        }
        if self.models[topic].is_unsettled() || self.models[topic].was_reset {
            return Ok(());
        }
        for member in state.isr.clone() {
            self.check_belief(node, topic, partition, member)?;
        }
        Ok(())
    }

    fn check_belief(&self, node: usize, topic: usize, partition: &Partition, member: BrokerId) -> Checked {
        let Some(follower) = self.index_of(member).filter(|follower| *follower != node) else {
            return Ok(());
        };
        if self.nodes[follower].lost_since_registration {
            return Ok(());
        }
        let Some(believed) = partition.follower_log_end(member) else { return Ok(()) };
        let has = self.models[topic].mirror(follower).map_or(0, crate::model::Mirror::end);
        if has < believed.get() {
            let detail = format!(
                "{}: leader {node} counts all before {believed} at node {follower}, which has all before {has}",
                self.names[topic]
            );
            return Err(Violation::new(BELIEF, detail));
        }
        Ok(())
    }

    /// Answers those whose records are committed, or whose leader is none any more.
    fn acknowledge(&mut self, node: usize, topic: usize, partition: &Partition) -> Checked {
        let now = self.now;
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let mut done = Vec::new();
        let mut index = 0;
        while index < process.waiting.len() {
            let waiting = &process.waiting[index];
            if waiting.topic != topic {
                index += 1;
                continue;
            }
            let result = match partition.is_committed(&waiting.appended) {
                Ok(true) => Some(true),
                Ok(false) => (waiting.until < now).then_some(false),
                Err(_) => Some(false),
            };
            match result {
                Some(result) => done.push((process.waiting.remove(index), result)),
                None => index += 1,
            }
        }
        for (waiting, is_committed) in done {
            let result = if is_committed {
                let first = waiting.appended.info.first_offset.get();
                // Who had an epoch that another one gets again, since the state was lost, may be told of the other's records.
                let is_known = matches!(waiting.client, Party::Client(_)) || !self.transactions.is_void;
                if is_known {
                    self.models[topic].acknowledge(partition.leader_epoch().get(), first, &waiting.ids)?;
                }
                self.counters.acknowledged += 1;
                trace!(
                    self,
                    "node {node} acknowledges {} from {first}: {:x?}", self.names[topic], waiting.ids
                );
                Ok(())
            } else {
                Err(Refusal::Retriable)
            };
            let message = Message::Produced { number: waiting.number, result };
            self.send(Party::Node(node), waiting.client, message);
        }
        Ok(())
    }

    /// Groups are served where their partition is led.
    fn coordinate(&mut self, node: usize, topic: usize, partition: &Arc<Partition>) -> Checked {
        let (ms, rules) = (self.nodes[node].clock_ms(self.now), self.rules);
        let term = partition.term();
        let Some(process) = self.nodes[node].process.as_mut() else { return Ok(()) };
        let Some(term) = term.filter(|_| !process.is_offline()) else {
            if rules.holds(Rule::CoordinatorTerm) {
                process.coordinator = None;
            }
            return Ok(());
        };
        let is_over = |known: &Coordinator| known.term != term && rules.holds(Rule::CoordinatorTerm);
        if process.coordinator.as_ref().is_none_or(is_over) {
            process.coordinator = Some(Coordinator::load(partition, term)?);
            self.counters.coordinators_loaded += 1;
        }
        let Some(coordinator) = process.coordinator.as_mut() else { return Ok(()) };
        let (told, appended) = coordinator.drive(partition, ms, rules)?;
        if let Some((appended, written)) = appended {
            self.note_written(node, topic, partition, &appended, &written)?;
            self.touch(node, topic);
        }
        self.tell(node, told);
        Ok(())
    }
}
