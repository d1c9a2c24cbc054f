//! DescribeProducers (API key 61).

use towpath_wire_derive::Message;

/// The request of DescribeProducers, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeProducers, response = DescribeProducersResponse, versions = "0", flexible = "0+")]
pub struct DescribeProducersRequest {
    /// One entry for each topic.
    pub topics: Vec<TopicRequest>,
}

/// A part of [`DescribeProducersRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicRequest {
    /// The topic name.
    pub name: String,
    /// The indexes of the partitions to list producers for.
    pub partition_indexes: Vec<i32>,
}

/// The answer to [`DescribeProducersRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DescribeProducersResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// One entry for each topic.
    pub topics: Vec<TopicResponse>,
}

/// A part of [`DescribeProducersResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicResponse {
    /// The topic name.
    pub name: String,
    /// One entry for each partition.
    pub partitions: Vec<PartitionResponse>,
}

/// A part of [`DescribeProducersResponse`]: one entry of `partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionResponse {
    /// The partition.
    pub partition_index: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// What went wrong, in words; null for none.
    #[wire(nullable = "0+", default = "null")]
    pub error_message: Option<String>,
    /// The active producers for the partition.
    pub active_producers: Vec<ProducerState>,
}

/// A part of [`DescribeProducersResponse`]: one entry of `active_producers`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i32,
    /// The last sequence number sent by the producer.
    #[wire(default = "-1")]
    pub last_sequence: i32,
    /// The last timestamp sent by the producer.
    #[wire(default = "-1")]
    pub last_timestamp: i64,
    /// The current epoch of the producer group.
    pub coordinator_epoch: i32,
    /// The current transaction start offset of the producer.
    #[wire(default = "-1")]
    pub current_txn_start_offset: i64,
}
