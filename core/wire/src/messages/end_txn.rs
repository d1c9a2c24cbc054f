//! EndTxn (API key 26).

use towpath_wire_derive::Message;

/// The request of EndTxn, versions 0-5.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = EndTxn, response = EndTxnResponse, versions = "0-5", flexible = "3+")]
pub struct EndTxnRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// True if the transaction was committed, false if it was aborted.
    pub committed: bool,
}

/// The answer to [`EndTxnRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-5", flexible = "3+")]
pub struct EndTxnResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The producer.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub producer_id: i64,
    /// The epoch of the producer.
    #[wire(versions = "5+", ignorable, default = "-1")]
    pub producer_epoch: i16,
}
