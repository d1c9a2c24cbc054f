//! DeleteRecords: moves the log start offset.

use std::sync::Arc;
use std::time::Duration;

use towpath_replica::Partition;
use towpath_types::Offset;
use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use towpath_wire::{DeleteRecordsRequest, DeleteRecordsResponse, ErrorCode};

use super::{RequestContext, partition_error_code};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Followers that have to follow: a partition, the offset up to which records are gone, and where the answer is.
struct Waiting {
    partition: Arc<Partition>,
    offset: Offset,
    at: (usize, usize),
}

/// How long any request may wait.
const WAIT_MAX: Duration = Duration::from_secs(600);

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = tokio::time::Instant::now() + timeout;
    let task = tokio::task::spawn_blocking(move || delete_all(&broker, request));
    let (mut response, waiting) = match task.await {
        Ok(deleted) => deleted,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return DeleteRecordsResponse::default(),
    };
    for Waiting { partition, offset, at: (topic, index) } in waiting {
        // Until all in sync have followed, a new leader could bring the records back.
        let followed = tokio::time::timeout_at(deadline, partition.deleted_before(offset)).await;
        let results = response.topics.get_mut(topic).map(|topic| &mut topic.partitions);
        let Some(result) = results.and_then(|results| results.get_mut(index)) else { continue };
        let code = match followed {
            Ok(Ok(())) => {
                result.low_watermark = partition.low_watermark().get();
                continue;
            }
            Ok(Err(error)) => partition_error_code(&error),
            Err(_) => ErrorCode::RequestTimedOut,
        };
        *result = failed(result.partition_index, code);
    }
    response
}

fn failed(partition_index: i32, code: ErrorCode) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult { partition_index, low_watermark: -1, error_code: code.code() }
}

fn delete_all(broker: &BrokerState, request: DeleteRecordsRequest) -> (DeleteRecordsResponse, Vec<Waiting>) {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut waiting = Vec::new();
    for (topic_at, topic) in request.topics.into_iter().enumerate() {
        let is_internal = broker.image().topic(&topic.name).is_some_and(|topic| topic.is_internal());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (index, asked) in topic.partitions.iter().enumerate() {
            let result = if is_internal {
                Err(ErrorCode::InvalidTopicException)
            } else {
                delete(broker, &topic.name, asked)
            };
            partitions.push(match result {
                Err(code) => failed(asked.partition_index, code),
                Ok((partition, start)) => {
                    waiting.push(Waiting { partition, offset: start, at: (topic_at, index) });
                    DeleteRecordsPartitionResult {
                        partition_index: asked.partition_index,
                        low_watermark: start.get(),
                        error_code: ErrorCode::None.code(),
                    }
                }
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    // The log start offsets are facts only once they are on disk: a crash must not bring records back.
    if let Err(error) = broker.replicas.checkpoint() {
        tracing::error!(error = %ErrorChain(&error), "the log start offsets cannot be written");
        waiting.clear();
        let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.error_code == 0) {
            *partition = failed(partition.partition_index, ErrorCode::KafkaStorageError);
        }
    }
    (DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }, waiting)
}

fn delete(
    broker: &BrokerState,
    topic: &str,
    asked: &DeleteRecordsPartition,
) -> Result<(Arc<Partition>, Offset), ErrorCode> {
    let topic = broker.replicas.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(asked.partition_index).map_err(|error| partition_error_code(&error))?;
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    // Of a topic that is only compacted nothing may go but what compaction takes.
    if !partition.log().config().delete {
        return Err(ErrorCode::PolicyViolation);
    }
    let offset = (asked.offset != HIGH_WATERMARK).then_some(Offset::new(asked.offset));
    let start = partition.delete_records_before(offset).map_err(|error| partition_error_code(&error))?;
    Ok((partition, start))
}
