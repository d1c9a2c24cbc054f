//! Metadata: brokers, topics, partitions and their leaders.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_controller::{MetadataImage, TopicImage};
use towpath_types::{TopicId, TopicName};
use towpath_wire::metadata::{
    MetadataRequestTopic, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use towpath_wire::{ErrorCode, MetadataRequest, MetadataResponse};
use uuid::Uuid;

use super::{RequestContext, authorized};
use crate::metrics::BrokerMetrics;
use crate::state::{BrokerState, OFFSETS_TOPIC, SHARE_STATE_TOPIC, TRANSACTIONS_TOPIC};

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: MetadataRequest,
) -> MetadataResponse {
    // Version 0 has no null: its empty list stands for all topics.
    let named = request.topics.filter(|topics| cx.version > 0 || !topics.is_empty());
    let may_create = broker.config.auto_create_topics && request.allow_auto_topic_creation;
    let mut topics = match named {
        None => {
            let image = broker.image();
            image.topics().map(|topic| describe(&broker, &image, topic)).collect()
        }
        Some(named) => find(&broker, cx.version, named, may_create).await,
    };
    if request.include_topic_authorized_operations {
        let known = topics.iter_mut().filter(|topic| topic.error_code == 0);
        known.for_each(|topic| topic.topic_authorized_operations = authorized::TOPIC);
    }
    let image = broker.image();
    let mut response = MetadataResponse {
        brokers: brokers(&image),
        cluster_id: Some(broker.cluster_id.clone()),
        controller_id: broker.controller_id(),
        topics,
        ..MetadataResponse::default()
    };
    if request.include_cluster_authorized_operations && (8..=10).contains(&cx.version) {
        response.cluster_authorized_operations = authorized::CLUSTER;
    }
    response
}

fn brokers(image: &MetadataImage) -> Vec<MetadataResponseBroker> {
    image
        .brokers()
        .filter(|broker| !broker.fenced)
        .map(|broker| MetadataResponseBroker {
            node_id: broker.id.get(),
            host: broker.host.clone(),
            port: i32::from(broker.port),
            rack: broker.rack.clone(),
        })
        .collect()
}

async fn find(
    broker: &Arc<BrokerState>,
    version: i16,
    named: Vec<MetadataRequestTopic>,
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    let mut topics = Vec::with_capacity(named.len().min(1024));
    // R10: once each, as in Kafka; the answer to the same topic a thousand times would be a thousand times as large.
    let mut seen = HashSet::new();
    for wanted in named {
        if !seen.insert((wanted.topic_id, wanted.name.clone())) {
            continue;
        }
        let by_id = !wanted.topic_id.is_nil();
        topics.push(if version < 12 && (by_id || wanted.name.is_none()) {
            // Versions 10 and 11 have the field, but not the lookup.
            failed(wanted.name.unwrap_or_default().into(), wanted.topic_id, ErrorCode::InvalidRequest)
        } else {
            match wanted.name {
                Some(name) if !by_id => find_named(broker, name, may_create).await,
                _ => {
                    let image = broker.image();
                    match image.topic_by_id(TopicId::new(wanted.topic_id)) {
                        Some(topic) => describe(broker, &image, topic),
                        None => failed(None, wanted.topic_id, ErrorCode::UnknownTopicId),
                    }
                }
            }
        });
    }
    topics
}

async fn find_named(broker: &Arc<BrokerState>, name: String, may_create: bool) -> MetadataResponseTopic {
    let image = broker.image();
    if let Some(topic) = image.topic(&name) {
        return describe(broker, &image, topic);
    }
    if TopicName::new(&name).is_err() {
        return failed(Some(name), Uuid::nil(), ErrorCode::InvalidTopicException);
    }
    if !(may_create || is_coordinated(&name) && broker.config.auto_create_topics) {
        return failed(Some(name), Uuid::nil(), ErrorCode::UnknownTopicOrPartition);
    }
    if let Err(error) = broker.auto_create(&name).await {
        BrokerMetrics::error(towpath_wire::ApiKey::Metadata, error.code);
        tracing::debug!(topic = name, %error, "not created automatically");
        let code = match error.code {
            // Clients take what can pass for something to try again.
            ErrorCode::InvalidTopicException => ErrorCode::InvalidTopicException,
            ErrorCode::InvalidReplicationFactor => ErrorCode::InvalidReplicationFactor,
            _ => ErrorCode::UnknownTopicOrPartition,
        };
        return failed(Some(name), Uuid::nil(), code);
    }
    let image = broker.image();
    match image.topic(&name) {
        Some(topic) => describe(broker, &image, topic),
        None => failed(Some(name), Uuid::nil(), ErrorCode::UnknownTopicOrPartition),
    }
}

/// Whether a topic is a coordinator's, which comes into being as soon as somebody asks for it.
fn is_coordinated(name: &str) -> bool {
    matches!(name, OFFSETS_TOPIC | TRANSACTIONS_TOPIC | SHARE_STATE_TOPIC)
}

fn failed(name: Option<String>, topic_id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
    let is_internal = name.as_deref().is_some_and(is_coordinated);
    MetadataResponseTopic { error_code: code.code(), name, topic_id, is_internal, ..MetadataResponseTopic::default() }
}

fn describe(broker: &BrokerState, image: &MetadataImage, topic: &TopicImage) -> MetadataResponseTopic {
    let partition = |(index, partition): (i32, &towpath_controller::PartitionImage)| {
        let code = if partition.leader.is_some() { ErrorCode::None } else { ErrorCode::LeaderNotAvailable };
        MetadataResponsePartition {
            error_code: code.code(),
            partition_index: index,
            leader_id: partition.leader.map_or(-1, towpath_types::BrokerId::get),
            leader_epoch: partition.leader_epoch.get(),
            replica_nodes: partition.replicas.iter().map(|id| id.get()).collect(),
            isr_nodes: partition.isr.iter().map(|id| id.get()).collect(),
            offline_replicas: broker.offline_replicas(image, topic.id, (index, partition)),
        }
    };
    MetadataResponseTopic {
        error_code: ErrorCode::None.code(),
        name: Some(topic.name.as_str().to_owned()),
        topic_id: topic.id.get(),
        is_internal: topic.is_internal(),
        partitions: (0..).zip(&topic.partitions).map(partition).collect(),
        ..MetadataResponseTopic::default()
    }
}
