//! Decisions: image and request in, records and answer out.

mod alter_partition;
mod change;
mod cluster_defaults;
mod configs;
mod elections;
mod features;
mod heartbeat;
mod offline_replicas;
mod partitions;
mod placement;
mod policy;
mod producer_ids;
mod reassignments;
mod rebalancing;
mod registration;
mod topics;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod lost_disk_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod support;

#[cfg(test)]
mod tests;

use towpath_wire::ErrorCode;

use crate::MetadataRecord;

pub use alter_partition::{
    AlterPartition, IsrMember, PartitionAnswer, PartitionIsr, TopicAnswers, TopicIsrs, alter_partition,
};
pub use cluster_defaults::set_cluster_defaults;
pub use configs::{ConfigChange, ConfigOperation, ConfigTarget, alter_configs, replace_configs};
pub use elections::{
    ElectionKind, ElectionResult, PartitionRef, elect_leaders, elect_where_unclean_is_allowed,
    rebalance_leaders,
};
pub use features::{FeatureUpdate, METADATA_VERSION, UpgradeType, update_features};
pub use heartbeat::{Heartbeat, HeartbeatAnswer, fence_broker, fence_incarnation, heartbeat};
pub use offline_replicas::{ReplicaState, ReplicaStates, set_replica_states};
pub use partitions::{MorePartitions, create_partitions};
pub use policy::ClusterPolicy;
pub use producer_ids::{PRODUCER_IDS_PER_BLOCK, ProducerIdBlock, allocate_producer_ids};
pub use reassignments::{
    OngoingReassignment, Reassignment, alter_partition_reassignments, list_partition_reassignments,
};
pub use rebalancing::{balance, drain_broker};
pub use registration::{Registration, register_broker, register_single_broker, unregister_broker};
pub use topics::{
    Assignment, CreatedTopic, DeleteTarget, DeletedTopic, NewTopic, TopicDefaults, create_topics,
    delete_topics,
};

/// The records to commit, and what to answer once they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision<T> {
    /// The records; all of them or none take effect.
    pub records: Vec<MetadataRecord>,
    /// The answer.
    pub answer: T,
}

impl<T> Decision<T> {
    /// An answer that changes nothing.
    pub const fn unchanged(answer: T) -> Self {
        Self { records: Vec::new(), answer }
    }
}

/// Why a request is refused, with the protocol's code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// The code of the answer.
    pub code: ErrorCode,
    /// The reason, for people.
    pub message: String,
}

impl AdminError {
    /// An error with its reason.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The answer that there is no such topic or partition.
    fn unknown_partition() -> Self {
        Self::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.")
    }
}
