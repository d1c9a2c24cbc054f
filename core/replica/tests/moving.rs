//! Moving a replica between two directories while it is written to, over a disk that stops at every point and loses what
//! was not synced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{LAG_MS, TOPIC, TestClock, at, batch, brokers, leadership, settings};
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{Clock, DirIdentity, LogConfig, LogDir, LogDirOptions, Storage};
use towpath_record::{Origin, batches};
use towpath_replica::{
    Environment, Flusher, LogDirs, MoveStep, Partition, PartitionError, ReplicaManager, ReplicaSettings,
    Settings,
};
use towpath_types::{BrokerId, Rules, TopicName, TopicPartition};

const PATHS: [&str; 2] = ["/first", "/second"];

/// A broker with two directories, whose disk does only what the test lets it do.
struct World {
    manager: ReplicaManager,
    flusher: Arc<Flusher>,
}

fn id() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), 0)
}

fn small() -> Settings {
    let log = LogConfig { segment_bytes: 400, index_interval_bytes: 64, ..LogConfig::default() };
    Settings { log, ..settings(1) }
}

impl World {
    fn open(storage: &SimStorage) -> Result<Self, Box<dyn std::error::Error>> {
        let options = LogDirOptions {
            identity: DirIdentity { cluster_id: "c".to_owned(), node_id: 1 },
            tail_bytes_max: 1 << 20,
        };
        let mut dirs = Vec::new();
        for path in PATHS {
            let storage: Arc<dyn Storage> = Arc::new(storage.clone());
            let wall: Arc<dyn Clock> = Arc::new(SimClock::new(0));
            let dir = Arc::new(LogDir::open(storage, wall, Path::new(path), &options)?);
            let (_, failed) = dir.open_all(|_, _| small().log)?;
            if let Some((_, error)) = failed.into_iter().next() {
                return Err(error.into());
            }
            dirs.push(dir);
        }
        let dirs = LogDirs::new(dirs.remove(0), dirs, Vec::new());
        dirs.settle_moves()?;
        let flusher = Arc::new(Flusher::manual());
        let environment = Environment::new(BrokerId::new(1), LAG_MS, Arc::clone(&flusher));
        let environment = Arc::new(environment.simulated(Arc::new(TestClock::default()), Rules::ALL));
        let manager = ReplicaManager::new(ReplicaSettings { dirs: Arc::new(dirs), environment });
        manager.set_brokers(brokers());
        Ok(Self { manager, flusher })
    }

    /// Broker 1 leads, alone.
    fn lead(&self, epoch: i32) -> Result<(), PartitionError> {
        let name = TopicName::new("t").unwrap();
        self.manager.set_topic(&name, TOPIC, vec![Some(leadership(epoch, 1))], &small(), true)
    }

    fn partition(&self) -> Arc<Partition> {
        self.manager.topic("t").unwrap().partition(0).unwrap().unwrap()
    }

    /// Appends a record; whether it is acknowledged.
    fn append(&self, value: &str) -> Result<bool, PartitionError> {
        let partition = self.manager.topic("t").unwrap().partition(0)?.unwrap();
        let appended = partition.append(batch(&[value]), true, Origin::Client)?;
        self.flusher.flush_queued();
        Ok(partition.high_watermark() > appended.info.last_offset)
    }

    fn begin_move(&self, to: usize) -> Result<(), PartitionError> {
        let topic = self.manager.topic("t").unwrap();
        self.manager.move_replica(&topic, 0, &self.manager.dirs().all()[to])
    }

    /// In which directories the partition is.
    fn places(&self) -> Vec<usize> {
        let dirs = self.manager.dirs().all();
        (0..dirs.len()).filter(|at| dirs[*at].get(&id()).is_some()).collect()
    }
}

/// Writes while the replica moves to `to`, until it is there or the disk stops; returns what was acknowledged.
fn write_and_move(world: &World, to: usize, next: &mut u32, acknowledged: &mut Vec<String>) -> bool {
    let mut write = |acknowledged: &mut Vec<String>| {
        let value = next.to_string();
        *next += 1;
        match world.append(&value) {
            Ok(true) => acknowledged.push(value),
            Ok(false) => {}
            Err(_) => return false,
        }
        true
    };
    for _ in 0..3 {
        if !write(acknowledged) {
            return false;
        }
    }
    if world.begin_move(to).is_err() {
        return false;
    }
    for attempt in 0..60 {
        let Some(moving) = world.manager.moves().into_iter().next() else { return true };
        match world.manager.advance_move(&moving, attempt, 0) {
            Ok(MoveStep::Moved) => return true,
            Ok(MoveStep::Copied(_) | MoveStep::Flushed | MoveStep::Waiting) => {
                if attempt < 4 && !write(acknowledged) {
                    return false;
                }
            }
            Ok(MoveStep::GivenUp) | Err(_) => return false,
        }
    }
    panic!("the move does not end");
}

/// All records, segment by segment.
fn read_all(partition: &Arc<Partition>) -> Vec<String> {
    let log = partition.log();
    let (mut from, mut found) = (log.log_start_offset(), Vec::new());
    while from < log.log_end_offset() {
        let bytes = log.read(from, 1 << 20, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= from {
                    found.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
                }
            }
            from = batch.next_offset();
        }
    }
    found
}

/// What was acknowledged is there, in order, and nothing twice.
fn check(world: &World, acknowledged: &[String], context: &str) {
    let found = read_all(&world.partition());
    let numbers: Vec<u32> = found.iter().map(|value| value.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{context}: {found:?}");
    for value in acknowledged {
        assert!(found.contains(value), "{context}: {value} of {acknowledged:?} is gone: {found:?}");
    }
}

#[test]
fn a_replica_moves_there_and_back_while_it_is_written_to() {
    let storage = SimStorage::new(1);
    let world = World::open(&storage).unwrap();
    world.lead(1).unwrap();
    let (mut next, mut acknowledged) = (0, Vec::new());
    assert_eq!(world.places(), [0]);
    for to in [1, 0, 1] {
        let before = world.partition();
        assert!(write_and_move(&world, to, &mut next, &mut acknowledged));
        assert_eq!(world.places(), [to]);
        assert!(world.manager.moves().is_empty());
        check(&world, &acknowledged, "moved");
        assert!(!Arc::ptr_eq(&before, &world.partition()));
        assert!(matches!(
            before.append(batch(&["lost"]), true, Origin::Client),
            Err(PartitionError::NotLeader)
        ));
        assert!(world.append(&next.to_string()).unwrap(), "it goes on");
        next += 1;
        assert!(world.partition().log().dir().starts_with(PATHS[to]));
    }
    // Where it is already, nothing moves.
    world.begin_move(1).unwrap();
    assert!(world.manager.moves().is_empty());
    world.manager.close(1).unwrap();
    storage.kill();
    let world = World::open(&storage).unwrap();
    world.lead(1).unwrap();
    assert_eq!(world.places(), [1]);
    check(&world, &acknowledged, "after a restart");
}

#[test]
fn new_partitions_go_where_there_are_the_fewest() {
    let storage = SimStorage::new(2);
    let world = World::open(&storage).unwrap();
    let leaderships = || vec![Some(leadership(1, 1)); 5];
    let name = |name: &str| TopicName::new(name).unwrap();
    world.manager.set_topic(&name("a"), TOPIC, leaderships(), &small(), true).unwrap();
    let counts = || world.manager.dirs().all().iter().map(|dir| dir.partition_count()).collect::<Vec<_>>();
    assert_eq!(counts(), [3, 2]);
    let other = towpath_types::TopicId::random();
    world.manager.set_topic(&name("b"), other, leaderships(), &small(), true).unwrap();
    assert_eq!(counts(), [5, 5]);
    world.manager.remove_topic(TOPIC).unwrap();
    assert_eq!(counts().iter().sum::<usize>(), 5);
}

#[test]
fn a_copy_begins_where_the_log_does_and_follows_what_is_deleted() {
    let storage = SimStorage::new(3);
    let world = World::open(&storage).unwrap();
    world.lead(1).unwrap();
    for value in 0..20 {
        world.append(&value.to_string()).unwrap();
    }
    world.partition().delete_records_before(Some(at(7))).unwrap();
    world.begin_move(1).unwrap();
    let step = || {
        let moving = world.manager.moves().remove(0);
        world.manager.advance_move(&moving, 3, 0).unwrap()
    };
    assert!(matches!(step(), MoveStep::Copied(_)));
    world.partition().delete_records_before(Some(at(9))).unwrap();
    while step() != MoveStep::Moved {}
    let partition = world.partition();
    assert_eq!((partition.log().log_start_offset(), partition.log().log_end_offset()), (at(9), at(20)));
    assert_eq!(partition.high_watermark(), at(20));
    assert_eq!(read_all(&partition).len(), 11);
}

#[test]
fn what_is_deleted_while_it_moves_leaves_nothing() {
    let storage = SimStorage::new(4);
    let world = World::open(&storage).unwrap();
    world.lead(1).unwrap();
    world.append("0").unwrap();
    world.begin_move(1).unwrap();
    let moving = world.manager.moves().remove(0);
    world.manager.remove_topic(TOPIC).unwrap();
    assert_eq!(world.manager.advance_move(&moving, 3, 0).unwrap(), MoveStep::GivenUp);
    assert!(world.manager.moves().is_empty() && world.places().is_empty());
}

/// The disk stops after every number of operations that a move takes; then the power goes, or only the process.
#[test]
fn a_move_survives_a_crash_at_every_point() {
    let mut ended = 0;
    for operations in 0.. {
        // A few points after the end as well.
        if ended > 8 {
            assert!(operations > 40, "a move takes more than that");
            return;
        }
        for seed in 0..2 {
            let storage = SimStorage::new(operations * 17 + seed);
            let world = World::open(&storage).unwrap();
            world.lead(1).unwrap();
            let (mut next, mut acknowledged) = (0, Vec::new());
            for _ in 0..4 {
                assert!(world.append(&next.to_string()).unwrap());
                acknowledged.push(next.to_string());
                next += 1;
            }
            storage.stop_after(operations);
            ended += u32::from(write_and_move(&world, 1, &mut next, &mut acknowledged));
            if seed % 2 == 0 {
                storage.crash()
            } else {
                storage.kill()
            }
            drop(world);
            let context = format!("after {operations} operations, seed {seed}");
            let world = World::open(&storage).unwrap_or_else(|error| panic!("{context}: {error}"));
            // Whoever stopped without order leads in a new epoch.
            world.lead(2).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(world.places().len(), 1, "{context}");
            check(&world, &acknowledged, &context);
            // What was begun can be ended, in either direction.
            for to in [1, 0] {
                assert!(write_and_move(&world, to, &mut next, &mut acknowledged), "{context}");
                assert_eq!(world.places(), [to], "{context}");
                check(&world, &acknowledged, &context);
            }
        }
    }
}

/// Whatever fails once the copy has taken the partition's place: the broker hears that it has.
#[test]
fn what_fails_after_the_partition_has_moved_does_not_undo_it() {
    let (mut moved, mut left_behind) = (0, 0);
    for operations in 0..120 {
        let storage = SimStorage::new(operations);
        let world = World::open(&storage).unwrap();
        world.lead(1).unwrap();
        assert!(world.append("0").unwrap());
        world.begin_move(1).unwrap();
        let moving = world.manager.moves().remove(0);
        let before = world.partition();
        storage.stop_after(operations);
        let step = world.manager.advance_move(&moving, 3, 0);
        let is_other = !Arc::ptr_eq(&before, &world.partition());
        assert_eq!(is_other, matches!(step, Ok(MoveStep::Moved)), "after {operations} operations: {step:?}");
        storage.kill();
        left_behind += u32::from(is_other && storage.list(&Path::new(PATHS[0]).join("t-0")).is_ok());
        moved += u32::from(is_other);
        drop(world);
        let world = World::open(&storage).unwrap();
        world.lead(2).unwrap();
        // Where the process ended in between, the old place has not gone on, and the new one comes in its place.
        assert!(
            world.places() == [1] || (!is_other && world.places() == [0]),
            "after {operations} operations"
        );
        check(&world, &["0".to_owned()], "after a start");
    }
    assert!(moved > 20 && left_behind > 0, "{moved} {left_behind}");
}
