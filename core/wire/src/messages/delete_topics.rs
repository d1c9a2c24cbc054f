//! DeleteTopics (API key 20).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of DeleteTopics, versions 1-6.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteTopics, response = DeleteTopicsResponse, versions = "1-6", flexible = "4+")]
pub struct DeleteTopicsRequest {
    /// One entry for each topic.
    #[wire(versions = "6+")]
    pub topics: Vec<DeleteTopicState>,
    /// The names of the topics to delete.
    #[wire(versions = "0-5", ignorable)]
    pub topic_names: Vec<String>,
    /// Milliseconds to wait for the result.
    pub timeout_ms: i32,
}

/// A part of [`DeleteTopicsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteTopicState {
    /// The topic name.
    #[wire(nullable = "6+", default = "null")]
    pub name: Option<String>,
    /// The id of the topic.
    pub topic_id: Uuid,
}

/// The answer to [`DeleteTopicsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-6", flexible = "4+")]
pub struct DeleteTopicsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// The results for each topic we tried to delete.
    pub responses: Vec<DeletableTopicResult>,
}

/// A part of [`DeleteTopicsResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeletableTopicResult {
    /// The topic name.
    #[wire(nullable = "6+")]
    pub name: Option<String>,
    /// The id of the topic.
    #[wire(versions = "6+", ignorable)]
    pub topic_id: Uuid,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(versions = "5+", nullable = "5+", ignorable, default = "null")]
    pub error_message: Option<String>,
}
