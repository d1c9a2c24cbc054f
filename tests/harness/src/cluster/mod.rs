//! Several nodes that are one cluster: `towpath broker` or Apache Kafka, each in a network namespace of its own and, if
//! asked for, on a small file system of its own.

mod node;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::child::{Guarded, Output};
use crate::kafka;
use crate::metadata::{self, Metadata};
use crate::network::Network;
use crate::process;
use crate::temp::TempDir;

pub use node::{Node, clock_library};

/// How long a node may take to answer its clients; other work may share the machine.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a graceful end may take.
pub const END_TIMEOUT: Duration = Duration::from_secs(120);

/// Whose nodes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// `towpath broker`.
    Towpath,
    /// Apache Kafka (KRaft), every node broker and controller.
    Kafka,
}

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose nodes they are.
    pub peer: Peer,
    /// How many nodes there are at first; all are brokers and controllers.
    pub nodes: u8,
    /// The default of `min.insync.replicas`.
    pub min_insync_replicas: u32,
    /// If given, each node's data lie on a file system of so many MiB.
    pub disk_mib: Option<u64>,
    /// Whether the nodes' clocks can be moved; takes libfaketime ([`clock_library`]).
    pub clock: bool,
    /// Settings of every broker under Kafka's names, whosever it is.
    pub settings: Vec<(String, String)>,
    /// More lines of `server.properties`, for Kafka only.
    pub kafka_settings: Vec<(String, String)>,
    /// Arguments of the nodes' JVMs, for Kafka only.
    pub kafka_jvm: Vec<String>,
}

impl Options {
    /// Three nodes on plain folders, with min.insync.replicas 2.
    #[must_use]
    pub fn three(peer: Peer) -> Self {
        Self {
            peer,
            nodes: 3,
            min_insync_replicas: 2,
            disk_mib: None,
            clock: false,
            settings: Vec::new(),
            kafka_settings: Vec::new(),
            kafka_jvm: node::small_server_jvm(),
        }
    }
}

/// Running nodes.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    // Dropped in this order: processes, then their network, then their files.
    nodes: Vec<Node>,
    network: Network,
    folder: TempDir,
    /// Kafka's cluster id.
    id: String,
}

impl Cluster {
    /// Starts the nodes, and waits until each knows all of them.
    ///
    /// # Errors
    /// If namespaces, mounts or nodes cannot be had; the nodes' logs are in the error.
    pub fn start(options: Options) -> Result<Self> {
        let network = Network::new()?;
        let folder = TempDir::new("cluster")?;
        let first = options.nodes;
        let mut cluster = Self { options, nodes: Vec::new(), network, folder, id: kafka::random_uuid() };
        for id in 1..=first {
            cluster.prepare(id)?;
        }
        std::thread::scope(|scope| {
            let starts: Vec<_> = cluster.nodes.iter_mut().map(|node| scope.spawn(|| node.start())).collect();
            starts.into_iter().try_for_each(|start| {
                start.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a start panicked")))
            })
        })?;
        cluster.wait_whole(READY_TIMEOUT)?;
        Ok(cluster)
    }

    fn prepare(&mut self, id: u8) -> Result<()> {
        self.network.add(id)?;
        let controllers: Vec<_> =
            (1..=self.options.nodes).map(|id| format!("{id}@{}:9093", self.network.address(id))).collect();
        let setup = node::Setup {
            peer: self.options.peer,
            id,
            address: self.network.address(id),
            is_controller: id <= self.options.nodes,
            controllers,
            min_insync_replicas: self.options.min_insync_replicas,
            cluster: self.id.clone(),
            prefix: self.network.prefix(id),
            clock: self.options.clock,
            settings: self.options.settings.clone(),
            kafka_settings: self.options.kafka_settings.clone(),
            kafka_jvm: self.options.kafka_jvm.clone(),
        };
        self.nodes.push(Node::new(setup, &self.folder.join(format!("n{id}")), self.options.disk_mib)?);
        Ok(())
    }

    /// Adds a broker (no controller), and waits until all know it. Returns its id.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn add_broker(&mut self) -> Result<u8> {
        let id = self.nodes.iter().map(Node::id).max().unwrap_or(0) + 1;
        self.prepare(id)?;
        self.node_mut(id)?.start()?;
        self.wait_whole(READY_TIMEOUT)?;
        Ok(id)
    }

    /// The links between the nodes.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whose nodes they are.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.options.peer
    }

    /// All nodes, those that do not run too.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// As [`Cluster::nodes`].
    pub fn nodes_mut(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// A node by its id.
    ///
    /// # Errors
    /// If there is none.
    pub fn node(&self, id: u8) -> Result<&Node> {
        self.nodes.iter().find(|node| node.id() == id).with_context(|| format!("there is no node {id}"))
    }

    /// As [`Cluster::node`].
    ///
    /// # Errors
    /// If there is none.
    pub fn node_mut(&mut self, id: u8) -> Result<&mut Node> {
        self.nodes.iter_mut().find(|node| node.id() == id).with_context(|| format!("there is no node {id}"))
    }

    /// The Kafka listeners of all nodes, for clients.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.nodes.iter().map(|node| node.kafka_address().to_string()).collect::<Vec<_>>().join(",")
    }

    /// What the first node that answers says.
    ///
    /// # Errors
    /// If none answers.
    pub fn metadata(&self) -> Result<Metadata> {
        let mut last = None;
        for node in self.nodes.iter().filter(|node| node.should_run()) {
            match metadata::ask(node.kafka_address(), Duration::from_secs(5)) {
                Ok(metadata) => return Ok(metadata),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no node runs")))
    }

    /// Waits until every node that should run says that exactly those are alive and that every replica on them that
    /// ought to be in sync is, none missing.
    ///
    /// # Errors
    /// If that is not so in time; the nodes' logs are in the error.
    pub fn wait_whole(&mut self, timeout: Duration) -> Result<()> {
        self.wait("every replica in sync", timeout, |metadata, alive| {
            metadata.brokers == alive && metadata.partitions.iter().all(metadata::Partition::is_whole)
        })
    }

    /// Waits until every node that should run says something that `is_so`, which is told the ids of those nodes too.
    ///
    /// # Errors
    /// If that is not so in time; the nodes' logs are in the error.
    pub fn wait(
        &mut self,
        what: &str,
        timeout: Duration,
        is_so: impl Fn(&Metadata, &[i32]) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let alive: Vec<i32> =
            self.nodes.iter().filter(|node| node.should_run()).map(|node| i32::from(node.id())).collect();
        loop {
            let Some(unlike) = self.unlike(&alive, &is_so) else { return Ok(()) };
            if Instant::now() >= deadline {
                bail!("not within {timeout:?}: {what}; {unlike}\n{}", self.log_tails());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the first node says for which it is not so.
    fn unlike(&mut self, alive: &[i32], is_so: &impl Fn(&Metadata, &[i32]) -> bool) -> Option<String> {
        for node in self.nodes.iter_mut().filter(|node| node.should_run()) {
            if let Err(e) = node.ready() {
                return Some(format!("node {}: {e:#}", node.id()));
            }
            match metadata::ask(node.kafka_address(), Duration::from_secs(5)) {
                Ok(metadata) if is_so(&metadata, alive) => {}
                Ok(mut metadata) => {
                    metadata.partitions.retain(|p| !p.is_whole());
                    return Some(format!(
                        "node {} says {:?} live, not whole: {:?}",
                        node.id(),
                        metadata.brokers,
                        metadata.partitions
                    ));
                }
                Err(e) => return Some(format!("node {}: {e:#}", node.id())),
            }
        }
        None
    }

    /// Moves all replicas off a node: by `towpath cluster drain`, or by Kafka's reassignment tool.
    ///
    /// # Errors
    /// If the tool says so, or replicas are left there after `timeout`.
    pub fn drain(&mut self, id: u8, timeout: Duration) -> Result<()> {
        let output = match self.options.peer {
            Peer::Towpath => {
                let bootstrap = self.node(id)?.kafka_address().to_string();
                process::run(
                    &["cluster", "drain", &id.to_string(), "--bootstrap-server", &bootstrap],
                    timeout,
                )?
            }
            Peer::Kafka => self.reassign(id)?,
        };
        if !output.status.success() {
            bail!("draining node {id} ended with {}\n{}{}", output.status, output.stdout, output.stderr);
        }
        let id = i32::from(id);
        self.wait("no replica on the drained node", timeout, |metadata, _| {
            metadata.partitions.iter().all(|p| p.is_whole() && !p.replicas.contains(&id))
        })
    }

    fn reassign(&self, id: u8) -> Result<Output> {
        let metadata = self.metadata()?;
        let gone = i32::from(id);
        let mut moves = Vec::new();
        for p in metadata.partitions.iter().filter(|p| p.replicas.contains(&gone)) {
            let other = metadata.brokers.iter().find(|b| **b != gone && !p.replicas.contains(b));
            let other = *other.with_context(|| format!("no broker can take {}-{}", p.topic, p.partition))?;
            let replicas: Vec<_> = p.replicas.iter().map(|r| if *r == gone { other } else { *r }).collect();
            moves.push(
                serde_json::json!({ "topic": p.topic, "partition": p.partition, "replicas": replicas }),
            );
        }
        let plan = self.folder.join("reassign.json");
        let text = serde_json::json!({ "version": 1, "partitions": moves }).to_string();
        std::fs::write(&plan, text).context("cannot write the plan")?;
        kafka::tool(
            "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
            &[
                "--bootstrap-server",
                &self.bootstrap(),
                "--reassignment-json-file",
                &plan.to_string_lossy(),
                "--execute",
            ],
            END_TIMEOUT,
        )
    }

    /// `kill -9` of all nodes at once.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn power_cut(&mut self) -> Result<()> {
        // All signals go out before the first process is waited for.
        for node in &mut self.nodes {
            node.signal_kill();
        }
        self.nodes.iter_mut().try_for_each(Node::kill9)
    }

    /// The end of what each node said, for an error message.
    #[must_use]
    pub fn log_tails(&self) -> String {
        self.nodes.iter().map(Node::log_tail).collect()
    }

    /// A folder for files of the test.
    #[must_use]
    pub fn folder(&self) -> &TempDir {
        &self.folder
    }

    /// The addresses of the Kafka listeners of the nodes that should run.
    #[must_use]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.nodes.iter().filter(|node| node.should_run()).map(Node::kafka_address).collect()
    }

    /// The processes of all nodes, by id, for a look at their memory.
    pub fn processes(&self) -> impl Iterator<Item = (u8, &Guarded)> {
        self.nodes.iter().filter_map(|node| Some((node.id(), node.process()?)))
    }
}
