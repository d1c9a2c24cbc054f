//! JoinGroup: becoming, or staying, a member of a group.

use std::sync::Arc;

use towpath_coordinator::ClientContext;
use towpath_wire::{ErrorCode, JoinGroupRequest, JoinGroupResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let client =
        ClientContext { client_id: cx.client_id.clone().unwrap_or_default(), host: cx.client_host() };
    match groups(&broker) {
        Some(groups) => groups.join_group(&client, request, cx.version).await,
        None => JoinGroupResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            protocol_name: Some(String::new()),
            member_id: request.member_id,
            ..JoinGroupResponse::default()
        },
    }
}
