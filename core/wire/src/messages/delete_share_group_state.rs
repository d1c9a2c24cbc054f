//! DeleteShareGroupState (API key 86).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DeleteShareGroupState, version 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteShareGroupState, response = DeleteShareGroupStateResponse, versions = "0", flexible = "0+")]
pub struct DeleteShareGroupStateRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<DeleteStateData>,
}

/// A part of [`DeleteShareGroupStateRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteStateData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`DeleteStateData`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition: i32,
}

/// The answer to [`DeleteShareGroupStateRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DeleteShareGroupStateResponse {
    /// One entry for each topic.
    pub results: Vec<DeleteStateResult>,
}

/// A part of [`DeleteShareGroupStateResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteStateResult {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResult>,
}

/// A part of [`DeleteStateResult`]: one entry of `partitions`.
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
