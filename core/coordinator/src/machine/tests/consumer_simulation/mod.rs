//! Members of both protocols in one group, with transactions beside them, topics that change, a log that is slow or fails,
//! clocks that jump, and a coordinator that is killed: from a seed, checked after every step. The seed is the bug report.

mod checks;
mod classic;
mod client;
mod model;

use std::collections::{BTreeMap, BTreeSet};

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::client::{Client, Protocol};
use self::model::Model;
use super::topics::FakeTopics;
use super::*;

const GROUP: &str = "g";
const TOPICS: [&str; 3] = ["t0", "t1", "t2"];
const CLIENTS: usize = 6;
/// The longest that anybody may wait: a classic rebalance and the log.
const PATIENCE_MS: i64 = 6 * 60 * 1_000;

/// Whose answer it is, and what was asked.
type Answers = HashMap<Waiter, Reply>;

struct Simulation {
    random: ChaCha8Rng,
    machine: GroupMachine,
    config: GroupConfig,
    topics: FakeTopics,
    now_ms: i64,
    wall_skew_ms: i64,
    next_waiter: u64,
    waiting: BTreeMap<Waiter, i64>,
    replies: Answers,
    appends: VecDeque<(AppendToken, Appended)>,
    log: Vec<LoadedEntry>,
    resolving: VecDeque<(Arc<str>, Vec<String>)>,
    /// What the coordinator was told to be in the log.
    told: Model,
    clients: Vec<Client>,
    /// The group's epoch when it was last seen as a consumer group; it begins anew with every restart.
    last_epoch: Option<i32>,
    next_name: u64,
    /// Whether the log may fail.
    is_calm: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = GroupConfig {
            members_max: 8,
            consumer_assignment_interval_ms: *[0, 0, 1_000].choose(&mut random).unwrap(),
            offsets_retention_ms: *[60_000, 7 * 24 * 60 * 60 * 1_000].choose(&mut random).unwrap(),
            consumer_migration_policy: crate::config::MigrationPolicy::Bidirectional,
            ..GroupConfig::default()
        };
        let mut simulation = Self {
            machine: GroupMachine::new(config.clone(), ids()),
            topics: FakeTopics::of(&[("t0", 4), ("t1", 3)]),
            random,
            config,
            now_ms: 0,
            wall_skew_ms: 0,
            next_waiter: 0,
            waiting: BTreeMap::new(),
            replies: HashMap::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
            resolving: VecDeque::new(),
            told: Model::default(),
            clients: Vec::new(),
            last_epoch: None,
            next_name: 0,
            is_calm: false,
        };
        simulation.machine.topics_changed(Arc::new(simulation.topics.clone()));
        for number in 0..CLIENTS {
            let protocol =
                if simulation.random.random_bool(0.6) { Protocol::Consumer } else { Protocol::Classic };
            let instance = (number % 3 == 0).then(|| format!("instance-{number}"));
            simulation.clients.push(Client::new(protocol, instance));
        }
        simulation.act(|machine, now, out| machine.loaded(now, out));
        simulation
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms + self.wall_skew_ms }
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut GroupMachine, Now, &mut Vec<Command>) -> R) -> R {
        let now = self.now();
        let mut out = Vec::new();
        let result = act(&mut self.machine, now, &mut out);
        self.note_epoch();
        for command in out {
            match command {
                Command::Respond { waiter, reply } => {
                    assert!(self.waiting.remove(&waiter).is_some(), "{waiter:?} is answered twice");
                    self.replies.insert(waiter, reply);
                }
                Command::Append { token, records, producer } => {
                    assert!(!records.is_empty());
                    self.appends.push_back((token, Appended::Records(records, producer)));
                }
                Command::AppendMarker { token, marker } => {
                    self.appends.push_back((token, Appended::Marker(marker)));
                }
                Command::ResolveRegexes { group, expressions } => {
                    self.resolving.push_back((group, expressions));
                }
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

    fn name(&mut self) -> String {
        self.next_name += 1;
        format!("client-{}", self.next_name)
    }

    /// The log finishes its oldest append: well, badly, or badly although it is there.
    fn finish_append(&mut self, may_fail: bool) {
        let Some((token, appended)) = self.appends.pop_front() else { return };
        let fate = if may_fail && !self.is_calm { self.random.random_range(0..20) } else { 2 };
        if fate != 0 {
            appended.clone().write_to(&mut self.log);
        }
        let result = if fate < 2 { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) };
        if result.is_ok() {
            self.told.take(&appended);
        }
        self.act(|machine, now, out| machine.appended(now, token, result, out));
    }

    fn resolve(&mut self) {
        let Some((group, expressions)) = self.resolving.pop_front() else { return };
        let resolved = if self.is_calm || self.random.random_bool(0.9) {
            resolve_regexes(&expressions, &*self.machine.topics())
        } else {
            ResolvedRegexes::default()
        };
        self.act(|machine, now, out| machine.regexes_resolved(now, &group, resolved, out));
    }

    fn change_topics(&mut self) {
        let topic = *TOPICS.choose(&mut self.random).unwrap();
        match self.random.random_range(0..5) {
            0 => self.topics.remove(topic),
            1 => {
                let rack = self.name();
                self.topics.move_to(&rack);
            }
            _ => {
                let partitions = self.topics.partitions(topic) + self.random.random_range(1..3);
                self.topics.set(topic, partitions.min(12));
            }
        }
        self.machine.topics_changed(Arc::new(self.topics.clone()));
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
        self.resolving.clear();
        self.load();
        self.told = Model::of(&self.log);
        for client in &mut self.clients {
            client.connection_lost();
        }
    }

    fn load(&mut self) {
        self.machine = self.loaded();
        self.last_epoch = None;
        self.act(|machine, now, out| machine.loaded(now, out));
    }

    /// A machine that has read the log.
    fn loaded(&mut self) -> GroupMachine {
        let mut next = u128::from(self.random.random::<u64>()) << 64;
        let ids: MemberIds = Box::new(move || {
            next += 1;
            Uuid::from_u128(next)
        });
        let mut machine = GroupMachine::new(self.config.clone(), ids);
        machine.topics_changed(Arc::new(self.topics.clone()));
        for entry in &self.log {
            machine.replay(entry).unwrap();
        }
        machine
    }

    fn pass(&mut self, milliseconds: i64) {
        let end = self.now_ms + milliseconds;
        while milliseconds > 5_000 && !self.appends.is_empty() {
            self.finish_append(true);
        }
        while let Some(deadline) = self.machine.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            self.act(|machine, now, out| machine.tick(now, out));
            while self.appends.len() > 8 || (milliseconds > 5_000 && !self.appends.is_empty()) {
                self.finish_append(true);
            }
        }
        self.now_ms = end;
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..=62 => {
                let index = self.random.random_range(0..self.clients.len());
                self.step_client(index);
            }
            63..=79 => self.finish_append(true),
            80..=83 => self.resolve(),
            84..=86 => self.step_transaction(),
            87..=93 => {
                let milliseconds = self.random.random_range(1..3_000);
                self.pass(milliseconds);
            }
            94 => {
                let milliseconds = self.random.random_range(5_000..100_000);
                self.pass(milliseconds);
            }
            95..=96 => self.change_topics(),
            97 => {
                self.ask(|machine, now, waiter, out| machine.delete_group(now, waiter, GROUP, out));
            }
            98 => self.wall_skew_ms = self.random.random_range(-100_000..100_000),
            _ => self.restart(),
        }
    }

    /// All goes well for a while, and nobody comes or goes: the group must come to rest.
    fn settle(&mut self) {
        self.is_calm = true;
        self.wall_skew_ms = 0;
        // At least as long as regular expressions may wait to be looked at again.
        for round in 0..400 {
            for index in 0..self.clients.len() {
                self.notice(index);
                self.calm_client(index);
                while !self.appends.is_empty() {
                    self.finish_append(false);
                }
                while !self.resolving.is_empty() {
                    self.resolve();
                }
            }
            self.pass(700);
            self.check();
            if round > 40 && self.has_settled() {
                break;
            }
        }
        self.check_settled();
        self.is_calm = false;
    }

    /// Everybody goes away: nothing must be left.
    fn end(&mut self) {
        self.is_calm = true;
        self.wall_skew_ms = 0;
        for producer in 0..model::PRODUCERS {
            while !self.appends.is_empty() {
                self.finish_append(false);
            }
            self.end_transaction(producer, true);
        }
        for _ in 0..3 {
            self.pass(8 * 24 * 60 * 60 * 1_000);
            while !self.appends.is_empty() {
                self.finish_append(false);
            }
        }
        assert_eq!(self.waiting, BTreeMap::new());
        assert_eq!(self.machine.stats(), MachineStats::default());
        // An offset whose append failed may be in the log all the same, but nobody is left there.
        self.load();
        assert_eq!(self.machine.stats().members, 0);
        assert_eq!(self.machine.consumer_group(GROUP), None);
    }
}

#[test]
fn the_invariants_of_consumer_groups_hold_whatever_happens() {
    let (mut settled, mut migrated) = (0, 0);
    for seed in 0..80 {
        let run = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for _ in 0..3 {
                for _ in 0..300 {
                    simulation.step();
                    simulation.check();
                }
                simulation.settle();
            }
            let kinds = simulation.kinds_in_log();
            simulation.end();
            (simulation.log.len(), kinds)
        });
        match run {
            Ok((records, kinds)) => {
                assert!(records > 50, "seed {seed} did nothing");
                settled += 1;
                migrated += usize::from(kinds > 1);
            }
            Err(panic) => {
                eprintln!("the seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(settled > 0 && migrated > settled / 4, "{migrated} of {settled} groups changed their kind");
}
