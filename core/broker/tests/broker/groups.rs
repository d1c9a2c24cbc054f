//! Groups and offsets through the protocol, at the lowest and the highest version of each API.

use std::time::Duration;

use bytes::Bytes;
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::join_group::JoinGroupRequestProtocol;
use towpath_wire::leave_group::MemberIdentity;
use towpath_wire::offset_commit::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use towpath_wire::offset_delete::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic};
use towpath_wire::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
};
use towpath_wire::sync_group::SyncGroupRequestAssignment;
use towpath_wire::{
    DeleteGroupsRequest, DeleteTopicsRequest, DescribeGroupsRequest, ErrorCode, FindCoordinatorRequest,
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest,
    OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest,
};
use uuid::Uuid;

use crate::support::{Client, PATIENCE, TestBroker};

fn code(error: ErrorCode) -> i16 {
    error.code()
}

async fn with_group_topic() -> (TestBroker, Client) {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    ready(&mut client).await;
    (broker, client)
}

/// Waits until all groups are served.
async fn ready(client: &mut Client) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        let request = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
        let response = client.call(6, &request).await;
        // A list needs every partition to be loaded.
        let is_found = response.coordinators[0].error_code == 0;
        if is_found && client.call(0, &ListGroupsRequest::default()).await.error_code == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no coordinator");
}

fn joining(member: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            // Version 0, one topic `t`, no user data.
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff"),
        }],
        ..Default::default()
    }
}

/// Joins as the only member, and gets everything assigned.
async fn alone(client: &mut Client, version: i16) -> JoinGroupResponse {
    let mut response = client.call(version, &joining("")).await;
    if version >= 4 {
        assert_eq!(response.error_code, code(ErrorCode::MemberIdRequired));
        response = client.call(version, &joining(&response.member_id)).await;
    }
    assert_eq!(response.error_code, 0);
    assert_eq!(response.leader, response.member_id);
    let sync = SyncGroupRequest {
        group_id: "g".into(),
        generation_id: response.generation_id,
        member_id: response.member_id.clone(),
        assignments: vec![SyncGroupRequestAssignment {
            member_id: response.member_id.clone(),
            assignment: Bytes::from_static(b"all"),
        }],
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        ..Default::default()
    };
    let synced = client.call(if version >= 4 { 5 } else { 0 }, &sync).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    response
}

fn commit(member: &str, generation: i32, topic: &str, topic_id: Uuid, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: generation,
        member_id: member.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            topic_id,
            partitions: [0, 9]
                .map(|partition_index| OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: offset,
                    committed_metadata: Some("note".into()),
                    ..Default::default()
                })
                .into(),
        }],
        ..Default::default()
    }
}

async fn committed(client: &mut Client, version: i16, request: &OffsetCommitRequest) -> Vec<i16> {
    let response = client.call(version, request).await;
    response.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

async fn fetch_group(
    client: &mut Client,
    version: i16,
    topics: Option<Vec<OffsetFetchRequestTopics>>,
) -> OffsetFetchResponseGroup {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup { group_id: "g".into(), topics, ..Default::default() }],
        ..Default::default()
    };
    client.call(version, &request).await.groups.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coordinator_is_found_and_the_offsets_topic_made() {
    let (broker, mut client) = with_group_topic().await;
    assert_eq!(client.topics().await["__consumer_offsets"], 3);
    let request = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
    for version in 0..=3 {
        let response = client.call(version, &request).await;
        assert_eq!((response.error_code, response.node_id), (0, 1));
        assert_eq!(response.host, broker.broker.advertised().host);
    }
    let keys = vec!["g".to_owned(), "h".to_owned()];
    for version in 4..=6 {
        let request = FindCoordinatorRequest { coordinator_keys: keys.clone(), ..Default::default() };
        let response = client.call(version, &request).await;
        assert_eq!(response.coordinators.len(), 2);
        assert_eq!(response.coordinators[1].key, "h");
        assert_eq!(response.coordinators[1].node_id, 1);
    }
    let request = FindCoordinatorRequest { key: "x".into(), key_type: 1, ..Default::default() };
    assert_eq!(client.call(2, &request).await.error_code, 0);
    assert_eq!(client.topics().await["__transaction_state"], 50);
    let request = FindCoordinatorRequest { key: "x".into(), key_type: 7, ..Default::default() };
    assert_eq!(client.call(2, &request).await.error_code, code(ErrorCode::InvalidRequest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_offsets_topic_there_are_no_groups() {
    let broker = TestBroker::start().await;
    let mut client = broker.client();
    let response = client.call(5, &ListGroupsRequest::default()).await;
    assert_eq!((response.error_code, response.groups.len()), (0, 0));
    let response = client.call(0, &joining("")).await;
    assert_eq!(response.error_code, code(ErrorCode::CoordinatorNotAvailable));
    assert!(!client.topics().await.contains_key("__consumer_offsets"), "asking for a group does not make it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_comes_works_and_goes_in_old_and_new_versions() {
    let (_broker, mut client) = with_group_topic().await;
    client.create_topic("t", 1, &[]).await;
    for version in [0, 3, 4, 5, 6, 7, 9] {
        let joined = alone(&mut client, version).await;
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        assert_eq!(joined.members.len(), 1);
        let heartbeat = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(client.call(0, &heartbeat).await.error_code, 0);
        assert_eq!(client.call(4, &heartbeat).await.error_code, 0);
        let leave = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: if version < 5 { joined.member_id.clone() } else { String::new() },
            members: if version < 5 {
                Vec::new()
            } else {
                vec![MemberIdentity { member_id: joined.member_id.clone(), ..Default::default() }]
            },
        };
        let left = client.call(if version < 5 { 0 } else { 5 }, &leave).await;
        assert_eq!(left.error_code, 0);
        assert_eq!(client.call(4, &heartbeat).await.error_code, code(ErrorCode::UnknownMemberId));
    }
    let unknown = LeaveGroupRequest { group_id: "g".into(), member_id: "who".into(), ..Default::default() };
    assert_eq!(client.call(1, &unknown).await.error_code, code(ErrorCode::UnknownMemberId));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_join_does_not_block_other_connections() {
    let (broker, mut client) = with_group_topic().await;
    let first = alone(&mut client, 9).await;
    let mut other = broker.client();
    let pending = other.call(9, &joining("")).await.member_id;
    let waiting = other.send(9, &joining(&pending)).await;
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: first.generation_id,
        member_id: first.member_id.clone(),
        ..Default::default()
    };
    let mut error = 0;
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        error = client.call(4, &heartbeat).await.error_code;
        if error != 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(error, code(ErrorCode::RebalanceInProgress));
    let again = client.call(9, &joining(&first.member_id)).await;
    assert_eq!((again.error_code, again.members.len()), (0, 2));
    let joined = other.receive::<JoinGroupRequest>(9, waiting).await;
    assert_eq!(joined.generation_id, first.generation_id + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_committed_and_fetched_by_name_and_by_id() {
    let (_broker, mut client) = with_group_topic().await;
    let id = client.create_topic("t", 1, &[]).await;
    let (ok, missing) = (0, code(ErrorCode::UnknownTopicOrPartition));
    for version in 2..=9 {
        let request = commit("", -1, "t", Uuid::nil(), i64::from(version));
        assert_eq!(committed(&mut client, version, &request).await, [ok, missing]);
    }
    assert_eq!(
        committed(&mut client, 9, &commit("", -1, "nowhere", Uuid::nil(), 1)).await,
        [missing, missing]
    );
    assert_eq!(committed(&mut client, 10, &commit("", -1, "", id, 10)).await, [ok, missing]);
    let unknown = code(ErrorCode::UnknownTopicId);
    assert_eq!(
        committed(&mut client, 10, &commit("", -1, "", Uuid::from_u128(9), 1)).await,
        [unknown, unknown]
    );

    for version in 1..=7 {
        let topics = vec![OffsetFetchRequestTopic { name: "t".into(), partition_indexes: vec![0, 5] }];
        let request = OffsetFetchRequest { group_id: "g".into(), topics: Some(topics), ..Default::default() };
        let response = client.call(version, &request).await;
        let found: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|partition| {
                (partition.committed_offset, partition.metadata.clone().unwrap(), partition.error_code)
            })
            .collect();
        assert_eq!(found, [(10, "note".to_owned(), 0), (-1, String::new(), 0)], "version {version}");
    }
    let all = OffsetFetchRequest { group_id: "g".into(), topics: None, ..Default::default() };
    assert_eq!(client.call(2, &all).await.topics[0].partitions.len(), 1);
    for version in 8..=10 {
        let by_id = |topic_id| OffsetFetchRequestTopics {
            name: if version < 10 { "t".into() } else { String::new() },
            topic_id,
            partition_indexes: vec![0],
        };
        let asked = if version < 10 { Uuid::nil() } else { id };
        let group = fetch_group(&mut client, version, Some(vec![by_id(asked)])).await;
        assert_eq!((group.error_code, group.topics[0].partitions[0].committed_offset), (0, 10));
        assert_eq!(group.topics[0].topic_id, asked);
        let group = fetch_group(&mut client, version, None).await;
        assert_eq!(group.topics.len(), 1);
        assert_eq!(group.topics[0].topic_id, asked);
    }
    let stranger = OffsetFetchRequestTopics {
        topic_id: Uuid::from_u128(9),
        partition_indexes: vec![0],
        ..Default::default()
    };
    let group = fetch_group(&mut client, 10, Some(vec![stranger])).await;
    assert_eq!(group.topics[0].partitions[0].error_code, unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_nobody_knows_has_no_offsets_and_no_error() {
    let (_broker, mut client) = with_group_topic().await;
    let topics =
        vec![OffsetFetchRequestTopics { name: "t".into(), partition_indexes: vec![0], ..Default::default() }];
    let group = fetch_group(&mut client, 9, Some(topics)).await;
    let partition = &group.topics[0].partitions[0];
    assert_eq!((group.error_code, partition.error_code, partition.committed_offset), (0, 0, -1));
    assert_eq!(partition.metadata.as_deref(), Some(""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_and_offsets_survive_a_restart() {
    let (broker, mut client) = with_group_topic().await;
    client.create_topic("t", 1, &[]).await;
    let joined = alone(&mut client, 9).await;
    let request = commit(&joined.member_id, joined.generation_id, "t", Uuid::nil(), 77);
    assert_eq!(committed(&mut client, 9, &request).await[0], 0);
    broker.broker.shutdown().await.unwrap();
    let TestBroker { broker, dir } = broker;
    drop(broker);
    let broker = TestBroker::start_in(dir, |_| {}).await;
    let mut client = broker.client();
    ready(&mut client).await;
    let group = fetch_group(&mut client, 9, None).await;
    assert_eq!(group.topics[0].partitions[0].committed_offset, 77);
    let heartbeat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    assert_eq!(client.call(4, &heartbeat).await.error_code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_described_listed_and_deleted() {
    let (_broker, mut client) = with_group_topic().await;
    client.create_topic("t", 1, &[]).await;
    let joined = alone(&mut client, 9).await;
    let request = commit(&joined.member_id, joined.generation_id, "t", Uuid::nil(), 1);
    assert_eq!(committed(&mut client, 9, &request).await[0], 0);
    let describe = DescribeGroupsRequest {
        groups: vec!["g".into(), "nobody".into()],
        include_authorized_operations: true,
    };
    for version in [3, 5, 6] {
        let response = client.call(version, &describe).await;
        let group = &response.groups[0];
        assert_eq!((group.group_state.as_str(), group.protocol_data.as_str()), ("Stable", "range"));
        assert_eq!(group.members[0].client_id, "test");
        assert_eq!(group.members[0].member_assignment, "all");
        assert_eq!(group.authorized_operations, 3_400);
        let (state, error) = (&response.groups[1].group_state, response.groups[1].error_code);
        assert_eq!(state, "Dead");
        assert_eq!(error, if version < 6 { 0 } else { code(ErrorCode::GroupIdNotFound) });
    }
    for (version, states, found) in [(0, vec![], 1), (4, vec!["Empty"], 0), (5, vec!["stable"], 1)] {
        let states_filter = states.into_iter().map(str::to_owned).collect();
        let request = ListGroupsRequest { states_filter, ..Default::default() };
        assert_eq!(client.call(version, &request).await.groups.len(), found, "version {version}");
    }
    let delete = DeleteGroupsRequest { groups_names: vec!["g".into(), "nobody".into()] };
    let results = |response: towpath_wire::DeleteGroupsResponse| {
        response.results.into_iter().map(|result| ErrorCode::from_code(result.error_code)).collect::<Vec<_>>()
    };
    let response = results(client.call(0, &delete).await);
    assert_eq!(response, [ErrorCode::NonEmptyGroup, ErrorCode::GroupIdNotFound]);
    let offsets = |topic: &str| OffsetDeleteRequest {
        group_id: "g".into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    for (topic, error) in
        [("t", ErrorCode::GroupSubscribedToTopic), ("nowhere", ErrorCode::UnknownTopicOrPartition)]
    {
        let response = client.call(0, &offsets(topic)).await;
        assert_eq!((response.error_code, response.topics[0].partitions[0].error_code), (0, code(error)));
    }
    let leave = LeaveGroupRequest { group_id: "g".into(), member_id: joined.member_id, ..Default::default() };
    assert_eq!(client.call(2, &leave).await.error_code, 0);
    assert_eq!(client.call(0, &offsets("t")).await.topics[0].partitions[0].error_code, 0);
    assert_eq!(fetch_group(&mut client, 9, None).await.topics, []);
    assert_eq!(results(client.call(2, &delete).await), [ErrorCode::None, ErrorCode::GroupIdNotFound]);
    assert_eq!(client.call(5, &ListGroupsRequest::default()).await.groups, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_go_with_their_topic() {
    let (_broker, mut client) = with_group_topic().await;
    client.create_topic("t", 1, &[]).await;
    assert_eq!(committed(&mut client, 9, &commit("", -1, "t", Uuid::nil(), 5)).await[0], 0);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: Some("t".into()), ..Default::default() }],
        ..Default::default()
    };
    assert_eq!(client.call(6, &delete).await.responses[0].error_code, 0);
    let end = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < end {
        if fetch_group(&mut client, 9, None).await.topics.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the offsets are still there");
}
