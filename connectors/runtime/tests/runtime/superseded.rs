//! Connectors that something else takes the place of while they run: tasks go over between two batches.

use std::sync::atomic::Ordering;
use std::time::Duration;

use towpath_api::ConnectorError;

use crate::world::{Cluster, Target, Upstream, capture, deliver, eventually, settle};

const ROUNDS: u64 = 12;

/// Nothing is lost, nothing comes twice, and nothing counts as a failure: not even where a sink has no positions of its
/// own, since what it holds is committed before it goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_go_over_between_two_batches() {
    for target in [Target::exactly_once(), Target::buffered_at_least_once(), Target::at_least_once()] {
        let cluster = Cluster::start().await;
        let upstream = Upstream::new();
        upstream.burst.store(7, Ordering::Relaxed);
        target.write_ms.store(1, Ordering::Relaxed);
        let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
        for version in 1..=ROUNDS {
            upstream.happen(&["orders"], 300);
            tokio::time::sleep(Duration::from_millis(10)).await;
            upstream.version.store(version, Ordering::Relaxed);
            target.version.store(version, Ordering::Relaxed);
            let reopened = || {
                upstream.opened.load(Ordering::Relaxed) > version
                    && target.opened.load(Ordering::Relaxed) > version
            };
            eventually("both are opened again", reopened).await;
        }
        settle(&supervisor).await;
        for pipeline in ["shop", "warehouse"] {
            let task = supervisor.pipeline_status(pipeline).unwrap().tasks.remove(0);
            assert_eq!((task.restarts, task.last_error.is_none()), (0, true), "{task:?}");
        }
        supervisor.stop().await;
        assert_eq!(upstream.opened.load(Ordering::Relaxed), ROUNDS + 1);
        assert_eq!(target.opened.load(Ordering::Relaxed), ROUNDS + 1);
        let records = cluster.read("shop.orders").await;
        assert_eq!(records.len(), upstream.ids("orders").len(), "records of the source");
        assert!(target.ids("shop.orders") == upstream.ids("orders"), "rows of the sink, in order and once");
        // R4: what the source was told is durable was so.
        assert_eq!(upstream.forgotten.load(Ordering::SeqCst), upstream.len() as u64);
    }
}

/// Where what was taken cannot be made durable, the task fails as it always does, and the other one begins at what is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_on_the_way_loses_nothing() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    let failure = || Some(ConnectorError::retry("LOST", "the connection broke"));
    for version in 1..=4 {
        upstream.happen(&["orders"], 400);
        *upstream.fail.lock() = failure();
        *target.fail.lock() = failure();
        upstream.version.store(version, Ordering::Relaxed);
        target.version.store(version, Ordering::Relaxed);
        let reopened = || upstream.opened.load(Ordering::Relaxed) > version;
        eventually("the source is opened again", reopened).await;
    }
    settle(&supervisor).await;
    supervisor.stop().await;
    assert!(target.ids("shop.orders") == upstream.ids("orders"));
}
