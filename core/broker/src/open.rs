//! How a broker opens what is on its disk.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use towpath_controller::decide::register_single_broker;
use towpath_controller::{
    Configs, Controller, Decision, LocalMetadataLog, MetadataImage, MetadataRecord, RegisterBroker,
    TopicConfig, topic_config,
};
use towpath_log::{DirIdentity, FileStorage, Log, LogConfig, LogDir, LogDirOptions, LogError, SystemClock};
use towpath_replica::{Environment, Flusher, LogDirs, ReplicaManager, ReplicaSettings, UnusableDir};
use towpath_telemetry::names;
use towpath_types::{BrokerEpoch, BrokerId, TopicId, TopicName, TopicPartition};
use uuid::Uuid;

use crate::cluster::{ClusterNode, QUORUM_DIR};
use crate::config::{BrokerConfig, Endpoint};
use crate::connection::ErrorChain;
use crate::coordinator_log::VerifiedOffsets;
use crate::error::BrokerError;
use crate::fetch_session::FetchSessions;
use crate::handlers;
use crate::handlers::api_versions::supported_features;
use crate::live_settings::LiveSettings;
use crate::memory::MemoryBudget;
use crate::metrics::BrokerMetrics;
use crate::producer_ids::ProducerIds;
use crate::share::Shares;
use crate::state::{BrokerState, Metadata};

/// Checks the defaults of topic configurations.
///
/// # Errors
/// [`BrokerError::TopicDefault`].
pub(crate) fn check_topic_defaults(config: &BrokerConfig) -> Result<(), BrokerError> {
    for defaults in [&config.topic_defaults, &config.offsets_topic_configs] {
        for (name, value) in defaults {
            topic_config::check(name, value)?;
        }
        TopicConfig::resolve(defaults, &config.topic_defaults)?;
    }
    Ok(())
}

/// The id of the cluster that the directory belongs to; none for a new one.
///
/// # Errors
/// [`BrokerError::Read`].
pub(crate) fn stored_cluster_id(config: &BrokerConfig) -> Result<Option<String>, BrokerError> {
    let path = config.data_dir.join("meta.properties");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .lines()
            .find_map(|line| line.trim().strip_prefix("cluster.id=").map(|id| id.trim().to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(BrokerError::Read { path, source }),
    }
}

/// The cluster's id: the configuration's, else the directory's, else a new one.
fn cluster_id(config: &BrokerConfig) -> Result<String, BrokerError> {
    match (stored_cluster_id(config)?, &config.cluster_id) {
        (Some(found), Some(expected)) if found != *expected => {
            Err(BrokerError::ClusterId { found, expected: expected.clone() })
        }
        (Some(found), _) => Ok(found),
        (None, Some(configured)) => Ok(configured.clone()),
        (None, None) => Ok(TopicId::random().to_string()),
    }
}

/// A directory belongs to a node that is alone or to one of a cluster, and not to one after the other: what the one wrote
/// the other has no metadata for.
///
/// # Errors
/// [`BrokerError::NotOfCluster`], [`BrokerError::OfCluster`].
pub(crate) fn check_kind(config: &BrokerConfig) -> Result<(), BrokerError> {
    let dir = &config.data_dir;
    let was_alone = dir.join(format!("{}-0", LocalMetadataLog::TOPIC)).exists();
    match &config.cluster {
        Some(_) if was_alone => Err(BrokerError::NotOfCluster(dir.clone())),
        None if dir.join(QUORUM_DIR).exists() => Err(BrokerError::OfCluster(dir.clone())),
        _ => Ok(()),
    }
}

/// The open data directories.
struct Opened {
    dirs: LogDirs,
    logs: Vec<Arc<Log>>,
}

/// Opens the directories. The first has to work; of the others, those that cannot be read or written to are offline, as
/// in Kafka, and those that are somebody else's are a mistake that is told.
fn open_dirs(config: &BrokerConfig, cluster_id: &str) -> Result<Opened, BrokerError> {
    check_distinct(config)?;
    let (first, mut logs) = open_dir(config, &config.data_dir, cluster_id)?;
    let (mut further, mut unusable) = (Vec::new(), Vec::new());
    for path in &config.further_dirs {
        match open_dir(config, path, cluster_id) {
            Ok((dir, more)) => {
                further.push(dir);
                logs.extend(more);
            }
            Err(BrokerError::Log(error @ (LogError::Io { .. } | LogError::Offline { .. }))) => {
                let reason = ErrorChain(&error).to_string();
                tracing::error!(dir = %path.display(), reason, "a data directory cannot be used: its partitions are offline");
                unusable.push(UnusableDir { path: Some(path.clone()), reason });
            }
            Err(error) => return Err(error),
        }
    }
    let dirs = LogDirs::new(first, further, unusable);
    let removed = dirs.settle_moves()?;
    logs.retain(|log| !removed.iter().any(|gone| Arc::ptr_eq(gone, log)));
    Ok(Opened { dirs, logs })
}

/// No directory is named twice.
fn check_distinct(config: &BrokerConfig) -> Result<(), BrokerError> {
    let mut seen = std::collections::HashSet::new();
    for path in config.all_dirs() {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !seen.insert(absolute) {
            return Err(BrokerError::DirectoryTwice(path.to_owned()));
        }
    }
    Ok(())
}

fn open_dir(
    config: &BrokerConfig,
    path: &Path,
    cluster_id: &str,
) -> Result<(Arc<LogDir>, Vec<Arc<Log>>), BrokerError> {
    let options = LogDirOptions {
        identity: DirIdentity { cluster_id: cluster_id.to_owned(), node_id: config.node_id.get() },
        tail_bytes_max: config.limits.tail_bytes_max / (1 + config.further_dirs.len()),
    };
    let (storage, clock) = (Arc::new(FileStorage), Arc::new(SystemClock));
    let dir = match &config.cluster {
        None => LogDir::open(storage, clock, path, &options)?,
        // It may be hours until a controller answers.
        Some(_) => LogDir::open_to_wait(storage, clock, path, &options)?,
    };
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
    Ok((dir, logs))
}

/// Opens everything on disk of a node that is alone. Runs on a thread of its own.
///
/// # Errors
/// [`BrokerError`].
pub(crate) fn open_alone(
    config: BrokerConfig,
    advertised: Endpoint,
) -> Result<Arc<BrokerState>, BrokerError> {
    let cluster_id = cluster_id(&config)?;
    let opened = open_dirs(&config, &cluster_id)?;
    let (controller, broker_epoch) = open_controller(&config, &opened, &cluster_id, &advertised)?;
    let dirs = opened.dirs;
    let image = controller.image();
    let metadata = Metadata::Local { controller, broker_epoch };
    let state = state(config, cluster_id, advertised, metadata, dirs, Arc::clone(&image))?;
    remove_strays(&state, &image)?;
    state.follow_settings(&image);
    for topic in image.topics() {
        state.set_topic(&image, topic)?;
    }
    state.replicas.started();
    Ok(state)
}

/// A broker of a cluster whose directory is open.
pub(crate) struct OpenedMember {
    pub(crate) state: Arc<BrokerState>,
    /// The epoch of the last clean shutdown; -1 if there was none.
    pub(crate) previous_epoch: BrokerEpoch,
    /// What a registration says of directories beside the first.
    pub(crate) further_directories: Vec<Uuid>,
}

/// Whether this broker lacks the files of partitions that the metadata know of.
fn lacks_partitions(opened: &Opened, image: &MetadataImage, me: BrokerId) -> bool {
    let held: std::collections::HashSet<(TopicId, i32)> =
        opened.logs.iter().map(|log| (log.topic_id(), log.partition().partition)).collect();
    image.topics().any(|topic| {
        let mut partitions = (0..).zip(&topic.partitions);
        partitions.any(|(index, state)| state.replicas.contains(&me) && !held.contains(&(topic.id, index)))
    })
}

/// Looks for directories that the broker had when it last registered and that are not there any more, also where another,
/// empty one has taken their place: what was in them does not begin anew as if it had been empty. They are forgotten once
/// nothing is missing. Returns the ids that the next registration says.
fn find_missing(opened: &Opened, image: &MetadataImage, me: BrokerId) -> Vec<Uuid> {
    let further = opened.dirs.all().iter().skip(1);
    let mut ids: Vec<Uuid> = further.map(|dir| dir.directory_id().get()).collect();
    let known = image.broker(me).map(|broker| broker.further_directories.clone()).unwrap_or_default();
    let missing: Vec<Uuid> = known.into_iter().filter(|id| !ids.contains(id)).collect();
    if missing.is_empty() || !lacks_partitions(opened, image, me) {
        return ids;
    }
    for id in &missing {
        let reason = format!("the data directory with the id {} is not there any more", TopicId::new(*id));
        tracing::error!(reason, "partitions that were in it are offline");
        opened.dirs.add_unusable(UnusableDir { path: None, reason });
    }
    ids.extend(missing);
    ids
}

/// Opens everything on disk of a node of a cluster. Runs on a thread of its own. What there is of partitions is looked at
/// when the metadata are known.
///
/// # Errors
/// [`BrokerError`].
pub(crate) fn open_member(
    config: BrokerConfig,
    advertised: Endpoint,
    node: Arc<ClusterNode>,
) -> Result<OpenedMember, BrokerError> {
    let cluster_id = node.image().cluster_id().to_owned();
    let opened = open_dirs(&config, &cluster_id)?;
    let further_directories = find_missing(&opened, &node.image(), config.node_id);
    let dirs = opened.dirs;
    let previous_epoch = BrokerEpoch::new(dirs.clean_epoch().unwrap_or(-1));
    let nothing = Arc::new(MetadataImage::new());
    let state = state(config, cluster_id, advertised, Metadata::Cluster(node), dirs, nothing)?;
    Ok(OpenedMember { state, previous_epoch, further_directories })
}

fn state(
    config: BrokerConfig,
    cluster_id: String,
    advertised: Endpoint,
    metadata: Metadata,
    dirs: LogDirs,
    image: Arc<MetadataImage>,
) -> Result<Arc<BrokerState>, BrokerError> {
    let flush_seconds = metrics::histogram!(names::FLUSH_SECONDS);
    let flusher =
        Flusher::start(move |took| flush_seconds.record(took.as_secs_f64())).map_err(BrokerError::Thread)?;
    let lag_ms_max = i64::try_from(config.replication.replica_lag_max.as_millis()).unwrap_or(i64::MAX);
    let environment = Arc::new(Environment::new(config.node_id, lag_ms_max, Arc::new(flusher)));
    let replicas = ReplicaManager::new(ReplicaSettings { dirs: Arc::new(dirs), environment });
    let apis = handlers::supported();
    let live = Arc::new(LiveSettings::new(&config, &Configs::new(), &Configs::new()));
    let throttles = metadata.cluster().map_or_else(Arc::default, |node| Arc::clone(node.throttles()));
    Ok(Arc::new(BrokerState {
        sessions: FetchSessions::new(config.limits.fetch_sessions_max),
        memory: MemoryBudget::new(config.limits.request_memory_bytes),
        metrics: BrokerMetrics::new(&apis),
        config,
        cluster_id,
        advertised,
        metadata,
        published: watch::Sender::new(image),
        replicas,
        live: RwLock::new(live),
        throttles,
        producer_ids: ProducerIds::default(),
        apis,
        heavy_work: Arc::new(tokio::sync::Semaphore::new(heavy_work_places())),
        stopping: AtomicBool::new(false),
        answering: AtomicBool::new(false),
        groups: OnceLock::new(),
        transactions: OnceLock::new(),
        share_states: OnceLock::new(),
        shares: Shares::default(),
        verified_offsets: VerifiedOffsets::default(),
        replica_moved: tokio::sync::Notify::new(),
        changing: Mutex::new(()),
        unmade: Mutex::default(),
    }))
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
    opened: &Opened,
    cluster_id: &str,
    advertised: &Endpoint,
) -> Result<(Controller, BrokerEpoch), BrokerError> {
    let count = opened.logs.len();
    let missing = || BrokerError::MetadataMissing { dir: config.data_dir.clone(), count };
    let dir = Arc::clone(opened.dirs.all().first().ok_or_else(missing)?);
    let partition = metadata_partition().ok_or_else(missing)?;
    let log = match dir.get(&partition) {
        Some(log) => log,
        None if count == 0 => {
            // Kafka's id of the metadata topic.
            let id = TopicId::new(Uuid::from_u64_pair(0, 1));
            dir.create(&partition, id, LocalMetadataLog::config())?
        }
        None => return Err(missing()),
    };
    let (log, image) = LocalMetadataLog::open(log)?;
    let is_new = image.next_offset().get() == 0;
    let mut registration =
        RegisterBroker::new(config.node_id, Uuid::new_v4(), advertised.host.clone(), advertised.port);
    registration.rack.clone_from(&config.rack);
    registration.features = supported_features();
    registration.further_directories = find_missing(opened, &image, config.node_id);
    let clean = opened.dirs.all().iter().all(|dir| dir.was_clean()) || is_new;
    let id = cluster_id.to_owned();
    let controller = Controller::new(Box::new(log), image);
    let ((), image) = controller.change(|image| {
        let Decision { records, answer } = register_single_broker(image, &registration, clean);
        let cluster = image.cluster_id().is_empty().then_some(MetadataRecord::Cluster { cluster_id: id });
        Decision { records: cluster.into_iter().chain(records).collect(), answer }
    })?;
    let epoch = image.broker(config.node_id).map_or(BrokerEpoch::new(-1), |broker| broker.epoch);
    Ok((controller, epoch))
}

/// Removes partitions that are not this broker's: of topics that were deleted, or that others hold now.
///
/// # Errors
/// [`BrokerError::Log`].
pub(crate) fn remove_strays(state: &BrokerState, image: &MetadataImage) -> Result<(), BrokerError> {
    let me = state.config.node_id;
    let is_ours = |log: &Log| {
        let partition = log.partition();
        if partition.topic.as_str() == LocalMetadataLog::TOPIC {
            return true;
        }
        let topic = image.topic_by_id(log.topic_id()).filter(|topic| topic.name == partition.topic);
        let index = usize::try_from(partition.partition).ok();
        let state = topic.and_then(|topic| topic.partitions.get(index?));
        let is_ours = state.is_some_and(|state| state.replicas.contains(&me));
        if !is_ours {
            let dir = log.dir().display();
            tracing::warn!(%partition, topic_id = %log.topic_id(), %dir, "removed: it is no partition of this broker any more");
        }
        is_ours
    };
    Ok(state.replicas.dirs().remove_strays(is_ours)?)
}

/// What clients are told to connect to.
pub(crate) fn advertised(config: &BrokerConfig, local_addr: Option<SocketAddr>) -> Endpoint {
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
pub(crate) fn host_name() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname"))
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
