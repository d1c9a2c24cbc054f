//! Positions that no longer exist (R7), topics that change under a sink, and state that was cut off.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::world::{Cluster, Target, Upstream, capture, deliver, error, eventually, keys, settle, state};
use towpath_runtime::TaskState;

fn rows(range: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    range.map(|id| format!("{{\"id\":{id}}}").into_bytes()).collect()
}

async fn send(cluster: &Cluster, partition: i32, range: std::ops::Range<i64>) {
    let rows = rows(range);
    let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
    cluster.send("shop.orders", partition, &rows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_that_overtakes_a_sink_stops_it_loudly() {
    for own in [true, false] {
        let (cluster, target) = (Cluster::start().await, Target::new(own));
        cluster.create("shop.orders", 1, &[]).await;
        send(&cluster, 0, 0..10).await;
        let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
        settle(&supervisor).await;
        supervisor.pause("warehouse");
        eventually("paused", || state(&supervisor, "warehouse") == TaskState::Paused).await;
        send(&cluster, 0, 10..40).await;
        cluster.forget_before("shop.orders", 25).await;
        supervisor.resume("warehouse");
        eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
        let told = error(&supervisor, "warehouse");
        assert_eq!((told.code.as_str(), told.kind.as_str()), ("KAFKA_OFFSET_OUT_OF_RANGE", "terminal"));
        assert!(told.message.contains("10") && told.hint.is_some(), "{told:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(target.ids("shop.orders"), (0..10).collect::<Vec<_>>(), "nothing behind the gap");
        assert_eq!(state(&supervisor, "warehouse"), TaskState::Failed, "and it stays so");
        supervisor.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_sink_begins_where_an_old_topic_does() {
    for own in [true, false] {
        let (cluster, target) = (Cluster::start().await, Target::new(own));
        cluster.create("shop.orders", 1, &[]).await;
        send(&cluster, 0, 0..30).await;
        cluster.forget_before("shop.orders", 20).await;
        let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
        settle(&supervisor).await;
        assert_eq!(target.ids("shop.orders"), (20..30).collect::<Vec<_>>());
        supervisor.stop().await;
    }
    // One that begins at an end which is a beginning too has nothing to wait for, and comes back to the same place.
    let (cluster, target) = (Cluster::start().await, Target::exactly_once());
    cluster.create("shop.orders", 1, &[]).await;
    send(&cluster, 0, 0..30).await;
    cluster.forget_before("shop.orders", 30).await;
    for _ in 0..2 {
        let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
        settle(&supervisor).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let task = supervisor.pipeline_status("warehouse").unwrap().tasks.remove(0);
        assert_eq!((task.state, task.lag), (TaskState::Running, Some(0)), "{task:?}");
        supervisor.stop().await;
    }
    send(&cluster, 0, 30..35).await;
    // R7: it had begun at 30, and what was there is gone.
    cluster.forget_before("shop.orders", 33).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
    assert_eq!(error(&supervisor, "warehouse").code, "KAFKA_OFFSET_OUT_OF_RANGE");
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_recreated_under_a_running_sink_stops_it_loudly() {
    for own in [true, false] {
        let (cluster, target) = (Cluster::start().await, Target::new(own));
        cluster.create("shop.orders", 1, &[]).await;
        send(&cluster, 0, 0..10).await;
        let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
        settle(&supervisor).await;
        // Faster than anybody looks.
        cluster.delete("shop.orders").await;
        cluster.create("shop.orders", 1, &[]).await;
        send(&cluster, 0, 100..150).await;
        eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
        assert_eq!(error(&supervisor, "warehouse").code, "KAFKA_TOPIC_RECREATED");
        assert_eq!(target.ids("shop.orders"), (0..10).collect::<Vec<_>>(), "nothing of the new topic");
        supervisor.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_leaves_the_others_alone() {
    let (cluster, target) = (Cluster::start().await, Target::at_least_once());
    for topic in ["shop.orders", "shop.lines"] {
        cluster.create(topic, 1, &[]).await;
    }
    send(&cluster, 0, 0..10).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    settle(&supervisor).await;
    cluster.delete("shop.orders").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    cluster.send("shop.lines", 0, &[b"{\"id\":1}"]).await;
    eventually("the other topic goes on", || target.ids("shop.lines").len() == 1).await;
    assert_eq!(state(&supervisor, "warehouse"), TaskState::Running);
    settle(&supervisor).await;
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_are_added_are_read_from_their_beginning() {
    let (cluster, target) = (Cluster::start().await, Target::exactly_once());
    cluster.create("shop.orders", 1, &[]).await;
    send(&cluster, 0, 0..10).await;
    let mut spec = deliver("warehouse", &target);
    spec.sink.as_mut().unwrap().tasks_max = std::num::NonZeroU32::new(2).unwrap();
    let supervisor = cluster.supervise(vec![spec]);
    settle(&supervisor).await;
    let topic = towpath_types::TopicName::new("shop.orders").unwrap();
    let mut grown = cluster.client.admin().create_partitions(&[(topic.clone(), 3)]).await.unwrap();
    grown.remove(&topic).unwrap().unwrap();
    for partition in 0..3 {
        send(&cluster, partition, 100..120).await;
    }
    eventually("all of them arrive", || target.len() == 70).await;
    settle(&supervisor).await;
    let status = supervisor.pipeline_status("warehouse").unwrap();
    assert_eq!(status.state, TaskState::Running, "{status:#?}");
    supervisor.stop().await;
    let mut ids = target.ids("shop.orders");
    ids.sort_unstable();
    let mut expected: Vec<i64> = (0..10).chain((100..120).flat_map(|id| [id; 3])).collect();
    expected.sort_unstable();
    assert_eq!(ids, expected, "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_that_were_cut_off_stop_the_source_loudly() {
    let (cluster, upstream) = (Cluster::start().await, Upstream::new());
    upstream.happen(&["orders"], 20);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    cluster.forget_before("_towpath_offsets", 2).await;
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    eventually("R7", || state(&supervisor, "shop") == TaskState::Failed).await;
    let told = error(&supervisor, "shop");
    assert_eq!((told.code.as_str(), told.kind.as_str()), ("OFFSETS_TRUNCATED", "terminal"));
    assert!(told.hint.is_some());
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_were_cut_off_stop_the_sink_loudly_and_bury_nothing() {
    let (cluster, upstream, target) = (Cluster::start().await, Upstream::new(), Target::exactly_once());
    upstream.happen(&["orders", "lines"], 20);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    cluster.forget_before("_towpath_schemas", 1).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
    assert_eq!(error(&supervisor, "warehouse").code, "SCHEMAS_TRUNCATED");
    let task = supervisor.pipeline_status("warehouse").unwrap().tasks.remove(0);
    assert_eq!(task.dead_letters, 0);
    supervisor.stop().await;
}

/// Without its offsets a source begins anew; what its topics hold already is not written again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_offsets_were_deleted_on_purpose_doubles_nothing() {
    let (cluster, upstream) = (Cluster::start().await, Upstream::new());
    upstream.happen(&["orders"], 300);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    cluster.delete("_towpath_offsets").await;
    // This upstream forgets nothing.
    upstream.forgotten.store(0, Ordering::SeqCst);
    upstream.happen(&["orders"], 10);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let expected: Vec<_> = (0..310).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(keys(&cluster.read("shop.orders").await), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_topic_recreated_under_a_source_gets_what_is_new() {
    let (cluster, upstream) = (Cluster::start().await, Upstream::new());
    upstream.happen(&["orders"], 50);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    cluster.delete("shop.orders").await;
    cluster.create("shop.orders", 1, &[]).await;
    upstream.happen(&["orders"], 50);
    settle(&supervisor).await;
    supervisor.stop().await;
    let expected: Vec<_> = (50..100).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(keys(&cluster.read("shop.orders").await), expected);
    // And a restart takes nothing for written that was written to the old one.
    upstream.happen(&["orders"], 50);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    assert_eq!(cluster.read("shop.orders").await.len(), 100);
}
