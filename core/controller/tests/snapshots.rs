//! The metadata log over a simulated disk that loses what was not synced: what is committed comes back, whatever
//! happens, and the log does not grow for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use towpath_controller::{
    Controller, ControllerError, Decision, LocalMetadataLog, MetadataImage, MetadataRecord, PartitionImage,
    RegisterBroker, SnapshotPolicy,
};
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{DirIdentity, Log, LogConfig, LogDir, LogDirOptions, Storage};
use towpath_types::{BrokerEpoch, BrokerId, ProducerId, TopicId, TopicName, TopicPartition};
use uuid::Uuid;

const ROOT: &str = "/data";
const POLICY: SnapshotPolicy = SnapshotPolicy { records_min: 10 };
const BROKER: BrokerId = BrokerId::new(1);

fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join("__cluster_metadata-0").join(name)
}

fn checkpoint(offset: i64) -> PathBuf {
    file(&format!("{offset:020}-0000000000.checkpoint"))
}

/// A node over a simulated disk.
struct Node {
    storage: SimStorage,
    dir: LogDir,
    log: Arc<Log>,
    controller: Controller,
}

impl Node {
    fn open(storage: &SimStorage) -> Result<Self, ControllerError> {
        Self::open_with(storage, POLICY)
    }

    fn open_with(storage: &SimStorage, policy: SnapshotPolicy) -> Result<Self, ControllerError> {
        let options = LogDirOptions {
            identity: DirIdentity { cluster_id: "c".to_owned(), node_id: 1 },
            tail_bytes_max: 0,
        };
        let clock = Arc::new(SimClock::new(1_000));
        let dir = LogDir::open(Arc::new(storage.clone()), clock, Path::new(ROOT), &options)?;
        let (_, failed) = dir.open_all(|_, _| LogConfig::default())?;
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error.into());
        }
        let partition = TopicPartition::new(TopicName::new(LocalMetadataLog::TOPIC).unwrap(), 0);
        let log = match dir.get(&partition) {
            Some(log) => log,
            None => dir.create(&partition, TopicId::new(Uuid::from_u64_pair(0, 1)), LogConfig::default())?,
        };
        let (metadata, image) = LocalMetadataLog::open_with(Arc::clone(&log), policy)?;
        let controller = Controller::new(Box::new(metadata), image);
        Ok(Self { storage: storage.clone(), dir, log, controller })
    }

    fn commit(&self, records: Vec<MetadataRecord>) -> Result<Arc<MetadataImage>, ControllerError> {
        self.controller.change(|_| Decision { records, answer: () }).map(|((), image)| image)
    }

    fn register(&self) -> Result<Arc<MetadataImage>, ControllerError> {
        self.commit(vec![MetadataRecord::RegisterBroker(RegisterBroker::new(
            BROKER,
            Uuid::new_v4(),
            "h".to_owned(),
            9092,
        ))])
    }

    fn kill(self) -> Result<Self, ControllerError> {
        self.storage.kill();
        Self::open(&self.storage)
    }

    fn checkpoints(&self) -> Vec<i64> {
        self.log.checkpoints().unwrap().into_iter().map(|offset| offset.get()).collect()
    }
}

/// The records of a topic with two partitions.
fn topic(name: &str, id: TopicId) -> Vec<MetadataRecord> {
    let partition = |partition| MetadataRecord::Partition {
        topic_id: id,
        partition,
        state: PartitionImage::new(vec![BROKER], vec![BROKER], Some(BROKER)),
    };
    vec![
        MetadataRecord::Topic { name: TopicName::new(name).unwrap(), id, mirror: None },
        partition(0),
        partition(1),
    ]
}

#[test]
fn a_thousand_starts_leave_a_small_log() {
    let storage = SimStorage::new(1);
    let mut node = Node::open(&storage).unwrap();
    let id = TopicId::random();
    node.commit(topic("t", id)).unwrap();
    for start in 0..1_000 {
        node = node.kill().unwrap();
        let image = node.register().unwrap();
        assert_eq!(image.broker(BROKER).unwrap().epoch, BrokerEpoch::new(3 + start));
        let kept = node.log.log_end_offset().get() - node.log.log_start_offset().get();
        assert!(kept <= 21, "{kept} records after {start} starts");
        assert!(node.log.segment_count() <= 4, "{} segments", node.log.segment_count());
        assert!(node.checkpoints().len() <= 2);
    }
    assert_eq!(node.controller.image().topic_by_id(id).unwrap().partitions.len(), 2);
    assert!(storage.used() < 20_000, "{} bytes after a thousand starts", storage.used());
}

#[test]
fn a_snapshot_is_no_smaller_than_what_came_since() {
    let storage = SimStorage::new(1);
    let node = Node::open(&storage).unwrap();
    for index in 0..100 {
        node.commit(topic(&format!("t{index}"), TopicId::random())).unwrap();
    }
    let large = node.checkpoints()[0];
    assert!(large >= 100, "many snapshots on the way up: the last at {large}");
    for _ in 0..100 {
        node.register().unwrap();
    }
    assert_eq!(node.checkpoints()[0], large, "a hundred records are not worth writing hundreds again");
}

#[test]
fn a_broken_snapshot_is_made_up_for_by_the_one_before_it() {
    let storage = SimStorage::new(1);
    let node = Node::open(&storage).unwrap();
    for _ in 0..35 {
        node.register().unwrap();
    }
    let before = node.controller.image();
    assert_eq!(node.checkpoints(), [30, 20]);
    assert_eq!(node.log.log_start_offset().get(), 20);
    storage.flip_bit(&checkpoint(30), 90, 2).unwrap();
    let node = node.kill().unwrap();
    assert_eq!(node.controller.image(), before);
    assert_eq!(node.checkpoints(), [35, 20], "the broken one is gone");
    for _ in 0..10 {
        node.register().unwrap();
    }
    assert_eq!(node.checkpoints(), [45, 35]);
    storage.flip_bit(&checkpoint(45), 90, 2).unwrap();
    storage.flip_bit(&checkpoint(35), 90, 2).unwrap();
    storage.kill();
    drop(node);
    // R7: what is nowhere is not made up.
    let error = Node::open(&storage).err().expect("the records before 35 are gone");
    assert!(matches!(error, ControllerError::Unreadable { offset: 0, .. }), "{error}");
}

#[test]
fn a_log_that_ends_before_its_snapshot_is_refused() {
    let storage = SimStorage::new(1);
    let node = Node::open(&storage).unwrap();
    for _ in 0..12 {
        node.register().unwrap();
    }
    node.dir.close(1).unwrap();
    drop(node);
    for entry in storage.list(file("x").parent().unwrap()).unwrap() {
        if entry.name.ends_with(".log") {
            storage.remove_file(&file(&entry.name)).unwrap();
        }
    }
    storage.kill();
    let error = Node::open(&storage).err().expect("the log is gone");
    assert!(matches!(error, ControllerError::Unreadable { .. }), "{error}");
}

#[test]
fn a_full_disk_stops_changes_and_loses_none() {
    let storage = SimStorage::new(1);
    let node = Node::open(&storage).unwrap();
    for _ in 0..5 {
        node.register().unwrap();
    }
    storage.set_space(Some(storage.used() + 600));
    let mut committed = node.controller.image();
    let error = loop {
        match node.register() {
            Ok(image) => committed = image,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ControllerError::Append(_) | ControllerError::Log(_)), "{error}");
    assert!(node.dir.offline_reason().is_some(), "R14");
    assert!(matches!(node.register(), Err(ControllerError::Offline)));
    storage.set_space(None);
    let node = node.kill().unwrap();
    let image = node.controller.image();
    assert!(image.next_offset() >= committed.next_offset());
    node.register().unwrap();
}

#[test]
fn without_room_for_a_snapshot_the_commit_before_it_counts() {
    let storage = SimStorage::new(1);
    let node = Node::open(&storage).unwrap();
    for _ in 0..9 {
        node.register().unwrap();
    }
    // Enough for the record, not for the snapshot after it.
    storage.set_space(Some(storage.used() + 400));
    let image = node.register().unwrap();
    assert_eq!(image.next_offset().get(), 10);
    assert!(node.dir.offline_reason().is_some(), "R14");
    assert!(node.register().is_err());
    storage.set_space(None);
    let node = node.kill().unwrap();
    assert_eq!(*node.controller.image(), *image);
    assert_eq!(node.checkpoints(), [10], "made up for at the start");
}

#[derive(Debug, Clone)]
enum Step {
    Register,
    CreateTopic,
    Configure,
    DeleteTopic,
    ProducerIds,
    Restart,
    Kill,
    Crash,
    CrashAfter(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Register),
        4 => Just(Step::CreateTopic),
        4 => Just(Step::Configure),
        2 => Just(Step::DeleteTopic),
        2 => Just(Step::ProducerIds),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
        4 => (0u64..40).prop_map(Step::CrashAfter),
    ]
}

fn records(step: &Step, image: &MetadataImage, serial: usize) -> Option<Vec<MetadataRecord>> {
    let oldest = image.topics().next().map(|topic| topic.id);
    match step {
        Step::Register => Some(vec![MetadataRecord::RegisterBroker(RegisterBroker::new(
            BROKER,
            Uuid::from_u128(serial as u128),
            format!("h{serial}"),
            9092,
        ))]),
        Step::CreateTopic => {
            Some(topic(&format!("t{serial}"), TopicId::new(Uuid::from_u128(serial as u128 + 1))))
        }
        Step::Configure => Some(vec![MetadataRecord::TopicConfig {
            topic_id: oldest?,
            name: "retention.ms".to_owned(),
            value: Some(serial.to_string()),
        }]),
        Step::DeleteTopic => Some(vec![MetadataRecord::RemoveTopic { topic_id: oldest? }]),
        Step::ProducerIds => {
            let next = ProducerId::new(image.next_producer_id().get() + 1000);
            Some(vec![MetadataRecord::ProducerIds { broker_id: BROKER, next }])
        }
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// After a crash at any moment the image is the last one that was committed, or the one that was being committed.
    #[test]
    fn what_is_committed_comes_back_from_snapshot_and_log(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let storage = SimStorage::new(seed);
        let mut node = Node::open(&storage).unwrap();
        for (serial, step) in steps.iter().enumerate() {
            let before = node.controller.image();
            let mut after = None;
            let mut committed = false;
            let alive = match (step, records(step, &before, serial)) {
                (_, Some(records)) => {
                    let mut next = (*before).clone();
                    for record in &records {
                        next.apply(next.next_offset(), record).unwrap();
                    }
                    after = Some(next);
                    committed = node.commit(records).is_ok();
                    committed && node.dir.offline_reason().is_none()
                }
                (Step::CrashAfter(operations), None) => {
                    storage.stop_after(*operations);
                    true
                }
                (Step::Restart, None) => {
                    let closed = node.dir.close(1);
                    storage.kill();
                    let crashed = closed.is_err();
                    if crashed {
                        storage.crash();
                    }
                    node = Node::open(&storage).unwrap();
                    prop_assert_eq!(&*node.controller.image(), &*before);
                    true
                }
                (Step::Kill, None) => {
                    node = node.kill().unwrap();
                    prop_assert_eq!(&*node.controller.image(), &*before);
                    true
                }
                (Step::Crash, None) => false,
                _ => true,
            };
            if !alive {
                storage.crash();
                node = Node::open(&storage).unwrap();
                let found = node.controller.image();
                let in_flight = after.as_ref().is_some_and(|after| *after == *found);
                let is_right = in_flight || (*found == *before && !committed);
                prop_assert!(is_right, "after {step:?}: {found:?}\nbefore: {before:?}");
            }
            if node.dir.offline_reason().is_none() {
                prop_assert!(node.checkpoints().len() <= 3);
            }
        }
        let last = node.controller.image();
        storage.crash();
        let node = Node::open_with(&storage, SnapshotPolicy::default()).unwrap();
        prop_assert_eq!(&*node.controller.image(), &*last);
    }
}
