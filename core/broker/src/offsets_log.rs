//! The offsets topic as the group coordinator sees it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use towpath_coordinator::{LoadedChunk, OffsetsLog, OffsetsLogError, OffsetsRecord, StoredRecord};
use towpath_log::AppendError;
use towpath_record::{BatchBuilder, Codec, Compression, Origin, ValidateError, batches};
use towpath_replica::{Partition, PartitionError};
use towpath_types::Offset;

use crate::state::{BrokerState, OFFSETS_TOPIC};

/// How long an append may take to be committed (`offsets.commit.timeout.ms`).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches `__consumer_offsets` through the broker's partitions. Weak, because the broker holds the coordinator.
pub(crate) struct BrokerOffsetsLog {
    broker: Weak<BrokerState>,
}

impl BrokerOffsetsLog {
    pub(crate) fn new(broker: &Arc<BrokerState>) -> Self {
        Self { broker: Arc::downgrade(broker) }
    }

    fn broker(&self) -> Result<Arc<BrokerState>, OffsetsLogError> {
        self.broker.upgrade().ok_or_else(|| OffsetsLogError::Storage("the broker is gone".into()))
    }

    fn partition(&self, partition: i32) -> Result<Arc<Partition>, OffsetsLogError> {
        let topic = self.broker()?.replicas.topic(OFFSETS_TOPIC);
        let topic = topic.ok_or(OffsetsLogError::UnknownPartition { partition })?;
        topic
            .partition(partition)
            .map_err(|error| OffsetsLogError::Storage(error.into()))?
            .ok_or(OffsetsLogError::UnknownPartition { partition })
    }
}

fn append_error(partition: i32, error: PartitionError, bytes: usize) -> OffsetsLogError {
    match error {
        PartitionError::NotLeader | PartitionError::Deleted => OffsetsLogError::NotLeader { partition },
        PartitionError::NotEnoughReplicas { .. } => OffsetsLogError::NotEnoughReplicas,
        PartitionError::Append(AppendError::Invalid(ValidateError::TooLarge { .. }))
        | PartitionError::Append(AppendError::LargerThanSegment { .. }) => {
            OffsetsLogError::TooLarge { bytes }
        }
        error => OffsetsLogError::Storage(error.into()),
    }
}

#[async_trait]
impl OffsetsLog for BrokerOffsetsLog {
    fn partition_count(&self) -> Option<i32> {
        let topic = self.broker.upgrade()?.replicas.topic(OFFSETS_TOPIC)?;
        i32::try_from(topic.partition_count()).ok().filter(|count| *count > 0)
    }

    async fn ensure_topic(&self) -> Result<(), OffsetsLogError> {
        let broker = self.broker()?;
        broker.auto_create(OFFSETS_TOPIC).await.map_err(|error| OffsetsLogError::Storage(error.into()))
    }

    fn is_leader(&self, partition: i32) -> bool {
        let topic = self.broker.upgrade().and_then(|broker| broker.replicas.topic(OFFSETS_TOPIC));
        topic.is_some_and(|topic| topic.leads(partition))
    }

    async fn append(&self, partition: i32, records: &[OffsetsRecord]) -> Result<(), OffsetsLogError> {
        let log = self.partition(partition)?;
        let bytes: usize = records.iter().map(OffsetsRecord::size_in_bytes).sum();
        let too_large = |_| OffsetsLogError::TooLarge { bytes };
        let mut builder = BatchBuilder::new(Codec::from(Compression::None));
        for record in records {
            builder
                .append(record.timestamp_ms, Some(&record.key), record.value.as_deref(), &[])
                .map_err(too_large)?;
        }
        let batch = builder.build().map_err(too_large)?;
        let appended = log
            .append(batch, true, Origin::Coordinator)
            .map_err(|error| append_error(partition, error, bytes))?;
        if appended.committed {
            return Ok(());
        }
        match tokio::time::timeout(COMMIT_TIMEOUT, log.committed(&appended)).await {
            Ok(result) => result.map_err(|error| append_error(partition, error, bytes)),
            Err(_) => Err(OffsetsLogError::TimedOut),
        }
    }

    async fn read(
        &self,
        partition: i32,
        from: Offset,
        bytes_max: usize,
    ) -> Result<LoadedChunk, OffsetsLogError> {
        let broker = self.broker()?;
        let topic = broker.replicas.topic(OFFSETS_TOPIC);
        let topic = topic.ok_or(OffsetsLogError::UnknownPartition { partition })?;
        let Some(log) = topic.open_partition(partition) else {
            if broker.cluster().is_some() {
                // In a cluster all have files: these could not be made or opened.
                return Err(OffsetsLogError::NotLeader { partition });
            }
            // No files yet: nothing was ever written.
            return Ok(LoadedChunk { records: Vec::new(), next_offset: Offset::ZERO, at_end: true });
        };
        let task = tokio::task::spawn_blocking(move || read(&log, from, bytes_max));
        task.await.map_err(|error| OffsetsLogError::Storage(error.into()))?
    }
}

fn read(partition: &Partition, from: Offset, bytes_max: usize) -> Result<LoadedChunk, OffsetsLogError> {
    let log = partition.log();
    let end = log.log_end_offset();
    let from = from.max(log.log_start_offset());
    let mut chunk = LoadedChunk { records: Vec::new(), next_offset: from, at_end: from >= end };
    if chunk.at_end {
        return Ok(chunk);
    }
    let storage = |error: Box<dyn std::error::Error + Send + Sync>| OffsetsLogError::Storage(error);
    let data = log.read(from, bytes_max, end, true).map_err(|error| storage(error.into()))?;
    let bytes = data.into_bytes().map_err(|error| storage(error.into()))?;
    for batch in batches(&bytes) {
        // R7: what cannot be read is an error, never a gap.
        let corrupt = |error: towpath_record::BatchError, at: Offset| OffsetsLogError::Corrupt {
            offset: at.get(),
            reason: error.to_string(),
        };
        let batch = batch.map_err(|error| corrupt(error, chunk.next_offset))?;
        batch.verify_crc().map_err(|error| corrupt(error, batch.base_offset))?;
        chunk.next_offset = batch.next_offset();
        if batch.is_control() {
            continue;
        }
        let records = batch.records().map_err(|error| corrupt(error, batch.base_offset))?;
        for record in &records {
            let record = record.map_err(|error| corrupt(error, batch.base_offset))?;
            if record.offset >= from {
                chunk.records.push(StoredRecord {
                    offset: record.offset,
                    key: record.key.map(|key| records.share(key)),
                    value: record.value.map(|value| records.share(value)),
                });
            }
        }
    }
    if bytes.is_empty() {
        // Compaction has removed what was here up to the end.
        chunk.next_offset = end;
    }
    chunk.at_end = chunk.next_offset >= end;
    Ok(chunk)
}
