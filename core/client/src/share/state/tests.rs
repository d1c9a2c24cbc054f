use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use towpath_record::{BatchBuilder, Compression};
use towpath_types::LeaderEpoch;
use towpath_wire::ErrorCode;

use super::*;
use crate::metadata::{Node as Address, PartitionMeta, TopicMeta};

const LOCK: Duration = Duration::from_secs(30);

fn topic() -> TopicId {
    TopicId::new(uuid::Uuid::from_u128(7))
}

fn key(index: i32) -> Arc<TopicPartition> {
    Arc::new(TopicPartition::new(TopicName::new("t").unwrap(), index))
}

fn settings() -> Settings {
    Settings {
        is_implicit: false,
        is_strict: false,
        records_max: 100,
        held_max: 1_000,
        buffer_bytes: 1 << 20,
        fetch_bytes_max: 1 << 18,
        patience: Duration::from_secs(60),
        reading: Reading { check_crcs: true, bytes_max: 1 << 20 },
        backoff: Backoff::new(10, 10),
    }
}

/// The cluster with these leaders and epochs.
fn cluster(leaders: &[(i32, i32)]) -> Cluster {
    let partition = |(leader, leader_epoch): &(i32, i32)| PartitionMeta {
        leader: *leader,
        leader_epoch: *leader_epoch,
        replicas: vec![],
        isr: vec![],
        offline: vec![],
        error: ErrorCode::None,
    };
    let name = TopicName::new("t").unwrap();
    let meta = TopicMeta {
        name: name.clone(),
        id: topic(),
        internal: false,
        partitions: leaders.iter().map(partition).collect(),
        version: 1,
    };
    let address = Address { host: "h".into(), port: 1, rack: None };
    Cluster {
        nodes: (1..=3).map(|id| (id, address.clone())).collect(),
        topics: [(name, Arc::new(meta))].into(),
        ..Default::default()
    }
}

fn started(settings: Settings, leaders: &[(i32, i32)]) -> State {
    let mut state = State::new(settings);
    state.assign((0..leaders.len() as i32).map(|index| ((topic(), index), key(index))).collect());
    assert!(!state.follow(&cluster(leaders)));
    state.waiting = 1;
    state
}

fn peer(_: i32) -> Option<Peer> {
    Some(Peer { broker: "b".into(), may_renew: true, may_limit: true })
}

fn orders(steps: Vec<Step>) -> Vec<Order> {
    let order = |step| match step {
        Step::Send(order) => order,
        Step::Connect(node) => panic!("{node} is connected"),
    };
    steps.into_iter().map(order).collect()
}

fn batch(first: i64, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for offset in first..first + count {
        builder.append(1, None, Some(offset.to_string().as_bytes()), &[]).unwrap();
    }
    builder.set_base(Offset::new(first), LeaderEpoch::new(1));
    builder.build().unwrap()
}

fn gives(index: i32, first: i64, count: i64) -> ToldPartition {
    ToldPartition {
        records: batch(first, count),
        acquired: vec![AcquiredRecords {
            first_offset: first,
            last_offset: first + count - 1,
            delivery_count: 1,
        }],
        ..ToldPartition::new((topic(), index))
    }
}

fn told(partitions: Vec<ToldPartition>) -> Told {
    Told { lock_ms: 30_000, partitions, ..Default::default() }
}

fn refusal(code: ErrorCode) -> Told {
    Told { code: code.code(), ..Default::default() }
}

fn answer(state: &mut State, node: i32, now: Instant, told: Told) -> bool {
    state.answered(&Source { node, broker: &"b".into(), now }, told)
}

fn offsets(records: &[ShareRecords]) -> Vec<(i32, i64)> {
    let of = |part: &ShareRecords| {
        let index = part.partition.partition;
        part.records().map(move |record| (index, record.unwrap().offset.get())).collect::<Vec<_>>()
    };
    records.iter().flat_map(of).collect()
}

#[test]
fn records_are_fetched_while_somebody_waits_and_acknowledged_with_the_next_fetch() {
    let now = Instant::now();
    let mut state = started(settings(), &[(1, 0), (2, 0)]);
    let sent = orders(state.next(now, peer));
    assert_eq!(sent.iter().map(|it| (it.node, it.epoch)).collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    assert_eq!(sent[0].fetch.as_ref().unwrap().add, [(topic(), 0)]);
    assert!(state.next(now, peer).is_empty(), "one request at a time");
    answer(&mut state, 1, now, told(vec![gives(0, 5, 2)]));
    assert!(state.has_news() && state.next(now, peer).is_empty(), "there is something to take first");
    let (records, count) = state.take(now).unwrap();
    assert_eq!((offsets(&records), count), (vec![(0, 5), (0, 6)], 2));
    state.waiting = 0;
    assert!(state.next(now, peer).is_empty(), "nobody waits");
    state.is_asked = true;
    let sent = orders(state.next(now, peer));
    assert!(sent.len() == 1 && sent[0].fetch.is_some(), "somebody did");
    answer(&mut state, 1, now, told(vec![]));
    assert!(state.next(now, peer).is_empty(), "once");
    state.say(&key(0), None, Offset::new(5), Acknowledgement::Accept).unwrap();
    state.waiting = 1;
    assert!(orders(state.next(now, peer)).iter().all(|it| it.said.is_empty()), "not before the next poll");
    answer(&mut state, 1, now, told(vec![]));
    state.speak();
    let sent = orders(state.next(now, peer));
    assert_eq!((sent[0].node, sent[0].epoch, sent[0].fetch.is_some()), (1, 3, true));
    assert_eq!(sent[0].said, [((topic(), 0), vec![Batch { first: 5, last: 5, types: vec![1] }])]);
    assert!(state.is_unsettled());
    answer(&mut state, 1, now, told(vec![ToldPartition::new((topic(), 0))]));
    assert!(!state.is_unsettled());
    assert!(state.results()[&*key(0)].is_ok());
    assert_eq!(state.held(), 1);
}

#[test]
fn a_commit_needs_no_fetch_and_a_renewal_brings_none() {
    let now = Instant::now();
    let mut state = started(settings(), &[(1, 0)]);
    orders(state.next(now, peer));
    answer(&mut state, 1, now, told(vec![gives(0, 0, 2)]));
    state.take(now).unwrap();
    state.say(&key(0), None, Offset::new(0), Acknowledgement::Renew).unwrap();
    state.speak();
    let sent = orders(state.next(now, peer));
    assert!(sent[0].renews && sent[0].fetch.is_none(), "although somebody waits");
    answer(&mut state, 1, now, told(vec![ToldPartition::new((topic(), 0))]));
    assert_eq!(state.held(), 2);
    state.waiting = 0;
    state.say(&key(0), None, Offset::new(0), Acknowledgement::Reject).unwrap();
    state.speak();
    let sent = orders(state.next(now, peer));
    assert!(sent[0].fetch.is_none() && sent[0].epoch == 2);
    // What fails for a while is sent again.
    let not_now = ErrorCode::CoordinatorNotAvailable.code();
    let refused = ToldPartition { said_code: not_now, ..ToldPartition::new((topic(), 0)) };
    answer(&mut state, 1, now, told(vec![refused]));
    assert!(state.is_unsettled() && state.next(now, peer).is_empty(), "after a while");
    let sent = orders(state.next(now + LOCK / 2, peer));
    assert_eq!(sent[0].said[0].1, [Batch { first: 0, last: 0, types: vec![3] }]);
    // A broker that forgets to answer has not stored it.
    answer(&mut state, 1, now, told(vec![]));
    assert!(state.results()[&*key(0)].is_err());
}

#[test]
fn brokers_of_the_first_version_renew_nothing_and_bound_nothing() {
    let first = |_| Some(Peer { broker: "b".into(), may_renew: false, may_limit: false });
    let now = Instant::now();
    let mut state = started(settings(), &[(1, 0)]);
    orders(state.next(now, first));
    answer(&mut state, 1, now, told(vec![gives(0, 0, 2)]));
    state.take(now).unwrap();
    state.say(&key(0), None, Offset::new(0), Acknowledgement::Renew).unwrap();
    state.say(&key(0), None, Offset::new(1), Acknowledgement::Accept).unwrap();
    state.speak();
    let sent = orders(state.next(now, first));
    assert_eq!(sent[0].said[0].1, [Batch { first: 1, last: 1, types: vec![1] }]);
    assert!(matches!(state.results()[&*key(0)], Err(ClientError::UnsupportedApi { .. })));
    let mut strict = started(Settings { is_strict: true, ..settings() }, &[(1, 0)]);
    assert!(strict.next(now, first).is_empty());
    assert!(matches!(strict.take(now), Err(ClientError::UnsupportedApi { .. })));
}

#[test]
fn a_broken_session_takes_along_what_it_gave_out_and_begins_anew() {
    for implicit in [false, true] {
        let now = Instant::now();
        let mut state = started(Settings { is_implicit: implicit, ..settings() }, &[(1, 0)]);
        orders(state.next(now, peer));
        answer(&mut state, 1, now, told(vec![gives(0, 0, 2)]));
        state.take(now).unwrap();
        orders(state.next(now, peer));
        answer(&mut state, 1, now, refusal(ErrorCode::ShareSessionNotFound));
        let said = state.say(&key(0), None, Offset::new(0), Acknowledgement::Accept);
        assert!(matches!(said, Err(ClientError::NotAcquired { .. })));
        // Who says nothing hears of it with the next commit.
        assert_eq!(state.results().values().any(Result::is_err), implicit);
        // So does who said it before.
        let _ = orders(state.next(now, peer));
        answer(&mut state, 1, now, told(vec![gives(0, 0, 1)]));
        state.take(now).unwrap();
        state.say(&key(0), None, Offset::new(0), Acknowledgement::Accept).unwrap();
        state.broken(1, now, &ClientError::Closed);
        assert!(state.results()[&*key(0)].is_err());
        let now = now + LOCK / 2;
        let sent = orders(state.next(now, peer));
        assert_eq!((sent[0].epoch, sent[0].fetch.as_ref().unwrap().add.len()), (0, 1));
    }
}

#[test]
fn a_leader_that_moves_is_followed() {
    let now = Instant::now();
    let mut state = started(settings(), &[(1, 0), (1, 0)]);
    orders(state.next(now, peer));
    answer(&mut state, 1, now, told(vec![gives(0, 0, 1)]));
    state.take(now).unwrap();
    state.say(&key(0), None, Offset::new(0), Acknowledgement::Accept).unwrap();
    state.speak();
    orders(state.next(now, peer));
    let moved = ToldPartition {
        code: ErrorCode::NotLeaderOrFollower.code(),
        said_code: ErrorCode::NotLeaderOrFollower.code(),
        leader: Some((2, 4)),
        ..ToldPartition::new((topic(), 0))
    };
    assert!(answer(&mut state, 1, now, told(vec![moved])), "metadata is stale");
    assert!(state.results()[&*key(0)].is_err());
    // Metadata is behind what the broker said.
    assert!(!state.follow(&cluster(&[(1, 3), (1, 0)])));
    let sent = orders(state.next(now + LOCK / 2, peer));
    let by_node: HashMap<_, _> = sent.iter().map(|it| (it.node, it.fetch.as_ref().unwrap())).collect();
    assert_eq!((&by_node[&2].add[..], &by_node[&1].forget[..]), (&[(topic(), 0)][..], &[(topic(), 0)][..]));
    // And ahead of it later; a leader without anything to do for this member need keep no session.
    answer(&mut state, 1, now, told(vec![]));
    answer(&mut state, 2, now, told(vec![]));
    assert!(!state.follow(&cluster(&[(3, 5), (3, 1)])));
    let sent = orders(state.next(now + LOCK / 2, peer));
    let ends: Vec<_> = sent.iter().map(|it| (it.node, it.epoch)).collect();
    assert_eq!(ends.iter().filter(|(_, epoch)| *epoch == -1).count(), 2, "{ends:?}");
}

#[test]
fn what_is_not_to_be_read_any_more_is_given_back() {
    let now = Instant::now();
    let mut state = started(settings(), &[(1, 0), (1, 0)]);
    orders(state.next(now, peer));
    answer(&mut state, 1, now, told(vec![gives(0, 0, 2), gives(1, 0, 2)]));
    state.assign(vec![((topic(), 1), key(1))]);
    state.follow(&cluster(&[(1, 0), (1, 0)]));
    let sent = orders(state.next(now, peer));
    assert_eq!(sent[0].said, [((topic(), 0), vec![Batch { first: 0, last: 1, types: vec![2] }])]);
    assert_eq!(offsets(&state.take(now).unwrap().0), [(1, 0), (1, 1)]);
    answer(&mut state, 1, now, told(vec![ToldPartition::new((topic(), 0))]));
    assert!(state.results().is_empty(), "the application has said nothing");
    state.close();
    let sent = orders(state.next(now, peer));
    assert_eq!((sent[0].epoch, sent[0].said.len()), (-1, 0));
    assert!(!state.is_closed());
    answer(&mut state, 1, now, told(vec![]));
    assert!(state.is_closed());
}

#[test]
fn bounds_hold() {
    let now = Instant::now();
    let mut state = started(Settings { held_max: 2, ..settings() }, &[(1, 0)]);
    orders(state.next(now, peer));
    answer(&mut state, 1, now, told(vec![gives(0, 0, 2)]));
    state.take(now).unwrap();
    assert!(state.is_full() && state.next(now, peer).is_empty(), "the application has enough");
    // The locks end, and all begins anew.
    assert_eq!(state.wake_at(now), Some(now + LOCK));
    assert_eq!(orders(state.next(now + LOCK, peer)).len(), 1);
    let mut strict = started(Settings { is_strict: true, ..settings() }, &[(1, 0), (2, 0)]);
    let asked: Vec<i32> = (0..4)
        .map(|_| {
            let sent = orders(strict.next(now, peer));
            assert_eq!(sent.len(), 1, "one broker at a time");
            answer(&mut strict, sent[0].node, now, told(vec![]));
            sent[0].node
        })
        .collect();
    assert_eq!(asked, [1, 2, 1, 2]);
    let mut small = started(Settings { buffer_bytes: 100, ..settings() }, &[(1, 0), (2, 0)]);
    let sent = orders(small.next(now, peer));
    assert_eq!((sent.len(), sent[0].fetch.as_ref().unwrap().bytes_max), (1, 100), "room for one answer");
}

/// A leader of one partition, as far as sessions and locks go.
#[derive(Default)]
struct Leader {
    /// Of the member's session; 0 for none.
    epoch: i32,
    places: BTreeSet<Place>,
}

/// One partition of a share group with one member.
struct Shared {
    node: i32,
    epoch: i32,
    /// What was accepted, what is with the member since when.
    accepted: BTreeSet<i64>,
    with_member: BTreeMap<i64, Instant>,
    end: i64,
}

impl Shared {
    fn give(&mut self, index: i32, now: Instant, count: usize) -> ToldPartition {
        self.with_member.retain(|_, since| now - *since < LOCK);
        let free =
            (0..self.end).filter(|at| !self.accepted.contains(at) && !self.with_member.contains_key(at));
        let free: Vec<i64> = free.take(count).collect();
        let mut told = ToldPartition::new((topic(), index));
        let (Some(first), Some(last)) = (free.first(), free.last()) else { return told };
        told.records = batch(*first, last - first + 1);
        for offset in &free {
            self.with_member.insert(*offset, now);
            let (first_offset, last_offset) = (*offset, *offset);
            told.acquired.push(AcquiredRecords { first_offset, last_offset, delivery_count: 1 });
        }
        told
    }

    fn take(&mut self, now: Instant, batches: &[Batch]) -> ErrorCode {
        self.with_member.retain(|_, since| now - *since < LOCK);
        let said = batches.iter().flat_map(|batch| {
            let kind = |at: usize| batch.types.get(at).or(batch.types.first()).copied().unwrap();
            (batch.first..=batch.last).enumerate().map(move |(at, offset)| (offset, kind(at)))
        });
        let said: Vec<_> = said.collect();
        if said.iter().any(|(offset, _)| !self.with_member.contains_key(offset)) {
            return ErrorCode::InvalidRecordState;
        }
        for (offset, kind) in said {
            match kind {
                1 => {
                    self.with_member.remove(&offset);
                    assert!(self.accepted.insert(offset), "accepted twice");
                }
                2 => {
                    self.with_member.remove(&offset);
                }
                4 => {
                    self.with_member.insert(offset, now);
                }
                kind => panic!("{kind} was not said"),
            }
        }
        ErrorCode::None
    }
}

struct World {
    leaders: BTreeMap<i32, Leader>,
    partitions: Vec<Shared>,
}

impl World {
    fn end_session(&mut self, node: i32) {
        self.leaders.insert(node, Leader::default());
        for partition in self.partitions.iter_mut().filter(|it| it.node == node) {
            partition.with_member.clear();
        }
    }

    fn answer(&mut self, order: &Order, now: Instant) -> Told {
        let leader = self.leaders.entry(order.node).or_default();
        match order.epoch {
            0 => *leader = Leader::default(),
            _ if leader.epoch == 0 => return refusal(ErrorCode::ShareSessionNotFound),
            -1 => {}
            epoch if epoch != leader.epoch => return refusal(ErrorCode::InvalidShareSessionEpoch),
            _ => {}
        }
        assert!(order.epoch != 0 || order.said.is_empty(), "a session that begins acknowledges nothing");
        assert!(!(order.renews && order.fetch.is_some()));
        leader.epoch += 1;
        if let Some(fetch) = &order.fetch {
            // As Kafka: whatever is named is fetched from, unless it is forgotten.
            leader.places.extend(fetch.add.iter().chain(order.said.iter().map(|(place, _)| place)));
            leader.places.retain(|place| !fetch.forget.contains(place));
        }
        let places = leader.places.clone();
        let mut told: BTreeMap<Place, ToldPartition> = BTreeMap::new();
        for (place, batches) in &order.said {
            let partition = &mut self.partitions[place.1 as usize];
            let code = match partition.node == order.node {
                true => partition.take(now, batches),
                false => ErrorCode::NotLeaderOrFollower,
            };
            told.insert(*place, ToldPartition { said_code: code.code(), ..ToldPartition::new(*place) });
        }
        for place in places.iter().filter(|_| order.fetch.is_some()) {
            let partition = &mut self.partitions[place.1 as usize];
            let said_code = told.remove(place).map_or(0, |said| said.said_code);
            let mut data = match partition.node == order.node {
                true => partition.give(place.1, now, 5),
                false => ToldPartition {
                    code: ErrorCode::NotLeaderOrFollower.code(),
                    leader: Some((partition.node, partition.epoch)),
                    ..ToldPartition::new(*place)
                },
            };
            data.said_code = said_code;
            told.insert(*place, data);
        }
        if order.epoch == -1 {
            self.end_session(order.node);
        }
        Told { lock_ms: 30_000, partitions: told.into_values().collect(), ..Default::default() }
    }
}

/// One run: leaders move, connections break before or after a request was carried out, sessions are forgotten.
struct Run {
    rng: StdRng,
    is_implicit: bool,
    world: World,
    state: State,
    now: Instant,
    sent: Vec<Order>,
    held: Vec<(i32, i64)>,
    known: Cluster,
    /// Nothing breaks any more.
    calm: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let is_implicit = seed.is_multiple_of(2);
        let partition = |node| Shared {
            node,
            epoch: 0,
            accepted: BTreeSet::new(),
            with_member: BTreeMap::new(),
            end: 40,
        };
        let known = [(1, 0), (2, 0), (3, 0)];
        let settings = Settings { is_implicit, is_strict: seed.is_multiple_of(3), ..settings() };
        Self {
            rng: StdRng::seed_from_u64(seed),
            is_implicit,
            world: World { leaders: BTreeMap::new(), partitions: (1..=3).map(partition).collect() },
            state: started(settings, &known),
            now: Instant::now(),
            sent: Vec::new(),
            held: Vec::new(),
            known: cluster(&known),
            calm: false,
        }
    }

    fn may(&mut self, one_in: u32) -> bool {
        !self.calm && self.rng.random_ratio(1, one_in)
    }

    fn break_something(&mut self) {
        if self.may(20) {
            let partition = &mut self.world.partitions[self.rng.random_range(0..3)];
            partition.node = partition.node % 3 + 1;
            partition.epoch += 1;
            partition.with_member.clear();
        }
        if self.may(30) {
            let node = self.rng.random_range(1..4);
            self.world.end_session(node);
        }
    }

    fn exchange(&mut self) {
        if self.rng.random_ratio(1, 10) {
            let leaders: Vec<_> = self.world.partitions.iter().map(|it| (it.node, it.epoch)).collect();
            self.known = cluster(&leaders);
        }
        self.state.follow(&self.known);
        self.sent.extend(orders(self.state.next(self.now, peer)));
        let is_current = |order: &Order| self.state.is_current(order.node, order.id);
        assert!(self.sent.iter().all(is_current));
        let nodes: BTreeSet<i32> = self.sent.iter().map(|order| order.node).collect();
        assert_eq!(nodes.len(), self.sent.len(), "one request to each leader at a time");
        if self.sent.is_empty() || self.rng.random() {
            return;
        }
        let at = self.rng.random_range(0..self.sent.len());
        let order = self.sent.swap_remove(at);
        if self.may(15) {
            if self.rng.random() {
                self.world.answer(&order, self.now);
            }
            // The broker notices sooner or later; here at once.
            self.world.end_session(order.node);
            let (broker, reason) = ("b".into(), "test".into());
            self.state.broken(order.node, self.now, &ClientError::Disconnected { broker, reason });
        } else {
            let told = self.world.answer(&order, self.now);
            answer(&mut self.state, order.node, self.now, told);
        }
    }

    fn poll(&mut self) {
        self.state.speak();
        if self.is_implicit {
            self.held.clear();
        }
        let (records, count) = self.state.take(self.now).unwrap();
        let new = offsets(&records);
        assert_eq!(new.len(), count);
        self.held.extend(new);
    }

    fn acknowledge(&mut self) {
        let at = self.rng.random_range(0..self.held.len());
        let (index, offset) = self.held.swap_remove(at);
        let what = if self.may(8) {
            Acknowledgement::Release
        } else if self.may(8) {
            self.held.push((index, offset));
            Acknowledgement::Renew
        } else {
            Acknowledgement::Accept
        };
        // It may have been lost meanwhile; then it comes again.
        if self.state.say(&key(index), Some(topic()), Offset::new(offset), what).is_err() {
            self.held.retain(|it| *it != (index, offset));
        }
    }
}

#[test]
fn whatever_breaks_every_record_is_accepted_once_in_the_end() {
    for seed in 0..150 {
        let mut run = Run::new(seed);
        for round in 0..1_200 {
            run.calm = round > 400;
            run.now += Duration::from_millis(run.rng.random_range(1..200));
            run.break_something();
            run.exchange();
            if run.rng.random_ratio(1, 3) {
                run.poll();
            }
            if !run.is_implicit && !run.held.is_empty() {
                run.acknowledge();
            }
        }
        for partition in &run.world.partitions {
            assert_eq!(partition.accepted.len(), 40, "seed {seed}: every record is accepted in the end");
        }
        assert!(!run.state.is_unsettled() && run.state.buffered() == 0, "seed {seed}");
    }
}
