//! SyncGroup: the leader's assignment, and everybody's share of it.

use std::sync::Arc;

use towpath_wire::{ErrorCode, SyncGroupRequest, SyncGroupResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    // Members say from version 5 on what they believe to have agreed upon (KIP-559).
    if cx.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse {
            error_code: ErrorCode::InconsistentGroupProtocol.code(),
            ..SyncGroupResponse::default()
        };
    }
    match groups(&broker) {
        Some(groups) => groups.sync_group(request).await,
        None => SyncGroupResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..SyncGroupResponse::default()
        },
    }
}
