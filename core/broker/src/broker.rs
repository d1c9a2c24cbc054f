//! A broker from start to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use towpath_coordinator::GroupCoordinator;
use towpath_coordinator::share::ShareCoordinator;
use towpath_types::{Offset, TopicPartition};

use crate::config::{BrokerConfig, Endpoint};
use crate::connection::{LAST_ANSWERS_MAX, Peer};
use crate::coordinator_log::BrokerCoordinatorLog;
use crate::error::BrokerError;
use crate::listener::Acceptor;
use crate::state::{BrokerState, Metadata, OFFSETS_TOPIC, SHARE_STATE_TOPIC};
use crate::stream::Stream;
use crate::transactions;
use crate::{background, cluster, moving, open};

/// How often it is looked whether the directory of the metadata works.
const DIR_CHECK: Duration = Duration::from_millis(200);

/// A running broker. Dropping it without [`Broker::shutdown`] stops it like a crash: the next start recovers.
#[derive(Debug)]
pub struct Broker {
    state: Arc<BrokerState>,
    acceptor: Arc<Acceptor>,
    local_addr: Option<SocketAddr>,
    ending: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What runs because the node belongs to a cluster.
    membership: Option<cluster::Membership>,
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
    /// Why the directory of the metadata takes no more work, if it does not (R14): nothing can be done any more.
    pub offline_reason: Option<String>,
    /// The data directories that do not work, with the reason of each.
    pub offline_dirs: Vec<(PathBuf, String)>,
}

impl Broker {
    /// Opens the data directory, recovers what needs it, and begins to accept connections.
    ///
    /// # Errors
    /// [`BrokerError`].
    pub async fn start(config: BrokerConfig) -> Result<Self, BrokerError> {
        open::check_topic_defaults(&config)?;
        // The port is taken first: a second broker on the same machine fails before it touches anything.
        let listener = match config.listen {
            Some(address) => Some(
                TcpListener::bind(address).await.map_err(|source| BrokerError::Listen { address, source })?,
            ),
            None => None,
        };
        open::check_kind(&config)?;
        let local_addr = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let advertised = open::advertised(&config, local_addr);
        let joined = cluster::join(&config).await?;
        let (state, member) = match &joined {
            None => (blocking(move || open::open_alone(config, advertised)).await?, None),
            Some(joined) => {
                let node = Arc::clone(&joined.node);
                let opened = blocking(move || open::open_member(config, advertised, node)).await?;
                (Arc::clone(&opened.state), Some(opened))
            }
        };
        let groups = GroupCoordinator::new(
            state.config.groups.clone(),
            Arc::new(BrokerCoordinatorLog::new(&state, OFFSETS_TOPIC)),
        );
        let groups = state.groups.get_or_init(|| groups);
        state.tell_groups_of_topics();
        let transactions = state.transactions.get_or_init(|| transactions::coordinator(&state));
        state.share_states.get_or_init(|| {
            let log = Arc::new(BrokerCoordinatorLog::new(&state, SHARE_STATE_TOPIC));
            ShareCoordinator::new(state.config.share_states.clone(), log)
        });
        let acceptor = Acceptor::new(Arc::clone(&state));
        let membership = match joined.zip(member) {
            Some((joined, opened)) => Some(cluster::Membership::begin(joined, opened, &acceptor).await?),
            None => {
                groups.start();
                transactions.start();
                None
            }
        };
        let mut tasks = vec![
            tokio::spawn(background::run(Arc::clone(&state))),
            tokio::spawn(moving::run(Arc::clone(&state))),
        ];
        if let Some(listener) = listener {
            tasks.push(tokio::spawn(Arc::clone(&acceptor).listen(listener)));
        }
        tracing::info!(cluster = state.cluster_id, address = ?local_addr, "broker ready");
        let ending = AtomicBool::new(false);
        Ok(Self { state, acceptor, local_addr, ending, tasks: Mutex::new(tasks), membership })
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
        self.acceptor
            .serve(Stream::Other(Box::new(stream)), Peer { address: None, node: None, connection: 0 });
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
            offline_reason: self.state.replicas.dirs().offline_reason().map(str::to_owned),
            offline_dirs: self.state.replicas.dirs().offline(),
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

    /// Resolves when this node can do nothing any more: as a member of its cluster, since its part in the metadata quorum
    /// has failed for good (R7, R14), or since of several directories that of the metadata has failed. It should end then,
    /// and be started again when the cause is gone.
    pub async fn failed(&self) -> String {
        let membership = async {
            match &self.membership {
                Some(membership) => membership.failed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            reason = membership => reason,
            reason = self.metadata_dir_failed() => reason,
        }
    }

    /// With one directory there is nothing else to serve, and clients are told so.
    async fn metadata_dir_failed(&self) -> String {
        loop {
            let dirs = self.state.replicas.dirs();
            if let Some(reason) = dirs.offline_reason().filter(|_| !self.state.config.further_dirs.is_empty())
            {
                return format!("the data directory with the metadata has failed: {reason}");
            }
            tokio::time::sleep(DIR_CHECK).await;
        }
    }

    /// Stops: no new connections, what was begun answered, groups written, logs flushed and closed, the marker of a
    /// clean stop. A second call does nothing.
    ///
    /// # Errors
    /// [`BrokerError`] when something could not be written; the next start then recovers as after a crash.
    pub async fn shutdown(&self) -> Result<(), BrokerError> {
        if self.ending.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        if let Some(membership) = &self.membership {
            // While others take over, clients are served as before.
            membership.hand_over(&self.state).await;
        }
        self.state.stopping.store(true, Ordering::Release);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.state.answering.store(true, Ordering::Release);
        self.state.memory.close_all();
        self.acceptor.closed(LAST_ANSWERS_MAX + Duration::from_secs(1)).await;
        self.state.shares.close();
        if let Some(shares) = self.state.share_states.get() {
            shares.shutdown().await;
        }
        if let Some(transactions) = self.state.transactions.get() {
            transactions.shutdown().await;
        }
        if let Some(groups) = self.state.groups.get() {
            groups.shutdown().await;
        }
        if let Some(membership) = &self.membership {
            membership.stop_following();
        }
        let state = Arc::clone(&self.state);
        let closed = blocking(move || {
            let _changing = state.changing.lock();
            if let Metadata::Local { controller, .. } = &state.metadata {
                controller.close();
            }
            Ok(state.replicas.close(state.metadata.broker_epoch().get())?)
        })
        .await;
        if let Some(membership) = &self.membership {
            membership.leave().await;
        }
        closed
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

/// Does what waits for the disk on another thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(BrokerError::Thread(std::io::Error::other(error))),
    }
}
