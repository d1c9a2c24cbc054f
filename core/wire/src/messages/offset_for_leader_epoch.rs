//! OffsetForLeaderEpoch (API key 23).

use towpath_wire_derive::Message;

/// The request of OffsetForLeaderEpoch, versions 2-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = OffsetForLeaderEpoch, response = OffsetForLeaderEpochResponse, versions = "2-4", flexible = "4+")]
pub struct OffsetForLeaderEpochRequest {
    /// The broker that asks as a replica; -1 for a consumer.
    #[wire(versions = "3+", ignorable, default = "-2")]
    pub replica_id: i32,
    /// One entry for each topic.
    pub topics: Vec<OffsetForLeaderTopic>,
}

/// A part of [`OffsetForLeaderEpochRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetForLeaderTopic {
    /// The name of the topic.
    pub topic: String,
    /// One entry for each partition.
    pub partitions: Vec<OffsetForLeaderPartition>,
}

/// A part of [`OffsetForLeaderEpochRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetForLeaderPartition {
    /// The partition.
    pub partition: i32,
    /// An epoch used to fence consumers/replicas with old metadata.
    #[wire(ignorable, default = "-1")]
    pub current_leader_epoch: i32,
    /// The epoch of the leader; -1 if unknown.
    pub leader_epoch: i32,
}

/// The answer to [`OffsetForLeaderEpochRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "2-4", flexible = "4+")]
pub struct OffsetForLeaderEpochResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<OffsetForLeaderTopicResult>,
}

/// A part of [`OffsetForLeaderEpochResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetForLeaderTopicResult {
    /// The name of the topic.
    pub topic: String,
    /// One entry for each partition.
    pub partitions: Vec<EpochEndOffset>,
}

/// A part of [`OffsetForLeaderEpochResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EpochEndOffset {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The partition.
    pub partition: i32,
    /// The epoch of the leader; -1 if unknown.
    #[wire(ignorable, default = "-1")]
    pub leader_epoch: i32,
    /// The end offset of the epoch.
    #[wire(default = "-1")]
    pub end_offset: i64,
}
