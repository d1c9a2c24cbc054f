//! AddOffsetsToTxn: a group's offsets become part of a transaction.

use std::sync::Arc;

use towpath_wire::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ErrorCode};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let (Some(transactions), Some(groups)) = (broker.transactions.get(), groups(&broker)) else {
        return AddOffsetsToTxnResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..AddOffsetsToTxnResponse::default()
        };
    };
    let partition = groups.partition_of(&request.group_id);
    transactions.add_offsets(request, cx.version, partition).await
}
