//! DescribeProducers (KIP-664): the idempotent and transactional producers that partitions remember.

use std::sync::Arc;

use towpath_log::ProducerSummary;
use towpath_wire::describe_producers::{PartitionResponse, ProducerState, TopicResponse};
use towpath_wire::{DescribeProducersRequest, DescribeProducersResponse, ErrorCode};

use super::{RequestContext, partition_error_code};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.iter().map(|topic| TopicResponse {
        name: topic.name.clone(),
        partitions: topic
            .partition_indexes
            .iter()
            .map(|index| match producers(&broker, &topic.name, *index) {
                Ok(producers) => PartitionResponse {
                    partition_index: *index,
                    active_producers: producers.iter().map(state).collect(),
                    ..PartitionResponse::default()
                },
                Err(code) => PartitionResponse {
                    partition_index: *index,
                    error_code: code.code(),
                    ..PartitionResponse::default()
                },
            })
            .collect(),
    });
    DescribeProducersResponse { topics: topics.collect(), ..DescribeProducersResponse::default() }
}

fn producers(broker: &BrokerState, topic: &str, index: i32) -> Result<Vec<ProducerSummary>, ErrorCode> {
    let replicas = broker.replicas.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let partition = replicas.partition(index).map_err(|error| partition_error_code(&error))?;
    // Any replica tells what it knows, as in Kafka: whoever looks for a hanging transaction may ask each.
    Ok(partition.ok_or(ErrorCode::UnknownTopicOrPartition)?.producers())
}

fn state(summary: &ProducerSummary) -> ProducerState {
    ProducerState {
        producer_id: summary.producer_id.get(),
        producer_epoch: i32::from(summary.producer_epoch.get()),
        last_sequence: summary.last_sequence,
        last_timestamp: summary.last_timestamp,
        coordinator_epoch: summary.coordinator_epoch,
        current_txn_start_offset: summary.txn_start_offset.map_or(-1, towpath_types::Offset::get),
    }
}
