//! OffsetForLeaderEpoch: where a leader's term ended, so that a reader sees whether its records are still there
//! (KIP-101, KIP-320).

use std::sync::Arc;

use towpath_replica::TopicReplicas;
use towpath_types::LeaderEpoch;
use towpath_wire::offset_for_leader_epoch::{EpochEndOffset, OffsetForLeaderPartition, OffsetForLeaderTopicResult};
use towpath_wire::{ErrorCode, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::{RequestContext, partition_error_code};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = request
        .topics
        .into_iter()
        .map(|topic| {
            let replicas = broker.replicas.topic(&topic.topic);
            let partitions = topic.partitions.iter().map(|asked| lookup(replicas.as_deref(), asked)).collect();
            OffsetForLeaderTopicResult { topic: topic.topic, partitions }
        })
        .collect();
    OffsetForLeaderEpochResponse { topics, ..OffsetForLeaderEpochResponse::default() }
}

fn lookup(topic: Option<&TopicReplicas>, asked: &OffsetForLeaderPartition) -> EpochEndOffset {
    let current = LeaderEpoch::new(asked.current_leader_epoch);
    let found = match topic.map_or(Ok(None), |topic| topic.partition(asked.partition)) {
        Ok(Some(partition)) => partition.end_offset_for_epoch(current, LeaderEpoch::new(asked.leader_epoch)),
        Ok(None) => {
            return EpochEndOffset {
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                partition: asked.partition,
                ..EpochEndOffset::default()
            };
        }
        Err(error) => Err(error),
    };
    let mut result = EpochEndOffset { partition: asked.partition, ..EpochEndOffset::default() };
    match found {
        Ok(Some((epoch, end))) => {
            result.leader_epoch = epoch.get();
            result.end_offset = end.get();
        }
        Ok(None) => {}
        Err(error) => result.error_code = partition_error_code(&error).code(),
    }
    result
}
