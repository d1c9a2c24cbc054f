//! DescribeShareGroupOffsets (API key 90).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DescribeShareGroupOffsets, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeShareGroupOffsets, response = DescribeShareGroupOffsetsResponse, versions = "0-1", flexible = "0+")]
pub struct DescribeShareGroupOffsetsRequest {
    /// The groups to describe offsets for.
    pub groups: Vec<DescribeShareGroupOffsetsRequestGroup>,
}

/// A part of [`DescribeShareGroupOffsetsRequest`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsRequestGroup {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    #[wire(nullable = "0+")]
    pub topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>>,
}

/// A part of [`DescribeShareGroupOffsetsRequestGroup`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsRequestTopic {
    /// The name of the topic.
    pub topic_name: String,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// The answer to [`DescribeShareGroupOffsetsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct DescribeShareGroupOffsetsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The results for each group.
    pub groups: Vec<DescribeShareGroupOffsetsResponseGroup>,
}

/// A part of [`DescribeShareGroupOffsetsResponse`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponseGroup {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<DescribeShareGroupOffsetsResponseTopic>,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}

/// A part of [`DescribeShareGroupOffsetsResponseGroup`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponseTopic {
    /// The name of the topic.
    pub topic_name: String,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<DescribeShareGroupOffsetsResponsePartition>,
}

/// A part of [`DescribeShareGroupOffsetsResponseTopic`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeShareGroupOffsetsResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
    /// The leader epoch of the partition.
    pub leader_epoch: i32,
    /// The share-partition lag.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub lag: i64,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}
