//! Pipelines from end to end, over Towpath's own broker.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::world::{Cluster, Target, Upstream, capture, deliver, eventually, settle, sink_spec, state};
use rand::Rng as _;
use towpath_api::{ConnectorError, TopicPattern};
use towpath_client::{CommittedOffset, NewTopic, ProducerConfig, ProducerRecord};
use towpath_runtime::{Supervisor, SupervisorConfig, TaskState, WorkerConfig};
use towpath_types::{GroupId, LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};

const TABLES: [&str; 3] = ["orders", "lines.old", "Odd \"name\""];

fn topic(table: &str) -> String {
    format!("shop.{}", towpath_api::names::encode_part(table))
}

async fn assert_exactly_once(cluster: &Cluster, upstream: &Upstream, tables: &[&str]) {
    for table in tables {
        let records = cluster.read(&topic(table)).await;
        let keys: Vec<_> = records.iter().filter_map(|record| record.key.clone()).collect();
        let expected: Vec<_> = upstream.ids(table).iter().map(|id| format!("{{\"id\":{id}}}")).collect();
        assert_eq!(keys.len(), expected.len(), "records of {table}");
        assert!(keys == expected, "records of {table}, in order and once");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_travel_from_source_to_sink_and_go_on_after_a_restart() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    upstream.happen(&TABLES, 1000);
    for round in 1..=3 {
        let mut both = capture("shop", &upstream);
        both.sink = Some(sink_spec(&target));
        let supervisor = cluster.supervise(vec![both]);
        settle(&supervisor).await;
        for table in TABLES {
            assert_eq!(target.ids(&topic(table)), upstream.ids(table), "round {round}");
        }
        let status = supervisor.pipeline_status("shop").unwrap();
        assert_eq!(status.state, TaskState::Running, "{status:#?}");
        assert_eq!(status.tasks.len(), 2);
        assert_eq!(status.tasks[0].position, format!("at {}", upstream.len()));
        supervisor.stop().await;
        assert!(target.closed.swap(false, Ordering::Relaxed));
        assert_eq!(state(&supervisor, "shop"), TaskState::Stopped);
        assert_eq!(upstream.forgotten.load(Ordering::SeqCst), upstream.len() as u64);
        upstream.happen(&TABLES, 500);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_is_lost_and_nothing_comes_twice() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    for round in 0..15 {
        upstream.happen(&TABLES, 700);
        let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
        let wait = rand::rng().random_range(1..120);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        supervisor.abort().await;
        drop(supervisor);
        cluster.quiet().await;
        assert!(upstream.forgotten.load(Ordering::SeqCst) <= upstream.len() as u64, "round {round}");
    }
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    assert_exactly_once(&cluster, &upstream, &TABLES).await;
    for table in TABLES {
        assert_eq!(target.ids(&topic(table)), upstream.ids(table), "the sink's rows of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_partitions_keep_what_was_written_where_it_was() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    for _ in 0..6 {
        upstream.happen(&["orders"], 2000);
        let mut spec = capture("shop", &upstream);
        spec.new_topics.partitions = 4;
        let supervisor = cluster.supervise(vec![spec]);
        let wait = rand::rng().random_range(5..80);
        tokio::time::sleep(Duration::from_millis(wait)).await;
        supervisor.abort().await;
        drop(supervisor);
        cluster.quiet().await;
    }
    let mut spec = capture("shop", &upstream);
    spec.new_topics.partitions = 4;
    let supervisor = cluster.supervise(vec![spec]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let records = cluster.read("shop.orders").await;
    let mut ids: Vec<i64> = records
        .iter()
        .map(|record| record.key.as_ref().unwrap()[6..].trim_end_matches('}').parse().unwrap())
        .collect();
    let partitions: std::collections::BTreeSet<_> = records.iter().map(|record| record.partition).collect();
    assert_eq!(partitions.len(), 4);
    ids.sort_unstable();
    assert!(ids == upstream.ids("orders"), "{} records of {}", ids.len(), upstream.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_without_a_commit_too_early_survives_any_number_of_failures() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.burst.store(7, Ordering::Relaxed);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    for _ in 0..10 {
        upstream.happen(&["orders"], 300);
        tokio::time::sleep(Duration::from_millis(15)).await;
        *upstream.fail.lock() = Some(ConnectorError::new(
            "LOST",
            towpath_api::ErrorKind::RetryAfter(Duration::ZERO),
            "the connection broke",
        ));
        eventually("the source fails", || upstream.fail.lock().is_none()).await;
    }
    settle(&supervisor).await;
    let task = supervisor.pipeline_status("shop").unwrap().tasks.remove(0);
    assert_eq!(task.restarts, 10, "{task:?}");
    assert_eq!(task.last_error.unwrap().code, "LOST");
    assert_eq!(task.state, TaskState::Running, "it has healed");
    supervisor.stop().await;
    assert_exactly_once(&cluster, &upstream, &["orders"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_sink_or_the_format_cannot_take_goes_to_the_dead_letters() {
    let cluster = Cluster::start().await;
    for own in [true, false] {
        let (upstream, name) = (Upstream::new(), if own { "once" } else { "least" });
        let target = if own { Target::exactly_once() } else { Target::at_least_once() };
        *target.refuses.lock() = vec![3, 77];
        upstream.happen(&["orders"], 100);
        let mut source = capture(&format!("capture-{name}"), &upstream);
        source.topic = Some(towpath_api::TopicTemplate::parse(&format!("{name}.{{table}}")).unwrap());
        let supervisor = cluster.supervise(vec![source]);
        settle(&supervisor).await;
        supervisor.stop().await;
        let topic = TopicName::new(&format!("{name}.orders")).unwrap();
        let producer = cluster.client.producer(ProducerConfig::default());
        let record = ProducerRecord { value: Some(b"{rubbish"), ..ProducerRecord::new(&topic) };
        producer.send(record).await.unwrap();
        let unknown = [("towpath.schema", Some(&b"12345678"[..]))];
        let record = ProducerRecord { value: Some(b"{}"), headers: &unknown, ..ProducerRecord::new(&topic) };
        producer.send(record).await.unwrap();
        producer.flush().await.unwrap();

        let mut sink = deliver(name, &target);
        sink.topics = vec![TopicPattern::parse(topic.as_str()).unwrap()];
        let supervisor = cluster.supervise(vec![sink]);
        settle(&supervisor).await;
        let expected: Vec<_> = (0..100).filter(|id| ![3, 77].contains(id)).collect();
        assert_eq!(target.ids(topic.as_str()), expected);
        let task = supervisor.pipeline_status(name).unwrap().tasks.remove(0);
        assert_eq!(task.dead_letters, 4);
        supervisor.stop().await;

        let letters = cluster.read(&format!("{name}.dead-letter")).await;
        let mut codes: Vec<_> = letters.iter().map(|letter| letter.header("towpath.error.code")).collect();
        codes.sort();
        assert_eq!(codes, ["FORMAT_SYNTAX", "FORMAT_UNKNOWN_SCHEMA", "REFUSED", "REFUSED"]);
        let refused =
            letters.iter().find(|letter| letter.header("towpath.error.offset") == "77").expect("offset 77");
        assert_eq!(refused.key.as_deref(), Some("{\"id\":77}"));
        assert!(refused.headers.contains_key("towpath.schema"), "the original headers are there");
        assert_eq!(refused.header("towpath.error.topic"), topic.as_str());
        assert_eq!(refused.header("towpath.error.message"), "not this one");
        let rubbish = letters.iter().find(|letter| letter.value.as_deref() == Some("{rubbish")).unwrap();
        assert!(rubbish.header("towpath.error.hint").contains("raw"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_dead_letter_topic_the_task_fails_at_the_record_and_says_where() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    *target.refuses.lock() = vec![50];
    upstream.happen(&["orders"], 100);
    let mut sink = deliver("warehouse", &target);
    sink.dead_letter.enabled = false;
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), sink]);
    let failure = supervisor.until_idle(|_| {}).await.unwrap_err();
    assert_eq!(failure.task, "warehouse/sink/0");
    let error = failure.error.unwrap();
    assert_eq!((error.code.as_str(), error.kind.as_str()), ("REFUSED", "terminal"));
    assert!(error.message.contains("offset 50"), "{}", error.message);
    assert_eq!(state(&supervisor, "shop"), TaskState::Running, "one bad sink keeps nobody from working");
    target.refuses.lock().clear();
    assert!(supervisor.restart("warehouse"));
    settle(&supervisor).await;
    assert_eq!(target.ids("shop.orders"), upstream.ids("orders"));
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_treated_by_their_kind() {
    let cluster = Cluster::start().await;
    let (good, bad) = (Upstream::new(), Upstream::new());
    let mut other = capture("bad", &bad);
    other.topic = Some(towpath_api::TopicTemplate::parse("bad.{table}").unwrap());
    let supervisor = cluster.supervise(vec![capture("good", &good), other]);
    bad.panic.store(true, Ordering::Relaxed);
    eventually("a panic is a failure", || state(&supervisor, "bad") == TaskState::Failed).await;
    let error = supervisor.pipeline_status("bad").unwrap().tasks[0].last_error.clone().unwrap();
    assert_eq!((error.code.as_str(), error.kind.as_str()), ("PANIC", "bug"));
    assert!(error.message.contains("told to panic"));
    good.happen(&["orders"], 10);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(state(&supervisor, "bad"), TaskState::Failed, "it is not tried again by itself");
    assert_eq!(good.forgotten.load(Ordering::SeqCst), 10, "the other pipeline goes on");

    assert!(supervisor.restart("bad"));
    eventually("it runs again", || state(&supervisor, "bad") == TaskState::Running).await;
    *bad.fail.lock() =
        Some(ConnectorError::needs_operator("PRIVILEGE", "grant something").with_hint("GRANT"));
    eventually("it is failed", || state(&supervisor, "bad") == TaskState::Failed).await;
    eventually("it looks again by itself", || state(&supervisor, "bad") == TaskState::Running).await;
    assert!(!supervisor.restart("nobody"));
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelines_pause_and_go_on_and_new_topics_are_noticed() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::at_least_once());
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    upstream.happen(&["orders"], 10);
    eventually("the first table arrives", || target.len() == 10).await;
    assert!(supervisor.pause("warehouse"));
    eventually("it is paused", || state(&supervisor, "warehouse") == TaskState::Paused).await;
    upstream.happen(&["orders", "customers"], 20);
    eventually("the source goes on", || upstream.forgotten.load(Ordering::SeqCst) == 30).await;
    assert_eq!(target.len(), 10);
    assert!(supervisor.resume("warehouse"));
    eventually("the rest arrives", || target.len() == 30).await;
    upstream.happen(&["brand new"], 5);
    eventually("a new topic is noticed by itself", || target.len() == 35).await;
    supervisor.stop().await;
    assert_eq!(target.ids("shop.brand_x20_new").len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_gets_nothing_is_flushed_all_the_same() {
    let cluster = Cluster::start().await;
    let target = Target::exactly_once();
    cluster.create("shop.orders", 1, &[]).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    cluster.send("shop.orders", 0, &[b"{\"id\":1}"]).await;
    settle(&supervisor).await;
    let before = target.flushes.load(Ordering::Relaxed);
    eventually("it has its turn", || target.flushes.load(Ordering::Relaxed) >= before + 2).await;
    assert_eq!(state(&supervisor, "warehouse"), TaskState::Running);
    assert_eq!(target.len(), 1);
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_of_a_topic_that_was_recreated_stops_the_sink_loudly() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::at_least_once());
    upstream.happen(&["orders"], 20);
    let spec = deliver("warehouse", &target);
    let group = GroupId::new(&spec.group()).unwrap();
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let partition = TopicPartition::new(TopicName::new("shop.orders").unwrap(), 0);
    let stale = CommittedOffset {
        offset: Offset::new(10),
        leader_epoch: LeaderEpoch::NONE,
        metadata: TopicId::random().to_string(),
    };
    let admin = cluster.client.admin();
    let altered = admin.alter_group_offsets(&group, &[(partition.clone(), stale)].into()).await.unwrap();
    assert!(altered[&partition].is_ok());
    let supervisor = cluster.supervise(vec![spec]);
    eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
    let error = supervisor.pipeline_status("warehouse").unwrap().tasks[0].last_error.clone().unwrap();
    assert_eq!(error.code, "KAFKA_TOPIC_RECREATED");
    assert!(error.hint.unwrap().contains("towpath groups reset"));
    assert_eq!(target.len(), 0);
    admin.delete_group_offsets(&group, &[partition]).await.unwrap();
    supervisor.restart("warehouse");
    settle(&supervisor).await;
    assert_eq!(target.len(), 20);
    supervisor.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_share_the_tasks_and_take_over_from_the_dead() {
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    let folder = tempfile::tempdir().unwrap();
    let worker = |name: &str| {
        let worker = WorkerConfig {
            session_timeout: Duration::from_secs(6),
            ..WorkerConfig::new(folder.path().join(name))
        };
        let config = SupervisorConfig { worker: Some(worker), ..cluster.config() };
        let pipelines = vec![capture("shop", &upstream), deliver("warehouse", &target)];
        Supervisor::start(config, pipelines).unwrap()
    };
    let here = |supervisor: &Supervisor| {
        supervisor.status().iter().filter(|status| status.state == TaskState::Running).count()
    };
    let first = worker("first");
    eventually("one worker runs everything", || here(&first) == 2).await;
    let second = worker("second");
    eventually("two workers share", || here(&first) == 1 && here(&second) == 1).await;
    upstream.happen(&TABLES, 300);
    eventually("together they do the work", || target.len() == 300).await;
    first.abort().await;
    drop(first);
    eventually("the second takes over", || here(&second) == 2).await;
    upstream.happen(&TABLES, 300);
    eventually("and goes on", || target.len() == 600).await;
    let first = worker("first");
    eventually("the first comes back", || here(&first) == 1 && here(&second) == 1).await;
    upstream.happen(&TABLES, 300);
    eventually("nothing is lost on the way", || target.len() == 900).await;
    second.stop().await;
    eventually("one that leaves hands over", || here(&first) == 2).await;
    first.stop().await;
    assert_exactly_once(&cluster, &upstream, &TABLES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_finite_source_completes_and_stays_complete() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.happen(&["orders"], 123);
    upstream.finite.store(true, Ordering::Relaxed);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    eventually("it completes", || state(&supervisor, "shop") == TaskState::Completed).await;
    supervisor.stop().await;
    assert_eq!(state(&supervisor, "shop"), TaskState::Completed);
    assert_exactly_once(&cluster, &upstream, &["orders"]).await;
    assert_eq!(Arc::strong_count(&upstream), 2, "the connector holds it, and the test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn internal_and_data_topics_are_flushed_record_by_record() {
    let cluster = Cluster::start().await;
    let upstream = Upstream::new();
    upstream.happen(&["orders"], 5);
    // A topic that somebody created before, without the flush.
    let name = TopicName::new("shop.orders").unwrap();
    cluster.client.admin().create_topics(&[NewTopic::new(name)], false).await.unwrap();
    let supervisor = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    for topic in ["shop.orders", "_towpath_offsets", "_towpath_schemas"] {
        let resource = towpath_client::ConfigResource::Topic(TopicName::new(topic).unwrap());
        let configs = cluster.client.admin().describe_configs(std::slice::from_ref(&resource)).await.unwrap();
        let configs = configs[&resource].as_ref().unwrap();
        let flush = configs.iter().find(|config| config.name == "flush.messages").unwrap();
        assert_eq!(flush.value.as_deref(), Some("1"), "{topic}");
    }
}
