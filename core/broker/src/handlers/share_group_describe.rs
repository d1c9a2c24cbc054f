//! ShareGroupDescribe (KIP-932).

use std::collections::HashSet;
use std::sync::Arc;

use towpath_wire::share_group_describe::DescribedGroup;
use towpath_wire::{ErrorCode, ShareGroupDescribeRequest, ShareGroupDescribeResponse};

use super::{RequestContext, authorized, groups, shares_records};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    mut request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    // R10: once each.
    let mut seen = HashSet::new();
    request.group_ids.retain(|group| seen.insert(group.clone()));
    let mut response = match groups(&broker) {
        _ if !shares_records(&broker) => failed(&request.group_ids, ErrorCode::UnsupportedVersion),
        None => failed(&request.group_ids, ErrorCode::CoordinatorNotAvailable),
        Some(groups) => groups.share_group_describe(&request),
    };
    if request.include_authorized_operations {
        for group in response.groups.iter_mut().filter(|group| group.error_code == ErrorCode::None.code()) {
            group.authorized_operations = authorized::GROUP;
        }
    }
    response
}

fn failed(groups: &[String], code: ErrorCode) -> ShareGroupDescribeResponse {
    let failed = |id: &String| DescribedGroup {
        error_code: code.code(),
        group_id: id.clone(),
        ..DescribedGroup::default()
    };
    ShareGroupDescribeResponse {
        groups: groups.iter().map(failed).collect(),
        ..ShareGroupDescribeResponse::default()
    }
}
