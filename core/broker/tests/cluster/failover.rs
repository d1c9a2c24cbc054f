//! Leaders come and go; what was acknowledged stays.

use std::time::Instant;

use towpath_record::batches;

use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::batch;

/// The values of a topic's first partition as its leader gives them.
pub(crate) async fn values(cluster: &TestCluster, topic: &str) -> Vec<String> {
    let leader = cluster.leader(topic).await;
    let mut client = cluster.client(leader);
    let mut found = Vec::new();
    let mut offset = 0;
    loop {
        let fetched = client.fetch(topic, 0, offset).await;
        assert_eq!(fetched.error_code, 0, "{fetched:?}");
        let records = fetched.records.unwrap_or_default();
        if records.is_empty() {
            return found;
        }
        for batch in batches(&records) {
            let batch = batch.unwrap();
            offset = batch.next_offset().get();
            for record in &batch.records().unwrap() {
                found.push(String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap());
            }
        }
    }
}

/// Waits until the values are these: after a restart of all, the leader's high watermark comes back as followers fetch.
pub(crate) async fn until_values(cluster: &TestCluster, topic: &str, expected: &[String]) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let found = values(cluster, topic).await;
        if found == expected {
            return;
        }
        assert!(expected.starts_with(&found), "{found:?}, not {expected:?}");
        assert!(tokio::time::Instant::now() < deadline, "{found:?}, not {expected:?}");
        moment().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_and_records_are_on_all_of_them() {
    let cluster = TestCluster::start(3).await;
    cluster.create_topic(2, "t", 3, &[("min.insync.replicas", "2")]).await;
    cluster.until("t", "all in sync", |partition| partition.isr_nodes.len() == 3).await;
    for value in 0..20 {
        assert_eq!(cluster.produce("t", batch(&[&value.to_string()])).await, value);
    }
    assert_eq!(values(&cluster, "t").await, (0..20).map(|value| value.to_string()).collect::<Vec<_>>());
    let deadline = Instant::now() + PATIENCE;
    for id in 1..=3 {
        loop {
            let ends: Vec<_> = cluster
                .broker(id)
                .partitions()
                .iter()
                .filter(|status| status.partition.topic.as_str() == "t")
                .map(|status| (status.log_end_offset.get(), status.high_watermark.get()))
                .collect();
            if ends == [(20, 20)] {
                break;
            }
            assert!(Instant::now() < deadline, "node {id}: {ends:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_leader_is_replaced_and_nothing_acknowledged_is_lost() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, &[("min.insync.replicas", "2")]).await;
    let mut written = Vec::new();
    for round in 0..6 {
        for value in 0..5 {
            let value = format!("{round}-{value}");
            cluster.produce("t", batch(&[&value])).await;
            written.push(value);
        }
        let leader = cluster.leader("t").await;
        cluster.kill(leader);
        let begun = Instant::now();
        let value = format!("{round}-after");
        cluster.produce("t", batch(&[&value])).await;
        eprintln!(
            "round {round}: node {leader} killed, the next record acknowledged after {:?}",
            begun.elapsed()
        );
        written.push(value);
        assert_eq!(values(&cluster, "t").await, written);
        cluster.start_node(leader).await;
        cluster.until("t", "all in sync again", |partition| partition.isr_nodes.len() == 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_topic(1, "t", 3, &[("min.insync.replicas", "2")]).await;
    cluster.produce("t", batch(&["a"])).await;
    for _ in 0..3 {
        let leader = cluster.leader("t").await;
        cluster.stop(leader).await;
        cluster.produce("t", batch(&["b"])).await;
        cluster.start_node(leader).await;
        cluster.until("t", "all in sync again", |partition| partition.isr_nodes.len() == 3).await;
    }
    assert_eq!(values(&cluster, "t").await, ["a", "b", "b", "b"]);
}
