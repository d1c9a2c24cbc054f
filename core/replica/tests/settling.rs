//! A partition that is in several directories of its broker, since one of them was out for a while.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at the first surprise"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{LAG_MS, TOPIC, TestClock, batch, brokers, leadership, settings};
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{Clock, DirIdentity, LogDir, LogDirOptions, OpenMode, Storage};
use towpath_record::Origin;
use towpath_replica::{
    Environment, Flusher, LogDirs, MoveStep, Partition, PartitionError, ReplicaManager, ReplicaSettings,
    UnusableDir,
};
use towpath_types::{BrokerId, Rules, TopicId, TopicName, TopicPartition};

const PATHS: [&str; 3] = ["/first", "/second", "/third"];

struct World {
    manager: ReplicaManager,
    flusher: Arc<Flusher>,
}

fn id(partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), partition)
}

fn open_dir(storage: &SimStorage, path: &str) -> Arc<LogDir> {
    let options = LogDirOptions {
        identity: DirIdentity { cluster_id: "c".to_owned(), node_id: 1 },
        tail_bytes_max: 1 << 20,
    };
    let wall: Arc<dyn Clock> = Arc::new(SimClock::new(0));
    let dir = LogDir::open(Arc::new(storage.clone()), wall, Path::new(path), &options).unwrap();
    let (_, failed) = dir.open_all(|_, _| settings(1).log).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    Arc::new(dir)
}

impl World {
    /// The start of a broker some of whose directories may be out, up to where the metadata say that `topic` is what there is.
    fn start(storage: &SimStorage, working: &[usize], out: &[usize], topic: TopicId) -> Self {
        let mut dirs: Vec<_> = working.iter().map(|at| open_dir(storage, PATHS[*at])).collect();
        let unusable =
            out.iter().map(|at| UnusableDir { path: Some(PATHS[*at].into()), reason: "out".to_owned() });
        let dirs = LogDirs::new(dirs.remove(0), dirs, unusable.collect());
        dirs.settle_moves().unwrap();
        dirs.remove_strays(|log| log.topic_id() == topic).unwrap();
        let flusher = Arc::new(Flusher::manual());
        let environment = Environment::new(BrokerId::new(1), LAG_MS, Arc::clone(&flusher));
        let environment = Arc::new(environment.simulated(Arc::new(TestClock::default()), Rules::ALL));
        let manager = ReplicaManager::new(ReplicaSettings { dirs: Arc::new(dirs), environment });
        manager.set_brokers(brokers());
        Self { manager, flusher }
    }

    /// Broker 1 has, and leads, those of the topic's partitions that are `held`.
    fn set(&self, topic: TopicId, epoch: i32, held: &[bool]) {
        let name = TopicName::new("t").unwrap();
        let leaderships = held.iter().map(|held| held.then(|| leadership(epoch, 1))).collect();
        self.manager.set_topic(&name, topic, leaderships, &settings(1), true).unwrap();
    }

    fn try_partition(&self, partition: i32) -> Result<Arc<Partition>, PartitionError> {
        Ok(self.manager.topic("t").unwrap().partition(partition)?.unwrap())
    }

    fn append(&self, partition: i32, value: &str) {
        self.try_partition(partition).unwrap().append(batch(&[value]), true, Origin::Client).unwrap();
        self.flusher.flush_queued();
    }

    fn values(&self, partition: i32) -> Vec<String> {
        let partition = self.try_partition(partition).unwrap();
        let log = partition.log();
        let data = log.read(log.log_start_offset(), 1 << 20, log.log_end_offset(), true).unwrap();
        common::values(&data.into_bytes().unwrap())
    }

    /// In which of the working directories a partition is.
    fn places(&self, partition: i32) -> Vec<PathBuf> {
        let dirs = self.manager.dirs().all().iter();
        dirs.filter(|dir| dir.get(&id(partition)).is_some()).map(|dir| dir.path().to_owned()).collect()
    }

    fn stop(self, storage: &SimStorage) {
        drop(self.manager.close(1));
        storage.kill();
    }
}

fn paths(at: &[usize]) -> Vec<PathBuf> {
    at.iter().map(|at| PathBuf::from(PATHS[*at])).collect()
}

#[test]
fn a_topic_that_was_made_anew_while_a_directory_was_out_wins_by_its_id() {
    let storage = SimStorage::new(1);
    let world = World::start(&storage, &[0, 1], &[], TOPIC);
    world.set(TOPIC, 1, &[true; 4]);
    (0..4).for_each(|partition| world.append(partition, "old"));
    let in_second: Vec<i32> = (0..4).filter(|index| world.places(*index) == paths(&[1])).collect();
    assert_eq!(in_second.len(), 2);
    world.stop(&storage);
    // The second is out; the topic is deleted and made anew.
    let new = TopicId::random();
    let world = World::start(&storage, &[0], &[1], TOPIC);
    world.set(TOPIC, 2, &[true; 4]);
    world.manager.started();
    world.manager.remove_topic(TOPIC).unwrap();
    world.set(new, 1, &[true; 4]);
    (0..4).for_each(|partition| world.append(partition, "new"));
    world.stop(&storage);
    // It is back.
    let world = World::start(&storage, &[0, 1], &[], new);
    world.set(new, 2, &[true; 4]);
    for partition in 0..4 {
        assert_eq!(world.places(partition), paths(&[0]));
        assert_eq!(world.values(partition), ["new"]);
        assert!(!world.manager.topic("t").unwrap().is_offline(partition));
    }
    assert!(!world.manager.dirs().has_offline());
    for index in in_second {
        assert!(
            storage.list(&Path::new(PATHS[1]).join(id(index).to_string())).is_err(),
            "its files are gone"
        );
    }
}

#[test]
fn a_replica_that_was_given_up_with_its_directory_and_came_back_elsewhere_wins() {
    let storage = SimStorage::new(2);
    let world = World::start(&storage, &[0, 1], &[], TOPIC);
    world.set(TOPIC, 1, &[true; 2]);
    (0..2).for_each(|partition| world.append(partition, "old"));
    let lost = (0..2).find(|index| world.places(*index) == paths(&[1])).unwrap();
    world.stop(&storage);
    let world = World::start(&storage, &[0], &[1], TOPIC);
    world.set(TOPIC, 2, &[true; 2]);
    assert!(matches!(world.try_partition(lost), Err(PartitionError::Offline(_))));
    world.manager.started();
    // Another broker has the replica, and then this one again.
    let held: Vec<bool> = (0..2).map(|index| index != lost).collect();
    world.set(TOPIC, 3, &held);
    world.set(TOPIC, 4, &[true; 2]);
    world.append(lost, "new");
    world.append(lost, "newer");
    world.stop(&storage);
    for order in [[0, 1], [1, 0]] {
        // A copy of the disk for each order of the directories.
        let world = World::start(&storage, &order, &[], TOPIC);
        world.set(TOPIC, 5, &[true; 2]);
        assert_eq!(world.places(lost), paths(&[0]));
        assert_eq!(world.values(lost), ["new", "newer"]);
        assert_eq!(world.values(1 - lost), ["old"]);
        world.stop(&storage);
    }
}

/// Of a partition that nobody else has, what was made anew stays empty until the disk is back.
#[test]
fn what_was_made_anew_and_never_used_is_not_taken_for_all_that_there_is() {
    let storage = SimStorage::new(6);
    let world = World::start(&storage, &[0, 1], &[], TOPIC);
    world.set(TOPIC, 1, &[true; 2]);
    (0..2).for_each(|partition| world.append(partition, "all"));
    let lost = (0..2).find(|index| world.places(*index) == paths(&[1])).unwrap();
    world.stop(&storage);
    let world = World::start(&storage, &[0], &[], TOPIC);
    world.manager.dirs().add_unusable(UnusableDir { path: None, reason: "gone".to_owned() });
    assert!(world.manager.dirs().forget_gone());
    world.set(TOPIC, 2, &[true; 2]);
    assert_eq!(world.try_partition(lost).unwrap().log().log_end_offset(), common::at(0));
    world.stop(&storage);
    let world = World::start(&storage, &[0, 1], &[], TOPIC);
    world.set(TOPIC, 3, &[true; 2]);
    assert_eq!((world.places(lost), world.values(lost)), (paths(&[1]), vec!["all".to_owned()]));
}

#[test]
fn where_nothing_tells_which_is_right_only_that_partition_is_offline() {
    let storage = SimStorage::new(3);
    for path in &PATHS[..2] {
        let dir = open_dir(&storage, path);
        let log = dir.create(&id(0), TOPIC, settings(1).log).unwrap();
        log.append_as_leader(batch(&[path]), towpath_types::LeaderEpoch::new(1), Origin::Client).unwrap();
        dir.checkpoint_high_watermarks(&[(id(0), common::at(1))].into()).unwrap();
        dir.close(1).unwrap();
    }
    for _ in 0..2 {
        storage.kill();
        let world = World::start(&storage, &[0, 1], &[], TOPIC);
        world.set(TOPIC, 2, &[true; 2]);
        let topic = world.manager.topic("t").unwrap();
        let error = world.try_partition(0).unwrap_err();
        let PartitionError::Offline(reason) = &error else { panic!("{error:?}") };
        assert!(reason.contains("/first/t-0") && reason.contains("/second/t-0"), "{reason}");
        assert_eq!((topic.is_offline(0), topic.is_offline(1)), (true, false));
        assert!(topic.is_twice(0) && !topic.is_twice(1) && world.manager.dirs().has_offline());
        world.append(1, "of use");
        assert_eq!(world.places(0), paths(&[0, 1]), "nothing is lost");
        world.manager.checkpoint().unwrap();
        world.manager.close(1).unwrap();
    }
    storage.kill();
    // Whoever runs the broker keeps one of them.
    storage.remove_dir_all(Path::new("/first/t-0")).unwrap();
    let world = World::start(&storage, &[0, 1], &[], TOPIC);
    assert_eq!(world.manager.dirs().high_watermark(&id(0)), common::at(1), "what was known of it still is");
    world.set(TOPIC, 3, &[true; 2]);
    assert_eq!(world.values(0), ["/second"]);
    assert!(!world.manager.topic("t").unwrap().is_offline(0));
}

#[test]
fn what_is_in_several_directories_goes_with_its_topic() {
    let storage = SimStorage::new(4);
    for path in &PATHS[..3] {
        let dir = open_dir(&storage, path);
        dir.create(&id(0), TOPIC, settings(1).log).unwrap();
        dir.close(1).unwrap();
    }
    // Kafka's name for a log that it has put aside: nobody looks at it.
    let stray = Path::new(PATHS[0]).join("t-1.0123456789abcdef0123456789abcdef-stray");
    storage.create_dir_all(&stray).unwrap();
    storage.open(&stray.join("partition.metadata"), OpenMode::Create).unwrap();
    storage.kill();
    let world = World::start(&storage, &[0, 1, 2], &[], TOPIC);
    world.set(TOPIC, 1, &[true; 2]);
    assert!(world.try_partition(0).is_err());
    world.append(1, "x");
    world.manager.started();
    world.manager.remove_topic(TOPIC).unwrap();
    assert!(world.places(0).is_empty() && !world.manager.dirs().has_offline());
    let new = TopicId::random();
    world.set(new, 1, &[true]);
    world.append(0, "new");
    assert_eq!((world.places(0).len(), world.values(0)), (1, vec!["new".to_owned()]));
    world.stop(&storage);
    assert_eq!(storage.list(&stray).unwrap().len(), 1);
    let world = World::start(&storage, &[0, 1, 2], &[], TopicId::random());
    assert!(world.places(0).is_empty(), "of no topic that there is");
}

/// The process ends right after the copy was given its name, and the next one does not see the old place.
#[test]
fn what_replaces_a_partition_says_so_until_the_other_disk_is_back() {
    let storage = SimStorage::new(5);
    let world = World::start(&storage, &[0, 1, 2], &[], TOPIC);
    world.set(TOPIC, 1, &[true]);
    world.append(0, "a");
    let from = world.places(0);
    let at = PATHS.iter().position(|path| from == [PathBuf::from(path)]).unwrap();
    let (to, third) = ((at + 1) % 3, (at + 2) % 3);
    let topic = world.manager.topic("t").unwrap();
    world.manager.move_replica(&topic, 0, &world.manager.dirs().all()[to]).unwrap();
    let moving = world.manager.moves().remove(0);
    // As the move does it, but for the deletion of the old one.
    let old = world.manager.dirs().all()[at].get(&id(0)).unwrap();
    let data = old.read(common::at(0), 1 << 20, old.log_end_offset(), true).unwrap().into_bytes().unwrap();
    moving.copy.append_as_follower(&data, towpath_types::LeaderEpoch::new(9)).unwrap();
    moving.to.promote((TOPIC, 0), &old, &world.manager.dirs().all()[at]).unwrap();
    storage.kill();
    drop(world);
    for epoch in 2..4 {
        let world = World::start(&storage, &[to, third], &[at], TOPIC);
        world.set(TOPIC, epoch, &[true]);
        world.append(0, &format!("b{epoch}"));
        world.stop(&storage);
    }
    let world = World::start(&storage, &[0, 1, 2], &[], TOPIC);
    world.set(TOPIC, 5, &[true]);
    assert_eq!(world.places(0), paths(&[to]));
    assert_eq!(world.values(0), ["a", "b2", "b3"]);
    // It is settled, and moves on.
    world
        .manager
        .move_replica(&world.manager.topic("t").unwrap(), 0, &world.manager.dirs().all()[at])
        .unwrap();
    let moving = world.manager.moves().remove(0);
    while world.manager.advance_move(&moving, 3, 0).unwrap() != MoveStep::Moved {}
    assert_eq!(world.values(0), ["a", "b2", "b3"]);
}
