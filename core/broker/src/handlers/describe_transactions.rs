//! DescribeTransactions (KIP-664): what the coordinator knows of transactional ids.

use std::sync::Arc;

use towpath_wire::describe_transactions::TransactionState;
use towpath_wire::{DescribeTransactionsRequest, DescribeTransactionsResponse, ErrorCode};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    if let Some(transactions) = broker.transactions.get() {
        return transactions.describe(&request);
    }
    let failed = |transactional_id: String| TransactionState {
        error_code: ErrorCode::CoordinatorNotAvailable.code(),
        transactional_id,
        ..TransactionState::default()
    };
    DescribeTransactionsResponse {
        transaction_states: request.transactional_ids.into_iter().map(failed).collect(),
        ..DescribeTransactionsResponse::default()
    }
}
