//! Members that join, sync, commit, crash and come back, a log that is slow or fails, clocks that jump, and a
//! coordinator that is killed: from a seed, checked after every step. The seed is the bug report.

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::record::{self, Entry};

const GROUPS: [&str; 2] = ["alpha", "beta"];
const TOPIC: &str = "orders";
const PARTITIONS: i32 = 12;
const MEMBERS_MAX: usize = 6;
/// The longest that a member of the simulation may wait: its rebalance timeout, or that of a new member, with room
/// for the log.
const PATIENCE_MS: i64 = 6 * 60 * 1_000;

/// What a member is doing.
#[derive(Debug, Clone, PartialEq)]
enum Doing {
    Nothing,
    Joining(Waiter),
    Joined { generation: i32, protocol: String, leads: Option<Vec<String>> },
    Syncing { waiter: Waiter, generation: i32 },
    Working { generation: i32, partitions: BTreeSet<i32> },
}

/// A client.
#[derive(Debug, Clone)]
struct Client {
    group: &'static str,
    id: String,
    instance: Option<String>,
    version: i16,
    doing: Doing,
}

/// A committed offset by group, topic and partition.
type Offsets = BTreeMap<(String, String, i32), i64>;

struct Simulation {
    random: ChaCha8Rng,
    machine: GroupMachine,
    config: GroupConfig,
    now_ms: i64,
    wall_skew_ms: i64,
    next_waiter: u64,
    waiting: BTreeMap<Waiter, i64>,
    /// Answers that their clients have not noticed, and in which lives of the groups they were given.
    replies: HashMap<Waiter, (Reply, HashMap<&'static str, u32>)>,
    appends: VecDeque<(AppendToken, Appended)>,
    log: Vec<LoadedEntry>,
    /// What the coordinator was told to be committed.
    told: Offsets,
    clients: Vec<Client>,
    /// What a generation agreed on, by group and life: leader and protocol.
    agreed: HashMap<(&'static str, u32, i32), (String, String)>,
    /// Whom a partition was assigned to, by group, life and generation.
    owners: HashMap<(&'static str, u32, i32, i32), String>,
    /// How often a group has begun anew.
    lives: HashMap<&'static str, u32>,
}

fn apply(offsets: &mut Offsets, log: &[LoadedEntry]) {
    for (key, value) in records_of(log) {
        if let Entry::Offset(key, value) = record::decode(Some(key), value).unwrap() {
            let place = (key.group, key.topic, key.partition);
            match value {
                Some(value) => offsets.insert(place, value.offset),
                None => offsets.remove(&place),
            };
        }
    }
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = GroupConfig {
            members_max: MEMBERS_MAX,
            initial_rebalance_delay_ms: *[0, 0, 3_000].choose(&mut random).unwrap(),
            offsets_retention_ms: *[60_000, 7 * 24 * 60 * 60 * 1_000].choose(&mut random).unwrap(),
            ..GroupConfig::default()
        };
        let mut simulation = Self {
            machine: GroupMachine::new(config.clone(), ids()),
            random,
            config,
            now_ms: 0,
            wall_skew_ms: 0,
            next_waiter: 0,
            waiting: BTreeMap::new(),
            replies: HashMap::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
            told: Offsets::new(),
            clients: Vec::new(),
            agreed: HashMap::new(),
            owners: HashMap::new(),
            lives: HashMap::new(),
        };
        for number in 0..9 {
            let instance = (number % 3 == 0).then(|| format!("instance-{}", number / 6));
            let version = *[3, 5, 8, 9].choose(&mut simulation.random).unwrap();
            simulation.clients.push(Client {
                group: GROUPS[number % 2],
                id: String::new(),
                instance,
                version,
                doing: Doing::Nothing,
            });
        }
        simulation.act(|machine, now, out| machine.loaded(now, out));
        simulation
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut GroupMachine, Now, &mut Vec<Command>) -> R) -> R {
        let now = Now { monotonic_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms + self.wall_skew_ms };
        let mut out = Vec::new();
        let result = act(&mut self.machine, now, &mut out);
        for command in out {
            match command {
                Command::Respond { waiter, reply } => {
                    assert!(self.waiting.remove(&waiter).is_some(), "{waiter:?} is answered twice");
                    self.replies.insert(waiter, (reply, self.lives.clone()));
                }
                Command::Append { token, records, producer } => {
                    assert!(!records.is_empty());
                    self.appends.push_back((token, Appended::Records(records, producer)));
                }
                other => panic!("{other:?}"),
            }
        }
        for group in GROUPS {
            if self.machine.group(group).is_none() {
                *self.lives.entry(group).or_default() += 1;
            }
        }
        result
    }

    fn ask(&mut self, act: impl FnOnce(&mut GroupMachine, Now, Waiter, &mut Vec<Command>)) -> Waiter {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.waiting.insert(waiter, self.now_ms);
        self.act(|machine, now, out| act(machine, now, waiter, out));
        waiter
    }

    /// The log finishes its oldest append: well, badly, or badly although it is there.
    fn finish_append(&mut self, may_fail: bool) {
        let Some((token, appended)) = self.appends.pop_front() else { return };
        let fate = if may_fail { self.random.random_range(0..20) } else { 2 };
        if fate != 0 {
            appended.clone().write_to(&mut self.log);
        }
        let result = if fate < 2 { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) };
        if result.is_ok() {
            let mut written = Vec::new();
            appended.write_to(&mut written);
            apply(&mut self.told, &written);
        }
        self.act(|machine, now, out| machine.appended(now, token, result, out));
    }

    fn join(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let names: &[&str] = if self.random.random_bool(0.8) { &["range", "sticky"] } else { &["sticky"] };
        let request = JoinGroupRequest {
            group_id: client.group.into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 20_000,
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone().filter(|_| client.version >= 5),
            protocol_type: "consumer".into(),
            protocols: protocols(names),
            ..Default::default()
        };
        let context = ClientContext { client_id: format!("c{index}"), host: "/10.0.0.1".into() };
        let waiter = self.ask(|machine, now, waiter, out| {
            machine.join_group(now, waiter, &context, request, client.version, out);
        });
        self.clients[index].doing = Doing::Joining(waiter);
    }

    fn sync(&mut self, index: usize, generation: i32, protocol: &str, leads: Option<&[String]>) {
        let client = self.clients[index].clone();
        let mut assignments = Vec::new();
        if let Some(members) = leads {
            let start = self.random.random_range(0..members.len());
            for (place, member) in members.iter().enumerate() {
                let mine = (0..PARTITIONS)
                    .filter(|partition| (*partition as usize + start) % members.len() == place);
                let assignment = mine.map(|partition| partition as u8).collect::<Vec<_>>();
                assignments.push(SyncGroupRequestAssignment {
                    member_id: member.clone(),
                    assignment: assignment.into(),
                });
            }
        }
        let request = SyncGroupRequest {
            group_id: client.group.into(),
            generation_id: generation,
            member_id: client.id.clone(),
            group_instance_id: client.instance.clone().filter(|_| client.version >= 5),
            protocol_name: Some(protocol.to_owned()),
            assignments,
            ..Default::default()
        };
        let waiter = self.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out));
        self.clients[index].doing = Doing::Syncing { waiter, generation };
    }

    /// A client looks at the answers that it has.
    fn notice(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let life = |lives: HashMap<&'static str, u32>| lives.get(client.group).copied().unwrap_or(0);
        match client.doing {
            Doing::Joining(waiter) => {
                let Some((Reply::Join(response), lives)) = self.replies.remove(&waiter) else { return };
                let life = life(lives);
                self.clients[index].doing = Doing::Nothing;
                match ErrorCode::from_code(response.error_code) {
                    ErrorCode::None => {
                        let protocol = response.protocol_name.unwrap_or_default();
                        let leads = (response.leader == response.member_id && !response.skip_assignment)
                            .then(|| {
                                response.members.iter().map(|m| m.member_id.clone()).collect::<Vec<_>>()
                            });
                        assert!(!protocol.is_empty());
                        assert!(leads.as_ref().is_none_or(|members| members.contains(&response.member_id)));
                        let agreed = (response.leader.clone(), protocol.clone());
                        let generation = response.generation_id;
                        let known =
                            self.agreed.entry((client.group, life, generation)).or_insert(agreed.clone());
                        // A static leader can have a new id within a generation.
                        assert_eq!(known.1, agreed.1, "the protocol of generation {generation}");
                        assert!(
                            known.0 == agreed.0 || agreed.0.starts_with("instance-"),
                            "two leaders of generation {generation}: {} and {}",
                            known.0,
                            agreed.0
                        );
                        self.clients[index].id = response.member_id;
                        self.clients[index].doing = Doing::Joined { generation, protocol, leads };
                    }
                    ErrorCode::MemberIdRequired => self.clients[index].id = response.member_id,
                    ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                        self.clients[index].id.clear()
                    }
                    _ => {}
                }
            }
            Doing::Syncing { waiter, generation } => {
                let Some((Reply::Sync(response), lives)) = self.replies.remove(&waiter) else { return };
                let life = life(lives);
                self.clients[index].doing = Doing::Nothing;
                match ErrorCode::from_code(response.error_code) {
                    ErrorCode::None => {
                        let partitions: BTreeSet<i32> =
                            response.assignment.iter().map(|partition| i32::from(*partition)).collect();
                        for partition in &partitions {
                            let key = (client.group, life, generation, *partition);
                            let name = client.instance.clone().unwrap_or_else(|| client.id.clone());
                            let owner = self.owners.entry(key).or_insert_with(|| name.clone());
                            assert_eq!(*owner, name, "partition {partition} in generation {generation}");
                        }
                        self.clients[index].doing = Doing::Working { generation, partitions };
                    }
                    ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                        self.clients[index].id.clear()
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn work(&mut self, index: usize, generation: i32, partitions: &BTreeSet<i32>) {
        let client = self.clients[index].clone();
        let instance = client.instance.clone().filter(|_| client.version >= 5);
        if self.random.random_bool(0.5) {
            let request = HeartbeatRequest {
                group_id: client.group.into(),
                generation_id: generation,
                member_id: client.id,
                group_instance_id: instance,
            };
            let response = self.act(|machine, now, out| machine.heartbeat(now, &request, out));
            match ErrorCode::from_code(response.error_code) {
                ErrorCode::None => {}
                ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => {
                    self.clients[index].id.clear();
                    self.clients[index].doing = Doing::Nothing;
                }
                _ => self.clients[index].doing = Doing::Nothing,
            }
            return;
        }
        let offset = self.random.random_range(0..1_000_000);
        let partition = |index: &i32| OffsetCommitRequestPartition {
            partition_index: *index,
            committed_offset: offset,
            ..Default::default()
        };
        let request = OffsetCommitRequest {
            group_id: client.group.into(),
            generation_id_or_member_epoch: generation,
            member_id: client.id,
            group_instance_id: instance,
            topics: vec![OffsetCommitRequestTopic {
                name: TOPIC.into(),
                partitions: partitions.iter().map(partition).collect(),
                ..Default::default()
            }],
            ..Default::default()
        };
        self.ask(|machine, now, waiter, out| machine.commit_offsets(now, waiter, &request, 10, out));
    }

    fn leave(&mut self, index: usize) {
        let client = self.clients[index].clone();
        let request = LeaveGroupRequest {
            group_id: client.group.into(),
            members: vec![MemberIdentity {
                member_id: if self.random.random_bool(0.8) { client.id } else { String::new() },
                group_instance_id: client.instance,
                ..Default::default()
            }],
            ..Default::default()
        };
        self.act(|machine, now, out| machine.leave_group(now, &request, out));
        self.clients[index].doing = Doing::Nothing;
        self.clients[index].id.clear();
    }

    /// The process is killed: of what is on its way to the log some is there, and nobody is answered.
    fn restart(&mut self) {
        for _ in 0..self.random.random_range(0..=self.appends.len()) {
            let (_, appended) = self.appends.pop_front().unwrap();
            appended.write_to(&mut self.log);
        }
        self.appends.clear();
        self.waiting.clear();
        self.replies.clear();
        let first_id = self.random.random::<u64>();
        let mut next = u128::from(first_id) << 64;
        let ids: MemberIds = Box::new(move || {
            next += 1;
            Uuid::from_u128(next)
        });
        self.machine = GroupMachine::new(self.config.clone(), ids);
        for entry in &self.log {
            self.machine.replay(entry).unwrap();
        }
        self.told.clear();
        apply(&mut self.told, &self.log);
        self.act(|machine, now, out| machine.loaded(now, out));
        // What was told of a generation that did not reach the log is void.
        self.agreed.clear();
        for client in &mut self.clients {
            if !matches!(client.doing, Doing::Working { .. }) {
                client.doing = Doing::Nothing;
            }
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        let end = self.now_ms + milliseconds;
        while milliseconds > 5_000 && !self.appends.is_empty() {
            self.finish_append(true);
        }
        while let Some(deadline) = self.machine.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            self.act(|machine, now, out| machine.tick(now, out));
            // No append takes longer than a few seconds.
            while self.appends.len() > 8 || (milliseconds > 5_000 && !self.appends.is_empty()) {
                self.finish_append(true);
            }
        }
        self.now_ms = end;
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..=69 => {
                let index = self.random.random_range(0..self.clients.len());
                self.notice(index);
                match self.clients[index].doing.clone() {
                    Doing::Nothing => self.join(index),
                    Doing::Joined { generation, protocol, leads } => {
                        self.sync(index, generation, &protocol, leads.as_deref());
                    }
                    Doing::Working { .. } if self.random.random_bool(0.03) => self.leave(index),
                    // Somebody gives up, or dies, and begins anew; the old request stays where it is.
                    _ if self.random.random_bool(0.03) => {
                        self.clients[index].doing = Doing::Nothing;
                        if self.random.random_bool(0.7) {
                            self.clients[index].id.clear();
                        }
                    }
                    Doing::Working { generation, partitions } => self.work(index, generation, &partitions),
                    Doing::Joining(_) | Doing::Syncing { .. } => {}
                }
            }
            70..=84 => self.finish_append(true),
            85..=94 => {
                let milliseconds = self.random.random_range(1..3_000);
                self.pass(milliseconds);
            }
            95..=96 => {
                let milliseconds = self.random.random_range(5_000..700_000);
                self.pass(milliseconds);
            }
            97 => {
                let group = *GROUPS.choose(&mut self.random).unwrap();
                self.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, group, out));
            }
            // The wall clock jumps, in both directions.
            98 => self.wall_skew_ms = self.random.random_range(-100_000..100_000),
            _ => self.restart(),
        }
    }

    fn check(&self) {
        let waiting: Vec<_> = self.waiting.keys().copied().collect();
        assert_eq!(self.machine.waiters(), waiting, "nobody is forgotten, and nobody is made up");
        for (waiter, since_ms) in &self.waiting {
            assert!(self.now_ms - since_ms <= PATIENCE_MS, "{waiter:?} waits since {since_ms}");
        }
        let stats = self.machine.stats();
        assert_eq!(stats.appends, self.appends.len());
        assert!(stats.pending_members <= GROUPS.len() * MEMBERS_MAX, "{stats:?}");
        // While a rebalance goes on those who have not rejoined are beside those who have.
        assert!(stats.members <= GROUPS.len() * 2 * MEMBERS_MAX, "{stats:?}");
        assert!(stats.timers <= stats.members + stats.pending_members + 2 * stats.groups, "{stats:?}");
        let mut offsets = Offsets::new();
        for group in GROUPS {
            let request =
                OffsetFetchRequestGroup { group_id: group.into(), topics: None, ..Default::default() };
            for topic in self.machine.fetch_offsets(&request, false).topics {
                for partition in topic.partitions {
                    let place = (group.to_owned(), topic.name.clone(), partition.partition_index);
                    offsets.insert(place, partition.committed_offset);
                }
            }
            let dying = self.machine.describe_group(group, 5).group_state == "Dead";
            if dying {
                let told = self.told.iter().filter(|((owner, _, _), _)| owner == group);
                offsets.extend(told.map(|(place, offset)| (place.clone(), *offset)));
            }
        }
        assert_eq!(offsets, self.told, "what is fetched is what is committed");
        self.check_owners();
    }

    /// Of those who work in the present generation no two have the same partition.
    fn check_owners(&self) {
        for group in GROUPS {
            let Some((GroupState::Stable, current)) = self.machine.group(group) else { continue };
            let mut taken: BTreeMap<i32, &str> = BTreeMap::new();
            for client in self.clients.iter().filter(|client| client.group == group) {
                let Doing::Working { generation, partitions } = &client.doing else { continue };
                // A fenced member of the present generation does not know yet.
                let described = self.machine.describe_group(group, 6);
                let is_member = described.members.iter().any(|member| member.member_id == client.id);
                for partition in partitions.iter().filter(|_| *generation == current && is_member) {
                    let other = taken.insert(*partition, &client.id);
                    assert_eq!(other, None, "partition {partition} belongs to {} as well", client.id);
                }
            }
        }
    }

    /// Everybody goes away: nothing must be left.
    fn end(&mut self) {
        while !self.appends.is_empty() {
            self.finish_append(false);
        }
        self.wall_skew_ms = 0;
        for _ in 0..2 {
            self.pass(8 * 24 * 60 * 60 * 1_000);
            while !self.appends.is_empty() {
                self.finish_append(false);
            }
        }
        assert_eq!(self.waiting, BTreeMap::new());
        assert_eq!(self.machine.stats(), MachineStats::default());
    }
}

#[test]
fn the_invariants_hold_whatever_happens() {
    for seed in 0..400 {
        let run = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for _ in 0..1_500 {
                simulation.step();
                simulation.check();
            }
            simulation.end();
            simulation.log.len()
        });
        match run {
            Ok(records) => assert!(records > 20, "seed {seed} did nothing"),
            Err(panic) => {
                eprintln!("the seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
}
