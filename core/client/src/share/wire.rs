//! Orders as requests, and responses as what they say.

use towpath_types::TopicId;
use towpath_wire::messages::share_acknowledge::{
    self, AcknowledgePartition, AcknowledgeTopic, ShareAcknowledgeRequest, ShareAcknowledgeResponse,
};
use towpath_wire::messages::share_fetch::{
    self, FetchPartition, FetchTopic, ForgottenTopic, ShareFetchRequest, ShareFetchResponse,
};

use super::ShareConsumerConfig;
use super::lease::Batch;
use super::state::{FetchOrder, Order, Place, Told, ToldPartition};
use crate::client::ClientInner;

fn small(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A request that fetches, and acknowledges on the way.
pub(super) fn fetch_request(
    config: &ShareConsumerConfig,
    member_id: &str,
    order: &Order,
    fetch: &FetchOrder,
) -> ShareFetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut add = |(topic_id, partition_index): Place, acknowledgement_batches| {
        let partition = FetchPartition { partition_index, acknowledgement_batches };
        match topics.iter_mut().find(|topic| topic.topic_id == topic_id.get()) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic { topic_id: topic_id.get(), partitions: vec![partition] }),
        }
    };
    for (place, batches) in &order.said {
        let batch = |batch: &Batch| share_fetch::AcknowledgementBatch {
            first_offset: batch.first,
            last_offset: batch.last,
            acknowledge_types: batch.types.clone(),
        };
        add(*place, batches.iter().map(batch).collect());
    }
    for place in &fetch.add {
        if !order.said.iter().any(|(said, _)| said == place) {
            add(*place, Vec::new());
        }
    }
    let forget = |(topic_id, partition): &Place| ForgottenTopic {
        topic_id: topic_id.get(),
        partitions: vec![*partition],
    };
    ShareFetchRequest {
        group_id: Some(config.group_id.as_str().to_owned()),
        member_id: Some(member_id.to_owned()),
        share_session_epoch: order.epoch,
        max_wait_ms: i32::try_from(config.fetch_wait_ms_max).unwrap_or(i32::MAX),
        min_bytes: small(config.fetch_bytes_min),
        max_bytes: small(fetch.bytes_max),
        max_records: small(config.max_poll_records),
        batch_size: small(config.max_poll_records),
        share_acquire_mode: config.acquire_mode.wire(),
        topics,
        forgotten_topics_data: fetch.forget.iter().map(forget).collect(),
        ..Default::default()
    }
}

/// A request that only acknowledges.
pub(super) fn acknowledge_request(
    config: &ShareConsumerConfig,
    member_id: &str,
    order: &Order,
) -> ShareAcknowledgeRequest {
    let mut topics: Vec<AcknowledgeTopic> = Vec::new();
    for ((topic_id, partition_index), batches) in &order.said {
        let batch = |batch: &Batch| share_acknowledge::AcknowledgementBatch {
            first_offset: batch.first,
            last_offset: batch.last,
            acknowledge_types: batch.types.clone(),
        };
        let partition = AcknowledgePartition {
            partition_index: *partition_index,
            acknowledgement_batches: batches.iter().map(batch).collect(),
        };
        match topics.last_mut().filter(|topic| topic.topic_id == topic_id.get()) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(AcknowledgeTopic { topic_id: topic_id.get(), partitions: vec![partition] }),
        }
    }
    ShareAcknowledgeRequest {
        group_id: Some(config.group_id.as_str().to_owned()),
        member_id: Some(member_id.to_owned()),
        share_session_epoch: order.epoch,
        is_renew_ack: order.renews,
        topics,
    }
}

pub(super) fn of_fetch(client: &ClientInner, response: ShareFetchResponse) -> Told {
    for node in &response.node_endpoints {
        client.learn_node(node.node_id, &node.host, node.port);
    }
    let mut partitions = Vec::new();
    for topic in response.responses {
        let id = TopicId::new(topic.topic_id);
        partitions.extend(topic.partitions.into_iter().map(|partition| ToldPartition {
            place: (id, partition.partition_index),
            code: partition.error_code,
            said_code: partition.acknowledge_error_code,
            message: partition.acknowledge_error_message.or(partition.error_message),
            leader: Some((partition.current_leader.leader_id, partition.current_leader.leader_epoch)),
            records: partition.records,
            acquired: partition.acquired_records,
        }));
    }
    Told {
        code: response.error_code,
        message: response.error_message,
        lock_ms: response.acquisition_lock_timeout_ms,
        partitions,
    }
}

pub(super) fn of_acknowledge(client: &ClientInner, response: ShareAcknowledgeResponse) -> Told {
    for node in &response.node_endpoints {
        client.learn_node(node.node_id, &node.host, node.port);
    }
    let mut partitions = Vec::new();
    for topic in response.responses {
        let id = TopicId::new(topic.topic_id);
        partitions.extend(topic.partitions.into_iter().map(|partition| ToldPartition {
            said_code: partition.error_code,
            message: partition.error_message,
            leader: Some((partition.current_leader.leader_id, partition.current_leader.leader_epoch)),
            ..ToldPartition::new((id, partition.partition_index))
        }));
    }
    Told {
        code: response.error_code,
        message: response.error_message,
        lock_ms: response.acquisition_lock_timeout_ms,
        partitions,
    }
}
