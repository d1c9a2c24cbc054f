//! DeleteRecords (API key 21).

use towpath_wire_derive::Message;

/// The request of DeleteRecords, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DeleteRecords, response = DeleteRecordsResponse, versions = "0-2", flexible = "2+")]
pub struct DeleteRecordsRequest {
    /// One entry for each topic.
    pub topics: Vec<DeleteRecordsTopic>,
    /// Milliseconds to wait for the result.
    pub timeout_ms: i32,
}

/// A part of [`DeleteRecordsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteRecordsTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<DeleteRecordsPartition>,
}

/// A part of [`DeleteRecordsRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteRecordsPartition {
    /// The partition.
    pub partition_index: i32,
    /// The deletion offset.
    pub offset: i64,
}

/// The answer to [`DeleteRecordsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "2+")]
pub struct DeleteRecordsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<DeleteRecordsTopicResult>,
}

/// A part of [`DeleteRecordsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteRecordsTopicResult {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<DeleteRecordsPartitionResult>,
}

/// A part of [`DeleteRecordsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DeleteRecordsPartitionResult {
    /// The partition.
    pub partition_index: i32,
    /// The partition low water mark.
    pub low_watermark: i64,
    /// The error code; 0 for none.
    pub error_code: i16,
}
