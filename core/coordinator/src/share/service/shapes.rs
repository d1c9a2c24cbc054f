//! The requests of the state APIs (83 to 87), as those send them who lead partitions.

use towpath_wire::share_group_records::StateBatch;
use towpath_wire::{
    DeleteShareGroupStateRequest, DeleteShareGroupStateResponse, ErrorCode, InitializeShareGroupStateRequest,
    InitializeShareGroupStateResponse, ReadShareGroupStateRequest, ReadShareGroupStateResponse,
    ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse, WriteShareGroupStateRequest,
    WriteShareGroupStateResponse, delete_share_group_state as delete,
    initialize_share_group_state as initialize, read_share_group_state as read,
    read_share_group_state_summary as summary, write_share_group_state as write,
};
use uuid::Uuid;

use super::ShareCoordinator;
use crate::share::machine::ShareWrite;
use crate::share::record::key_of;
use crate::share::state::ShareKey;

fn told(error: ErrorCode) -> (i16, Option<String>) {
    (error.code(), Some(format!("The share coordinator refuses: {error}.")))
}

fn outcome(result: Result<(), ErrorCode>) -> (i16, Option<String>) {
    result.map_or_else(told, |()| (ErrorCode::None.code(), None))
}

/// The name of a share partition in a request.
fn key(group: &str, topic: Uuid, partition: i32) -> Result<ShareKey, ErrorCode> {
    if group.is_empty() || topic.is_nil() || partition < 0 {
        return Err(ErrorCode::InvalidRequest);
    }
    Ok(key_of(group, topic, partition))
}

impl ShareCoordinator {
    /// Serves InitializeShareGroupState.
    pub async fn serve_initialize(
        &self,
        request: InitializeShareGroupStateRequest,
    ) -> InitializeShareGroupStateResponse {
        let mut response = InitializeShareGroupStateResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                let result = match key(&request.group_id, topic.topic_id, asked.partition) {
                    Ok(key) => self.initialize(key, asked.state_epoch, asked.start_offset).await,
                    Err(error) => Err(error),
                };
                let (error_code, error_message) = outcome(result);
                let partition = asked.partition;
                partitions.push(initialize::PartitionResult { partition, error_code, error_message });
            }
            response.results.push(initialize::InitializeStateResult { topic_id: topic.topic_id, partitions });
        }
        response
    }

    /// Serves ReadShareGroupState.
    pub async fn serve_read(&self, request: ReadShareGroupStateRequest) -> ReadShareGroupStateResponse {
        let mut response = ReadShareGroupStateResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                let result = match key(&request.group_id, topic.topic_id, asked.partition) {
                    Ok(key) => self.read(key, asked.leader_epoch).await,
                    Err(error) => Err(error),
                };
                let partition = asked.partition;
                partitions.push(match result {
                    Ok(state) => read::PartitionResult {
                        partition,
                        state_epoch: state.summary.state_epoch,
                        start_offset: state.summary.start_offset,
                        state_batches: state.batches.iter().map(to_read).collect(),
                        ..read::PartitionResult::default()
                    },
                    Err(error) => {
                        let (error_code, error_message) = told(error);
                        read::PartitionResult {
                            partition,
                            error_code,
                            error_message,
                            ..read::PartitionResult::default()
                        }
                    }
                });
            }
            response.results.push(read::ReadStateResult { topic_id: topic.topic_id, partitions });
        }
        response
    }

    /// Serves WriteShareGroupState.
    pub async fn serve_write(&self, request: WriteShareGroupStateRequest) -> WriteShareGroupStateResponse {
        let mut response = WriteShareGroupStateResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                let written = ShareWrite {
                    state_epoch: asked.state_epoch,
                    leader_epoch: asked.leader_epoch,
                    start_offset: asked.start_offset,
                    delivery_complete_count: asked.delivery_complete_count,
                    batches: asked.state_batches.iter().map(from_write).collect(),
                };
                let result = match key(&request.group_id, topic.topic_id, asked.partition) {
                    Ok(key) => self.write(key, &written).await,
                    Err(error) => Err(error),
                };
                let (error_code, error_message) = outcome(result);
                let partition = asked.partition;
                partitions.push(write::PartitionResult { partition, error_code, error_message });
            }
            response.results.push(write::WriteStateResult { topic_id: topic.topic_id, partitions });
        }
        response
    }

    /// Serves DeleteShareGroupState.
    pub async fn serve_delete(&self, request: DeleteShareGroupStateRequest) -> DeleteShareGroupStateResponse {
        let mut response = DeleteShareGroupStateResponse::default();
        for topic in request.topics {
            let mut partitions = Vec::new();
            for asked in topic.partitions {
                let result = match key(&request.group_id, topic.topic_id, asked.partition) {
                    Ok(key) => self.delete(key).await,
                    Err(error) => Err(error),
                };
                let (error_code, error_message) = outcome(result);
                let partition = asked.partition;
                partitions.push(delete::PartitionResult { partition, error_code, error_message });
            }
            response.results.push(delete::DeleteStateResult { topic_id: topic.topic_id, partitions });
        }
        response
    }

    /// Serves ReadShareGroupStateSummary.
    #[must_use]
    pub fn serve_summary(
        &self,
        request: &ReadShareGroupStateSummaryRequest,
    ) -> ReadShareGroupStateSummaryResponse {
        let partition = |topic: Uuid, partition: i32| {
            let found = key(&request.group_id, topic, partition).and_then(|key| self.summary(&key));
            match found {
                Ok(summary) => summary::PartitionResult {
                    partition,
                    state_epoch: summary.map_or(-1, |summary| summary.state_epoch),
                    leader_epoch: summary.map_or(-1, |summary| summary.leader_epoch),
                    start_offset: summary.map_or(-1, |summary| summary.start_offset),
                    delivery_complete_count: summary.map_or(-1, |summary| summary.delivery_complete_count),
                    ..summary::PartitionResult::default()
                },
                Err(error) => {
                    let (error_code, error_message) = told(error);
                    summary::PartitionResult {
                        partition,
                        error_code,
                        error_message,
                        ..summary::PartitionResult::default()
                    }
                }
            }
        };
        let topic = |topic: &summary::ReadStateSummaryData| summary::ReadStateSummaryResult {
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .map(|asked| partition(topic.topic_id, asked.partition))
                .collect(),
        };
        ReadShareGroupStateSummaryResponse { results: request.topics.iter().map(topic).collect() }
    }
}

fn to_read(batch: &StateBatch) -> read::StateBatch {
    read::StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    }
}

fn from_write(batch: &write::StateBatch) -> StateBatch {
    StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    }
}
