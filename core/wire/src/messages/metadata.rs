//! Metadata (API key 3).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of Metadata, versions 0-13.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Metadata, response = MetadataResponse, versions = "0-13", flexible = "9+")]
pub struct MetadataRequest {
    /// One entry for each topic.
    #[wire(nullable = "1+")]
    pub topics: Option<Vec<MetadataRequestTopic>>,
    /// If this is true, the broker may auto-create topics that we requested which do not already exist, if it
    /// is configured to do so.
    #[wire(versions = "4+", default = "true")]
    pub allow_auto_topic_creation: bool,
    /// Whether to include cluster authorized operations.
    #[wire(versions = "8-10")]
    pub include_cluster_authorized_operations: bool,
    /// Whether to include topic authorized operations.
    #[wire(versions = "8+")]
    pub include_topic_authorized_operations: bool,
}

/// A part of [`MetadataRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MetadataRequestTopic {
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// The topic name.
    #[wire(nullable = "10+")]
    pub name: Option<String>,
}

/// The answer to [`MetadataRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-13", flexible = "9+")]
pub struct MetadataResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// A list of brokers present in the cluster.
    pub brokers: Vec<MetadataResponseBroker>,
    /// The cluster id that responding broker belongs to.
    #[wire(versions = "2+", nullable = "2+", ignorable, default = "null")]
    pub cluster_id: Option<String>,
    /// The id of the controller broker.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub controller_id: i32,
    /// One entry for each topic.
    pub topics: Vec<MetadataResponseTopic>,
    /// 32-bit bitfield to represent authorized operations for this cluster.
    #[wire(versions = "8-10", default = "-2147483648")]
    pub cluster_authorized_operations: i32,
    /// The error code; 0 for none.
    #[wire(versions = "13+", ignorable)]
    pub error_code: i16,
}

/// A part of [`MetadataResponse`]: one entry of `brokers`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MetadataResponseBroker {
    /// The broker.
    pub node_id: i32,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: i32,
    /// The rack of the broker; null for none.
    #[wire(versions = "1+", nullable = "1+", ignorable, default = "null")]
    pub rack: Option<String>,
}

/// A part of [`MetadataResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MetadataResponseTopic {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The topic name.
    #[wire(nullable = "12+")]
    pub name: Option<String>,
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// True if the topic is internal.
    #[wire(versions = "1+", ignorable)]
    pub is_internal: bool,
    /// One entry for each partition.
    pub partitions: Vec<MetadataResponsePartition>,
    /// 32-bit bitfield to represent authorized operations for this topic.
    #[wire(versions = "8+", default = "-2147483648")]
    pub topic_authorized_operations: i32,
}

/// A part of [`MetadataResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct MetadataResponsePartition {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The partition.
    pub partition_index: i32,
    /// The broker that leads the partition; -1 for none.
    pub leader_id: i32,
    /// The epoch of the leader; -1 if unknown.
    #[wire(versions = "7+", ignorable, default = "-1")]
    pub leader_epoch: i32,
    /// The set of all nodes that host this partition.
    pub replica_nodes: Vec<i32>,
    /// The set of nodes that are in sync with the leader for this partition.
    pub isr_nodes: Vec<i32>,
    /// The set of offline replicas of this partition.
    #[wire(versions = "5+", ignorable)]
    pub offline_replicas: Vec<i32>,
}
