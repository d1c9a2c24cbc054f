//! AddOffsetsToTxn: a group's offsets become part of a transaction.

use std::sync::Arc;

use towpath_wire::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, ErrorCode};

use super::{RequestContext, groups};
use crate::state::{BrokerState, OFFSETS_TOPIC};

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
    // By the metadata that its end will go by: only what they have can be told from what was deleted.
    let image = broker.image();
    let is_known = |index: &i32| {
        let topic = image.topic(OFFSETS_TOPIC);
        topic.is_some_and(|topic| usize::try_from(*index).is_ok_and(|at| at < topic.partitions.len()))
    };
    let partition = groups.partition_of(&request.group_id).filter(is_known);
    transactions.add_offsets(request, cx.version, partition).await
}
