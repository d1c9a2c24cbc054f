//! Fetch (API key 1).

use bytes::Bytes;
use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of Fetch, versions 4-18.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Fetch, response = FetchResponse, versions = "4-18", flexible = "12+")]
pub struct FetchRequest {
    /// The clusterId if known.
    #[wire(versions = "12+", nullable = "12+", tag = 0, tagged = "12+", ignorable, default = "null")]
    pub cluster_id: Option<String>,
    /// The broker that asks as a replica; -1 for a consumer.
    #[wire(versions = "0-14", default = "-1")]
    pub replica_id: i32,
    /// The state of the replica in the follower.
    #[wire(versions = "15+", tag = 1, tagged = "15+")]
    pub replica_state: ReplicaState,
    /// The maximum time (milliseconds) to wait for the response.
    pub max_wait_ms: i32,
    /// The minimum bytes to accumulate in the response.
    pub min_bytes: i32,
    /// The maximum bytes to fetch.
    #[wire(ignorable, default = "0x7fffffff")]
    pub max_bytes: i32,
    /// The visibility of transactional records.
    #[wire(ignorable)]
    pub isolation_level: i8,
    /// The fetch session id.
    #[wire(versions = "7+", ignorable)]
    pub session_id: i32,
    /// The fetch session epoch, that is used for ordering requests in a session.
    #[wire(versions = "7+", ignorable, default = "-1")]
    pub session_epoch: i32,
    /// One entry for each topic.
    pub topics: Vec<FetchTopic>,
    /// In an incremental fetch request, the partitions to remove.
    #[wire(versions = "7+")]
    pub forgotten_topics_data: Vec<ForgottenTopic>,
    /// The rack.
    #[wire(versions = "11+", ignorable)]
    pub rack_id: String,
}

/// A part of [`FetchRequest`]: its `replica_state`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ReplicaState {
    /// The broker that asks as a replica; -1 for a consumer.
    #[wire(default = "-1")]
    pub replica_id: i32,
    /// The epoch of this follower; -1 if not available.
    #[wire(default = "-1")]
    pub replica_epoch: i64,
}

/// A part of [`FetchRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FetchTopic {
    /// The name of the topic.
    #[wire(versions = "0-12", ignorable)]
    pub topic: String,
    /// The id of the topic.
    #[wire(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<FetchPartition>,
}

/// A part of [`FetchRequest`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FetchPartition {
    /// The partition.
    pub partition: i32,
    /// The current leader epoch of the partition.
    #[wire(versions = "9+", ignorable, default = "-1")]
    pub current_leader_epoch: i32,
    /// The message offset.
    pub fetch_offset: i64,
    /// The epoch of the last fetched record; -1 if there is none.
    #[wire(versions = "12+", default = "-1")]
    pub last_fetched_epoch: i32,
    /// The earliest available offset of the follower replica.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub log_start_offset: i64,
    /// The maximum bytes to fetch from this partition.
    pub partition_max_bytes: i32,
    /// The directory id of the follower fetching.
    #[wire(versions = "17+", tag = 0, tagged = "17+", ignorable)]
    pub replica_directory_id: Uuid,
    /// The high-watermark known by the replica.
    #[wire(versions = "18+", tag = 1, tagged = "18+", ignorable, default = "9223372036854775807")]
    pub high_watermark: i64,
}

/// A part of [`FetchRequest`]: one entry of `forgotten_topics_data`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ForgottenTopic {
    /// The name of the topic.
    #[wire(versions = "7-12", ignorable)]
    pub topic: String,
    /// The id of the topic.
    #[wire(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// The partitions indexes to forget.
    pub partitions: Vec<i32>,
}

/// The answer to [`FetchRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "4-18", flexible = "12+")]
pub struct FetchResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    #[wire(versions = "7+", ignorable)]
    pub error_code: i16,
    /// The fetch session id, or 0 if this is not part of a fetch session.
    #[wire(versions = "7+")]
    pub session_id: i32,
    /// The response topics.
    pub responses: Vec<FetchableTopicResponse>,
    /// Where the leaders that are named above can be reached.
    #[wire(versions = "16+", tag = 0, tagged = "16+")]
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A part of [`FetchResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct FetchableTopicResponse {
    /// The name of the topic.
    #[wire(versions = "0-12", ignorable)]
    pub topic: String,
    /// The id of the topic.
    #[wire(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// One entry for each partition.
    pub partitions: Vec<PartitionData>,
}

/// A part of [`FetchResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionData {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The current high water mark.
    pub high_watermark: i64,
    /// The last stable offset (or LSO) of the partition.
    #[wire(ignorable, default = "-1")]
    pub last_stable_offset: i64,
    /// The current log start offset.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub log_start_offset: i64,
    /// In case divergence is detected based on the `LastFetchedEpoch` and `FetchOffset` in the request, this
    /// field indicates the largest epoch and its end offset such that subsequent records are known to
    /// diverge.
    #[wire(versions = "12+", tag = 0, tagged = "12+")]
    pub diverging_epoch: EpochEndOffset,
    /// The leader that the client should turn to.
    #[wire(versions = "12+", tag = 1, tagged = "12+")]
    pub current_leader: LeaderIdAndEpoch,
    /// In the case of fetching an offset less than the LogStartOffset, this is the end offset and epoch that
    /// should be used in the FetchSnapshot request.
    #[wire(versions = "12+", tag = 2, tagged = "12+")]
    pub snapshot_id: SnapshotId,
    /// The aborted transactions.
    #[wire(nullable = "4+", ignorable)]
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The preferred read replica for the consumer to use on its next fetch request.
    #[wire(versions = "11+", default = "-1")]
    pub preferred_read_replica: i32,
    /// The record data.
    #[wire(nullable = "0+", records)]
    pub records: Option<Bytes>,
}

/// A part of [`FetchResponse`]: its `diverging_epoch`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct EpochEndOffset {
    /// The largest epoch.
    #[wire(default = "-1")]
    pub epoch: i32,
    /// The end offset of the epoch.
    #[wire(default = "-1")]
    pub end_offset: i64,
}

/// A part of [`FetchResponse`]: its `current_leader`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The broker that leads the partition; -1 for none.
    #[wire(default = "-1")]
    pub leader_id: i32,
    /// The epoch of the leader; -1 if unknown.
    #[wire(default = "-1")]
    pub leader_epoch: i32,
}

/// A part of [`FetchResponse`]: its `snapshot_id`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct SnapshotId {
    /// The end offset of the epoch.
    #[wire(default = "-1")]
    pub end_offset: i64,
    /// The largest epoch.
    #[wire(default = "-1")]
    pub epoch: i32,
}

/// A part of [`FetchResponse`]: one entry of `aborted_transactions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: i64,
    /// The first offset in the aborted transaction.
    pub first_offset: i64,
}

/// A part of [`FetchResponse`]: one entry of `node_endpoints`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: i32,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: i32,
    /// The rack of the broker; null for none.
    #[wire(nullable = "16+", default = "null")]
    pub rack: Option<String>,
}
