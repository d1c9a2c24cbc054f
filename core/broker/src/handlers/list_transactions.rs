//! ListTransactions (KIP-664): the transactional ids that this broker coordinates.

use std::sync::Arc;

use towpath_wire::{ErrorCode, ListTransactionsRequest, ListTransactionsResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    match broker.transactions.get() {
        Some(transactions) => transactions.list(&request),
        None => ListTransactionsResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..ListTransactionsResponse::default()
        },
    }
}
