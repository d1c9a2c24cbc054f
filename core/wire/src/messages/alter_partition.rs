//! AlterPartition (API key 56): a leader asks the active controller to change an ISR.

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of AlterPartition, versions 2-3.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AlterPartition, response = AlterPartitionResponse, versions = "2-3", flexible = "0+")]
pub struct AlterPartitionRequest {
    /// The broker that asks.
    pub broker_id: i32,
    /// The epoch of the broker that asks; -1 if unknown.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
    /// One entry for each topic.
    pub topics: Vec<TopicData>,
}

/// A part of [`AlterPartitionRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicData {
    /// The id of the topic.
    #[wire(ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`AlterPartitionRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
    /// The epoch in which the broker leads the partition.
    pub leader_epoch: i32,
    /// The ISR that is wanted.
    #[wire(versions = "0-2")]
    pub new_isr: Vec<i32>,
    /// The ISR that is wanted, with the epochs that the leader knows of its members (KIP-903).
    #[wire(versions = "3+")]
    pub new_isr_with_epochs: Vec<BrokerState>,
    /// 1 while the partition recovers from an unclean election, else 0 (KIP-704).
    pub leader_recovery_state: i8,
    /// The epoch of the partition that is to be changed.
    pub partition_epoch: i32,
}

/// A part of [`AlterPartitionRequest`]: one entry of `new_isr_with_epochs`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct BrokerState {
    /// The broker.
    pub broker_id: i32,
    /// The epoch of the broker; -1 if it is not to be checked.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
}

/// The answer to [`AlterPartitionRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "2-3", flexible = "0+")]
pub struct AlterPartitionResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// One entry for each topic.
    pub topics: Vec<response::TopicData>,
}

/// The parts of [`AlterPartitionResponse`] whose names the request has, too.
pub mod response {
    use towpath_wire_derive::Message;
    use uuid::Uuid;

    /// A part of [`super::AlterPartitionResponse`]: one entry of `topics`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct TopicData {
        /// The id of the topic.
        #[wire(ignorable)]
        pub topic_id: Uuid,
        /// One entry for each partition.
        pub partitions: Vec<PartitionData>,
    }

    /// A part of [`super::AlterPartitionResponse`]: one entry of `partitions`.
    #[derive(Debug, Clone, PartialEq, Message)]
    pub struct PartitionData {
        /// The partition.
        pub partition_index: i32,
        /// The error code; 0 for none.
        pub error_code: i16,
        /// The broker that leads the partition; -1 for none.
        pub leader_id: i32,
        /// The epoch of the leader.
        pub leader_epoch: i32,
        /// The in-sync replicas.
        pub isr: Vec<i32>,
        /// 1 while the partition recovers from an unclean election, else 0 (KIP-704).
        #[wire(ignorable)]
        pub leader_recovery_state: i8,
        /// The epoch of the partition.
        pub partition_epoch: i32,
    }
}
