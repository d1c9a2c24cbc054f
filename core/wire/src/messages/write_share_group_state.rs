//! WriteShareGroupState (API key 85).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of WriteShareGroupState, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = WriteShareGroupState, response = WriteShareGroupStateResponse, versions = "0-1", flexible = "0+")]
pub struct WriteShareGroupStateRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<WriteStateData>,
}

/// A part of [`WriteShareGroupStateRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WriteStateData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`WriteStateData`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition: i32,
    /// The state epoch of the share-partition.
    pub state_epoch: i32,
    /// The leader epoch of the share-partition.
    pub leader_epoch: i32,
    /// The share-partition start offset, or -1 if the start offset is not being written.
    pub start_offset: i64,
    /// The number of offsets greater than or equal to share-partition start offset for which delivery has been
    /// completed.
    #[wire(versions = "1+", ignorable, default = "-1")]
    pub delivery_complete_count: i32,
    /// The state batches for the share-partition.
    pub state_batches: Vec<StateBatch>,
}

/// A part of [`PartitionData`]: one entry of `state_batches`.
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

/// The answer to [`WriteShareGroupStateRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct WriteShareGroupStateResponse {
    /// One entry for each topic.
    pub results: Vec<WriteStateResult>,
}

/// A part of [`WriteShareGroupStateResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct WriteStateResult {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResult>,
}

/// A part of [`WriteStateResult`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionResult {
    /// The partition.
    pub partition: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}
