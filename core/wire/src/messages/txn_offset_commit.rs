//! TxnOffsetCommit (API key 28).

use towpath_wire_derive::Message;

/// The request of TxnOffsetCommit, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = TxnOffsetCommit, response = TxnOffsetCommitResponse, versions = "0-5", flexible = "3+")]
pub struct TxnOffsetCommitRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// The group.
    pub group_id: String,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// The generation of the group.
    #[wire(versions = "3+", default = "-1")]
    pub generation_id: i32,
    /// The id that the coordinator gave to the member.
    #[wire(versions = "3+")]
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "3+", nullable = "3+", default = "null")]
    pub group_instance_id: Option<String>,
    /// One entry for each topic.
    pub topics: Vec<TxnOffsetCommitRequestTopic>,
}

/// A part of [`TxnOffsetCommitRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TxnOffsetCommitRequestTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<TxnOffsetCommitRequestPartition>,
}

/// A part of [`TxnOffsetCommitRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TxnOffsetCommitRequestPartition {
    /// The partition.
    pub partition_index: i32,
    /// The offset to resume from.
    pub committed_offset: i64,
    /// The leader epoch of the last consumed record.
    #[wire(versions = "2+", ignorable, default = "-1")]
    pub committed_leader_epoch: i32,
    /// What the client wrote beside the offset.
    #[wire(nullable = "0+")]
    pub committed_metadata: Option<String>,
}

/// The answer to [`TxnOffsetCommitRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "3+")]
pub struct TxnOffsetCommitResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<TxnOffsetCommitResponseTopic>,
}

/// A part of [`TxnOffsetCommitResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TxnOffsetCommitResponseTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<TxnOffsetCommitResponsePartition>,
}

/// A part of [`TxnOffsetCommitResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TxnOffsetCommitResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
