//! Two and three replicas of a partition, wired together in memory over simulated disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_log::sim::SimStorage;
use towpath_record::Origin;
use towpath_replica::{
    Appended, Applied, Awaited, FetchPlan, FetchPosition, FetchWaiter, FollowerAnswer, FollowerFetch,
    Isolation, IsrProposal, LeaderAnswer, Leadership, Partition, PartitionError, ProposalAnswer, Reader,
    Settings,
};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Rule, Rules};

use common::{LAG_MS, TestClock, World, acknowledged, at, batch, ids, read, read_all, settings};

/// Replicas 1 to N of one partition, and what the metadata say of it.
struct Replicas {
    storages: BTreeMap<i32, Arc<SimStorage>>,
    worlds: BTreeMap<i32, World>,
    clock: Arc<TestClock>,
    state: Leadership,
    settings: Settings,
    rules: Rules,
}

impl Replicas {
    /// Broker 1 leads and all are in sync.
    fn start(count: i32, settings: Settings) -> Self {
        Self::start_without(count, settings, Rules::ALL)
    }

    fn start_without(count: i32, settings: Settings, rules: Rules) -> Self {
        let all: Vec<i32> = (1..=count).collect();
        let state = Leadership {
            leader: Some(BrokerId::new(1)),
            leader_epoch: LeaderEpoch::new(0),
            partition_epoch: PartitionEpoch::new(0),
            replicas: ids(&all),
            isr: ids(&all),
            recovering: false,
            adding: Vec::new(),
        };
        let storages =
            all.iter().map(|id| (*id, Arc::new(SimStorage::new(u64::from(id.unsigned_abs()))))).collect();
        let clock = Arc::new(TestClock::default());
        let mut replicas = Self { storages, worlds: BTreeMap::new(), clock, state, settings, rules };
        all.iter().for_each(|id| replicas.open(*id));
        replicas
    }

    /// Starts a broker that does not run.
    fn open(&mut self, id: i32) {
        let clock = Arc::clone(&self.clock) as Arc<dyn towpath_replica::MonotonicClock>;
        let world = World::open(&self.storages[&id], id, clock, self.rules);
        world.set(self.state.clone(), &self.settings);
        assert!(self.worlds.insert(id, world).is_none());
    }

    /// The process ends; with `power`, what was not synced is gone.
    fn down(&mut self, id: i32, power: bool) {
        let world = self.worlds.remove(&id).unwrap();
        // No thread of it goes on; no checkpoint was written.
        world.flusher.stop();
        drop(world);
        if power { self.storages[&id].crash() } else { self.storages[&id].kill() }
    }

    fn partition(&self, id: i32) -> Arc<Partition> {
        self.worlds[&id].partition()
    }

    /// A new leader is elected; those that run hear of it.
    fn elect(&mut self, leader: i32, isr: &[i32]) {
        let next = |epoch: i32| epoch + 1;
        self.state.leader = Some(BrokerId::new(leader));
        self.state.leader_epoch = LeaderEpoch::new(next(self.state.leader_epoch.get()));
        self.commit(isr);
    }

    /// The ISR changes.
    fn commit(&mut self, isr: &[i32]) {
        self.state.partition_epoch = PartitionEpoch::new(self.state.partition_epoch.get() + 1);
        self.state.isr = ids(isr);
        self.tell();
    }

    fn tell(&self) {
        for id in self.worlds.keys() {
            self.worlds[id].set(self.state.clone(), &self.settings);
        }
    }

    fn leader(&self) -> i32 {
        self.state.leader.unwrap().get()
    }

    fn append(&self, value: &str) -> Appended {
        self.partition(self.leader()).append(batch(&[value]), true, Origin::Client).unwrap()
    }

    fn ask(&self, follower: i32, plan: &FetchPlan) -> Result<FollowerAnswer, PartitionError> {
        let leader = self.partition(plan.leader.get());
        let fetch = FollowerFetch {
            broker: BrokerId::new(follower),
            broker_epoch: BrokerEpoch::new(i64::from(100 + follower)),
            log_end: plan.offset,
            log_start: plan.log_start,
        };
        let position = FetchPosition {
            offset: plan.offset,
            current_leader_epoch: plan.leader_epoch,
            last_fetched_epoch: plan.last_fetched_epoch,
            bytes_max: 1 << 20,
            min_one: true,
            isolation: Isolation::ReadUncommitted,
        };
        match leader.fetch(Reader::Follower(fetch), &position) {
            Ok(fetched) => Ok(FollowerAnswer {
                answer: fetched
                    .diverging
                    .map_or(LeaderAnswer::Records, |(epoch, end)| LeaderAnswer::Diverging { epoch, end }),
                high_watermark: fetched.high_watermark,
                log_start: fetched.log_start_offset,
                records: fetched.data.into_bytes().unwrap(),
            }),
            Err(PartitionError::OutOfRange { .. }) => Ok(FollowerAnswer {
                answer: LeaderAnswer::OutOfRange {
                    start: leader.earliest_offset()?,
                    end: leader.leader_log_end()?,
                },
                records: bytes::Bytes::new(),
                high_watermark: at(-1),
                log_start: at(-1),
            }),
            Err(error) => Err(error),
        }
    }

    /// One fetch of a follower.
    fn fetch(&self, follower: i32) -> Result<Applied, PartitionError> {
        let partition = self.partition(follower);
        partition.flush_fetched()?;
        let plan = partition.plan_fetch().unwrap();
        let answer = self.ask(follower, &plan)?;
        partition.apply_fetched(&plan, &answer)
    }

    /// Fetches until a follower has all records and knows what is committed; returns how often it cut.
    fn catch_up(&self, follower: i32) -> usize {
        let mut cuts = 0;
        for _ in 0..50 {
            match self.fetch(follower).unwrap() {
                Applied::Cut(_) => cuts += 1,
                Applied::Appended(_) => {}
                Applied::Nothing => {
                    let (ours, theirs) = (self.partition(follower), self.partition(self.leader()));
                    if ours.high_watermark() >= theirs.high_watermark() {
                        assert_eq!(read_all(&ours), read_all(&theirs));
                        return cuts;
                    }
                }
            }
        }
        panic!("broker {follower} does not catch up");
    }

    fn propose(&self) -> Option<IsrProposal> {
        self.partition(self.leader()).propose_isr()
    }
}

#[tokio::test]
async fn records_go_to_all_and_are_acknowledged_when_all_have_them() {
    let replicas = Replicas::start(3, settings(i64::MAX));
    let appended = replicas.append("a");
    let leader = replicas.partition(1);
    replicas.catch_up(2);
    assert_eq!(leader.high_watermark(), at(0), "R1: broker 3 does not have it");
    assert!(read(&leader).is_empty(), "R3");
    replicas.catch_up(3);
    acknowledged(&leader, &appended).await.unwrap();
    replicas.catch_up(2);
    for id in 1..=3 {
        assert_eq!(read(&replicas.partition(id)), ["a"], "a consumer reads it from broker {id}");
    }
}

#[tokio::test]
async fn a_new_leader_has_what_was_acknowledged_and_the_old_one_cuts_off_the_rest() {
    let mut replicas = Replicas::start(3, settings(i64::MAX));
    let acked = replicas.append("a");
    replicas.catch_up(2);
    replicas.catch_up(3);
    acknowledged(&replicas.partition(1), &acked).await.unwrap();
    let lost = replicas.append("only 1 has this");
    let old = replicas.partition(1);
    let waiting = tokio::spawn(old.committed(&lost));
    replicas.elect(2, &[2, 3]);
    assert!(
        matches!(waiting.await.unwrap(), Err(PartitionError::NotLeader)),
        "whether it is there is unknown"
    );
    assert!(matches!(old.append(batch(&["x"]), true, Origin::Client), Err(PartitionError::NotLeader)), "R6");
    replicas.append("b");
    assert_eq!(replicas.catch_up(1), 1);
    replicas.catch_up(3);
    replicas.catch_up(1);
    for id in 1..=3 {
        assert_eq!(read(&replicas.partition(id)), ["a", "b"], "broker {id}");
    }
    assert!(
        matches!(acknowledged(&old, &lost).await, Err(PartitionError::NotLeader)),
        "a watermark that another leader's records have moved acknowledges nothing"
    );
}

/// The same without rule 4: the replicas differ for ever.
#[test]
fn without_the_check_of_histories_two_records_are_at_one_offset() {
    let mut replicas = Replicas::start_without(2, settings(i64::MAX), Rules::ALL.without(Rule::Divergence));
    replicas.append("only 1 has this");
    replicas.elect(2, &[2]);
    replicas.append("b");
    replicas.append("c");
    replicas.fetch(1).unwrap();
    assert_eq!(read_all(&replicas.partition(1)), ["only 1 has this", "c"]);
    assert_eq!(read_all(&replicas.partition(2)), ["b", "c"]);
}

/// KIP-101: a restarted follower cuts nothing by its own high watermark, which is older than what was acknowledged.
#[tokio::test]
async fn a_restart_loses_nothing_that_the_leader_counted() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    let acked = replicas.append("a");
    replicas.fetch(2).unwrap();
    replicas.fetch(2).unwrap();
    acknowledged(&replicas.partition(1), &acked).await.unwrap();
    replicas.down(2, false);
    replicas.open(2);
    assert_eq!(replicas.partition(2).high_watermark(), at(0), "the checkpoint was never written");
    assert_eq!(read_all(&replicas.partition(2)), ["a"]);
    replicas.down(1, false);
    replicas.elect(2, &[2]);
    assert_eq!(read(&replicas.partition(2)), ["a"], "alone in sync, it may count what it has");
}

#[test]
fn a_leader_that_wrote_nothing_follows_without_going_round_for_ever() {
    let mut replicas = Replicas::start(3, settings(i64::MAX));
    replicas.append("a");
    replicas.catch_up(2);
    replicas.catch_up(3);
    for leader in [2, 3, 1, 2] {
        replicas.elect(leader, &[1, 2, 3]);
    }
    replicas.append("b");
    assert!(replicas.catch_up(1) <= 2 && replicas.catch_up(3) <= 2);
    replicas.catch_up(1);
    assert_eq!(read(&replicas.partition(1)), ["a", "b"]);
}

#[tokio::test]
async fn on_a_flushed_topic_neither_side_loses_with_the_power_what_was_acknowledged() {
    let mut replicas = Replicas::start(2, settings(1));
    let mut values = Vec::new();
    for round in 0..6 {
        let value = format!("{round}");
        let appended = replicas.append(&value);
        let leader = replicas.partition(replicas.leader());
        let follower = 3 - replicas.leader();
        let waiting = tokio::spawn(leader.committed(&appended));
        replicas.catch_up_flushed(follower).await;
        waiting.await.unwrap().unwrap();
        values.push(value);
        drop(leader);
        // The power fails on both; the one or the other leads on.
        replicas.down(1, true);
        replicas.down(2, true);
        replicas.open(1);
        replicas.open(2);
        let (leader, other) = if round % 2 == 0 { (2, 1) } else { (1, 2) };
        replicas.elect(leader, &[1, 2]);
        for id in [leader, other] {
            assert_eq!(read_all(&replicas.partition(id)), values, "broker {id} in round {round}");
        }
        replicas.catch_up_flushed(other).await;
    }
}

impl Replicas {
    /// As [`Self::catch_up`], where the leader's own share has to be flushed first.
    async fn catch_up_flushed(&self, follower: i32) {
        let leader = self.partition(self.leader());
        let deadline = tokio::time::Instant::now() + common::PATIENCE;
        while self.partition(follower).high_watermark() < leader.log().log_end_offset() {
            self.fetch(follower).unwrap();
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_durable_here_need_not_be_on_the_followers() {
    let replicas = Replicas::start(2, settings(1));
    let leader = replicas.partition(1);
    let appended = leader.append(batch(&["a"]), false, Origin::Client).unwrap();
    tokio::time::timeout(common::PATIENCE, leader.durable(&appended)).await.unwrap().unwrap();
    assert_eq!(leader.high_watermark(), at(0), "and is not committed for all that");
    assert!(leader.log().recovery_point() >= at(1));
}

#[tokio::test]
async fn followers_that_wait_are_woken_by_appends_and_consumers_by_commits() {
    let replicas = Replicas::start(2, settings(i64::MAX));
    let leader = replicas.partition(1);
    let (follower, consumer) = (FetchWaiter::new(1), FetchWaiter::new(1));
    leader.wait_for_records(&follower, Awaited::Appended);
    leader.wait_for_records(&consumer, Awaited::Committed);
    replicas.append("a");
    tokio::time::timeout(common::PATIENCE, follower.woken()).await.unwrap();
    let early = tokio::time::timeout(std::time::Duration::from_millis(20), consumer.woken()).await;
    assert!(early.is_err(), "R3: nothing is committed");
    let at_the_follower = FetchWaiter::new(1);
    replicas.partition(2).wait_for_records(&at_the_follower, Awaited::Committed);
    replicas.catch_up(2);
    tokio::time::timeout(common::PATIENCE, consumer.woken()).await.unwrap();
    tokio::time::timeout(common::PATIENCE, at_the_follower.woken()).await.unwrap();
    leader.stop_waiting(&follower, Awaited::Appended);
    leader.stop_waiting(&consumer, Awaited::Committed);
}

#[test]
fn a_silent_follower_is_proposed_out_and_in_again() {
    let mut replicas = Replicas::start(3, settings(i64::MAX));
    replicas.append("a");
    replicas.catch_up(2);
    replicas.clock.advance(LAG_MS + 1);
    replicas.catch_up(2);
    replicas.worlds[&1].manager.consider_isrs();
    let queue = replicas.worlds[&1].manager.environment().isr_queue().take();
    assert_eq!(queue.len(), 1, "once, however often it was considered");
    let out = queue[0].propose_isr().unwrap();
    assert_eq!(out.isr.iter().map(|(id, _)| id.get()).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(replicas.propose(), None);
    assert_eq!(replicas.partition(1).high_watermark(), at(0), "until it is out");
    replicas.partition(1).isr_answered(&out, ProposalAnswer::Accepted);
    replicas.commit(&[1, 2]);
    assert_eq!(replicas.partition(1).high_watermark(), at(1));
    replicas.catch_up(3);
    let back = replicas.propose().unwrap();
    assert_eq!(back.isr.len(), 3);
    replicas.commit(&[1, 2, 3]);
    replicas.partition(1).isr_answered(&back, ProposalAnswer::Refused);
    assert_eq!(
        replicas.partition(1).maximal_isr(),
        ids(&[1, 2, 3]),
        "an answer that comes late changes nothing"
    );
}

#[test]
fn an_answer_of_a_former_leader_is_dropped() {
    let mut replicas = Replicas::start(3, settings(i64::MAX));
    replicas.append("a");
    let follower = replicas.partition(3);
    let plan = follower.plan_fetch().unwrap();
    let answer = replicas.ask(3, &plan).unwrap();
    replicas.elect(2, &[2, 3]);
    assert_eq!(follower.apply_fetched(&plan, &answer).unwrap(), Applied::Nothing);
    assert!(read_all(&follower).is_empty());
    // And a fetch in the old term is refused by whoever leads now.
    let old = FetchPlan { leader: BrokerId::new(2), ..plan };
    assert!(matches!(replicas.ask(3, &old), Err(PartitionError::FencedLeaderEpoch { .. })));
    // The same from its leader once more: it has moved on.
    let plan = follower.plan_fetch().unwrap();
    replicas.append("b");
    let answer = replicas.ask(3, &plan).unwrap();
    assert!(matches!(follower.apply_fetched(&plan, &answer).unwrap(), Applied::Appended(_)));
    assert_eq!(follower.apply_fetched(&plan, &answer).unwrap(), Applied::Nothing, "twice is once");
    assert_eq!(read_all(&follower), ["b"]);
}

#[tokio::test]
async fn deleted_records_go_everywhere_and_whoever_waits_hears_of_it() {
    let replicas = Replicas::start(2, settings(i64::MAX));
    replicas.append("a");
    replicas.append("b");
    replicas.catch_up(2);
    replicas.catch_up(2);
    let leader = replicas.partition(1);
    assert_eq!(leader.delete_records_before(Some(at(1))).unwrap(), at(1));
    let waiting = tokio::spawn(leader.deleted_before(at(1)));
    tokio::task::yield_now().await;
    assert_eq!(leader.low_watermark(), at(0));
    assert!(!waiting.is_finished());
    replicas.fetch(2).unwrap();
    assert_eq!(replicas.partition(2).log().log_start_offset(), at(1));
    replicas.fetch(2).unwrap();
    tokio::time::timeout(common::PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!((leader.low_watermark(), read(&replicas.partition(2))), (at(1), vec!["b".to_owned()]));
}

#[test]
fn a_follower_that_was_away_for_too_long_begins_where_the_leader_does() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    replicas.append("a");
    replicas.catch_up(2);
    replicas.down(2, false);
    replicas.clock.advance(LAG_MS + 1);
    replicas.commit(&[1]);
    for value in ["b", "c", "d"] {
        replicas.append(value);
    }
    replicas.partition(1).delete_records_before(Some(at(3))).unwrap();
    replicas.open(2);
    assert_eq!(replicas.fetch(2).unwrap(), Applied::Cut(at(3)));
    replicas.catch_up(2);
    assert_eq!(read(&replicas.partition(2)), ["d"]);
    assert_eq!(replicas.partition(2).log().log_start_offset(), Offset::new(3));
}

/// DeleteRecords goes by offsets, and batches are whole: a follower may have to begin in the middle of one.
#[test]
fn a_follower_can_begin_within_a_batch() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    replicas.commit(&[1]);
    let leader = replicas.partition(1);
    leader.append(batch(&["a", "b"]), true, Origin::Client).unwrap();
    leader.delete_records_before(Some(at(1))).unwrap();
    assert_eq!(replicas.fetch(2).unwrap(), Applied::Cut(at(1)));
    assert!(matches!(replicas.fetch(2).unwrap(), Applied::Appended(_)));
    let log = Arc::clone(replicas.partition(2).log());
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (at(1), at(2)));
    replicas.append("c");
    replicas.catch_up(2);
}

/// As above, where the follower has a record of another history there, which cannot be told any more.
#[test]
fn what_is_deleted_at_the_leader_keeps_no_follower_from_a_batch() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    replicas.append("of the first leader only");
    replicas.elect(2, &[2]);
    let leader = replicas.partition(2);
    leader.append(batch(&["a", "b"]), true, Origin::Client).unwrap();
    leader.delete_records_before(Some(at(1))).unwrap();
    assert!(matches!(replicas.fetch(1).unwrap(), Applied::Appended(_)));
    assert_eq!(replicas.partition(1).log().log_start_offset(), at(1));
    replicas.append("c");
    replicas.catch_up(1);
}

/// Rule 7: an ISR that shrinks and a higher `min.insync.replicas` that come together are never apart.
#[test]
fn a_state_and_its_settings_take_effect_together() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    replicas.append("a");
    replicas.settings = Settings { min_insync_replicas: 2, ..settings(i64::MAX) };
    replicas.commit(&[1]);
    let leader = replicas.partition(1);
    assert_eq!(leader.high_watermark(), at(0), "one is in sync, and two are needed");
    replicas.settings = settings(i64::MAX);
    replicas.elect(2, &[2]);
    assert_eq!(leader.high_watermark(), at(0), "it was deposed before one was enough");
}

/// Rule 6: only an unclean election brings a follower past the leader's end, and below its own high watermark.
#[test]
fn after_an_unclean_election_all_go_by_what_the_leader_has() {
    let mut replicas = Replicas::start(3, settings(i64::MAX));
    replicas.commit(&[1, 2]);
    replicas.append("a");
    replicas.append("b");
    replicas.catch_up(2);
    replicas.catch_up(2);
    assert_eq!(replicas.partition(2).high_watermark(), at(2));
    replicas.elect(3, &[3]);
    assert_eq!(replicas.catch_up(2), 1);
    assert_eq!((replicas.partition(2).high_watermark(), read_all(&replicas.partition(2)).len()), (at(0), 0));
    replicas.append("c");
    replicas.catch_up(1);
    replicas.catch_up(2);
    replicas.catch_up(1);
    assert_eq!(read(&replicas.partition(1)), ["c"]);
}

/// A high watermark that was never written is at least where the log begins.
#[test]
fn nothing_before_the_logs_beginning_is_uncommitted() {
    let mut replicas = Replicas::start(2, settings(i64::MAX));
    replicas.append("a");
    replicas.append("b");
    replicas.catch_up(2);
    replicas.partition(1).delete_records_before(Some(at(2))).unwrap();
    replicas.worlds[&1].manager.dirs().all()[0].checkpoint().unwrap();
    replicas.down(1, false);
    replicas.open(1);
    let partition = replicas.partition(1);
    assert_eq!((partition.log().log_start_offset(), partition.high_watermark()), (at(2), at(2)));
}

/// Random loads, elections and losses, from seeds: what was acknowledged is there, and all end with the same records.
#[test]
fn acknowledged_records_survive_elections_among_those_in_sync() {
    for seed in 0..150u64 {
        let mut state = seed;
        let mut below = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % limit
        };
        let mut replicas = Replicas::start(3, settings(i64::MAX));
        let mut waiting: Vec<(i64, String, i32)> = Vec::new();
        let mut acked: BTreeMap<i64, String> = BTreeMap::new();
        for step in 0..60 {
            let leader = replicas.leader();
            match below(10) {
                0..=3 => {
                    let value = format!("{step}");
                    let appended = replicas.append(&value);
                    waiting.push((appended.info.last_offset.get(), value, replicas.state.leader_epoch.get()));
                }
                4..=7 => {
                    let follower = (leader + i32::try_from(below(2)).unwrap()) % 3 + 1;
                    replicas.fetch(follower).unwrap();
                }
                8 => {
                    let next = i32::try_from(below(3)).unwrap() + 1;
                    replicas.elect(next, &[1, 2, 3]);
                    waiting.clear();
                }
                _ => {
                    let id = i32::try_from(below(3)).unwrap() + 1;
                    replicas.down(id, false);
                    replicas.open(id);
                    if id == leader {
                        replicas.elect(id % 3 + 1, &[1, 2, 3]);
                        waiting.clear();
                    }
                }
            }
            let committed = replicas.partition(replicas.leader()).high_watermark().get();
            waiting.retain(|(offset, value, _)| {
                let is_in = *offset < committed;
                if is_in {
                    assert_eq!(acked.insert(*offset, value.clone()), None, "seed {seed}");
                }
                !is_in
            });
        }
        let leader = replicas.leader();
        for id in (1..=3).filter(|id| *id != leader) {
            replicas.catch_up_partly(id);
        }
        for id in (1..=3).filter(|id| *id != leader) {
            replicas.catch_up(id);
        }
        let all = read(&replicas.partition(leader));
        for (offset, value) in acked {
            assert_eq!(all.get(usize::try_from(offset).unwrap()), Some(&value), "seed {seed}");
        }
    }
}

impl Replicas {
    /// Fetches until a follower has all records.
    fn catch_up_partly(&self, follower: i32) {
        let leader = self.partition(self.leader());
        for _ in 0..50 {
            self.fetch(follower).unwrap();
            if read_all(&self.partition(follower)) == read_all(&leader) {
                self.fetch(follower).unwrap();
                return;
            }
        }
        panic!("broker {follower} does not catch up");
    }
}
