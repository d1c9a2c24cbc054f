//! OffsetDelete: forgetting what a group has committed.

use std::sync::Arc;

use towpath_wire::offset_delete::{
    OffsetDeleteRequestTopic, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use towpath_wire::{ErrorCode, OffsetDeleteRequest, OffsetDeleteResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    mut request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let Some(groups) = groups(&broker) else {
        return OffsetDeleteResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..OffsetDeleteResponse::default()
        };
    };
    let image = broker.image();
    let (known, unknown): (Vec<_>, Vec<_>) =
        request.topics.into_iter().partition(|topic| image.topic(&topic.name).is_some());
    request.topics = known;
    let mut response = groups.delete_offsets(request).await;
    if response.error_code == ErrorCode::None.code() {
        response.topics.extend(unknown.into_iter().map(unknown_topic));
    }
    response
}

fn unknown_topic(topic: OffsetDeleteRequestTopic) -> OffsetDeleteResponseTopic {
    let error_code = ErrorCode::UnknownTopicOrPartition.code();
    let partitions = topic.partitions.into_iter();
    OffsetDeleteResponseTopic {
        name: topic.name,
        partitions: partitions
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code,
            })
            .collect(),
    }
}
