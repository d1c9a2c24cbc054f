//! ShareFetch (API key 78).

use bytes::Bytes;
use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of ShareFetch, versions 1-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ShareFetch, response = ShareFetchResponse, versions = "1-2", flexible = "0+")]
pub struct ShareFetchRequest {
    /// The group.
    #[wire(nullable = "0+", default = "null")]
    pub group_id: Option<String>,
    /// The id that the member chose for itself.
    #[wire(nullable = "0+")]
    pub member_id: Option<String>,
    /// The current share session epoch: 0 to open a share session; -1 to close it; otherwise increments for
    /// consecutive requests.
    pub share_session_epoch: i32,
    /// The maximum time in milliseconds to wait for the response.
    pub max_wait_ms: i32,
    /// The minimum bytes to accumulate in the response.
    pub min_bytes: i32,
    /// The maximum bytes to fetch. See KIP-74 for cases where this limit may not be honored.
    #[wire(default = "2147483647")]
    pub max_bytes: i32,
    /// The maximum number of records to fetch. This limit can be exceeded for alignment of batch boundaries.
    pub max_records: i32,
    /// The optimal number of records for batches of acquired records and acknowledgements.
    pub batch_size: i32,
    /// The acquire mode to control the fetch behavior - 0:batch-optimized,1:record-limit.
    #[wire(versions = "2+", ignorable)]
    pub share_acquire_mode: i8,
    /// Whether Renew type acknowledgements present in AcknowledgementBatches.
    #[wire(versions = "2+")]
    pub is_renew_ack: bool,
    /// One entry for each topic.
    pub topics: Vec<FetchTopic>,
    /// The partitions to remove from this share session.
    pub forgotten_topics_data: Vec<ForgottenTopic>,
}

/// A part of [`ShareFetchRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FetchTopic {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<FetchPartition>,
}

/// A part of [`ShareFetchRequest`]: one entry of `forgotten_topics_data`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ForgottenTopic {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<i32>,
}

/// A part of [`FetchTopic`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FetchPartition {
    /// The partition.
    pub partition_index: i32,
    /// Record batches to acknowledge.
    pub acknowledgement_batches: Vec<AcknowledgementBatch>,
}

/// A part of [`FetchPartition`]: one entry of `acknowledgement_batches`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AcknowledgementBatch {
    /// First offset of batch of records to acknowledge.
    pub first_offset: i64,
    /// Last offset (inclusive) of batch of records to acknowledge.
    pub last_offset: i64,
    /// Array of acknowledge types - 0:Gap,1:Accept,2:Release,3:Reject,4:Renew.
    pub acknowledge_types: Vec<i8>,
}

/// The answer to [`ShareFetchRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "1-2", flexible = "0+")]
pub struct ShareFetchResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The time in milliseconds for which the acquired records are locked.
    pub acquisition_lock_timeout_ms: i32,
    /// One entry for each topic.
    pub responses: Vec<ShareFetchableTopicResponse>,
    /// Endpoints for all current leaders enumerated in PartitionData with error NOT_LEADER_OR_FOLLOWER.
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A part of [`ShareFetchResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ShareFetchableTopicResponse {
    /// The id of the topic.
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`ShareFetchResponse`]: one entry of `node_endpoints`.
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

/// A part of [`ShareFetchableTopicResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The acknowledge error code; 0 for none.
    pub acknowledge_error_code: i16,
    /// The acknowledge error message; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub acknowledge_error_message: Option<String>,
    /// The current leader of the partition.
    pub current_leader: LeaderIdAndEpoch,
    /// The record data.
    #[wire(records)]
    pub records: Bytes,
    /// The acquired records.
    pub acquired_records: Vec<AcquiredRecords>,
}

/// A part of [`PartitionData`]: its `current_leader`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The id of the current leader or -1 if the leader is unknown.
    pub leader_id: i32,
    /// The latest known leader epoch.
    pub leader_epoch: i32,
}

/// A part of [`PartitionData`]: one entry of `acquired_records`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AcquiredRecords {
    /// The earliest offset in this batch of acquired records.
    pub first_offset: i64,
    /// The last offset of this batch of acquired records.
    pub last_offset: i64,
    /// The delivery count of this batch of acquired records.
    pub delivery_count: i16,
}
