//! Administration through a node that does not decide: it is passed on, and seen there at once.

use towpath_wire::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use towpath_wire::create_partitions::CreatePartitionsTopic;
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::describe_configs::DescribeConfigsResource;
use towpath_wire::describe_quorum::{PartitionData, TopicData};
use towpath_wire::elect_leaders::TopicPartitions;
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::update_features::FeatureUpdateKey;
use towpath_wire::{
    AlterPartitionReassignmentsRequest, CreatePartitionsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    DescribeQuorumRequest, ElectLeadersRequest, ErrorCode, IncrementalAlterConfigsRequest,
    ListPartitionReassignmentsRequest, MetadataRequest, MetadataResponse, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};

use crate::nodes::TestCluster;
use crate::support::{Client, batch, code};

const TOPIC: i8 = 2;

async fn metadata(client: &mut Client, topic: &str) -> MetadataResponse {
    let topics = vec![towpath_wire::metadata::MetadataRequestTopic {
        name: Some(topic.to_owned()),
        ..Default::default()
    }];
    let request =
        MetadataRequest { topics: Some(topics), allow_auto_topic_creation: false, ..Default::default() };
    client.call(12, &request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_made_changed_and_removed_through_any_node() {
    let cluster = TestCluster::start(3).await;
    let node = cluster.not_the_controller().await;
    let mut client = cluster.client(node);
    cluster.create_topic(node, "t", 3, &[("retention.ms", "1000000")]).await;
    assert_eq!(
        metadata(&mut client, "t").await.topics[0].partitions.len(),
        1,
        "seen at once where it was asked for"
    );

    let topics = vec![CreatePartitionsTopic { name: "t".to_owned(), count: 4, assignments: None }];
    let more = CreatePartitionsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    assert_eq!(client.call(3, &more).await.results[0].error_code, 0);
    assert_eq!(metadata(&mut client, "t").await.topics[0].partitions.len(), 4);

    let change = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".to_owned(),
            configs: vec![AlterableConfig {
                name: "retention.ms".to_owned(),
                config_operation: 0,
                value: Some("2000000".to_owned()),
            }],
        }],
        ..Default::default()
    };
    assert_eq!(client.call(1, &change).await.responses[0].error_code, 0);
    let describe = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".to_owned(),
            configuration_keys: Some(vec!["retention.ms".to_owned()]),
        }],
        ..Default::default()
    };
    let described = client.call(4, &describe).await;
    assert_eq!(described.results[0].configs[0].value.as_deref(), Some("2000000"));

    let gone = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some("t".to_owned()), ..Default::default() }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    assert_eq!(client.call(6, &gone).await.responses[0].error_code, 0);
    let topic = metadata(&mut client, "t").await.topics.remove(0);
    assert_eq!(code(topic.error_code), ErrorCode::UnknownTopicOrPartition);
    // What the controller refuses is refused with its words.
    let refused = client.call(6, &gone).await;
    assert_eq!(code(refused.responses[0].error_code), ErrorCode::UnknownTopicOrPartition);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_moved_and_leaders_elected_through_any_node() {
    let mut cluster = TestCluster::start(3).await;
    let node = cluster.not_the_controller().await;
    cluster.create_topic_on(node, "t", &[1, 2], &[("min.insync.replicas", "1")]).await;
    for value in 0..5 {
        cluster.produce("t", batch(&[&value.to_string()])).await;
    }
    let mut client = cluster.client(node);
    let move_to = |replicas: Option<&[i32]>| AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: "t".to_owned(),
            partitions: vec![ReassignablePartition {
                partition_index: 0,
                replicas: replicas.map(<[i32]>::to_vec),
            }],
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let list = ListPartitionReassignmentsRequest { timeout_ms: 10_000, ..Default::default() };
    // It cannot end while the node that is added is away.
    let added = 3;
    let node =
        if node == added { cluster.running().into_iter().find(|id| *id != added).unwrap() } else { node };
    if cluster.client(node).call(0, &list).await.topics.is_empty() {
        cluster.kill(added);
        client = cluster.client(node);
    }
    let answer = client.call(0, &move_to(Some(&[1, 3]))).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, 0, "{answer:?}");
    let listed = client.call(0, &list).await;
    let partition = &listed.topics[0].partitions[0];
    assert_eq!((&partition.adding_replicas[..], &partition.removing_replicas[..]), (&[3][..], &[2][..]));
    let cancelled = client.call(0, &move_to(None)).await;
    assert_eq!(cancelled.responses[0].partitions[0].error_code, 0, "{cancelled:?}");
    assert!(client.call(0, &list).await.topics.is_empty());
    assert_eq!(metadata(&mut client, "t").await.topics[0].partitions[0].replica_nodes, [1, 2]);
    let nothing = client.call(0, &move_to(None)).await;
    assert_eq!(code(nothing.responses[0].partitions[0].error_code), ErrorCode::NoReassignmentInProgress);

    cluster.start_node(added).await;
    let answer = client.call(0, &move_to(Some(&[3, 1]))).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, 0, "{answer:?}");
    cluster
        .until("t", "moved", |partition| partition.replica_nodes == [3, 1] && partition.isr_nodes.len() == 2)
        .await;
    assert!(client.call(0, &list).await.topics.is_empty());
    cluster.until_ends("t", &[1, 3], (0, 5, 5)).await;
    assert_eq!(cluster.ends(2, "t"), None, "whoever holds it no longer has removed it");
    assert!(!cluster.dir(2).join("t-0").exists());

    let elect = ElectLeadersRequest {
        election_type: 0,
        topic_partitions: Some(vec![TopicPartitions { topic: "t".to_owned(), partitions: vec![0] }]),
        timeout_ms: 10_000,
    };
    let elected = client.call(2, &elect).await;
    let error = code(elected.replica_election_results[0].partition_result[0].error_code);
    assert!(matches!(error, ErrorCode::None | ErrorCode::ElectionNotNeeded), "{error:?}");
    assert_eq!(
        metadata(&mut client, "t").await.topics[0].partitions[0].leader_id,
        3,
        "the preferred one leads"
    );
    let again = client.call(2, &elect).await;
    let error = code(again.replica_election_results[0].partition_result[0].error_code);
    assert_eq!(error, ErrorCode::ElectionNotNeeded);
    assert_eq!(cluster.produce("t", batch(&["5"])).await, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quorum_and_features_are_told_through_any_node() {
    let cluster = TestCluster::start(3).await;
    let controller = cluster.controller().await;
    for node in 1..=3 {
        let mut client = cluster.client(node);
        let request = DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: "__cluster_metadata".to_owned(),
                partitions: vec![PartitionData { partition_index: 0 }],
            }],
        };
        let quorum = client.call(2, &request).await;
        assert_eq!(quorum.error_code, 0, "{quorum:?}");
        let partition = &quorum.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (0, controller));
        let old = client.call(0, &request).await;
        assert_eq!(old.topics[0].partitions[0].leader_id, controller, "without directories and addresses");
        let mut voters: Vec<i32> = partition.current_voters.iter().map(|voter| voter.replica_id).collect();
        voters.sort_unstable();
        assert_eq!(voters, [1, 2, 3]);
        let unknown = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: "no.such.feature".to_owned(),
                max_version_level: 1,
                ..Default::default()
            }],
            timeout_ms: 10_000,
            validate_only: true,
        };
        assert_ne!(client.call(1, &unknown).await.results.first().map_or(1, |result| result.error_code), 0);
        let nobody = client.call(0, &UnregisterBrokerRequest { broker_id: 99 }).await;
        assert_eq!(code(nobody.error_code), ErrorCode::BrokerIdNotRegistered);
    }
}
