//! LeaveGroup: members that go, or are sent away.

use std::sync::Arc;

use towpath_wire::{ErrorCode, LeaveGroupRequest, LeaveGroupResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    match groups(&broker) {
        Some(groups) => groups.leave_group(request, cx.version),
        None => LeaveGroupResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..LeaveGroupResponse::default()
        },
    }
}
