//! The suite against a real Apache Kafka, and what only a broker that dies can show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

mod suite;

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use towpath_client::{
    Client, ClientConfig, ConsumerConfig, FeatureUpdate, FeatureUpgrade, NewTopic, ProducerConfig,
    ProducerRecord, StartAt,
};
use towpath_harness::{Kafka, kafka};
use towpath_types::{TopicName, TopicPartition};

/// One broker for the whole suite: starting one takes seconds.
fn cluster() -> ClientConfig {
    static KAFKA: OnceLock<Mutex<Kafka>> = OnceLock::new();
    let options = kafka::Options::default()
        .set("auto.create.topics.enable", "false")
        // How often transactions that take too long are looked for: ten seconds by default.
        .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500")
        // Members of the consumer protocol hear of changes with their heartbeats: every five seconds by default.
        .set("group.consumer.min.heartbeat.interval.ms", "100")
        .set("group.consumer.heartbeat.interval.ms", "200")
        // So do those of share groups; and locks may end while a test waits for it: after 15 seconds at least by default.
        .set("group.share.min.heartbeat.interval.ms", "100")
        .set("group.share.heartbeat.interval.ms", "200")
        .set("group.share.min.record.lock.duration.ms", "1000")
        .set("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        .set("super.users", "User:ANONYMOUS");
    let kafka = KAFKA.get_or_init(|| Mutex::new(Kafka::start(&options).unwrap()));
    let bootstrap = kafka.lock().unwrap().bootstrap();
    ClientConfig { bootstrap_servers: vec![bootstrap], ..Default::default() }
}

suite!(cluster);
suite!(cluster, not_ours_yet);

/// Kafka before KIP-890: the client adds partitions and groups to its transactions.
mod first_version {
    use super::*;

    fn cluster() -> ClientConfig {
        static KAFKA: OnceLock<Mutex<Kafka>> = OnceLock::new();
        let kafka = KAFKA.get_or_init(|| {
            let options = kafka::Options::default()
                .set("auto.create.topics.enable", "false")
                .set("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500");
            let kafka = Kafka::start(&options).unwrap();
            let config = ClientConfig { bootstrap_servers: vec![kafka.bootstrap()], ..Default::default() };
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let admin = Client::connect(config).await.unwrap().admin();
                let down = FeatureUpdate {
                    feature: "transaction.version".to_owned(),
                    level: 1,
                    upgrade: FeatureUpgrade::SafeDowngrade,
                };
                admin.update_features(&[down], false).await.unwrap();
                let level = admin.describe_features().await.unwrap().features["transaction.version"];
                assert_eq!(level.finalized, Some(1));
            });
            Mutex::new(kafka)
        });
        let bootstrap = kafka.lock().unwrap().bootstrap();
        ClientConfig { bootstrap_servers: vec![bootstrap], ..Default::default() }
    }

    suite!(cluster, transactions);
}

/// R1 as the client sees it: the broker dies and comes back under load, and every record is there once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_costs_neither_records_nor_order() {
    let start = || Kafka::start(&kafka::Options::default()).unwrap();
    let kafka = Arc::new(Mutex::new(tokio::task::spawn_blocking(start).await.unwrap()));
    let bootstrap = kafka.lock().unwrap().bootstrap();
    let config = ClientConfig { bootstrap_servers: vec![bootstrap], ..Default::default() };
    let client = Client::connect(config).await.unwrap();
    let topic = TopicName::new("survivor").unwrap();
    let mut new = NewTopic::new(topic.clone());
    new.partitions = Some(2);
    client.admin().create_topics(&[new], false).await.unwrap()[&topic].as_ref().unwrap();
    let producer = client.producer(ProducerConfig { delivery_timeout_ms: u64::MAX, ..Default::default() });
    let killer = tokio::task::spawn_blocking(move || {
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(700));
            kafka.lock().unwrap().kill9().unwrap();
            kafka.lock().unwrap().start_again().unwrap();
        }
        kafka
    });
    let mut sent = 0u32;
    while !killer.is_finished() || sent < 20_000 {
        let value = sent.to_string();
        for partition in 0..2 {
            let record = ProducerRecord {
                partition: Some(partition),
                value: Some(value.as_bytes()),
                ..ProducerRecord::new(&topic)
            };
            producer.send(record).await.unwrap();
        }
        sent += 1;
        if sent.is_multiple_of(100) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    producer.flush().await.unwrap();
    let _kafka = killer.await.unwrap();
    let consumer = client.consumer(ConsumerConfig::default());
    let from = |index| (TopicPartition::new(topic.clone(), index), StartAt::Earliest);
    consumer.assign(&[from(0), from(1)]).unwrap();
    let mut next = [0u32; 2];
    while next != [sent, sent] {
        for batch in consumer.poll(Duration::from_secs(20)).await.unwrap() {
            for record in &batch {
                let value = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
                let at = &mut next[batch.partition.partition as usize];
                assert_eq!(value, at.to_string(), "partition {}", batch.partition.partition);
                *at += 1;
            }
        }
    }
    assert!(consumer.poll(Duration::from_millis(500)).await.unwrap().is_empty(), "nothing twice at the end");
}
