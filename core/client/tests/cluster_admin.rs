//! Administration of brokers, replicas and the quorum against a broker that answers what it is told to: what is sent
//! at each version, and what becomes of the answers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod script;

use std::collections::BTreeMap;

use script::Script;
use towpath_client::{Election, ErrorCode, FeatureUpdate, FeatureUpgrade, QuorumListener, RaftVoter};
use towpath_types::{TopicName, TopicPartition};
use towpath_wire::messages::{
    alter_partition_reassignments as alter, describe_cluster, describe_log_dirs, describe_quorum,
    elect_leaders, list_partition_reassignments as list, update_features,
};
use towpath_wire::{
    AddRaftVoterRequest, AddRaftVoterResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, ApiKey, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeQuorumRequest, DescribeQuorumResponse,
    ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UnregisterBrokerRequest, UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};
use uuid::Uuid;

fn at(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(TopicName::new(topic).unwrap(), partition)
}

const NOT_CONTROLLER: i16 = ErrorCode::NotController.code();

#[tokio::test]
async fn leaders_are_elected_partition_by_partition() {
    let mut first = true;
    let admin = Script::default()
        .with(move |request: ElectLeadersRequest| {
            if std::mem::take(&mut first) {
                return ElectLeadersResponse { error_code: NOT_CONTROLLER, ..Default::default() };
            }
            assert_eq!(request.election_type, 1);
            let topics = request.topic_partitions.unwrap();
            assert_eq!((topics[0].topic.as_str(), &topics[0].partitions[..]), ("a", &[0, 1, 2][..]));
            let result = |(partition_id, error_code)| elect_leaders::PartitionResult {
                partition_id,
                error_code,
                error_message: (error_code != 0).then(|| "why".to_owned()),
            };
            let partitions = [(0, 0), (1, ErrorCode::ElectionNotNeeded.code())].map(result).to_vec();
            let topic =
                elect_leaders::ReplicaElectionResult { topic: "a".into(), partition_result: partitions };
            ElectLeadersResponse { replica_election_results: vec![topic], ..Default::default() }
        })
        .admin()
        .await;
    let wanted = [at("a", 0), at("a", 1), at("a", 2)];
    let results = admin.elect_leaders(Election::Unclean, Some(&wanted)).await.unwrap();
    assert!(results[&wanted[0]].is_ok());
    let error = results[&wanted[1]].as_ref().unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::ElectionNotNeeded));
    assert!(error.to_string().contains("why"), "{error}");
    assert!(results[&wanted[2]].as_ref().unwrap_err().to_string().contains("leaves out"));

    let admin = Script::default()
        .with(|request: ElectLeadersRequest| {
            assert_eq!((request.election_type, request.topic_partitions), (0, None));
            ElectLeadersResponse {
                error_code: ErrorCode::ClusterAuthorizationFailed.code(),
                ..Default::default()
            }
        })
        .admin()
        .await;
    let refused = admin.elect_leaders(Election::Preferred, None).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::ClusterAuthorizationFailed));
}

#[tokio::test]
async fn reassignments_are_begun_taken_back_and_listed() {
    let admin = Script::default()
        .with(|request: AlterPartitionReassignmentsRequest| {
            assert!(request.allow_replication_factor_change);
            let sent: Vec<_> = request
                .topics
                .iter()
                .flat_map(|topic| {
                    topic.partitions.iter().map(|it| (&*topic.name, it.partition_index, it.replicas.clone()))
                })
                .collect();
            assert_eq!(sent, [("a", 0, Some(vec![2, 3])), ("a", 1, None), ("b", 7, Some(vec![1]))]);
            let done = |(partition_index, error_code)| alter::ReassignablePartitionResponse {
                partition_index,
                error_code,
                error_message: None,
            };
            let partitions = [(0, 0), (1, ErrorCode::NoReassignmentInProgress.code())].map(done).to_vec();
            let topic = alter::ReassignableTopicResponse { name: "a".into(), partitions };
            AlterPartitionReassignmentsResponse { responses: vec![topic], ..Default::default() }
        })
        .with(|request: ListPartitionReassignmentsRequest| {
            if let Some(topics) = request.topics {
                assert_eq!((topics[0].name.as_str(), &topics[0].partition_indexes[..]), ("a", &[0][..]));
            }
            let partition = list::OngoingPartitionReassignment {
                partition_index: 0,
                replicas: vec![1, 2, 3],
                adding_replicas: vec![2, 3],
                removing_replicas: vec![1],
            };
            let topic = list::OngoingTopicReassignment { name: "a".into(), partitions: vec![partition] };
            ListPartitionReassignmentsResponse { topics: vec![topic], ..Default::default() }
        })
        .admin()
        .await;
    let targets =
        BTreeMap::from([(at("a", 0), Some(vec![2, 3])), (at("a", 1), None), (at("b", 7), Some(vec![1]))]);
    let results = admin.alter_partition_reassignments(&targets).await.unwrap();
    assert!(results[&at("a", 0)].is_ok());
    let code = results[&at("a", 1)].as_ref().unwrap_err().code();
    assert_eq!(code, Some(ErrorCode::NoReassignmentInProgress));
    assert!(results[&at("b", 7)].is_err(), "what the answer leaves out is not done");
    for wanted in [None, Some(&[at("a", 0)][..])] {
        let moving = admin.list_partition_reassignments(wanted).await.unwrap();
        let reassignment = &moving[&at("a", 0)];
        assert_eq!((&reassignment.adding[..], &reassignment.removing[..]), (&[2, 3][..], &[1][..]));
        assert_eq!((reassignment.replicas.len(), moving.len()), (3, 1));
    }
}

fn quorum(request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    assert_eq!(request.topics[0].topic_name, "__cluster_metadata");
    let replica = |(replica_id, log_end_offset, time)| describe_quorum::ReplicaState {
        replica_id,
        log_end_offset,
        last_fetch_timestamp: time,
        last_caught_up_timestamp: time,
        ..Default::default()
    };
    let partition = describe_quorum::response::PartitionData {
        leader_id: 2,
        leader_epoch: 5,
        high_watermark: 100,
        current_voters: [(1, 99, 1_000), (2, 100, 1_001)].map(replica).to_vec(),
        observers: [(3, -1, -1)].map(replica).to_vec(),
        ..Default::default()
    };
    let topic = describe_quorum::response::TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![partition],
    };
    DescribeQuorumResponse { topics: vec![topic], ..Default::default() }
}

#[tokio::test]
async fn the_quorum_is_described_at_every_version() {
    for version in 0..=2 {
        let script = Script::default().with(move |request| {
            let mut response = quorum(request);
            if version == 2 {
                let listener = describe_quorum::Listener { name: "C".into(), host: "h".into(), port: 9093 };
                response.nodes = vec![describe_quorum::Node { node_id: 1, listeners: vec![listener] }];
            }
            response
        });
        let admin = script.at(ApiKey::DescribeQuorum, version).admin().await;
        let quorum = admin.describe_quorum().await.unwrap();
        assert_eq!((quorum.leader, quorum.leader_epoch, quorum.high_watermark), (Some(2), 5, 100));
        let voters: Vec<_> = quorum.voters.iter().map(|voter| (voter.id, voter.log_end_offset)).collect();
        assert_eq!(voters, [(1, Some(99)), (2, Some(100))]);
        assert_eq!(quorum.voters[0].last_fetch_ms, (version >= 1).then_some(1_000));
        assert_eq!((quorum.observers[0].id, quorum.observers[0].log_end_offset), (3, None));
        assert_eq!(quorum.nodes.len(), usize::from(version == 2));
    }
    let admin =
        Script::default().with(|_: DescribeQuorumRequest| DescribeQuorumResponse::default()).admin().await;
    assert!(admin.describe_quorum().await.unwrap_err().to_string().contains("leaves out"));
}

#[tokio::test]
async fn voters_are_added_and_removed() {
    let voter = RaftVoter { id: 4, directory_id: Uuid::from_u128(44) };
    let admin = Script::default()
        .with(move |request: AddRaftVoterRequest| {
            assert_eq!((request.voter_id, request.voter_directory_id), (4, Uuid::from_u128(44)));
            assert_eq!((request.cluster_id.as_deref(), request.listeners[0].port), (Some("c"), 9093));
            let error_code = ErrorCode::DuplicateVoter.code();
            AddRaftVoterResponse { error_code, error_message: Some("it is one".into()), ..Default::default() }
        })
        .with(move |request: RemoveRaftVoterRequest| {
            assert_eq!((request.voter_id, request.cluster_id), (4, None));
            RemoveRaftVoterResponse::default()
        })
        .admin()
        .await;
    let listener = QuorumListener { name: "CONTROLLER".into(), host: "h".into(), port: 9093 };
    let error = admin.add_raft_voter(Some("c"), voter, &[listener]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::DuplicateVoter));
    assert!(error.to_string().contains("node 4") && error.to_string().contains("it is one"), "{error}");
    admin.remove_raft_voter(None, voter).await.unwrap();
}

#[tokio::test]
async fn fenced_brokers_are_asked_for_where_that_is_possible() {
    for version in 0..=2 {
        let script = Script::default().with(move |request: DescribeClusterRequest| {
            let broker = |broker_id, is_fenced| describe_cluster::DescribeClusterBroker {
                broker_id,
                host: "h".into(),
                is_fenced,
                ..Default::default()
            };
            let mut brokers = vec![broker(3, false), broker(1, false)];
            if request.include_fenced_brokers {
                assert_eq!(version, 2);
                brokers.push(broker(2, true));
            }
            DescribeClusterResponse {
                cluster_id: "c".into(),
                controller_id: 3,
                brokers,
                ..Default::default()
            }
        });
        let admin = script.at(ApiKey::DescribeCluster, version).admin().await;
        let ids = |cluster: towpath_client::ClusterDescription| -> Vec<_> {
            cluster.brokers.iter().map(|broker| (broker.id, broker.is_fenced)).collect()
        };
        assert_eq!(ids(admin.describe_cluster().await.unwrap()), [(1, false), (3, false)]);
        let all = ids(admin.describe_cluster_with_fenced().await.unwrap());
        let known =
            if version == 2 { vec![(1, false), (2, true), (3, false)] } else { vec![(1, false), (3, false)] };
        assert_eq!(all, known);
    }
    let without = Script::default().admin().await;
    assert_eq!(without.describe_cluster_with_fenced().await.unwrap().brokers.len(), 2);
}

#[tokio::test]
async fn log_dirs_of_every_broker_have_their_result() {
    let admin = Script::default()
        .with(|request: DescribeLogDirsRequest| {
            assert_eq!(request.topics, None);
            let partition = |(partition_index, partition_size)| describe_log_dirs::DescribeLogDirsPartition {
                partition_index,
                partition_size,
                offset_lag: 3,
                is_future_key: false,
            };
            let topic = describe_log_dirs::DescribeLogDirsTopic {
                name: "a".into(),
                partitions: [(1, 10), (0, 20)].map(partition).to_vec(),
            };
            let sound = describe_log_dirs::DescribeLogDirsResult {
                log_dir: "/data".into(),
                topics: vec![topic],
                total_bytes: 1_000,
                usable_bytes: -1,
                ..Default::default()
            };
            let failed = describe_log_dirs::DescribeLogDirsResult {
                error_code: ErrorCode::KafkaStorageError.code(),
                log_dir: "/bad".into(),
                ..Default::default()
            };
            DescribeLogDirsResponse { results: vec![sound, failed], ..Default::default() }
        })
        .admin()
        .await;
    let results = admin.describe_log_dirs(&[1, 2, 9]).await.unwrap();
    assert!(results[&9].is_err(), "nobody knows such a broker");
    for broker in [1, 2] {
        let [sound, failed] = &results[&broker].as_ref().unwrap()[..] else { panic!("two directories") };
        assert_eq!((sound.total_bytes, sound.usable_bytes, sound.error), (Some(1_000), None, None));
        let sizes: Vec<_> = sound.replicas.iter().map(|it| (it.partition.clone(), it.size_bytes)).collect();
        assert_eq!(sizes, [(at("a", 0), 20), (at("a", 1), 10)]);
        assert_eq!(failed.error, Some(ErrorCode::KafkaStorageError));
    }
}

#[tokio::test]
async fn brokers_are_unregistered_and_features_changed() {
    let admin = Script::default()
        .with(|request: UnregisterBrokerRequest| {
            let unknown = request.broker_id != 7;
            let error_code = if unknown { ErrorCode::BrokerIdNotRegistered.code() } else { 0 };
            UnregisterBrokerResponse { error_code, ..Default::default() }
        })
        .admin()
        .await;
    admin.unregister_broker(7).await.unwrap();
    let unknown = admin.unregister_broker(8).await.unwrap_err();
    assert_eq!(unknown.code(), Some(ErrorCode::BrokerIdNotRegistered));

    let update = FeatureUpdate {
        feature: "metadata.version".into(),
        level: 20,
        upgrade: FeatureUpgrade::UnsafeDowngrade,
    };
    for version in 0..=2 {
        let script = Script::default().with(move |request: UpdateFeaturesRequest| {
            let sent = &request.feature_updates[0];
            assert_eq!(
                (sent.upgrade_type, sent.allow_downgrade),
                if version == 0 { (1, true) } else { (3, false) }
            );
            let refused = update_features::UpdatableFeatureResult {
                feature: "metadata.version".into(),
                error_code: ErrorCode::FeatureUpdateFailed.code(),
                error_message: None,
            };
            let results = if version < 2 { vec![refused] } else { Vec::new() };
            UpdateFeaturesResponse { results, ..Default::default() }
        });
        let admin = script.at(ApiKey::UpdateFeatures, version).admin().await;
        let results = admin.update_features(std::slice::from_ref(&update), false).await.unwrap();
        assert_eq!(results["metadata.version"].is_ok(), version == 2);
    }
}
