//! WriteShareGroupState (KIP-932): what has changed in the states of share partitions.

use std::sync::Arc;

use towpath_wire::{WriteShareGroupStateRequest, WriteShareGroupStateResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: WriteShareGroupStateRequest,
) -> WriteShareGroupStateResponse {
    match broker.share_states.get() {
        Some(shares) => shares.serve_write(request).await,
        // For a moment while the broker starts.
        None => WriteShareGroupStateResponse::default(),
    }
}
