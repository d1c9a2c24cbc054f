//! AlterPartitionReassignments (KIP-455): moves partitions to other brokers, or takes that back.

use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, PartitionRef, Reassignment, alter_partition_reassignments};
use towpath_types::BrokerId;
use towpath_wire::alter_partition_reassignments::{ReassignablePartitionResponse, ReassignableTopicResponse};
use towpath_wire::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};

use super::{RequestContext, told};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let asked: Vec<Reassignment> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Reassignment {
                partition: PartitionRef { topic: topic.name.clone(), partition: partition.partition_index },
                replicas: partition
                    .replicas
                    .as_ref()
                    .map(|replicas| replicas.iter().map(|id| BrokerId::new(*id)).collect()),
            })
        })
        .collect();
    let (policy, may_change_factor) = (broker.policy(), request.allow_replication_factor_change);
    let decide =
        move |image: &MetadataImage| alter_partition_reassignments(image, &policy, &asked, may_change_factor);
    let mut response = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_change_factor,
        error_message: None,
        ..AlterPartitionReassignmentsResponse::default()
    };
    match broker.change(decide).await {
        Ok(answers) => response.responses = responses(request, answers),
        Err(error) => {
            response.error_code = error.code().code();
            response.error_message = Some(ErrorChain(&error).to_string());
        }
    }
    response
}

fn responses(
    request: AlterPartitionReassignmentsRequest,
    answers: Vec<Result<(), AdminError>>,
) -> Vec<ReassignableTopicResponse> {
    let mut answers = answers.into_iter();
    let topics = request.topics.into_iter().map(|topic| ReassignableTopicResponse {
        name: topic.name,
        partitions: topic
            .partitions
            .iter()
            .zip(answers.by_ref())
            .map(|(partition, answer)| {
                let (error_code, error_message) = told(answer);
                ReassignablePartitionResponse {
                    partition_index: partition.partition_index,
                    error_code,
                    error_message,
                }
            })
            .collect(),
    });
    topics.collect()
}
