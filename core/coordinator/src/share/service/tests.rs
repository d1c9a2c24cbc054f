//! The driver over a log in memory that can be read when the test says so.

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use towpath_types::{LeaderEpoch, Offset, Term};

use super::*;
use crate::log::{CoordinatorBatch, LoadedChunk, LoadedEntry};
use crate::service::PartitionState;

const HOUR_MS: i64 = 60 * 60 * 1_000;

struct MemoryLog {
    entries: Mutex<Vec<LoadedEntry>>,
    /// The topics that the cluster has.
    topics: Mutex<BTreeSet<TopicId>>,
    /// One for every read.
    permits: Semaphore,
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    fn partition_count(&self) -> Option<i32> {
        Some(1)
    }

    async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        Ok(())
    }

    fn batch_bytes_max(&self, _: i32) -> usize {
        1024 * 1024
    }

    fn term(&self, _: i32) -> Option<Term> {
        Some(Term { leader_epoch: LeaderEpoch::new(0), number: 1 })
    }

    async fn append(&self, _: i32, _: Term, batch: CoordinatorBatch<'_>) -> Result<(), CoordinatorLogError> {
        let CoordinatorBatch::Records { records, .. } = batch else { panic!("no transactions") };
        let mut entries = self.entries.lock();
        for record in records {
            let offset = Offset::new(entries.len() as i64);
            let (key, value) = (Some(record.key.clone()), record.value.clone());
            entries.push(LoadedEntry::Record { offset, key, value, producer: None });
        }
        Ok(())
    }

    async fn read(
        &self,
        _: i32,
        _: Term,
        from: Offset,
        _: usize,
    ) -> Result<LoadedChunk, CoordinatorLogError> {
        self.permits.acquire().await.unwrap().forget();
        let entries = self.entries.lock();
        Ok(LoadedChunk {
            entries: entries[from.get() as usize..].to_vec(),
            next_offset: Offset::new(entries.len() as i64),
            at_end: true,
        })
    }

    fn has_topic(&self, topic: TopicId) -> bool {
        self.topics.lock().contains(&topic)
    }

    async fn committed(&self, _: i32, _: Term, _: Offset) -> Result<(), CoordinatorLogError> {
        Ok(())
    }
}

struct At(i64);

impl Clock for At {
    fn now_ms(&self) -> i64 {
        self.0
    }
}

fn id(topic: u128) -> TopicId {
    TopicId::new(uuid::Uuid::from_u128(topic))
}

fn key(topic: u128) -> ShareKey {
    ShareKey { group: "g".into(), topic: id(topic), partition: 0 }
}

fn coordinator(log: &Arc<MemoryLog>, now_ms: i64) -> ShareCoordinator {
    let log: Arc<dyn CoordinatorLog> = Arc::clone(log) as _;
    let shares = ShareCoordinator::with_clock(ShareStateConfig::default(), log, Arc::new(At(now_ms)));
    shares.elected(0);
    shares
}

async fn active(shares: &ShareCoordinator) {
    for _ in 0..10_000 {
        if shares.status().iter().all(|status| status.state == PartitionState::Active) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("{:?}", shares.status());
}

/// The topics whose states there are.
fn known(shares: &ShareCoordinator) -> Vec<u128> {
    (1..=4).filter(|topic| shares.summary(&key(*topic)).unwrap().is_some()).collect()
}

#[tokio::test(start_paused = true)]
async fn states_of_topics_that_are_gone_are_forgotten_with_loading() {
    let topics = Mutex::new([id(1), id(2)].into());
    let log = Arc::new(MemoryLog { entries: Mutex::default(), topics, permits: Semaphore::new(1) });
    let shares = coordinator(&log, 0);
    active(&shares).await;
    for topic in 1..=3 {
        assert_eq!(shares.initialize(key(topic), 0, 0).await, Ok(()));
    }
    shares.shutdown().await;

    // Of 3 nobody has heard yet; 2 is deleted meanwhile; 4 is as new as what is not known of it.
    let shares = coordinator(&log, 60_000);
    shares.topics_deleted(&[id(2)]);
    log.permits.add_permits(1);
    active(&shares).await;
    assert_eq!(known(&shares), [1, 3]);
    assert_eq!(shares.initialize(key(4), 0, 0).await, Ok(()));
    shares.shutdown().await;

    // By now it can only have been deleted, while nobody led the partition.
    let shares = coordinator(&log, 600_000);
    log.permits.add_permits(1);
    active(&shares).await;
    assert_eq!(known(&shares), [1, 4]);
    shares.shutdown().await;

    log.topics.lock().insert(id(4));
    let shares = coordinator(&log, HOUR_MS);
    log.permits.add_permits(1);
    active(&shares).await;
    assert_eq!(known(&shares), [1, 4]);
    assert!(shares.inner.log.has_topic(id(4)));
}
