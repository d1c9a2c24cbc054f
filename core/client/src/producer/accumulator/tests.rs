use std::collections::HashMap as StdHashMap;
use std::sync::Arc;

use super::*;
use crate::metadata::PartitionMeta;
use towpath_wire::ErrorCode;

const LINGER: Duration = Duration::from_millis(5);

fn settings() -> Settings {
    Settings {
        batch_bytes: 1000,
        linger: LINGER,
        buffer_memory: 10_000,
        delivery_timeout: Some(Duration::from_secs(2)),
        codec: Codec::default(),
        idempotent: true,
        in_flight_per_partition: 5,
        stop_after_failure: false,
        keeps_identity: false,
        backoff: Backoff::new(10, 10),
    }
}

fn cluster(leaders: &[i32]) -> Cluster {
    let name = TopicName::new("t").unwrap();
    let partition = |leader: &i32| PartitionMeta {
        leader: *leader,
        leader_epoch: 0,
        replicas: vec![],
        isr: vec![],
        offline: vec![],
        error: ErrorCode::None,
    };
    let meta = TopicMeta {
        name: name.clone(),
        id: TopicId::random(),
        internal: false,
        partitions: leaders.iter().map(partition).collect(),
        version: 1,
    };
    Cluster { topics: StdHashMap::from([(name, Arc::new(meta))]), ..Default::default() }
}

struct World {
    accumulator: Accumulator,
    cluster: Cluster,
    now: Instant,
    topic: TopicName,
}

impl World {
    fn new(settings: Settings, leaders: &[i32]) -> Self {
        let mut accumulator = Accumulator::new(settings);
        accumulator.set_identity((ProducerId::new(1), ProducerEpoch::new(0)));
        let cluster = cluster(leaders);
        cluster.topics.values().for_each(|meta| accumulator.learn(meta));
        Self { accumulator, cluster, now: Instant::now(), topic: TopicName::new("t").unwrap() }
    }

    fn append(&mut self, partition: i32, bytes: usize) -> Appended {
        let value = vec![7; bytes];
        let record = NewRecord {
            topic: &self.topic,
            partition: Some(partition),
            timestamp_ms: 1,
            key: None,
            value: Some(&value),
            headers: &[],
            bytes: towpath_record::record_bytes(None, Some(&value), &[]),
            want_ack: false,
        };
        let now = self.now;
        self.accumulator.append(&record, || now)
    }

    fn plan(&mut self) -> Plan {
        self.accumulator.plan(self.now, &self.cluster, |_| Readiness::Ready(1))
    }

    fn answer(&mut self, sent: Sendable, verdict: Verdict) {
        let outcome = BatchOutcome { partition: sent.partition, base_offset: 0, log_append_time_ms: -1 };
        let now = self.now;
        let _ = self.accumulator.answered(sent.queue, sent.batch, verdict, outcome, ClientError::Closed, now);
    }
}

fn batches(plan: Plan) -> Vec<Sendable> {
    plan.requests.into_iter().flat_map(|request| request.batches).collect()
}

#[test]
fn a_batch_lingers_then_goes() {
    let mut world = World::new(settings(), &[1]);
    assert!(matches!(world.append(0, 10), Appended::Done { wake: true, .. }), "the sender sets a timer");
    assert!(matches!(world.append(0, 10), Appended::Done { wake: false, .. }), "and is not woken again");
    let plan = world.plan();
    assert_eq!(plan.wake_at, Some(world.now + LINGER));
    assert!(batches(plan).is_empty());
    world.now += LINGER;
    let sent = batches(world.plan());
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].batch.records, 2);
}

#[test]
fn a_full_batch_goes_at_once_and_one_per_partition() {
    let mut world = World::new(settings(), &[1, 1]);
    for _ in 0..5 {
        world.append(0, 400);
        world.append(1, 400);
    }
    let plan = world.plan();
    assert_eq!(plan.requests.len(), 1, "both partitions have one leader");
    let sent = batches(plan);
    assert_eq!(sent.iter().map(|s| s.partition).collect::<std::collections::BTreeSet<_>>().len(), 2);
    assert_eq!(sent.len(), 2, "a request has one batch of a partition");
}

#[test]
fn memory_is_bounded_and_freed_by_answers() {
    let mut world = World::new(settings(), &[1]);
    let mut appended = 0;
    while matches!(world.append(0, 900), Appended::Done { .. }) {
        appended += 1;
    }
    assert!((9..=11).contains(&appended), "{appended}");
    assert!(world.accumulator.used() <= 10_000);
    for sent in batches(world.plan()) {
        world.answer(sent, Verdict::Acked);
    }
    assert!(matches!(world.append(0, 900), Appended::Done { .. }));
}

#[test]
fn a_record_larger_than_the_buffer_passes_when_it_is_empty() {
    let mut world = World::new(settings(), &[1]);
    assert!(matches!(world.append(0, 20_000), Appended::Done { .. }));
    assert!(matches!(world.append(0, 1), Appended::Full));
}

#[test]
fn nothing_is_reordered_when_the_first_of_two_fails() {
    let mut world = World::new(settings(), &[1]);
    world.append(0, 950);
    let opening = batches(world.plan()).remove(0);
    world.answer(opening, Verdict::Acked);
    for _ in 0..2 {
        world.append(0, 950);
    }
    let first = batches(world.plan()).remove(0);
    let second = batches(world.plan()).remove(0);
    let (first_id, second_id) = (first.batch.id, second.batch.id);
    world.answer(first, Verdict::Retry);
    world.append(0, 950);
    world.now += Duration::from_millis(20);
    assert!(batches(world.plan()).is_empty(), "the second is still in flight");
    world.answer(second, Verdict::Retry);
    world.now += Duration::from_millis(20);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.extend(batches(world.plan()).iter().map(|sent| sent.batch.id));
    }
    assert_eq!(ids, [first_id, second_id, second_id + 1]);
}

#[test]
fn without_a_leader_metadata_is_wanted_and_time_runs_out() {
    let mut world = World::new(settings(), &[-1]);
    world.append(0, 10);
    let barrier = world.accumulator.begin_barrier();
    world.now += LINGER;
    assert_eq!(world.plan().stale, [TopicName::new("t").unwrap()]);
    world.now += Duration::from_secs(2);
    assert!(world.plan().freed);
    let result = world.accumulator.barriers.poll(barrier, Waker::noop()).unwrap();
    assert!(matches!(result, Err(ClientError::DeliveryTimeout { records: 1, .. })), "{result:?}");
    assert_eq!(world.accumulator.used(), 0);
}

#[test]
fn where_nothing_may_follow_a_failure_nothing_does() {
    let mut world = World::new(Settings { stop_after_failure: true, ..settings() }, &[1, 1]);
    world.append(0, 950);
    let opening = batches(world.plan()).remove(0);
    world.answer(opening, Verdict::Acked);
    for _ in 0..4 {
        world.append(0, 950);
    }
    let first = batches(world.plan()).remove(0);
    let second = batches(world.plan()).remove(0);
    world.answer(first, Verdict::Fail);
    assert!(matches!(world.append(0, 10), Appended::Failed(_)), "what comes later fails at once");
    assert!(batches(world.plan()).is_empty(), "what waited has failed");
    // The broker misses the first one and refuses the second.
    world.answer(second, Verdict::NewEpoch);
    world.now += Duration::from_secs(1);
    assert!(batches(world.plan()).is_empty(), "it is not sent again under a new epoch");
    assert_eq!(world.accumulator.used(), 0);
    let barrier = world.accumulator.begin_barrier();
    assert!(world.accumulator.barriers.poll(barrier, Waker::noop()).unwrap().is_err());
    world.append(1, 950);
    assert_eq!(batches(world.plan()).len(), 1, "another partition goes on");
}

#[test]
fn what_the_broker_may_have_is_not_sent_under_a_new_epoch_where_nothing_may_come_twice() {
    for (stop_after_failure, sent_again) in [(false, 2), (true, 0)] {
        let mut world = World::new(Settings { stop_after_failure, ..settings() }, &[1]);
        world.append(0, 950);
        let opening = batches(world.plan()).remove(0);
        world.answer(opening, Verdict::Acked);
        for _ in 0..2 {
            world.append(0, 950);
        }
        let first = batches(world.plan()).remove(0);
        let second = batches(world.plan()).remove(0);
        // Both answers were lost, and the broker that has started anew remembers the second batch alone.
        world.answer(first, Verdict::NewEpoch);
        world.answer(second, if stop_after_failure { Verdict::Acked } else { Verdict::Retry });
        world.now += Duration::from_secs(1);
        let mut again = Vec::new();
        loop {
            let sent = batches(world.plan());
            if sent.is_empty() {
                break;
            }
            sent.into_iter().for_each(|sendable| {
                again.push(sendable.batch.sequence.unwrap().base);
                world.answer(sendable, Verdict::Acked);
            });
        }
        assert_eq!(again.len(), sent_again, "{again:?}");
    }
}

#[test]
fn what_a_broker_may_have_without_knowing_so_is_not_sent_again_where_nothing_may_come_twice() {
    for (stop_after_failure, sent_again) in [(false, 1), (true, 0)] {
        let mut world = World::new(Settings { stop_after_failure, ..settings() }, &[1]);
        world.append(0, 950);
        let lost = batches(world.plan()).remove(0);
        let day_ms = 24 * 60 * 60 * 1000;
        assert!(lost.batch.may_be_forgotten(lost.batch.timestamp_ms + day_ms));
        assert!(!lost.batch.may_be_forgotten(lost.batch.timestamp_ms + day_ms / 4));
        world.answer(lost, Verdict::Uncertain);
        world.now += Duration::from_secs(1);
        assert_eq!(batches(world.plan()).len(), sent_again);
    }
}

#[test]
fn a_batch_out_of_time_takes_along_what_follows_it() {
    let mut world = World::new(Settings { stop_after_failure: true, ..settings() }, &[-1]);
    world.append(0, 950);
    world.now += Duration::from_millis(1500);
    world.append(0, 950);
    world.now += Duration::from_millis(500);
    let plan = world.plan();
    assert!(plan.freed);
    assert_eq!(world.accumulator.used(), 0, "the second has time left, and nothing to follow");
    world.cluster = cluster(&[1]);
    world.cluster.version = 9;
    assert!(batches(world.plan()).is_empty());
}

#[test]
fn without_an_identity_one_is_asked_for() {
    let mut world = World::new(settings(), &[1]);
    world.accumulator.identity = None;
    world.append(0, 990);
    let plan = world.plan();
    assert!(plan.needs_id);
    assert!(batches(plan).is_empty());
}

#[test]
fn a_flush_does_not_wait_for_the_linger() {
    let mut world = World::new(settings(), &[1]);
    world.append(0, 10);
    world.accumulator.flush();
    assert_eq!(batches(world.plan()).len(), 1);
    world.append(0, 10);
    assert!(batches(world.plan()).is_empty(), "what comes later lingers");
}

/// `send` is on the path of every record: what it costs beside the copy must stay small. The best of many rounds, since
/// the machine may be busy.
#[test]
fn appending_a_small_record_is_cheap() {
    let settings = Settings { batch_bytes: 64 * 1024, buffer_memory: 32 << 20, ..settings() };
    let mut world = World::new(settings, &[1, 1, 1, 1]);
    let (key, value) = ([7; 8], [7; 92]);
    let bytes = towpath_record::record_bytes(Some(&key), Some(&value), &[]);
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = std::time::Instant::now();
        for number in 0..20_000i64 {
            let key = number.to_le_bytes();
            let record = NewRecord {
                topic: &world.topic,
                partition: None,
                timestamp_ms: number,
                key: Some(&key),
                value: Some(&value),
                headers: &[],
                bytes,
                want_ack: false,
            };
            assert!(matches!(world.accumulator.append(&record, Instant::now), Appended::Done { .. }));
        }
        best = best.min(start.elapsed());
        world.accumulator.flush();
        loop {
            let sent = batches(world.plan());
            if sent.is_empty() {
                break;
            }
            sent.into_iter().for_each(|sendable| world.answer(sendable, Verdict::Acked));
        }
    }
    let each = best / 20_000;
    eprintln!("{each:?} a record");
    assert!(cfg!(debug_assertions) || each < Duration::from_nanos(400), "{each:?} a record");
}
