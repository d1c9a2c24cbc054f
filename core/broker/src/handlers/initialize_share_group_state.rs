//! InitializeShareGroupState (KIP-932): begins the states of share partitions.

use std::sync::Arc;

use towpath_wire::{InitializeShareGroupStateRequest, InitializeShareGroupStateResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: InitializeShareGroupStateRequest,
) -> InitializeShareGroupStateResponse {
    match broker.share_states.get() {
        Some(shares) => shares.serve_initialize(request).await,
        // For a moment while the broker starts.
        None => InitializeShareGroupStateResponse::default(),
    }
}
