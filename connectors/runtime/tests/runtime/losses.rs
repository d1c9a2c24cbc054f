//! Where records could get lost or come twice: refused batches, panics with records on their way, brokers that restart,
//! kills of pipelines that deliver at least once.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::world::{Cluster, Target, Upstream, capture, deliver, error, eventually, keys, settle, state};
use rand::Rng as _;
use towpath_api::ConnectorError;
use towpath_runtime::{Supervisor, SupervisorConfig, TaskState, WorkerConfig};

fn expected(upstream: &Upstream, table: &str) -> Vec<String> {
    upstream.ids(table).iter().map(|id| format!("{{\"id\":{id}}}")).collect()
}

/// Says where two long lists differ.
fn same(found: &[String], expected: &[String], what: &str) {
    let at = found.iter().zip(expected).position(|(one, other)| one != other);
    let at = at.unwrap_or_else(|| found.len().min(expected.len()));
    let around =
        |list: &[String]| list.iter().skip(at.saturating_sub(3)).take(8).cloned().collect::<Vec<_>>();
    assert!(
        found == expected,
        "{what}: {} instead of {}, at {at} {:?} instead of {:?}",
        found.len(),
        expected.len(),
        around(found),
        around(expected)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_refuses_is_not_taken_for_written_because_something_behind_it_is() {
    let cluster = Cluster::start().await;
    cluster.create("shop.orders", 1, &[("max.message.bytes", "300000")]).await;
    let upstream = Upstream::new();
    upstream.burst.store(7, Ordering::Relaxed);
    upstream.big.lock().insert(200, 400_000);
    upstream.happen(&["orders"], 700);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    // It looks again by itself, each time with a new producer.
    eventually("it is tried again", || upstream.opened.load(Ordering::Relaxed) >= 4).await;
    eventually("it fails", || state(&supervisor, "shop") == TaskState::Failed).await;
    let told = error(&supervisor, "shop");
    assert_eq!(told.kind, "needs_operator", "{told:?}");
    assert!(told.message.contains("MESSAGE_TOO_LARGE"), "{told:?}");
    assert!(upstream.forgotten.load(Ordering::SeqCst) <= 200, "R4: nothing behind it counts");
    let written = keys(&cluster.read("shop.orders").await);
    assert!(written.len() <= 200, "nothing of the partition follows what was refused: {}", written.len());
    cluster.set("shop.orders", "max.message.bytes", "1000000").await;
    supervisor.restart("shop");
    settle(&supervisor).await;
    supervisor.stop().await;
    assert!(keys(&cluster.read("shop.orders").await) == expected(&upstream, "orders"), "all, once, in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_panics_with_records_on_their_way_loses_and_doubles_nothing() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    for _ in 0..15 {
        upstream.happen(&["orders", "lines"], 2000);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(1..40))).await;
        upstream.panic.store(true, Ordering::Relaxed);
        eventually("the panic is told", || state(&supervisor, "shop") == TaskState::Failed).await;
        // At once, while what the attempt has sent may still be on its way.
        supervisor.restart("shop");
    }
    settle(&supervisor).await;
    supervisor.stop().await;
    for table in ["orders", "lines"] {
        let records = keys(&cluster.read(&format!("shop.{table}")).await);
        assert_eq!(records.len(), upstream.ids(table).len());
        assert!(records == expected(&upstream, table), "{table}, in order and once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pauses_and_restarts_at_any_moment_lose_and_double_nothing() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    for round in 0..30 {
        upstream.happen(&["orders", "lines"], 300);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..25))).await;
        for pipeline in ["shop", "warehouse"] {
            match rand::rng().random_range(0..4) {
                0 => supervisor.restart(pipeline),
                1 => supervisor.pause(pipeline),
                2 => supervisor.pause(pipeline) && supervisor.resume(pipeline),
                _ => supervisor.resume(pipeline),
            };
        }
        if round % 7 == 0 {
            let lost =
                || ConnectorError::new("LOST", towpath_api::ErrorKind::RetryAfter(Duration::ZERO), "x");
            *upstream.fail.lock() = Some(lost());
            *target.fail.lock() = Some(lost());
        }
    }
    supervisor.resume("shop");
    supervisor.resume("warehouse");
    settle(&supervisor).await;
    supervisor.stop().await;
    for table in ["orders", "lines"] {
        let topic = format!("shop.{table}");
        assert!(keys(&cluster.read(&topic).await) == expected(&upstream, table), "the topic of {table}");
        assert!(target.ids(&topic) == upstream.ids(table), "the sink's rows of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_that_were_not_replayed_before_the_next_kill_double_nothing() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.lanes.store(6, Ordering::Relaxed);
    upstream.burst.store(5, Ordering::Relaxed);
    upstream.poll_ms.store(1, Ordering::Relaxed);
    for round in 0..40 {
        upstream.happen(&["orders"], 300);
        let opened = upstream.opened.load(Ordering::Relaxed);
        let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
        eventually("it is opened", || upstream.opened.load(Ordering::Relaxed) > opened).await;
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(0..120))).await;
        if round % 5 == 4 { supervisor.stop().await } else { supervisor.abort().await }
    }
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let sorted = |mut keys: Vec<String>| {
        keys.sort();
        keys
    };
    same(
        &sorted(keys(&cluster.read("shop.orders").await)),
        &sorted(expected(&upstream, "orders")),
        "the topic, in any order",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_restarts_under_everything_costs_nothing() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    for _ in 0..6 {
        upstream.happen(&["orders", "lines"], 2000);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(5..120))).await;
        cluster.restart_broker().await;
    }
    settle(&supervisor).await;
    supervisor.stop().await;
    for table in ["orders", "lines"] {
        let topic = format!("shop.{table}");
        same(&keys(&cluster.read(&topic).await), &expected(&upstream, table), &topic);
        assert!(target.ids(&topic) == upstream.ids(table), "the sink's rows of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_come_and_go_during_writes_lose_and_double_nothing() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    target.write_ms.store(15, Ordering::Relaxed);
    let folder = tempfile::tempdir().unwrap();
    let worker = |name: &str| {
        let mut sink = deliver("warehouse", &target);
        sink.sink.as_mut().unwrap().tasks_max = std::num::NonZeroU32::new(3).unwrap();
        let worker = WorkerConfig {
            session_timeout: Duration::from_secs(6),
            ..WorkerConfig::new(folder.path().join(name))
        };
        let config = SupervisorConfig { worker: Some(worker), ..cluster.config() };
        Supervisor::start(config, vec![capture("shop", &upstream), sink]).unwrap()
    };
    let tables = ["orders", "lines", "notes"];
    let first = worker("first");
    for round in 0..5 {
        upstream.happen(&tables, 900);
        let second = worker("second");
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(300..900))).await;
        upstream.happen(&tables, 300);
        if round % 2 == 0 { second.stop().await } else { second.abort().await }
    }
    let total = upstream.len();
    eventually("everything arrives", || target.len() >= total).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    first.stop().await;
    for table in tables {
        let topic = format!("shop.{table}");
        same(&keys(&cluster.read(&topic).await), &expected(&upstream, table), &topic);
        assert!(target.ids(&topic) == upstream.ids(table), "the sink's rows of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_least_once_means_that_nothing_is_lost_by_kills() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::buffered_at_least_once());
    for _ in 0..12 {
        upstream.happen(&["orders"], 500);
        let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(1..150))).await;
        supervisor.abort().await;
        drop(supervisor);
        cluster.quiet().await;
    }
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let held: BTreeSet<i64> = target.ids("shop.orders").into_iter().collect();
    let all: BTreeSet<i64> = upstream.ids("orders").into_iter().collect();
    assert!(held == all, "{} of {}", held.len(), all.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_does_not_end_in_time_is_aborted_and_loses_nothing() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    upstream.happen(&["orders"], 500);
    target.hangs.store(true, Ordering::Relaxed);
    let config = SupervisorConfig { stop_timeout: Duration::from_millis(300), ..cluster.config() };
    let pipelines = vec![capture("shop", &upstream), deliver("warehouse", &target)];
    let supervisor = Supervisor::start(config, pipelines).unwrap();
    eventually("the sink is at work", || target.writes.load(Ordering::Relaxed) > 0).await;
    let begun = std::time::Instant::now();
    supervisor.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    assert_eq!(state(&supervisor, "warehouse"), TaskState::Stopped);
    target.hangs.store(false, Ordering::Relaxed);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    assert!(target.ids("shop.orders") == upstream.ids("orders"));
}
