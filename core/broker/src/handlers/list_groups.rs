//! ListGroups.

use std::sync::Arc;

use towpath_wire::{ErrorCode, ListGroupsRequest, ListGroupsResponse};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    match groups(&broker) {
        Some(groups) => groups.list_groups(&request),
        None => ListGroupsResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..ListGroupsResponse::default()
        },
    }
}
