//! InitProducerId (API key 22).

use towpath_wire_derive::Message;

/// The request of InitProducerId, versions 0-6.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = InitProducerId, response = InitProducerIdResponse, versions = "0-6", flexible = "2+")]
pub struct InitProducerIdRequest {
    /// The transactional id.
    #[wire(nullable = "0+")]
    pub transactional_id: Option<String>,
    /// The time (milliseconds) to wait before aborting idle transactions sent by this producer.
    pub transaction_timeout_ms: i32,
    /// The producer.
    #[wire(versions = "3+", default = "-1")]
    pub producer_id: i64,
    /// The epoch of the producer.
    #[wire(versions = "3+", default = "-1")]
    pub producer_epoch: i16,
    /// True if the client wants to enable two-phase commit (2PC) protocol for transactions.
    #[wire(versions = "6+")]
    pub enable2_pc: bool,
    /// True if the client wants to keep the currently ongoing transaction instead of aborting it.
    #[wire(versions = "6+")]
    pub keep_prepared_txn: bool,
}

/// The answer to [`InitProducerIdRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-6", flexible = "2+")]
pub struct InitProducerIdResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    #[wire(ignorable)]
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The producer.
    #[wire(default = "-1")]
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// The producer id for ongoing transaction when KeepPreparedTxn is used, -1 if there is no transaction
    /// ongoing.
    #[wire(versions = "6+", default = "-1")]
    pub ongoing_txn_producer_id: i64,
    /// The epoch associated with the producer id for ongoing transaction when KeepPreparedTxn is used, -1 if
    /// there is no transaction ongoing.
    #[wire(versions = "6+", default = "-1")]
    pub ongoing_txn_producer_epoch: i16,
}
