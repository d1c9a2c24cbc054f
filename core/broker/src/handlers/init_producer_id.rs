//! InitProducerId: an identity for an idempotent producer, or the next one of a transactional id.

use std::sync::Arc;

use towpath_wire::{ErrorCode, InitProducerIdRequest, InitProducerIdResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    match broker.transactions.get() {
        Some(transactions) => transactions.init_producer_id(request, cx.version).await,
        None => InitProducerIdResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            producer_epoch: -1,
            ..InitProducerIdResponse::default()
        },
    }
}
