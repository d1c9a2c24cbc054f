//! AssignReplicasToDirs (API key 73): a broker tells the active controller in which of its directories replicas are.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of AssignReplicasToDirs, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AssignReplicasToDirs, response = AssignReplicasToDirsResponse, versions = "0", flexible = "0+")]
pub struct AssignReplicasToDirsRequest {
    /// The broker that asks.
    pub broker_id: i32,
    /// The epoch of the broker that asks; -1 if unknown.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
    /// One entry for each directory.
    pub directories: Vec<DirectoryData>,
}

/// A part of [`AssignReplicasToDirsRequest`]: one entry of `directories`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct DirectoryData {
    /// The id of the directory.
    pub id: Uuid,
    /// The topics with replicas there.
    pub topics: Vec<TopicData>,
}

/// A part of [`AssignReplicasToDirsRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicData {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions with replicas there.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`AssignReplicasToDirsRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
}

/// The answer to [`AssignReplicasToDirsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct AssignReplicasToDirsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// One entry for each directory.
    pub directories: Vec<response::DirectoryData>,
}

/// The parts of [`AssignReplicasToDirsResponse`] whose names the request has, too.
pub mod response {
    use towpath_wire_derive::Message;
    use uuid::Uuid;

    /// A part of [`super::AssignReplicasToDirsResponse`]: one entry of `directories`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct DirectoryData {
        /// The id of the directory.
        pub id: Uuid,
        /// The topics with replicas there.
        pub topics: Vec<TopicData>,
    }

    /// A part of [`super::AssignReplicasToDirsResponse`]: one entry of `topics`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct TopicData {
        /// The id of the topic.
        pub topic_id: Uuid,
        /// The partitions with replicas there.
        pub partitions: Vec<PartitionData>,
    }

    /// A part of [`super::AssignReplicasToDirsResponse`]: one entry of `partitions`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct PartitionData {
        /// The partition.
        pub partition_index: i32,
        /// The error code of the partition; 0 for none.
        pub error_code: i16,
    }
}
