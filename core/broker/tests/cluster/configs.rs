//! Configurations that change while brokers run, in a cluster: set through any node, in force on all.

use std::time::{Duration, Instant};

use towpath_wire::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use towpath_wire::describe_configs::DescribeConfigsResource;
use towpath_wire::incremental_alter_configs::{AlterConfigsResource, AlterableConfig};
use towpath_wire::{
    AlterPartitionReassignmentsRequest, DescribeConfigsRequest, ErrorCode, IncrementalAlterConfigsRequest,
};

use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::{batch, code, produce_request};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Sets a configuration, or takes it back.
async fn set(
    cluster: &TestCluster,
    at: i32,
    (resource_type, name): (i8, &str),
    key: &str,
    value: Option<&str>,
) {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type,
            resource_name: name.to_owned(),
            configs: vec![AlterableConfig {
                name: key.to_owned(),
                config_operation: i8::from(value.is_none()),
                value: value.map(str::to_owned),
            }],
        }],
        validate_only: false,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = cluster.client(at).call(1, &request).await.responses.remove(0);
        match code(response.error_code) {
            ErrorCode::None => return,
            // Another node is about to decide.
            ErrorCode::NotController if Instant::now() < deadline => moment().await,
            error => panic!("{error:?}: {:?}", response.error_message),
        }
    }
}

/// Value and source of a topic's configuration as a node tells it.
async fn told(cluster: &TestCluster, at: i32, topic: &str, key: &str) -> (String, i8) {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.to_owned(),
            configuration_keys: Some(vec![key.to_owned()]),
        }],
        ..Default::default()
    };
    let config = cluster.client(at).call(4, &request).await.results.remove(0).configs.remove(0);
    (config.value.unwrap(), config.config_source)
}

async fn until_told(cluster: &TestCluster, at: i32, topic: &str, key: &str, expected: (&str, i8)) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = told(cluster, at, topic, key).await;
        if (told.0.as_str(), told.1) == expected {
            return;
        }
        assert!(Instant::now() < deadline, "node {at} tells {told:?}, not {expected:?}");
        moment().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defaults_of_topics_are_in_force_on_every_node() {
    let mut cluster = TestCluster::start(3).await;
    let node = cluster.not_the_controller().await;
    cluster.create_topic_on(node, "t", &[1, 2, 3], &[]).await;
    set(&cluster, node, (BROKER, ""), "min.insync.replicas", Some("2")).await;
    set(&cluster, node, (BROKER, ""), "log.retention.ms", Some("100000")).await;
    set(&cluster, node, (BROKER, "2"), "log.retention.ms", Some("200000")).await;
    for at in 1..=3 {
        let expected = if at == 2 { ("200000", 2) } else { ("100000", 3) };
        until_told(&cluster, at, "t", "retention.ms", expected).await;
        until_told(&cluster, at, "t", "min.insync.replicas", ("2", 3)).await;
    }
    // It decides what leaders acknowledge.
    cluster.produce("t", batch(&["a"])).await;
    let leader = cluster.leader("t").await;
    let others: Vec<i32> = (1..=3).filter(|id| *id != leader).collect();
    cluster.kill(others[0]);
    cluster.until("t", "one left the ISR", |partition| partition.isr_nodes.len() == 2).await;
    cluster.produce("t", batch(&["b"])).await;
    set(&cluster, leader, (BROKER, ""), "min.insync.replicas", Some("3")).await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let response = cluster.client(leader).call(9, &produce_request("t", 0, -1, batch(&["c"]))).await;
        let error = code(response.responses[0].partition_responses[0].error_code);
        if error == ErrorCode::NotEnoughReplicas {
            break;
        }
        assert!(Instant::now() < deadline, "{error:?}");
        moment().await;
    }
    set(&cluster, leader, (BROKER, ""), "min.insync.replicas", None).await;
    cluster.produce("t", batch(&["d"])).await;
    // Whoever was away knows it when it is back.
    cluster.start_node(others[0]).await;
    let expected = if others[0] == 2 { ("200000", 2) } else { ("100000", 3) };
    until_told(&cluster, others[0], "t", "retention.ms", expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throttled_replicas_are_fetched_no_faster_than_allowed() {
    let cluster = TestCluster::start(3).await;
    cluster.create_topic_on(1, "t", &[1, 2], &[("min.insync.replicas", "1")]).await;
    let large = batch(&[&"x".repeat(100_000)]);
    for _ in 0..10 {
        cluster.produce("t", large.clone()).await;
    }
    let leader = cluster.leader("t").await;
    // The leader's side at first: nothing goes to the replica that is added.
    set(&cluster, 2, (TOPIC, "t"), "leader.replication.throttled.replicas", Some("0:3")).await;
    set(&cluster, 2, (BROKER, &leader.to_string()), "leader.replication.throttled.rate", Some("0")).await;
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: "t".to_owned(),
            partitions: vec![ReassignablePartition { partition_index: 0, replicas: Some(vec![1, 2, 3]) }],
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer = cluster.client(1).call(0, &request).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, 0, "{answer:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.ends(3, "t").map(|ends| ends.1), Some(0), "held back by its leader");
    // Whoever is in sync is not held back.
    cluster.produce("t", batch(&["y"])).await;
    // Then the follower's.
    set(&cluster, 2, (BROKER, "3"), "follower.replication.throttled.rate", Some("0")).await;
    set(&cluster, 2, (TOPIC, "t"), "follower.replication.throttled.replicas", Some("*")).await;
    let deadline = Instant::now() + PATIENCE;
    while told(&cluster, 3, "t", "follower.replication.throttled.replicas").await.0 != "*" {
        assert!(Instant::now() < deadline);
        moment().await;
    }
    // A fetch that is under way is answered yet; with the leader's bound in force it brings nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    set(&cluster, 2, (BROKER, &leader.to_string()), "leader.replication.throttled.rate", None).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.ends(3, "t").map(|ends| ends.1), Some(0), "it holds itself back");
    // A megabyte at a third of it a second, of which the first is saved up.
    let begun = Instant::now();
    set(&cluster, 2, (BROKER, "3"), "follower.replication.throttled.rate", Some("300000")).await;
    cluster.until("t", "in sync", |partition| partition.isr_nodes.contains(&3)).await;
    assert!(begun.elapsed() < PATIENCE);
    cluster.until_ends("t", &[1, 2, 3], (0, 11, 11)).await;
}
