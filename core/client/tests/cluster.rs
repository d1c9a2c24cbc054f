//! What only a cluster of several brokers can show: three of ours in this process, each with a runtime of its own, so
//! that one can be killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use towpath_broker::{Broker, BrokerConfig, ClusterSettings, Endpoint};
use towpath_client::{
    Acknowledgement, AcknowledgementMode, AlterConfig, Client, ClientConfig, ConfigResource, NewTopic,
    PartitionDescription, ProducerConfig, ProducerRecord, ShareConsumer, ShareConsumerConfig,
};
use towpath_types::{BrokerId, GroupId, TopicName, TopicPartition};

const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    running: Option<(Runtime, Broker)>,
    config: BrokerConfig,
    _dir: TempDir,
}

impl Node {
    async fn start(&mut self) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = self.config.clone();
        let broker = runtime.spawn(async move { Broker::start(config).await });
        self.running = Some((runtime, broker.await.unwrap().unwrap()));
    }

    /// In good order, or without a word.
    async fn end(&mut self, in_order: bool) {
        let (runtime, broker) = self.running.take().unwrap();
        if in_order {
            runtime.spawn(async move { broker.shutdown().await }).await.unwrap().unwrap();
        }
        runtime.shutdown_background();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((runtime, _)) = self.running.take() {
            runtime.shutdown_background();
        }
    }
}

/// An address that no outgoing connection takes while a node is down.
fn address(id: i32) -> SocketAddr {
    let process = u8::try_from(std::process::id() % 250).unwrap() + 1;
    let host = Ipv4Addr::new(127, process, 77, u8::try_from(id).unwrap());
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

/// Three nodes, all of them controllers.
async fn start() -> (Vec<Node>, Client) {
    let peers: Vec<SocketAddr> = (1..=3).map(address).collect();
    let endpoint = |address: &SocketAddr| Endpoint { host: address.ip().to_string(), port: address.port() };
    let controllers: Vec<_> =
        (1..).zip(&peers).map(|(id, address)| (BrokerId::new(id), endpoint(address))).collect();
    let mut nodes = Vec::new();
    for (id, peer) in (1..).zip(&peers) {
        let dir = TempDir::new().unwrap();
        let mut config = BrokerConfig::new(dir.path());
        config.node_id = BrokerId::new(id);
        config.listen = Some(address(100 + id));
        config.offsets_partitions = 3;
        config.replication_factor_default = 3;
        config.cluster = Some(ClusterSettings::new("test", controllers.clone(), *peer));
        config.replication.session_timeout = Duration::from_secs(3);
        config.replication.heartbeat_interval = Duration::from_millis(300);
        config.replication.replica_lag_max = Duration::from_secs(3);
        config.set("share.coordinator.state.topic.num.partitions", "3").unwrap();
        nodes.push(Node { running: None, config, _dir: dir });
    }
    futures_util::future::join_all(nodes.iter_mut().map(Node::start)).await;
    let bootstrap_servers = nodes.iter().map(|node| node.config.listen.unwrap().to_string()).collect();
    (nodes, Client::connect(ClientConfig { bootstrap_servers, ..Default::default() }).await.unwrap())
}

async fn partition(client: &Client, topic: &TopicName) -> PartitionDescription {
    let described = client.admin().describe_topics(std::slice::from_ref(topic)).await.unwrap();
    described[topic].as_ref().unwrap().partitions[0].clone()
}

async fn until(what: &str, client: &Client, topic: &TopicName, is: impl Fn(&PartitionDescription) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is(&partition(client, topic).await) {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a member was told.
#[derive(Default)]
struct Told {
    /// Acknowledged, and that is stored.
    stored: BTreeSet<i64>,
    /// Acknowledged, and not known to be stored.
    said: BTreeSet<i64>,
}

impl Told {
    /// Polls once, and accepts what comes.
    async fn poll(&mut self, consumer: &ShareConsumer, at: &TopicPartition) {
        for part in consumer.poll(Duration::from_millis(300)).await.unwrap() {
            for record in &part {
                let offset = record.unwrap().offset;
                assert!(!self.stored.contains(&offset.get()), "{offset} was accepted");
                if consumer.acknowledge(at, offset, Acknowledgement::Accept).is_ok() {
                    self.said.insert(offset.get());
                }
            }
        }
    }

    async fn commit(&mut self, consumer: &ShareConsumer) {
        for (_, result) in consumer.commit().await.unwrap() {
            match result {
                Ok(()) => self.stored.append(&mut self.said),
                Err(error) => {
                    // It may count or not: if not, it comes again.
                    assert!(error.is_retriable() || error.code().is_some(), "{error}");
                    self.said.clear();
                }
            }
        }
        assert!(self.said.is_empty(), "the commit says nothing of {:?}", self.said);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_consumer_follows_its_leaders_and_keeps_what_is_stored() {
    let (mut nodes, client) = start().await;
    let topic = TopicName::new("t").unwrap();
    let mut new = NewTopic::new(topic.clone());
    new.partitions = Some(1);
    client.admin().create_topics(&[new], false).await.unwrap()[&topic].as_ref().unwrap();
    let group = GroupId::new("s").unwrap();
    let from = AlterConfig::Set("share.auto.offset.reset".to_owned(), "earliest".to_owned());
    let resource = ConfigResource::Group(group.clone());
    let changes = [(resource.clone(), vec![from])];
    client.admin().incremental_alter_configs(&changes, false).await.unwrap()[&resource].as_ref().unwrap();
    let consumer = client.share_consumer(ShareConsumerConfig {
        acknowledgement_mode: AcknowledgementMode::Explicit,
        max_poll_records: 5,
        ..ShareConsumerConfig::new(group)
    });
    consumer.subscribe(std::slice::from_ref(&topic)).unwrap();
    let producer = client.producer(ProducerConfig { batch_bytes: 1, ..Default::default() });
    let at = TopicPartition::new(topic.clone(), 0);
    let mut told = Told::default();
    let mut sent = 0;
    for round in 0..4 {
        for _ in 0..20 {
            producer.send(ProducerRecord { value: Some(b"x"), ..ProducerRecord::new(&topic) }).await.unwrap();
        }
        producer.flush().await.unwrap();
        sent += 20;
        let deadline = Instant::now() + PATIENCE;
        while told.stored.len() + 10 < sent {
            assert!(Instant::now() < deadline, "round {round}: {:?}", told.stored);
            told.poll(&consumer, &at).await;
            told.commit(&consumer).await;
        }
        // Something is with the member, and something on its way, when the leader goes.
        told.poll(&consumer, &at).await;
        let leader = partition(&client, &topic).await.leader.unwrap();
        let node = &mut nodes[usize::try_from(leader - 1).unwrap()];
        let (ended, ()) = tokio::join!(node.end(round % 2 == 0), told.commit(&consumer));
        let () = ended;
        while told.stored.len() < sent {
            assert!(Instant::now() < deadline + PATIENCE, "round {round}: {:?}", told.stored);
            told.poll(&consumer, &at).await;
            told.commit(&consumer).await;
        }
        nodes[usize::try_from(leader - 1).unwrap()].start().await;
        for topic in [&topic, &TopicName::new("__share_group_state").unwrap()] {
            until("all are in sync", &client, topic, |it| it.in_sync_replicas.len() == 3).await;
        }
    }
    assert_eq!(told.stored, (0..80).collect());
    assert!(consumer.close().await.is_empty());
}
