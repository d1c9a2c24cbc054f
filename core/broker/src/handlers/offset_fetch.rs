//! OffsetFetch: what groups have committed.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_types::TopicId;
use towpath_wire::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use towpath_wire::{ErrorCode, OffsetFetchRequest, OffsetFetchResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

/// From here on topics are named by their ids.
const VERSION_TOPIC_IDS: i16 = 10;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    mut request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    // R10: all offsets of a group are told once.
    let mut seen = HashSet::new();
    request.groups.retain(|group| group.topics.is_some() || seen.insert(group.group_id.clone()));
    let Some(groups) = groups(&broker) else {
        let failed = |group: OffsetFetchRequestGroup| OffsetFetchResponseGroup {
            group_id: group.group_id,
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..OffsetFetchResponseGroup::default()
        };
        return OffsetFetchResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            groups: request.groups.into_iter().map(failed).collect(),
            ..OffsetFetchResponse::default()
        };
    };
    if cx.version < VERSION_TOPIC_IDS {
        return groups.fetch_offsets(request, cx.version);
    }
    let image = broker.image();
    let unknown: Vec<_> = request.groups.iter_mut().map(|group| name_topics(&image, group)).collect();
    let mut response = groups.fetch_offsets(request, cx.version);
    for (group, unknown) in response.groups.iter_mut().zip(unknown) {
        if group.error_code == ErrorCode::None.code() {
            identify_topics(&image, group);
            group.topics.extend(unknown);
        }
    }
    response
}

/// Gives the topics of a request their names, and takes out those whose ids nobody has: their answers.
fn name_topics(image: &MetadataImage, group: &mut OffsetFetchRequestGroup) -> Vec<OffsetFetchResponseTopics> {
    let mut unknown = Vec::new();
    for topic in group.topics.iter_mut().flatten() {
        match image.topic_by_id(TopicId::new(topic.topic_id)) {
            Some(found) => topic.name = found.name.as_str().to_owned(),
            None => unknown.push(unknown_topic(topic)),
        }
    }
    if let Some(topics) = &mut group.topics {
        topics.retain(|topic| image.topic_by_id(TopicId::new(topic.topic_id)).is_some());
    }
    unknown
}

fn unknown_topic(topic: &OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partition = |partition_index: &i32| OffsetFetchResponsePartitions {
        partition_index: *partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(String::new()),
        error_code: ErrorCode::UnknownTopicId.code(),
    };
    OffsetFetchResponseTopics {
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

/// Gives the topics of an answer their present ids. Offsets of topics that are no more, or of an earlier topic of
/// the same name, have no id that a client could ask with: they are left out.
fn identify_topics(image: &MetadataImage, group: &mut OffsetFetchResponseGroup) {
    group.topics.retain_mut(|topic| {
        let Some(found) = image.topic(&topic.name) else { return false };
        let is_same = topic.topic_id.is_nil() || topic.topic_id == found.id.get();
        topic.topic_id = found.id.get();
        is_same
    });
}
