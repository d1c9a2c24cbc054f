//! Nodes of a cluster, started, stopped and killed.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use towpath_broker::{Broker, BrokerConfig, ClusterSettings, Endpoint};
use towpath_types::BrokerId;
use towpath_wire::create_topics::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
use towpath_wire::{CreateTopicsRequest, ErrorCode, MetadataRequest, MetadataResponse};

use crate::support::{Client, produce_request};

/// How long a cluster may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One node; its tasks run in a runtime of their own.
struct Node {
    runtime: Option<Runtime>,
    broker: Option<Broker>,
    dir: TempDir,
    config: BrokerConfig,
}

/// Nodes 1 to N.
pub(crate) struct TestCluster {
    nodes: Vec<Node>,
    controllers: Vec<(BrokerId, Endpoint)>,
}

/// An address of its own for every listener: the outgoing connections of all tests have their ports on 127.0.0.1, and
/// would take the port of a node that is down for a moment.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 250).unwrap() + 1;
    let listener = TcpListener::bind((Ipv4Addr::new(127, process, high, low.max(1)), 0)).unwrap();
    listener.local_addr().unwrap()
}

fn node(
    id: i32,
    peers: SocketAddr,
    controllers: &[(BrokerId, Endpoint)],
    adjust: impl Fn(&mut BrokerConfig),
) -> Node {
    let dir = tempfile::tempdir().unwrap();
    let mut config = BrokerConfig::new(dir.path());
    config.node_id = BrokerId::new(id);
    config.listen = Some(free_address());
    config.offsets_partitions = 3;
    config.replication_factor_default = i16::try_from(controllers.len().min(3)).unwrap();
    config.cluster = Some(ClusterSettings::new("test", controllers.to_vec(), peers));
    config.replication.session_timeout = Duration::from_secs(3);
    config.replication.heartbeat_interval = Duration::from_millis(300);
    config.replication.replica_lag_max = Duration::from_secs(3);
    adjust(&mut config);
    Node { runtime: None, broker: None, dir, config }
}

/// What the next attempt may change.
pub(crate) async fn moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

impl TestCluster {
    /// `count` nodes, all of them controllers, started.
    pub(crate) async fn start(count: i32) -> Self {
        Self::start_with(count, |_| {}).await
    }

    pub(crate) async fn start_with(count: i32, adjust: impl Fn(&mut BrokerConfig)) -> Self {
        let addresses: Vec<(i32, SocketAddr)> = (1..=count).map(|id| (id, free_address())).collect();
        let controllers: Vec<_> = addresses
            .iter()
            .map(|(id, address)| {
                (BrokerId::new(*id), Endpoint { host: address.ip().to_string(), port: address.port() })
            })
            .collect();
        let nodes =
            addresses.iter().map(|(id, address)| node(*id, *address, &controllers, &adjust)).collect();
        let mut cluster = Self { nodes, controllers };
        cluster.start_all().await;
        cluster
    }

    /// Starts one more node, which is no controller; returns its id.
    pub(crate) async fn add_broker(&mut self, adjust: impl Fn(&mut BrokerConfig)) -> i32 {
        let id = i32::try_from(self.nodes.len()).unwrap() + 1;
        self.nodes.push(node(id, free_address(), &self.controllers, |config| {
            if let Some(settings) = &mut config.cluster {
                settings.roles.controller = false;
            }
            adjust(config);
        }));
        self.start_all().await;
        id
    }

    /// Starts every node that does not run.
    pub(crate) async fn start_all(&mut self) {
        self.start_those(|_| true).await;
    }

    async fn start_those(&mut self, these: impl Fn(i32) -> bool) {
        let mut starting = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            if node.broker.is_none() && these(node.config.node_id.get()) {
                let runtime = tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(1)
                    .enable_all()
                    .build()
                    .unwrap();
                let config = node.config.clone();
                starting.push((index, runtime.spawn(async move { start(config).await })));
                node.runtime = Some(runtime);
            }
        }
        for (index, starting) in starting {
            let started = tokio::time::timeout(PATIENCE, starting).await.expect("the node starts in time");
            self.nodes[index].broker = Some(started.unwrap());
        }
    }

    fn node(&mut self, id: i32) -> &mut Node {
        &mut self.nodes[usize::try_from(id - 1).unwrap()]
    }

    /// Starts a node.
    pub(crate) async fn start_node(&mut self, id: i32) {
        assert!(self.node(id).broker.is_none());
        self.start_those(|other| other == id).await;
    }

    /// Ends a node without a word.
    pub(crate) fn kill(&mut self, id: i32) {
        let node = self.node(id);
        let (broker, runtime) = (node.broker.take(), node.runtime.take());
        // All tasks end where they stand; connections break.
        runtime.unwrap().shutdown_background();
        drop(broker);
    }

    /// Ends a node in good order.
    pub(crate) async fn stop(&mut self, id: i32) {
        let node = self.node(id);
        let (broker, runtime) = (node.broker.take().unwrap(), node.runtime.take().unwrap());
        let stopping = runtime.spawn(async move { broker.shutdown().await });
        tokio::time::timeout(PATIENCE, stopping).await.expect("the node stops in time").unwrap().unwrap();
        runtime.shutdown_background();
    }

    /// Ends all nodes in good order, at the same time.
    pub(crate) async fn stop_all(&mut self) {
        let mut stopping = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| node.broker.is_some()) {
            let (broker, runtime) = (node.broker.take().unwrap(), node.runtime.take().unwrap());
            stopping.push((runtime.spawn(async move { broker.shutdown().await }), runtime));
        }
        for (stopping, runtime) in stopping {
            tokio::time::timeout(PATIENCE, stopping).await.expect("the node stops in time").unwrap().unwrap();
            runtime.shutdown_background();
        }
    }

    /// A node's data directory.
    pub(crate) fn dir(&self, id: i32) -> &std::path::Path {
        self.nodes[usize::try_from(id - 1).unwrap()].dir.path()
    }

    /// Everything that a node has stored is gone.
    pub(crate) fn wipe(&mut self, id: i32) {
        let node = self.node(id);
        assert!(node.broker.is_none());
        for entry in std::fs::read_dir(node.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap()
            } else {
                std::fs::remove_file(path).unwrap()
            }
        }
    }

    pub(crate) fn broker(&self, id: i32) -> &Broker {
        self.nodes[usize::try_from(id - 1).unwrap()].broker.as_ref().unwrap()
    }

    /// Where clients reach a node.
    pub(crate) fn port(&self, id: i32) -> i32 {
        i32::from(self.broker(id).advertised().port)
    }

    /// Log start, end and high watermark of a topic's first partition on a node, if it holds it.
    pub(crate) fn ends(&self, id: i32, topic: &str) -> Option<(i64, i64, i64)> {
        let partitions = self.broker(id).partitions();
        let found = partitions
            .iter()
            .find(|status| status.partition.topic.as_str() == topic && status.partition.partition == 0)?;
        Some((found.log_start_offset.get(), found.log_end_offset.get(), found.high_watermark.get()))
    }

    /// Waits until a topic's first partition is on these nodes with the given log start, end and high watermark.
    pub(crate) async fn until_ends(&self, topic: &str, nodes: &[i32], ends: (i64, i64, i64)) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found: Vec<_> = nodes.iter().map(|id| self.ends(*id, topic)).collect();
            if found.iter().all(|found| *found == Some(ends)) {
                return;
            }
            assert!(Instant::now() < deadline, "{found:?} on {nodes:?}, not {ends:?}");
            moment().await;
        }
    }

    /// The active controller, on which all running nodes agree.
    pub(crate) async fn controller(&self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut found = Vec::new();
            for id in self.running() {
                found.push(self.metadata(id, "none").await.controller_id);
            }
            if found[0] > 0 && found.iter().all(|id| *id == found[0]) && self.running().contains(&found[0]) {
                return found[0];
            }
            assert!(Instant::now() < deadline, "{found:?}");
            moment().await;
        }
    }

    /// A running node that is not the active controller.
    pub(crate) async fn not_the_controller(&self) -> i32 {
        let controller = self.controller().await;
        self.running().into_iter().find(|id| *id != controller).unwrap()
    }

    /// A connection to a node.
    pub(crate) fn client(&self, id: i32) -> Client {
        let node = &self.nodes[usize::try_from(id - 1).unwrap()];
        let _inside = node.runtime.as_ref().unwrap().enter();
        Client::of(node.broker.as_ref().unwrap())
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> Vec<i32> {
        (1..).zip(&self.nodes).filter(|(_, node)| node.broker.is_some()).map(|(id, _)| id).collect()
    }

    pub(crate) async fn metadata(&self, id: i32, topic: &str) -> MetadataResponse {
        let topics = vec![towpath_wire::metadata::MetadataRequestTopic {
            name: Some(topic.to_owned()),
            ..Default::default()
        }];
        let request = MetadataRequest {
            topics: Some(topics),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        self.client(id).call(12, &request).await
    }

    /// Waits until all running nodes tell of a partition what `is_so` asks for.
    pub(crate) async fn until(
        &self,
        topic: &str,
        what: &str,
        is_so: impl Fn(&towpath_wire::metadata::MetadataResponsePartition) -> bool,
    ) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut all = true;
            let mut seen = String::new();
            for id in self.running() {
                let metadata = self.metadata(id, topic).await;
                let partition = metadata.topics.first().and_then(|topic| topic.partitions.first());
                all &= partition.is_some_and(&is_so);
                seen = format!("{seen}\nnode {id}: {partition:?}");
            }
            if all {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {seen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The leader of a topic's first partition by any node's metadata.
    pub(crate) async fn leader(&self, topic: &str) -> i32 {
        let any = self.running()[0];
        self.until(topic, "a leader", |partition| partition.leader_id > 0).await;
        self.metadata(any, topic).await.topics[0].partitions[0].leader_id
    }

    /// The leader of a topic's first partition, once it is another one.
    pub(crate) async fn leader_other_than(&self, topic: &str, old: i32) -> i32 {
        self.until(topic, "another leader", |partition| {
            partition.leader_id > 0 && partition.leader_id != old
        })
        .await;
        self.leader(topic).await
    }

    /// Creates a topic whose first partition is on these nodes, the first of them preferred.
    pub(crate) async fn create_topic_on(&self, at: i32, name: &str, on: &[i32], configs: &[(&str, &str)]) {
        let assignment = CreatableReplicaAssignment { partition_index: 0, broker_ids: on.to_vec() };
        self.create(at, name, (-1, -1), vec![assignment], configs).await;
    }

    pub(crate) async fn create_topic(&self, at: i32, name: &str, replicas: i16, configs: &[(&str, &str)]) {
        self.create(at, name, (1, replicas), Vec::new(), configs).await;
    }

    async fn create(
        &self,
        at: i32,
        name: &str,
        (partitions, replicas): (i32, i16),
        assignments: Vec<CreatableReplicaAssignment>,
        configs: &[(&str, &str)],
    ) {
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: name.to_owned(),
                num_partitions: partitions,
                replication_factor: replicas,
                assignments,
                configs: configs
                    .iter()
                    .map(|(name, value)| CreatableTopicConfig {
                        name: (*name).to_owned(),
                        value: Some((*value).to_owned()),
                    })
                    .collect(),
            }],
            ..CreateTopicsRequest::default()
        };
        let response = self.client(at).call(7, &request).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0]);
    }

    /// Produces one batch with `acks=all`, wherever the leader is, until it is acknowledged; returns its offset.
    pub(crate) async fn produce(&self, topic: &str, batch: Bytes) -> i64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let leader = self.leader(topic).await;
            if self.running().contains(&leader) {
                let mut request = produce_request(topic, 0, -1, batch.clone());
                request.timeout_ms = 5_000;
                let response = self.client(leader).call(9, &request).await;
                let partition = &response.responses[0].partition_responses[0];
                if partition.error_code == 0 {
                    return partition.base_offset;
                }
                let code = ErrorCode::from_code(partition.error_code);
                assert!(code.is_retriable(), "{partition:?}");
                assert!(Instant::now() < deadline, "{partition:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn start(config: BrokerConfig) -> Broker {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Broker::start(config.clone()).await {
            Ok(broker) => return broker,
            // The one before is still on its way out.
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("node {} does not start: {error:?}", config.node_id),
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(runtime) = node.runtime.take() {
                runtime.shutdown_background();
            }
        }
    }
}
