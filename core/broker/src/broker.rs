//! A broker from start to stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use towpath_controller::decide::register_broker;
use towpath_controller::{
    Controller, Decision, LocalMetadataLog, MetadataImage, MetadataRecord, RegisterBroker, TopicConfig,
    topic_config,
};
use towpath_coordinator::GroupCoordinator;
use towpath_log::{DirIdentity, FileStorage, Log, LogConfig, LogDir, LogDirOptions, SystemClock};
use towpath_replica::{Flusher, ReplicaManager, ReplicaSettings};
use towpath_telemetry::names;
use towpath_types::{BrokerEpoch, Offset, TopicId, TopicName, TopicPartition};
use uuid::Uuid;

use crate::config::{BrokerConfig, Endpoint};
use crate::connection::{LAST_ANSWERS_MAX, Peer};
use crate::error::BrokerError;
use crate::fetch_session::FetchSessions;
use crate::listener::Acceptor;
use crate::memory::MemoryBudget;
use crate::metrics::BrokerMetrics;
use crate::offsets_log::BrokerOffsetsLog;
use crate::producer_ids::ProducerIds;
use crate::state::BrokerState;
use crate::stream::Stream;
use crate::{background, handlers};

/// A running broker. Dropping it without [`Broker::shutdown`] stops it like a crash: the next start recovers.
#[derive(Debug)]
pub struct Broker {
    state: Arc<BrokerState>,
    acceptor: Arc<Acceptor>,
    local_addr: Option<SocketAddr>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What a broker says of one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Which.
    pub partition: TopicPartition,
    /// The offset of the first record.
    pub log_start_offset: Offset,
    /// The offset after the last record.
    pub log_end_offset: Offset,
    /// The offset up to which consumers see it.
    pub high_watermark: Offset,
    /// Bytes on disk.
    pub size_bytes: u64,
}

/// What a broker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStatus {
    /// The cluster's id.
    pub cluster_id: String,
    /// Connections that are open.
    pub connections: usize,
    /// Topics, internal ones included.
    pub topics: usize,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Bytes of requests and answers in memory.
    pub request_memory_bytes: usize,
    /// Bytes that these may be, all together.
    pub request_memory_limit_bytes: usize,
    /// Why the data directory takes no more work, if it does not (R14).
    pub offline_reason: Option<String>,
}

impl Broker {
    /// Opens the data directory, recovers what needs it, and begins to accept connections.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        check_topic_defaults(&config)?;
        // The port is taken first: a second broker on the same machine fails before it touches anything.
        let listener = match config.listen {
            Some(address) => Some(
                TcpListener::bind(address).await.map_err(|source| BrokerError::Listen { address, source })?,
            ),
            None => None,
        };
        let local_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let opened = tokio::task::spawn_blocking(move || open(config, local_addr)).await;
        let state = match opened {
            Ok(result) => result?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => return Err(BrokerError::Thread(std::io::Error::other(error))),
        };
        let groups =
            GroupCoordinator::new(state.config.groups.clone(), Arc::new(BrokerOffsetsLog::new(&state)));
        state.groups.get_or_init(|| groups).start();
        let acceptor = Acceptor::new(Arc::clone(&state));
        let mut tasks = vec![tokio::spawn(background::run(Arc::clone(&state)))];
        if let Some(listener) = listener {
            tasks.push(tokio::spawn(Arc::clone(&acceptor).listen(listener)));
        }
        tracing::info!(cluster = state.cluster_id, address = ?local_addr, "broker ready");
        Ok(Self { state, acceptor, local_addr, tasks: Mutex::new(tasks) })
    }

    /// The listener's address; the port that the system chose, if port 0 was asked for.
    #[must_use]
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.state.cluster_id
    }

    /// What clients are told to connect to.
    #[must_use]
    pub fn advertised(&self) -> &Endpoint {
        &self.state.advertised
    }

    /// Serves a connection over a stream of this process. It counts like any other connection.
    pub fn accept_stream(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        self.acceptor.serve(Stream::Other(Box::new(stream)), Peer { address: None });
    }

    /// What the broker says of itself.
    #[must_use]
    pub fn status(&self) -> BrokerStatus {
        let image = self.state.image();
        BrokerStatus {
            cluster_id: self.state.cluster_id.clone(),
            connections: self.acceptor.open(),
            topics: image.topics().len(),
            partitions: image.partition_count(),
            request_memory_bytes: self.state.memory.used(),
            request_memory_limit_bytes: self.state.config.limits.request_memory_bytes,
            offline_reason: self.state.replicas.dir().offline_reason().map(str::to_owned),
        }
    }

    /// What the broker says of the partitions that it has open.
    #[must_use]
    pub fn partitions(&self) -> Vec<PartitionStatus> {
        let partitions = self.state.replicas.partitions();
        let mut statuses: Vec<_> = partitions
            .iter()
            .map(|partition| PartitionStatus {
                partition: partition.id().clone(),
                log_start_offset: partition.log().log_start_offset(),
                log_end_offset: partition.log().log_end_offset(),
                high_watermark: partition.high_watermark(),
                size_bytes: partition.log().size_in_bytes(),
            })
            .collect();
        statuses.sort_by(|a, b| a.partition.cmp(&b.partition));
        statuses
    }

    /// Stops: no new connections, what was begun answered, groups written, logs flushed and closed, the marker of a
    /// clean stop. A second call does nothing.
    ///
    /// # Errors
    /// [`BrokerError`] when something could not be written; the next start then recovers as after a crash.
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        if self.state.stopping.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.state.answering.store(true, Ordering::Release);
        self.state.memory.close_all();
        self.acceptor.closed(LAST_ANSWERS_MAX + Duration::from_secs(1)).await;
        if let Some(groups) = self.state.groups.get() {
            groups.shutdown().await;
        }
        let state = Arc::clone(&self.state);
        let closed = tokio::task::spawn_blocking(move || {
            let _changing = state.changing.lock();
            state.controller.close();
            state.replicas.close(state.broker_epoch.get())
        });
        match closed.await {
            Ok(result) => Ok(result?),
            Err(error) => Err(BrokerError::Thread(std::io::Error::other(error))),
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::Release);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.state.memory.close_all();
    }
}

fn check_topic_defaults(config: &BrokerConfig) -> Result<(), BrokerError> {
    for defaults in [&config.topic_defaults, &config.offsets_topic_configs] {
        for (name, value) in defaults {
            topic_config::check(name, value)?;
        }
        TopicConfig::resolve(defaults, &config.topic_defaults)?;
    }
    Ok(())
}

/// The cluster's id: the configuration's, else the directory's, else a new one.
fn cluster_id(config: &BrokerConfig) -> Result<String, BrokerError> {
    let path = config.data_dir.join("meta.properties");
    let stored = match std::fs::read_to_string(&path) {
        Ok(text) => text
            .lines()
            .find_map(|line| line.trim().strip_prefix("cluster.id=").map(|id| id.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(source) => return Err(BrokerError::Read { path, source }),
    };
    match (stored, &config.cluster_id) {
        (Some(found), Some(expected)) if found != *expected => {
            Err(BrokerError::ClusterId { found, expected: expected.clone() })
        }
        (Some(found), _) => Ok(found),
        (None, Some(configured)) => Ok(configured.clone()),
        (None, None) => Ok(TopicId::random().to_string()),
    }
}

/// Opens everything on disk. Runs on a thread of its own.
fn open(config: BrokerConfig, local_addr: Option<SocketAddr>) -> Result<Arc<BrokerState>, BrokerError> {
    let cluster_id = cluster_id(&config)?;
    let options = LogDirOptions {
        identity: DirIdentity { cluster_id: cluster_id.clone(), node_id: config.node_id.get() },
        tail_bytes_max: config.limits.tail_bytes_max,
    };
    let dir = LogDir::open(Arc::new(FileStorage), Arc::new(SystemClock), &config.data_dir, &options)?;
    let dir = Arc::new(dir);
    let (logs, failed) = dir.open_all(|_, _| LogConfig::default())?;
    let count = failed.len();
    if let Some((partition, source)) = failed.into_iter().next() {
        return Err(BrokerError::Partitions {
            count,
            first: partition.to_string(),
            source: Box::new(source),
        });
    }
    let (controller, advertised, broker_epoch) =
        open_controller(&config, &dir, &logs, &cluster_id, local_addr)?;
    let image = controller.image();
    remove_strays(&dir, &logs, &image)?;
    let flush_seconds = metrics::histogram!(names::FLUSH_SECONDS);
    let flusher =
        Flusher::start(move |took| flush_seconds.record(took.as_secs_f64())).map_err(BrokerError::Thread)?;
    let replicas = ReplicaManager::new(ReplicaSettings { dir, flusher: Arc::new(flusher) });
    let apis = handlers::supported();
    let state = Arc::new(BrokerState {
        sessions: FetchSessions::new(config.limits.fetch_sessions_max),
        memory: MemoryBudget::new(config.limits.request_memory_bytes),
        metrics: BrokerMetrics::new(&apis),
        config,
        cluster_id,
        advertised,
        broker_epoch,
        controller,
        replicas,
        producer_ids: ProducerIds::default(),
        apis,
        heavy_work: Arc::new(tokio::sync::Semaphore::new(heavy_work_places())),
        stopping: AtomicBool::new(false),
        answering: AtomicBool::new(false),
        groups: OnceLock::new(),
        changing: Mutex::new(()),
    });
    for topic in image.topics() {
        state.set_topic(topic)?;
    }
    Ok(state)
}

/// As many as there are processors: more would only hold memory.
fn heavy_work_places() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn metadata_partition() -> Option<TopicPartition> {
    TopicName::new(LocalMetadataLog::TOPIC).ok().map(|topic| TopicPartition::new(topic, 0))
}

/// Reads the metadata log, or begins it, and registers this broker in it.
fn open_controller(
    config: &BrokerConfig,
    dir: &Arc<LogDir>,
    logs: &[Arc<Log>],
    cluster_id: &str,
    local_addr: Option<SocketAddr>,
) -> Result<(Controller, Endpoint, BrokerEpoch), BrokerError> {
    let Some(partition) = metadata_partition() else {
        return Err(BrokerError::MetadataMissing { dir: dir.path().to_owned(), count: logs.len() });
    };
    let log = match dir.get(&partition) {
        Some(log) => log,
        None if logs.is_empty() => {
            // Kafka's id of the metadata topic.
            let id = TopicId::new(Uuid::from_u64_pair(0, 1));
            dir.create(&partition, id, LocalMetadataLog::config())?
        }
        None => return Err(BrokerError::MetadataMissing { dir: dir.path().to_owned(), count: logs.len() }),
    };
    let (log, image) = LocalMetadataLog::open(log)?;
    let is_new = image.next_offset().get() == 0;
    let controller = Controller::new(Box::new(log), image);
    let advertised = advertised(config, local_addr);
    let registration = RegisterBroker {
        broker_id: config.node_id,
        incarnation: Uuid::new_v4(),
        host: advertised.host.clone(),
        port: advertised.port,
        rack: config.rack.clone(),
    };
    let clean = dir.was_clean() || is_new;
    let id = cluster_id.to_owned();
    let ((), image) = controller.change(|image| {
        let Decision { records, answer } = register_broker(image, &registration, clean);
        let cluster = image.cluster_id().is_empty().then_some(MetadataRecord::Cluster { cluster_id: id });
        Decision { records: cluster.into_iter().chain(records).collect(), answer }
    })?;
    let epoch = image.broker(config.node_id).map_or(BrokerEpoch::new(-1), |broker| broker.epoch);
    Ok((controller, advertised, epoch))
}

/// Removes the partitions of topics that were deleted while their files could not be.
fn remove_strays(dir: &LogDir, logs: &[Arc<Log>], image: &MetadataImage) -> Result<(), BrokerError> {
    let mut strays = Vec::new();
    for log in logs {
        let partition = log.partition();
        let is_known = image.topic_by_id(log.topic_id()).is_some_and(|topic| topic.name == partition.topic);
        if !is_known && partition.topic.as_str() != LocalMetadataLog::TOPIC {
            tracing::warn!(%partition, topic_id = %log.topic_id(), "removed: its topic was deleted");
            strays.push(partition.clone());
        }
    }
    if !strays.is_empty() {
        dir.delete_all(&strays)?;
    }
    Ok(())
}

fn advertised(config: &BrokerConfig, local_addr: Option<SocketAddr>) -> Endpoint {
    match (&config.advertised, local_addr) {
        (Some(endpoint), Some(address)) if endpoint.port == 0 => {
            Endpoint { host: endpoint.host.clone(), port: address.port() }
        }
        (Some(endpoint), _) => endpoint.clone(),
        (None, Some(address)) if address.ip().is_unspecified() => {
            Endpoint { host: host_name(), port: address.port() }
        }
        (None, Some(address)) => Endpoint { host: address.ip().to_string(), port: address.port() },
        (None, None) => Endpoint { host: "in-process".to_owned(), port: 0 },
    }
}

/// The machine's name, for clients of a broker that listens on all addresses.
fn host_name() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
