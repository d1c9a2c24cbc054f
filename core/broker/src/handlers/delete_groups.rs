//! DeleteGroups.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_coordinator::GroupCoordinator;
use towpath_wire::delete_groups::DeletableGroupResult;
use towpath_wire::{DeleteGroupsRequest, DeleteGroupsResponse, ErrorCode};

use super::delete_share_group_offsets::Held;
use super::{RequestContext, groups};
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
    // Nobody joins between that and the group's end.
    let mut failed: HashMap<String, ErrorCode> = HashMap::new();
    let mut all_held = Vec::new();
    for name in &names {
        match forget_shares(&broker, groups, name).await {
            Ok(held) => all_held.extend(held),
            Err(error) => {
                failed.insert(name.clone(), error);
            }
        }
    }
    request.groups_names.retain(|name| !failed.contains_key(name));
    let mut response = groups.delete_groups(&request).await;
    drop(all_held);
    response.results.extend(
        failed
            .into_iter()
            .map(|(group_id, error)| DeletableGroupResult { group_id, error_code: error.code() }),
    );
    response.results.sort_by_key(|result| names.iter().position(|name| *name == result.group_id));
    response
}

async fn forget_shares<'a>(
    broker: &Arc<BrokerState>,
    groups: &'a GroupCoordinator,
    name: &'a str,
) -> Result<Option<Held<'a>>, ErrorCode> {
    // Of other groups there is nothing; and who still has members is told so by the coordinator.
    let Ok((held, state)) = Held::new(groups, name) else { return Ok(None) };
    for topic in &state.topics {
        held.forget(broker, topic).await?;
    }
    Ok(Some(held))
}
