//! Nodes that go and come back: what was acknowledged stays, what was not goes everywhere alike.

use towpath_wire::create_topics::CreatableTopic;
use towpath_wire::delete_topics::DeleteTopicState;
use towpath_wire::{CreateTopicsRequest, DeleteTopicsRequest, ErrorCode};

use crate::failover::{until_values, values};
use crate::nodes::{TestCluster, moment};
use crate::support::{batch, code, produce_request};

const SAFE: &[(&str, &str)] = &[("min.insync.replicas", "2")];

fn numbers(count: i64) -> Vec<String> {
    (0..count).map(|value| value.to_string()).collect()
}

async fn all_in_sync(cluster: &TestCluster, topic: &str) {
    let count = cluster.running().len();
    cluster.until(topic, "all in sync", |partition| partition.isr_nodes.len() == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_killed_at_once_lose_nothing() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, SAFE).await;
    let mut next = 0;
    for _ in 0..3 {
        for _ in 0..10 {
            assert_eq!(cluster.produce("t", batch(&[&next.to_string()])).await, next);
            next += 1;
        }
        (1..=3).for_each(|id| cluster.kill(id));
        cluster.start_all().await;
        until_values(&cluster, "t", &numbers(next)).await;
    }
    all_in_sync(&cluster, "t").await;
    cluster.until_ends("t", &[1, 2, 3], (0, next, next)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_nodes_stopped_at_once_lose_nothing_and_stop_soon() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, SAFE).await;
    let mut next = 0;
    for _ in 0..2 {
        for _ in 0..10 {
            assert_eq!(cluster.produce("t", batch(&[&next.to_string()])).await, next);
            next += 1;
        }
        let begun = std::time::Instant::now();
        cluster.stop_all().await;
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
        cluster.start_all().await;
        until_values(&cluster, "t", &numbers(next)).await;
    }
    all_in_sync(&cluster, "t").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_node_comes_back_and_has_everything_again() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, SAFE).await;
    let mut next = 0;
    for id in 1..=3 {
        for _ in 0..5 {
            assert_eq!(cluster.produce("t", batch(&[&next.to_string()])).await, next);
            next += 1;
        }
        cluster.kill(id);
        cluster.wipe(id);
        assert_eq!(cluster.produce("t", batch(&[&next.to_string()])).await, next, "the others go on");
        next += 1;
        cluster.start_node(id).await;
        all_in_sync(&cluster, "t").await;
        cluster.until_ends("t", &[1, 2, 3], (0, next, next)).await;
        until_values(&cluster, "t", &numbers(next)).await;
    }
}

/// What the leader alone has when it dies is cut off when it comes back, and another record is in its place: here after an
/// election that the topic allows to lose it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_leader_cuts_off_what_only_it_had() {
    let mut cluster = TestCluster::start(3).await;
    let configs = [("min.insync.replicas", "1"), ("unclean.leader.election.enable", "true")];
    cluster.create_topic_on(1, "t", &[1, 2], &configs).await;
    all_in_sync_of(&cluster, "t", 2).await;
    assert_eq!(cluster.produce("t", batch(&["kept"])).await, 0);
    let leader = cluster.leader("t").await;
    let other = 3 - leader;
    cluster.until_ends("t", &[1, 2], (0, 1, 1)).await;
    cluster.kill(other);
    all_in_sync_of(&cluster, "t", 1).await;
    for (offset, value) in [(1, "lost"), (2, "lost, too")] {
        assert_eq!(cluster.produce("t", batch(&[value])).await, offset);
    }
    cluster.kill(leader);
    cluster.start_node(other).await;
    assert_eq!(cluster.leader_other_than("t", leader).await, other);
    assert_eq!(cluster.produce("t", batch(&["in their place"])).await, 1);
    cluster.start_node(leader).await;
    all_in_sync_of(&cluster, "t", 2).await;
    cluster.until_ends("t", &[1, 2], (0, 2, 2)).await;
    assert_eq!(values(&cluster, "t").await, ["kept", "in their place"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_in_sync_refuse_and_one_more_lets_through() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic_on(1, "t", &[1, 2], SAFE).await;
    all_in_sync_of(&cluster, "t", 2).await;
    assert_eq!(cluster.produce("t", batch(&["0"])).await, 0);
    let leader = cluster.leader("t").await;
    cluster.kill(3 - leader);
    cluster.until("t", "one in sync", |partition| partition.isr_nodes.len() == 1).await;
    let mut client = cluster.client(leader);
    let refused = client.call(9, &produce_request("t", 0, -1, batch(&["x"]))).await;
    let refused = code(refused.responses[0].partition_responses[0].error_code);
    assert_eq!(refused, ErrorCode::NotEnoughReplicas);
    let one = client.call(9, &produce_request("t", 0, 1, batch(&["1"]))).await;
    assert_eq!(one.responses[0].partition_responses[0].error_code, 0, "acks=1 asks for none");
    assert_eq!(client.fetch("t", 0, 0).await.high_watermark, 1, "and is seen by nobody");
    cluster.start_node(3 - leader).await;
    all_in_sync_of(&cluster, "t", 2).await;
    assert_eq!(cluster.produce("t", batch(&["2"])).await, 2);
    assert_eq!(values(&cluster, "t").await, numbers(3));
}

async fn all_in_sync_of(cluster: &TestCluster, topic: &str, count: usize) {
    cluster.until(topic, "in sync", |partition| partition.isr_nodes.len() == count).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_deleted_meanwhile_is_gone_from_a_returning_nodes_disk() {
    let mut cluster = TestCluster::start(3).await;
    for name in ["t", "u"] {
        cluster.create_topic(1, name, 3, SAFE).await;
        cluster.produce(name, batch(&["old"])).await;
        all_in_sync(&cluster, name).await;
    }
    assert!(cluster.dir(3).join("t-0").exists() && cluster.dir(3).join("u-0").exists());
    cluster.kill(3);
    let at = cluster.running()[0];
    let names = ["t", "u"].map(|name| DeleteTopicState { name: Some(name.to_owned()), ..Default::default() });
    let request = DeleteTopicsRequest { topics: names.into(), timeout_ms: 10_000, ..Default::default() };
    let deleted = cluster.client(at).call(6, &request).await;
    assert!(deleted.responses.iter().all(|result| result.error_code == 0), "{deleted:?}");
    // One comes again under the same name; the records of the old one are not its own.
    let again = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "u".to_owned(),
            num_partitions: 1,
            replication_factor: 2,
            ..Default::default()
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let created = cluster.client(at).call(7, &again).await;
    assert_eq!(created.topics[0].error_code, 0, "{created:?}");
    cluster.produce("u", batch(&["new"])).await;
    cluster.start_node(3).await;
    assert!(!cluster.dir(3).join("t-0").exists() && !cluster.dir(3).join("u-0").exists());
    for id in 1..=2 {
        assert!(!cluster.dir(id).join("t-0").exists());
    }
    assert_eq!(values(&cluster, "u").await, ["new"]);
    moment().await;
}
