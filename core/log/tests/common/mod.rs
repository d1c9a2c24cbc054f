//! A log directory on a simulated disk, and batches to fill it.
#![allow(dead_code, reason = "every test file uses its own part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{
    AppendError, AppendInfo, DirIdentity, FetchedData, Log, LogConfig, LogDir, LogDirOptions, LogError,
};
use towpath_record::{BatchBuilder, Compression, Origin, batches};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicId, TopicName, TopicPartition};

pub(crate) const ROOT: &str = "/data";
pub(crate) const EPOCH: LeaderEpoch = LeaderEpoch::new(0);

pub(crate) fn partition() -> TopicPartition {
    TopicPartition::new(TopicName::new("t").unwrap(), 0)
}

pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join("t-0").join(name)
}

pub(crate) fn options() -> LogDirOptions {
    let identity = DirIdentity { cluster_id: "c".to_owned(), node_id: 1 };
    LogDirOptions { identity, tail_bytes_max: 1 << 20 }
}

/// A simulated machine with one partition.
pub(crate) struct Machine {
    pub(crate) storage: SimStorage,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) config: LogConfig,
    dir: Option<LogDir>,
}

impl Machine {
    pub(crate) fn new(config: LogConfig) -> Self {
        Self::seeded(config, 1)
    }

    pub(crate) fn seeded(config: LogConfig, seed: u64) -> Self {
        let storage = SimStorage::new(seed);
        let mut machine = Self { storage, clock: Arc::new(SimClock::new(1_000_000)), config, dir: None };
        machine.open().unwrap();
        machine.dir().create(&partition(), TopicId::random(), config).unwrap();
        machine
    }

    pub(crate) fn dir(&self) -> &LogDir {
        self.dir.as_ref().unwrap()
    }

    pub(crate) fn open(&mut self) -> Result<(), LogError> {
        let storage = Arc::new(self.storage.clone());
        let clock = Arc::<SimClock>::clone(&self.clock);
        let dir = LogDir::open(storage, clock, Path::new(ROOT), &options())?;
        let (_, failed) = dir.open_all(|_, _| self.config)?;
        self.dir = Some(dir);
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error))
    }

    pub(crate) fn log(&self) -> Arc<Log> {
        self.dir().get(&partition()).unwrap()
    }

    /// Clean shutdown and start.
    pub(crate) fn restart(&mut self) -> Arc<Log> {
        self.dir().close(7).unwrap();
        self.dir = None;
        self.open().unwrap();
        self.log()
    }

    /// The process is killed and started again.
    pub(crate) fn kill(&mut self) -> Arc<Log> {
        self.storage.kill();
        self.dir = None;
        self.open().unwrap();
        self.log()
    }

    /// Power is lost and comes back.
    pub(crate) fn crash(&mut self) -> Arc<Log> {
        self.storage.crash();
        self.dir = None;
        self.open().unwrap();
        self.log()
    }
}

pub(crate) fn small_segments() -> LogConfig {
    LogConfig { segment_bytes: 1000, index_interval_bytes: 200, ..LogConfig::default() }
}

/// A batch of `count` records with this timestamp; the values say which.
pub(crate) fn batch(count: usize, timestamp: i64, label: &str) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    for index in 0..count {
        let key = format!("k{index}");
        let value = format!("{label}.{index}");
        builder.append(timestamp, Some(key.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn produced(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(ProducerId::new(id), ProducerEpoch::new(epoch), sequence);
    for _ in 0..count {
        builder.append(1_000_000, Some(b"k"), Some(b"v"), &[]).unwrap();
    }
    builder.build().unwrap()
}

pub(crate) fn append(log: &Log, bytes: Bytes) -> Result<AppendInfo, AppendError> {
    log.append_as_leader(bytes, EPOCH, Origin::Client)
}

/// Everything from `from` on, as (offset, value), and the offsets must grow.
pub(crate) fn read_from(log: &Log, from: Offset) -> Vec<(i64, Option<String>)> {
    let mut all = Vec::new();
    let mut next = from;
    while next < log.log_end_offset() {
        let data = log.read(next, 700, log.log_end_offset(), true).unwrap();
        let bytes = data.into_bytes().unwrap();
        if bytes.is_empty() {
            break;
        }
        let mut iterator = batches(&bytes);
        for batch in iterator.by_ref() {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                if record.offset >= from {
                    let value = record.value.map(|value| String::from_utf8(value.to_vec()).unwrap());
                    assert!(all.last().is_none_or(|(last, _)| *last < record.offset.get()));
                    all.push((record.offset.get(), value));
                }
            }
            assert!(batch.next_offset() > next);
            next = batch.next_offset();
        }
        assert_eq!(iterator.remaining(), 0, "whole batches only");
    }
    all
}

pub(crate) fn read_all(log: &Log) -> Vec<(i64, Option<String>)> {
    read_from(log, log.log_start_offset())
}

/// The offsets of the first and last record that a read returns.
pub(crate) fn span(data: FetchedData) -> (i64, i64) {
    let bytes = data.into_bytes().unwrap();
    let all: Vec<_> = batches(&bytes).map(Result::unwrap).collect();
    (all[0].base_offset.get(), all[all.len() - 1].last_offset().get())
}
