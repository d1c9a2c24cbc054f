//! Groups and their offsets when the node that coordinates them is lost.

use bytes::Bytes;
use tokio::time::Instant;
use towpath_wire::join_group::JoinGroupRequestProtocol;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use towpath_wire::sync_group::SyncGroupRequestAssignment;
use towpath_wire::{
    ErrorCode, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};

use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::{code, init_producer_id};

/// A member of the group `g`.
struct Member {
    id: String,
    generation: i32,
}

/// The coordinator of a group as the nodes tell it, once it runs and serves the group.
async fn coordinator(cluster: &TestCluster) -> i32 {
    let deadline = Instant::now() + PATIENCE;
    let mut told = Vec::new();
    loop {
        told.clear();
        for id in cluster.running() {
            let request =
                FindCoordinatorRequest { coordinator_keys: vec!["g".to_owned()], ..Default::default() };
            let found = cluster.client(id).call(6, &request).await.coordinators.remove(0);
            told.push((id, found.error_code, found.node_id));
        }
        let (_, error, node) = told[0];
        let agreed = told.iter().all(|found| (found.1, found.2) == (error, node));
        if agreed && error == 0 && cluster.running().contains(&node) && fetch(cluster, node).await.is_ok() {
            return node;
        }
        assert!(Instant::now() < deadline, "{told:?}");
        moment().await;
    }
}

async fn join(cluster: &TestCluster, node: i32) -> Member {
    let joining = |member: &str| JoinGroupRequest {
        group_id: "g".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".to_owned(),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"),
        }],
        ..Default::default()
    };
    let mut client = cluster.client(node);
    let first = client.call(9, &joining("")).await;
    assert_eq!(code(first.error_code), ErrorCode::MemberIdRequired);
    let joined = client.call(9, &joining(&first.member_id)).await;
    assert_eq!(code(joined.error_code), ErrorCode::None);
    let sync = SyncGroupRequest {
        group_id: "g".to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        protocol_type: joined.protocol_type.clone(),
        protocol_name: joined.protocol_name.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: joined.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        ..Default::default()
    };
    assert_eq!(code(client.call(5, &sync).await.error_code), ErrorCode::None);
    Member { id: joined.member_id, generation: joined.generation_id }
}

async fn commit(cluster: &TestCluster, node: i32, member: &Member, offset: i64) -> ErrorCode {
    let request = OffsetCommitRequest {
        group_id: "g".to_owned(),
        generation_id_or_member_epoch: member.generation,
        member_id: member.id.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".to_owned(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_metadata: Some("note".to_owned()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    code(cluster.client(node).call(8, &request).await.topics[0].partitions[0].error_code)
}

async fn fetch(cluster: &TestCluster, node: i32) -> Result<i64, ErrorCode> {
    let topics = vec![OffsetFetchRequestTopics {
        name: "t".to_owned(),
        partition_indexes: vec![0],
        ..Default::default()
    }];
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: "g".to_owned(),
            topics: Some(topics),
            ..Default::default()
        }],
        ..Default::default()
    };
    let group = cluster.client(node).call(8, &request).await.groups.remove(0);
    match code(group.error_code) {
        ErrorCode::None => Ok(group.topics[0].partitions[0].committed_offset),
        error => Err(error),
    }
}

async fn heartbeat(cluster: &TestCluster, node: i32, member: &Member) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: "g".to_owned(),
        generation_id: member.generation,
        member_id: member.id.clone(),
        ..Default::default()
    };
    code(cluster.client(node).call(4, &request).await.error_code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_survives_the_loss_of_its_coordinator() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, &[]).await;
    let mut node = coordinator(&cluster).await;
    let member = join(&cluster, node).await;
    for round in 0..4 {
        assert_eq!(commit(&cluster, node, &member, round).await, ErrorCode::None);
        // Whoever does not coordinate the group says so.
        let other = cluster.running().into_iter().find(|id| *id != node).unwrap();
        assert_eq!(heartbeat(&cluster, other, &member).await, ErrorCode::NotCoordinator);
        if round % 2 == 0 {
            cluster.kill(node)
        } else {
            cluster.stop(node).await
        }
        let next = coordinator(&cluster).await;
        assert_ne!(next, node);
        assert_eq!(fetch(&cluster, next).await, Ok(round), "round {round}");
        assert_eq!(heartbeat(&cluster, next, &member).await, ErrorCode::None, "the member is still one");
        cluster.start_node(node).await;
        cluster.until("__consumer_offsets", "all in sync", |partition| partition.isr_nodes.len() == 3).await;
        node = coordinator(&cluster).await;
        assert_eq!(fetch(&cluster, node).await, Ok(round));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_survive_the_loss_of_all_nodes_at_once() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, &[]).await;
    let node = coordinator(&cluster).await;
    let member = join(&cluster, node).await;
    assert_eq!(commit(&cluster, node, &member, 7).await, ErrorCode::None);
    (1..=3).for_each(|id| cluster.kill(id));
    cluster.start_all().await;
    let node = coordinator(&cluster).await;
    assert_eq!(fetch(&cluster, node).await, Ok(7));
    assert_eq!(commit(&cluster, node, &member, 8).await, ErrorCode::None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_ids_of_all_nodes_differ() {
    let mut cluster = TestCluster::start(3).await;
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        for _ in 0..5 {
            for id in 1..=3 {
                let response = cluster.client(id).call(4, &init_producer_id()).await;
                assert_eq!(code(response.error_code), ErrorCode::None);
                assert!(seen.insert(response.producer_id), "{} twice", response.producer_id);
            }
        }
        // Neither another controller nor another incarnation gives an id again.
        let controller = cluster.controller().await;
        cluster.kill(controller);
        cluster.start_node(controller).await;
    }
}
