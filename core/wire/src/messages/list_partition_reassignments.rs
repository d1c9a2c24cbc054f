//! ListPartitionReassignments (API key 46).

use towpath_wire_derive::Message;

/// The request of ListPartitionReassignments, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ListPartitionReassignments, response = ListPartitionReassignmentsResponse, versions = "0", flexible = "0+")]
pub struct ListPartitionReassignmentsRequest {
    /// Milliseconds to wait for the result.
    #[wire(default = "60000")]
    pub timeout_ms: i32,
    /// One entry for each topic.
    #[wire(nullable = "0+", default = "null")]
    pub topics: Option<Vec<ListPartitionReassignmentsTopics>>,
}

/// A part of [`ListPartitionReassignmentsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListPartitionReassignmentsTopics {
    /// The topic name.
    pub name: String,
    /// The partitions to list partition reassignments for.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`ListPartitionReassignmentsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct ListPartitionReassignmentsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// One entry for each topic.
    pub topics: Vec<OngoingTopicReassignment>,
}

/// A part of [`ListPartitionReassignmentsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OngoingTopicReassignment {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<OngoingPartitionReassignment>,
}

/// A part of [`ListPartitionReassignmentsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OngoingPartitionReassignment {
    /// The partition.
    pub partition_index: i32,
    /// The current replica set.
    pub replicas: Vec<i32>,
    /// The set of replicas we are currently adding.
    pub adding_replicas: Vec<i32>,
    /// The set of replicas we are currently removing.
    pub removing_replicas: Vec<i32>,
}
