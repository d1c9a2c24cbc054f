//! ListTransactions (API key 66).

use towpath_wire_derive::Message;

/// The request of ListTransactions, versions 0-2.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = ListTransactions, response = ListTransactionsResponse, versions = "0-2", flexible = "0+")]
pub struct ListTransactionsRequest {
    /// The transaction states to filter by: if empty, all transactions are returned; if non-empty, then only
    /// transactions matching one of the filtered states will be returned.
    pub state_filters: Vec<String>,
    /// The producerIds to filter by: if empty, all transactions will be returned; if non-empty, only
    /// transactions which match one of the filtered producerIds will be returned.
    pub producer_id_filters: Vec<i64>,
    /// Duration (in millis) to filter by: if < 0, all transactions will be returned; otherwise, only
    /// transactions running longer than this duration will be returned.
    #[wire(versions = "1+", default = "-1")]
    pub duration_filter: i64,
    /// The transactional id regular expression pattern to filter by: if it is empty or null, all transactions
    /// are returned; Otherwise then only the transactions matching the given regular expression will be
    /// returned.
    #[wire(versions = "2+", nullable = "2+", default = "null")]
    pub transactional_id_pattern: Option<String>,
}

/// The answer to [`ListTransactionsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-2", flexible = "0+")]
pub struct ListTransactionsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// Set of state filters provided in the request which were unknown to the transaction coordinator.
    pub unknown_state_filters: Vec<String>,
    /// The current state of the transaction for the transactional id.
    pub transaction_states: Vec<TransactionState>,
}

/// A part of [`ListTransactionsResponse`]: one entry of `transaction_states`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct TransactionState {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// The current transaction state of the producer.
    pub transaction_state: String,
}
