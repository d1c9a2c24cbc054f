//! ShareAcknowledge (API key 79).

use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ShareAcknowledge, versions 1-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ShareAcknowledge, response = ShareAcknowledgeResponse, versions = "1-2", flexible = "0+")]
pub struct ShareAcknowledgeRequest {
    /// The group.
    #[wire(nullable = "0+", default = "null")]
    pub group_id: Option<String>,
    /// The id that the member chose for itself.
    #[wire(nullable = "0+")]
    pub member_id: Option<String>,
    /// The current share session epoch: 0 to open a share session; -1 to close it; otherwise increments for
    /// consecutive requests.
    pub share_session_epoch: i32,
    /// Whether Renew type acknowledgements present in AcknowledgementBatches.
    #[wire(versions = "2+")]
    pub is_renew_ack: bool,
    /// One entry for each topic.
    pub topics: Vec<AcknowledgeTopic>,
}

/// A part of [`ShareAcknowledgeRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AcknowledgeTopic {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<AcknowledgePartition>,
}

/// A part of [`AcknowledgeTopic`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AcknowledgePartition {
    /// The partition.
    pub partition_index: i32,
    /// Record batches to acknowledge.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
}

/// A part of [`AcknowledgePartition`]: one entry of `acknowledgement_batches`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AcknowledgementBatch {
    /// First offset of batch of records to acknowledge.
    pub first_offset: i64,
    /// Last offset (inclusive) of batch of records to acknowledge.
    pub last_offset: i64,
    /// Array of acknowledge types - 0:Gap,1:Accept,2:Release,3:Reject,4:Renew.
    pub acknowledge_types: Vec<i8>,
}

/// The answer to [`ShareAcknowledgeRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-2", flexible = "0+")]
pub struct ShareAcknowledgeResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The time in milliseconds for which the acquired records are locked.
    #[wire(versions = "2+", ignorable)]
    pub acquisition_lock_timeout_ms: i32,
    /// One entry for each topic.
    pub responses: Vec<ShareAcknowledgeTopicResponse>,
    /// Endpoints for all current leaders enumerated in PartitionData with error NOT_LEADER_OR_FOLLOWER.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A part of [`ShareAcknowledgeResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ShareAcknowledgeTopicResponse {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`ShareAcknowledgeResponse`]: one entry of `node_endpoints`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct NodeEndpoint {
    /// The id of the associated node.
    pub node_id: i32,
    /// The node's hostname.
    pub host: String,
    /// The node's port.
    pub port: i32,
    /// The rack of the node, or null if it has not been assigned to a rack.
    #[wire(nullable = "0+", default = "null")]
    pub rack: Option<String>,
}

/// A part of [`ShareAcknowledgeTopicResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The current leader of the partition.
    pub current_leader: LeaderIdAndEpoch,
}

/// A part of [`PartitionData`]: its `current_leader`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The id of the current leader or -1 if the leader is unknown.
    pub leader_id: i32,
    /// The latest known leader epoch.
    pub leader_epoch: i32,
}
