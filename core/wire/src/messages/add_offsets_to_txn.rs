//! AddOffsetsToTxn (API key 25).

use towpath_wire_derive::Message;

/// The request of AddOffsetsToTxn, versions 0-4.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AddOffsetsToTxn, response = AddOffsetsToTxnResponse, versions = "0-4", flexible = "3+")]
pub struct AddOffsetsToTxnRequest {
    /// The transactional id.
    pub transactional_id: String,
    /// The producer.
    pub producer_id: i64,
    /// The epoch of the producer.
    pub producer_epoch: i16,
    /// The group.
    pub group_id: String,
}

/// The answer to [`AddOffsetsToTxnRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0-4", flexible = "3+")]
pub struct AddOffsetsToTxnResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
}
