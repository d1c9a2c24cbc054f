//! DescribeTopicPartitions: topics with many partitions, a page at a time (KIP-966).

use std::sync::Arc;

use towpath_controller::{MetadataImage, TopicImage};
use towpath_types::{BrokerId, TopicName};
use towpath_wire::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use towpath_wire::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, ErrorCode};

use super::{RequestContext, authorized};
use crate::state::BrokerState;

/// `max.request.partition.size.limit`.
pub(crate) const PARTITIONS_MAX: i32 = 2000;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    if let Some(refusal) = refusal(&request) {
        return refusal;
    }
    page(&broker, &broker.image(), request)
}

/// The answer to a cursor that means nothing. As Kafka's, it has no place for the error but that of each topic asked for.
fn refusal(request: &DescribeTopicPartitionsRequest) -> Option<DescribeTopicPartitionsResponse> {
    let cursor = request.cursor.as_ref()?;
    let is_named = |name: &str| request.topics.is_empty() || request.topics.iter().any(|topic| topic.name == name);
    if cursor.partition_index >= 0 && is_named(&cursor.topic_name) {
        return None;
    }
    let topics = request.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone()),
        ..DescribeTopicPartitionsResponseTopic::default()
    });
    Some(DescribeTopicPartitionsResponse { topics: topics.collect(), ..DescribeTopicPartitionsResponse::default() })
}

fn page(
    broker: &BrokerState,
    image: &MetadataImage,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let cursor = request.cursor;
    let from = cursor.as_ref().map_or("", |cursor| cursor.topic_name.as_str());
    let all = request.topics.is_empty();
    let mut names: Vec<String> = if all {
        image.topics_from(from).map(|topic| topic.name.as_str().to_owned()).collect()
    } else {
        request.topics.into_iter().map(|topic| topic.name).filter(|name| name.as_str() >= from).collect()
    };
    // A cursor only means something in an order that stays the same.
    names.sort_unstable();
    names.dedup();
    let mut left = usize::try_from(request.response_partition_limit.clamp(1, PARTITIONS_MAX)).unwrap_or(1);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        let start = match &cursor {
            Some(cursor) if cursor.topic_name == name => usize::try_from(cursor.partition_index).unwrap_or(0),
            _ => 0,
        };
        if left == 0 {
            response.next_cursor = Some(Cursor { topic_name: name, partition_index: 0 });
            break;
        }
        let Some(topic) = image.topic(&name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let end = topic.partitions.len().min(start.saturating_add(left));
        response.topics.push(describe(broker, image, topic, start, end));
        left -= end.saturating_sub(start);
        if end < topic.partitions.len() {
            let partition_index = i32::try_from(end).unwrap_or(i32::MAX);
            response.next_cursor = Some(Cursor { topic_name: name, partition_index });
            break;
        }
    }
    response
}

fn unknown(name: String) -> DescribeTopicPartitionsResponseTopic {
    let is_valid = TopicName::new(&name).is_ok();
    let code =
        if is_valid { ErrorCode::UnknownTopicOrPartition } else { ErrorCode::InvalidTopicException };
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name),
        topic_authorized_operations: authorized::TOPIC,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn describe(
    broker: &BrokerState,
    image: &MetadataImage,
    topic: &TopicImage,
    start: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect();
    let partitions = (0..).zip(&topic.partitions).skip(start).take(end.saturating_sub(start));
    DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.as_str().to_owned()),
        topic_id: topic.id.get(),
        is_internal: topic.is_internal(),
        partitions: partitions
            .map(|(index, partition)| DescribeTopicPartitionsResponsePartition {
                error_code: if partition.leader.is_some() { 0 } else { ErrorCode::LeaderNotAvailable.code() },
                partition_index: index,
                leader_id: partition.leader.map_or(-1, BrokerId::get),
                leader_epoch: partition.leader_epoch.get(),
                replica_nodes: ids(&partition.replicas),
                isr_nodes: ids(&partition.isr),
                eligible_leader_replicas: Some(ids(&partition.elr)),
                last_known_elr: Some(ids(&partition.last_known_elr)),
                offline_replicas: broker.offline_replicas(image, topic.id, (index, partition)),
            })
            .collect(),
        topic_authorized_operations: authorized::TOPIC,
    }
}
