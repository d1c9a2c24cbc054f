//! A node's settings as a member of a cluster.

use std::net::SocketAddr;
use std::time::Duration;

use towpath_types::BrokerId;

use crate::config::Endpoint;

/// What a node is (`process.roles`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// It holds partitions and serves clients.
    pub broker: bool,
    /// It may be the active controller.
    pub controller: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { broker: true, controller: true }
    }
}

/// A node's settings as a member of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterSettings {
    /// The cluster's name: nodes of another name are refused.
    pub name: String,
    /// What this node is.
    pub roles: Roles,
    /// The voters of the metadata quorum (`controller.quorum.voters`), this node among them if it is one.
    pub controllers: Vec<(BrokerId, Endpoint)>,
    /// Where other nodes reach this one; port 0 takes a free one.
    pub peer_listen: SocketAddr,
    /// What other nodes are told, where it differs.
    pub peer_advertised: Option<Endpoint>,
}

impl ClusterSettings {
    /// The defaults for a node of the cluster `name`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        controllers: Vec<(BrokerId, Endpoint)>,
        peer_listen: SocketAddr,
    ) -> Self {
        Self { name: name.into(), roles: Roles::default(), controllers, peer_listen, peer_advertised: None }
    }
}

/// How the nodes of a cluster treat each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// `broker.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `broker.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_max: Duration,
    /// `controller.quorum.election.timeout.ms`: how long a leader of the quorum that says nothing is still taken for it.
    /// Where its process is gone, nobody waits for this.
    pub election_timeout: Duration,
    /// `auto.leader.rebalance.enable`.
    pub auto_leader_rebalance: bool,
    /// `leader.imbalance.check.interval.seconds`.
    pub leader_imbalance_check_interval: Duration,
    /// `controlled.shutdown`: how long a stopping broker waits until others lead in its place.
    pub controlled_shutdown_max: Duration,
    /// `replica.selector.class` is the rack-aware one: consumers that name their rack read from a replica there (KIP-392).
    pub rack_aware_reads: bool,
    /// `num.replica.fetchers`: loops that fetch from one leader.
    pub fetchers: usize,
}

impl Default for ReplicationSettings {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(9),
            heartbeat_interval: Duration::from_secs(2),
            replica_lag_max: Duration::from_secs(30),
            election_timeout: Duration::from_millis(500),
            auto_leader_rebalance: true,
            leader_imbalance_check_interval: Duration::from_secs(300),
            controlled_shutdown_max: Duration::from_secs(30),
            rack_aware_reads: false,
            fetchers: 1,
        }
    }
}
