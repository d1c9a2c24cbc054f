//! Producers that fight for ids, write, commit, abort, crash and come back; partitions that take markers late, twice or
//! not at once; a log that is slow or fails, also where it has what it was given; and a coordinator that is killed: from a
//! seed, checked after every step. The seed is the bug report.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::transaction::record::{decode, state_record};

const IDS: [&str; 2] = ["alpha", "beta"];
const CELLS: i32 = 4;
const CLIENTS: usize = 5;
const SEEDS: u64 = 2_000;
const STEPS: usize = 300;

/// A process that produces: a client, and how often it was started.
type Life = (usize, u32);

/// What a partition knows of a producer id.
#[derive(Debug, Clone, Default)]
struct Producing {
    epoch: i16,
    coordinator_epoch: i32,
    /// The transaction that is open.
    open: Option<u64>,
    /// Markers so far: whoever was verified before one must be verified again.
    markers: u64,
}

/// A marker on its way to a partition.
#[derive(Debug, Clone)]
struct Sent {
    /// Which of the coordinators sends it; `None` when it is a copy that nobody waits for.
    generation: Option<i32>,
    token: TransactionToken,
    marker: EndMarker,
    cell: i32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    Init,
    Add { cell: i32, guard: u64 },
    End { commit: bool },
}

#[derive(Debug, Clone)]
struct Client {
    id: &'static str,
    version: ClientVersion,
    life: u32,
    who: Option<TransactionalProducer>,
    must_init: bool,
    tag: Option<u64>,
    touched: BTreeSet<i32>,
    waiting: Option<(Waiter, Asked)>,
    /// Verified, and about to write.
    writing: Option<(i32, u64)>,
    /// How it wants to end, until it is told that it has.
    ending: Option<bool>,
}

struct Simulation {
    random: ChaCha8Rng,
    machine: TransactionMachine,
    config: TransactionConfig,
    generation: i32,
    now_ms: i64,
    next_id: i64,
    next_waiter: u64,
    next_tag: u64,
    waiting: BTreeMap<Waiter, Life>,
    replies: HashMap<Waiter, TransactionReply>,
    asking: VecDeque<TransactionToken>,
    appends: VecDeque<(TransactionToken, Vec<OffsetsRecord>)>,
    log: Vec<OffsetsRecord>,
    /// Ids of which the log has a record that the coordinator does not go by.
    ghosts: HashSet<String>,
    sent: Vec<Sent>,
    cells: Vec<HashMap<i64, Producing>>,
    clients: Vec<Client>,
    /// Who was told last that it has an id.
    newest: HashMap<&'static str, Life>,
    /// Who was told to be a producer.
    owners: HashMap<(i64, i16), Life>,
    /// How a transaction ended in each of the partitions that it wrote to.
    ends: BTreeMap<u64, BTreeMap<i32, Option<bool>>>,
    /// What a client was told of its transaction.
    told: HashMap<u64, bool>,
    committed: usize,
    aborted: usize,
}

fn index(partition: &TopicPartition) -> i32 {
    partition.partition
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let id_expiration_ms = *[120_000, 7 * 24 * 60 * 60 * 1_000].choose(&mut random).unwrap();
        let config = TransactionConfig {
            id_expiration_ms,
            expiration_interval_ms: 30_000,
            ..TransactionConfig::default()
        };
        let clients = (0..CLIENTS).map(|number| Client {
            id: IDS[number % 2],
            version: if random.random_bool(0.7) { ClientVersion::V2 } else { ClientVersion::V0 },
            life: 0,
            who: None,
            must_init: true,
            tag: None,
            touched: BTreeSet::new(),
            waiting: None,
            writing: None,
            ending: None,
        });
        let clients = clients.collect();
        let mut simulation = Self {
            machine: TransactionMachine::new(config.clone(), 1),
            random,
            config,
            generation: 1,
            now_ms: 0,
            next_id: 1_000,
            next_waiter: 0,
            next_tag: 0,
            waiting: BTreeMap::new(),
            replies: HashMap::new(),
            asking: VecDeque::new(),
            appends: VecDeque::new(),
            log: Vec::new(),
            ghosts: HashSet::new(),
            sent: Vec::new(),
            cells: vec![HashMap::new(); CELLS as usize],
            clients,
            newest: HashMap::new(),
            owners: HashMap::new(),
            ends: BTreeMap::new(),
            told: HashMap::new(),
            committed: 0,
            aborted: 0,
        };
        simulation.prepare();
        simulation
    }

    /// In half of the lives an id has nearly used up its epochs.
    fn prepare(&mut self) {
        for id in IDS {
            if self.random.random_bool(0.5) {
                let left = self.random.random_range(0..8);
                let mut metadata = Metadata::new(ProducerId::new(self.next_id), TIMEOUT_MS, WALL_MS);
                self.next_id += 1;
                metadata.producer.epoch = ProducerEpoch::new(i16::MAX - left);
                metadata.state = TransactionState::CompleteAbort;
                self.log.push(state_record(id, Some(&metadata), WALL_MS).unwrap());
            }
        }
        self.load();
    }

    fn load(&mut self) {
        self.machine = TransactionMachine::new(self.config.clone(), self.generation);
        for record in &self.log {
            self.machine.replay(Some(&record.key), record.value.as_ref()).unwrap();
        }
        self.ghosts.clear();
        self.act(|machine, now, out| machine.loaded(now, out));
    }

    fn now(&self) -> Now {
        Now { monotonic_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms }
    }

    fn act(&mut self, act: impl FnOnce(&mut TransactionMachine, Now, &mut Vec<TransactionCommand>)) {
        let mut out = Vec::new();
        let now = self.now();
        act(&mut self.machine, now, &mut out);
        for command in out {
            match command {
                TransactionCommand::Respond { waiter, reply } => {
                    let life = self.waiting.remove(&waiter).expect("nobody is answered twice");
                    if let TransactionReply::Init(Ok(_)) = reply {
                        self.newest.insert(self.clients[life.0].id, life);
                    }
                    self.replies.insert(waiter, reply);
                }
                TransactionCommand::Append { token, records } => self.appends.push_back((token, records)),
                TransactionCommand::NewProducerId { token } => self.asking.push_back(token),
                TransactionCommand::SendMarkers { token, marker, partitions, .. } => {
                    assert_eq!(marker.coordinator_epoch, self.generation);
                    let generation = Some(self.generation);
                    let sent = |cell| Sent { generation, token, marker, cell };
                    self.sent.extend(partitions.iter().map(index).map(sent));
                }
            }
        }
    }

    fn ask(
        &mut self,
        client: usize,
        asked: Asked,
        act: impl FnOnce(&mut TransactionMachine, Now, Waiter, &mut Vec<TransactionCommand>),
    ) {
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.waiting.insert(waiter, (client, self.clients[client].life));
        self.clients[client].waiting = Some((waiter, asked));
        self.act(|machine, now, out| act(machine, now, waiter, out));
    }

    /// As [`Simulation::ask`], and checks that a producer that does not have the id changes nothing (R6).
    fn ask_as(
        &mut self,
        client: usize,
        asked: Asked,
        producer: TransactionalProducer,
        act: impl FnOnce(&mut TransactionMachine, Now, Waiter, &mut Vec<TransactionCommand>),
    ) {
        let id = self.clients[client].id;
        let known = |machine: &TransactionMachine| {
            machine.entries.get(id).map(|entry| (entry.metadata.clone(), entry.busy))
        };
        let before = known(&self.machine);
        let wanted = (self.appends.len(), self.asking.len());
        self.ask(client, asked, act);
        if before.as_ref().is_none_or(|(metadata, _)| metadata.producer != producer) {
            assert_eq!(known(&self.machine), before, "{producer:?} does not have {id}");
            assert_eq!((self.appends.len(), self.asking.len()), wanted);
        }
    }

    /// The log finishes its oldest append: well, badly, or badly although it is there.
    fn finish_append(&mut self, may_fail: bool) {
        let Some((token, records)) = self.appends.pop_front() else { return };
        let fate = if may_fail { self.random.random_range(0..20) } else { 2 };
        if fate != 0 {
            for record in records {
                let (id, _) = decode(Some(&record.key), record.value.as_ref()).unwrap();
                if fate == 1 {
                    self.ghosts.insert(id);
                } else {
                    self.ghosts.remove(&id);
                }
                self.log.push(record);
            }
        }
        let errors = [ErrorCode::CoordinatorNotAvailable, ErrorCode::NotCoordinator];
        let result = if fate < 2 { Err(*errors.choose(&mut self.random).unwrap()) } else { Ok(()) };
        self.act(|machine, now, out| machine.appended(now, token, result, out));
    }

    fn give_id(&mut self, may_fail: bool) {
        let Some(token) = self.asking.pop_front() else { return };
        let result = if may_fail && self.random.random_bool(0.1) {
            Err(ErrorCode::CoordinatorLoadInProgress)
        } else {
            self.next_id += 1;
            Ok(ProducerId::new(self.next_id))
        };
        self.act(|machine, now, out| machine.producer_id(now, token, result, out));
    }

    /// A partition takes a marker, as the log of a partition does; false when it refuses.
    fn take_marker(&mut self, cell: i32, marker: &EndMarker) -> bool {
        let id = marker.producer.id.get();
        let unknown = Producing { epoch: -1, coordinator_epoch: -1, ..Producing::default() };
        let known = self.cells[cell as usize].entry(id).or_insert(unknown);
        let epoch = marker.producer.epoch.get();
        let is_stale =
            epoch < known.epoch || (marker.bumps_epoch && epoch == known.epoch && known.open.is_some());
        if marker.coordinator_epoch < known.coordinator_epoch || is_stale {
            return false;
        }
        known.epoch = epoch;
        known.coordinator_epoch = marker.coordinator_epoch;
        known.markers += 1;
        if let Some(tag) = known.open.take() {
            let end = self.ends.entry(tag).or_default().insert(cell, Some(marker.commit));
            assert_eq!(end, Some(None), "transaction {tag} ends once in partition {cell}");
        }
        true
    }

    /// A marker arrives, or not; and it is heard of that, or not.
    fn deliver(&mut self, may_fail: bool) {
        if self.sent.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.sent.len());
        let sent = self.sent[place].clone();
        if sent.generation != Some(self.generation) {
            // Late, of a coordinator that is no more, or again.
            self.sent.swap_remove(place);
            self.take_marker(sent.cell, &sent.marker);
            return;
        }
        let fate = if may_fail { self.random.random_range(0..10) } else { 9 };
        if fate < 2 {
            return;
        }
        let is_taken = self.take_marker(sent.cell, &sent.marker);
        assert!(is_taken, "partition {} refuses {:?}", sent.cell, sent.marker);
        if fate < 4 {
            return;
        }
        self.sent.swap_remove(place);
        if may_fail && sent.marker.bumps_epoch && self.random.random_bool(0.1) {
            self.sent.push(Sent { generation: None, ..sent.clone() });
        }
        let partition = partition("t", sent.cell);
        self.act(|machine, now, out| machine.marker_written(now, sent.token, &partition, out));
    }

    /// The coordinator is killed: of what is on its way to the log some is there, and nobody is answered.
    fn restart(&mut self) {
        for _ in 0..self.random.random_range(0..=self.appends.len()) {
            let (_, records) = self.appends.pop_front().unwrap();
            self.log.extend(records);
        }
        self.appends.clear();
        self.asking.clear();
        self.waiting.clear();
        self.replies.clear();
        self.generation += 1;
        for client in &mut self.clients {
            // Whoever waits asks again.
            client.waiting = None;
        }
        self.load();
    }

    fn owns(&mut self, producer: TransactionalProducer, life: Life) {
        let owner = *self.owners.entry((producer.id.get(), producer.epoch.get())).or_insert(life);
        assert_eq!(owner, life, "{producer:?} is two");
    }

    /// A client begins anew.
    fn reborn(&mut self, number: usize) {
        let client = &mut self.clients[number];
        client.life += 1;
        client.who = None;
        client.must_init = true;
        client.tag = None;
        client.touched.clear();
        client.waiting = None;
        client.writing = None;
        client.ending = None;
    }

    fn init(&mut self, number: usize) {
        let client = self.clients[number].clone();
        let request =
            InitProducer { transactional_id: client.id.into(), timeout_ms: TIMEOUT_MS, expected: client.who };
        self.ask(number, Asked::Init, |machine, now, waiter, out| {
            machine.init_producer_id(now, waiter, request, out);
        });
    }

    fn guard(&self, cell: i32, who: TransactionalProducer) -> u64 {
        self.cells[cell as usize].get(&who.id.get()).map_or(0, |producing| producing.markers)
    }

    /// A client wants to write to a partition.
    fn write(&mut self, number: usize, who: TransactionalProducer) {
        let cell = self.random.random_range(0..CELLS);
        if self.clients[number].tag.is_none() {
            self.clients[number].tag = Some(self.next_tag);
            self.next_tag += 1;
        }
        let client = self.clients[number].clone();
        let guard = self.guard(cell, who);
        let known = self.cells[cell as usize].get(&who.id.get());
        let is_open = known.is_some_and(|known| known.open == client.tag && known.epoch == who.epoch.get());
        if is_open {
            // No question is asked within an open transaction.
            self.clients[number].writing = Some((cell, guard));
        } else if client.touched.contains(&cell) && client.version == ClientVersion::V0 {
            let verified = self.machine.verify_partitions(client.id, who, [partition("t", cell)].iter());
            match verified {
                Ok(errors) if errors == [ErrorCode::None] => {
                    self.clients[number].writing = Some((cell, guard));
                }
                Ok(_) | Err(ErrorCode::ConcurrentTransactions) => {}
                Err(_) => self.reborn(number),
            }
        } else {
            let request = AddPartitions {
                transactional_id: client.id.into(),
                producer: who,
                partitions: partitions("t", [cell]),
                version: client.version,
            };
            self.ask_as(number, Asked::Add { cell, guard }, who, |machine, now, waiter, out| {
                machine.add_partitions(now, waiter, &request, out);
            });
        }
    }

    /// The partition appends, if nothing has come between.
    fn append(&mut self, number: usize, cell: i32, guard: u64) {
        let client = self.clients[number].clone();
        let (Some(who), Some(tag)) = (client.who, client.tag) else { return };
        let unknown = Producing { epoch: -1, coordinator_epoch: -1, ..Producing::default() };
        let known = self.cells[cell as usize].entry(who.id.get()).or_insert(unknown);
        if known.markers != guard || known.epoch > who.epoch.get() {
            return;
        }
        assert_eq!(self.newest[client.id], (number, client.life), "a fenced producer writes: {who:?}");
        assert!(known.open.is_none_or(|open| open == tag), "{:?} is open in {tag}", known.open);
        known.epoch = who.epoch.get();
        known.open = Some(tag);
        self.ends.entry(tag).or_default().insert(cell, None);
    }

    fn end_as(&mut self, number: usize, who: TransactionalProducer, commit: bool) {
        let client = self.clients[number].clone();
        self.clients[number].ending = Some(commit);
        let request = EndTransaction {
            transactional_id: client.id.into(),
            producer: who,
            commit,
            version: client.version,
        };
        self.ask_as(number, Asked::End { commit }, who, |machine, now, waiter, out| {
            machine.end_transaction(now, waiter, request, out);
        });
    }

    /// A client looks at the answer that it has.
    fn notice(&mut self, number: usize, asked: Asked, reply: TransactionReply) {
        use ErrorCode::{
            ConcurrentTransactions, CoordinatorLoadInProgress, CoordinatorNotAvailable, NotCoordinator,
        };
        let life = (number, self.clients[number].life);
        let is_retriable = |error| {
            matches!(
                error,
                ConcurrentTransactions | CoordinatorLoadInProgress | CoordinatorNotAvailable | NotCoordinator
            )
        };
        match (asked, reply) {
            (Asked::Init, TransactionReply::Init(Ok(who))) => {
                self.owns(who, life);
                let client = &mut self.clients[number];
                client.who = Some(who);
                client.must_init = false;
                client.tag = None;
                client.touched.clear();
                client.ending = None;
            }
            (Asked::Add { cell, guard }, TransactionReply::Add(ErrorCode::None)) => {
                let client = &mut self.clients[number];
                client.touched.insert(cell);
                if client.version == ClientVersion::V2 {
                    client.writing = Some((cell, guard));
                }
            }
            (Asked::End { commit }, TransactionReply::End(Ok(who))) => {
                self.owns(who, life);
                let client = &mut self.clients[number];
                client.who = Some(who);
                client.touched.clear();
                client.ending = None;
                if let Some(tag) = client.tag.take() {
                    self.told.insert(tag, commit);
                }
            }
            (_, TransactionReply::Init(Err(error)) | TransactionReply::End(Err(error)))
            | (_, TransactionReply::Add(error)) => {
                if error == ErrorCode::InvalidTxnState && self.random.random_bool(0.5) {
                    // It goes on under its own name (KIP-360).
                    let client = &mut self.clients[number];
                    client.must_init = true;
                    client.tag = None;
                    client.ending = None;
                } else if !is_retriable(error) {
                    self.reborn(number);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn client_acts(&mut self, number: usize) {
        if let Some((waiter, asked)) = self.clients[number].waiting {
            if let Some(reply) = self.replies.remove(&waiter) {
                self.clients[number].waiting = None;
                self.notice(number, asked, reply);
            } else if self.random.random_bool(0.02) {
                self.reborn(number);
            }
            return;
        }
        if let Some((cell, guard)) = self.clients[number].writing.take() {
            return self.append(number, cell, guard);
        }
        let client = self.clients[number].clone();
        let Some(who) = client.who.filter(|_| !client.must_init) else { return self.init(number) };
        if let Some(commit) = client.ending {
            return self.end_as(number, who, commit);
        }
        match self.random.random_range(0..100) {
            0..=54 => self.write(number, who),
            55..=84 if client.tag.is_some() => {
                let commit = self.random.random_bool(0.7);
                self.end_as(number, who, commit);
            }
            // An abort of nothing, as far as the client knows.
            85..=88 if client.version == ClientVersion::V2 => self.end_as(number, who, false),
            89..=90 => {
                self.clients[number].must_init = true;
                self.clients[number].tag = None;
            }
            91 => self.reborn(number),
            _ => {}
        }
    }

    fn pass(&mut self, milliseconds: i64) {
        let end = self.now_ms + milliseconds;
        while let Some(deadline) = self.machine.next_deadline_ms().filter(|deadline| *deadline <= end) {
            self.now_ms = self.now_ms.max(deadline);
            self.act(|machine, now, out| machine.tick(now, out));
        }
        self.now_ms = end;
    }

    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..=49 => {
                // Most of the time those act that have the ids.
                let id = *IDS.choose(&mut self.random).unwrap();
                let newest = self.newest.get(id).map(|(number, _)| *number);
                let anybody = self.random.random_range(0..CLIENTS);
                let number = newest.filter(|_| self.random.random_bool(0.9)).unwrap_or(anybody);
                self.client_acts(number);
            }
            50..=69 => self.finish_append(true),
            70..=74 => self.give_id(true),
            75..=93 => self.deliver(true),
            94..=97 => {
                let milliseconds = self.random.random_range(1..2_000);
                self.pass(milliseconds);
            }
            98 if self.random.random_bool(0.3) => {
                let milliseconds = self.random.random_range(10_000..150_000);
                self.pass(milliseconds);
            }
            99 if self.random.random_bool(0.3) => self.restart(),
            _ => {}
        }
    }

    fn check(&self) {
        let waiting: Vec<_> = self.waiting.keys().copied().collect();
        assert_eq!(self.machine.waiters(), waiting, "nobody is forgotten, and nobody is made up");
        assert_eq!(self.machine.stats().appends, self.appends.len());
        let bytes: usize = self.machine.entries.values().map(|entry| entry.bytes).sum();
        assert_eq!(self.machine.stats().bytes, bytes);
        for (id, entry) in &self.machine.entries {
            let metadata = &entry.metadata;
            assert!(entry.bytes >= size_in_bytes(id, metadata));
            assert!(!metadata.state.is_prepared() || entry.busy.is_some(), "{id} is left alone: {entry:?}");
        }
    }

    fn check_ends(&self) {
        for (tag, cells) in &self.ends {
            let ends: BTreeSet<bool> = cells.values().flatten().copied().collect();
            assert!(ends.len() <= 1, "transaction {tag} is both committed and aborted: {cells:?}");
            if let Some(told) = self.told.get(tag) {
                assert!(!ends.contains(&!told), "transaction {tag} was said to be {told}: {cells:?}");
            }
        }
    }

    /// What the log says is what the coordinator goes by, but for what is not stored.
    fn check_replay(&self) {
        if !self.appends.is_empty() {
            return;
        }
        let mut replayed = TransactionMachine::new(self.config.clone(), self.generation);
        for record in &self.log {
            replayed.replay(Some(&record.key), record.value.as_ref()).unwrap();
        }
        let known = |machine: &TransactionMachine, id: &str| {
            let entry = machine.entries.get(id).filter(|entry| !entry.metadata.is_new())?;
            let mut metadata = entry.metadata.clone();
            metadata.last_epoch = ProducerEpoch::NONE;
            if metadata.state.is_prepared() {
                metadata.partitions = Arc::default();
            }
            Some(metadata)
        };
        for id in IDS.into_iter().filter(|id| !self.ghosts.contains(*id)) {
            assert_eq!(known(&replayed, id), known(&self.machine, id), "{id}");
        }
    }

    /// All goes well from now on, and nobody begins anything: everything must come to an end.
    fn end(&mut self) {
        for number in 0..CLIENTS {
            self.reborn(number);
        }
        for _ in 0..3 {
            for _ in 0..1_000 {
                if self.appends.is_empty() && self.asking.is_empty() && self.sent.is_empty() {
                    break;
                }
                self.finish_append(false);
                self.give_id(false);
                self.deliver(false);
            }
            self.check();
            self.pass(i64::from(TIMEOUT_MS) + 20_000);
        }
        assert_eq!(self.waiting, BTreeMap::new());
        let stats = self.machine.stats();
        assert_eq!((stats.ongoing, stats.prepared), (0, 0));
        for (cell, producers) in self.cells.iter().enumerate() {
            for (id, producing) in producers {
                assert_eq!(producing.open, None, "producer {id} hangs in partition {cell}");
            }
        }
        for (tag, cells) in &self.ends {
            assert!(cells.values().all(Option::is_some), "transaction {tag} has no end: {cells:?}");
            if cells.values().all(|end| *end == Some(true)) {
                self.committed += 1;
            } else {
                self.aborted += 1;
            }
        }
        self.check();
        self.check_ends();
        self.check_replay();
    }
}

#[test]
fn the_invariants_hold_whatever_happens() {
    let (mut committed, mut aborted, mut ids) = (0, 0, 0);
    for seed in 0..SEEDS {
        let run = std::panic::catch_unwind(|| {
            let mut simulation = Simulation::new(seed);
            for step in 0..STEPS {
                simulation.step();
                simulation.check();
                if step % 16 == 0 {
                    simulation.check_ends();
                    simulation.check_replay();
                }
            }
            simulation.end();
            (simulation.committed, simulation.aborted, simulation.next_id - 1_000)
        });
        match run {
            Ok(counts) => {
                committed += counts.0;
                aborted += counts.1;
                ids += counts.2;
            }
            Err(panic) => {
                eprintln!("the seed is {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{committed} transactions committed, {aborted} aborted, {ids} producer ids");
    let seeds = SEEDS as usize;
    assert!(committed > seeds && aborted > seeds, "{committed} committed, {aborted} aborted");
}
