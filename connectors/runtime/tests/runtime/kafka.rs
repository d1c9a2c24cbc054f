//! Pipelines on a real Apache Kafka: brokers that are killed, other people's transactions, retention.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::world::{Cluster, Target, Upstream, capture, deliver, error, eventually, keys, settle, state};
use rand::Rng as _;
use towpath_client::{Acks, ErrorCode, IsolationLevel, RawFetch};
use towpath_harness::{Guarded, Kafka, envs, kafka};
use towpath_record::{BatchBuilder, Compression};
use towpath_runtime::TaskState;
use towpath_types::{Offset, TopicName, TopicPartition};

async fn start() -> Arc<Mutex<Kafka>> {
    let start = || Kafka::start(&kafka::Options::default()).unwrap();
    Arc::new(Mutex::new(tokio::task::spawn_blocking(start).await.unwrap()))
}

async fn cluster(kafka: &Arc<Mutex<Kafka>>) -> Cluster {
    let bootstrap = kafka.lock().unwrap().bootstrap();
    Cluster::foreign(&bootstrap).await
}

/// Whose batches a topic's first partition holds.
async fn batches_of(cluster: &Cluster, topic: &str) -> Vec<String> {
    let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
    let (mut next, mut found) = (Offset::ZERO, Vec::new());
    loop {
        let fetch = RawFetch {
            partitions: vec![(partition.clone(), next)],
            wait_max: Duration::ZERO,
            bytes_min: 0,
            bytes_max: 1 << 20,
            partition_bytes_max: 1 << 20,
            isolation_level: IsolationLevel::ReadUncommitted,
        };
        let fetched = cluster.client.raw().fetch(&fetch).await.unwrap().remove(0).1.unwrap();
        let before = next;
        for batch in towpath_record::batches(&fetched.batches).map_while(Result::ok) {
            let (offset, last) = (batch.base_offset, batch.last_offset());
            let (id, epoch) = (batch.producer_id, batch.producer_epoch);
            found.push(format!("{offset}..={last}: {id:?} {epoch:?} from {}", batch.base_sequence));
            next = last.next();
        }
        if next == before {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_is_killed_and_stopped_under_everything_costs_nothing() {
    let kafka = start().await;
    let cluster = cluster(&kafka).await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    upstream.happen(&["orders", "lines"], 3000);
    settle(&supervisor).await;
    for round in 0..3 {
        upstream.happen(&["orders", "lines"], 3000);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..160))).await;
        let kafka = Arc::clone(&kafka);
        let again = move || {
            let mut kafka = kafka.lock().unwrap();
            if round == 1 { kafka.restart() } else { kafka.kill9().and_then(|()| kafka.start_again()) }
        };
        tokio::task::spawn_blocking(again).await.unwrap().unwrap();
        upstream.happen(&["orders", "lines"], 500);
    }
    settle(&supervisor).await;
    supervisor.stop().await;
    for table in ["orders", "lines"] {
        let topic = format!("shop.{table}");
        let expected: Vec<_> = upstream.ids(table).iter().map(|id| format!("{{\"id\":{id}}}")).collect();
        let found = keys(&cluster.read(&topic).await);
        assert_eq!(
            found.len(),
            expected.len(),
            "records of {topic}: {:#?}",
            batches_of(&cluster, &topic).await
        );
        assert!(found == expected, "{topic}, in order and once");
        assert!(target.ids(&topic) == upstream.ids(table), "the sink's rows of {table}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_a_foreign_cluster_nothing_is_lost_and_nothing_comes_twice() {
    let kafka = start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    for _ in 0..8 {
        upstream.happen(&["orders"], 2000);
        // A process has its own connections, which end with it.
        let cluster = cluster(&kafka).await;
        let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(300..1500))).await;
        supervisor.abort().await;
    }
    let cluster = cluster(&kafka).await;
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    settle(&supervisor).await;
    supervisor.stop().await;
    let expected: Vec<_> = upstream.ids("orders").iter().map(|id| format!("{{\"id\":{id}}}")).collect();
    let found = keys(&cluster.read("shop.orders").await);
    assert_eq!(found.len(), expected.len());
    assert!(found == expected, "in order and once");
    assert!(target.ids("shop.orders") == upstream.ids("orders"));
}

/// R6: what a killed process has left in a socket may be carried out much later, and comes to nothing then.
async fn late_requests_are_refused(cluster: &Cluster) {
    let upstream = Upstream::new();
    upstream.happen(&["orders", "lines"], 50);
    let first = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&first).await;
    first.abort().await;
    // Under which a process wrote that has just died.
    let raw = cluster.client.raw();
    let dead = raw.take_over("towpath-source.shop.0").await.unwrap().identity();
    upstream.happen(&["orders", "lines"], 50);
    let second = cluster.supervise(vec![capture("shop", &upstream)]);
    settle(&second).await;
    for topic in ["shop.orders", "shop.lines", towpath_formats::header::OFFSETS_TOPIC] {
        let mut late = BatchBuilder::new(Compression::None);
        late.set_producer(dead.producer_id, dead.epoch, 0);
        late.append(1, Some(b"{}"), Some(b"{}"), &[]).unwrap();
        let partition = TopicPartition::new(TopicName::new(topic).unwrap(), 0);
        let produced = raw.produce(vec![(partition, late.build().unwrap())], Acks::All).await.unwrap();
        let error = produced.into_iter().next().unwrap().1.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::InvalidProducerEpoch), "{topic}: {error}");
    }
    upstream.happen(&["orders", "lines"], 50);
    settle(&second).await;
    second.stop().await;
    for table in ["orders", "lines"] {
        let expected: Vec<_> = upstream.ids(table).iter().map(|id| format!("{{\"id\":{id}}}")).collect();
        assert_eq!(keys(&cluster.read(&format!("shop.{table}")).await), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_requests_of_a_killed_process_are_refused() {
    late_requests_are_refused(&Cluster::lasting().await).await;
    let kafka = start().await;
    late_requests_are_refused(&cluster(&kafka).await).await;
}

/// What librdkafka writes in transactions: one that is committed, one that is aborted, one that stays open.
const TRANSACTIONS: &str = r#"
import sys
from confluent_kafka import Producer
server, topic, how = sys.argv[1:4]
producer = Producer({"bootstrap.servers": server, "transactional.id": "other-people-" + how})
producer.init_transactions(60)
producer.begin_transaction()
for value in sys.argv[4:]:
    producer.produce(topic, value.encode(), partition=0)
producer.flush(60)
if how == "commit":
    producer.commit_transaction(60)
elif how == "abort":
    producer.abort_transaction(60)
"#;

fn transact(bootstrap: &str, how: &str, ids: &[i64]) {
    let mut command = Command::new(envs::python().unwrap());
    command.args(["-c", TRANSACTIONS, bootstrap, "shop.orders", how]);
    command.args(ids.iter().map(|id| format!("{{\"id\":{id}}}")));
    Guarded::run("a transactional producer", command, Duration::from_secs(120)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_committed_transactions_arrive_and_nobody_waits_for_the_others() {
    let kafka = start().await;
    let bootstrap = kafka.lock().unwrap().bootstrap();
    for own in [true, false] {
        let (cluster, target) = (cluster(&kafka).await, Target::new(own));
        cluster.create("shop.orders", 1, &[]).await;
        let write = {
            let bootstrap = bootstrap.clone();
            move || {
                transact(&bootstrap, "commit", &[1, 2]);
                transact(&bootstrap, "abort", &[3, 4]);
                transact(&bootstrap, "commit", &[5]);
            }
        };
        tokio::task::spawn_blocking(write).await.unwrap();
        let name = if own { "once" } else { "least" };
        let supervisor = cluster.supervise(vec![deliver(name, &target)]);
        // The log ends with a marker that is no record.
        settle(&supervisor).await;
        assert_eq!(target.ids("shop.orders"), [1, 2, 5]);
        let open = bootstrap.clone();
        tokio::task::spawn_blocking(move || transact(&open, "open", &[6, 7])).await.unwrap();
        cluster.send("shop.orders", 0, &[b"{\"id\":8}"]).await;
        settle(&supervisor).await;
        assert_eq!(target.ids("shop.orders"), [1, 2, 5], "8 stands behind an open transaction");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        let task = supervisor.pipeline_status(name).unwrap().tasks.remove(0);
        assert_eq!((task.state, task.lag), (TaskState::Running, Some(0)), "there is nothing to do: {task:?}");
        // Its producer begins anew, which aborts what it left open.
        let again = bootstrap.clone();
        tokio::task::spawn_blocking(move || transact(&again, "open", &[])).await.unwrap();
        eventually("what stood behind it arrives", || target.ids("shop.orders") == [1, 2, 5, 8]).await;
        supervisor.stop().await;
        cluster.delete("shop.orders").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_and_recreated_topics_are_loud_on_a_foreign_cluster_too() {
    let kafka = start().await;
    let (cluster, target) = (cluster(&kafka).await, Target::at_least_once());
    cluster.create("shop.orders", 1, &[]).await;
    cluster.send("shop.orders", 0, &[b"{\"id\":1}", b"{\"id\":2}"]).await;
    let supervisor = cluster.supervise(vec![deliver("warehouse", &target)]);
    settle(&supervisor).await;
    supervisor.pause("warehouse");
    eventually("paused", || state(&supervisor, "warehouse") == TaskState::Paused).await;
    cluster.send("shop.orders", 0, &[b"{\"id\":3}", b"{\"id\":4}", b"{\"id\":5}"]).await;
    cluster.forget_before("shop.orders", 4).await;
    supervisor.resume("warehouse");
    eventually("R7", || state(&supervisor, "warehouse") == TaskState::Failed).await;
    assert_eq!(error(&supervisor, "warehouse").code, "KAFKA_OFFSET_OUT_OF_RANGE");
    assert_eq!(target.ids("shop.orders"), [1, 2]);
    supervisor.stop().await;

    let target = Target::exactly_once();
    cluster.create("shop.lines", 1, &[]).await;
    cluster.send("shop.lines", 0, &[b"{\"id\":1}"]).await;
    let mut spec = deliver("other", &target);
    spec.topics = vec![towpath_api::TopicPattern::parse("shop.lines").unwrap()];
    let supervisor = cluster.supervise(vec![spec]);
    settle(&supervisor).await;
    cluster.delete("shop.lines").await;
    // Kafka takes a moment to let go of a name.
    let topic = TopicName::new("shop.lines").unwrap();
    let new =
        towpath_client::NewTopic { partitions: Some(1), ..towpath_client::NewTopic::new(topic.clone()) };
    let mut created = Err(());
    for _ in 0..200 {
        let mut answers =
            cluster.client.admin().create_topics(std::slice::from_ref(&new), false).await.unwrap();
        created = answers.remove(&topic).unwrap().map(drop).map_err(drop);
        if created.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(created.is_ok());
    cluster.send("shop.lines", 0, &[b"{\"id\":100}"]).await;
    eventually("R7", || state(&supervisor, "other") == TaskState::Failed).await;
    assert_eq!(error(&supervisor, "other").code, "KAFKA_TOPIC_RECREATED");
    assert_eq!(target.ids("shop.lines"), [1]);
    supervisor.stop().await;
}
