//! DescribeShareGroupOffsets (KIP-932): how far a group is in its partitions, and how much there is to come.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use towpath_coordinator::share::{ShareKey, StateSummary};
use towpath_replica::Isolation;
use towpath_types::TopicId;
use towpath_wire::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsResponseGroup,
    DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsTopic};
use towpath_wire::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, ErrorCode, ListOffsetsRequest,
};
use uuid::Uuid;

use super::{RequestContext, groups, shares_records};
use crate::cluster::forward;
use crate::share::persister;
use crate::state::BrokerState;

/// How long the coordinators of the states may take, over changes of them.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a partition's leader may take to say where it ends.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The timestamp by which ListOffsets asks for the end.
const LATEST: i64 = -1;
/// A consumer asks, not a replica.
const CONSUMER: i32 = -1;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut response = DescribeShareGroupOffsetsResponse::default();
    // R10: once each.
    let mut seen = HashSet::new();
    for group in request.groups {
        if !seen.insert(group.group_id.clone()) {
            continue;
        }
        let group_id = group.group_id.clone();
        let described = describe(&broker, group).await.unwrap_or_else(|(error, message)| {
            DescribeShareGroupOffsetsResponseGroup {
                group_id,
                error_code: error.code(),
                error_message: Some(message),
                ..DescribeShareGroupOffsetsResponseGroup::default()
            }
        });
        response.groups.push(described);
    }
    response
}

/// A topic to tell of; without an id where there is none of the name.
struct Asked {
    name: String,
    id: Uuid,
    partitions: Vec<i32>,
}

async fn describe(
    broker: &Arc<BrokerState>,
    request: DescribeShareGroupOffsetsRequestGroup,
) -> Result<DescribeShareGroupOffsetsResponseGroup, (ErrorCode, String)> {
    if !shares_records(broker) {
        return Err((ErrorCode::UnsupportedVersion, "Share groups are not enabled.".to_owned()));
    }
    let groups = groups(broker)
        .ok_or_else(|| (ErrorCode::CoordinatorNotAvailable, "The broker is starting.".to_owned()))?;
    // As Kafka: a group that is not there has no topics, and is no mistake.
    let topics = match groups.share_state(&request.group_id) {
        Ok(state) => state.topics,
        Err((ErrorCode::GroupIdNotFound, _)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let image = broker.image();
    let asked: Vec<Asked> = match request.topics {
        Some(topics) => topics
            .into_iter()
            .map(|topic| Asked {
                id: image.topic(&topic.topic_name).map_or(Uuid::nil(), |topic| topic.id.get()),
                name: topic.topic_name,
                partitions: topic.partitions,
            })
            .collect(),
        None => topics
            .into_iter()
            .filter(|topic| image.topic_by_id(topic.id).is_some())
            .map(|topic| Asked {
                name: topic.name,
                id: topic.id.get(),
                partitions: topic.partitions.into_iter().collect(),
            })
            .collect(),
    };
    let group: Arc<str> = Arc::from(request.group_id.as_str());
    let mut topics = Vec::with_capacity(asked.len());
    // R10: once each.
    let mut seen: HashSet<(String, i32)> = HashSet::new();
    for topic in asked {
        let mut partitions = Vec::new();
        for index in &topic.partitions {
            if !seen.insert((topic.name.clone(), *index)) {
                continue;
            }
            partitions.push(describe_partition(broker, &group, &topic, *index).await);
        }
        topics.push(DescribeShareGroupOffsetsResponseTopic {
            topic_name: topic.name,
            topic_id: topic.id,
            partitions,
        });
    }
    let group_id = request.group_id;
    Ok(DescribeShareGroupOffsetsResponseGroup { group_id, topics, ..Default::default() })
}

async fn describe_partition(
    broker: &Arc<BrokerState>,
    group: &Arc<str>,
    topic: &Asked,
    partition_index: i32,
) -> DescribeShareGroupOffsetsResponsePartition {
    let failed = |error: ErrorCode| DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: -1,
        error_code: error.code(),
        error_message: Some(error.to_string()),
        ..DescribeShareGroupOffsetsResponsePartition::default()
    };
    let id = TopicId::new(topic.id);
    let is_known = broker.image().topic_by_id(id).is_some_and(|topic| {
        usize::try_from(partition_index).is_ok_and(|index| index < topic.partitions.len())
    });
    if !is_known {
        // As Kafka: nothing is known of it, which is no mistake either.
        return DescribeShareGroupOffsetsResponsePartition {
            partition_index,
            start_offset: -1,
            lag: -1,
            ..DescribeShareGroupOffsetsResponsePartition::default()
        };
    }
    let key = ShareKey { group: Arc::clone(group), topic: id, partition: partition_index };
    let summary =
        persister::patiently(PATIENCE, || !broker.is_stopping(), || persister::summary(broker, &key)).await;
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => return failed(error),
    };
    DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: summary.start_offset,
        leader_epoch: summary.leader_epoch.max(0),
        lag: lag(broker, topic, partition_index, &summary).await,
        ..DescribeShareGroupOffsetsResponsePartition::default()
    }
}

/// How many records the group is not done with; -1 where that is not known.
async fn lag(broker: &Arc<BrokerState>, topic: &Asked, index: i32, summary: &StateSummary) -> i64 {
    if summary.start_offset < 0 || summary.delivery_complete_count < 0 {
        return -1;
    }
    let done = summary.start_offset.saturating_add(i64::from(summary.delivery_complete_count));
    end_of(broker, topic, index).await.map_or(-1, |end| end.saturating_sub(done).max(0))
}

/// Where a partition ends for consumers.
async fn end_of(broker: &Arc<BrokerState>, topic: &Asked, index: i32) -> Option<i64> {
    let id = TopicId::new(topic.id);
    let own = broker.replicas.topic_by_id(id).and_then(|topic| topic.partition(index).ok().flatten());
    if let Some(own) = own.filter(|own| own.is_leader()) {
        return own.latest_offset(Isolation::ReadUncommitted).ok().map(|offset| offset.get());
    }
    let image = broker.image();
    let leader = image.topic_by_id(id)?.partitions.get(usize::try_from(index).ok()?)?.leader?;
    let partition =
        ListOffsetsPartition { partition_index: index, timestamp: LATEST, ..ListOffsetsPartition::default() };
    let request = ListOffsetsRequest {
        replica_id: CONSUMER,
        topics: vec![ListOffsetsTopic { name: topic.name.clone(), partitions: vec![partition] }],
        ..ListOffsetsRequest::default()
    };
    let response = forward::ask_broker(broker.cluster()?, leader, &request, LEADER_TIMEOUT).await.ok()?;
    let told = response.topics.first()?.partitions.first()?;
    (told.error_code == ErrorCode::None.code()).then_some(told.offset)
}
