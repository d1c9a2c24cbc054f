//! What goes into and comes out of admin calls.

use std::collections::BTreeMap;

use towpath_types::{GroupId, LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: TopicName,
    /// Its partitions; `None` for the cluster's default.
    pub partitions: Option<i32>,
    /// Its replication factor; `None` for the cluster's default.
    pub replication_factor: Option<i16>,
    /// Configs that differ from the cluster's defaults.
    pub configs: BTreeMap<String, String>,
}

impl NewTopic {
    /// A topic with the cluster's defaults.
    #[must_use]
    pub const fn new(name: TopicName) -> Self {
        Self { name, partitions: None, replication_factor: None, configs: BTreeMap::new() }
    }
}

/// One topic of [`super::Admin::list_topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicListing {
    /// Its name.
    pub name: TopicName,
    /// Its id; zero when the cluster has none.
    pub id: TopicId,
    /// Whether the cluster uses it for itself.
    pub internal: bool,
    /// The number of its partitions.
    pub partitions: usize,
}

/// One topic of [`super::Admin::describe_topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: TopicName,
    /// Its id; zero when the cluster has none.
    pub id: TopicId,
    /// Whether the cluster uses it for itself.
    pub internal: bool,
    /// Its partitions, by index.
    pub partitions: Vec<PartitionDescription>,
}

/// One partition of a [`TopicDescription`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// The index.
    pub partition: i32,
    /// The leading broker, if there is one.
    pub leader: Option<i32>,
    /// The leader epoch; [`LeaderEpoch::NONE`] if unknown.
    pub leader_epoch: LeaderEpoch,
    /// The brokers that hold it.
    pub replicas: Vec<i32>,
    /// Those of them that are in sync.
    pub in_sync_replicas: Vec<i32>,
    /// Those of them that are not there.
    pub offline_replicas: Vec<i32>,
    /// Those that could lead without a loss although they are not in sync (KIP-966), if the cluster was asked and
    /// tells: see [`super::Admin::describe_topic_partitions`].
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// Those that could so last, when none can now; likewise.
    pub last_known_eligible_leader_replicas: Option<Vec<i32>>,
}

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic's.
    Topic(TopicName),
    /// A broker's; `None` for the cluster-wide defaults.
    Broker(Option<i32>),
    /// A group's.
    Group(GroupId),
    /// The log levels of a broker, by logger.
    BrokerLogger(i32),
    /// A subscription to clients' metrics (KIP-714).
    ClientMetrics(String),
}

/// Where a config's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set dynamically on the broker.
    Broker,
    /// Set dynamically for all brokers.
    ClusterDefault,
    /// From the broker's configuration file.
    BrokerFile,
    /// Kafka's default.
    Default,
    /// Set on the group.
    Group,
    /// Set on the subscription to clients' metrics.
    ClientMetrics,
    /// Another one, by its number.
    Other(i8),
}

/// The type of a config's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// A number of 32 bits.
    Int,
    /// A number of 16 bits.
    Short,
    /// A number of 64 bits.
    Long,
    /// A decimal number.
    Double,
    /// Several values with commas: what can be appended to and subtracted from.
    List,
    /// The name of a Java class.
    Class,
    /// A secret.
    Password,
    /// The broker does not tell.
    Unknown,
}

impl ConfigType {
    pub(super) const fn from_wire(kind: i8) -> Self {
        match kind {
            1 => Self::Boolean,
            2 => Self::String,
            3 => Self::Int,
            4 => Self::Short,
            5 => Self::Long,
            6 => Self::Double,
            7 => Self::List,
            8 => Self::Class,
            9 => Self::Password,
            _ => Self::Unknown,
        }
    }
}

/// A place in which a config's value is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The name that the config has there.
    pub name: String,
    /// The value there; `None` when it is sensitive or not set.
    pub value: Option<String>,
    /// The place.
    pub source: ConfigSource,
}

/// What [`super::Admin::grow_topics`] does with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    /// How many partitions there are to be.
    pub total: i32,
    /// The replicas of each new one, the preferred leader first; `None` lets the cluster choose.
    pub assignments: Option<Vec<Vec<i32>>>,
}

impl ConfigSource {
    pub(super) const fn from_wire(source: i8) -> Self {
        match source {
            1 => Self::Topic,
            2 => Self::Broker,
            3 => Self::ClusterDefault,
            4 => Self::BrokerFile,
            5 => Self::Default,
            7 => Self::ClientMetrics,
            8 => Self::Group,
            other => Self::Other(other),
        }
    }
}

/// One config of [`super::Admin::describe_configs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` when it is sensitive or not set.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it cannot be changed while the broker runs.
    pub read_only: bool,
    /// Whether its value is never told.
    pub sensitive: bool,
    /// The type of its value.
    pub config_type: ConfigType,
    /// Where its value is looked for, the place that counts first.
    pub synonyms: Vec<ConfigSynonym>,
    /// What it does, if the broker tells.
    pub documentation: Option<String>,
}

/// A change of one config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlterConfig {
    /// Sets a value.
    Set(String, String),
    /// Goes back to the default.
    Delete(String),
    /// Adds to a list.
    Append(String, String),
    /// Removes from a list.
    Subtract(String, String),
}

/// Which offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The first record there is.
    Earliest,
    /// The high watermark (or the last stable offset for `read_committed`).
    Latest,
    /// The first record with the largest timestamp.
    MaxTimestamp,
    /// The first record that is on the leader's own disk (KIP-405).
    EarliestLocal,
    /// The last record that is in tiered storage (KIP-1005).
    LatestTiered,
    /// The first record whose timestamp (ms) is not smaller.
    Timestamp(i64),
}

impl OffsetSpec {
    pub(crate) const fn wire(self) -> i64 {
        match self {
            Self::Earliest => -2,
            Self::Latest => -1,
            Self::MaxTimestamp => -3,
            Self::EarliestLocal => -4,
            Self::LatestTiered => -5,
            Self::Timestamp(timestamp_ms) => timestamp_ms,
        }
    }
}

/// One answer of [`super::Admin::list_offsets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedOffset {
    /// The offset; `None` when no record matches.
    pub offset: Option<Offset>,
    /// The record's timestamp (ms), for lookups by timestamp.
    pub timestamp_ms: Option<i64>,
    /// The leader epoch of the record; [`LeaderEpoch::NONE`] if unknown.
    pub leader_epoch: LeaderEpoch,
}

/// One group of [`super::Admin::list_groups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    /// Its id.
    pub group_id: String,
    /// Its protocol type, e.g. `consumer`; empty for a group that only stores offsets.
    pub protocol_type: String,
    /// Its state; empty when the broker does not tell.
    pub state: String,
    /// `classic`, `consumer`, `share` or `streams`; empty when the broker does not tell.
    pub group_type: String,
}

/// One group of [`super::Admin::describe_groups`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its id.
    pub group_id: String,
    /// Its state, e.g. `Stable`, or `Dead` for one that does not exist.
    pub state: String,
    /// `classic`, `consumer` or `share`.
    pub group_type: String,
    /// Its protocol type, e.g. `consumer`.
    pub protocol_type: String,
    /// The chosen protocol (the assignor of a consumer group).
    pub protocol: String,
    /// The epoch of the group, and of its assignment, in the consumer protocol and of share groups.
    pub epochs: Option<(i32, i32)>,
    /// Its members.
    pub members: Vec<GroupMemberDescription>,
}

/// One member of a [`GroupDescription`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMemberDescription {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// The id that a static member gave itself.
    pub group_instance_id: Option<String>,
    /// Its client id.
    pub client_id: String,
    /// Where it connects from.
    pub client_host: String,
    /// Its partitions, in a consumer group or a share group.
    pub assignment: Vec<TopicPartition>,
    /// More, in the consumer protocol and of share groups.
    pub reconciliation: Option<MemberReconciliation>,
}

/// What the consumer protocol (or a share group) has of a member beside its assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberReconciliation {
    /// The member's epoch.
    pub epoch: i32,
    /// Its rack.
    pub rack: Option<String>,
    /// The topics that it wants by name.
    pub topics: Vec<String>,
    /// The expression that names the topics that it wants.
    pub regex: Option<String>,
    /// What it is to have when everybody has followed.
    pub target: Vec<TopicPartition>,
    /// Whether it speaks the classic protocol; `None` if the broker does not tell.
    pub is_classic: Option<bool>,
}

/// The results of a call about several things: each has its own.
pub type PerItem<K, V> = BTreeMap<K, Result<V, crate::ClientError>>;
