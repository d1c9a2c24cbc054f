//! ConsumerGroupDescribe (KIP-848): consumer groups with what their members have and are to have.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_wire::consumer_group_describe::DescribedGroup;
use towpath_wire::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ErrorCode};

use super::api_versions::is_enabled;
use super::{RequestContext, authorized, groups};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    mut request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    // R10: once each.
    let mut seen = HashSet::new();
    request.group_ids.retain(|group| seen.insert(group.clone()));
    let mut response = match groups(&broker) {
        _ if !is_enabled(&broker.image(), "group.version") => failed(&request.group_ids, ErrorCode::UnsupportedVersion),
        None => failed(&request.group_ids, ErrorCode::CoordinatorNotAvailable),
        Some(groups) => groups.consumer_group_describe(&request),
    };
    if request.include_authorized_operations {
        for group in response.groups.iter_mut().filter(|group| group.error_code == ErrorCode::None.code()) {
            group.authorized_operations = authorized::GROUP;
        }
    }
    response
}

fn failed(groups: &[String], code: ErrorCode) -> ConsumerGroupDescribeResponse {
    let failed = |id: &String| DescribedGroup {
        error_code: code.code(),
        group_id: id.clone(),
        ..DescribedGroup::default()
    };
    ConsumerGroupDescribeResponse {
        groups: groups.iter().map(failed).collect(),
        ..ConsumerGroupDescribeResponse::default()
    }
}
