//! OffsetCommit (API key 8).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of OffsetCommit, versions 2-10.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = OffsetCommit, response = OffsetCommitResponse, versions = "2-10", flexible = "8+")]
pub struct OffsetCommitRequest {
    /// The group.
    pub group_id: String,
    /// The generation of the group if using the classic group protocol or the member epoch if using the
    /// consumer protocol.
    #[wire(ignorable, default = "-1")]
    pub generation_id_or_member_epoch: i32,
    /// The id that the coordinator gave to the member.
    #[wire(ignorable)]
    pub member_id: String,
    /// The id that a static member chose for itself; null for a dynamic one.
    #[wire(versions = "7+", nullable = "7+", default = "null")]
    pub group_instance_id: Option<String>,
    /// The time period (milliseconds) to retain the offset.
    #[wire(versions = "2-4", ignorable, default = "-1")]
    pub retention_time_ms: i64,
    /// One entry for each topic.
    pub topics: Vec<OffsetCommitRequestTopic>,
}

/// A part of [`OffsetCommitRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetCommitRequestTopic {
    /// The topic name.
    #[wire(versions = "0-9", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<OffsetCommitRequestPartition>,
}

/// A part of [`OffsetCommitRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetCommitRequestPartition {
    /// The partition.
    pub partition_index: i32,
    /// The offset to resume from.
    pub committed_offset: i64,
    /// The leader epoch of this partition.
    #[wire(versions = "6+", ignorable, default = "-1")]
    pub committed_leader_epoch: i32,
    /// What the client wrote beside the offset.
    #[wire(nullable = "0+")]
    pub committed_metadata: Option<String>,
}

/// The answer to [`OffsetCommitRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "2-10", flexible = "8+")]
pub struct OffsetCommitResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<OffsetCommitResponseTopic>,
}

/// A part of [`OffsetCommitResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetCommitResponseTopic {
    /// The topic name.
    #[wire(versions = "0-9", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<OffsetCommitResponsePartition>,
}

/// A part of [`OffsetCommitResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetCommitResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
