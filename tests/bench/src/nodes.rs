//! Clusters of three nodes under measurement: Towpath's and Apache Kafka's, each node in a network namespace of its own
//! where there are some.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use towpath_harness::cluster::{Cluster, Node, Options, Peer};
use towpath_harness::{Guarded, metadata};
use towpath_wire::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};

use crate::admin::Admin;
use crate::broker::kafka_name;
use crate::cli::{Arguments, Side};
use crate::load::Link;
use crate::report::say;

/// The last version that our wire crate and both brokers have in common.
const CREATE_TOPICS_VERSION: i16 = 7;
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cluster may take to be whole again after a node came back.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(180);

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Nodes {
    cluster: Cluster,
}

/// The JVM as in the other workloads; the harness's settings for tests (small segments, no retention) are Kafka's
/// defaults again, but files are deleted soon.
fn options(peer: Peer) -> Options {
    let settings = [
        ("log.segment.bytes", "1073741824"),
        ("log.retention.ms", "604800000"),
        ("log.segment.delete.delay.ms", "1000"),
    ];
    Options {
        kafka_settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        kafka_jvm: ["-Xmx1024m", "-Xms1024m", "-XX:+UseG1GC"].map(str::to_owned).to_vec(),
        ..Options::three(peer)
    }
}

/// Creates a topic of one partition, whose replicas are given in order of preference; gives the error code and what
/// was said of it.
fn create_assigned(link: &mut Link, name: &str, replicas: &[u8], min_isr: &str) -> Result<(i16, String)> {
    let assignment = CreatableReplicaAssignment {
        partition_index: 0,
        broker_ids: replicas.iter().map(|id| i32::from(*id)).collect(),
    };
    let config =
        CreatableTopicConfig { name: "min.insync.replicas".to_owned(), value: Some(min_isr.to_owned()) };
    let topic = CreatableTopic {
        name: name.to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![assignment],
        configs: vec![config],
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let response = link.ask(&request, CREATE_TOPICS_VERSION)?;
    let result = response.topics.into_iter().next().context("an answer without the topic")?;
    Ok((result.error_code, result.error_message.unwrap_or_default()))
}

impl Nodes {
    /// Starts the clusters that take part: Towpath's first.
    pub(crate) fn start_all(arguments: &Arguments) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for (side, peer) in [(Side::Towpath, Peer::Towpath), (Side::Peer, Peer::Kafka)] {
            if arguments.wants(side) {
                say(&format!("starting three nodes: {peer:?}"));
                all.push(Self { cluster: Cluster::start(options(peer))? });
            }
        }
        if all.is_empty() {
            bail!("this workload has no floor");
        }
        Ok(all)
    }

    /// What is to be said of how they are set up.
    pub(crate) fn setup(&self) -> String {
        let place = if self.cluster.network().has_links() {
            "in a network namespace of its own (veth pairs, one bridge)"
        } else {
            "on an address of its own of the loopback device"
        };
        format!(
            "three nodes of each, all broker and controller, each {place}, on all cores, with their brokers' defaults; \
             Apache Kafka's JVMs with a heap of 1 GB and G1; both clusters are up all the time"
        )
    }

    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self.cluster.peer() {
            Peer::Towpath => "towpath".to_owned(),
            Peer::Kafka => kafka_name(),
        }
    }

    /// Whether it needs a long warm-up.
    pub(crate) fn on_jvm(&self) -> bool {
        self.cluster.peer() == Peer::Kafka
    }

    /// The processes of all nodes, which must run.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let pids: Vec<u32> = self.cluster.processes().map(|(_, process)| Guarded::pid(process)).collect();
        if pids.len() != self.cluster.nodes().len() {
            bail!("a node does not run\n{}", self.cluster.log_tails());
        }
        Ok(pids)
    }

    /// The ids of all nodes.
    pub(crate) fn ids(&self) -> Vec<u8> {
        self.cluster.nodes().iter().map(Node::id).collect()
    }

    /// The listeners of the nodes that run.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.cluster.listeners()
    }

    /// A node's listener.
    pub(crate) fn address(&self, id: u8) -> Result<SocketAddr> {
        Ok(self.cluster.node(id)?.kafka_address())
    }

    /// A new connection for administration.
    pub(crate) fn admin(&self) -> Result<Admin> {
        Admin::connect_any(&self.addresses())
    }

    /// Which partitions of a topic each broker leads; every partition must have a leader and all replicas in sync.
    pub(crate) fn leaders(&self, topic: &str) -> Result<BTreeMap<u8, Vec<i32>>> {
        let mut leaders = BTreeMap::<u8, Vec<i32>>::new();
        for partition in self.cluster.metadata()?.of(topic) {
            if !partition.is_whole() {
                bail!("not whole: {partition:?}");
            }
            leaders.entry(u8::try_from(partition.leader)?).or_default().push(partition.partition);
        }
        Ok(leaders)
    }

    /// The fewest replicas in sync among a topic's partitions, as the first node says.
    pub(crate) fn least_isr(&self, topic: &str) -> Result<usize> {
        let address = *self.addresses().first().context("no node runs")?;
        let metadata = metadata::ask(address, ASK_TIMEOUT)?;
        metadata.of(topic).map(|partition| partition.isr.len()).min().context("the topic is not there")
    }

    /// Creates a topic of one partition that `leader` leads, with three replicas and min.insync.replicas 2, and waits
    /// until it does.
    pub(crate) fn create_led_by(&self, leader: u8, name: &str) -> Result<()> {
        let mut replicas = self.ids();
        replicas.sort_by_key(|id| *id != leader);
        let mut link = Link::connect(self.address(leader)?, 16 << 10)?;
        let (code, message) = create_assigned(&mut link, name, &replicas, "2")?;
        if code != 0 {
            bail!("{name} was not created: error {code} {message}");
        }
        let deadline = Instant::now() + ASK_TIMEOUT;
        while self.leaders(name).map_or(true, |leaders| !leaders.contains_key(&leader)) {
            if Instant::now() >= deadline {
                bail!("node {leader} does not lead {name}: {:?}", self.leaders(name));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Tries once to create a topic of one partition through node `via`, on that node alone.
    pub(crate) fn try_create(&self, via: u8, name: &str) -> Result<()> {
        const TOPIC_ALREADY_EXISTS: i16 = 36;
        let mut link = Link::connect(self.address(via)?, 16 << 10)?;
        match create_assigned(&mut link, name, &[via], "1")? {
            // An attempt whose answer was lost may have done it.
            (0 | TOPIC_ALREADY_EXISTS, _) => Ok(()),
            (code, message) => bail!("error {code} {message}"),
        }
    }

    /// `kill -9` of a node; gives when.
    pub(crate) fn kill(&mut self, id: u8) -> Result<Instant> {
        let node = self.cluster.node_mut(id)?;
        let at = Instant::now();
        node.kill9()?;
        Ok(at)
    }

    /// Starts a node that was killed, and waits until every replica is in sync again.
    pub(crate) fn bring_back(&mut self, id: u8) -> Result<()> {
        self.cluster.node_mut(id)?.start()?;
        self.cluster.wait_whole(WHOLE_TIMEOUT)
    }

    /// The end of what each node said, for an error message.
    pub(crate) fn log_tails(&self) -> String {
        self.cluster.log_tails()
    }
}
