//! ReadShareGroupState (API key 84).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ReadShareGroupState, version 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ReadShareGroupState, response = ReadShareGroupStateResponse, versions = "0", flexible = "0+")]
pub struct ReadShareGroupStateRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<ReadStateData>,
}

/// A part of [`ReadShareGroupStateRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReadStateData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`ReadStateData`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
}

/// The answer to [`ReadShareGroupStateRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ReadShareGroupStateResponse {
    /// One entry for each topic.
    pub results: Vec<ReadStateResult>,
}

/// A part of [`ReadShareGroupStateResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReadStateResult {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResult>,
}

/// A part of [`ReadStateResult`]: one entry of `partitions`.
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
    /// The share-partition start offset, which can be -1 if it is not yet initialized.
    pub start_offset: i64,
    /// The state batches for this share-partition.
    pub state_batches: Vec<StateBatch>,
}

/// A part of [`PartitionResult`]: one entry of `state_batches`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct StateBatch {
    /// The first offset of this state batch.
    pub first_offset: i64,
    /// The last offset of this state batch.
    pub last_offset: i64,
    /// The delivery state - 0:Available,2:Acked,4:Archived.
    pub delivery_state: i8,
    /// The delivery count.
    pub delivery_count: i16,
}
