//! DeleteShareGroupState (KIP-932): the states of share partitions are forgotten.

use std::sync::Arc;

use towpath_wire::{DeleteShareGroupStateRequest, DeleteShareGroupStateResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DeleteShareGroupStateRequest,
) -> DeleteShareGroupStateResponse {
    match broker.share_states.get() {
        Some(shares) => shares.serve_delete(request).await,
        // For a moment while the broker starts.
        None => DeleteShareGroupStateResponse::default(),
    }
}
