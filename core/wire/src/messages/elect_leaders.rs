//! ElectLeaders (API key 43).

use towpath_wire_derive::Message;

/// The request of ElectLeaders, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ElectLeaders, response = ElectLeadersResponse, versions = "0-2", flexible = "2+")]
pub struct ElectLeadersRequest {
    /// Type of elections to conduct for the partition.
    #[wire(versions = "1+")]
    pub election_type: i8,
    /// The topic partitions to elect leaders.
    #[wire(nullable = "0+")]
    pub topic_partitions: Option<Vec<TopicPartitions>>,
    /// Milliseconds to wait for the result.
    #[wire(default = "60000")]
    pub timeout_ms: i32,
}

/// A part of [`ElectLeadersRequest`]: one entry of `topic_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicPartitions {
    /// The name of the topic.
    pub topic: String,
    /// The partitions of this topic whose leader should be elected.
    pub partitions: Vec<i32>,
}

/// The answer to [`ElectLeadersRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "2+")]
pub struct ElectLeadersResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    #[wire(versions = "1+")]
    pub error_code: i16,
    /// The election results, or an empty array if the requester did not have permission and the request asks
    /// for all partitions.
    pub replica_election_results: Vec<ReplicaElectionResult>,
}

/// A part of [`ElectLeadersResponse`]: one entry of `replica_election_results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReplicaElectionResult {
    /// The name of the topic.
    pub topic: String,
    /// The results for each partition.
    pub partition_result: Vec<PartitionResult>,
}

/// A part of [`ElectLeadersResponse`]: one entry of `partition_result`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionResult {
    /// The partition id.
    pub partition_id: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+")]
    pub error_message: Option<String>,
}
