//! DescribeTopicPartitions (API key 75).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DescribeTopicPartitions, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeTopicPartitions, response = DescribeTopicPartitionsResponse, versions = "0", flexible = "0+")]
pub struct DescribeTopicPartitionsRequest {
    /// One entry for each topic.
    pub topics: Vec<TopicRequest>,
    /// The maximum number of partitions included in the response.
    #[wire(default = "2000")]
    pub response_partition_limit: i32,
    /// Where to go on; null for the start.
    #[wire(nullable = "0+", default = "null")]
    pub cursor: Option<Cursor>,
}

/// A part of [`DescribeTopicPartitionsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicRequest {
    /// The topic name.
    pub name: String,
}

/// A part of [`DescribeTopicPartitionsRequest`]: its `cursor`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct Cursor {
    /// The name of the topic.
    pub topic_name: String,
    /// The partition.
    pub partition_index: i32,
}

/// The answer to [`DescribeTopicPartitionsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DescribeTopicPartitionsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<DescribeTopicPartitionsResponseTopic>,
    /// Where the next request goes on; null when this is the end.
    #[wire(nullable = "0+", default = "null")]
    pub next_cursor: Option<Cursor>,
}

/// A part of [`DescribeTopicPartitionsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponseTopic {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The topic name.
    #[wire(nullable = "0+")]
    pub name: Option<String>,
    /// The id of the topic.
    #[wire(ignorable)]
    pub topic_id: Uuid,
    /// True if the topic is internal.
    #[wire(ignorable)]
    pub is_internal: bool,
    /// One entry for each partition.
    pub partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    /// 32-bit bitfield to represent authorized operations for this topic.
    #[wire(default = "-2147483648")]
    pub topic_authorized_operations: i32,
}

/// A part of [`DescribeTopicPartitionsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeTopicPartitionsResponsePartition {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The partition.
    pub partition_index: i32,
    /// The broker that leads the partition; -1 for none.
    pub leader_id: i32,
    /// The epoch of the leader; -1 if unknown.
    #[wire(ignorable, default = "-1")]
    pub leader_epoch: i32,
    /// The set of all nodes that host this partition.
    pub replica_nodes: Vec<i32>,
    /// The set of nodes that are in sync with the leader for this partition.
    pub isr_nodes: Vec<i32>,
    /// The new eligible leader replicas otherwise.
    #[wire(nullable = "0+", default = "null")]
    pub eligible_leader_replicas: Option<Vec<i32>>,
    /// The last known ELR.
    #[wire(nullable = "0+", default = "null")]
    pub last_known_elr: Option<Vec<i32>>,
    /// The set of offline replicas of this partition.
    #[wire(ignorable)]
    pub offline_replicas: Vec<i32>,
}
