//! CreateTopics.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, Assignment, CreatedTopic, Decision, NewTopic, create_topics};
use towpath_types::{BrokerId, TopicId};
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfigs, CreatableTopicResult};
use towpath_wire::{CreateTopicsRequest, CreateTopicsResponse, ErrorCode};

use super::RequestContext;
use super::describe_configs::of_new_topic;
use crate::connection::ErrorChain;
use crate::state::BrokerState;

fn new_topic(topic: &CreatableTopic) -> NewTopic {
    NewTopic {
        name: topic.name.clone(),
        partitions: topic.num_partitions,
        replication_factor: topic.replication_factor,
        assignments: topic
            .assignments
            .iter()
            .map(|assignment| Assignment {
                partition: assignment.partition_index,
                brokers: assignment.broker_ids.iter().map(|id| BrokerId::new(*id)).collect(),
            })
            .collect(),
        configs: topic.configs.iter().map(|config| (config.name.clone(), config.value.clone())).collect(),
    }
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _: RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let topics: Vec<NewTopic> = request.topics.iter().map(new_topic).collect();
    let defaults = broker.config.topic_defaults();
    let validate_only = request.validate_only;
    let decide = move |image: &MetadataImage| {
        // -1 leaves a number to the broker in every version, as in Kafka: only its own Java client asks for version 4
        // (KIP-464), and kafkajs sends it in version 3.
        let decision = create_topics(image, &topics, &defaults, TopicId::random);
        if validate_only { Decision::unchanged(decision.answer) } else { decision }
    };
    let answers = match broker.change(decide).await {
        Ok(answers) => answers,
        Err(error) => {
            let refusal = AdminError::new(error.code(), ErrorChain(&error).to_string());
            vec![Err(refusal); request.topics.len()]
        }
    };
    let mut named = BTreeSet::new();
    let topics = request
        .topics
        .into_iter()
        .zip(answers)
        // A topic that is named twice is answered once.
        .filter(|(topic, _)| named.insert(topic.name.clone()))
        .map(|(topic, answer)| match answer {
            Ok(created) => succeeded(&broker, topic.name, &created, validate_only),
            Err(error) => CreatableTopicResult {
                name: topic.name,
                error_code: error.code.code(),
                error_message: Some(error.message),
                // Java's AdminClient takes null without an error for a fault of ours.
                configs: Some(Vec::new()),
                ..CreatableTopicResult::default()
            },
        })
        .collect();
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

fn succeeded(
    broker: &BrokerState,
    name: String,
    created: &CreatedTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let image = broker.image();
    let configs = of_new_topic(broker, &image, &created.configs)
        .into_iter()
        .map(|config| CreatableTopicConfigs {
            name: config.name,
            value: config.value,
            read_only: config.read_only,
            config_source: config.config_source,
            is_sensitive: config.is_sensitive,
        })
        .collect();
    CreatableTopicResult {
        name,
        topic_id: if validate_only { TopicId::ZERO.get() } else { created.id.get() },
        error_code: ErrorCode::None.code(),
        error_message: None,
        topic_config_error_code: ErrorCode::None.code(),
        num_partitions: created.partitions,
        replication_factor: created.replication_factor,
        configs: Some(configs),
    }
}
