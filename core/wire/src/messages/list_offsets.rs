//! ListOffsets (API key 2).

use towpath_wire_derive::Message;

/// The request of ListOffsets, versions 1-11.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ListOffsets, response = ListOffsetsResponse, versions = "1-11", flexible = "6+")]
pub struct ListOffsetsRequest {
    /// The broker that asks as a replica; -1 for a consumer.
    pub replica_id: i32,
    /// The visibility of transactional records.
    #[wire(versions = "2+")]
    pub isolation_level: i8,
    /// One entry for each topic.
    pub topics: Vec<ListOffsetsTopic>,
    /// Milliseconds to wait for the result.
    #[wire(versions = "10+", ignorable)]
    pub timeout_ms: i32,
}

/// A part of [`ListOffsetsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListOffsetsTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<ListOffsetsPartition>,
}

/// A part of [`ListOffsetsRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListOffsetsPartition {
    /// The partition.
    pub partition_index: i32,
    /// The current leader epoch.
    #[wire(versions = "4+", ignorable, default = "-1")]
    pub current_leader_epoch: i32,
    /// The current timestamp.
    pub timestamp: i64,
}

/// The answer to [`ListOffsetsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-11", flexible = "6+")]
pub struct ListOffsetsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "2+", ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<ListOffsetsTopicResponse>,
}

/// A part of [`ListOffsetsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListOffsetsTopicResponse {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<ListOffsetsPartitionResponse>,
}

/// A part of [`ListOffsetsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ListOffsetsPartitionResponse {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The timestamp associated with the returned offset.
    #[wire(default = "-1")]
    pub timestamp: i64,
    /// The returned offset.
    #[wire(default = "-1")]
    pub offset: i64,
    /// The epoch of the leader; -1 if unknown.
    #[wire(versions = "4+", default = "-1")]
    pub leader_epoch: i32,
}
