//! Opens a member's store and starts it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openraft::Config;
use parking_lot::Mutex;
use tokio::sync::watch;
use towpath_log::{FileStorage, Storage};
use uuid::Uuid;

use super::codec::{Reader, Writer};
use super::disk::{Files, StoreError};
use super::network::{Network, Peers, QuorumTransport};
use super::snapshots::Snapshots;
use super::state_machine::{Identity, StateMachine};
use super::status::ControllerView;
use super::storage::LogStore;
use super::types::node_id;
use super::{Node, Quorum, QuorumConfig, QuorumError, Timing};
use crate::{ControllerError, MetadataImage, SnapshotPolicy};

const IDENTITY_FILE: &str = "identity";
const IDENTITY_MAGIC: [u8; 4] = *b"TQI1";

impl From<StoreError> for QuorumError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// A store that was opened: what lies in it, and its lock.
pub(crate) struct Opened {
    pub(crate) log: LogStore,
    pub(crate) machine: StateMachine,
    pub(crate) images: watch::Receiver<Arc<MetadataImage>>,
    pub(crate) lock: Box<dyn towpath_log::StorageLock>,
}

/// Whose store this is: it is of no use to another node, cluster or data directory, and harmful to all of them.
fn check_identity(files: &Files, cluster: &str, id: u64, directory: Uuid) -> Result<(), StoreError> {
    let mut body = Writer::default();
    body.text(cluster).u64(id).uuid(directory);
    let path = files.path(IDENTITY_FILE);
    let Some(content) = files.read(&path)? else {
        let mut head = Writer(IDENTITY_MAGIC.to_vec());
        head.u32(crc32c::crc32c(&body.0));
        return files.replace(&path, [&head.0, &body.0]);
    };
    let corrupt =
        |problem: &str| StoreError::Corrupt { path: path.clone(), at: 0, problem: problem.to_owned() };
    let mut reader =
        Reader(content.strip_prefix(&IDENTITY_MAGIC).ok_or_else(|| corrupt("it is no identity"))?);
    let crc = reader.u32().map_err(|error| corrupt(&error.to_string()))?;
    if crc32c::crc32c(reader.0) != crc {
        return Err(corrupt("its checksum is wrong"));
    }
    if reader.0 == body.0 {
        return Ok(());
    }
    let read = |reader: &mut Reader<'_>| Ok((reader.text()?, reader.u64()?, reader.uuid()?));
    let (cluster, id, directory) =
        read(&mut reader).map_err(|error: super::codec::CodecError| corrupt(&error.to_string()))?;
    Err(StoreError::Foreign(format!(
        "the store of the metadata quorum in {} belongs to node {id} of the cluster `{cluster}` with the data directory {directory}",
        files.path("").display()
    )))
}

/// Opens everything that a member has on disk.
pub(crate) fn open(
    config: &QuorumConfig,
    policy: SnapshotPolicy,
    storage: Arc<dyn Storage>,
) -> Result<Opened, StoreError> {
    let files = Arc::new(Files::open(storage, config.dir.clone())?);
    let lock = files.lock()?;
    check_identity(&files, &config.cluster_name, node_id(config.id), config.directory)?;
    let (snapshots, restored) = Snapshots::open(&files)?;
    let ours = Identity(config.cluster_id.clone());
    ours.check(&restored.image).map_err(|problem| StoreError::Foreign(problem.to_string()))?;
    let log = LogStore::open(&files, snapshots.keep_from())?;
    let restored_next = restored.meta.last_log_id.map_or(0, |id| id.index() + 1);
    if log.first() > restored_next {
        // R7: what lies between is nowhere.
        let first = log.first();
        let problem = format!("the log begins at {first}, and no snapshot that can be read reaches it");
        return Err(StoreError::Corrupt { path: files.path(""), at: 0, problem });
    }
    let (published, images) = watch::channel(Arc::new(MetadataImage::new()));
    let machine = StateMachine::new(Arc::new(snapshots), (restored, ours), policy, published);
    Ok(Opened { log, machine, images, lock })
}

fn raft_config(config: &QuorumConfig) -> Result<Config, QuorumError> {
    let raft = Config {
        cluster_name: config.cluster_name.clone(),
        heartbeat_interval: config.heartbeat_ms,
        election_timeout_min: config.election_timeout_min_ms,
        election_timeout_max: config.election_timeout_max_ms,
        install_snapshot_timeout: 30_000,
        max_payload_entries: 1_000,
        snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(config.snapshots.records_min),
        // A member that lags further gets the snapshot.
        replication_lag_threshold: config.snapshots.records_min.saturating_mul(4),
        max_in_snapshot_log_to_keep: config.entries_kept,
        enable_pre_vote: Some(true),
        // A member whose log went back has lost what it acknowledged; Raft cannot go on with it. One with an empty disk
        // has another identity and comes in as a new one.
        allow_log_reversion: Some(false),
        enable_leader_restore: Some(false),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    };
    raft.validate().map_err(|error| QuorumError::Config(error.to_string()))
}

fn check(config: &QuorumConfig) -> Result<(), QuorumError> {
    let problem = if config.id.get() < 0 || config.voters.keys().any(|id| id.get() < 0) {
        "a node id is negative"
    } else if config.voters.is_empty() {
        "there are no controllers"
    } else if config.cluster_name.len() > 256 || config.cluster_id.len() > 256 || config.address.len() > 512 {
        "a name is too long"
    } else {
        return Ok(());
    };
    Err(QuorumError::Config(problem.to_owned()))
}

impl Quorum {
    /// Opens the store, starts this node's part, and forms or joins the cluster in the background.
    ///
    /// # Errors
    /// [`ControllerError::Quorum`]: a configuration that cannot be, or a store that is damaged (R7), locked or another
    /// node's.
    pub async fn start(
        config: QuorumConfig,
        transport: Arc<dyn QuorumTransport>,
    ) -> Result<Arc<Self>, ControllerError> {
        Ok(Self::start_on(config, transport, Arc::new(FileStorage)).await?)
    }

    /// As [`Self::start`], on a storage of the caller's.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_on(
        config: QuorumConfig,
        transport: Arc<dyn QuorumTransport>,
        storage: Arc<dyn Storage>,
    ) -> Result<Arc<Self>, QuorumError> {
        check(&config)?;
        let raft_config = Arc::new(raft_config(&config)?);
        let timing = Timing {
            heartbeat: Duration::from_millis(config.heartbeat_ms),
            lease: Duration::from_millis(config.election_timeout_max_ms),
            change: Duration::from_millis(config.change_timeout_ms),
        };
        let id = node_id(config.id);
        let opened = config.clone();
        let opening = tokio::task::spawn_blocking(move || open(&opened, opened.snapshots, storage)).await;
        let Opened { log, machine, images, lock } =
            opening.map_err(|error| QuorumError::Stopped(error.to_string()))??;
        let peers = Arc::new(Peers::new(&config, images.clone(), transport));
        let network = Network(Arc::clone(&peers));
        let raft = openraft::Raft::new(id, raft_config, network, log.clone(), machine).await;
        let raft = raft.map_err(|error| QuorumError::Store(error.to_string()))?;
        let node = Arc::new(Node {
            metrics: raft.metrics(),
            raft,
            peers,
            log,
            images,
            timing,
            deciding: tokio::sync::Mutex::default(),
            changing_members: tokio::sync::Mutex::default(),
            incoming: tokio::sync::Mutex::default(),
            started: Instant::now(),
            last_contact: Mutex::default(),
            lost: Mutex::default(),
            joining: Mutex::new(BTreeMap::new()),
            promoting: Mutex::new(BTreeSet::new()),
            caught_up: Mutex::default(),
        });
        let (view, viewed) = watch::channel(ControllerView::default());
        let (failure, failed) = watch::channel(None);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(Arc::clone(&node).keep_membership());
        tasks.spawn(Arc::clone(&node).keep_view(view, failure));
        let (tasks, runtime) = (Mutex::new(tasks), tokio::runtime::Handle::current());
        Ok(Arc::new(Self { node, view: viewed, failure: failed, tasks, runtime, _lock: lock }))
    }
}
