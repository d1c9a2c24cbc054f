//! AllocateProducerIds (API key 67): a broker asks the active controller for a block of producer ids.

use towpath_wire_derive::Message;

/// The request of AllocateProducerIds, versions 0.
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(api = AllocateProducerIds, response = AllocateProducerIdsResponse, versions = "0", flexible = "0+")]
pub struct AllocateProducerIdsRequest {
    /// The broker that asks.
    pub broker_id: i32,
    /// The epoch of the broker that asks; -1 if unknown.
    #[wire(default = "-1")]
    pub broker_epoch: i64,
}

/// The answer to [`AllocateProducerIdsRequest`].
#[derive(Debug, Clone, PartialEq, Message)]
#[wire(versions = "0", flexible = "0+")]
pub struct AllocateProducerIdsResponse {
    /// Milliseconds for which the request was throttled because of a quota; 0 if it was not.
    pub throttle_time_ms: i32,
    /// The error code; 0 for none.
    pub error_code: i16,
    /// The first producer id of the block.
    pub producer_id_start: i64,
    /// The number of producer ids in the block.
    pub producer_id_len: i32,
}
