//! DeleteShareGroupOffsets (KIP-932): a group without members forgets how far it is in topics.

use std::sync::Arc;
use std::time::Duration;

use towpath_coordinator::share::ShareKey;
use towpath_coordinator::{GroupCoordinator, ShareStateTopic, ShareStateView};
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

/// A share group without members, which nobody joins while its states are deleted.
pub(super) struct Held<'a> {
    groups: &'a GroupCoordinator,
    group: &'a str,
}

impl<'a> Held<'a> {
    /// Holds a group: what it knows of its states.
    ///
    /// # Errors
    /// What a client is told: that there is no such share group, that it has members, or is not coordinated here.
    pub(super) fn new(
        groups: &'a GroupCoordinator,
        group: &'a str,
    ) -> Result<(Self, ShareStateView), (ErrorCode, String)> {
        let state = groups.hold_share_group(group)?;
        Ok((Self { groups, group }, state))
    }

    /// Forgets how far the group is in a topic.
    ///
    /// # Errors
    /// What a coordinator says.
    pub(super) async fn forget(
        &self,
        broker: &Arc<BrokerState>,
        topic: &ShareStateTopic,
    ) -> Result<(), ErrorCode> {
        let group: Arc<str> = Arc::from(self.group);
        for partition in &topic.partitions {
            // However long it takes.
            self.groups.hold_share_group(self.group).map_err(|(error, _)| error)?;
            let key = ShareKey { group: Arc::clone(&group), topic: topic.id, partition: *partition };
            persister::patiently(PATIENCE, || !broker.is_stopping(), || persister::delete(broker, &key))
                .await?;
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.groups.release_share_group(self.group);
    }
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
    let (held, state) = Held::new(groups, &request.group_id)?;
    let (mut response, mut gone) = (DeleteShareGroupOffsetsResponse::default(), Vec::new());
    for topic in request.topics {
        let known = state.topics.iter().find(|known| known.name == topic.topic_name);
        let (topic_id, result) = match known {
            None => (Uuid::nil(), Err(ErrorCode::UnknownTopicOrPartition)),
            Some(known) => {
                let result = held.forget(broker, known).await;
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
