//! How a node joins its cluster, before its broker is open.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use towpath_controller::{MetadataImage, Quorum, QuorumConfig};
use towpath_types::BrokerId;
use towpath_wire::NodeHelloRequest;
use uuid::Uuid;

use super::peer::Peers;
use super::transport::PeerTransport;
use super::{ActiveController, ClusterNode, ClusterSettings, ReplicationSettings, server};
use crate::config::{BrokerConfig, Endpoint};
use crate::error::BrokerError;
use crate::open;

/// The directory of the quorum's log, below the data directory.
pub(crate) const QUORUM_DIR: &str = "__cluster_quorum";
/// The file that holds the directory's id.
const DIRECTORY_FILE: &str = "directory.id";

/// A node that has joined: it knows the metadata.
pub(crate) struct Joined {
    pub(crate) node: Arc<ClusterNode>,
    /// Where other nodes reach it.
    pub(crate) peer: Endpoint,
    /// What this process is called.
    pub(crate) incarnation: Uuid,
    /// The id of its data directory.
    pub(crate) directory: Uuid,
    /// The tasks that serve the quorum.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

/// Listens for other nodes, takes part in the quorum, and waits until there is a cluster; nothing for a node that is
/// alone.
///
/// # Errors
/// [`BrokerError`]: the listener, the directory, the quorum's log.
pub(crate) async fn join(config: &BrokerConfig) -> Result<Option<Joined>, BrokerError> {
    let Some(settings) = config.cluster.clone() else { return Ok(None) };
    let (policy, replication) = (config.policy(), config.replication.clone());
    let (me, address) = (config.node_id, settings.peer_listen);
    let listener =
        TcpListener::bind(address).await.map_err(|source| BrokerError::Listen { address, source })?;
    let local = listener.local_addr().map_err(|source| BrokerError::Listen { address, source })?;
    let peer = advertised(&settings, local);
    let dir = config.data_dir.join(QUORUM_DIR);
    let directory = {
        let dir = dir.clone();
        let made = tokio::task::spawn_blocking(move || directory_id(&dir)).await;
        made.map_err(|error| BrokerError::Thread(io::Error::other(error)))??
    };
    let incarnation = Uuid::new_v4();
    let stored = open::stored_cluster_id(config)?;
    let peers = Arc::new(Peers::new(NodeHelloRequest {
        cluster_id: stored.clone(),
        cluster_name: settings.name.clone(),
        node_id: me.get(),
        incarnation_id: incarnation,
        directory_id: directory,
        is_broker: settings.roles.broker,
        is_controller: settings.roles.controller,
        software_version: env!("CARGO_PKG_VERSION").to_owned(),
        ..NodeHelloRequest::default()
    }));
    let store = Store { directory, dir, cluster_id: stored.unwrap_or_default() };
    let quorum = open_quorum(me, &peer, store, &settings, &replication, &peers).await?;
    let node = Arc::new(ClusterNode {
        me,
        controller: ActiveController::new(Arc::clone(&quorum), policy, &replication),
        settings,
        replaced: tokio::sync::watch::Sender::new(None),
        throttles: Arc::default(),
        replication,
        peers,
        quorum,
        broker_epoch: AtomicI64::new(-1),
        broker: OnceLock::new(),
        acceptor: OnceLock::new(),
    });
    let tasks = vec![
        tokio::spawn(server::listen(Arc::clone(&node), listener)),
        tokio::spawn(super::controller::run(Arc::clone(&node))),
    ];
    let image = formed(&node).await?;
    node.peers.set_cluster_id(image.cluster_id());
    Ok(Some(Joined { node, peer, incarnation, directory, tasks }))
}

/// What the quorum's store is told to be.
struct Store {
    directory: Uuid,
    dir: PathBuf,
    /// The cluster that the data directory belongs to, if it does; metadata of another one are not taken (R7).
    cluster_id: String,
}

async fn open_quorum(
    me: BrokerId,
    peer: &Endpoint,
    Store { directory, dir, cluster_id }: Store,
    settings: &ClusterSettings,
    replication: &ReplicationSettings,
    peers: &Arc<Peers>,
) -> Result<Arc<Quorum>, BrokerError> {
    let address = |endpoint: &Endpoint| format!("{}:{}", endpoint.host, endpoint.port);
    let voters = settings.controllers.iter().map(|(id, endpoint)| (*id, address(endpoint))).collect();
    let timeout =
        u64::try_from(replication.election_timeout.as_millis()).unwrap_or(u64::MAX).clamp(100, 60_000);
    let config = QuorumConfig {
        voters,
        cluster_name: settings.name.clone(),
        cluster_id,
        heartbeat_ms: timeout / 5,
        election_timeout_min_ms: timeout * 3 / 5,
        election_timeout_max_ms: timeout,
        ..QuorumConfig::new(me, address(peer), directory, dir)
    };
    let transport = Arc::new(PeerTransport::new(Arc::clone(peers)));
    Ok(Quorum::start(config, transport).await?)
}

/// Waits until the metadata are those of a cluster.
async fn formed(node: &ClusterNode) -> Result<Arc<MetadataImage>, BrokerError> {
    let mut images = node.quorum.images();
    let formed = node.wait_or_fail(images.wait_for(|image| !image.cluster_id().is_empty())).await?;
    formed
        .map(|image| Arc::clone(&image))
        .map_err(|_| BrokerError::Registration("the quorum has ended".to_owned()))
}

fn advertised(settings: &ClusterSettings, local: SocketAddr) -> Endpoint {
    match &settings.peer_advertised {
        Some(endpoint) if endpoint.port != 0 => endpoint.clone(),
        Some(endpoint) => Endpoint { host: endpoint.host.clone(), port: local.port() },
        None if local.ip().is_unspecified() => Endpoint { host: open::host_name(), port: local.port() },
        None => Endpoint { host: local.ip().to_string(), port: local.port() },
    }
}

/// The id of the directory: a directory that was wiped is another one, whatever node it belongs to.
fn directory_id(dir: &Path) -> Result<Uuid, BrokerError> {
    let path = dir.join(DIRECTORY_FILE);
    let failed = |source: io::Error| BrokerError::Read { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(dir).map_err(failed)?;
            let id = Uuid::new_v4();
            let fresh = dir.join(format!("{DIRECTORY_FILE}.new"));
            std::fs::write(&fresh, format!("{id}\n")).map_err(failed)?;
            std::fs::File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed)?;
            std::fs::rename(&fresh, &path).map_err(failed)?;
            std::fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
            Ok(id)
        }
        Err(error) => Err(failed(error)),
    }
}
