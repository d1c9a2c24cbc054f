//! Random sequences of all decisions over a random cluster, with a model of what every replica's log holds. After
//! every decision the image is sound, and who is or may be elected has everything that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use towpath_types::{BrokerEpoch, BrokerId, Offset, Rule, Rules, TopicId};
use uuid::Uuid;

use super::support::*;
use super::*;
use crate::image::{SnapshotError, SnapshotRecord};
use crate::{MetadataImage, PartitionImage};

/// SplitMix64: a sequence that a seed decides.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        from.get(self.below(from.len())).cloned()
    }
}

type Key = (TopicId, i32);

/// The controller, and what the replicas hold, in numbers of records.
struct World {
    random: Random,
    policy: ClusterPolicy,
    image: MetadataImage,
    logs: BTreeMap<(Key, BrokerId), u64>,
    /// What was acknowledged.
    committed: BTreeMap<Key, u64>,
    /// Partitions whose last in-sync replica was unregistered.
    lost: BTreeSet<Key>,
    /// Requests of leaders that are on their way, or come late.
    pending: Vec<AlterPartition>,
    brokers: usize,
    topics: usize,
    log: Vec<String>,
}

/// What a decision may do besides the ordinary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    /// Nothing.
    Plain,
    /// Elect somebody who comes into the ISR by the decision itself.
    ElectNewMember,
    /// Elect somebody who lacks records.
    ElectUncleanly,
}

impl World {
    fn new(seed: u64, elr_enabled: bool, rules: Rules) -> Self {
        let mut random = Random(seed);
        let brokers = 3 + random.below(4);
        let policy = ClusterPolicy { elr_enabled, rules, ..policy() };
        let mut world = Self {
            random,
            policy,
            image: image(0),
            logs: BTreeMap::new(),
            committed: BTreeMap::new(),
            lost: BTreeSet::new(),
            pending: Vec::new(),
            brokers,
            topics: 0,
            log: Vec::new(),
        };
        for id in 1..=brokers as i32 {
            let mut registration = registration(id, BrokerEpoch::new(-1));
            registration.broker.rack = world.random.chance(70).then(|| format!("r{}", id % 3));
            let decision = register_broker(&world.image, &world.policy, &registration, false).unwrap();
            commit(&mut world.image, decision);
            unfence(&mut world.image, &world.policy, id);
        }
        for _ in 0..2 {
            world.create_topic().unwrap();
        }
        world
    }

    fn broker(&mut self) -> i32 {
        1 + self.random.below(self.brokers) as i32
    }

    fn partitions(&self) -> Vec<(TopicId, String, i32, PartitionImage)> {
        let topics = self.image.topics();
        topics
            .flat_map(|topic| {
                (0..)
                    .zip(&topic.partitions)
                    .map(|(index, state)| (topic.id, topic.name.to_string(), index, state.clone()))
            })
            .collect()
    }

    fn leo(&self, key: Key, broker: BrokerId) -> u64 {
        self.logs.get(&(key, broker)).copied().unwrap_or(0)
    }

    fn min_isr(&self, key: Key, replicas: usize) -> usize {
        let topic = self.image.topic_by_id(key.0).unwrap();
        self.policy.topic(&self.image, topic).min_isr(replicas)
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..3 => self.create_topic(),
            3..4 => self.delete_topic(),
            4..6 => self.more_partitions(),
            6..20 => self.produce(),
            20..26 => self.register(),
            26..42 => self.heartbeat(),
            42..49 => self.fence(),
            49..58 => self.ask_for_isr(),
            58..72 => self.deliver(),
            72..78 => self.elect(),
            78..88 => self.reassign(),
            88..94 => self.configure(),
            94..96 => self.unregister(),
            _ => self.plan(),
        }
    }

    fn create_topic(&mut self) -> Result<(), String> {
        self.topics += 1;
        let asked = NewTopic {
            replication_factor: 1 + self.random.below(self.brokers.min(4)) as i16,
            configs: vec![
                ("min.insync.replicas".to_owned(), Some((1 + self.random.below(3)).to_string())),
                ("unclean.leader.election.enable".to_owned(), Some(self.random.chance(20).to_string())),
            ],
            ..topic(&format!("t{}", self.topics), 1 + self.random.below(3) as i32)
        };
        let id = TopicId::new(Uuid::from_u128(self.topics as u128));
        let decision = create_topics(&self.image, &[asked], &self.policy.defaults, || id);
        self.commit("create", decision, May::Plain).map(|_| ())
    }

    fn delete_topic(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.image.topics().map(|topic| topic.name.to_string()).collect();
        if names.len() < 3 {
            return Ok(());
        }
        let target = DeleteTarget { name: self.random.pick(&names), id: TopicId::ZERO };
        let decision = delete_topics(&self.image, &[target]);
        self.commit("delete", decision, May::Plain).map(|_| ())
    }

    fn more_partitions(&mut self) -> Result<(), String> {
        let topics: Vec<_> =
            self.image.topics().map(|t| (t.name.to_string(), t.partitions.len() as i32)).collect();
        let Some((name, count)) = self.random.pick(&topics).filter(|(_, count)| *count < 6) else {
            return Ok(());
        };
        let asked = MorePartitions { name, count: count + 1, assignments: None };
        let decision = create_partitions(&self.image, &[asked]);
        self.commit("partitions", decision, May::Plain).map(|_| ())
    }

    /// A leader takes records; the members of its maximal ISR fetch them, and they are acknowledged if there are
    /// enough.
    fn produce(&mut self) -> Result<(), String> {
        for (id, _, index, state) in self.partitions() {
            let Some(leader) = state.leader.filter(|_| self.random.chance(60)) else { continue };
            let key = (id, index);
            let end = self.leo(key, leader) + 1;
            self.logs.insert((key, leader), end);
            let mut maximal: BTreeSet<BrokerId> = state.isr.iter().copied().collect();
            for asked in self.pending.iter().flat_map(|request| &request.topics) {
                let of_now = asked.partitions.iter().filter(|asked| {
                    asked.partition == index && asked.partition_epoch == state.partition_epoch
                });
                let of_now = of_now.filter(|_| asked.topic_id == id);
                maximal.extend(of_now.flat_map(|asked| asked.isr.iter().map(|member| member.broker_id)));
            }
            for member in &maximal {
                if *member != leader && self.random.chance(80) {
                    self.logs.insert((key, *member), end);
                }
            }
            if state.isr.len() >= self.min_isr(key, state.replicas.len()) {
                let held = maximal.iter().map(|member| self.leo(key, *member)).min().unwrap_or(0);
                let committed = self.committed.entry(key).or_default();
                *committed = (*committed).max(held);
            }
        }
        Ok(())
    }

    fn register(&mut self) -> Result<(), String> {
        let id = self.broker();
        let stored = self.image.broker(BrokerId::new(id)).map(|broker| broker.epoch);
        let clean = stored.is_some() && self.random.chance(40);
        if !clean && self.policy.elr_enabled {
            // The unflushed tail is gone, or the whole disk.
            let keep = self.random.below(3) as u64;
            for ((_, broker), end) in &mut self.logs {
                if broker.get() == id {
                    *end = end.saturating_sub(2) * keep.min(1);
                }
            }
        }
        let previous = stored.filter(|_| clean).unwrap_or(BrokerEpoch::new(-1));
        let registration = registration(id, previous);
        let decision = register_broker(&self.image, &self.policy, &registration, false).unwrap();
        let answer = self.commit(&format!("register {id} clean={clean}"), decision, May::Plain)?;
        let broker = self.image.broker(BrokerId::new(id)).ok_or("not registered")?;
        ensure(broker.epoch == answer && broker.fenced, "a registration that is not fenced")
    }

    fn heartbeat(&mut self) -> Result<(), String> {
        let id = self.broker();
        if self.image.broker(BrokerId::new(id)).is_none() {
            return Ok(());
        }
        let caught_up = self.random.chance(85);
        let request = Heartbeat {
            want_fence: self.random.chance(8),
            want_shutdown: self.random.chance(15),
            metadata_offset: if caught_up { self.image.next_offset() } else { Offset::ZERO },
            lowest_offset_of_others: self.random.chance(80).then(|| self.image.next_offset()),
            ..beat(&self.image, id)
        };
        let was_fenced = self.image.broker(BrokerId::new(id)).is_some_and(|broker| broker.fenced);
        let decision = heartbeat(&self.image, &self.policy, &request).unwrap();
        let answer = self.commit(&format!("{request:?}"), decision, May::Plain)?;
        let broker = self.image.broker(BrokerId::new(id)).ok_or("unregistered")?;
        ensure(broker.fenced == answer.is_fenced, "an answer that is not the image")?;
        ensure(caught_up || broker.fenced || !was_fenced, "unfenced before it knew of its registration")?;
        let leads = self.partitions().iter().any(|(_, _, _, state)| state.leader == Some(BrokerId::new(id)));
        ensure(!(answer.should_shut_down && leads), "stops while it leads")
    }

    fn fence(&mut self) -> Result<(), String> {
        let id = self.broker();
        let decision = fence_broker(&self.image, &self.policy, BrokerId::new(id));
        self.commit(&format!("fence {id}"), decision, May::Plain)
    }

    /// A leader asks for another ISR; who comes into it has fetched all.
    fn ask_for_isr(&mut self) -> Result<(), String> {
        let led: Vec<_> = self.partitions().into_iter().filter(|(_, _, _, s)| s.leader.is_some()).collect();
        let Some((id, name, index, state)) = self.random.pick(&led) else { return Ok(()) };
        let Some(leader) = state.leader else { return Ok(()) };
        let mut isr = vec![leader];
        for replica in &state.replicas {
            if *replica != leader && self.image.broker(*replica).is_some() && self.random.chance(65) {
                isr.push(*replica);
                let end = self.leo((id, index), leader);
                if !state.isr.contains(replica) {
                    self.logs.insert(((id, index), *replica), end);
                }
            }
        }
        if state.recovering && self.random.chance(90) {
            isr.truncate(1);
        }
        let raw: Vec<i32> = isr.iter().map(|member| member.get()).collect();
        let mut request = isr_request_of(&self.image, &name, index, &raw);
        request.topics[0].partitions[0].recovering = state.recovering && self.random.chance(30);
        self.pending.push(request);
        if self.pending.len() > 6 {
            self.pending.remove(0);
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), String> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let place = self.random.below(self.pending.len());
        let request = self.pending.remove(place);
        match alter_partition(&self.image, &self.policy, &request) {
            Ok(decision) => {
                let answer =
                    self.commit(&format!("{request:?}"), decision, May::ElectNewMember)?.remove(0).remove(0);
                let asked = &request.topics[0];
                let Ok(answer) = answer else { return Ok(()) };
                let topic = self.image.topic_by_id(asked.topic_id).ok_or("no topic")?;
                let state = &topic.partitions[asked.partitions[0].partition as usize];
                ensure(answer.isr == state.isr && answer.leader == state.leader, "another answer")
            }
            Err(error) => ensure(error.code == towpath_wire::ErrorCode::StaleBrokerEpoch, "another code"),
        }
    }

    fn elect(&mut self) -> Result<(), String> {
        match self.random.below(8) {
            0 => {
                let decision = elect_leaders(&self.image, &self.policy, ElectionKind::Unclean, None);
                self.commit("elect unclean", decision, May::ElectUncleanly).map(|_| ())
            }
            1..4 => {
                let decision = elect_leaders(&self.image, &self.policy, ElectionKind::Preferred, None);
                self.commit("elect preferred", decision, May::Plain).map(|_| ())
            }
            4..6 => {
                let decision = elect_where_unclean_is_allowed(&self.image, &self.policy, 2);
                self.commit("elect where allowed", decision, May::Plain).map(|_| ())
            }
            _ => {
                let decision = rebalance_leaders(&self.image, &self.policy, 10, 3);
                let elected = self.commit("rebalance", decision, May::Plain)?;
                ensure(elected <= 3, "more elections than allowed")
            }
        }
    }

    fn reassign(&mut self) -> Result<(), String> {
        let Some((_, topic, partition, state)) = self.random.pick(&self.partitions()) else { return Ok(()) };
        let mut all: Vec<i32> = (1..=self.brokers as i32).collect();
        for place in (1..all.len()).rev() {
            all.swap(place, self.random.below(place + 1));
        }
        all.truncate(1 + self.random.below(4));
        let replicas = (!state.is_reassigning() || self.random.chance(60)).then(|| ids(&all));
        let asked = Reassignment { partition: PartitionRef { topic, partition }, replicas };
        let any_factor = self.random.chance(80);
        let label = format!("{asked:?}");
        let decision = alter_partition_reassignments(&self.image, &self.policy, &[asked], any_factor);
        self.commit(&label, decision, May::Plain)?;
        let ongoing = list_partition_reassignments(&self.image, None);
        let expected = self.partitions().iter().filter(|(_, _, _, state)| state.is_reassigning()).count();
        ensure(ongoing.len() == expected, "a list that is not complete")
    }

    fn configure(&mut self) -> Result<(), String> {
        let names: Vec<String> = self.image.topics().map(|topic| topic.name.to_string()).collect();
        let Some(name) = self.random.pick(&names) else { return Ok(()) };
        let change = if self.random.chance(80) {
            ("min.insync.replicas", (1 + self.random.below(4)).to_string())
        } else {
            ("unclean.leader.election.enable", self.random.chance(20).to_string())
        };
        let label = format!("{name} {change:?}");
        let change = ConfigChange {
            name: change.0.to_owned(),
            operation: ConfigOperation::Set,
            value: Some(change.1),
        };
        let decision = alter_configs(&self.image, &on_topic(&name), &[change], &self.policy).unwrap();
        self.commit(&label, decision, May::Plain)
    }

    fn unregister(&mut self) -> Result<(), String> {
        let id = self.broker();
        match unregister_broker(&self.image, &self.policy, BrokerId::new(id)) {
            Ok(decision) => {
                let all = self.partitions().into_iter();
                let last = all.filter(|(_, _, _, state)| state.isr == ids(&[id]));
                self.lost.extend(last.map(|(topic, _, index, _)| (topic, index)));
                self.commit(&format!("unregister {id}"), decision, May::Plain)
            }
            Err(_) => Ok(()),
        }
    }

    fn plan(&mut self) -> Result<(), String> {
        let id = BrokerId::new(self.broker());
        let drains = self.random.chance(50);
        let plan =
            if drains { drain_broker(&self.image, id).unwrap_or_default() } else { balance(&self.image, 3) };
        let decision = alter_partition_reassignments(&self.image, &self.policy, &plan, true);
        let answers = self.commit(&format!("plan {plan:?}"), decision, May::Plain)?;
        ensure(answers.iter().all(Result::is_ok), "a plan that cannot be carried out")?;
        let stays = |state: &PartitionImage| state.goal().any(|replica| replica == id);
        let stays = self.partitions().iter().any(|(_, _, _, state)| stays(state));
        ensure(!drains || plan.is_empty() || !stays, "a drained broker keeps a replica")
    }

    /// Applies a decision and checks what it did.
    fn commit<T>(&mut self, label: &str, decision: Decision<T>, may: May) -> Result<T, String> {
        let before = self.image.clone();
        self.log.push(label.to_owned());
        let mut touched = BTreeSet::new();
        for record in &decision.records {
            self.log.push(format!("    {record:?}"));
            self.image
                .apply(self.image.next_offset(), record)
                .map_err(|error| format!("a record that the image refuses: {error}"))?;
            if let MetadataRecord::Partition { topic_id, partition, .. } = record {
                ensure(touched.insert((*topic_id, *partition)), "two records for one partition")?;
            }
        }
        for key in touched {
            self.check_change(&before, key, may)?;
        }
        for (id, _, index, state) in self.partitions() {
            self.check_state((id, index), &state).map_err(|e| format!("{e}: {state:?}"))?;
        }
        let records: Vec<SnapshotRecord> = self.image.snapshot().collect();
        let bytes = records.iter().map(|record| record.encode().unwrap());
        let decoded = bytes.map(|bytes| Ok::<_, SnapshotError>(SnapshotRecord::decode(&bytes)?));
        let restored = MetadataImage::from_snapshot(decoded).map_err(|error| error.to_string())?;
        ensure(restored == self.image, "a snapshot is not the image")?;
        Ok(decision.answer)
    }

    /// What changed of one partition.
    fn check_change(&mut self, before: &MetadataImage, key: Key, may: May) -> Result<(), String> {
        let state = |image: &MetadataImage| {
            let topic = image.topic_by_id(key.0)?;
            topic.partitions.get(key.1 as usize).cloned()
        };
        let Some(next) = state(&self.image) else { return Ok(()) };
        let Some(old) = state(before) else { return Ok(()) };
        ensure(next.partition_epoch.get() == old.partition_epoch.get() + 1, "partition epoch")?;
        let left = old.replicas.iter().any(|replica| !next.replicas.contains(replica));
        let grows = i32::from(next.leader != old.leader || left);
        ensure(next.leader_epoch.get() == old.leader_epoch.get() + grows, "rule 1: leader epoch")?;
        let Some(leader) = next.leader.filter(|leader| old.leader != Some(*leader)) else { return Ok(()) };
        let has_all = old.isr.contains(&leader) || old.elr.contains(&leader);
        let end = self.leo(key, leader);
        if has_all || may == May::ElectNewMember && !next.recovering {
            let committed = self.committed.get(&key).copied().unwrap_or(0);
            ensure(end >= committed, "a leader lacks acknowledged records")?;
        } else {
            let unclean =
                before.topic_by_id(key.0).is_some_and(|topic| self.policy.topic(before, topic).unclean);
            let allowed = unclean || may == May::ElectUncleanly || old.last_known_elr == [leader];
            ensure(allowed, "an unclean election that nobody allowed")?;
            ensure(next.recovering && next.isr == [leader] && next.elr.is_empty(), "unclean election")?;
            let committed = self.committed.entry(key).or_default();
            *committed = (*committed).min(end);
        }
        // What the others have beyond the new leader's log they cut off.
        for ((of, _), other) in &mut self.logs {
            if *of == key {
                *other = (*other).min(end);
            }
        }
        Ok(())
    }

    /// What holds of every partition at any time.
    fn check_state(&self, key: Key, state: &PartitionImage) -> Result<(), String> {
        let all = |ids: &[BrokerId], test: &dyn Fn(&BrokerId) -> bool| ids.iter().all(test);
        let is_set = |ids: &[BrokerId]| ids.iter().collect::<BTreeSet<_>>().len() == ids.len();
        let in_replicas = |id: &BrokerId| state.replicas.contains(id);
        ensure(is_set(&state.replicas) && is_set(&state.isr) && is_set(&state.elr), "one twice")?;
        ensure(all(&state.isr, &in_replicas), "ISR within replicas")?;
        ensure(all(&state.elr, &in_replicas), "ELR within replicas")?;
        ensure(all(&state.elr, &|id| !state.isr.contains(id)), "ELR apart from ISR")?;
        ensure(all(&state.adding_replicas, &in_replicas), "adding within replicas")?;
        ensure(all(&state.removing_replicas, &in_replicas), "removing within replicas")?;
        ensure(state.goal().count() > 0, "a reassignment to nobody")?;
        ensure(state.recovering || state.leader.is_none() || state.last_known_elr.is_empty(), "last leader")?;
        let serves = |id: &BrokerId| self.image.broker(*id).is_some_and(|broker| !broker.fenced);
        if self.policy.elr_enabled {
            ensure(all(&state.isr, &serves), "rule 10: a fenced member of the ISR")?;
        } else {
            ensure(state.elr.is_empty(), "ELR where there is none")?;
            ensure(self.lost.contains(&key) || !state.isr.is_empty(), "without ELR the last member stays")?;
            ensure(state.isr.len() <= 1 || all(&state.isr, &serves), "a fenced member of the ISR")?;
        }
        let min_isr = self.min_isr(key, state.replicas.len());
        ensure(state.elr.is_empty() || state.isr.len() < min_isr, "rule 11: ELR with enough in sync")?;
        match state.leader {
            Some(leader) => {
                ensure(state.isr.contains(&leader) && serves(&leader), "a leader that cannot lead")?;
            }
            None => {
                let candidates = if state.isr.is_empty() { &state.elr } else { &state.isr };
                ensure(all(candidates, &|id| !self.image.is_active(*id)), "a candidate passed over")?;
            }
        }
        let committed = self.committed.get(&key).copied().unwrap_or(0);
        let complete = |id: &BrokerId| self.leo(key, *id) >= committed;
        ensure(all(&state.isr, &complete), "a member of the ISR lacks acknowledged records")?;
        ensure(all(&state.elr, &complete), "a member of the ELR lacks acknowledged records")
    }
}

fn isr_request_of(image: &MetadataImage, topic: &str, index: i32, isr: &[i32]) -> AlterPartition {
    let topic = image.topic(topic).unwrap();
    let state = &topic.partitions[index as usize];
    let sender = state.leader.unwrap();
    let member = |id: &i32| IsrMember {
        broker_id: BrokerId::new(*id),
        broker_epoch: image.broker(BrokerId::new(*id)).map_or(BrokerEpoch::new(-1), |b| b.epoch),
    };
    AlterPartition {
        broker_id: sender,
        broker_epoch: epoch(image, sender.get()),
        topics: vec![TopicIsrs {
            topic_id: topic.id,
            partitions: vec![PartitionIsr {
                partition: index,
                leader_epoch: state.leader_epoch,
                partition_epoch: state.partition_epoch,
                isr: isr.iter().map(member).collect(),
                recovering: false,
            }],
        }],
    }
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Runs a world; the error says what broke, after which decisions.
fn run(seed: u64, steps: usize, elr_enabled: bool, rules: Rules) -> Result<(), String> {
    let mut world = World::new(seed, elr_enabled, rules);
    for _ in 0..steps {
        if let Err(problem) = world.step() {
            let tail = world.log.len().saturating_sub(60);
            return Err(format!("seed {seed}: {problem}\n{}", world.log[tail..].join("\n")));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_decision_leaves_a_sound_cluster(seed in any::<u64>(), elr_enabled in prop::bool::weighted(0.8)) {
        run(seed, 250, elr_enabled, Rules::ALL).map_err(TestCaseError::fail)?;
    }
}

/// The checks above see what a broken rule breaks: of each that the controller enforces on partitions.
#[test]
fn without_a_rule_something_breaks() {
    for (rule, symptoms) in [
        (Rule::Epochs, &["rule 1"][..]),
        (Rule::AlterPartitionChecks, &["lacks acknowledged", "fenced member"]),
        (Rule::Fencing, &["lacks acknowledged", "nobody allowed"]),
        (Rule::EligibleLeaderReplicas, &["lacks acknowledged", "rule 11"]),
        (Rule::Registration, &["unfenced before"]),
        (Rule::Reassignment, &["lacks acknowledged", "nobody allowed"]),
    ] {
        let broken = (0..200).find_map(|seed| run(seed, 250, true, Rules::ALL.without(rule)).err());
        let broken = broken.unwrap_or_else(|| panic!("nobody saw that {rule:?} did not hold"));
        let problem = broken.lines().next().unwrap_or_default();
        assert!(symptoms.iter().any(|symptom| problem.contains(symptom)), "{rule:?}: {problem}");
    }
}
