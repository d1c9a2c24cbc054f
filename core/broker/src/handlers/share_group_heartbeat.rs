//! ShareGroupHeartbeat (KIP-932): joining, staying in and leaving a share group.

use std::sync::Arc;

use towpath_coordinator::ClientContext;
use towpath_wire::{ErrorCode, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::{RequestContext, groups, shares_records};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let failed = |code: ErrorCode| ShareGroupHeartbeatResponse {
        error_code: code.code(),
        ..ShareGroupHeartbeatResponse::default()
    };
    if !shares_records(&broker) {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let client =
        ClientContext { client_id: cx.client_id.clone().unwrap_or_default(), host: cx.client_host() };
    match groups(&broker) {
        Some(groups) => groups.share_group_heartbeat(&client, request).await,
        None => failed(ErrorCode::CoordinatorNotAvailable),
    }
}
