//! The keys and values of the records in `__transaction_state` (behind an `i16` version, which is the kind in a key).

use towpath_wire_derive::Message;

/// The key of a transaction's state; its leading version is 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "none")]
pub struct TransactionLogKey {
    /// The transactional id.
    pub transactional_id: String,
}

/// The state of a transactional id.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-1", flexible = "1+")]
pub struct TransactionLogValue {
    /// Producer id in use by the transactional id.
    pub producer_id: i64,
    /// Producer id used by the last committed transaction.
    #[wire(versions = "1+", tag = 0, tagged = "1+", default = "-1")]
    pub previous_producer_id: i64,
    /// The producer id that the producer was told to use next.
    #[wire(versions = "1+", tag = 1, tagged = "1+", default = "-1")]
    pub next_producer_id: i64,
    /// Epoch associated with the producer id.
    pub producer_epoch: i16,
    /// Producer epoch associated with the next producer id (KIP-939).
    #[wire(versions = "1+", tag = 3, tagged = "1+", default = "-1")]
    pub next_producer_epoch: i16,
    /// Transaction timeout in milliseconds.
    pub transaction_timeout_ms: i32,
    /// The number of the state that the transaction is in.
    pub transaction_status: i8,
    /// The partitions involved in the transaction; null while there is none.
    #[wire(nullable = "0+")]
    pub transaction_partitions: Option<Vec<PartitionsSchema>>,
    /// Time (milliseconds since 1970 UTC) the transaction was last updated.
    pub transaction_last_update_timestamp_ms: i64,
    /// Time (milliseconds since 1970 UTC) the transaction was started.
    pub transaction_start_timestamp_ms: i64,
    /// The transaction version used by the client.
    #[wire(versions = "1+", tag = 2, tagged = "1+")]
    pub client_transaction_version: i16,
}

/// A part of [`TransactionLogValue`]: one entry of `transaction_partitions`.
#[derive(Debug, Clone, PartialEq, Message)]
pub struct PartitionsSchema {
    /// Topic involved in the transaction.
    pub topic: String,
    /// Partition ids involved in the transaction.
    pub partition_ids: Vec<i32>,
}
