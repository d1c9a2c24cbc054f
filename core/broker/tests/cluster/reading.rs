//! Reading from any replica, and being told where to read and write.

use std::time::Duration;

use tokio::time::Instant;
use towpath_wire::delete_records::{DeleteRecordsPartition, DeleteRecordsTopic};
use towpath_wire::{DeleteRecordsRequest, ErrorCode, FetchRequest, FetchResponse};
use uuid::Uuid;

use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::{batch, code, fetch_request, produce_request, records};

const SAFE: &[(&str, &str)] = &[("min.insync.replicas", "2")];

async fn with_topic(adjust: impl Fn(&mut towpath_broker::BrokerConfig)) -> (TestCluster, Uuid) {
    let cluster = TestCluster::start_with(3, adjust).await;
    cluster.create_topic_on(1, "t", &[1, 2, 3], SAFE).await;
    cluster.until("t", "all in sync", |partition| partition.isr_nodes.len() == 3).await;
    let id = cluster.metadata(1, "t").await.topics[0].topic_id;
    (cluster, id)
}

/// A rack to each node, and consumers read in their own.
fn in_racks(config: &mut towpath_broker::BrokerConfig) {
    config.rack = Some(format!("rack-{}", config.node_id.get()));
    config.replication.rack_aware_reads = true;
}

/// By topic id (v13 and later).
fn by_id(id: Uuid, offset: i64, epoch: i32) -> FetchRequest {
    let mut request = fetch_request("t", 0, offset);
    request.topics[0].topic_id = id;
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    request
}

async fn fetch(cluster: &TestCluster, node: i32, version: i16, request: &FetchRequest) -> FetchResponse {
    let response = cluster.client(node).call(version, request).await;
    assert_eq!(code(response.error_code), ErrorCode::None);
    response
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_the_wrong_node_is_told_the_leader() {
    let (cluster, id) = with_topic(|_| {}).await;
    let metadata = cluster.metadata(1, "t").await;
    let (leader, epoch) = {
        let partition = &metadata.topics[0].partitions[0];
        (partition.leader_id, partition.leader_epoch)
    };
    let other = leader % 3 + 1;
    let mut client = cluster.client(other);
    for acks in [1, -1] {
        let response = client.call(10, &produce_request("t", 0, acks, batch(&["x"]))).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(code(partition.error_code), ErrorCode::NotLeaderOrFollower);
        assert_eq!(
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch),
            (leader, epoch)
        );
        assert_eq!(response.node_endpoints.len(), 1);
        let endpoint = &response.node_endpoints[0];
        assert_eq!((endpoint.node_id, endpoint.port), (leader, cluster.port(leader)));
    }
    // Older versions have no place for it.
    let response = client.call(9, &produce_request("t", 0, 1, batch(&["x"]))).await;
    let refused = &response.responses[0].partition_responses[0];
    assert_eq!(code(refused.error_code), ErrorCode::NotLeaderOrFollower);
    // Before version 11 consumers read from leaders only.
    let old = fetch(&cluster, other, 10, &fetch_request("t", 0, 0)).await;
    assert_eq!(code(old.responses[0].partitions[0].error_code), ErrorCode::NotLeaderOrFollower);
    // An epoch that is over is told as such, with the one that is not.
    for version in [12, 16, 17] {
        let response = fetch(&cluster, leader, version, &by_id(id, 0, epoch + 1)).await;
        let error = code(response.responses[0].partitions[0].error_code);
        assert_eq!(error, ErrorCode::UnknownLeaderEpoch, "version {version}");
        if epoch == 0 {
            continue;
        }
        let response = fetch(&cluster, other, version, &by_id(id, 0, epoch - 1)).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(code(partition.error_code), ErrorCode::FencedLeaderEpoch, "version {version}");
        assert_eq!(
            (partition.current_leader.leader_id, partition.current_leader.leader_epoch),
            (leader, epoch)
        );
        let endpoints: Vec<_> =
            response.node_endpoints.iter().map(|node| (node.node_id, node.port)).collect();
        let expected = if version >= 16 { vec![(leader, cluster.port(leader))] } else { Vec::new() };
        assert_eq!(endpoints, expected, "version {version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_leader_tells_the_new_one() {
    let (mut cluster, id) = with_topic(|_| {}).await;
    let leader = cluster.leader("t").await;
    let epoch = cluster.metadata(leader, "t").await.topics[0].partitions[0].leader_epoch;
    cluster.kill(leader);
    let next = cluster.leader_other_than("t", leader).await;
    cluster.start_node(leader).await;
    cluster.until("t", "all in sync", |partition| partition.isr_nodes.len() == 3).await;
    let response = fetch(&cluster, leader, 17, &by_id(id, 0, epoch)).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(code(partition.error_code), ErrorCode::FencedLeaderEpoch);
    assert_eq!(partition.current_leader.leader_id, next);
    assert_eq!(response.node_endpoints[0].port, cluster.port(next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_read_from_followers_up_to_their_high_watermark() {
    let (cluster, id) = with_topic(|_| {}).await;
    for value in ["a", "b", "c"] {
        cluster.produce("t", batch(&[value])).await;
    }
    cluster.until_ends("t", &[1, 2, 3], (0, 3, 3)).await;
    for node in 1..=3 {
        for version in [11, 12, 17] {
            let response = fetch(&cluster, node, version, &by_id(id, 1, -1)).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!((code(partition.error_code), partition.high_watermark), (ErrorCode::None, 3));
            assert_eq!(records(partition), [(1, "b".to_owned()), (2, "c".to_owned())], "node {node}");
        }
        let past = fetch(&cluster, node, 12, &fetch_request("t", 0, 9)).await;
        assert_eq!(code(past.responses[0].partitions[0].error_code), ErrorCode::OffsetOutOfRange);
    }
    // A consumer that waits at a follower is woken by what is committed.
    let follower = cluster.leader("t").await % 3 + 1;
    let mut client = cluster.client(follower);
    let waiting = FetchRequest { max_wait_ms: 50_000, ..fetch_request("t", 0, 3) };
    let sent = client.send(12, &waiting).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    cluster.produce("t", batch(&["d"])).await;
    let response: FetchResponse = client.receive::<FetchRequest>(12, sent).await;
    assert_eq!(records(&response.responses[0].partitions[0]), [(3, "d".to_owned())]);
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_sent_to_the_replica_in_its_rack() {
    let (cluster, _) = with_topic(in_racks).await;
    cluster.produce("t", batch(&["a"])).await;
    cluster.until_ends("t", &[1, 2, 3], (0, 1, 1)).await;
    let leader = cluster.leader("t").await;
    for node in 1..=3 {
        let request = FetchRequest { rack_id: format!("rack-{node}"), ..fetch_request("t", 0, 0) };
        let response = fetch(&cluster, leader, 12, &request).await;
        let partition = &response.responses[0].partitions[0];
        let expected = if node == leader { -1 } else { node };
        assert_eq!(
            (partition.preferred_read_replica, code(partition.error_code)),
            (expected, ErrorCode::None)
        );
        assert_eq!(records(partition).is_empty(), node != leader);
        // It reads there and is not sent on.
        let there = fetch(&cluster, node, 12, &request).await;
        let partition = &there.responses[0].partitions[0];
        assert_eq!((partition.preferred_read_replica, records(partition).len()), (-1, 1));
    }
    for rack in ["", "elsewhere"] {
        let request = FetchRequest { rack_id: rack.to_owned(), ..fetch_request("t", 0, 0) };
        let response = fetch(&cluster, leader, 12, &request).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!((partition.preferred_read_replica, records(partition).len()), (-1, 1));
    }
}

/// In a session an answer leaves out partitions without news; a nearer replica is news.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nearer_replica_is_told_within_a_session() {
    let (mut cluster, _) = with_topic(in_racks).await;
    let leader = cluster.leader("t").await;
    let near = leader % 3 + 1;
    cluster.kill(near);
    cluster.until("t", "two in sync", |partition| partition.isr_nodes.len() == 2).await;
    let mut client = cluster.client(leader);
    let first =
        FetchRequest { session_epoch: 0, rack_id: format!("rack-{near}"), ..fetch_request("t", 0, 0) };
    let response = client.call(12, &first).await;
    assert_eq!(response.responses[0].partitions[0].preferred_read_replica, -1, "it is not there");
    cluster.start_node(near).await;
    cluster.until("t", "all in sync", |partition| partition.isr_nodes.len() == 3).await;
    let mut next =
        FetchRequest { session_id: response.session_id, session_epoch: 1, topics: Vec::new(), ..first };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = client.call(12, &next).await;
        assert_eq!(code(response.error_code), ErrorCode::None);
        if let Some(topic) = response.responses.first() {
            assert_eq!(topic.partitions[0].preferred_read_replica, near);
            break;
        }
        assert!(Instant::now() < deadline);
        next.session_epoch += 1;
        moment().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_are_gone_everywhere_when_the_answer_is_there() {
    let (mut cluster, _) = with_topic(|_| {}).await;
    for value in ["a", "b", "c"] {
        cluster.produce("t", batch(&[value])).await;
    }
    let leader = cluster.leader("t").await;
    let request = |offset: i64, timeout_ms: i32| DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: "t".to_owned(),
            partitions: vec![DeleteRecordsPartition { partition_index: 0, offset }],
        }],
        timeout_ms,
    };
    let begun = Instant::now();
    let deleted = cluster.client(leader).call(2, &request(2, 60_000)).await;
    let result = &deleted.topics[0].partitions[0];
    assert_eq!((code(result.error_code), result.low_watermark), (ErrorCode::None, 2));
    for node in 1..=3 {
        assert_eq!(cluster.ends(node, "t").map(|ends| ends.0), Some(2), "node {node}");
    }
    assert!(begun.elapsed() < Duration::from_secs(40), "{:?}", begun.elapsed());
    let other = leader % 3 + 1;
    let refused = cluster.client(other).call(2, &request(3, 1_000)).await;
    assert_eq!(code(refused.topics[0].partitions[0].error_code), ErrorCode::NotLeaderOrFollower);
    // A new leader does not bring them back.
    cluster.kill(leader);
    let next = cluster.leader_other_than("t", leader).await;
    let mut client = cluster.client(next);
    assert_eq!(code(client.fetch("t", 0, 1).await.error_code), ErrorCode::OffsetOutOfRange);
    // And one that returns has them no longer.
    cluster.produce("t", batch(&["d"])).await;
    let deleted = client.call(2, &request(-1, 10_000)).await;
    assert_eq!(deleted.topics[0].partitions[0].low_watermark, 4);
    cluster.start_node(leader).await;
    cluster.until_ends("t", &[1, 2, 3], (4, 4, 4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_at_the_leader_reaches_the_followers() {
    let cluster = TestCluster::start_with(3, |config| {
        // Only node 1 looks at its segments by itself.
        let seconds = if config.node_id.get() == 1 { 1 } else { 3_600 };
        config.retention_check_interval = Duration::from_secs(seconds);
    })
    .await;
    let configs =
        [("min.insync.replicas", "2"), ("segment.bytes", "1048576"), ("retention.bytes", "1048576")];
    cluster.create_topic_on(1, "t", &[1, 2, 3], &configs).await;
    let large = "x".repeat(300_000);
    for offset in 0..16 {
        assert_eq!(cluster.produce("t", batch(&[&large])).await, offset);
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let starts: Vec<i64> = (1..=3).map(|id| cluster.ends(id, "t").unwrap().0).collect();
        if starts[0] > 0 && starts.iter().all(|start| *start == starts[0]) {
            break;
        }
        assert!(Instant::now() < deadline, "{starts:?}");
        moment().await;
    }
}

/// `acks=1` asks for the leader alone, also where a record counts only once it is flushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_of_one_wait_for_the_leaders_disk_only() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic_on(1, "t", &[1, 2], &[("flush.messages", "1")]).await;
    cluster.until("t", "in sync", |partition| partition.isr_nodes.len() == 2).await;
    let leader = cluster.leader("t").await;
    cluster.produce("t", batch(&["a"])).await;
    let follower = 3 - leader;
    let mut client = cluster.client(leader);
    cluster.kill(follower);
    let begun = Instant::now();
    let mut request = produce_request("t", 0, 1, batch(&["b"]));
    request.timeout_ms = 20_000;
    let response = client.call(9, &request).await;
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!((code(partition.error_code), partition.base_offset), (ErrorCode::None, 1));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
