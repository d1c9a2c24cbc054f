//! What a seed is about: how many nodes, which topics, and how often what goes wrong.
//!
//! Every seed draws its own profile ("swarm testing"): a run in which everything may happen rarely gets deep into one
//! thing. [`Profile::draw_for`] bends a profile towards the situation in which one rule matters.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use towpath_types::Rule;

/// What may go wrong, and how often in relation to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// kill -9: the page cache survives.
    pub kill: u32,
    /// Loss of power: what was not synced is lost.
    pub crash: u32,
    /// Loss of power within an operation on the disk.
    pub crash_midway: u32,
    /// A stop in good order.
    pub clean_stop: u32,
    /// SIGSTOP.
    pub pause: u32,
    /// A node that nobody reaches.
    pub isolate: u32,
    /// A link that is cut in one direction.
    pub cut_one_way: u32,
    /// A link that is cut.
    pub cut: u32,
    /// A clock that jumps, or runs at another rate.
    pub clock: u32,
    /// A disk without room.
    pub full_disk: u32,
    /// A write or a sync that fails.
    pub bad_disk: u32,
    /// Another active controller, while the last one may still believe to be it.
    pub depose: u32,
    /// A node that hears of new metadata late.
    pub lag: u32,
}

impl Faults {
    /// As a list.
    #[must_use]
    pub const fn weights(&self) -> [u32; 13] {
        [
            self.kill,
            self.crash,
            self.crash_midway,
            self.clean_stop,
            self.pause,
            self.isolate,
            self.cut_one_way,
            self.cut,
            self.clock,
            self.full_disk,
            self.bad_disk,
            self.depose,
            self.lag,
        ]
    }
}

/// What operators do, and how often in relation to the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Administration {
    /// Other replicas.
    pub reassign: u32,
    /// The old replicas after all.
    pub cancel: u32,
    /// The preferred leader again.
    pub preferred: u32,
    /// Another `min.insync.replicas`.
    pub min_isr: u32,
    /// DeleteRecords.
    pub delete_records: u32,
    /// An unclean election, only where the profile allows it.
    pub unclean: u32,
    /// The deletion of a topic, which is created again.
    pub delete_topic: u32,
}

impl Administration {
    /// As a list.
    #[must_use]
    pub const fn weights(&self) -> [u32; 7] {
        [
            self.reassign,
            self.cancel,
            self.preferred,
            self.min_isr,
            self.delete_records,
            self.unclean,
            self.delete_topic,
        ]
    }
}

/// A topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicProfile {
    /// `flush.messages=1`: records count when they are flushed. Else they are in the page cache.
    pub flushed: bool,
    /// Replicas.
    pub factor: usize,
    /// `min.insync.replicas` at the beginning.
    pub min_isr: usize,
    /// Partitions.
    pub partitions: usize,
    /// `cleanup.policy=compact`.
    pub compacted: bool,
    /// The first of the nodes that hold it, where nothing is left to chance.
    pub first: usize,
}

impl TopicProfile {
    /// One partition on one node, in the page cache.
    #[must_use]
    pub const fn single() -> Self {
        Self { flushed: false, factor: 1, min_isr: 1, partitions: 1, compacted: false, first: 0 }
    }
}

/// What a seed is about. Times are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Nodes; each is broker and controller.
    pub nodes: usize,
    /// Topics; after those of producers the offsets topic, and with transactions that of their state.
    pub topics: Vec<TopicProfile>,
    /// Whether there are transactions.
    pub transactional: bool,
    /// Transactional producers.
    pub transactors: usize,
    /// How often a transactional producer falls asleep or dies before its next request, in a thousand.
    pub zombies: u32,
    /// How often a transactional producer tries to write before it aborts.
    pub patience: u32,
    /// Transactional producers that go by `transaction.version` 2, in a thousand.
    pub tv2: u32,
    /// Whether topics allow unclean elections.
    pub unclean: bool,
    /// Messages lost, in a thousand.
    pub lost: u32,
    /// Messages that come twice, in a thousand.
    pub duplicated: u32,
    /// Messages that come late, in a thousand.
    pub late: u32,
    /// As that, for the messages of transactions that may come when nobody waits for them any more.
    pub late_in_transactions: u32,
    /// How late at most.
    pub late_ms: i64,
    /// How long between two faults, on average.
    pub fault_every_ms: i64,
    /// Which faults.
    pub faults: Faults,
    /// How long between two acts of an operator, on average.
    pub admin_every_ms: i64,
    /// Which acts.
    pub admin: Administration,
    /// How long a stopped node stays away at most.
    pub down_ms: i64,
    /// How long other disturbances last at most.
    pub disturbed_ms: i64,
    /// How long between two batches of a producer at most.
    pub produce_every_ms: i64,
    /// Bytes of a fetch.
    pub fetch_bytes: usize,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// How late nodes hear of metadata at most.
    pub metadata_late_ms: i64,
}

/// `replica.lag.time.max.ms`.
pub(crate) const LAG_MS: i64 = 250;
/// `broker.session.timeout.ms`.
pub(crate) const SESSION_MS: i64 = 350;
/// How often a broker says that it lives.
pub(crate) const HEARTBEAT_MS: i64 = 80;

impl Profile {
    /// The profile of a seed.
    #[must_use]
    pub fn draw(random: &mut ChaCha8Rng) -> Self {
        let drawn = Self::plain(random);
        match random.random_range(0..5) {
            0..3 => drawn.with_transactions(random),
            3 => drawn.with_partitions(random),
            _ => drawn,
        }
    }

    /// The profile of a seed that is about where a rule matters.
    #[must_use]
    pub fn draw_for(rule: Rule, random: &mut ChaCha8Rng) -> Self {
        let drawn = Self::plain(random);
        if rule.is_transactional() {
            drawn.with_transactions(random).bent_to_transactions(rule)
        } else {
            drawn.focused(rule, random)
        }
    }

    /// One partition a topic, and no transactions.
    #[must_use]
    pub fn plain(random: &mut ChaCha8Rng) -> Self {
        let nodes = [3, 3, 3, 4, 5][random.random_range(0..5)];
        let mut faults = Faults {
            kill: 4,
            crash: 4,
            crash_midway: 2,
            clean_stop: 2,
            pause: 3,
            isolate: 3,
            cut_one_way: 2,
            cut: 2,
            clock: 1,
            full_disk: 1,
            bad_disk: 1,
            depose: 2,
            lag: 3,
        };
        // Each seed leaves out about a third.
        for fault in [
            &mut faults.kill,
            &mut faults.crash,
            &mut faults.crash_midway,
            &mut faults.clean_stop,
            &mut faults.pause,
            &mut faults.isolate,
            &mut faults.cut_one_way,
            &mut faults.cut,
            &mut faults.clock,
            &mut faults.full_disk,
            &mut faults.bad_disk,
            &mut faults.depose,
            &mut faults.lag,
        ] {
            if random.random_range(0..3) == 0 {
                *fault = 0;
            }
        }
        faults.kill = faults.kill.max(1);
        let topics = (0..random.random_range(2..=3)).map(|_| topic(random)).collect();
        Self {
            nodes,
            topics,
            transactional: false,
            transactors: 0,
            zombies: 0,
            patience: 5,
            tv2: 0,
            unclean: random.random_range(0..5) == 0,
            lost: [0, 5, 30][random.random_range(0..3)],
            duplicated: [0, 10, 50][random.random_range(0..3)],
            late: [0, 20, 100][random.random_range(0..3)],
            late_in_transactions: 0,
            late_ms: [60, 300, 1000][random.random_range(0..3)],
            fault_every_ms: [60, 150, 400][random.random_range(0..3)],
            faults,
            admin_every_ms: [100, 300, 1000][random.random_range(0..3)],
            admin: Administration {
                reassign: 3,
                cancel: 2,
                preferred: 2,
                min_isr: 2,
                delete_records: 1,
                unclean: 1,
                delete_topic: 0,
            },
            down_ms: [60, 250, 900][random.random_range(0..3)],
            disturbed_ms: [80, 400, 900][random.random_range(0..3)],
            produce_every_ms: [10, 40, 120][random.random_range(0..3)],
            fetch_bytes: [1, 300, 1 << 20][random.random_range(0..3)],
            segment_bytes: [400, 4096, 1 << 20][random.random_range(0..3)],
            metadata_late_ms: [5, 40, 200][random.random_range(0..3)],
        }
    }

    /// Several partitions, topics that are compacted, and topics that are deleted and created again.
    fn with_partitions(mut self, random: &mut ChaCha8Rng) -> Self {
        let data = self.topics.len() - 1;
        for topic in &mut self.topics[..data] {
            topic.partitions = random.random_range(1..=2);
            topic.compacted = random.random_bool(0.5);
        }
        self.topics[data].compacted = true;
        self.segment_bytes = [300, 400, 4096][random.random_range(0..3)];
        self.admin.delete_topic = random.random_range(0..2);
        self
    }

    /// Transactions, in few partitions with few other clients.
    fn with_transactions(mut self, random: &mut ChaCha8Rng) -> Self {
        self = self.with_partitions(random);
        if self.topics.len() > 2 {
            self.topics.remove(0);
        }
        if random.random_bool(0.5) {
            self.topics.iter_mut().for_each(|topic| topic.flushed = true);
        }
        let state = TopicProfile { compacted: true, partitions: 1, ..topic(random) };
        self.topics.push(state);
        self.topics[0].partitions = 2;
        self.transactional = true;
        // After one, nothing could be said of transactions any more.
        self.unclean = false;
        self.transactors = random.random_range(2..=4);
        self.zombies = [0, 40, 120][random.random_range(0..3)];
        self.late_in_transactions = [0, 50, 200][random.random_range(0..3)];
        self.patience = [1, 5][random.random_range(0..2)];
        self.tv2 = [0, 500, 1000][random.random_range(0..3)];
        // Whatever is read is read whole: there is much more to do than to copy.
        self.fetch_bytes = self.fetch_bytes.max(300);
        self.produce_every_ms = self.produce_every_ms.max(60);
        self.fault_every_ms = self.fault_every_ms.max(100);
        self
    }

    /// A profile without chance: `nodes` nodes, and one topic beside that of groups, with all its replicas on the first
    /// nodes. For scripts.
    #[must_use]
    pub fn calm(nodes: usize, topic: TopicProfile, unclean: bool) -> Self {
        let groups = TopicProfile { factor: 3.min(nodes), min_isr: 1, ..TopicProfile::single() };
        Self {
            nodes,
            topics: vec![topic, groups],
            transactional: false,
            transactors: 0,
            zombies: 0,
            patience: 5,
            tv2: 0,
            unclean,
            lost: 0,
            duplicated: 0,
            late: 0,
            late_in_transactions: 0,
            late_ms: 0,
            fault_every_ms: 1000,
            faults: Faults::default(),
            admin_every_ms: 1000,
            admin: Administration::default(),
            down_ms: 20,
            disturbed_ms: 100,
            produce_every_ms: 40,
            fetch_bytes: 1,
            segment_bytes: 1 << 20,
            metadata_late_ms: 5,
        }
    }

    /// As [`Self::calm`], with one transactional producer: the state of its transactions is on the nodes 0 to 2, it writes to
    /// one topic on node 3 and to one on node 4, and the last node is in no play.
    #[must_use]
    pub fn calm_with_transactions() -> Self {
        let on = |factor, first| TopicProfile { factor, first, ..TopicProfile::single() };
        Self {
            topics: vec![on(1, 3), on(1, 4), on(3, 3), TopicProfile { compacted: true, ..on(3, 0) }],
            transactional: true,
            transactors: 1,
            ..Self::calm(7, TopicProfile::single(), false)
        }
    }

    /// Bends the profile towards where a rule matters.
    fn focused(mut self, rule: Rule, random: &mut ChaCha8Rng) -> Self {
        let only = Faults::default();
        match rule {
            // Any change of leaders shows it.
            Rule::Epochs => self.faults = Faults { kill: 3, crash: 1, isolate: 2, ..only },
            // A leader whose session ends while it goes on, and that is elected again after another one, without
            // having heard of it: from the ELR, since whoever leads alone below min.insync.replicas is all there is.
            Rule::BecomeLeader => {
                self.nodes = 3;
                self.faults = Faults { isolate: 6, lag: 6, ..only };
                self.admin = Administration::default();
                (self.metadata_late_ms, self.disturbed_ms, self.fault_every_ms) = (5, 900, 60);
                self.topics.iter_mut().for_each(|topic| (topic.factor, topic.min_isr) = (3, 3));
                (self.produce_every_ms, self.fetch_bytes) = (10, 1);
            }
            // Fetches that arrive after their sender was restarted, small ones, so that followers are behind.
            Rule::FollowerFetchChecks => {
                self.faults = Faults { crash: 6, pause: 2, ..only };
                self.admin = Administration::default();
                (self.late, self.late_ms, self.duplicated, self.lost) = (300, 400, 300, 0);
                (self.fetch_bytes, self.down_ms, self.produce_every_ms) = (1, 15, 10);
                (self.metadata_late_ms, self.disturbed_ms, self.fault_every_ms) = (5, 200, 150);
                self.topics.iter_mut().for_each(|topic| (topic.flushed, topic.factor) = (false, 3));
            }
            // Leaders that change with records in flight.
            Rule::Divergence | Rule::FollowerTruncation => {
                self.faults = Faults { kill: 2, isolate: 4, cut: 2, pause: 4, lag: 4, ..only };
                self.admin = Administration { preferred: 4, ..Administration::default() };
                (self.produce_every_ms, self.admin_every_ms, self.fault_every_ms) = (10, 60, 60);
                (self.late, self.late_ms) = (300, 140);
                self.topics.iter_mut().for_each(|topic| (topic.factor, topic.min_isr) = (3, 1));
            }
            // A follower that begins at a log start that lies past the end of the leader elected uncleanly next.
            Rule::OutOfRange => {
                self.unclean = true;
                self.nodes = 4;
                self.faults = Faults { crash: 4, kill: 3, ..only };
                self.admin = Administration {
                    reassign: 6,
                    delete_records: 6,
                    unclean: 4,
                    ..Administration::default()
                };
                self.admin_every_ms = 40;
                self.topics.iter_mut().for_each(|topic| (topic.factor, topic.min_isr) = (2, 1));
                self.produce_every_ms = 120;
            }
            Rule::HighWatermark => {
                self.faults = Faults { crash: 2, pause: 5, isolate: 3, cut: 3, lag: 3, ..only };
                (self.fetch_bytes, self.produce_every_ms) = (1, 10);
            }
            // A slow follower, and leaders that change so often that they do not know how much is committed.
            Rule::IsrExpansion => {
                self.faults = Faults { pause: 5, kill: 2, cut: 3, isolate: 2, ..only };
                self.admin = Administration { preferred: 4, ..Administration::default() };
                (self.admin_every_ms, self.fault_every_ms, self.down_ms) = (40, 60, 60);
                (self.fetch_bytes, self.produce_every_ms, self.late, self.late_ms) = (1, 10, 200, 100);
                self.disturbed_ms = 400;
                self.topics.iter_mut().for_each(|topic| (topic.factor, topic.min_isr) = (3, 1));
            }
            rule => self.bend_controller(rule, random),
        }
        self
    }

    /// As [`Self::focused`], for the rules of transactions.
    fn bent_to_transactions(mut self, rule: Rule) -> Self {
        let only = Faults::default();
        self.admin = Administration::default();
        (self.lost, self.duplicated, self.transactors, self.zombies) = (0, 0, 2, 0);
        (self.late, self.late_in_transactions, self.late_ms) = (0, 0, 500);
        (self.metadata_late_ms, self.nodes) = (5, 3);
        self.topics.iter_mut().for_each(|topic| (topic.factor, topic.min_isr) = (3, 1));
        match rule {
            // Writes, or what the coordinator says of them, that come when their producer has given them up.
            Rule::Verification | Rule::VerificationGuard => {
                self.faults = only;
                (self.late_in_transactions, self.patience, self.tv2) = (250, 1, 0);
            }
            // Followers that are slow.
            Rule::LastStableOffset => self.faults = Faults { pause: 3, isolate: 2, ..only },
            // Leaders that change before what they have written is everywhere.
            Rule::CoordinatorLoad => {
                self.faults = Faults { pause: 2, isolate: 4, cut: 4, cut_one_way: 4, ..only };
                self.admin = Administration { preferred: 4, ..self.admin };
                (self.admin_every_ms, self.fault_every_ms, self.disturbed_ms) = (80, 60, 500);
            }
            // A coordinator that does not hear that it is none any more.
            Rule::MarkerCoordinator => {
                self.faults = Faults { lag: 8, cut: 2, cut_one_way: 4, isolate: 2, ..only };
                self.admin = Administration { preferred: 6, reassign: 2, ..self.admin };
                (self.admin_every_ms, self.fault_every_ms, self.disturbed_ms, self.tv2) = (60, 60, 900, 0);
            }
            // Markers that come twice, and late.
            Rule::MarkerEpoch => {
                self.faults = only;
                (self.late_in_transactions, self.duplicated, self.tv2) = (150, 300, 1000);
            }
            // Leaders that are so again, after another one.
            _ => {
                self.faults = Faults { isolate: 3, lag: 3, pause: 3, ..only };
                self.admin = Administration { preferred: 8, reassign: 2, ..self.admin };
                (self.admin_every_ms, self.fault_every_ms, self.disturbed_ms) = (60, 100, 400);
            }
        }
        self
    }

    /// As [`Self::focused`], for the rules that the controller enforces.
    fn bend_controller(&mut self, rule: Rule, random: &mut ChaCha8Rng) {
        let only = Faults::default();
        match rule {
            // Answers of the controller that get lost, followers that restart.
            Rule::AlterPartitionChecks => {
                self.faults = Faults { crash: 4, kill: 3, pause: 3, isolate: 2, lag: 4, ..only };
                (self.lost, self.late, self.late_ms) = (30, 150, 300);
                self.metadata_late_ms = 200;
                self.down_ms = 60;
            }
            Rule::Fencing => self.faults = Faults { kill: 4, crash: 3, isolate: 3, pause: 2, ..only },
            // The last ones of an ISR lose what they had not synced, one after the other.
            Rule::EligibleLeaderReplicas => {
                self.faults = Faults { crash: 8, ..only };
                (self.fault_every_ms, self.down_ms) = (80, 250);
                self.topics
                    .iter_mut()
                    .for_each(|topic| (topic.flushed, topic.factor, topic.min_isr) = (false, 3, 2));
            }
            // Leaders that restart and hear of metadata late, so that they act on those of their last life.
            Rule::Registration => {
                self.faults = Faults { crash: 6, kill: 2, lag: 4, ..only };
                (self.down_ms, self.metadata_late_ms, self.produce_every_ms) = (40, 200, 10);
                self.topics.iter_mut().for_each(|topic| topic.flushed = false);
            }
            Rule::Reassignment => {
                self.nodes = self.nodes.max(4);
                self.admin = Administration { reassign: 6, cancel: 1, ..Administration::default() };
                self.admin_every_ms = 60;
            }
            // A controller cut off together with what it leads.
            Rule::Controller => {
                self.faults = Faults { isolate: 3, cut: 3, depose: 8, kill: 2, ..only };
                self.nodes = [4, 5][random.random_range(0..2)];
            }
            _ => {}
        }
    }
}

fn topic(random: &mut ChaCha8Rng) -> TopicProfile {
    let factor = [3, 3, 3, 2][random.random_range(0..4)];
    let flushed = random.random_bool(0.5);
    let min_isr = [2, 2, 1][random.random_range(0..3)];
    TopicProfile { flushed, factor, min_isr, ..TopicProfile::single() }
}
