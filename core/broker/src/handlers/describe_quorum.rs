//! DescribeQuorum (KIP-595): who votes on the metadata, and how far everybody is.

use std::sync::Arc;

use towpath_controller::{QuorumMember, QuorumStatus};
use towpath_log::{Clock as _, SystemClock};
use towpath_types::BrokerId;
use towpath_wire::describe_quorum::response::{PartitionData, TopicData};
use towpath_wire::describe_quorum::{Listener, Node, ReplicaState};
use towpath_wire::{DescribeQuorumRequest, DescribeQuorumResponse, ErrorCode};

use super::RequestContext;
use crate::cluster::NODES;
use crate::state::BrokerState;

/// The topic under whose name Kafka shows the metadata log.
const METADATA_TOPIC: &str = "__cluster_metadata";

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
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
    DescribeQuorumResponse {
        topics: topics.collect(),
        nodes: status.iter().flat_map(|status| &status.voters).filter_map(node).collect(),
        ..DescribeQuorumResponse::default()
    }
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

/// A node without a cluster is its own quorum, and has just fetched from itself, as Kafka's leader tells it.
fn alone(broker: &BrokerState) -> PartitionData {
    let (me, end) = (broker.config.node_id.get(), broker.metadata.newest_offset().get());
    let now_ms = SystemClock.now_ms();
    let voter = ReplicaState {
        replica_id: me,
        log_end_offset: end,
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..ReplicaState::default()
    };
    PartitionData {
        leader_id: me,
        leader_epoch: 0,
        high_watermark: end,
        current_voters: vec![voter],
        ..PartitionData::default()
    }
}
