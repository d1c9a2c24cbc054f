//! EndTxn: commits or aborts a transaction.

use std::sync::Arc;

use towpath_wire::{EndTxnRequest, EndTxnResponse, ErrorCode};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: EndTxnRequest,
) -> EndTxnResponse {
    match broker.transactions.get() {
        Some(transactions) => transactions.end_txn(request, cx.version).await,
        None => EndTxnResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..EndTxnResponse::default()
        },
    }
}
