//! SyncGroup: the leader's assignment, and everybody's share of it.

use std::sync::Arc;

use towpath_wire::{ErrorCode, SyncGroupRequest, SyncGroupResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    match groups(&broker) {
        Some(groups) => groups.sync_group(request).await,
        None => SyncGroupResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..SyncGroupResponse::default()
        },
    }
}
