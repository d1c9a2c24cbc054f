//! What must hold of the committed metadata, and what follows from a change of them.

use std::sync::Arc;

use towpath_controller::{MetadataImage, PartitionImage, TopicImage};
use towpath_types::BrokerId;

use super::clients::Consumer;
use super::{Event, Simulation, trace};
use crate::model::PartitionModel;
use crate::node::min_isr;
use crate::violation::{Checked, EPOCHS, LEADER_COMPLETENESS, METADATA, ONE_LEADER, REASSIGNMENT, Violation};

fn allows_unclean(topic: &TopicImage) -> bool {
    topic.configs.get("unclean.leader.election.enable").is_some_and(|value| value == "true")
}

impl Simulation {
    pub(super) fn check_head(&mut self, old: &Arc<MetadataImage>, new: &Arc<MetadataImage>) -> Checked {
        for broker in new.brokers() {
            let before = old.broker(broker.id);
            if before.is_some_and(|before| before.epoch > broker.epoch) {
                return Err(Violation::new(EPOCHS, format!("broker {} goes back", broker.id)));
            }
            if broker.fenced && before.is_some_and(|before| !before.fenced) {
                self.counters.fenced += 1;
            }
            let registered = before.is_none_or(|before| before.epoch != broker.epoch);
            if registered && let Some(node) = self.index_of(broker.id) {
                let process = broker.incarnation.as_u64_pair().1;
                if process > self.nodes[node].lost_by {
                    // From here on the controller knows.
                    self.nodes[node].lost_since_registration = false;
                }
            }
        }
        for topic in 0..self.names.len() {
            self.check_identity(topic, new);
            let Some(after) = new.topic(&self.slots[topic].name).cloned() else { continue };
            let before = old.topic(&self.slots[topic].name).filter(|before| before.id == after.id).cloned();
            let Some(state) = self.slots[topic].state(new) else { continue };
            let old_state = before.as_ref().and_then(|_| self.slots[topic].state(old));
            if let Some(old_state) = old_state.filter(|old| *old != state) {
                self.check_transition(topic, &after, old_state, state)?;
            }
            self.check_state(topic, new, &after, state)?;
            self.check_candidates(topic)?;
        }
        for node in 0..self.nodes.len() {
            self.touch_all(node);
        }
        Ok(())
    }

    /// A topic that was deleted, or created again, has no history.
    fn check_identity(&mut self, topic: usize, new: &MetadataImage) {
        let id = new.topic(&self.slots[topic].name).map(|topic| topic.id);
        let slot = &mut self.slots[topic];
        if slot.id == id {
            return;
        }
        if slot.id.is_some() {
            self.counters.topics_deleted += u64::from(slot.index == 0);
            slot.generation += 1;
            self.models[topic] = PartitionModel::new(slot.is_compacted);
            self.consumers
                .iter_mut()
                .filter(|consumer| consumer.topic == topic)
                .for_each(Consumer::begin_anew);
            for node in &mut self.nodes {
                if let Some(process) = &mut node.process {
                    process.forget(topic);
                }
            }
        }
        slot.id = id;
        if id.is_none() {
            let (topic, after) = (slot.topic, self.between(5, 120));
            self.plan(after, Event::Create(topic));
        }
    }

    fn check_transition(
        &mut self,
        topic: usize,
        image: &TopicImage,
        old: &PartitionImage,
        new: &PartitionImage,
    ) -> Checked {
        let name = &self.names[topic];
        if new.partition_epoch <= old.partition_epoch || new.leader_epoch < old.leader_epoch {
            return Err(Violation::new(EPOCHS, format!("{name}: {old:?} becomes {new:?}")));
        }
        if new.leader != old.leader && new.leader_epoch == old.leader_epoch {
            return Err(Violation::new(ONE_LEADER, format!("{name}: {old:?} becomes {new:?}")));
        }
        self.check_reassignment(topic, old, new)?;
        self.count(old, new);
        let begins = new.leader.is_some() && new.leader_epoch != old.leader_epoch;
        if !begins || new.leader == old.leader {
            return Ok(());
        }
        trace!(
            self,
            "{} is led by {:?} in epoch {}: {new:?}", self.names[topic], new.leader, new.leader_epoch
        );
        let had_all = |leader: &BrokerId| old.isr.contains(leader) || old.elr.contains(leader);
        if !new.recovering || new.leader.is_some_and(|leader| had_all(&leader)) {
            let from_elr = old.isr.is_empty() && new.leader.is_some_and(|leader| old.elr.contains(&leader));
            self.counters.elections += 1;
            self.counters.elections_from_elr += u64::from(from_elr);
            let is_preferred = new.leader == new.replicas.first().copied() && old.leader.is_some();
            self.counters.preferred_elections += u64::from(is_preferred);
            return Ok(());
        }
        self.counters.unclean_elections += 1;
        self.check_unclean(topic, image, new)
    }

    /// A leader that may lack records: where the topic allows it, or where all that are left have stopped uncleanly and
    /// the last leader has lost records in a crash (KIP-966), which a flushed topic does not.
    fn check_unclean(&mut self, topic: usize, image: &TopicImage, new: &PartitionImage) -> Checked {
        let epoch = new.leader_epoch.get();
        let Some(leader) = new.leader.and_then(|leader| self.index_of(leader)) else { return Ok(()) };
        if allows_unclean(image) {
            self.models[topic].allow_loss(epoch);
            return Ok(());
        }
        if self.models[topic].is_unsettled() || self.models[topic].has_all(leader) {
            return Ok(());
        }
        if !crate::node::is_flushed(image) && self.nodes[leader].has_ever_lost {
            self.models[topic].allow_loss(epoch);
            return Ok(());
        }
        self.models[topic].check_candidate(leader, LEADER_COMPLETENESS).map_err(|violation| Violation {
            detail: format!("{}, the last known leader: {}; {new:?}", self.names[topic], violation.detail),
            ..violation
        })
    }

    /// Rule 13.
    fn check_reassignment(&mut self, topic: usize, old: &PartitionImage, new: &PartitionImage) -> Checked {
        if !old.is_reassigning() && new.is_reassigning() {
            self.counters.reassignments += 1;
        }
        if !old.is_reassigning() || new.is_reassigning() {
            return Ok(());
        }
        let goal: Vec<_> = old.goal().collect();
        let is_goal = new.replicas.iter().all(|replica| goal.contains(replica));
        if !is_goal || new.replicas.iter().all(|replica| old.original().any(|original| original == *replica))
        {
            let went_back = old.original().all(|original| new.replicas.contains(&original));
            if went_back {
                self.counters.reassignments_cancelled += 1;
                return Ok(());
            }
        }
        self.counters.reassignments_completed += 1;
        // As long as nobody is dropped, nothing is lost by whoever is not in sync.
        let drops = old.replicas.iter().any(|replica| !new.replicas.contains(replica));
        let is_in_sync = |added: &BrokerId| new.isr.contains(added) || old.isr.contains(added);
        let missing =
            old.adding_replicas.iter().find(|added| new.replicas.contains(added) && !is_in_sync(added));
        if let Some(missing) = missing.filter(|_| drops) {
            let detail = format!("{}: {missing} was not in sync: {old:?} becomes {new:?}", self.names[topic]);
            return Err(Violation::new(REASSIGNMENT, detail));
        }
        Ok(())
    }

    fn count(&mut self, old: &PartitionImage, new: &PartitionImage) {
        self.counters.isr_expansions += u64::from(new.isr.iter().any(|member| !old.isr.contains(member)));
        self.counters.isr_shrinks += u64::from(old.isr.iter().any(|member| !new.isr.contains(member)));
    }

    fn check_state(
        &self,
        topic: usize,
        image: &MetadataImage,
        of: &TopicImage,
        state: &PartitionImage,
    ) -> Checked {
        let wrong = |what: &str| {
            let detail = format!("{}: {what}: {state:?}", self.names[topic]);
            Err(Violation::new(METADATA, detail))
        };
        if let Some(leader) = state.leader {
            if !state.isr.contains(&leader) {
                return wrong("the leader is not in sync");
            }
            if image.broker(leader).is_none_or(|broker| broker.fenced) {
                return wrong("the leader is fenced");
            }
        }
        if state.isr.iter().any(|member| !state.replicas.contains(member)) {
            // KAFKA-9672.
            return wrong("a member of the ISR is no replica");
        }
        if state.elr.iter().any(|member| !state.replicas.contains(member) || state.isr.contains(member)) {
            return wrong("a member of the ELR is no replica, or in sync");
        }
        if state.isr.iter().any(|member| image.broker(*member).is_none_or(|broker| broker.fenced)) {
            // KIP-841.
            return wrong("a member of the ISR is fenced");
        }
        let needed = min_isr(of).min(state.replicas.len()).max(1);
        if state.isr.len() >= needed && !state.elr.is_empty() {
            return wrong("there are enough in sync, and others eligible");
        }
        Ok(())
    }
}
