//! Whether a group has somebody to whom a partition is given. Without, nothing is stored of it: a state that the group does
//! not know of would be there for ever.

use std::sync::Arc;

use towpath_coordinator::share::ShareKey;
use towpath_wire::{ErrorCode, ShareGroupDescribeRequest};

use super::persister;
use crate::state::{BrokerState, OFFSETS_TOPIC};

/// Asks the group's coordinator.
///
/// # Errors
/// `GROUP_ID_NOT_FOUND` when there is no such group, or nobody in it to whom the partition is given; that the coordinator
/// cannot be asked.
pub(super) async fn have(broker: &Arc<BrokerState>, key: &ShareKey) -> Result<(), ErrorCode> {
    let not_available = ErrorCode::CoordinatorNotAvailable;
    let groups = broker.groups.get().ok_or(not_available)?;
    let partition = groups.partition_of(&key.group).ok_or(not_available)?;
    let image = broker.image();
    let leader = image
        .topic(OFFSETS_TOPIC)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?)?.leader)
        .ok_or(not_available)?;
    let request = ShareGroupDescribeRequest {
        group_ids: vec![(*key.group).to_owned()],
        ..ShareGroupDescribeRequest::default()
    };
    let response = if leader == broker.config.node_id {
        groups.share_group_describe(&request)
    } else {
        persister::ask(broker, leader, &request).await?
    };
    let group = response.groups.into_iter().next().ok_or(ErrorCode::UnknownServerError)?;
    match ErrorCode::from_code(group.error_code) {
        ErrorCode::None => {}
        error => return Err(error),
    }
    let mut given = group.members.iter().flat_map(|member| &member.assignment.topic_partitions);
    let is_given =
        given.any(|topic| topic.topic_id == key.topic.get() && topic.partitions.contains(&key.partition));
    if is_given { Ok(()) } else { Err(ErrorCode::GroupIdNotFound) }
}
