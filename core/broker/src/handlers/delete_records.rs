//! DeleteRecords: moves the log start offset.

use std::sync::Arc;

use towpath_types::Offset;
use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use towpath_wire::{DeleteRecordsRequest, DeleteRecordsResponse, ErrorCode};

use super::{RequestContext, partition_error_code};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

/// The offset that stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let task = tokio::task::spawn_blocking(move || delete_all(&broker, request));
    match task.await {
        Ok(response) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => DeleteRecordsResponse::default(),
    }
}

fn delete_all(broker: &BrokerState, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics: Vec<DeleteRecordsTopicResult> = request
        .topics
        .into_iter()
        .map(|topic| {
            let is_internal = broker.image().topic(&topic.name).is_some_and(|topic| topic.is_internal());
            let partitions = topic.partitions.iter().map(|asked| {
                let result = if is_internal {
                    Err(ErrorCode::InvalidTopicException)
                } else {
                    delete(broker, &topic.name, asked)
                };
                DeleteRecordsPartitionResult {
                    partition_index: asked.partition_index,
                    low_watermark: result.map_or(-1, Offset::get),
                    error_code: result.err().map_or(0, ErrorCode::code),
                }
            });
            let partitions = partitions.collect();
            DeleteRecordsTopicResult { name: topic.name, partitions }
        })
        .collect();
    // The log start offsets are facts only once they are on disk: a crash must not bring records back.
    if let Err(error) = broker.replicas.checkpoint() {
        tracing::error!(error = %ErrorChain(&error), "the log start offsets cannot be written");
        let partitions = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for partition in partitions.filter(|partition| partition.error_code == 0) {
            partition.error_code = ErrorCode::KafkaStorageError.code();
            partition.low_watermark = -1;
        }
    }
    DeleteRecordsResponse { topics, ..DeleteRecordsResponse::default() }
}

fn delete(broker: &BrokerState, topic: &str, asked: &DeleteRecordsPartition) -> Result<Offset, ErrorCode> {
    let topic = broker.replicas.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = topic.partition(asked.partition_index).map_err(|error| partition_error_code(&error))?;
    let partition = partition.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let offset = (asked.offset != HIGH_WATERMARK).then_some(Offset::new(asked.offset));
    partition.delete_records_before(offset).map_err(|error| partition_error_code(&error))
}
