//! DeleteGroups.

use std::sync::Arc;

use towpath_wire::delete_groups::DeletableGroupResult;
use towpath_wire::{DeleteGroupsRequest, DeleteGroupsResponse, ErrorCode};

use super::{RequestContext, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    match groups(&broker) {
        Some(groups) => groups.delete_groups(&request).await,
        None => {
            let error_code = ErrorCode::CoordinatorNotAvailable.code();
            let failed = |group_id: String| DeletableGroupResult { group_id, error_code };
            DeleteGroupsResponse {
                results: request.groups_names.into_iter().map(failed).collect(),
                ..DeleteGroupsResponse::default()
            }
        }
    }
}
