//! Produce (API key 0).

use bytes::Bytes;
use towpath_wire_derive::Message;
use uuid::Uuid;

/// The request of Produce, versions 3-13.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = Produce, response = ProduceResponse, versions = "3-13", flexible = "9+")]
pub struct ProduceRequest {
    /// The transactional id.
    #[wire(nullable = "3+", default = "null")]
    pub transactional_id: Option<String>,
    /// The number of acknowledgments the producer requires the leader to have received before considering a
    /// request complete.
    pub acks: i16,
    /// Milliseconds to wait for the result.
    pub timeout_ms: i32,
    /// Each topic to produce to.
    pub topic_data: Vec<TopicProduceData>,
}

/// A part of [`ProduceRequest`]: one entry of `topic_data`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicProduceData {
    /// The topic name.
    #[wire(versions = "0-12", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// Each partition to produce to.
    pub partition_data: Vec<PartitionProduceData>,
}

/// A part of [`ProduceRequest`]: one entry of `partition_data`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionProduceData {
    /// The partition index.
    pub index: i32,
    /// The record data to be produced.
    #[wire(nullable = "0+", records)]
    pub records: Option<Bytes>,
}

/// The answer to [`ProduceRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "3-13", flexible = "9+")]
pub struct ProduceResponse {
    /// Each produce response.
    pub responses: Vec<TopicProduceResponse>,
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// Where the leaders that are named above can be reached.
    #[wire(versions = "10+", tag = 0, tagged = "10+")]
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// A part of [`ProduceResponse`]: one entry of `responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicProduceResponse {
    /// The topic name.
    #[wire(versions = "0-12", ignorable)]
    pub name: String,
    /// The id of the topic.
    #[wire(versions = "13+", ignorable)]
    pub topic_id: Uuid,
    /// Each partition that we produced to within the topic.
    pub partition_responses: Vec<PartitionProduceResponse>,
}

/// A part of [`ProduceResponse`]: one entry of `partition_responses`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionProduceResponse {
    /// The partition index.
    pub index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The base offset.
    pub base_offset: i64,
    /// The timestamp returned by broker after appending the messages.
    #[wire(ignorable, default = "-1")]
    pub log_append_time_ms: i64,
    /// The log start offset.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub log_start_offset: i64,
    /// The batch indices of records that caused the batch to be dropped.
    #[wire(versions = "8+", ignorable)]
    pub record_errors: Vec<BatchIndexAndErrorMessage>,
    /// What went wrong, in words; null for none.
    #[wire(versions = "8+", nullable = "8+", ignorable, default = "null")]
    pub error_message: Option<String>,
    /// The leader that the client should turn to.
    #[wire(versions = "10+", tag = 0, tagged = "10+")]
    pub current_leader: LeaderIdAndEpoch,
}

/// A part of [`ProduceResponse`]: one entry of `record_errors`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct BatchIndexAndErrorMessage {
    /// The batch index of the record that caused the batch to be dropped.
    pub batch_index: i32,
    /// The error message of the record that caused the batch to be dropped.
    #[wire(nullable = "8+", default = "null")]
    pub batch_index_error_message: Option<String>,
}

/// A part of [`ProduceResponse`]: its `current_leader`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct LeaderIdAndEpoch {
    /// The broker that leads the partition; -1 for none.
    #[wire(default = "-1")]
    pub leader_id: i32,
    /// The epoch of the leader; -1 if unknown.
    #[wire(default = "-1")]
    pub leader_epoch: i32,
}

/// A part of [`ProduceResponse`]: one entry of `node_endpoints`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: i32,
    /// The host name.
    pub host: String,
    /// The port.
    pub port: i32,
    /// The rack of the broker; null for none.
    #[wire(nullable = "10+", default = "null")]
    pub rack: Option<String>,
}
