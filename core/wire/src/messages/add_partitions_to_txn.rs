//! AddPartitionsToTxn (API key 24).

use towpath_wire_derive::Message;

/// The request of AddPartitionsToTxn, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AddPartitionsToTxn, response = AddPartitionsToTxnResponse, versions = "0-5", flexible = "3+")]
pub struct AddPartitionsToTxnRequest {
    /// List of transactions to add partitions to.
    #[wire(versions = "4+")]
    pub transactions: Vec<AddPartitionsToTxnTransaction>,
    /// The transactional id corresponding to the transaction.
    #[wire(versions = "0-3")]
    pub v3_and_below_transactional_id: String,
    /// Current producer id in use by the transactional id.
    #[wire(versions = "0-3")]
    pub v3_and_below_producer_id: i64,
    /// Current epoch associated with the producer id.
    #[wire(versions = "0-3")]
    pub v3_and_below_producer_epoch: i16,
    /// The partitions to add to the transaction.
    #[wire(versions = "0-3")]
    pub v3_and_below_topics: Vec<AddPartitionsToTxnTopic>,
}

/// A part of [`AddPartitionsToTxnRequest`]: one entry of `transactions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AddPartitionsToTxnTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// Boolean to signify if we want to check if the partition is in the transaction rather than add it.
    pub verify_only: bool,
    /// The partitions to add to the transaction.
    pub topics: Vec<AddPartitionsToTxnTopic>,
}

/// A part of [`AddPartitionsToTxnRequest`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AddPartitionsToTxnTopic {
    /// The name of the topic.
    pub name: String,
    /// The partition indexes to add to the transaction.
    pub partitions: Vec<i32>,
}

/// The answer to [`AddPartitionsToTxnRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "3+")]
pub struct AddPartitionsToTxnResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    #[wire(versions = "4+", ignorable)]
    pub error_code: i16,
    /// Results categorized by transactional id.
    #[wire(versions = "4+")]
    pub results_by_transaction: Vec<AddPartitionsToTxnResult>,
    /// The results for each topic.
    #[wire(versions = "0-3")]
    pub results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult>,
}

/// A part of [`AddPartitionsToTxnResponse`]: one entry of `results_by_transaction`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AddPartitionsToTxnResult {
    /// The transactional id.
    pub transactional_id: String,
    /// The results for each topic.
    pub topic_results: Vec<AddPartitionsToTxnTopicResult>,
}

/// A part of [`AddPartitionsToTxnResponse`]: one entry of `topic_results`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AddPartitionsToTxnTopicResult {
    /// The topic name.
    pub name: String,
    /// The results for each partition.
    pub results_by_partition: Vec<AddPartitionsToTxnPartitionResult>,
}

/// A part of [`AddPartitionsToTxnResponse`]: one entry of `results_by_partition`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct AddPartitionsToTxnPartitionResult {
    /// The partition.
    pub partition_index: i32,
    /// The response error code.
    pub partition_error_code: i16,
}
