//! Topics, partitions, configurations, clusters.

use std::collections::BTreeMap;

use towpath_wire::alter_configs::{self, AlterConfigsRequest};
use towpath_wire::create_partitions::CreatePartitionsTopic;
use towpath_wire::create_topics::{CreatableTopic, CreatableTopicConfig};
use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::describe_configs::{DescribeConfigsResource, DescribeConfigsResult};
use towpath_wire::describe_topic_partitions::{Cursor, TopicRequest};
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::metadata::MetadataRequestTopic;
use towpath_wire::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest,
    ErrorCode, IncrementalAlterConfigsRequest, InitProducerIdRequest, ListConfigResourcesRequest,
    MetadataRequest, MetadataResponse,
};
use uuid::Uuid;

use crate::support::{Client, TestBroker, batch, code, records};

fn creatable(name: &str) -> CreatableTopic {
    CreatableTopic {
        name: name.to_owned(),
        num_partitions: 1,
        replication_factor: 1,
        ..CreatableTopic::default()
    }
}

#[tokio::test]
async fn topics_are_created_with_all_of_their_configurations_shown() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let mut topic = creatable("t");
    topic.num_partitions = 3;
    topic.configs =
        vec![CreatableTopicConfig { name: "retention.ms".to_owned(), value: Some("5".to_owned()) }];
    let request =
        CreateTopicsRequest { topics: vec![topic, creatable("bad name")], ..CreateTopicsRequest::default() };
    let response = client.call(7, &request).await;
    let created = &response.topics[0];
    assert_eq!((created.error_code, created.num_partitions, created.replication_factor), (0, 3, 1));
    assert!(!created.topic_id.is_nil());
    let configs = created.configs.as_ref().unwrap();
    let retention = configs.iter().find(|config| config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5"), 1));
    assert!(configs.len() > 25);
    let failed = &response.topics[1];
    assert_eq!(code(failed.error_code), ErrorCode::InvalidTopicException);
    assert!(failed.configs.is_some(), "Java's AdminClient fails on null");
    assert_eq!(client.topics().await, BTreeMap::from([("t".to_owned(), 3)]));
}

#[tokio::test]
async fn validation_changes_nothing_and_old_versions_say_numbers() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let only = CreateTopicsRequest {
        topics: vec![creatable("t")],
        validate_only: true,
        ..CreateTopicsRequest::default()
    };
    assert_eq!(client.call(7, &only).await.topics[0].error_code, 0);
    assert!(client.topics().await.is_empty());
    let unsaid = CreateTopicsRequest {
        topics: vec![CreatableTopic { num_partitions: -1, replication_factor: -1, ..creatable("t") }],
        ..CreateTopicsRequest::default()
    };
    // As kafkajs asks, with nothing said in version 3.
    for version in 2..=7 {
        let mut request = unsaid.clone();
        request.topics[0].name = format!("t{version}");
        assert_eq!(client.call(version, &request).await.topics[0].error_code, 0);
    }
}

#[tokio::test]
async fn topics_are_deleted_with_their_files_and_come_back_as_others() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let first = client.create_topic("t", 2, &[]).await;
    client.produce("t", 1, batch(&["a"])).await;
    let files = broker.dir.path().join("t-1");
    assert!(files.exists());
    let request = DeleteTopicsRequest {
        topics: vec![
            DeleteTopicState { name: None, topic_id: first },
            DeleteTopicState { name: Some("u".to_owned()), topic_id: Uuid::nil() },
            DeleteTopicState { name: None, topic_id: Uuid::new_v4() },
        ],
        ..DeleteTopicsRequest::default()
    };
    let response = client.call(6, &request).await;
    let codes: Vec<ErrorCode> = response.responses.iter().map(|result| code(result.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownTopicOrPartition, ErrorCode::UnknownTopicId]);
    assert_eq!(response.responses[0].name.as_deref(), Some("t"));
    assert!(!files.exists());
    let second = client.create_topic("t", 2, &[]).await;
    assert_ne!(first, second);
    assert_eq!(client.fetch("t", 1, 0).await.high_watermark, 0);
}

async fn metadata(client: &mut Client, version: i16, names: &[&str], create: bool) -> MetadataResponse {
    let topics = names
        .iter()
        .map(|name| MetadataRequestTopic {
            name: Some((*name).to_owned()),
            ..MetadataRequestTopic::default()
        })
        .collect();
    let request = MetadataRequest {
        topics: Some(topics),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    client.call(version, &request).await
}

#[tokio::test]
async fn metadata_of_all_none_and_named_topics() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let id = client.create_topic("t", 2, &[]).await;
    for version in 0..=13 {
        let all = MetadataRequest {
            topics: if version == 0 { Some(vec![]) } else { None },
            ..MetadataRequest::default()
        };
        let response = client.call(version, &all).await;
        assert_eq!(response.topics.len(), 1, "version {version}");
        assert_eq!(response.topics[0].partitions[1].leader_id, 1);
        assert_eq!(response.brokers[0].node_id, 1);
        if version > 0 {
            let none = MetadataRequest { topics: Some(vec![]), ..MetadataRequest::default() };
            assert!(client.call(version, &none).await.topics.is_empty());
        }
    }
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id, name: None }]),
        ..MetadataRequest::default()
    };
    let response = client.call(12, &by_id(id)).await;
    assert_eq!(response.topics[0].name.as_deref(), Some("t"));
    let unknown = client.call(12, &by_id(Uuid::new_v4())).await;
    assert_eq!(code(unknown.topics[0].error_code), ErrorCode::UnknownTopicId);
    assert_eq!(unknown.topics[0].name, None);
}

#[tokio::test]
async fn topics_create_themselves_where_client_and_broker_allow_it() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let refused = metadata(&mut client, 12, &["a"], false).await;
    assert_eq!(code(refused.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    let created = metadata(&mut client, 12, &["a", "b c", "a"], true).await;
    let codes: Vec<ErrorCode> = created.topics.iter().map(|topic| code(topic.error_code)).collect();
    assert_eq!(codes, [ErrorCode::None, ErrorCode::InvalidTopicException], "each once, as in Kafka");
    assert_eq!(created.topics[0].partitions.len(), 1);

    let strict = TestBroker::start_with(|config| config.auto_create_topics = false).await;
    let mut client = strict.client();
    let refused = metadata(&mut client, 12, &["a"], true).await;
    assert_eq!(code(refused.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
    assert!(client.topics().await.is_empty());
}

#[tokio::test]
async fn the_directory_of_the_metadata_log_cannot_become_a_topics() {
    let test = TestBroker::start().await;
    let mut client = test.client();
    let name = "__cluster_metadata";
    let request = CreateTopicsRequest { topics: vec![creatable(name)], ..CreateTopicsRequest::default() };
    assert_eq!(code(client.call(7, &request).await.topics[0].error_code), ErrorCode::InvalidRequest);
    let response = metadata(&mut client, 12, &[name], true).await;
    assert_ne!(response.topics[0].error_code, 0);
    let refused = client.produce(name, 0, batch(&["x"])).await;
    assert_eq!(code(refused.error_code), ErrorCode::UnknownTopicOrPartition);
    client.create_topic("t", 1, &[]).await;
    test.broker.shutdown().await.unwrap();
    let TestBroker { broker, dir } = test;
    drop(broker);
    let test = TestBroker::start_in(dir, |_| {}).await;
    assert_eq!(test.client().topics().await, BTreeMap::from([("t".to_owned(), 1)]));
}

#[tokio::test]
async fn partitions_are_added() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let more = |count, validate_only| CreatePartitionsRequest {
        topics: vec![CreatePartitionsTopic { name: "t".to_owned(), count, assignments: None }],
        validate_only,
        ..CreatePartitionsRequest::default()
    };
    assert_eq!(client.call(3, &more(3, true)).await.results[0].error_code, 0);
    assert_eq!(client.topics().await["t"], 1);
    assert_eq!(client.call(3, &more(3, false)).await.results[0].error_code, 0);
    assert_eq!(client.produce("t", 2, batch(&["a"])).await.error_code, 0);
    assert_eq!(
        code(client.call(3, &more(2, false)).await.results[0].error_code),
        ErrorCode::InvalidPartitions
    );
}

async fn describe(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| (*key).to_owned()).collect()),
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    client.call(4, &request).await.results.remove(0)
}

#[tokio::test]
async fn every_configuration_is_described() {
    let broker = TestBroker::start_with(|config| {
        config.topic_defaults.insert("segment.ms".to_owned(), "1000".to_owned());
    })
    .await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[("cleanup.policy", "compact")]).await;
    let described = describe(&mut client, 2, "t", None).await;
    assert!(described.configs.len() > 25);
    let by_name: BTreeMap<_, _> =
        described.configs.iter().map(|config| (config.name.as_str(), config)).collect();
    let policy = by_name["cleanup.policy"];
    // Kafka Connect refuses to start unless it reads back exactly this.
    assert_eq!((policy.value.as_deref(), policy.config_source, policy.config_type), (Some("compact"), 1, 7));
    assert_eq!(policy.synonyms.len(), 2);
    assert_eq!(policy.synonyms[1].name, "log.cleanup.policy");
    assert_eq!(
        (by_name["segment.ms"].value.as_deref(), by_name["segment.ms"].config_source),
        (Some("1000"), 4)
    );
    assert_eq!(by_name["retention.ms"].config_source, 5);
    assert!(described.configs.iter().all(|config| config.documentation.is_some() && !config.is_sensitive));
    let one = describe(&mut client, 2, "t", Some(&["retention.ms", "nonsense"])).await;
    assert_eq!(one.configs.len(), 1);
    assert_eq!(
        code(describe(&mut client, 2, "u", None).await.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let own = describe(&mut client, 4, "1", None).await;
    let is_fixed = |name: &str| own.configs.iter().find(|config| config.name == name).unwrap().read_only;
    assert!(is_fixed("num.partitions") && !is_fixed("log.segment.bytes"));
    assert!(own.configs.iter().any(|config| config.name == "num.partitions"));
    assert!(own.configs.is_sorted_by(|a, b| a.name < b.name), "no name twice");
    assert_eq!(code(describe(&mut client, 4, "9", None).await.error_code), ErrorCode::InvalidRequest);
    assert_eq!(code(describe(&mut client, 99, "x", None).await.error_code), ErrorCode::InvalidRequest);
}

fn change(name: &str, config_operation: i8, value: Option<&str>) -> AlterableConfig {
    AlterableConfig { name: name.to_owned(), config_operation, value: value.map(str::to_owned) }
}

async fn alter(
    client: &mut Client,
    resource_type: i8,
    name: &str,
    configs: Vec<AlterableConfig>,
) -> ErrorCode {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource { resource_type, resource_name: name.to_owned(), configs }],
        validate_only: false,
    };
    code(client.call(1, &request).await.responses[0].error_code)
}

#[tokio::test]
async fn changed_configurations_take_effect() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    let large = batch(&[&"x".repeat(2000)]);
    assert_eq!(client.produce("t", 0, large.clone()).await.error_code, 0);
    assert_eq!(
        alter(&mut client, 2, "t", vec![change("max.message.bytes", 0, Some("100"))]).await,
        ErrorCode::None
    );
    assert_eq!(code(client.produce("t", 0, large.clone()).await.error_code), ErrorCode::MessageTooLarge);
    assert_eq!(alter(&mut client, 2, "t", vec![change("max.message.bytes", 1, None)]).await, ErrorCode::None);
    assert_eq!(client.produce("t", 0, large).await.error_code, 0);
    for (resource, name, changes, expected) in [
        (2, "u", vec![change("retention.ms", 0, Some("1"))], ErrorCode::UnknownTopicOrPartition),
        (2, "t", vec![change("retention.ms", 0, Some("x"))], ErrorCode::InvalidConfig),
        (2, "t", vec![change("retention.ms", 2, Some("1"))], ErrorCode::InvalidConfig),
        (2, "t", vec![change("retention.ms", 7, Some("1"))], ErrorCode::InvalidRequest),
        (
            2,
            "t",
            vec![change("retention.ms", 0, Some("1")), change("retention.ms", 1, None)],
            ErrorCode::InvalidRequest,
        ),
        (4, "1", vec![change("num.partitions", 0, Some("1"))], ErrorCode::InvalidRequest),
    ] {
        assert_eq!(alter(&mut client, resource, name, changes).await, expected);
    }
    let replace = AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".to_owned(),
            configs: vec![alter_configs::AlterableConfig {
                name: "retention.ms".to_owned(),
                value: Some("7".to_owned()),
            }],
        }],
        validate_only: false,
    };
    assert_eq!(client.call(2, &replace).await.responses[0].error_code, 0);
    let described = describe(&mut client, 2, "t", Some(&["retention.ms"])).await;
    assert_eq!(described.configs[0].value.as_deref(), Some("7"));
}

#[tokio::test]
async fn records_are_deleted_from_the_front() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    for value in ["a", "b", "c"] {
        client.produce("t", 0, batch(&[value])).await;
    }
    let mut delete = async |name: &str, offset: i64| {
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: name.to_owned(),
                partitions: vec![DeleteRecordsPartition { partition_index: 0, offset }],
            }],
            ..DeleteRecordsRequest::default()
        };
        let result = client.call(2, &request).await.topics[0].partitions[0].clone();
        (code(result.error_code), result.low_watermark)
    };
    assert_eq!(delete("t", 2).await, (ErrorCode::None, 2));
    assert_eq!(delete("t", 4).await.0, ErrorCode::OffsetOutOfRange);
    assert_eq!(delete("u", 0).await.0, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(code(client.fetch("t", 0, 1).await.error_code), ErrorCode::OffsetOutOfRange);
    let kept = client.fetch("t", 0, 2).await;
    assert_eq!((records(&kept), kept.log_start_offset), (vec![(2, "c".to_owned())], 2));
    let topics = vec![DeleteRecordsTopic {
        name: "t".to_owned(),
        partitions: vec![DeleteRecordsPartition { partition_index: 0, offset: -1 }],
    }];
    let delete_all = DeleteRecordsRequest { topics, ..DeleteRecordsRequest::default() };
    assert_eq!(client.call(2, &delete_all).await.topics[0].partitions[0].low_watermark, 3);
}

#[tokio::test]
async fn the_cluster_describes_itself() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("t", 1, &[]).await;
    client.produce("t", 0, batch(&["a"])).await;
    let request = DescribeClusterRequest { endpoint_type: 1, ..DescribeClusterRequest::default() };
    let cluster = client.call(2, &request).await;
    assert_eq!((cluster.cluster_id.len(), cluster.controller_id, cluster.brokers.len()), (22, 1, 1));
    let controllers = DescribeClusterRequest { endpoint_type: 2, ..DescribeClusterRequest::default() };
    assert_eq!(code(client.call(2, &controllers).await.error_code), ErrorCode::MismatchedEndpointType);
    let dirs = client.call(4, &DescribeLogDirsRequest { topics: None }).await;
    assert!(dirs.results[0].total_bytes > dirs.results[0].usable_bytes);
    assert!(dirs.results[0].topics[0].partitions[0].partition_size > 60);
    let request = ListConfigResourcesRequest { resource_types: vec![2] };
    let resources = client.call(1, &request).await.config_resources;
    assert_eq!(resources.iter().map(|r| r.resource_name.as_str()).collect::<Vec<_>>(), ["t"]);
}

#[tokio::test]
async fn partitions_are_described_a_page_at_a_time() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    client.create_topic("a", 3, &[]).await;
    client.create_topic("b", 2, &[]).await;
    let mut seen = Vec::new();
    let mut cursor: Option<Cursor> = None;
    for _ in 0..10 {
        let request =
            DescribeTopicPartitionsRequest { response_partition_limit: 2, cursor, ..Default::default() };
        let response = client.call(0, &request).await;
        for topic in response.topics {
            let name = topic.name.unwrap();
            seen.extend(topic.partitions.iter().map(|partition| (name.clone(), partition.partition_index)));
        }
        cursor = response.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<(String, i32)> = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]
        .map(|(name, index)| (name.to_owned(), index))
        .into();
    assert_eq!(seen, expected);
    let named = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "nothing".to_owned() }],
        response_partition_limit: 10,
        ..Default::default()
    };
    let response = client.call(0, &named).await;
    assert_eq!(code(response.topics[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test]
async fn producer_ids_differ_and_their_requests_are_checked() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..1500 {
        let response = client.call(4, &crate::support::init_producer_id()).await;
        assert_eq!(response.error_code, 0);
        assert!(ids.insert(response.producer_id), "an id is given once, also over the edge of a block");
    }
    let empty =
        InitProducerIdRequest { transactional_id: Some(String::new()), ..InitProducerIdRequest::default() };
    assert_eq!(code(client.call(4, &empty).await.error_code), ErrorCode::InvalidRequest);
    let half = InitProducerIdRequest { producer_id: 5, ..crate::support::init_producer_id() };
    assert_eq!(code(client.call(4, &half).await.error_code), ErrorCode::InvalidRequest);
}
