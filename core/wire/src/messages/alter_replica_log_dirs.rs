//! AlterReplicaLogDirs (API key 34).

use towpath_wire_derive::Message;

/// The request of AlterReplicaLogDirs, versions 1-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterReplicaLogDirs, response = AlterReplicaLogDirsResponse, versions = "1-2", flexible = "2+")]
pub struct AlterReplicaLogDirsRequest {
    /// The alterations to make for each directory.
    pub dirs: Vec<AlterReplicaLogDir>,
}

/// A part of [`AlterReplicaLogDirsRequest`]: one entry of `dirs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterReplicaLogDir {
    /// The absolute directory path.
    pub path: String,
    /// One entry for each topic.
    pub topics: Vec<AlterReplicaLogDirTopic>,
}

/// A part of [`AlterReplicaLogDirsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterReplicaLogDirTopic {
    /// The topic name.
    pub name: String,
    /// The partition indexes.
    pub partitions: Vec<i32>,
}

/// The answer to [`AlterReplicaLogDirsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-2", flexible = "2+")]
pub struct AlterReplicaLogDirsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The results for each topic.
    pub results: Vec<AlterReplicaLogDirTopicResult>,
}

/// A part of [`AlterReplicaLogDirsResponse`]: one entry of `results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterReplicaLogDirTopicResult {
    /// The name of the topic.
    pub topic_name: String,
    /// One entry for each partition.
    pub partitions: Vec<AlterReplicaLogDirPartitionResult>,
}

/// A part of [`AlterReplicaLogDirsResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AlterReplicaLogDirPartitionResult {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
