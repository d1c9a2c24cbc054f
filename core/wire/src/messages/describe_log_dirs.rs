//! DescribeLogDirs (API key 35).

use towpath_wire_derive::Message;

/// The request of DescribeLogDirs, versions 1-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeLogDirs, response = DescribeLogDirsResponse, versions = "1-5", flexible = "2+")]
pub struct DescribeLogDirsRequest {
    /// One entry for each topic.
    #[wire(nullable = "0+")]
    pub topics: Option<Vec<DescribableLogDirTopic>>,
}

/// A part of [`DescribeLogDirsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribableLogDirTopic {
    /// The name of the topic.
    pub topic: String,
    /// The partition indexes.
    pub partitions: Vec<i32>,
}

/// The answer to [`DescribeLogDirsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-5", flexible = "2+")]
pub struct DescribeLogDirsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    #[wire(versions = "3+", ignorable)]
    pub error_code: i16,
    /// The log directories.
    pub results: Vec<DescribeLogDirsResult>,
}

/// A part of [`DescribeLogDirsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeLogDirsResult {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The absolute log directory path.
    pub log_dir: String,
    /// One entry for each topic.
    pub topics: Vec<DescribeLogDirsTopic>,
    /// The total size in bytes of the volume the log directory is in.
    #[wire(versions = "4+", ignorable, default = "-1")]
    pub total_bytes: i64,
    /// The usable size in bytes of the volume the log directory is in.
    #[wire(versions = "4+", ignorable, default = "-1")]
    pub usable_bytes: i64,
    /// True if this log directory is cordoned.
    #[wire(versions = "5+", ignorable)]
    pub is_cordoned: bool,
}

/// A part of [`DescribeLogDirsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeLogDirsTopic {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<DescribeLogDirsPartition>,
}

/// A part of [`DescribeLogDirsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DescribeLogDirsPartition {
    /// The partition.
    pub partition_index: i32,
    /// The size of the log segments in this partition in bytes.
    pub partition_size: i64,
    /// The lag of the log's LEO w.r.t.
    pub offset_lag: i64,
    /// True if this log is created by AlterReplicaLogDirsRequest and will replace the current log of the
    /// replica in the future.
    pub is_future_key: bool,
}
