//! ReadShareGroupState (KIP-932): the states of share partitions, for those who lead them.

use std::sync::Arc;

use towpath_wire::{ReadShareGroupStateRequest, ReadShareGroupStateResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ReadShareGroupStateRequest,
) -> ReadShareGroupStateResponse {
    match broker.share_states.get() {
        Some(shares) => shares.serve_read(request).await,
        // For a moment while the broker starts.
        None => ReadShareGroupStateResponse::default(),
    }
}
