//! AlterShareGroupOffsets (KIP-932): a group without members begins anew at other offsets.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use towpath_coordinator::ShareStateTopic;
use towpath_coordinator::share::ShareKey;
use towpath_types::TopicId;
use towpath_wire::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequestTopic, AlterShareGroupOffsetsResponsePartition,
    AlterShareGroupOffsetsResponseTopic,
};
use towpath_wire::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, ErrorCode};
use uuid::Uuid;

use super::{RequestContext, groups, shares_records};
use crate::share::persister;
use crate::state::BrokerState;

/// How long the coordinators of the states may take, over changes of them.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    alter(&broker, request).await.unwrap_or_else(|(error, message)| AlterShareGroupOffsetsResponse {
        error_code: error.code(),
        error_message: Some(message),
        ..AlterShareGroupOffsetsResponse::default()
    })
}

/// Those partitions of a request that there are.
fn known(broker: &BrokerState, topics: &[AlterShareGroupOffsetsRequestTopic]) -> Vec<ShareStateTopic> {
    let image = broker.image();
    let mut known = Vec::new();
    for asked in topics {
        let Some(topic) = image.topic(&asked.topic_name) else { continue };
        let there = |index: &i32| usize::try_from(*index).is_ok_and(|index| index < topic.partitions.len());
        let partitions = asked.partitions.iter().map(|partition| partition.partition_index).filter(there);
        let partitions = partitions.collect();
        known.push(ShareStateTopic { id: topic.id, name: asked.topic_name.clone(), partitions });
    }
    known
}

/// Partitions that are named more than once, by topic: which of the offsets would hold is not said.
fn repeated(topics: &[AlterShareGroupOffsetsRequestTopic]) -> HashMap<String, HashSet<i32>> {
    let mut seen: HashSet<(&str, i32)> = HashSet::new();
    let mut repeated: HashMap<String, HashSet<i32>> = HashMap::new();
    for topic in topics {
        for partition in &topic.partitions {
            if !seen.insert((topic.topic_name.as_str(), partition.partition_index)) {
                repeated.entry(topic.topic_name.clone()).or_default().insert(partition.partition_index);
            }
        }
    }
    repeated
}

async fn alter(
    broker: &Arc<BrokerState>,
    request: AlterShareGroupOffsetsRequest,
) -> Result<AlterShareGroupOffsetsResponse, (ErrorCode, String)> {
    if !shares_records(broker) {
        return Err((ErrorCode::UnsupportedVersion, "Share groups are not enabled.".to_owned()));
    }
    let groups = groups(broker)
        .ok_or_else(|| (ErrorCode::CoordinatorNotAvailable, "The broker is starting.".to_owned()))?;
    let (known, repeated) = (known(broker, &request.topics), repeated(&request.topics));
    let state_epoch = groups.alter_share_state(&request.group_id, known.clone()).await?;
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let mut response = AlterShareGroupOffsetsResponse::default();
    for topic in request.topics {
        let found = known.iter().find(|known| known.name == topic.topic_name);
        let id = found.map(|found| found.id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let index = partition.partition_index;
            let is_of = |known: &ShareStateTopic| known.name == topic.topic_name;
            let is_known = known.iter().any(|known| is_of(known) && known.partitions.contains(&index));
            let is_repeated = repeated.get(&topic.topic_name).is_some_and(|it| it.contains(&index));
            let result = match id.filter(|_| is_known) {
                _ if is_repeated => Err(ErrorCode::InvalidRequest),
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(topic) => {
                    let key = ShareKey { group: Arc::clone(&group), topic, partition: index };
                    set(broker, &key, state_epoch, partition.start_offset).await
                }
            };
            let error = result.err();
            partitions.push(AlterShareGroupOffsetsResponsePartition {
                partition_index: index,
                error_code: error.unwrap_or(ErrorCode::None).code(),
                error_message: error.map(|error| error.to_string()),
            });
        }
        let topic_id = id.map_or(Uuid::nil(), TopicId::get);
        let topic_name = topic.topic_name;
        response.responses.push(AlterShareGroupOffsetsResponseTopic { topic_name, topic_id, partitions });
    }
    Ok(response)
}

/// What is counted from a start offset stays a number.
const START_OFFSET_MAX: i64 = i64::MAX / 2;

async fn set(
    broker: &Arc<BrokerState>,
    key: &ShareKey,
    state_epoch: i32,
    start_offset: i64,
) -> Result<(), ErrorCode> {
    if !(0..=START_OFFSET_MAX).contains(&start_offset) {
        return Err(ErrorCode::InvalidRequest);
    }
    let goes_on = || !broker.is_stopping();
    persister::patiently(PATIENCE, goes_on, || persister::initialize(broker, key, state_epoch, start_offset))
        .await
}
