//! ConsumerGroupHeartbeat (KIP-848): joining, staying in and leaving a consumer group.

use std::sync::Arc;

use towpath_coordinator::ClientContext;
use towpath_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ErrorCode};

use super::api_versions::is_enabled;
use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let failed = |code: ErrorCode| ConsumerGroupHeartbeatResponse {
        error_code: code.code(),
        ..ConsumerGroupHeartbeatResponse::default()
    };
    if !is_enabled(&broker.image(), "group.version") {
        return failed(ErrorCode::UnsupportedVersion);
    }
    let client =
        ClientContext { client_id: cx.client_id.clone().unwrap_or_default(), host: cx.client_host() };
    match groups(&broker) {
        Some(groups) => groups.consumer_group_heartbeat(&client, request, cx.version).await,
        None => failed(ErrorCode::CoordinatorNotAvailable),
    }
}
