//! DescribeQuorum (KIP-595): who votes on the metadata, and how far everybody is.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use towpath_controller::{LocalMetadataLog, QuorumMember, QuorumStatus};
use towpath_types::BrokerId;
use towpath_wire::describe_quorum::response::{PartitionData, TopicData};
use towpath_wire::describe_quorum::{Listener, Node, ReplicaState};
use towpath_wire::{DescribeQuorumRequest, DescribeQuorumResponse, ErrorCode};
use uuid::Uuid;

use super::RequestContext;
use crate::cluster::NODES;
use crate::state::BrokerState;

/// The topic under whose name Kafka shows the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// From here on an answer can tell directories and addresses (KIP-853).
const VERSION_DIRECTORIES: i16 = 2;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let status = broker.cluster().map(|node| node.quorum().status());
    let topics = request.topics.into_iter().map(|topic| {
        let is_metadata = topic.topic_name == METADATA_TOPIC;
        let partitions = topic.partitions.iter().map(|partition| match &status {
            _ if !is_metadata || partition.partition_index != 0 => PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..PartitionData::default()
            },
            Some(status) => described(status),
            None => alone(&broker),
        });
        TopicData { topic_name: topic.topic_name.clone(), partitions: partitions.collect() }
    });
    let mut response = DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() };
    if cx.version >= VERSION_DIRECTORIES {
        let mut told = response.topics.iter().flat_map(|topic| &topic.partitions);
        if told.any(|partition| partition.error_code == 0) {
            response.nodes = nodes(&broker, status.as_ref());
        }
    } else {
        let members = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        let members = members.flat_map(|it| it.current_voters.iter_mut().chain(&mut it.observers));
        members.for_each(|it| it.replica_directory_id = Uuid::nil());
    }
    response
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn described(status: &QuorumStatus) -> PartitionData {
    PartitionData {
        leader_id: status.leader.map_or(-1, BrokerId::get),
        leader_epoch: i32::try_from(status.leader_epoch).unwrap_or(i32::MAX),
        high_watermark: number(status.high_watermark),
        current_voters: status.voters.iter().map(state).collect(),
        observers: status.observers.iter().map(state).collect(),
        ..PartitionData::default()
    }
}

fn state(member: &QuorumMember) -> ReplicaState {
    ReplicaState {
        replica_id: member.id.get(),
        replica_directory_id: member.directory,
        log_end_offset: member.log_end_offset.map_or(-1, number),
        last_fetch_timestamp: member.last_fetch_timestamp_ms.unwrap_or(-1),
        last_caught_up_timestamp: member.last_caught_up_timestamp_ms.unwrap_or(-1),
    }
}

fn node(member: &QuorumMember) -> Option<Node> {
    let (host, port) = member.address.rsplit_once(':')?;
    let listener =
        Listener { name: NODES.to_owned(), host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().ok()? };
    Some(Node { node_id: member.id.get(), listeners: vec![listener] })
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A node without a cluster is its own quorum, and its only voter has everything at any time.
fn alone(broker: &BrokerState) -> PartitionData {
    let (me, end) = (broker.config.node_id.get(), broker.metadata.newest_offset().get());
    let directory = broker.replicas.dirs().all().first().map(|dir| dir.directory_id().get());
    let now_ms = now_ms();
    let voter = ReplicaState {
        replica_id: me,
        replica_directory_id: directory.unwrap_or_default(),
        log_end_offset: end,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
    };
    PartitionData {
        leader_id: me,
        leader_epoch: LocalMetadataLog::EPOCH.get(),
        high_watermark: end,
        current_voters: vec![voter],
        ..PartitionData::default()
    }
}

/// The voters' addresses. A node without a cluster has no listener for nodes.
fn nodes(broker: &BrokerState, status: Option<&QuorumStatus>) -> Vec<Node> {
    match status {
        Some(status) => status.voters.iter().filter_map(node).collect(),
        None => vec![Node { node_id: broker.config.node_id.get(), listeners: Vec::new() }],
    }
}
