//! What operators do.

use rand::Rng as _;
use rand::seq::SliceRandom as _;
use towpath_controller::MetadataImage;
use towpath_controller::decide::{
    self, Assignment, ClusterPolicy, ConfigChange, ConfigOperation, ConfigTarget, Decision, ElectionKind,
    NewTopic, PartitionRef, Reassignment,
};
use towpath_types::{BrokerId, Offset, TopicId};
use uuid::Uuid;

use super::event::Asked;
use super::{Event, Simulation, trace};
use crate::net::CallAnswer;
use crate::violation::Checked;

/// What an operator asks for.
#[derive(Debug, Clone)]
pub(crate) enum AdminCall {
    Create { id: u64, topic: NewTopic },
    Reassign { topic: String, replicas: Option<Vec<BrokerId>> },
    Elect { topic: String, kind: ElectionKind },
    MinIsr { topic: String, value: usize },
}

impl AdminCall {
    pub(super) fn decide(
        &self,
        image: &MetadataImage,
        policy: &ClusterPolicy,
    ) -> Decision<Option<CallAnswer>> {
        let partition = |topic: &String| PartitionRef { topic: topic.clone(), partition: 0 };
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
                decide::alter_configs(image, &ConfigTarget::Topic(topic.to_string()), &[change], policy)
                    .map(|decision| decision.records)
                    .unwrap_or_default()
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
        if head.topic(&self.names[topic]).is_some() {
            return Ok(());
        }
        self.plan(60, Event::Create(topic));
        let wanted = self.profile.topics[topic];
        let brokers = if self.is_calm {
            self.nodes.iter().map(|node| node.id).take(wanted.factor).collect()
        } else {
            self.some_nodes(wanted.factor)
        };
        let mut configs = vec![("min.insync.replicas".to_owned(), Some(wanted.min_isr.to_string()))];
        if wanted.flushed {
            configs.push(("flush.messages".to_owned(), Some("1".to_owned())));
        }
        if self.profile.unclean {
            configs.push(("unclean.leader.election.enable".to_owned(), Some("true".to_owned())));
        }
        let new = NewTopic {
            name: self.names[topic].clone(),
            partitions: -1,
            replication_factor: -1,
            assignments: vec![Assignment { partition: 0, brokers }],
            configs,
        };
        self.ask_as_operator(AdminCall::Create { id: topic as u64 + 1, topic: new })
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
        let name = self.names[topic].clone();
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

    fn delete_records(&mut self, topic: usize) -> Checked {
        if topic + 1 == self.names.len() {
            // Nobody deletes the records of groups.
            return Ok(());
        }
        let head = self.head()?;
        let state = head.topic(&self.names[topic]).and_then(|topic| topic.partitions.first());
        let leader = state.and_then(|state| state.leader).and_then(|leader| self.index_of(leader));
        let Some(node) = leader.filter(|node| self.nodes[*node].is_running()) else { return Ok(()) };
        let process = self.nodes[node].process.as_ref().filter(|process| process.serves);
        let Some(partition) = process.and_then(|process| process.partition(&self.names[topic])) else {
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
        let Some(partition) = process.and_then(|process| process.partition(&self.names[topic])) else {
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
