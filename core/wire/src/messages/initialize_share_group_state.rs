//! InitializeShareGroupState (API key 83).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of InitializeShareGroupState, version 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = InitializeShareGroupState, response = InitializeShareGroupStateResponse, versions = "0", flexible = "0+")]
pub struct InitializeShareGroupStateRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<InitializeStateData>,
}

/// A part of [`InitializeShareGroupStateRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct InitializeStateData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`InitializeStateData`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition: i32,
    /// The state epoch for this share-partition.
    pub state_epoch: i32,
    /// The share-partition start offset, or -1 if the start offset is not being initialized.
    pub start_offset: i64,
}

/// The answer to [`InitializeShareGroupStateRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct InitializeShareGroupStateResponse {
    /// One entry for each topic.
    pub results: Vec<InitializeStateResult>,
}

/// A part of [`InitializeShareGroupStateResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct InitializeStateResult {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResult>,
}

/// A part of [`InitializeStateResult`]: one entry of `partitions`.
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
