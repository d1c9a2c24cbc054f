//! The settings of a broker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use towpath_controller::decide::{ClusterPolicy, TopicDefaults};
use towpath_coordinator::GroupConfig;
use towpath_coordinator::share::ShareStateConfig;
use towpath_coordinator::transaction::TransactionConfig;
use towpath_types::{BrokerId, limits};

use crate::cluster::{ClusterSettings, ReplicationSettings};

/// The settings of a broker.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `log.dirs`: the directory of everything that the broker stores, or the first of several, which has the metadata.
    pub data_dir: PathBuf,
    /// `log.dirs`: further directories for partitions.
    pub further_dirs: Vec<PathBuf>,
    /// `listeners`: where it accepts connections; none for a broker that only this process uses.
    pub listen: Option<SocketAddr>,
    /// `advertised.listeners`: what clients are told; the listener's address if not set.
    pub advertised: Option<Endpoint>,
    /// `node.id`.
    pub node_id: BrokerId,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `cluster.id`: the data directory's if not set, and a new one for a new directory.
    pub cluster_id: Option<String>,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `num.partitions`.
    pub partitions_default: i32,
    /// `default.replication.factor`.
    pub replication_factor_default: i16,
    /// Settings as they were named by [`Self::set`].
    pub settings: BTreeMap<String, String>,
    /// Defaults of topic configurations, by the names of these.
    pub topic_defaults: BTreeMap<String, String>,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// Configurations of `__consumer_offsets` besides those that it always has.
    pub offsets_topic_configs: BTreeMap<String, String>,
    /// The group coordinator's settings.
    pub groups: GroupConfig,
    /// `transaction.state.log.num.partitions`.
    pub transactions_partitions: i32,
    /// Configurations of `__transaction_state` besides those that it always has.
    pub transactions_topic_configs: BTreeMap<String, String>,
    /// The transaction coordinator's settings.
    pub transactions: TransactionConfig,
    /// `share.coordinator.state.topic.num.partitions`.
    pub share_state_partitions: i32,
    /// Configurations of `__share_group_state` besides those that it always has.
    pub share_state_topic_configs: BTreeMap<String, String>,
    /// The share coordinator's settings.
    pub share_states: ShareStateConfig,
    /// The limits.
    pub limits: Limits,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `log.cleaner.backoff.ms`: time between two looks for logs to compact.
    pub compaction_check_interval: Duration,
    /// `log.cleaner.dedupe.buffer.size`: bytes that the map of keys of a compaction may take.
    pub dedupe_buffer_bytes: usize,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// `log.flush.offset.checkpoint.interval.ms`.
    pub checkpoint_interval: Duration,
    /// The cluster that the node belongs to; none for a node that is alone.
    pub cluster: Option<ClusterSettings>,
    /// How the nodes of that cluster treat each other.
    pub replication: ReplicationSettings,
}

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What clients can make the broker hold (R10).
#[derive(Debug, Clone)]
pub struct Limits {
    /// `max.connections`.
    pub connections_max: usize,
    /// `socket.request.max.bytes`.
    pub request_bytes_max: usize,
    /// `queued.max.request.bytes`: memory of the requests and answers of all connections.
    pub request_memory_bytes: usize,
    /// Requests of one connection in work.
    pub requests_in_flight_max: usize,
    /// `fetch.max.bytes`.
    pub fetch_bytes_max: usize,
    /// `max.incremental.fetch.session.cache.slots`.
    pub fetch_sessions_max: usize,
    /// `connections.max.idle.ms`.
    pub connection_idle_max: Duration,
    /// How long a client may read nothing of an answer.
    pub write_stall_max: Duration,
    /// Bytes of recent batches kept in memory for readers at the end of their logs.
    pub tail_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX,
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            request_memory_bytes: limits::REQUEST_MEMORY_BYTES,
            requests_in_flight_max: limits::REQUESTS_IN_FLIGHT_MAX,
            fetch_bytes_max: limits::FETCH_BYTES_MAX,
            fetch_sessions_max: limits::FETCH_SESSIONS_MAX,
            connection_idle_max: Duration::from_secs(600),
            write_stall_max: Duration::from_secs(30),
            tail_bytes_max: 64 * 1024 * 1024,
        }
    }
}

impl BrokerConfig {
    /// The defaults of new topics.
    pub(crate) fn topic_defaults(&self) -> TopicDefaults {
        TopicDefaults {
            partitions: self.partitions_default,
            replication_factor: self.replication_factor_default,
            configs: self.topic_defaults.clone(),
        }
    }

    /// What decisions go by.
    pub(crate) fn policy(&self) -> ClusterPolicy {
        ClusterPolicy {
            groups: crate::broker_settings::of_groups(self),
            ..ClusterPolicy::new(self.topic_defaults())
        }
    }

    /// All directories, the one of the metadata first.
    pub(crate) fn all_dirs(&self) -> impl Iterator<Item = &std::path::Path> {
        std::iter::once(self.data_dir.as_path()).chain(self.further_dirs.iter().map(PathBuf::as_path))
    }

    /// The defaults, over a data directory, without a listener.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            further_dirs: Vec::new(),
            listen: None,
            advertised: None,
            node_id: BrokerId::new(1),
            rack: None,
            cluster_id: None,
            auto_create_topics: true,
            partitions_default: 1,
            replication_factor_default: 1,
            settings: BTreeMap::new(),
            topic_defaults: BTreeMap::new(),
            offsets_partitions: 50,
            offsets_topic_configs: BTreeMap::new(),
            groups: GroupConfig::default(),
            transactions_partitions: 50,
            transactions_topic_configs: BTreeMap::new(),
            transactions: TransactionConfig::default(),
            share_state_partitions: 50,
            share_state_topic_configs: BTreeMap::new(),
            share_states: ShareStateConfig::default(),
            limits: Limits::default(),
            retention_check_interval: Duration::from_secs(300),
            compaction_check_interval: Duration::from_secs(15),
            dedupe_buffer_bytes: 16 * 1024 * 1024,
            producer_expiration_ms: 24 * 60 * 60 * 1000,
            checkpoint_interval: Duration::from_secs(60),
            cluster: None,
            replication: ReplicationSettings::default(),
        }
    }
}
