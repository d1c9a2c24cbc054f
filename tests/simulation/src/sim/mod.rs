//! The simulated cluster: one queue of events, one source of chance, and the checks after every step.

mod admin;
mod broker;
mod chaos;
mod clients;
mod controller;
mod director;
mod event;
mod head;
mod observe;
mod settle;
mod transactions;
mod transactors;

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use towpath_controller::decide::{ClusterPolicy, TopicDefaults};
use towpath_controller::{MetadataImage, MetadataRecord};
use towpath_log::LogConfig;
use towpath_types::{BrokerId, Rules};

use self::admin::AdminCall;
use self::clients::{Consumer, Producer};
use self::event::Planned;
pub(crate) use self::event::{Asked, Event};
use self::transactors::Transactor;
use crate::counters::Counters;
use crate::groups::GroupLedger;
use crate::ledger::Ledger;
use crate::model::PartitionModel;
use crate::net::{Envelope, Links, Message, Party};
use crate::node::{CLUSTER, Kind, Node, Slot};
use crate::profile::Profile;
use crate::records::TRANSACTIONAL_IDS;
use crate::violation::{Checked, INTERNAL, Violation};

/// Where the lines of a trace go.
pub type Tracer = Box<dyn FnMut(&str)>;

/// The metadata quorum as it is modelled: a list of committed images, one active controller to a term.
struct Quorum {
    term: u64,
    active: Option<usize>,
    /// Since when the active controller cannot commit.
    stuck_since: Option<i64>,
    /// The images after each commit, with its time.
    images: Vec<(i64, Arc<MetadataImage>)>,
    /// Without rule 14: what deposed controllers made of the metadata.
    forks: BTreeMap<usize, Arc<MetadataImage>>,
}

impl Quorum {
    fn head(&self) -> Option<&Arc<MetadataImage>> {
        self.images.last().map(|(_, image)| image)
    }
}

/// A simulated cluster.
pub struct Simulation {
    now: i64,
    planned: BinaryHeap<Planned>,
    next_event: u64,
    random: ChaCha8Rng,
    profile: Profile,
    rules: Rules,
    policy: ClusterPolicy,
    log: LogConfig,
    nodes: Vec<Node>,
    links: Links,
    quorum: Quorum,
    /// By topic.
    models: Vec<PartitionModel>,
    /// How partitions are called.
    names: Vec<String>,
    slots: Vec<Slot>,
    /// The partition of groups.
    offsets: usize,
    /// The partition of transactions.
    coordination: Option<usize>,
    transactors: Vec<Transactor>,
    transactions: Ledger,
    next_producer_id: i64,
    /// Transactional producers come to rest.
    is_closing: bool,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    ledger: GroupLedger,
    next_process: u64,
    next_request: u64,
    /// What this step has touched.
    touched: Vec<(usize, usize)>,
    settling: bool,
    /// Whether producers and the group's reader are at rest.
    is_quiet: bool,
    /// Whether faults and operators come by chance.
    is_calm: bool,
    counters: Counters,
    tracer: Option<Tracer>,
}

/// Writes a line of the trace, if there is one.
macro_rules! trace {
    ($simulation:expr, $($format:tt)+) => {
        if let Some(tracer) = &mut $simulation.tracer {
            let line = format!($($format)+);
            tracer(&format!("{:>7} ms  {line}", $simulation.now));
        }
    };
}
pub(crate) use trace;

/// The events of a log, for the simulation; `retention` and the like are off.
fn log_config(profile: &Profile) -> LogConfig {
    LogConfig {
        segment_bytes: profile.segment_bytes,
        segment_ms: i64::MAX,
        index_interval_bytes: 256,
        retention_ms: None,
        retention_bytes: None,
        timestamp_after_max_ms: i64::MAX,
        producer_expiration_ms: i64::MAX,
        tail_bytes: 64 * 1024,
        ..LogConfig::default()
    }
}

impl Simulation {
    /// A cluster of the profile, before anything has begun.
    ///
    /// # Errors
    /// [`Violation`] when it cannot even begin.
    pub fn new(seed: u64, profile: Profile, rules: Rules, tracer: Option<Tracer>) -> Checked<Self> {
        let defaults = TopicDefaults { partitions: 1, replication_factor: 1, configs: BTreeMap::default() };
        let policy = ClusterPolicy { rules, ..ClusterPolicy::new(defaults) };
        let mut image = MetadataImage::new();
        let cluster = MetadataRecord::Cluster { cluster_id: CLUSTER.to_owned() };
        image
            .apply(image.next_offset(), &cluster)
            .map_err(|error| Violation::new(INTERNAL, error.to_string()))?;
        let slots = Slot::all(&profile);
        let find = |kind| slots.iter().position(|slot| slot.kind == kind);
        let offsets = find(Kind::Offsets).ok_or_else(|| Violation::new(INTERNAL, "no topic for groups"))?;
        let mut simulation = Self {
            now: 0,
            planned: BinaryHeap::new(),
            next_event: 0,
            random: ChaCha8Rng::seed_from_u64(seed.wrapping_add(0x5eed)),
            rules,
            policy,
            log: log_config(&profile),
            nodes: (0..profile.nodes).map(|index| Node::new(index, seed)).collect(),
            links: Links::new(profile.nodes),
            quorum: Quorum {
                term: 0,
                active: None,
                stuck_since: None,
                images: vec![(0, Arc::new(image))],
                forks: BTreeMap::new(),
            },
            models: slots.iter().map(|slot| PartitionModel::new(slot.is_compacted)).collect(),
            names: slots.iter().map(|slot| format!("{}-{}", slot.name, slot.index)).collect(),
            offsets,
            coordination: find(Kind::Transactions),
            slots,
            transactors: Vec::new(),
            transactions: Ledger::default(),
            next_producer_id: TRANSACTIONAL_IDS,
            is_closing: false,
            producers: Vec::new(),
            consumers: Vec::new(),
            ledger: GroupLedger::default(),
            next_process: 1,
            next_request: 1,
            touched: Vec::new(),
            settling: false,
            is_quiet: false,
            is_calm: false,
            counters: Counters::default(),
            tracer,
            profile,
        };
        simulation.begin()?;
        Ok(simulation)
    }

    fn begin(&mut self) -> Checked {
        trace!(self, "{:?}", self.profile);
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
        }
        self.elect_controller(None);
        self.plan(10, Event::QuorumTick);
        for topic in 0..self.profile.topics.len() {
            let after = self.between(60, 160);
            self.plan(after, Event::Create(topic));
        }
        self.begin_clients();
        let (faults, admin) = (self.between(200, 500), self.between(250, 600));
        self.plan(faults, Event::Fault);
        self.plan(admin, Event::Administer);
        Ok(())
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Takes one event. False when there is none.
    ///
    /// # Errors
    /// [`Violation`] when an invariant does not hold after it.
    pub fn step(&mut self) -> Checked<bool> {
        let Some(planned) = self.planned.pop() else { return Ok(false) };
        self.now = planned.at;
        self.counters.steps += 1;
        self.dispatch(planned.event)?;
        while let Some((node, topic)) = self.touched.pop() {
            self.observe(node, topic).map_err(|violation| Violation {
                detail: format!("{}: {}", self.names[topic], violation.detail),
                ..violation
            })?;
        }
        Ok(true)
    }

    fn dispatch(&mut self, event: Event) -> Checked {
        if let Some(node) = event.node()
            && self.nodes[node].is_paused
        {
            // It waits in a socket's buffer.
            self.nodes[node].held.push(event);
            return Ok(());
        }
        if let Some(node) = event.node() {
            self.nodes[node].pass_time(self.now);
        }
        match event {
            Event::Deliver(envelope) => self.deliver(*envelope),
            Event::NodeTick { node, process } => self.node_tick(node, process),
            Event::FetchDue { node, process, topic } => self.fetch_due(node, process, topic),
            Event::Flush { node, process } => self.flush(node, process),
            Event::Commit(proposal) => self.commit(*proposal),
            Event::QuorumTick => self.quorum_tick(),
            Event::Probe(node) => self.probe(node),
            Event::Create(topic) => self.create(topic),
            Event::Produce(producer) => self.produce(producer),
            Event::Consume(consumer) => self.consume(consumer),
            Event::CommitOffset => self.commit_offset(),
            Event::Transact(transactor) => self.transact(transactor),
            Event::Fault => self.fault(),
            Event::Administer => self.administer(),
            Event::Restart(node) => self.restart(node),
            Event::Resume(node) => {
                self.resume(node);
                Ok(())
            }
            Event::Crash(node) => {
                self.crash(node);
                Ok(())
            }
            Event::Repair(node) => {
                self.repair(node);
                Ok(())
            }
        }
    }

    fn deliver(&mut self, envelope: Envelope) -> Checked {
        if envelope.about.is_some_and(|(slot, generation)| self.slots[slot].generation != generation) {
            return Ok(());
        }
        match (envelope.to, envelope.message) {
            (Party::Node(node), Message::Fetch { caller, topic, epoch, plan, bytes }) => {
                self.answer_fetch(node, caller, topic, epoch, &plan, bytes)
            }
            (Party::Node(node), Message::Range { caller, topic, plan }) => {
                self.answer_range(node, caller, topic, plan);
                Ok(())
            }
            (Party::Node(node), Message::Fetched { caller, topic, plan, outcome }) => {
                self.take_fetched(node, caller, topic, plan, outcome)
            }
            (Party::Node(node), Message::Ask { caller, call }) => self.take_call(node, caller, call),
            (Party::Node(node), Message::Answered { caller, answer }) => {
                self.take_answer(node, caller, answer)
            }
            (Party::Node(node), Message::Produce { client, number, topic, batch, ids, all }) => {
                self.take_produce(node, client, number, topic, (batch, ids), all)
            }
            (Party::Client(client), Message::Produced { number, result }) => {
                self.take_produced(client, number, result);
                Ok(())
            }
            (Party::Node(node), Message::Coordinate { asking, id, call }) => {
                self.take_coordinate(node, asking, &id, call)
            }
            (Party::Node(node), Message::Write(write)) => self.take_write(node, *write),
            (Party::Node(node), Message::Verified { caller, number, code }) => {
                self.take_verified(node, caller, number, code)
            }
            (Party::Node(node), Message::Marker { key, marker }) => self.take_marker(node, key, marker),
            (Party::Node(node), Message::Marked { key, is_written }) => {
                self.take_marked(node, &key, is_written)
            }
            (Party::Transactor(client), Message::Produced { number, result }) => {
                self.take_written(client, number, result)
            }
            (Party::Transactor(client), Message::Coordinated { number, reply }) => {
                self.take_coordinated(client, number, reply)
            }
            _ => Err(Violation::new(INTERNAL, "a message to nobody")),
        }
    }

    fn plan(&mut self, after_ms: i64, event: Event) {
        let at = self.now + after_ms.max(0);
        self.planned.push(Planned { at, order: self.next_event, event });
        self.next_event += 1;
    }

    /// A time within bounds, both included.
    fn between(&mut self, from: i64, to: i64) -> i64 {
        if to <= from { from } else { self.random.random_range(from..=to) }
    }

    fn chance(&mut self, in_a_thousand: u32) -> bool {
        in_a_thousand > 0 && self.random.random_range(0..1000) < in_a_thousand
    }

    /// Sends a message. It may get lost, come late, come twice, and overtake others.
    fn send(&mut self, from: Party, to: Party, message: Message) {
        if let (Party::Node(from), Party::Node(to)) = (from, to)
            && !self.links.is_open(from, to, self.now)
        {
            self.counters.messages_lost += 1;
            return;
        }
        let (lost, duplicated, late) = match self.settling {
            true => (0, 0, 0),
            false => {
                let is_of_transaction =
                    matches!(message, Message::Write(_) | Message::Verified { .. } | Message::Marker { .. });
                let late = if is_of_transaction { self.profile.late_in_transactions } else { 0 };
                (self.profile.lost, self.profile.duplicated, self.profile.late.max(late))
            }
        };
        if self.chance(lost) {
            self.counters.messages_lost += 1;
            return;
        }
        // Controllers are asked over one connection at a time, and TCP does not repeat.
        let is_call = matches!(
            message,
            Message::Ask { .. }
                | Message::Answered { .. }
                | Message::Coordinate { .. }
                | Message::Coordinated { .. }
        );
        let copies = if self.chance(duplicated) && !is_call { 2 } else { 1 };
        self.counters.messages_duplicated += copies - 1;
        for _ in 0..copies {
            let delay =
                if self.chance(late) { self.between(5, self.profile.late_ms) } else { self.between(0, 3) };
            let about = message.slot().map(|slot| (slot, self.slots[slot].generation));
            let envelope = Envelope { to, message: message.clone(), about };
            self.plan(delay, Event::Deliver(Box::new(envelope)));
        }
    }

    fn touch(&mut self, node: usize, topic: usize) {
        if !self.touched.contains(&(node, topic)) {
            self.touched.push((node, topic));
        }
    }

    fn touch_all(&mut self, node: usize) {
        for topic in 0..self.names.len() {
            self.touch(node, topic);
        }
    }

    fn head(&self) -> Checked<Arc<MetadataImage>> {
        let head = self.quorum.head();
        head.cloned().ok_or_else(|| Violation::new(INTERNAL, "there are no metadata"))
    }

    fn index_of(&self, broker: BrokerId) -> Option<usize> {
        let index = usize::try_from(broker.get() - 1).ok()?;
        (index < self.nodes.len()).then_some(index)
    }
}
