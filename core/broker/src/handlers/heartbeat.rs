//! Heartbeat: a member is alive, and hears of rebalances.

use std::sync::Arc;

use towpath_wire::{ErrorCode, HeartbeatRequest, HeartbeatResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    match groups(&broker) {
        Some(groups) => groups.heartbeat(&request),
        None => HeartbeatResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..HeartbeatResponse::default()
        },
    }
}
