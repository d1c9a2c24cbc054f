//! DescribeGroups.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_wire::describe_groups::DescribedGroup;
use towpath_wire::{DescribeGroupsRequest, DescribeGroupsResponse, ErrorCode};

use super::{RequestContext, authorized, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    mut request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    // R10: once each; the answer to the same group a thousand times would be a thousand times as large.
    let mut seen = HashSet::new();
    request.groups.retain(|group| seen.insert(group.clone()));
    let Some(groups) = groups(&broker) else {
        let failed = |group_id: String| DescribedGroup {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            group_id,
            ..DescribedGroup::default()
        };
        return DescribeGroupsResponse {
            groups: request.groups.into_iter().map(failed).collect(),
            ..DescribeGroupsResponse::default()
        };
    };
    let mut response = groups.describe_groups(&request, cx.version);
    if request.include_authorized_operations {
        for group in response.groups.iter_mut().filter(|group| group.error_code == ErrorCode::None.code()) {
            group.authorized_operations = authorized::GROUP;
        }
    }
    response
}
