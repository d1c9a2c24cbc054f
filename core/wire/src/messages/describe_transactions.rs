//! DescribeTransactions (API key 65).

use towpath_wire_derive::Message;

/// The request of DescribeTransactions, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = DescribeTransactions, response = DescribeTransactionsResponse, versions = "0", flexible = "0+")]
pub struct DescribeTransactionsRequest {
    /// Array of transactionalIds to include in describe results.
    pub transactional_ids: Vec<String>,
}

/// The answer to [`DescribeTransactionsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct DescribeTransactionsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The current state of the transaction.
    pub transaction_states: Vec<TransactionState>,
}

/// A part of [`DescribeTransactionsResponse`]: one entry of `transaction_states`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TransactionState {
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The transactional id.
    pub transactional_id: String,
    /// The current transaction state of the producer.
    pub transaction_state: String,
    /// The timeout (milliseconds) for the transaction.
    pub transaction_timeout_ms: i32,
    /// The start time of the transaction (milliseconds).
    pub transaction_start_time_ms: i64,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// One entry for each topic.
    pub topics: Vec<TopicData>,
}

/// A part of [`DescribeTransactionsResponse`]: one entry of `topics`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TopicData {
    /// The name of the topic.
    pub topic: String,
    /// The partition ids included in the current transaction.
    pub partitions: Vec<i32>,
}
