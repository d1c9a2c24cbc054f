//! ElectLeaders (KIP-460): preferred replicas lead again, or, on demand, anybody who is there.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{ElectionKind, ElectionResult, PartitionRef, elect_leaders};
use towpath_wire::elect_leaders::{PartitionResult, ReplicaElectionResult};
use towpath_wire::{ElectLeadersRequest, ElectLeadersResponse, ErrorCode};

use super::{RequestContext, told};
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let failed = |code: ErrorCode| ElectLeadersResponse { error_code: code.code(), ..ElectLeadersResponse::default() };
    // Version 0 knows only the one kind.
    let kind = if cx.version == 0 { Some(ElectionKind::Preferred) } else { ElectionKind::from_code(request.election_type) };
    let Some(kind) = kind else { return failed(ErrorCode::InvalidRequest) };
    let named: Option<Vec<PartitionRef>> = request.topic_partitions.map(|topics| {
        let refs = topics.into_iter().flat_map(|topic| {
            let name = topic.topic;
            topic.partitions.into_iter().map(move |partition| PartitionRef { topic: name.clone(), partition })
        });
        refs.collect()
    });
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| elect_leaders(image, &policy, kind, named.as_deref());
    match broker.change(decide).await {
        Ok(results) => ElectLeadersResponse { replica_election_results: by_topic(results), ..ElectLeadersResponse::default() },
        Err(error) => failed(error.code()),
    }
}

fn by_topic(results: Vec<ElectionResult>) -> Vec<ReplicaElectionResult> {
    let mut topics: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for ElectionResult { partition, result } in results {
        let (error_code, error_message) = told(result);
        let result = PartitionResult { partition_id: partition.partition, error_code, error_message };
        topics.entry(partition.topic).or_default().push(result);
    }
    let topic = |(topic, partition_result)| ReplicaElectionResult { topic, partition_result };
    topics.into_iter().map(topic).collect()
}
