//! What operators do.

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use towpath_controller::MetadataImage;
use towpath_controller::decide::{
    self, Assignment, ClusterPolicy, ConfigChange, ConfigOperation, ConfigTarget, Decision, DeleteTarget,
    ElectionKind, NewTopic, PartitionRef, Reassignment,
};
use towpath_types::{BrokerId, Offset, TopicId};
use uuid::Uuid;

use super::event::Asked;
use super::{Event, Simulation, trace};
use crate::net::CallAnswer;
use crate::node::Kind;
use crate::violation::Checked;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) enum AdminCall {
    Create { id: u64, topic: NewTopic },
    Reassign { topic: (String, i32), replicas: Option<Vec<BrokerId>> },
    Elect { topic: (String, i32), kind: ElectionKind },
    MinIsr { topic: (String, i32), value: usize },
    Delete { topic: String },
}

impl AdminCall {
    pub(super) fn decide(
        &self,
        image: &MetadataImage,
        policy: &ClusterPolicy,
    ) -> Decision<Option<CallAnswer>> {
        let partition =
            |(topic, partition): &(String, i32)| PartitionRef { topic: topic.clone(), partition: *partition };
        let records = match self {
            Self::Create { id, topic } => {
                let new_id = || TopicId::new(Uuid::from_u64_pair(7, *id));
                decide::create_topics(image, std::slice::from_ref(topic), &policy.defaults, new_id).records
            }
            Self::Reassign { topic, replicas } => {
                let asked = Reassignment { partition: partition(topic), replicas: replicas.clone() };
                decide::alter_partition_reassignments(image, policy, &[asked], true).records
            }
            Self::Elect { topic, kind } => {
                decide::elect_leaders(image, policy, *kind, Some(&[partition(topic)])).records
            }
            Self::MinIsr { topic, value } => {
                let change = ConfigChange {
                    name: "min.insync.replicas".to_owned(),
                    operation: ConfigOperation::Set,
                    value: Some(value.to_string()),
                };
                decide::alter_configs(image, &ConfigTarget::Topic(topic.0.to_string()), &[change], policy)
                    .map(|decision| decision.records)
                    .unwrap_or_default()
            }
            Self::Delete { topic } => {
                let target = DeleteTarget { name: Some(topic.clone()), id: TopicId::ZERO };
                decide::delete_topics(image, &[target]).records
            }
        };
        Decision { records, answer: None }
    }
}

impl Simulation {
    /// Which nodes some partition shall have.
    fn some_nodes(&mut self, count: usize) -> Vec<BrokerId> {
        let mut nodes: Vec<BrokerId> = self.nodes.iter().map(|node| node.id).collect();
        nodes.shuffle(&mut self.random);
        nodes.truncate(count);
        nodes
    }

    pub(super) fn create(&mut self, topic: usize) -> Checked {
        let head = self.head()?;
        let slots: Vec<usize> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].topic == topic).collect();
        let Some(first) = slots.first().copied() else { return Ok(()) };
        let name = self.slots[first].name.clone();
        if head.topic(&name).is_some() {
            return Ok(());
        }
        self.plan(60, Event::Create(topic));
        let wanted = self.profile.topics[topic];
        let mut assignments = Vec::with_capacity(slots.len());
        for partition in (0..).take(slots.len()) {
            let brokers = if self.is_calm {
                self.nodes.iter().map(|node| node.id).skip(wanted.first).take(wanted.factor).collect()
            } else {
                self.some_nodes(wanted.factor)
            };
            assignments.push(Assignment { partition, brokers });
        }
        self.next_request += 1;
        let mut configs = vec![("min.insync.replicas".to_owned(), Some(wanted.min_isr.to_string()))];
        if wanted.flushed {
            configs.push(("flush.messages".to_owned(), Some("1".to_owned())));
        }
        if wanted.compacted {
            configs.push(("cleanup.policy".to_owned(), Some("compact".to_owned())));
        }
        if self.profile.unclean {
            configs.push(("unclean.leader.election.enable".to_owned(), Some("true".to_owned())));
        }
        let new = NewTopic { name, partitions: -1, replication_factor: -1, assignments, configs };
        self.ask_as_operator(AdminCall::Create { id: self.next_request, topic: new })
    }

    pub(super) fn ask_as_operator(&mut self, call: AdminCall) -> Checked {
        let Some(active) = self.quorum.active.filter(|active| self.nodes[*active].is_running()) else {
            return Ok(());
        };
        trace!(self, "an operator asks for {call:?}");
        self.nodes[active].pass_time(self.now);
        self.decide(active, Asked::Admin(call))
    }

    pub(super) fn administer(&mut self) -> Checked {
        if self.settling {
            return Ok(());
        }
        if self.is_calm {
            self.plan(50, Event::Administer);
            return Ok(());
        }
        let again = self.between(1, self.profile.admin_every_ms * 2);
        self.plan(again, Event::Administer);
        let topic = self.random.random_range(0..self.names.len());
        let name = (self.slots[topic].name.clone(), self.slots[topic].index);
        let Some(kind) = self.weighted(&self.profile.admin.weights()) else { return Ok(()) };
        let call = match kind {
            0 => {
                let count = self.random.random_range(1..=3.min(self.nodes.len()));
                AdminCall::Reassign { topic: name, replicas: Some(self.some_nodes(count)) }
            }
            1 => AdminCall::Reassign { topic: name, replicas: None },
            2 => AdminCall::Elect { topic: name, kind: ElectionKind::Preferred },
            3 => {
                self.counters.config_changes += 1;
                AdminCall::MinIsr { topic: name, value: self.random.random_range(1..=3) }
            }
            4 => return self.delete_records(topic),
            6 => return self.delete_topic(topic),
            _ if self.profile.unclean => AdminCall::Elect { topic: name, kind: ElectionKind::Unclean },
            _ => return Ok(()),
        };
        self.ask_as_operator(call)
    }

    /// An index, by weights.
    pub(super) fn weighted(&mut self, weights: &[u32]) -> Option<usize> {
        let sum: u32 = weights.iter().sum();
        if sum == 0 {
            return None;
        }
        let mut drawn = self.random.random_range(0..sum);
        weights.iter().position(|weight| {
            let is_it = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            is_it
        })
    }

    /// Deletes a topic, which is created again.
    fn delete_topic(&mut self, slot: usize) -> Checked {
        if self.slots[slot].kind != Kind::Data {
            return Ok(());
        }
        self.ask_as_operator(AdminCall::Delete { topic: self.slots[slot].name.clone() })
    }

    fn delete_records(&mut self, topic: usize) -> Checked {
        if self.slots[topic].kind != Kind::Data {
            // Nobody deletes the records of coordinators.
            return Ok(());
        }
        let head = self.head()?;
        let state = self.slots[topic].state(&head);
        let leader = state.and_then(|state| state.leader).and_then(|leader| self.index_of(leader));
        let Some(node) = leader.filter(|node| self.nodes[*node].is_running()) else { return Ok(()) };
        let process = self.nodes[node].process.as_ref().filter(|process| process.serves);
        let Some(partition) = process.and_then(|process| process.partition(&self.slots[topic])) else {
            return Ok(());
        };
        let end = partition.high_watermark().get();
        let to = self.between(partition.log().log_start_offset().get(), end);
        let to = if self.chance(300) { None } else { Some(to) };
        self.delete_at(node, topic, to)
    }

    /// Deletes records at a node that leads.
    pub(super) fn delete_at(&mut self, node: usize, topic: usize, to: Option<i64>) -> Checked {
        let process = self.nodes[node].process.as_ref();
        let Some(partition) = process.and_then(|process| process.partition(&self.slots[topic])) else {
            return Ok(());
        };
        let before = partition.log().log_start_offset();
        // What fails afterwards does not undo it.
        let deleted = partition.delete_records_before(to.map(Offset::new));
        let start = partition.log().log_start_offset();
        if deleted.is_ok() || start > before {
            self.counters.records_deleted += 1;
            trace!(self, "the records of {} before {start} are deleted", self.names[topic]);
            let model = &mut self.models[topic];
            model.deleted_to = model.deleted_to.max(start.get());
        }
        self.touch(node, topic);
        Ok(())
    }
}
