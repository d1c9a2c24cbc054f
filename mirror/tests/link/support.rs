//! Two clusters and a link between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_broker::{Broker, BrokerConfig};
use towpath_client::{
    Client, ClientConfig, ConsumerConfig, IsolationLevel, NewTopic, Producer, ProducerConfig, ProducerRecord,
    StartAt,
};
use towpath_mirror::{Begin, Filter, Link, LinkConfig, LinkState, LinkStatus, Mode, Naming, Sync};
use towpath_types::{TopicName, TopicPartition};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one broker.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) config: ClientConfig,
    broker: Option<(Runtime, Broker)>,
    _data: TempDir,
}

impl Drop for Cluster {
    /// A broker has a runtime of its own, which ends as if the process were killed.
    fn drop(&mut self) {
        if let Some((runtime, broker)) = self.broker.take() {
            drop(broker);
            runtime.shutdown_background();
        }
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let config = BrokerConfig {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            auto_create_topics: false,
            ..BrokerConfig::new(data.path())
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let broker = runtime.spawn(Broker::start(config)).await.unwrap().unwrap();
        let address = broker.local_addr().unwrap();
        let config = ClientConfig { bootstrap_servers: vec![address.to_string()], ..Default::default() };
        let client = Client::connect(config.clone()).await.unwrap();
        Self { client, config, broker: Some((runtime, broker)), _data: data }
    }

    pub(crate) async fn topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> TopicName {
        let name = TopicName::new(name).unwrap();
        let mut new = NewTopic::new(name.clone());
        new.partitions = Some(partitions);
        new.configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.client.admin().create_topics(&[new], false).await.unwrap().remove(&name).unwrap().unwrap();
        name
    }

    pub(crate) fn producer(&self) -> Producer {
        self.client.producer(ProducerConfig::default())
    }

    /// All committed values, by partition.
    pub(crate) async fn values(&self, topic: &TopicName, partitions: i32) -> BTreeMap<i32, Vec<String>> {
        let config =
            ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
        // One that knows nothing of topics that were made anew.
        let consumer = Client::connect(self.config.clone()).await.unwrap().consumer(config);
        let all: Vec<_> = (0..partitions).map(|at| TopicPartition::new(topic.clone(), at)).collect();
        let ends = consumer.end_offsets(&all).await.unwrap();
        consumer.assign(&all.iter().map(|it| (it.clone(), StartAt::Earliest)).collect::<Vec<_>>()).unwrap();
        let mut values: BTreeMap<i32, Vec<String>> = (0..partitions).map(|at| (at, Vec::new())).collect();
        let deadline = Instant::now() + PATIENCE;
        while all.iter().any(|it| consumer.position(it).is_none_or(|at| at < ends[it])) {
            assert!(Instant::now() < deadline, "{topic} cannot be read to its end");
            for batch in consumer.poll(Duration::from_millis(100)).await.unwrap() {
                for record in batch.records() {
                    let value = record.unwrap().value.unwrap_or_default().to_vec();
                    values
                        .get_mut(&batch.partition.partition)
                        .unwrap()
                        .push(String::from_utf8(value).unwrap());
                }
            }
        }
        values
    }
}

pub(crate) async fn send(producer: &Producer, topic: &TopicName, partition: i32, value: &str) {
    let record = ProducerRecord {
        partition: Some(partition),
        value: Some(value.as_bytes()),
        ..ProducerRecord::new(topic)
    };
    producer.send(record).await.unwrap();
}

pub(crate) fn link(source: &Cluster, target: &Cluster) -> LinkConfig {
    LinkConfig {
        name: "us-to-eu".to_owned(),
        from: "us".to_owned(),
        to: "eu".to_owned(),
        source: source.config.clone(),
        target: target.config.clone(),
        topics: Filter::new(["*"]).unwrap(),
        naming: Naming::Prefixed,
        mode: Mode::ActivePassive,
        forward: true,
        groups: Filter::new(["*"]).unwrap(),
        sync: Sync { configs: true, partitions: true, deletes: false },
        bandwidth: None,
        begin: Begin::Anew,
        mirrormaker_topics: false,
        refresh: Duration::from_millis(200),
        tasks: 2,
    }
}

/// Waits until a link's status is as it should be.
pub(crate) async fn until(link: &Link, what: &str, is: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = link.status();
        if is(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until so many partitions have nothing that is not mirrored, with the source's end as it is now.
pub(crate) async fn caught_up(link: &Link, source: &Cluster, partitions: usize) -> LinkStatus {
    let mut ends = BTreeMap::new();
    for topic in source.client.admin().list_topics().await.unwrap() {
        let all: Vec<_> =
            (0..topic.partitions as i32).map(|at| TopicPartition::new(topic.name.clone(), at)).collect();
        let config =
            ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
        let found = source.client.consumer(config).end_offsets(&all).await.unwrap();
        ends.extend(found.into_iter().map(|(it, end)| ((it.topic.to_string(), it.partition), end.get())));
    }
    until(link, "it does not catch up", |status| {
        let there =
            |it: &towpath_mirror::PartitionStatus| it.mirrored >= ends[&(it.topic.clone(), it.partition)];
        status.state == LinkState::Running
            && status.partitions.len() == partitions
            && status.partitions.iter().all(there)
    })
    .await
}
