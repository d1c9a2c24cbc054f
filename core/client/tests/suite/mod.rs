//! What the client must do on every cluster; the files beside this one choose the cluster.

mod admin;
mod consume;
mod groups;
mod produce;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use towpath_client::{
    Client, ClientConfig, Consumer, ConsumerConfig, NewTopic, Producer, ProducerConfig, ProducerRecord,
    StartAt,
};
use towpath_types::{TopicName, TopicPartition};

pub(crate) use admin::*;
pub(crate) use consume::*;
pub(crate) use groups::*;
pub(crate) use produce::*;

/// What a test waits for at most.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn connect(config: ClientConfig) -> Client {
    Client::connect(config).await.unwrap()
}

/// A new topic with a name of its own.
async fn topic(client: &Client, what: &str, partitions: i32) -> TopicName {
    topic_with(client, what, partitions, &[]).await
}

async fn topic_with(client: &Client, what: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicName {
    let name = TopicName::new(&format!("{what}-{:08x}", rand::random::<u32>())).unwrap();
    let mut new = NewTopic::new(name.clone());
    new.partitions = Some(partitions);
    new.replication_factor = Some(1);
    new.configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let created = client.admin().create_topics(&[new], false).await.unwrap();
    let id = created[&name].as_ref().unwrap();
    assert!(!id.is_zero());
    name
}

fn partitions(topic: &TopicName, count: i32) -> Vec<TopicPartition> {
    (0..count).map(|index| TopicPartition::new(topic.clone(), index)).collect()
}

/// Sends `count` records with their number as the value to one partition.
async fn fill(producer: &Producer, topic: &TopicName, partition: i32, count: u32) {
    for number in 0..count {
        let value = number.to_string();
        let record = ProducerRecord {
            partition: Some(partition),
            value: Some(value.as_bytes()),
            ..ProducerRecord::new(topic)
        };
        producer.send(record).await.unwrap();
    }
    producer.flush().await.unwrap();
}

fn manual(client: &Client, from: &[(TopicPartition, StartAt)]) -> Consumer {
    let consumer = client.consumer(ConsumerConfig::default());
    consumer.assign(from).unwrap();
    consumer
}

/// Polls until `count` records are there; values as text, by partition.
async fn values(consumer: &Consumer, count: usize) -> BTreeMap<i32, Vec<String>> {
    let mut values: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let deadline = Instant::now() + PATIENCE;
    let mut seen = 0;
    while seen < count {
        assert!(Instant::now() < deadline, "only {seen} of {count} records came");
        for batch in consumer.poll(Duration::from_millis(500)).await.unwrap() {
            for record in &batch {
                let value = record.unwrap().value.unwrap_or(b"null");
                let list = values.entry(batch.partition.partition).or_default();
                list.push(String::from_utf8(value.to_vec()).unwrap());
                seen += 1;
            }
        }
    }
    values
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn producer(client: &Client) -> Producer {
    client.producer(ProducerConfig::default())
}

/// Makes a test of every expectation; `$cluster` is a path to `fn() -> ClientConfig`.
#[macro_export]
macro_rules! suite {
    ($cluster:path: $($test:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let config = tokio::task::spawn_blocking($cluster).await.unwrap();
            let run = suite::$test(suite::connect(config).await);
            tokio::time::timeout(std::time::Duration::from_secs(120), run).await.expect("the test hangs");
        }
    )*};
}
