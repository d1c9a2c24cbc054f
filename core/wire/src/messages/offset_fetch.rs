//! OffsetFetch (API key 9).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of OffsetFetch, versions 1-10.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = OffsetFetch, response = OffsetFetchResponse, versions = "1-10", flexible = "6+")]
pub struct OffsetFetchRequest {
    /// The group.
    #[wire(versions = "0-7")]
    pub group_id: String,
    /// One entry for each topic.
    #[wire(versions = "0-7", nullable = "2-7")]
    pub topics: Option<Vec<OffsetFetchRequestTopic>>,
    /// Each group we would like to fetch offsets for.
    #[wire(versions = "8+")]
    pub groups: Vec<OffsetFetchRequestGroup>,
    /// Whether broker should hold on returning unstable offsets but set a retriable error code for the
    /// partitions.
    #[wire(versions = "7+")]
    pub require_stable: bool,
}

/// A part of [`OffsetFetchRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchRequestTopic {
    /// The topic name.
    pub name: String,
    /// The partition indexes we would like to fetch offsets for.
    pub partition_indexes: Vec<i32>,
}

/// A part of [`OffsetFetchRequest`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchRequestGroup {
    /// The group.
    pub group_id: String,
    /// The id that the coordinator gave to the member.
    #[wire(versions = "9+", nullable = "9+", ignorable, default = "null")]
    pub member_id: Option<String>,
    /// The member epoch if using the new consumer protocol (KIP-848).
    #[wire(versions = "9+", ignorable, default = "-1")]
    pub member_epoch: i32,
    /// One entry for each topic.
    #[wire(nullable = "8+")]
    pub topics: Option<Vec<OffsetFetchRequestTopics>>,
}

/// A part of [`OffsetFetchRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchRequestTopics {
    /// The topic name.
    #[wire(versions = "8-9", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// The partition indexes we would like to fetch offsets for.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`OffsetFetchRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-10", flexible = "6+")]
pub struct OffsetFetchResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(versions = "3+", ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    #[wire(versions = "0-7")]
    pub topics: Vec<OffsetFetchResponseTopic>,
    /// The error code; 0 for none.
    #[wire(versions = "2-7", ignorable)]
    pub error_code: i16,
    /// The responses per group id.
    #[wire(versions = "8+")]
    pub groups: Vec<OffsetFetchResponseGroup>,
}

/// A part of [`OffsetFetchResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchResponseTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<OffsetFetchResponsePartition>,
}

/// A part of [`OffsetFetchResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The offset to resume from.
    pub committed_offset: i64,
    /// The leader epoch.
    #[wire(versions = "5-7", ignorable, default = "-1")]
    pub committed_leader_epoch: i32,
    /// What the client wrote beside the offset.
    #[wire(nullable = "0-7")]
    pub metadata: Option<String>,
    /// The error code; 0 for none.
    pub error_code: i16,
}

/// A part of [`OffsetFetchResponse`]: one entry of `groups`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchResponseGroup {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<OffsetFetchResponseTopics>,
    /// The error code; 0 for none.
    pub error_code: i16,
}

/// A part of [`OffsetFetchResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchResponseTopics {
    /// The topic name.
    #[wire(versions = "8-9", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "10+", ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<OffsetFetchResponsePartitions>,
}

/// A part of [`OffsetFetchResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetFetchResponsePartitions {
    /// The partition.
    pub partition_index: i32,
    /// The offset to resume from.
    pub committed_offset: i64,
    /// The leader epoch.
    #[wire(ignorable, default = "-1")]
    pub committed_leader_epoch: i32,
    /// What the client wrote beside the offset.
    #[wire(nullable = "8+")]
    pub metadata: Option<String>,
    /// The error code; 0 for none.
    pub error_code: i16,
}
