//! ReadShareGroupStateSummary (API key 87).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ReadShareGroupStateSummary, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ReadShareGroupStateSummary, response = ReadShareGroupStateSummaryResponse, versions = "0-1", flexible = "0+")]
pub struct ReadShareGroupStateSummaryRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<ReadStateSummaryData>,
}

/// A part of [`ReadShareGroupStateSummaryRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReadStateSummaryData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`ReadStateSummaryData`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
}

/// The answer to [`ReadShareGroupStateSummaryRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct ReadShareGroupStateSummaryResponse {
    /// One entry for each topic.
    pub results: Vec<ReadStateSummaryResult>,
}

/// A part of [`ReadShareGroupStateSummaryResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReadStateSummaryResult {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResult>,
}

/// A part of [`ReadStateSummaryResult`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionResult {
    /// The partition.
    pub partition: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The state epoch of the share-partition.
    pub state_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been
    /// completed.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub delivery_complete_count: i32,
}
