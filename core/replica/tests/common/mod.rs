//! Brokers' partitions over simulated disks that lose what was not synced.

#![allow(dead_code, reason = "every test binary uses a part of this")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{Clock, DirIdentity, LogConfig, LogDir, LogDirOptions, Storage};
use towpath_record::{BatchBuilder, Compression, batches};
use towpath_replica::{
    Appended, BrokerView, Brokers, Environment, FetchPosition, Flusher, Isolation, Leadership, LogDirs,
    MonotonicClock, Partition, PartitionError, Reader, ReplicaManager, ReplicaSettings, Settings,
};
use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Rules, TopicId, TopicName};
use uuid::Uuid;

pub(crate) const TOPIC: TopicId = TopicId::new(Uuid::from_u64_pair(7, 7));
/// `replica.lag.time.max.ms`.
pub(crate) const LAG_MS: i64 = 1_000;
/// How long anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that the test moves.
#[derive(Debug, Default)]
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl MonotonicClock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

pub(crate) fn settings(flush_messages: i64) -> Settings {
    Settings { log: LogConfig::default(), min_insync_replicas: 1, flush_messages, flush_ms: i64::MAX }
}

pub(crate) fn ids(all: &[i32]) -> Vec<BrokerId> {
    all.iter().map(|id| BrokerId::new(*id)).collect()
}

pub(crate) fn at(offset: i64) -> Offset {
    Offset::new(offset)
}

/// The state `epoch`, in which broker 1 leads and brokers 1 to `isr` are in sync.
pub(crate) fn leadership(epoch: i32, isr: i32) -> Leadership {
    Leadership {
        leader: Some(BrokerId::new(1)),
        leader_epoch: LeaderEpoch::new(epoch),
        partition_epoch: PartitionEpoch::new(epoch),
        replicas: ids(&[1, 2]),
        isr: (1..=isr).map(BrokerId::new).collect(),
        recovering: false,
        adding: Vec::new(),
    }
}

/// Brokers 1 to 3, in service, the incarnations 101 to 103.
pub(crate) fn brokers() -> Brokers {
    let view = |id: i32| BrokerView { epoch: BrokerEpoch::new(i64::from(100 + id)), is_eligible: true };
    Brokers::new((1..=3).map(|id| (BrokerId::new(id), view(id))))
}

/// One broker.
pub(crate) struct World {
    pub(crate) manager: ReplicaManager,
    pub(crate) flushes: Arc<AtomicUsize>,
    pub(crate) flusher: Arc<Flusher>,
}

impl World {
    /// Opens what is on the disk.
    pub(crate) fn open(
        storage: &Arc<SimStorage>,
        id: i32,
        clock: Arc<dyn MonotonicClock>,
        rules: Rules,
    ) -> Self {
        let options = LogDirOptions {
            identity: DirIdentity { cluster_id: "c".to_owned(), node_id: id },
            tail_bytes_max: 1 << 20,
        };
        let storage: Arc<dyn Storage> = Arc::clone(storage) as Arc<dyn Storage>;
        let wall: Arc<dyn Clock> = Arc::new(SimClock::new(0));
        let dir = Arc::new(LogDir::open(storage, wall, Path::new("/data"), &options).unwrap());
        let (_, failed) = dir.open_all(|_, _| LogConfig::default()).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        let flushes = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&flushes);
        let flusher = Flusher::start(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let flusher = Arc::new(flusher.unwrap());
        let environment = Environment::new(BrokerId::new(id), LAG_MS, Arc::clone(&flusher));
        let environment = Arc::new(environment.simulated(clock, rules));
        let manager = ReplicaManager::new(ReplicaSettings { dirs: Arc::new(LogDirs::one(dir)), environment });
        manager.set_brokers(brokers());
        Self { manager, flushes, flusher }
    }

    pub(crate) fn set(&self, leadership: Leadership, settings: &Settings) {
        let name = TopicName::new("t").unwrap();
        self.manager.set_topic(&name, TOPIC, vec![Some(leadership)], settings, true).unwrap();
    }

    pub(crate) fn partition(&self) -> Arc<Partition> {
        self.manager.topic("t").unwrap().partition(0).unwrap().unwrap()
    }
}

pub(crate) fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for value in values {
        builder.append(0, None, Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn values(bytes: &Bytes) -> Vec<String> {
    let mut values = Vec::new();
    for batch in batches(bytes) {
        for record in &batch.unwrap().records().unwrap() {
            values.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

pub(crate) const fn position(offset: Offset) -> FetchPosition {
    FetchPosition {
        offset,
        current_leader_epoch: LeaderEpoch::NONE,
        last_fetched_epoch: LeaderEpoch::NONE,
        bytes_max: 1 << 20,
        min_one: true,
        isolation: Isolation::ReadUncommitted,
    }
}

/// What a consumer reads, wherever the partition is led.
pub(crate) fn read(partition: &Arc<Partition>) -> Vec<String> {
    let position = position(partition.log().log_start_offset());
    values(&partition.fetch(Reader::AnyReplica, &position).unwrap().data.into_bytes().unwrap())
}

/// All that the log holds.
pub(crate) fn read_all(partition: &Arc<Partition>) -> Vec<String> {
    let log = partition.log();
    let data = log.read(log.log_start_offset(), 1 << 20, log.log_end_offset(), true).unwrap();
    values(&data.into_bytes().unwrap())
}

/// Waits for the ack of an append.
pub(crate) async fn acknowledged(
    partition: &Arc<Partition>,
    appended: &Appended,
) -> Result<(), PartitionError> {
    tokio::time::timeout(PATIENCE, partition.committed(appended)).await.unwrap()
}
