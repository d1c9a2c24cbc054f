//! DeleteShareGroupOffsets (API key 92).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DeleteShareGroupOffsets, version 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteShareGroupOffsets, response = DeleteShareGroupOffsetsResponse, versions = "0", flexible = "0+")]
pub struct DeleteShareGroupOffsetsRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<DeleteShareGroupOffsetsRequestTopic>,
}

/// A part of [`DeleteShareGroupOffsetsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteShareGroupOffsetsRequestTopic {
    /// The name of the topic.
    pub topic_name: String,
}

/// The answer to [`DeleteShareGroupOffsetsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DeleteShareGroupOffsetsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// One entry for each topic.
    pub responses: Vec<DeleteShareGroupOffsetsResponseTopic>,
}

/// A part of [`DeleteShareGroupOffsetsResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteShareGroupOffsetsResponseTopic {
    /// The name of the topic.
    pub topic_name: String,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}
