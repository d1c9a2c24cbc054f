//! OffsetCommit: topics are known to the metadata, groups to the coordinator.

use std::sync::Arc;

use towpath_controller::{MetadataImage, TopicImage};
use towpath_types::TopicId;
use towpath_wire::offset_commit::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use towpath_wire::{ErrorCode, OffsetCommitRequest, OffsetCommitResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

/// From here on topics are named by their ids.
const VERSION_TOPIC_IDS: i16 = 10;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let image = broker.image();
    let asked = std::mem::take(&mut request.topics);
    let (mut response, known) = sort_out(&image, asked, cx.version);
    if known.iter().all(|topic| topic.partitions.is_empty()) {
        return response;
    }
    request.topics = known;
    let committed = match groups(&broker) {
        Some(groups) => groups.commit_offsets(request, cx.version).await,
        None => OffsetCommitResponse::default(),
    };
    fill_in(&mut response, &committed);
    response
}

fn find<'a>(
    image: &'a MetadataImage,
    topic: &OffsetCommitRequestTopic,
    version: i16,
) -> Option<&'a Arc<TopicImage>> {
    if version >= VERSION_TOPIC_IDS {
        image.topic_by_id(TopicId::new(topic.topic_id))
    } else {
        image.topic(&topic.name)
    }
}

/// The answer with an error beside every partition that does not exist, and, topic by topic, the partitions that do.
fn sort_out(
    image: &MetadataImage,
    asked: Vec<OffsetCommitRequestTopic>,
    version: i16,
) -> (OffsetCommitResponse, Vec<OffsetCommitRequestTopic>) {
    let mut response = OffsetCommitResponse::default();
    let mut known = Vec::with_capacity(asked.len());
    for mut topic in asked {
        let found = find(image, &topic, version);
        let missing = if found.is_none() && version >= VERSION_TOPIC_IDS {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        };
        let count = found.map_or(0, |topic| topic.partitions.len());
        let exists = |partition: &OffsetCommitRequestPartition| {
            usize::try_from(partition.partition_index).is_ok_and(|index| index < count)
        };
        let answer = |partition: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            // What exists is answered by the coordinator.
            error_code: if exists(partition) { ErrorCode::CoordinatorNotAvailable } else { missing }.code(),
        };
        response.topics.push(OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(answer).collect(),
        });
        topic.partitions.retain(exists);
        if let Some(found) = found {
            topic.name = found.name.as_str().to_owned();
            topic.topic_id = found.id.get();
        }
        known.push(topic);
    }
    (response, known)
}

/// Puts the coordinator's answers in their places: it answers in the order of the request.
fn fill_in(response: &mut OffsetCommitResponse, committed: &OffsetCommitResponse) {
    let open = [ErrorCode::CoordinatorNotAvailable.code()];
    for (topic, committed) in response.topics.iter_mut().zip(&committed.topics) {
        let places = topic.partitions.iter_mut().filter(|partition| open.contains(&partition.error_code));
        for (place, answer) in places.zip(&committed.partitions) {
            place.error_code = answer.error_code;
        }
    }
}
