//! DeleteGroups.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_coordinator::GroupCoordinator;
use towpath_wire::delete_groups::DeletableGroupResult;
use towpath_wire::{DeleteGroupsRequest, DeleteGroupsResponse, ErrorCode};

use super::{RequestContext, delete_share_group_offsets, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    mut request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let Some(groups) = groups(&broker) else {
        let error_code = ErrorCode::CoordinatorNotAvailable.code();
        let failed = |group_id: String| DeletableGroupResult { group_id, error_code };
        return DeleteGroupsResponse {
            results: request.groups_names.into_iter().map(failed).collect(),
            ..DeleteGroupsResponse::default()
        };
    };
    let names = request.groups_names.clone();
    // Before a share group goes, how far it was: it would be there for another one of its name.
    let mut failed: HashMap<String, ErrorCode> = HashMap::new();
    for name in &names {
        if let Err(error) = forget_shares(&broker, groups, name).await {
            failed.insert(name.clone(), error);
        }
    }
    request.groups_names.retain(|name| !failed.contains_key(name));
    let mut response = groups.delete_groups(&request).await;
    response.results.extend(
        failed.into_iter().map(|(group_id, error)| DeletableGroupResult { group_id, error_code: error.code() }),
    );
    response.results.sort_by_key(|result| names.iter().position(|name| *name == result.group_id));
    response
}

async fn forget_shares(
    broker: &Arc<BrokerState>,
    groups: &GroupCoordinator,
    name: &str,
) -> Result<(), ErrorCode> {
    // Of other groups there is nothing; and who still has members is told so by the coordinator.
    let Ok(state) = groups.share_state(name) else { return Ok(()) };
    if state.has_members {
        return Ok(());
    }
    let group: Arc<str> = Arc::from(name);
    for topic in &state.topics {
        delete_share_group_offsets::forget(broker, &group, topic).await?;
    }
    Ok(())
}
