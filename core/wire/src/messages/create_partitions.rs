//! CreatePartitions (API key 37).

use towpath_wire_derive::Message;

/// The request of CreatePartitions, versions 0-3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = CreatePartitions, response = CreatePartitionsResponse, versions = "0-3", flexible = "2+")]
pub struct CreatePartitionsRequest {
    /// One entry for each topic.
    pub topics: Vec<CreatePartitionsTopic>,
    /// Milliseconds to wait for the result.
    pub timeout_ms: i32,
    /// Whether to check the request without doing it.
    pub validate_only: bool,
}

/// A part of [`CreatePartitionsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatePartitionsTopic {
    /// The topic name.
    pub name: String,
    /// The new partition count.
    pub count: i32,
    /// The new partition assignments.
    #[wire(nullable = "0+")]
    pub assignments: Option<Vec<CreatePartitionsAssignment>>,
}

/// A part of [`CreatePartitionsRequest`]: one entry of `assignments`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatePartitionsAssignment {
    /// The assigned broker ids.
    pub broker_ids: Vec<i32>,
}

/// The answer to [`CreatePartitionsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-3", flexible = "2+")]
pub struct CreatePartitionsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The partition creation results for each topic.
    pub results: Vec<CreatePartitionsTopicResult>,
}

/// A part of [`CreatePartitionsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct CreatePartitionsTopicResult {
    /// The topic name.
    pub name: String,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
}
