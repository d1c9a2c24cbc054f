//! ReadShareGroupStateSummary (KIP-932): how far share partitions are, without their records.

use std::sync::Arc;

use towpath_wire::{ReadShareGroupStateSummaryRequest, ReadShareGroupStateSummaryResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ReadShareGroupStateSummaryRequest,
) -> ReadShareGroupStateSummaryResponse {
    match broker.share_states.get() {
        Some(shares) => shares.serve_summary(&request),
        // For a moment while the broker starts.
        None => ReadShareGroupStateSummaryResponse::default(),
    }
}
