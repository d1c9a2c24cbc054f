//! Several data directories in a cluster: another broker leads in the place of a replica whose directory has failed, and
//! what a new disk has lost is fetched again.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use towpath_broker::BrokerConfig;
use towpath_wire::DescribeLogDirsRequest;

use crate::failover::values;
use crate::nodes::{PATIENCE, TestCluster, moment};
use crate::support::batch;

const SECOND: &str = "second-disk";

fn two_dirs(config: &mut BrokerConfig) {
    config.further_dirs = vec![config.data_dir.join(SECOND)];
    config.checkpoint_interval = Duration::from_millis(100);
}

/// Topics of one partition each, on all nodes; returns one whose replica on the node is in its second directory.
async fn in_second_dir(cluster: &TestCluster, node: i32) -> (String, String) {
    for name in ["a", "b", "c", "d"] {
        cluster.create_topic_on(node, name, &[node, node % 3 + 1, (node + 1) % 3 + 1], &[]).await;
    }
    let dirs = cluster.client(node).call(4, &DescribeLogDirsRequest { topics: None }).await.results;
    let first = |at: usize| dirs[at].topics.first().expect("there is one").name.clone();
    (first(1), first(0))
}

fn second_dir(cluster: &TestCluster, node: i32) -> PathBuf {
    cluster.dir(node).join(SECOND)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_lead_in_the_place_of_a_failed_directory() {
    let mut cluster = TestCluster::start_with(3, two_dirs).await;
    let (hit, spared) = in_second_dir(&cluster, 1).await;
    cluster.produce(&hit, batch(&["0"])).await;
    assert_eq!(cluster.leader(&hit).await, 1);
    let broken = second_dir(&cluster, 1).join("recovery-point-offset-checkpoint.tmp");
    std::fs::create_dir(&broken).unwrap();
    cluster
        .until(&hit, "offline there", |partition| {
            partition.offline_replicas == [1] && partition.leader_id != 1 && !partition.isr_nodes.contains(&1)
        })
        .await;
    cluster.produce(&hit, batch(&["1"])).await;
    // The other directory's are led as before.
    cluster
        .until(&spared, "as before", |partition| {
            partition.leader_id == 1 && partition.offline_replicas.is_empty()
        })
        .await;
    cluster.produce(&spared, batch(&["x"])).await;
    // The disk is well again after a restart.
    cluster.kill(1);
    std::fs::remove_dir(&broken).unwrap();
    cluster.start_node(1).await;
    cluster
        .until(&hit, "back", |partition| {
            partition.offline_replicas.is_empty() && partition.isr_nodes.contains(&1)
        })
        .await;
    assert_eq!(values(&cluster, &hit).await, ["0", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_on_a_disk_that_is_replaced_is_fetched_again() {
    let mut cluster = TestCluster::start_with(3, two_dirs).await;
    let (hit, _) = in_second_dir(&cluster, 1).await;
    cluster.create_topic_on(1, "alone", &[1], &[]).await;
    for value in ["0", "1", "2"] {
        cluster.produce(&hit, batch(&[value])).await;
    }
    cluster.stop(1).await;
    std::fs::remove_dir_all(second_dir(&cluster, 1)).unwrap();
    cluster.start_node(1).await;
    let deadline = Instant::now() + PATIENCE;
    while cluster.ends(1, &hit).map(|ends| ends.1) != Some(3) {
        assert!(Instant::now() < deadline, "{:?}", cluster.ends(1, &hit));
        moment().await;
    }
    cluster
        .until(&hit, "in sync", |partition| {
            partition.isr_nodes.len() == 3 && partition.offline_replicas.is_empty()
        })
        .await;
    assert_eq!(values(&cluster, &hit).await, ["0", "1", "2"]);
    cluster.produce(&hit, batch(&["3"])).await;
}
