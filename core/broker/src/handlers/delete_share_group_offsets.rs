//! DeleteShareGroupOffsets (KIP-932): a group without members forgets how far it is in topics.

use std::sync::Arc;
use std::time::Duration;

use towpath_coordinator::ShareStateTopic;
use towpath_coordinator::share::ShareKey;
use towpath_types::TopicId;
use towpath_wire::delete_share_group_offsets::DeleteShareGroupOffsetsResponseTopic;
use towpath_wire::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse, ErrorCode};
use uuid::Uuid;

use super::{RequestContext, groups, shares_records};
use crate::share::persister;
use crate::state::BrokerState;

/// How long the coordinators of the states may take, over changes of them.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    delete(&broker, request).await.unwrap_or_else(|(error, message)| DeleteShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: Some(message),
        ..DeleteShareGroupOffsetsResponse::default()
    })
}

/// Forgets how far a group is in a topic.
///
/// # Errors
/// What a coordinator says.
pub(super) async fn forget(
    broker: &Arc<BrokerState>,
    group: &Arc<str>,
    topic: &ShareStateTopic,
) -> Result<(), ErrorCode> {
    for partition in &topic.partitions {
        let key = ShareKey { group: Arc::clone(group), topic: topic.id, partition: *partition };
        persister::patiently(PATIENCE, || !broker.is_stopping(), || persister::delete(broker, &key)).await?;
    }
    Ok(())
}

async fn delete(
    broker: &Arc<BrokerState>,
    request: DeleteShareGroupOffsetsRequest,
) -> Result<DeleteShareGroupOffsetsResponse, (ErrorCode, String)> {
    if !shares_records(broker) {
        return Err((ErrorCode::UnsupportedVersion, "Share groups are not enabled.".to_owned()));
    }
    let groups = groups(broker)
        .ok_or_else(|| (ErrorCode::CoordinatorNotAvailable, "The broker is starting.".to_owned()))?;
    let state = groups.share_state(&request.group_id)?;
    if state.has_members {
        let message = format!("Group {} is not empty.", request.group_id);
        return Err((ErrorCode::NonEmptyGroup, message));
    }
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let (mut response, mut gone) = (DeleteShareGroupOffsetsResponse::default(), Vec::new());
    for topic in request.topics {
        let known = state.topics.iter().find(|known| known.name == topic.topic_name);
        let (topic_id, result) = match known {
            None => (Uuid::nil(), Err(ErrorCode::UnknownTopicOrPartition)),
            Some(known) => {
                let result = forget(broker, &group, known).await;
                if result.is_ok() {
                    gone.push(known.id);
                }
                (TopicId::get(known.id), result)
            }
        };
        let error = result.err();
        response.responses.push(DeleteShareGroupOffsetsResponseTopic {
            topic_name: topic.topic_name,
            topic_id,
            error_code: error.unwrap_or(ErrorCode::None).code(),
            error_message: error.map(|error| error.to_string()),
        });
    }
    if !gone.is_empty() {
        groups.forget_share_topics(&request.group_id, &gone).await?;
    }
    Ok(response)
}
