//! Dead letters of both directions, and what happens where they cannot be written.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::world::{Cluster, Target, Upstream, capture, deliver, error, eventually, keys, settle, state};
use towpath_api::{ConnectorError, ErrorKind};
use towpath_client::{ConsumerConfig, ProducerConfig, ProducerRecord};
use towpath_runtime::TaskState;
use towpath_types::limits::MESSAGE_BYTES_MAX;
use towpath_types::{GroupId, Offset, TopicName, TopicPartition};

async fn committed(cluster: &Cluster, pipeline: &str, topic: &str) -> Option<Offset> {
    let group = GroupId::new(&format!("towpath.{pipeline}")).unwrap();
    let consumer =
        cluster.client.consumer(ConsumerConfig { group_id: Some(group), ..ConsumerConfig::default() });
    let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
    let found = consumer.committed(std::slice::from_ref(&partition)).await.unwrap();
    found.get(&partition).map(|known| known.offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_of_a_source_goes_to_the_dead_letters_with_its_bytes() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.bad.lock().extend([3, 50, 99]);
    upstream.happen(&["orders"], 100);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    let task = supervisor.pipeline_status("shop").unwrap().tasks.remove(0);
    assert_eq!((task.dead_letters, task.records), (3, 97));
    supervisor.stop().await;
    assert_eq!(upstream.forgotten.load(Ordering::SeqCst), 100, "what is buried is done with");
    let letters = cluster.read("shop.dead-letter").await;
    let told: Vec<_> = letters
        .iter()
        .map(|letter| (letter.value.clone().unwrap(), letter.header("towpath.error.position")))
        .collect();
    let bad = |id: i64| (format!("bad {id}"), format!("change {id}"));
    assert_eq!(told, [bad(3), bad(50), bad(99)]);
    assert_eq!(letters[0].header("towpath.error.code"), "BAD_INPUT");
    assert_eq!(letters[0].header("towpath.error.task"), "shop/source/0");
    assert_eq!(cluster.read("shop.orders").await.len(), 97);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_topic_that_cannot_be_written_stops_the_source_before_the_input() {
    let cluster = Cluster::start().await;
    cluster.create("shop.dead-letter", 1, &[("max.message.bytes", "100")]).await;
    let upstream = Upstream::new();
    upstream.burst.store(10, Ordering::Relaxed);
    upstream.bad.lock().insert(55);
    upstream.happen(&["orders"], 100);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    eventually("it fails", || state(&supervisor, "shop") == TaskState::Failed).await;
    eventually("again and again", || upstream.opened.load(Ordering::Relaxed) >= 3).await;
    eventually("it fails", || state(&supervisor, "shop") == TaskState::Failed).await;
    let told = error(&supervisor, "shop");
    assert!(told.message.contains("MESSAGE_TOO_LARGE"), "{told:?}");
    assert!(upstream.forgotten.load(Ordering::SeqCst) <= 55, "R5: the input does not count");
    cluster.set("shop.dead-letter", "max.message.bytes", "1000000").await;
    supervisor.restart("shop");
    settle(&supervisor).await;
    supervisor.stop().await;
    assert_eq!(cluster.read("shop.dead-letter").await.len(), 1);
    let expected: Vec<_> = (0..100).filter(|id| *id != 55).map(|id| format!("{{\"id\":{id}}}")).collect();
    assert_eq!(keys(&cluster.read("shop.orders").await), expected);
    assert_eq!(upstream.forgotten.load(Ordering::SeqCst), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_topic_that_cannot_be_written_stops_the_sink_before_the_record() {
    for own in [true, false] {
        let cluster = Cluster::start().await;
        cluster.create("warehouse.dead-letter", 1, &[("max.message.bytes", "100")]).await;
        let (upstream, target) = (Upstream::new(), Target::new(own));
        upstream.happen(&["orders"], 50);
        let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
        settle(&supervisor).await;
        supervisor.stop().await;
        cluster.send("shop.orders", 0, &[b"{rubbish", b"{\"id\":1000}"]).await;
        let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
        eventually("it fails", || state(&supervisor, "warehouse") == TaskState::Failed).await;
        eventually("again", || target.opened.load(Ordering::Relaxed) >= 3).await;
        eventually("it fails", || state(&supervisor, "warehouse") == TaskState::Failed).await;
        assert!(error(&supervisor, "warehouse").message.contains("MESSAGE_TOO_LARGE"));
        // R5: the position is not behind the record, neither in the group nor in the sink.
        assert!(committed(&cluster, "warehouse", "shop.orders").await.is_none_or(|at| at.get() <= 50));
        assert!(target.position("shop.orders").is_none_or(|at| at <= 50));
        assert!(!target.ids("shop.orders").contains(&1000));
        cluster.set("warehouse.dead-letter", "max.message.bytes", "1000000").await;
        supervisor.restart("warehouse");
        settle(&supervisor).await;
        supervisor.stop().await;
        let letters = cluster.read("warehouse.dead-letter").await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].header("towpath.error.offset"), "50");
        let ids = target.ids("shop.orders");
        assert!(ids.contains(&1000) && ids.len() >= 51, "{ids:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_is_written_once_however_often_the_sink_fails_behind_it() {
    let cluster = Cluster::start().await;
    let target = Target::exactly_once();
    *target.refuses.lock() = vec![7];
    cluster.create("shop.orders", 1, &[]).await;
    cluster.send("shop.orders", 0, &[b"{rubbish", b"{\"id\":7}", b"{\"id\":8}"]).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    *target.fail.lock() = Some(ConnectorError::new("DOWN", ErrorKind::RetryAfter(Duration::ZERO), "down"));
    for _ in 0..10 {
        eventually("it fails", || target.fail.lock().is_none()).await;
        *target.fail.lock() =
            Some(ConnectorError::new("DOWN", ErrorKind::RetryAfter(Duration::ZERO), "down"));
    }
    target.fail.lock().take();
    settle(&supervisor).await;
    assert_eq!(target.ids("shop.orders"), [8]);
    let task = supervisor.pipeline_status("warehouse").unwrap().tasks.remove(0);
    supervisor.stop().await;
    let letters = cluster.read("warehouse.dead-letter").await;
    let offsets: Vec<_> = letters.iter().map(|letter| letter.header("towpath.error.offset")).collect();
    assert_eq!(offsets, ["0", "1"]);
    assert_eq!(task.dead_letters, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_too_large_to_carry_its_reason_is_buried_shortened() {
    let cluster = Cluster::start().await;
    let target = Target::at_least_once();
    let limit = MESSAGE_BYTES_MAX.to_string();
    cluster.create("shop.orders", 1, &[("max.message.bytes", &limit)]).await;
    let huge = vec![b'{'; MESSAGE_BYTES_MAX - 4096 - 50];
    cluster.send("shop.orders", 0, &[b"{\"id\":1}", &huge, b"{\"id\":2}"]).await;
    // Its headers are what is large.
    let name = TopicName::new("shop.orders").unwrap();
    let headers = [("h", Some(&huge[..])), ("towpath.schema", Some(&b"nonsense"[..]))];
    let producer = cluster.client.producer(ProducerConfig {
        record_bytes_max: MESSAGE_BYTES_MAX,
        buffer_memory: 2 * MESSAGE_BYTES_MAX,
        ..ProducerConfig::default()
    });
    let record = ProducerRecord { value: Some(b"{}"), headers: &headers, ..ProducerRecord::new(&name) };
    producer.send(record).await.unwrap();
    producer.flush().await.unwrap();
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    settle(&supervisor).await;
    assert_eq!(target.ids("shop.orders"), [1, 2]);
    supervisor.stop().await;
    let letters = cluster.read("warehouse.dead-letter").await;
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].value.as_ref().unwrap().len(), 64 * 1024);
    assert_eq!(letters[0].header("towpath.error.truncated"), huge.len().to_string());
    assert_eq!(letters[0].header("towpath.error.code"), "FORMAT_SYNTAX");
    assert_eq!(letters[1].value.as_deref(), Some("{}"));
    assert!(!letters[1].headers.contains_key("h"));
    assert_eq!(letters[1].header("towpath.error.code"), "FORMAT_UNKNOWN_SCHEMA");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_of_a_sink_are_treated_by_their_kind() {
    let cluster = Cluster::start().await;
    let target = Target::exactly_once();
    cluster.create("shop.orders", 1, &[]).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    let opened = || target.opened.load(Ordering::Relaxed);
    let fail = |error| *target.fail.lock() = Some(error);

    let wait = Duration::from_millis(700);
    fail(ConnectorError::new("BUSY", ErrorKind::RetryAfter(wait), "come back later"));
    cluster.send("shop.orders", 0, &[b"{\"id\":1}"]).await;
    eventually("it fails", || state(&supervisor, "warehouse") == TaskState::Retrying).await;
    let (before, since) = (opened(), std::time::Instant::now());
    eventually("it is opened again", || opened() > before).await;
    assert!(since.elapsed() > wait - Duration::from_millis(100), "not before the time that was asked for");
    eventually("the record arrives", || target.len() == 1).await;

    fail(ConnectorError::needs_operator("FULL", "make room"));
    cluster.send("shop.orders", 0, &[b"{\"id\":2}"]).await;
    eventually("it fails", || error(&supervisor, "warehouse").code == "FULL").await;
    eventually("it looks again by itself", || target.len() == 2).await;

    for (code, kind) in [("NEVER", ErrorKind::Terminal), ("OURS", ErrorKind::Bug)] {
        fail(ConnectorError::new(code, kind, "no"));
        cluster.send("shop.orders", 0, &[b"{\"id\":3}"]).await;
        eventually("it fails", || state(&supervisor, "warehouse") == TaskState::Failed).await;
        let before = opened();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(opened(), before, "it is not tried again by itself");
        let told = error(&supervisor, "warehouse");
        assert_eq!((told.code.as_str(), told.kind.as_str()), (code, kind.name()));
        let held = target.len();
        assert!(supervisor.restart("warehouse"));
        eventually("the record arrives", || target.len() == held + 1).await;
    }

    target.panic.store(true, Ordering::Relaxed);
    cluster.send("shop.orders", 0, &[b"{\"id\":4}"]).await;
    eventually("the panic is told", || error(&supervisor, "warehouse").code == "PANIC").await;
    assert_eq!(state(&supervisor, "warehouse"), TaskState::Failed);
    assert!(supervisor.restart("warehouse"));
    settle(&supervisor).await;
    supervisor.stop().await;
    assert_eq!(target.ids("shop.orders"), [1, 2, 3, 3, 4], "each once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipeline_can_be_paused_resumed_and_restarted_in_every_state() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.happen(&["orders"], 10);
    upstream.blocked.store(true, Ordering::Relaxed);
    let mut spec = capture("shop", &upstream);
    spec.retry.delay_min = Duration::from_secs(20);
    spec.retry.delay_max = Duration::from_secs(20);
    spec.retry.probe = Duration::from_secs(20);
    let supervisor = cluster.supervise(vec![spec]);
    let is = |wanted| state(&supervisor, "shop") == wanted;
    eventually("it is being opened", || upstream.opened.load(Ordering::Relaxed) == 1).await;
    assert!(is(TaskState::Starting));
    supervisor.pause("shop");
    eventually("paused while starting", || is(TaskState::Paused)).await;
    supervisor.restart("shop");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is(TaskState::Paused), "a restart does not resume");
    upstream.blocked.store(false, Ordering::Relaxed);
    supervisor.resume("shop");
    eventually("running", || is(TaskState::Running)).await;

    let retry = || ConnectorError::new("LOST", ErrorKind::RetryAfter(Duration::ZERO), "lost");
    for (fault, wanted) in [
        (retry(), TaskState::Retrying),
        (ConnectorError::needs_operator("X", "x"), TaskState::Failed),
        (ConnectorError::terminal("X", "x"), TaskState::Failed),
    ] {
        for by_pause in [true, false] {
            *upstream.fail.lock() = Some(ConnectorError::new("AGAIN", fault.kind(), "x"));
            eventually("it fails", || is(wanted)).await;
            // Neither waits for the twenty seconds.
            if by_pause {
                supervisor.pause("shop");
                eventually("paused while it was down", || is(TaskState::Paused)).await;
                supervisor.resume("shop");
            } else {
                supervisor.restart("shop");
            }
            eventually("running again", || is(TaskState::Running)).await;
        }
    }
    upstream.finite.store(true, Ordering::Relaxed);
    eventually("it completes", || is(TaskState::Completed)).await;
    supervisor.pause("shop");
    eventually("paused when complete", || is(TaskState::Paused)).await;
    upstream.happen(&["orders"], 5);
    supervisor.resume("shop");
    eventually("it completes again", || is(TaskState::Completed)).await;
    supervisor.stop().await;
    assert_eq!(cluster.read("shop.orders").await.len(), 15);
}
