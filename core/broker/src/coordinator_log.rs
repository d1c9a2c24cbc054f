//! The topic in which a coordinator keeps what it knows, as the coordinator sees it.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use towpath_coordinator::{
    CoordinatorBatch, CoordinatorLog, CoordinatorLogError, EndMarker, LoadedChunk, LoadedEntry,
    OffsetsRecord, TransactionalProducer,
};
use towpath_log::{AppendError, AppendOptions, Effort, LogConfig, Marker, VerificationGuard};
use towpath_record::{
    BatchBuilder, BatchError, Codec, Compression, ControlType, Origin, RecordBatch, ValidateError, batches,
    control_record,
};
use towpath_replica::{Partition, PartitionError, TopicReplicas};
use towpath_types::{Offset, ProducerEpoch, ProducerId, Term, TopicId};
use towpath_wire::ErrorCode;

use crate::handlers::partition_error_code;
use crate::state::BrokerState;

/// The sequence number of batches without one.
const NO_SEQUENCE: i32 = -1;

/// How long an append may take to be committed (`offsets.commit.timeout.ms`).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reaches an internal topic through the broker's partitions. Weak, because the broker holds the coordinator.
pub(crate) struct BrokerCoordinatorLog {
    broker: Weak<BrokerState>,
    topic: &'static str,
}

impl BrokerCoordinatorLog {
    pub(crate) fn new(broker: &Arc<BrokerState>, topic: &'static str) -> Self {
        Self { broker: Arc::downgrade(broker), topic }
    }

    fn broker(&self) -> Result<Arc<BrokerState>, CoordinatorLogError> {
        self.broker.upgrade().ok_or_else(|| CoordinatorLogError::Storage("the broker is gone".into()))
    }

    fn topic(&self) -> Option<Arc<TopicReplicas>> {
        self.broker.upgrade()?.replicas.topic(self.topic)
    }

    fn partition(&self, partition: i32) -> Result<Arc<Partition>, CoordinatorLogError> {
        self.topic()
            .ok_or(CoordinatorLogError::UnknownPartition { partition })?
            .partition(partition)
            .map_err(|error| CoordinatorLogError::Storage(error.into()))?
            .ok_or(CoordinatorLogError::UnknownPartition { partition })
    }
}

fn build(
    records: &[OffsetsRecord],
    producer: Option<TransactionalProducer>,
) -> Result<Bytes, towpath_record::BuildError> {
    let mut builder = BatchBuilder::new(Codec::from(Compression::None));
    if let Some(producer) = producer {
        // As Kafka's group coordinator writes them: the coordinator keeps their order, not a sequence.
        builder.set_producer(producer.id, producer.epoch, NO_SEQUENCE);
        builder.set_transactional(true);
    }
    for record in records {
        builder.append(record.timestamp_ms, Some(&record.key), record.value.as_deref(), &[])?;
    }
    builder.build()
}

const fn marker_of(marker: &EndMarker) -> Marker {
    Marker {
        producer_id: marker.producer.id,
        producer_epoch: marker.producer.epoch,
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.commit,
        tv2: marker.bumps_epoch,
    }
}

/// Proofs that transactions of producers were verified for offsets that are on their way to the log.
#[derive(Debug, Default)]
pub(crate) struct VerifiedOffsets(Mutex<HashMap<(i32, ProducerId, ProducerEpoch), Kept>>);

/// A proof, and how many requests need it.
#[derive(Debug)]
struct Kept {
    guard: VerificationGuard,
    requests: usize,
}

impl VerifiedOffsets {
    fn get(&self, partition: i32, producer: TransactionalProducer) -> Option<VerificationGuard> {
        self.0.lock().get(&(partition, producer.id, producer.epoch)).map(|kept| kept.guard)
    }

    /// Keeps a proof until the offsets are written, or could not be.
    pub(crate) fn keep(
        &self,
        partition: i32,
        producer: TransactionalProducer,
        guard: VerificationGuard,
    ) -> KeptProof<'_> {
        let key = (partition, producer.id, producer.epoch);
        let mut all = self.0.lock();
        let kept = all.entry(key).or_insert(Kept { guard, requests: 0 });
        kept.guard = guard;
        kept.requests += 1;
        drop(all);
        KeptProof { proofs: self, key }
    }
}

/// A proof that is forgotten with this.
#[derive(Debug)]
pub(crate) struct KeptProof<'a> {
    proofs: &'a VerifiedOffsets,
    key: (i32, ProducerId, ProducerEpoch),
}

impl Drop for KeptProof<'_> {
    fn drop(&mut self) {
        let mut all = self.proofs.0.lock();
        if let Some(kept) = all.get_mut(&self.key) {
            kept.requests -= 1;
            if kept.requests == 0 {
                all.remove(&self.key);
            }
        }
    }
}

fn append_error(partition: i32, error: PartitionError, bytes: usize) -> CoordinatorLogError {
    match error {
        PartitionError::NotLeader | PartitionError::Deleted => CoordinatorLogError::NotLeader { partition },
        PartitionError::NotEnoughReplicas { .. } => CoordinatorLogError::NotEnoughReplicas,
        PartitionError::Append(AppendError::Invalid(ValidateError::TooLarge { .. }))
        | PartitionError::Append(AppendError::LargerThanSegment { .. }) => {
            CoordinatorLogError::TooLarge { bytes }
        }
        // The proof was taken back by a marker that came in between: asked for anew, the coordinator says how it stands.
        PartitionError::Append(AppendError::NotVerified { .. }) => {
            CoordinatorLogError::Refused { code: ErrorCode::CoordinatorLoadInProgress }
        }
        PartitionError::Append(
            AppendError::InvalidTxnState { .. }
            | AppendError::InvalidProducerEpoch { .. }
            | AppendError::TransactionCoordinatorFenced { .. },
        ) => CoordinatorLogError::Refused { code: partition_error_code(&error) },
        error => CoordinatorLogError::Storage(error.into()),
    }
}

#[async_trait]
impl CoordinatorLog for BrokerCoordinatorLog {
    fn partition_count(&self) -> Option<i32> {
        i32::try_from(self.topic()?.partition_count()).ok().filter(|count| *count > 0)
    }

    async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        let broker = self.broker()?;
        broker.auto_create(self.topic).await.map_err(|error| CoordinatorLogError::Storage(error.into()))
    }

    fn batch_bytes_max(&self, partition: i32) -> usize {
        let open = self.topic().and_then(|topic| topic.open_partition(partition));
        let config = open.map_or_else(LogConfig::default, |partition| *partition.log().config());
        config.message_bytes_max.min(usize::try_from(config.segment_bytes).unwrap_or(usize::MAX))
    }

    fn term(&self, partition: i32) -> Option<Term> {
        self.topic()?.term(partition)
    }

    fn has_topic(&self, topic: TopicId) -> bool {
        // Whoever stops knows nothing.
        self.broker.upgrade().is_none_or(|broker| broker.image().topic_by_id(topic).is_some())
    }

    async fn append(
        &self,
        partition: i32,
        term: Term,
        batch: CoordinatorBatch<'_>,
    ) -> Result<(), CoordinatorLogError> {
        let log = self.partition(partition)?;
        let (appended, bytes) = match batch {
            CoordinatorBatch::Records { records, producer } => {
                let bytes = records.iter().map(OffsetsRecord::size_in_bytes).sum();
                let batch = build(records, producer).map_err(|_| CoordinatorLogError::TooLarge { bytes })?;
                let broker = self.broker()?;
                let guard = producer.and_then(|producer| broker.verified_offsets.get(partition, producer));
                let options = AppendOptions { origin: Origin::Coordinator, effort: Effort::Any, guard };
                (log.append_in_term(term, batch, &options), bytes)
            }
            CoordinatorBatch::Marker(marker) => (log.append_marker_in_term(term, &marker_of(&marker)), 0),
        };
        let appended = appended.map_err(|error| append_error(partition, error, bytes))?;
        if appended.committed {
            return Ok(());
        }
        match tokio::time::timeout(COMMIT_TIMEOUT, log.committed(&appended)).await {
            Ok(result) => result.map_err(|error| append_error(partition, error, bytes)),
            Err(_) => Err(CoordinatorLogError::TimedOut),
        }
    }

    async fn read(
        &self,
        partition: i32,
        term: Term,
        from: Offset,
        bytes_max: usize,
    ) -> Result<LoadedChunk, CoordinatorLogError> {
        let is_cluster = self.broker()?.cluster().is_some();
        let topic = self.topic().ok_or(CoordinatorLogError::UnknownPartition { partition })?;
        let Some(log) = topic.open_partition(partition) else {
            if is_cluster {
                // In a cluster all have files: these could not be made or opened.
                return Err(CoordinatorLogError::NotLeader { partition });
            }
            // No files yet: nothing was ever written.
            return Ok(LoadedChunk { entries: Vec::new(), next_offset: Offset::ZERO, at_end: true });
        };
        if log.term() != Some(term) {
            return Err(CoordinatorLogError::NotLeader { partition });
        }
        let task = tokio::task::spawn_blocking(move || read(&log, from, bytes_max));
        task.await.map_err(|error| CoordinatorLogError::Storage(error.into()))?
    }

    async fn committed(&self, partition: i32, term: Term, end: Offset) -> Result<(), CoordinatorLogError> {
        let topic = self.topic().ok_or(CoordinatorLogError::UnknownPartition { partition })?;
        let Some(log) = topic.open_partition(partition).filter(|_| end > Offset::ZERO) else {
            // Nothing was read.
            return Ok(());
        };
        log.committed_before(term, end).await.map_err(|error| append_error(partition, error, 0))
    }
}

fn read(partition: &Partition, from: Offset, bytes_max: usize) -> Result<LoadedChunk, CoordinatorLogError> {
    let log = partition.log();
    let end = log.log_end_offset();
    let from = from.max(log.log_start_offset());
    let mut chunk = LoadedChunk { entries: Vec::new(), next_offset: from, at_end: from >= end };
    if chunk.at_end {
        return Ok(chunk);
    }
    let storage = |error: Box<dyn std::error::Error + Send + Sync>| CoordinatorLogError::Storage(error);
    let data = log.read(from, bytes_max, end, true).map_err(|error| storage(error.into()))?;
    let bytes = data.into_bytes().map_err(|error| storage(error.into()))?;
    for batch in batches(&bytes) {
        // R7: what cannot be read is an error, never a gap.
        let corrupt = |error: BatchError, at: Offset| CoordinatorLogError::Corrupt {
            offset: at.get(),
            reason: error.to_string(),
        };
        let batch = batch.map_err(|error| corrupt(error, chunk.next_offset))?;
        entries(&batch, from, &mut chunk.entries).map_err(|error| corrupt(error, batch.base_offset))?;
        chunk.next_offset = batch.next_offset();
    }
    if bytes.is_empty() {
        // Compaction has removed what was here up to the end.
        chunk.next_offset = end;
    }
    chunk.at_end = chunk.next_offset >= end;
    Ok(chunk)
}

/// What stands in a batch from `from` on.
fn entries(batch: &RecordBatch, from: Offset, entries: &mut Vec<LoadedEntry>) -> Result<(), BatchError> {
    batch.verify_crc()?;
    let producer = TransactionalProducer { id: batch.producer_id, epoch: batch.producer_epoch };
    let records = batch.records()?;
    for record in &records {
        let record = record?;
        if record.offset < from {
            continue;
        }
        let offset = record.offset;
        if !batch.is_control() {
            entries.push(LoadedEntry::Record {
                offset,
                key: record.key.map(|key| records.share(key)),
                value: record.value.map(|value| records.share(value)),
                producer: batch.is_transactional().then_some(producer),
            });
            continue;
        }
        let commit = match control_record(&record)?.control_type {
            ControlType::Commit => true,
            ControlType::Abort => false,
            _ => continue,
        };
        entries.push(LoadedEntry::Marker { offset, producer, commit });
    }
    Ok(())
}
