//! A cluster that can be struck, and read.

use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use tokio::runtime::Runtime;
use towpath_client::{Client, ClientConfig, ConsumerConfig, IsolationLevel, NewTopic, StartAt};
use towpath_harness::cluster::{Cluster, Options, Peer};
use towpath_harness::{Kafka, kafka};
use towpath_types::{TopicName, TopicPartition};

use super::PATIENCE;
use super::traffic::Values;

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 3;

pub(crate) fn topic() -> TopicName {
    TopicName::new("orders").unwrap()
}

pub(crate) fn partitions() -> Vec<TopicPartition> {
    (0..PARTITIONS).map(|partition| TopicPartition::new(topic(), partition)).collect()
}

enum Nodes {
    Several(Box<Cluster>),
    One(Box<Kafka>),
}

/// See the module.
pub(crate) struct Side {
    alias: &'static str,
    nodes: Nodes,
    runtime: Runtime,
}

impl Side {
    /// Three nodes of somebody's.
    pub(crate) fn nodes(alias: &'static str, peer: Peer) -> Self {
        let cluster = Cluster::start(Options::three(peer)).unwrap();
        Self::new(alias, Nodes::Several(Box::new(cluster)))
    }

    /// One node of Apache Kafka.
    pub(crate) fn kafka(alias: &'static str) -> Self {
        Self::new(alias, Nodes::One(Box::new(Kafka::start(&kafka::Options::default()).unwrap())))
    }

    fn new(alias: &'static str, nodes: Nodes) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        Self { alias, nodes, runtime }
    }

    pub(crate) const fn alias(&self) -> &'static str {
        self.alias
    }

    pub(crate) const fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(crate) fn bootstrap(&self) -> Vec<String> {
        let list = match &self.nodes {
            Nodes::Several(cluster) => cluster.bootstrap(),
            Nodes::One(kafka) => kafka.bootstrap(),
        };
        list.split(',').map(str::to_owned).collect()
    }

    pub(crate) async fn connect(bootstrap: Vec<String>) -> Client {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let config = ClientConfig { bootstrap_servers: bootstrap.clone(), ..ClientConfig::default() };
            match Client::connect(config).await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{bootstrap:?}: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.runtime.block_on(Self::connect(self.bootstrap()))
    }

    pub(crate) fn create_topic(&self) {
        let client = self.client();
        let new = NewTopic { partitions: Some(PARTITIONS), ..NewTopic::new(topic()) };
        let created = self.runtime.block_on(client.admin().create_topics(&[new], false)).unwrap();
        created.into_values().for_each(|result| result.map(drop).unwrap());
    }

    /// Waits until the mirror has made the topic.
    pub(crate) fn wait_for_topic(&self, patience: Duration) {
        let client = self.client();
        let deadline = Instant::now() + patience;
        let is_there = || {
            let described = self.runtime.block_on(client.admin().describe_topics(&[topic()])).ok();
            described.and_then(|mut it| it.remove(&topic())).is_some_and(|it| it.is_ok())
        };
        while !is_there() {
            assert!(Instant::now() < deadline, "{} has no topic", self.alias);
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Kills one node, and starts it again after a while.
    pub(crate) fn strike(&mut self, dice: &mut StdRng) {
        let pause = Duration::from_millis(dice.random_range(0..3_000));
        match &mut self.nodes {
            Nodes::Several(cluster) => {
                let id = dice.random_range(1..=3);
                eprintln!("node {id} of {} is killed for {pause:?}", self.alias);
                let node = cluster.node_mut(id).unwrap();
                node.kill9().unwrap();
                std::thread::sleep(pause);
                node.start().unwrap();
            }
            Nodes::One(kafka) => {
                eprintln!("{} is killed for {pause:?}", self.alias);
                kafka.kill9().unwrap();
                std::thread::sleep(pause);
                kafka.start_again().unwrap();
            }
        }
    }

    /// Waits until everything is there again.
    pub(crate) fn whole(&mut self) {
        if let Nodes::Several(cluster) = &mut self.nodes {
            cluster.wait_whole(PATIENCE).unwrap();
        }
    }

    /// All committed values.
    pub(crate) fn values(&self) -> Values {
        let client = self.client();
        self.runtime.block_on(read(&client))
    }
}

async fn read(client: &Client) -> Values {
    let config =
        ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
    let consumer = client.consumer(config);
    let all = partitions();
    let deadline = Instant::now() + PATIENCE;
    let ends = loop {
        match consumer.end_offsets(&all).await {
            Ok(ends) if ends.len() == all.len() => break ends,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    consumer.assign(&all.iter().map(|it| (it.clone(), StartAt::Earliest)).collect::<Vec<_>>()).unwrap();
    let mut values: Values = all.iter().map(|it| (it.clone(), Vec::new())).collect();
    while all.iter().any(|it| consumer.position(it).is_none_or(|at| at < ends[it])) {
        assert!(Instant::now() < deadline, "the topic cannot be read to its end");
        for batch in consumer.poll(Duration::from_millis(100)).await.unwrap() {
            let list = values.get_mut(&batch.partition).unwrap();
            list.extend(
                batch.records().map(|it| String::from_utf8(it.unwrap().value.unwrap().to_vec()).unwrap()),
            );
        }
    }
    values
}
