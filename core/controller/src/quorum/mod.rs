//! The metadata log of a cluster of several nodes: a Raft group that every node is a member of.
//!
//! Configured controllers are its voters, all other nodes learners. One entry carries all records of one decision and
//! the offset of the first of them; it applies only if the image is still there, on every node or on none. The log is
//! this module's own: [`journal`] on disk, [`storage`] before Raft; [`snapshots`] hold what its records add up to. How
//! members come and go is in [`membership`], what they say to each other in [`message`], who carries it is the
//! caller's matter ([`QuorumTransport`]).

mod change;
mod codec;
mod disk;
mod election;
mod inbound;
mod journal;
mod membership;
mod message;
mod network;
mod snapshots;
mod start;
mod state_machine;
mod status;
mod storage;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use parking_lot::Mutex;
use tokio::sync::watch;
use towpath_types::BrokerId;
use uuid::Uuid;

use crate::{ControllerError, MetadataImage, SnapshotPolicy};

pub use network::{PeerAddress, QuorumTransport};
pub use status::{ControllerView, QuorumMember, QuorumStatus};

use membership::Order;
use network::Peers;
use state_machine::StateMachine;
use storage::LogStore;
use types::{Member, Membership, Types, broker_id, node_id};

/// How one node takes part in the quorum.
#[derive(Debug, Clone)]
pub struct QuorumConfig {
    /// The node.
    pub id: BrokerId,
    /// The host and port of its peer listener, as other nodes reach it.
    pub address: String,
    /// The identity of its data directory. It must change when the directory is lost, and only then.
    pub directory: Uuid,
    /// The directory for log, vote and snapshots; it is made if need be. Its name must not look like that of a partition.
    pub dir: PathBuf,
    /// The configured controllers and their addresses, the same on all nodes.
    pub voters: BTreeMap<BrokerId, String>,
    /// The name of the cluster; nodes of others are refused.
    pub cluster_name: String,
    /// The id of the cluster that this node belongs to by what else is on its disk; empty if it does not know yet.
    /// Metadata of another one stops this member (R7).
    pub cluster_id: String,
    /// Between two heartbeats of the leader, ms.
    pub heartbeat_ms: u64,
    /// The least that a follower waits after the leader's lease before it stands for election, ms.
    pub election_timeout_min_ms: u64,
    /// The most that it waits; also the leader's lease, ms. Without a hint ([`Quorum::peer_lost`]) a new leader is there
    /// after the lease and the wait, that is, after at most twice this time and an election.
    pub election_timeout_max_ms: u64,
    /// How long a change may take to be committed, ms.
    pub change_timeout_ms: u64,
    /// When a snapshot is due; in entries of the log.
    pub snapshots: SnapshotPolicy,
    /// Entries that stay in the log behind a snapshot, for members that lag a little.
    pub entries_kept: u64,
}

impl QuorumConfig {
    /// A configuration with the default times: a new leader within about a second.
    #[must_use]
    pub fn new(id: BrokerId, address: String, directory: Uuid, dir: PathBuf) -> Self {
        Self {
            id,
            address,
            directory,
            dir,
            voters: BTreeMap::new(),
            cluster_name: String::new(),
            cluster_id: String::new(),
            heartbeat_ms: 100,
            election_timeout_min_ms: 300,
            election_timeout_max_ms: 500,
            change_timeout_ms: 10_000,
            snapshots: SnapshotPolicy::default(),
            entries_kept: 500,
        }
    }
}

/// Why the quorum does not do what it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuorumError {
    /// The configuration cannot be.
    #[error("the metadata quorum cannot be configured like this: {0}")]
    Config(String),
    /// The store cannot be read or written, or is another node's. A damaged one is not repaired (R7).
    #[error("{0}")]
    Store(String),
    /// A message of another node cannot be read.
    #[error("a message of another node cannot be read: {0}")]
    Message(String),
    /// This member has stopped; after a failure it takes no more (R14).
    #[error("this member of the metadata quorum has stopped: {0}")]
    Stopped(String),
    /// The membership was not changed.
    #[error("the membership of the metadata quorum was not changed: {0}")]
    Membership(String),
}

/// What tasks and callers share.
struct Node {
    raft: openraft::Raft<Types, StateMachine>,
    metrics: openraft_rt_tokio::TokioWatchReceiver<RaftMetrics<Types>>,
    peers: Arc<Peers>,
    log: LogStore,
    images: watch::Receiver<Arc<MetadataImage>>,
    timing: Timing,
    deciding: tokio::sync::Mutex<()>,
    changing_members: tokio::sync::Mutex<()>,
    incoming: tokio::sync::Mutex<Option<inbound::Incoming>>,
    started: Instant,
    /// When a leader last spoke to this member.
    last_contact: Mutex<Option<Instant>>,
    lost: Mutex<Option<election::Lost>>,
    /// Nodes that asked to be taken in, and whether they want to vote.
    joining: Mutex<BTreeMap<u64, (Member, bool)>>,
    /// Learners that are to become voters.
    promoting: Mutex<BTreeSet<u64>>,
    /// When each member had all of the leader's log, for [`QuorumStatus`].
    caught_up: Mutex<BTreeMap<u64, Instant>>,
}

#[derive(Debug, Clone, Copy)]
struct Timing {
    heartbeat: Duration,
    lease: Duration,
    change: Duration,
}

impl Node {
    /// Looks at the state as Raft reports it; `look` must be short.
    fn with_metrics<T>(&self, look: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        look(&self.metrics.borrow_watched())
    }

    /// The newest membership that this member knows.
    fn membership(&self) -> Membership {
        self.with_metrics(|metrics| metrics.membership_config.membership().clone())
    }

    fn lease(&self) -> Duration {
        self.timing.lease
    }

    /// The leader and its address.
    fn leader(&self) -> Option<(u64, String)> {
        let (leader, _) = self.leader_and_term();
        let id = leader?;
        if id == self.peers.id {
            return Some((id, self.peers.this.address.clone()));
        }
        let known =
            self.with_metrics(|metrics| metrics.membership_config.membership().get_node(&id).cloned());
        let seen = self.peers.seen(id);
        let seen = seen.filter(|seen| known.as_ref().is_none_or(|known| known.directory == seen.directory));
        seen.or(known).map(|member| (id, member.address))
    }

    fn not_controller(&self) -> ControllerError {
        let leader = self.leader().filter(|(id, _)| *id != self.peers.id);
        ControllerError::NotController { leader: leader.map(|(id, address)| (broker_id(id), address)) }
    }
}

/// One node's part in the metadata quorum.
pub struct Quorum {
    node: Arc<Node>,
    view: watch::Receiver<ControllerView>,
    failure: watch::Receiver<Option<String>>,
    tasks: Mutex<tokio::task::JoinSet<()>>,
    runtime: tokio::runtime::Handle,
    _lock: Box<dyn towpath_log::StorageLock>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("id", &self.node.peers.id).finish_non_exhaustive()
    }
}

impl Quorum {
    /// The newest image that this node has applied.
    #[must_use]
    pub fn image(&self) -> Arc<MetadataImage> {
        Arc::clone(&self.node.images.borrow())
    }

    /// The images as they come; some may be skipped.
    #[must_use]
    pub fn images(&self) -> watch::Receiver<Arc<MetadataImage>> {
        self.node.images.clone()
    }

    /// Who is the active controller, as far as this node knows.
    #[must_use]
    pub fn controller(&self) -> watch::Receiver<ControllerView> {
        self.view.clone()
    }

    /// Answers a message of another node.
    ///
    /// # Errors
    /// [`QuorumError::Message`], [`QuorumError::Stopped`].
    pub async fn handle(&self, message: Bytes) -> Result<Bytes, QuorumError> {
        self.node.handle(&message).await
    }

    /// A hint that the connection to a node broke and its listener refuses a new one. If it was the leader, voters
    /// that have seen the same elect another one at once.
    pub fn peer_lost(&self, id: BrokerId) {
        if let Some(election) = self.node.peer_lost(node_id(id)) {
            let mut tasks = self.tasks.lock();
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(election, &self.runtime);
        }
    }

    /// What DescribeQuorum answers; only the leader knows how far the others are.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        self.node.status()
    }

    /// Hands leadership to another voter: to the one that has the most of the log, if none is named. This returns before
    /// it has changed hands.
    ///
    /// # Errors
    /// [`ControllerError::NotController`], [`QuorumError::Membership`] if there is nobody to hand it to.
    pub async fn transfer_leadership(&self, to: Option<BrokerId>) -> Result<(), ControllerError> {
        if !self.node.is_leader() {
            return Err(self.node.not_controller());
        }
        let to = match to {
            Some(id) => self.node.membership().voter_ids().find(|voter| *voter == node_id(id)),
            None => self.node.successor(),
        };
        let to = to.filter(|id| *id != self.node.peers.id);
        let to = to.ok_or_else(|| QuorumError::Membership("there is no such voter to lead".to_owned()))?;
        let handed = self.node.raft.trigger().transfer_leader(to).await;
        handed.map_err(|error| QuorumError::Stopped(error.to_string()).into())
    }

    async fn order(&self, order: Order, id: BrokerId) -> Result<(), ControllerError> {
        if !self.node.is_leader() {
            return Err(self.node.not_controller());
        }
        Ok(self.node.order(order, node_id(id)).await?)
    }

    /// Makes a voter of a learner.
    ///
    /// # Errors
    /// [`ControllerError::NotController`], [`QuorumError::Membership`].
    pub async fn add_voter(&self, id: BrokerId) -> Result<(), ControllerError> {
        self.order(Order::AddVoter, id).await
    }

    /// Makes a learner of a voter. A configured controller asks to vote again when it is started anew.
    ///
    /// # Errors
    /// [`ControllerError::NotController`], [`QuorumError::Membership`].
    pub async fn remove_voter(&self, id: BrokerId) -> Result<(), ControllerError> {
        self.order(Order::RemoveVoter, id).await
    }

    /// Removes a member that will not come back. If it does, it is taken in again.
    ///
    /// # Errors
    /// [`ControllerError::NotController`], [`QuorumError::Membership`].
    pub async fn remove_member(&self, id: BrokerId) -> Result<(), ControllerError> {
        self.order(Order::RemoveMember, id).await
    }

    /// Waits until this member fails for good: its disk (R14), or an entry that contradicts the image (R7).
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.clone();
        loop {
            let reason = failure.borrow_and_update().clone();
            if let Some(reason) = reason {
                return reason;
            }
            if failure.changed().await.is_err() {
                // Shut down in order: it does not fail any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends this node's part; everything is durable when this returns. Nothing is handed over: see
    /// [`Self::transfer_leadership`].
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
        if let Err(error) = self.node.raft.shutdown().await {
            tracing::warn!(%error, "the metadata quorum's task did not end well");
        }
        if let Err(error) = self.node.log.close().await {
            tracing::warn!(%error, "the metadata quorum's log was not closed");
        }
    }
}
