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
    let mut unknown = Vec::new();
    for topic in &mut request.topics {
        let count = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len());
        let exists = |index: i32| usize::try_from(index).is_ok_and(|index| index < count);
        let (there, missing): (Vec<_>, Vec<_>) =
            std::mem::take(&mut topic.partitions).into_iter().partition(|it| exists(it.partition_index));
        topic.partitions = there;
        if !missing.is_empty() {
            unknown.push(OffsetDeleteRequestTopic { name: topic.name.clone(), partitions: missing });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    let mut response = groups.delete_offsets(request).await;
    if response.error_code == ErrorCode::None.code() {
        for topic in unknown.into_iter().map(unknown_topic) {
            match response.topics.iter_mut().find(|known| known.name == topic.name) {
                Some(known) => known.partitions.extend(topic.partitions),
                None => response.topics.push(topic),
            }
        }
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
