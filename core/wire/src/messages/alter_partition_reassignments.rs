//! AlterPartitionReassignments (API key 45).

use towpath_wire_derive::Message;

/// The request of AlterPartitionReassignments, versions 0-1.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterPartitionReassignments, response = AlterPartitionReassignmentsResponse, versions = "0-1", flexible = "0+")]
pub struct AlterPartitionReassignmentsRequest {
    /// Milliseconds to wait for the result.
    #[wire(default = "60000")]
    pub timeout_ms: i32,
    /// The option indicating whether changing the replication factor of any given partition as part of this
    /// request is a valid move.
    #[wire(versions = "1+", default = "true")]
    pub allow_replication_factor_change: bool,
    /// One entry for each topic.
    pub topics: Vec<ReassignableTopic>,
}

/// A part of [`AlterPartitionReassignmentsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReassignableTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<ReassignablePartition>,
}

/// A part of [`AlterPartitionReassignmentsRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReassignablePartition {
    /// The partition.
    pub partition_index: i32,
    /// The replicas to place the partitions on; null to cancel a pending reassignment for this partition.
    #[wire(nullable = "0+", default = "null")]
    pub replicas: Option<Vec<i32>>,
}

/// The answer to [`AlterPartitionReassignmentsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "0+")]
pub struct AlterPartitionReassignmentsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The option indicating whether changing the replication factor of any given partition as part of the
    /// request was allowed.
    #[wire(versions = "1+", ignorable, default = "true")]
    pub allow_replication_factor_change: bool,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
    /// The responses to topics to reassign.
    pub responses: Vec<ReassignableTopicResponse>,
}

/// A part of [`AlterPartitionReassignmentsResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReassignableTopicResponse {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<ReassignablePartitionResponse>,
}

/// A part of [`AlterPartitionReassignmentsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReassignablePartitionResponse {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
}
