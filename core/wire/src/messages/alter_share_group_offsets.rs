//! AlterShareGroupOffsets (API key 91).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of AlterShareGroupOffsets, version 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterShareGroupOffsets, response = AlterShareGroupOffsetsResponse, versions = "0", flexible = "0+")]
pub struct AlterShareGroupOffsetsRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<AlterShareGroupOffsetsRequestTopic>,
}

/// A part of [`AlterShareGroupOffsetsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterShareGroupOffsetsRequestTopic {
    /// The name of the topic.
    pub topic_name: String,
    /// One entry for each partition.
    pub partitions: Vec<AlterShareGroupOffsetsRequestPartition>,
}

/// A part of [`AlterShareGroupOffsetsRequestTopic`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterShareGroupOffsetsRequestPartition {
    /// The partition.
    pub partition_index: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
}

/// The answer to [`AlterShareGroupOffsetsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct AlterShareGroupOffsetsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// One entry for each topic.
    pub responses: Vec<AlterShareGroupOffsetsResponseTopic>,
}

/// A part of [`AlterShareGroupOffsetsResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterShareGroupOffsetsResponseTopic {
    /// The name of the topic.
    pub topic_name: String,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<AlterShareGroupOffsetsResponsePartition>,
}

/// A part of [`AlterShareGroupOffsetsResponseTopic`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterShareGroupOffsetsResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}
