//! ListPartitionReassignments (KIP-455).

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_controller::decide::{PartitionRef, list_partition_reassignments};
use towpath_types::BrokerId;
use towpath_wire::list_partition_reassignments::{OngoingPartitionReassignment, OngoingTopicReassignment};
use towpath_wire::{ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let named: Option<Vec<PartitionRef>> = request.topics.map(|topics| {
        let refs = topics.into_iter().flat_map(|topic| {
            let name = topic.name;
            topic.partition_indexes.into_iter().map(move |partition| PartitionRef { topic: name.clone(), partition })
        });
        refs.collect()
    });
    let ids = |brokers: Vec<BrokerId>| brokers.into_iter().map(BrokerId::get).collect();
    let mut topics: BTreeMap<String, Vec<OngoingPartitionReassignment>> = BTreeMap::new();
    for ongoing in list_partition_reassignments(&broker.image(), named.as_deref()) {
        topics.entry(ongoing.topic.as_str().to_owned()).or_default().push(OngoingPartitionReassignment {
            partition_index: ongoing.partition,
            replicas: ids(ongoing.replicas),
            adding_replicas: ids(ongoing.adding),
            removing_replicas: ids(ongoing.removing),
        });
    }
    ListPartitionReassignmentsResponse {
        topics: topics
            .into_iter()
            .map(|(name, partitions)| OngoingTopicReassignment { name, partitions })
            .collect(),
        error_message: None,
        ..ListPartitionReassignmentsResponse::default()
    }
}
