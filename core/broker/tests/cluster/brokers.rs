//! Brokers that come, go and are gone for good.

use towpath_wire::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use towpath_wire::{
    AlterPartitionReassignmentsRequest, DescribeClusterRequest, ErrorCode, UnregisterBrokerRequest,
};

use crate::failover::values;
use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::{batch, code};

const SAFE: &[(&str, &str)] = &[("min.insync.replicas", "2")];

/// The brokers that a node's metadata name, and those that are fenced.
async fn brokers(cluster: &TestCluster, at: i32) -> (Vec<i32>, Vec<i32>) {
    let named = cluster.metadata(at, "t").await.brokers.iter().map(|broker| broker.node_id).collect();
    let request =
        DescribeClusterRequest { include_fenced_brokers: true, endpoint_type: 1, ..Default::default() };
    let described = cluster.client(at).call(2, &request).await;
    let fenced = described.brokers.iter().filter(|broker| broker.is_fenced).map(|broker| broker.broker_id);
    (named, fenced.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_broker_is_not_named_and_its_replicas_are_offline() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic_on(1, "t", &[1, 2, 3], SAFE).await;
    cluster.produce("t", batch(&["a"])).await;
    for (round, id) in [3, 1].into_iter().enumerate() {
        if round == 0 {
            cluster.kill(id)
        } else {
            cluster.stop(id).await
        }
        cluster.until("t", "offline", |partition| partition.offline_replicas == [id]).await;
        cluster.until("t", "out of sync", |partition| !partition.isr_nodes.contains(&id)).await;
        for at in cluster.running() {
            let (named, fenced) = brokers(&cluster, at).await;
            assert_eq!((named.contains(&id), fenced), (false, vec![id]), "node {id} as node {at} tells it");
        }
        cluster.start_node(id).await;
        cluster.until("t", "back", |partition| partition.offline_replicas.is_empty()).await;
        cluster.until("t", "in sync", |partition| partition.isr_nodes.len() == 3).await;
        assert_eq!(brokers(&cluster, 2).await, (vec![1, 2, 3], Vec::new()));
    }
}

async fn reassign(cluster: &TestCluster, replicas: &[i32]) {
    let at = cluster.running()[0];
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: "t".to_owned(),
            partitions: vec![ReassignablePartition { partition_index: 0, replicas: Some(replicas.to_vec()) }],
        }],
        timeout_ms: 10_000,
        ..Default::default()
    };
    let answer = cluster.client(at).call(0, &request).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, 0, "{answer:?}");
    cluster.until("t", "moved", |partition| partition.replica_nodes == replicas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_no_controller_comes_works_and_goes() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic_on(1, "t", &[1, 2, 3], SAFE).await;
    for value in ["0", "1", "2"] {
        cluster.produce("t", batch(&[value])).await;
    }
    let new = cluster.add_broker(|_| {}).await;
    assert_eq!(new, 4);
    reassign(&cluster, &[4, 1, 2]).await;
    cluster.until_ends("t", &[1, 2, 4], (0, 3, 3)).await;
    assert_eq!(cluster.ends(3, "t"), None);
    // It leads when the others are gone, and after a restart of its own.
    cluster.stop(1).await;
    cluster.produce("t", batch(&["3"])).await;
    cluster.start_node(1).await;
    cluster.kill(new);
    cluster.produce("t", batch(&["4"])).await;
    cluster.start_node(new).await;
    cluster.until("t", "in sync", |partition| partition.isr_nodes.len() == 3).await;
    assert_eq!(values(&cluster, "t").await, ["0", "1", "2", "3", "4"]);
    // Drained, stopped, unregistered.
    reassign(&cluster, &[1, 2, 3]).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while cluster.ends(new, "t").is_some() {
        assert!(tokio::time::Instant::now() < deadline);
        moment().await;
    }
    cluster.stop(new).await;
    let at = cluster.not_the_controller().await;
    let gone = cluster.client(at).call(0, &UnregisterBrokerRequest { broker_id: new }).await;
    assert_eq!(code(gone.error_code), ErrorCode::None);
    assert_eq!(
        brokers(&cluster, at).await,
        (vec![1, 2, 3], Vec::new()),
        "seen at once where it was asked for"
    );
    assert_eq!(values(&cluster, "t").await, ["0", "1", "2", "3", "4"]);
    // Under the same id it may come again.
    cluster.start_node(new).await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while brokers(&cluster, 1).await.0 != [1, 2, 3, 4] {
        assert!(tokio::time::Instant::now() < deadline);
        moment().await;
    }
}
