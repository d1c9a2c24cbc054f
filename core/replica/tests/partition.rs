//! Partitions over a simulated disk that loses what was not synced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use towpath_log::sim::SimStorage;
use towpath_log::{LogConfig, Storage};
use towpath_record::{BatchBuilder, Compression, Origin};
use towpath_replica::{
    Appended, Awaited, FetchWaiter, FollowerFetch, Isolation, Partition, PartitionError, ProcessClock,
    Reader, Settings,
};
use towpath_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Rules, TopicId, TopicName,
    TopicPartition,
};
use uuid::Uuid;

use common::{TOPIC, World, acknowledged, at, batch, leadership, read, settings};

fn open(storage: &Arc<SimStorage>, flush_messages: i64) -> World {
    let world = World::open(storage, 1, Arc::new(ProcessClock::default()), Rules::ALL);
    world.set(leadership(0, 1), &settings(flush_messages));
    world
}

/// Waits until everything before `end` is committed.
async fn committed_before(partition: &Arc<Partition>, end: i64) {
    let deadline = tokio::time::Instant::now() + common::PATIENCE;
    while partition.high_watermark() < at(end) {
        assert!(tokio::time::Instant::now() < deadline, "{}", partition.high_watermark());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_is_acknowledged_on_a_flushed_topic_survives_a_loss_of_power() {
    let storage = Arc::new(SimStorage::new(1));
    let world = open(&storage, 1);
    let partition = world.partition();
    for value in ["a", "b"] {
        let appended = partition.append(batch(&[value]), true, Origin::Client).unwrap();
        acknowledged(&partition, &appended).await.unwrap();
    }
    assert_eq!(partition.high_watermark(), Offset::new(2));
    drop(world);
    drop(partition);
    storage.crash();
    let world = open(&storage, 1);
    let partition = world.partition();
    committed_before(&partition, 2).await;
    assert_eq!(read(&partition), ["a", "b"]);
}

#[tokio::test]
async fn many_appends_share_a_flush_and_none_is_seen_before_it() {
    let storage = Arc::new(SimStorage::new(2));
    let world = open(&storage, 1);
    let partition = world.partition();
    let mut waits = Vec::new();
    for index in 0..200 {
        let appended = partition.append(batch(&[&index.to_string()]), true, Origin::Client).unwrap();
        waits.push(partition.committed(&appended));
        let durable = partition.log().recovery_point();
        assert!(partition.high_watermark() <= durable.max(partition.log().recovery_point()), "R1");
    }
    for wait in waits {
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap();
    }
    assert_eq!(read(&partition).len(), 200);
    assert!(world.flushes.load(Ordering::Relaxed) <= 200);
}

#[tokio::test]
async fn a_failed_flush_acknowledges_nothing_and_takes_the_directory_offline() {
    let storage = Arc::new(SimStorage::new(3));
    let world = open(&storage, 1);
    let partition = world.partition();
    storage.fail_sync_after(0);
    let appended = partition.append(batch(&["a"]), true, Origin::Client).unwrap();
    let result = tokio::time::timeout(common::PATIENCE, partition.committed(&appended));
    assert!(matches!(result.await.unwrap(), Err(PartitionError::Offline(_))), "R14: no ack");
    assert_eq!(partition.high_watermark(), Offset::ZERO, "R3: not seen either");
    let refused = partition.append(batch(&["b"]), true, Origin::Client);
    assert!(matches!(refused, Err(PartitionError::Offline(_))));
    assert!(matches!(partition.latest_offset(Isolation::ReadUncommitted), Err(PartitionError::Offline(_))));
}

/// One batch of an idempotent producer.
fn produced(sequence: i32, value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(ProducerId::new(9), ProducerEpoch::new(0), sequence);
    builder.append(0, None, Some(value.as_bytes()), &[]).unwrap();
    builder.build().unwrap()
}

/// A record whose flush has failed for lack of a file descriptor; there are some again.
async fn appended_without_descriptors(storage: &SimStorage, world: &World) -> Appended {
    storage.set_out_of_descriptors(true);
    let appended = world.partition().append(produced(0, "a"), true, Origin::Client).unwrap();
    assert!(!appended.committed);
    while world.flushes.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(world.manager.dirs().offline_reason(), None);
    assert_eq!(world.partition().high_watermark(), Offset::ZERO);
    storage.set_out_of_descriptors(false);
    appended
}

#[tokio::test]
async fn a_flush_without_file_descriptors_is_tried_again() {
    let storage = Arc::new(SimStorage::new(10));
    let world = open(&storage, 1);
    let appended = appended_without_descriptors(&storage, &world).await;
    let partition = world.partition();
    acknowledged(&partition, &appended).await.unwrap();
    assert_eq!(read(&partition), ["a"]);
}

#[tokio::test]
async fn a_repetition_of_what_is_not_committed_asks_for_the_flush_again() {
    let storage = Arc::new(SimStorage::new(11));
    let world = open(&storage, 1);
    let appended = appended_without_descriptors(&storage, &world).await;
    let partition = world.partition();
    let again = partition.append(produced(0, "a"), true, Origin::Client).unwrap();
    assert!(again.info.duplicate && again.info.last_offset == appended.info.last_offset);
    // Sooner than the flusher tries it by itself.
    tokio::time::timeout(Duration::from_secs(1), partition.committed(&appended)).await.unwrap().unwrap();
}

#[tokio::test]
async fn too_few_replicas_in_sync_refuse_before_anything_is_written() {
    let storage = Arc::new(SimStorage::new(4));
    let world = open(&storage, i64::MAX);
    let partition = world.partition();
    partition.configure(&Settings { min_insync_replicas: 2, ..settings(i64::MAX) });
    let refused = partition.append(batch(&["a"]), true, Origin::Client);
    assert!(matches!(refused, Err(PartitionError::NotEnoughReplicas { in_sync: 1, needed: 2 })));
    assert_eq!(partition.log().log_end_offset(), Offset::ZERO);
    let appended = partition.append(batch(&["b"]), false, Origin::Client).unwrap();
    assert!(!appended.committed);
    assert!(read(&partition).is_empty(), "the high watermark stands still below min.insync.replicas");
    partition.update(leadership(1, 2));
    assert!(read(&partition).is_empty(), "the second one has not been heard yet");
    let fetch = FollowerFetch {
        broker: BrokerId::new(2),
        broker_epoch: BrokerEpoch::new(102),
        log_end: at(1),
        log_start: at(0),
    };
    partition.fetch(Reader::Follower(fetch), &common::position(at(1))).unwrap();
    assert_eq!(read(&partition), ["b"]);
}

#[tokio::test]
async fn epochs_are_compared_and_old_news_change_nothing() {
    let storage = Arc::new(SimStorage::new(5));
    let world = open(&storage, i64::MAX);
    let partition = world.partition();
    partition.append(batch(&["a"]), true, Origin::Client).unwrap();
    partition.update(leadership(2, 1));
    partition.append(batch(&["b"]), true, Origin::Client).unwrap();
    partition.update(leadership(1, 1));
    assert_eq!(partition.leader_epoch(), LeaderEpoch::new(2), "R6");
    let check = |epoch: i32| partition.check_epoch(LeaderEpoch::new(epoch));
    assert!(matches!(check(1), Err(PartitionError::FencedLeaderEpoch { .. })));
    assert!(matches!(check(3), Err(PartitionError::UnknownLeaderEpoch { .. })));
    assert!(check(2).is_ok() && check(-1).is_ok());
    let end = partition.end_offset_for_epoch(LeaderEpoch::NONE, LeaderEpoch::new(0)).unwrap();
    assert_eq!(end, Some((LeaderEpoch::new(0), Offset::new(1))));
}

#[tokio::test]
async fn a_waiting_fetch_wakes_for_records_and_for_the_end_of_the_partition() {
    let storage = Arc::new(SimStorage::new(6));
    let world = open(&storage, i64::MAX);
    let partition = world.partition();
    let waiter = FetchWaiter::new(1);
    partition.wait_for_records(&waiter, Awaited::Committed);
    partition.append(batch(&["a"]), true, Origin::Client).unwrap();
    tokio::time::timeout(Duration::from_secs(5), waiter.woken()).await.unwrap();
    let woken = waiter.woken();
    world.manager.remove_topic(TOPIC).unwrap();
    tokio::time::timeout(Duration::from_secs(5), woken).await.unwrap();
    assert!(matches!(partition.append(batch(&["b"]), true, Origin::Client), Err(PartitionError::Deleted)));
    assert!(world.manager.topic("t").is_none());
}

#[tokio::test]
async fn records_are_deleted_up_to_the_high_watermark_and_no_further() {
    let storage = Arc::new(SimStorage::new(7));
    let world = open(&storage, i64::MAX);
    let partition = world.partition();
    partition.append(batch(&["a", "b"]), true, Origin::Client).unwrap();
    let past = partition.delete_records_before(Some(Offset::new(3)));
    assert!(matches!(past, Err(PartitionError::OutOfRange { .. })));
    assert_eq!(partition.delete_records_before(Some(Offset::new(1))).unwrap(), Offset::new(1));
    assert_eq!(partition.delete_records_before(None).unwrap(), Offset::new(2));
}

#[test]
fn a_wide_topic_comes_and_goes_with_all_of_its_files() {
    let storage = Arc::new(SimStorage::new(8));
    let world = open(&storage, i64::MAX);
    let wide = TopicId::new(Uuid::from_u64_pair(8, 8));
    let name = TopicName::new("wide").unwrap();
    let leaderships = |count: usize| (0..count).map(|_| Some(leadership(0, 1))).collect::<Vec<_>>();
    let directories = || {
        let entries = storage.list(Path::new("/data")).unwrap().into_iter();
        entries.filter(|entry| entry.is_dir && entry.name.starts_with("wide")).count()
    };
    world.manager.set_topic(&name, wide, leaderships(200), &settings(i64::MAX), true).unwrap();
    world.manager.set_topic(&name, wide, leaderships(300), &settings(i64::MAX), true).unwrap();
    assert_eq!(directories(), 300);
    let topic = world.manager.topic("wide").unwrap();
    for index in 0..300 {
        let partition = topic.open_partition(index).expect("it is open");
        partition.append(batch(&[&index.to_string()]), true, Origin::Client).unwrap();
        assert_eq!(read(&partition), [index.to_string()]);
    }
    drop(topic);
    world.manager.remove_topic(wide).unwrap();
    assert_eq!(directories(), 0);
}

#[test]
fn a_creation_that_failed_halfway_does_not_spoil_the_name() {
    let name = TopicName::new("u").unwrap();
    let leaderships = || vec![Some(leadership(0, 1)); 3];
    let mut failures = 0;
    for opens in 0..40 {
        let storage = Arc::new(SimStorage::new(12));
        let world = open(&storage, i64::MAX);
        let first = TopicId::new(Uuid::from_u64_pair(8, 8));
        storage.refuse_open_after(Some(opens));
        let set = world.manager.set_topic(&name, first, leaderships(), &settings(i64::MAX), true);
        failures += usize::from(set.is_err());
        storage.refuse_open_after(None);
        assert_eq!(world.manager.dirs().offline_reason(), None, "after {opens}");
        world.manager.remove_topic(first).unwrap();
        assert!(
            world.manager.dirs().all()[0].logs().iter().all(|log| log.topic_id() == TOPIC),
            "after {opens}"
        );
        let second = TopicId::new(Uuid::from_u64_pair(8, 9));
        world.manager.set_topic(&name, second, leaderships(), &settings(i64::MAX), true).unwrap();
        let topic = world.manager.topic("u").unwrap();
        for index in 0..3 {
            let partition = topic.partition(index).unwrap().unwrap();
            partition.append(batch(&["a"]), true, Origin::Client).unwrap();
        }
    }
    assert!(failures > 3 && failures < 40, "{failures}");
}

#[test]
fn the_files_of_another_topic_are_not_taken_over() {
    let storage = Arc::new(SimStorage::new(9));
    let world = open(&storage, i64::MAX);
    let id = TopicPartition::new(TopicName::new("u").unwrap(), 0);
    let foreign = world.manager.dirs().create(&id, TopicId::random(), LogConfig::default()).unwrap();
    let own = TopicId::new(Uuid::from_u64_pair(8, 8));
    let set =
        world.manager.set_topic(&id.topic, own, vec![Some(leadership(0, 1))], &settings(i64::MAX), true);
    assert!(matches!(set, Err(PartitionError::Storage(_))), "{set:?}");
    let topic = world.manager.topic("u").unwrap();
    assert!(matches!(topic.partition(0), Err(PartitionError::Storage(_))));
    assert_eq!(foreign.log_end_offset(), Offset::ZERO);
}
