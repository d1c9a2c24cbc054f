//! OffsetDelete (API key 47).

use towpath_wire_derive::Message;

/// The request of OffsetDelete, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = OffsetDelete, response = OffsetDeleteResponse, versions = "0", flexible = "none")]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group_id: String,
    /// One entry for each topic.
    pub topics: Vec<OffsetDeleteRequestTopic>,
}

/// A part of [`OffsetDeleteRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetDeleteRequestTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<OffsetDeleteRequestPartition>,
}

/// A part of [`OffsetDeleteRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetDeleteRequestPartition {
    /// The partition.
    pub partition_index: i32,
}

/// The answer to [`OffsetDeleteRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct OffsetDeleteResponse {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<OffsetDeleteResponseTopic>,
}

/// A part of [`OffsetDeleteResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetDeleteResponseTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<OffsetDeleteResponsePartition>,
}

/// A part of [`OffsetDeleteResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct OffsetDeleteResponsePartition {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
