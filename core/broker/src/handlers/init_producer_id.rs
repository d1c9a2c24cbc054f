//! InitProducerId: an identity for an idempotent producer.

use std::sync::Arc;

use towpath_wire::{ErrorCode, InitProducerIdRequest, InitProducerIdResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let failed = |code: ErrorCode| InitProducerIdResponse {
        error_code: code.code(),
        producer_epoch: -1,
        ..InitProducerIdResponse::default()
    };
    match &request.transactional_id {
        Some(id) if id.is_empty() => return failed(ErrorCode::InvalidRequest),
        // Transactions are not there: none of their APIs is advertised, and this says the same for good.
        Some(_) => return failed(ErrorCode::UnsupportedVersion),
        None => {}
    }
    if (request.producer_id < 0) != (request.producer_epoch < 0) {
        return failed(ErrorCode::InvalidRequest);
    }
    // As in Kafka, a producer without transactions gets a new id at epoch 0, also when it brings an old one (KIP-360).
    match broker.producer_ids.next(&broker).await {
        Ok(id) => InitProducerIdResponse {
            producer_id: id.get(),
            producer_epoch: 0,
            ..InitProducerIdResponse::default()
        },
        Err(code) => failed(code),
    }
}
