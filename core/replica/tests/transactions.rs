//! Transactions on leader and follower: what is stable, what is aborted, and who is woken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towpath_log::AppendError;
use towpath_log::sim::SimStorage;
use towpath_record::{BatchBuilder, BatchHeader, Compression, Origin};
use towpath_replica::{
    AbortedTransaction, AppendOptions, Appended, Applied, Awaited, Effort, FetchPosition, FetchWaiter,
    FollowerAnswer, FollowerFetch, Isolation, LeaderAnswer, Marker, Partition, PartitionError, ProcessClock,
    Reader, Settings, TransactionCheck,
};
use towpath_types::{BrokerEpoch, BrokerId, Offset, ProducerEpoch, ProducerId, Rules};

use common::{PATIENCE, World, acknowledged, at, batch, leadership, position, settings, values};

const COMMITTED: Isolation = Isolation::ReadCommitted;
const UNCOMMITTED: Isolation = Isolation::ReadUncommitted;

/// Brokers 1, which leads, and 2, which follows; both in sync.
struct Pair {
    leader: World,
    follower: World,
    storages: [Arc<SimStorage>; 2],
    settings: Settings,
}

impl Pair {
    fn start(settings: Settings) -> Self {
        let storages = [Arc::new(SimStorage::new(1)), Arc::new(SimStorage::new(2))];
        let open = |id: usize| {
            let clock = Arc::new(ProcessClock::default());
            let world = World::open(&storages[id], id as i32 + 1, clock, Rules::ALL);
            world.set(leadership(0, 2), &settings);
            world
        };
        let (leader, follower) = (open(0), open(1));
        Self { leader, follower, storages, settings }
    }

    /// The follower fetches until it knows what is committed.
    fn replicate(&self) {
        for _ in 0..3 {
            self.fetch();
        }
    }

    fn fetch(&self) -> Applied {
        let (leader, follower) = (self.leader.partition(), self.follower.partition());
        let plan = follower.plan_fetch().unwrap();
        follower.flush_fetched().unwrap();
        let fetch = FollowerFetch {
            broker: BrokerId::new(2),
            broker_epoch: BrokerEpoch::new(102),
            log_end: plan.offset,
            log_start: plan.log_start,
        };
        let fetched = leader.fetch(Reader::Follower(fetch), &position(plan.offset)).unwrap();
        assert!(fetched.aborted.is_none());
        let answer = FollowerAnswer {
            answer: LeaderAnswer::Records,
            high_watermark: fetched.high_watermark,
            log_start: fetched.log_start_offset,
            records: fetched.data.into_bytes().unwrap(),
        };
        follower.apply_fetched(&plan, &answer).unwrap()
    }
}

fn transactional(id: i64, sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(ProducerId::new(id), ProducerEpoch::new(0), sequence);
    builder.set_transactional(true);
    builder.append(1_000, Some(b"k"), Some(value.as_bytes()), &[]).unwrap();
    builder.build().unwrap()
}

fn append(partition: &Arc<Partition>, bytes: Bytes) -> Result<Appended, PartitionError> {
    let header = BatchHeader::parse(&bytes).unwrap();
    let guard = match partition.transaction_check(&header, false)? {
        TransactionCheck::Append => None,
        TransactionCheck::Verify(guard) => Some(guard),
    };
    let options = AppendOptions { origin: Origin::Client, effort: Effort::Any, guard };
    partition.append_with(bytes, true, &options)
}

fn marker(id: i64, commit: bool) -> Marker {
    Marker {
        producer_id: ProducerId::new(id),
        producer_epoch: ProducerEpoch::new(0),
        coordinator_epoch: 3,
        commit,
        tv2: false,
    }
}

fn fetch(partition: &Arc<Partition>, from: i64) -> (Vec<String>, Vec<AbortedTransaction>) {
    let position = FetchPosition { isolation: COMMITTED, ..position(at(from)) };
    let fetched = partition.fetch(Reader::AnyReplica, &position).unwrap();
    let bytes = fetched.data.into_bytes().unwrap();
    let data = towpath_record::batches(&bytes).map(Result::unwrap).filter(|batch| !batch.is_control());
    let data = data.flat_map(|batch| values(batch.bytes())).collect();
    (data, fetched.aborted.unwrap())
}

fn aborted(id: i64, first: i64) -> AbortedTransaction {
    AbortedTransaction { producer_id: ProducerId::new(id), first_offset: at(first) }
}

#[test]
fn leader_and_follower_show_what_is_decided_and_replicated() {
    let pair = Pair::start(settings(i64::MAX));
    let (leader, follower) = (pair.leader.partition(), pair.follower.partition());
    append(&leader, batch(&["a"])).unwrap();
    append(&leader, transactional(1, 0, "b")).unwrap();
    append(&leader, batch(&["c"])).unwrap();
    pair.replicate();
    let expect = |stable: i64, high_watermark: i64| {
        for partition in [&leader, &follower] {
            let now = (partition.last_stable_offset(), partition.high_watermark());
            assert_eq!(now, (at(stable), at(high_watermark)));
        }
        assert_eq!(leader.latest_offset(COMMITTED).unwrap(), at(stable));
        assert_eq!(leader.latest_offset(UNCOMMITTED).unwrap(), at(high_watermark));
    };
    expect(1, 3);
    for partition in [&leader, &follower] {
        assert_eq!(fetch(partition, 0), (vec!["a".to_owned()], vec![]));
        assert_eq!(fetch(partition, 2), (vec![], vec![]), "past the last stable offset, and no error");
    }
    assert_eq!(leader.lookup_timestamp(1_000, UNCOMMITTED).unwrap().unwrap().offset, at(1));
    assert_eq!(leader.lookup_timestamp(1_000, COMMITTED).unwrap(), None);
    assert_eq!(leader.max_timestamp(COMMITTED).unwrap(), None);
    let appended = leader.append_marker(&marker(1, false)).unwrap();
    assert!(!appended.committed);
    expect(1, 3);
    pair.replicate();
    expect(4, 4);
    assert!(leader.is_committed(&appended).unwrap());
    for partition in [&leader, &follower] {
        let all = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        assert_eq!(fetch(partition, 0), (all, vec![aborted(1, 1)]));
    }
    let producers = follower.producers();
    assert_eq!((producers[0].coordinator_epoch, producers[0].txn_start_offset), (3, None));
    assert!(matches!(follower.append_marker(&marker(1, true)), Err(PartitionError::NotLeader)));
    let header = BatchHeader::parse(&transactional(1, 1, "x")).unwrap();
    assert!(matches!(follower.transaction_check(&header, false), Err(PartitionError::NotLeader)));
}

#[test]
fn a_follower_that_comes_to_lead_knows_what_is_open() {
    let mut pair = Pair::start(settings(i64::MAX));
    let leader = pair.leader.partition();
    append(&leader, transactional(1, 0, "a")).unwrap();
    append(&leader, transactional(2, 0, "b")).unwrap();
    leader.append_marker(&marker(1, false)).unwrap();
    pair.replicate();
    drop(leader);
    pair.follower.flusher.stop();
    pair.storages[1].kill();
    let clock = Arc::new(ProcessClock::default());
    pair.follower = World::open(&pair.storages[1], 2, clock, Rules::ALL);
    let mut state = leadership(1, 2);
    state.leader = Some(BrokerId::new(2));
    state.isr = vec![BrokerId::new(2)];
    pair.follower.set(state, &pair.settings);
    let leader = pair.follower.partition();
    assert_eq!((leader.last_stable_offset(), leader.high_watermark()), (at(1), at(3)));
    assert_eq!(fetch(&leader, 0).1, [aborted(1, 0)]);
    leader.append_marker(&marker(2, true)).unwrap();
    assert_eq!(leader.last_stable_offset(), at(4));
    let header = BatchHeader::parse(&transactional(2, 1, "x")).unwrap();
    assert!(matches!(leader.transaction_check(&header, false).unwrap(), TransactionCheck::Verify(_)));
}

#[test]
fn a_marker_needs_replicas_as_acks_all_does() {
    let pair = Pair::start(Settings { min_insync_replicas: 2, ..settings(i64::MAX) });
    let leader = pair.leader.partition();
    append(&leader, transactional(1, 0, "a")).unwrap();
    pair.leader.set(leadership(1, 1), &pair.settings);
    let refused = leader.append_marker(&marker(1, true));
    assert!(matches!(refused, Err(PartitionError::NotEnoughReplicas { in_sync: 1, needed: 2 })));
    pair.leader.set(leadership(2, 2), &pair.settings);
    let fenced = Marker { producer_epoch: ProducerEpoch::new(-1), ..marker(1, true) };
    let refused = leader.append_marker(&fenced);
    assert!(matches!(refused, Err(PartitionError::Append(AppendError::InvalidProducerEpoch { .. }))));
    leader.append_marker(&marker(1, true)).unwrap();
}

async fn is_woken(waiter: &FetchWaiter) -> bool {
    tokio::time::timeout(Duration::from_millis(30), waiter.woken()).await.is_ok()
}

#[tokio::test]
async fn readers_of_what_is_stable_are_woken_when_it_moves_and_not_before() {
    let world = World::open(&Arc::new(SimStorage::new(5)), 1, Arc::new(ProcessClock::default()), Rules::ALL);
    world.set(leadership(0, 1), &settings(i64::MAX));
    let partition = world.partition();
    let (stable, committed) = (FetchWaiter::new(100), FetchWaiter::new(100));
    partition.wait_for_records(&stable, Awaited::Stable);
    partition.wait_for_records(&committed, Awaited::Committed);
    // Without transactions, bytes count as for others.
    append(&partition, batch(&["a"])).unwrap();
    assert!(!is_woken(&stable).await && !is_woken(&committed).await);
    append(&partition, batch(&["b"])).unwrap();
    assert!(is_woken(&stable).await && is_woken(&committed).await);
    stable.rearm(1_000_000);
    committed.rearm(1);
    append(&partition, transactional(1, 0, "c")).unwrap();
    // It is behind from here on: whoever waits looks once.
    assert!(is_woken(&committed).await && is_woken(&stable).await);
    committed.rearm(1);
    append(&partition, batch(&["d"])).unwrap();
    assert!(is_woken(&committed).await && !is_woken(&stable).await, "nothing has become stable");
    partition.append_marker(&marker(1, true)).unwrap();
    assert!(is_woken(&stable).await, "however many bytes it waits for");
    partition.stop_waiting(&stable, Awaited::Stable);
    partition.delete_records_before(None).unwrap();
    assert!(!is_woken(&stable).await);
}

#[tokio::test]
async fn what_counts_when_flushed_is_stable_when_flushed() {
    let world = World::open(&Arc::new(SimStorage::new(6)), 1, Arc::new(ProcessClock::default()), Rules::ALL);
    world.set(leadership(0, 1), &settings(1));
    let partition = world.partition();
    let first = append(&partition, transactional(1, 0, "a")).unwrap();
    acknowledged(&partition, &first).await.unwrap();
    assert_eq!(partition.last_stable_offset(), at(0));
    let waiter = FetchWaiter::new(1);
    partition.wait_for_records(&waiter, Awaited::Stable);
    let ended = partition.append_marker(&marker(1, false)).unwrap();
    acknowledged(&partition, &ended).await.unwrap();
    assert_eq!(partition.last_stable_offset(), at(2));
    tokio::time::timeout(PATIENCE, waiter.woken()).await.unwrap();
    assert_eq!(fetch(&partition, 0).1, [aborted(1, 0)]);
}

#[test]
fn a_truncation_of_a_marker_opens_its_transaction_again() {
    let pair = Pair::start(settings(i64::MAX));
    let (leader, follower) = (pair.leader.partition(), pair.follower.partition());
    append(&leader, transactional(1, 0, "a")).unwrap();
    leader.append_marker(&marker(1, true)).unwrap();
    pair.fetch();
    assert_eq!(follower.log().log_end_offset(), at(2));
    let plan = {
        let mut state = leadership(1, 2);
        state.leader = Some(BrokerId::new(1));
        pair.follower.set(state, &pair.settings);
        follower.plan_fetch().unwrap()
    };
    // The new leader never had the marker.
    let answer = FollowerAnswer {
        answer: LeaderAnswer::Diverging { epoch: towpath_types::LeaderEpoch::new(0), end: at(1) },
        records: Bytes::new(),
        high_watermark: Offset::ZERO,
        log_start: Offset::ZERO,
    };
    assert_eq!(follower.apply_fetched(&plan, &answer).unwrap(), Applied::Cut(at(1)));
    assert_eq!(follower.producers()[0].txn_start_offset, Some(Offset::ZERO));
    assert_eq!(follower.log().last_stable_offset(at(1)), Offset::ZERO);
}
