//! Asks the active controller for the changes of in-sync replicas that this broker's leaders propose (KIP-497).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use towpath_replica::{IsrProposal, Partition, ProposalAnswer};
use towpath_wire::alter_partition::{BrokerState as Member, PartitionData, TopicData};
use towpath_wire::{AlterPartitionRequest, AlterPartitionResponse, ErrorCode};
use uuid::Uuid;

use super::ClusterNode;
use crate::state::BrokerState;

/// How long the controller may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after an answer that has to be asked for again.
const RETRY: Duration = Duration::from_millis(50);
/// How often it is looked for followers that have fallen behind, at least.
const LOOK: Duration = Duration::from_secs(1);
/// Changes in one request (R10).
const CHANGES_MAX: usize = 4096;

type Key = (Uuid, i32);

/// Runs until the task is aborted. One request is out at a time.
pub(crate) async fn run(node: Arc<ClusterNode>, broker: Arc<BrokerState>) {
    let queue = Arc::clone(broker.replicas.environment());
    let mut left: Vec<Arc<Partition>> = Vec::new();
    loop {
        if left.is_empty() && tokio::time::timeout(LOOK, queue.isr_queue().filled()).await.is_err() {
            // Rule 8: who says nothing any more is found only by looking.
            let replicas = Arc::clone(&broker);
            if tokio::task::spawn_blocking(move || replicas.replicas.consider_isrs()).await.is_err() {
                tracing::error!("cannot look for followers that have fallen behind");
            }
        }
        left.extend(queue.isr_queue().take());
        let now: Vec<_> = left.drain(..left.len().min(CHANGES_MAX)).collect();
        let proposals: HashMap<Key, (Arc<Partition>, IsrProposal)> = now
            .into_iter()
            .filter_map(|partition| {
                let proposal = partition.propose_isr()?;
                Some(((partition.topic_id().get(), partition.id().partition), (partition, proposal)))
            })
            .collect();
        if proposals.is_empty() {
            continue;
        }
        let request = request(&node, &proposals);
        let answers = match node.ask_controller(&request, PATIENCE).await {
            Ok(response) => answers(&response),
            Err(error) => {
                tracing::debug!(%error, "the controller cannot be asked for a change of in-sync replicas");
                HashMap::new()
            }
        };
        let mut again = false;
        for (key, (partition, proposal)) in proposals {
            let answer = answers.get(&key).copied().unwrap_or(ProposalAnswer::Retry);
            tracing::debug!(partition = %partition.id(), ?proposal, ?answer, "in-sync replicas");
            partition.isr_answered(&proposal, answer);
            // What was refused may be proposed again at once, and would be refused again until newer metadata are here.
            again |= matches!(answer, ProposalAnswer::Retry | ProposalAnswer::Refused);
            partition.consider_isr();
        }
        if again {
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn request(
    node: &ClusterNode,
    proposals: &HashMap<Key, (Arc<Partition>, IsrProposal)>,
) -> AlterPartitionRequest {
    let mut topics: HashMap<Uuid, Vec<PartitionData>> = HashMap::new();
    for ((topic, index), (_, proposal)) in proposals {
        let member = |(id, epoch): &(towpath_types::BrokerId, towpath_types::BrokerEpoch)| Member {
            broker_id: id.get(),
            broker_epoch: epoch.get(),
        };
        topics.entry(*topic).or_default().push(PartitionData {
            partition_index: *index,
            leader_epoch: proposal.leader_epoch.get(),
            new_isr_with_epochs: proposal.isr.iter().map(member).collect(),
            partition_epoch: proposal.partition_epoch.get(),
            ..PartitionData::default()
        });
    }
    AlterPartitionRequest {
        broker_id: node.me().get(),
        broker_epoch: node.broker_epoch().get(),
        topics: topics.into_iter().map(|(topic_id, partitions)| TopicData { topic_id, partitions }).collect(),
    }
}

fn answers(response: &AlterPartitionResponse) -> HashMap<Key, ProposalAnswer> {
    if response.error_code != ErrorCode::None.code() {
        // Stale or unknown broker epoch, no controller: the whole is tried again with what is then known.
        return HashMap::new();
    }
    let topics = response.topics.iter();
    topics
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic.topic_id, partition)))
        .map(|(topic, partition)| {
            let answer = match ErrorCode::from_code(partition.error_code) {
                ErrorCode::None => ProposalAnswer::Accepted,
                // Rule 9: only these say that nothing has changed.
                ErrorCode::IneligibleReplica | ErrorCode::OperationNotAttempted => ProposalAnswer::Refused,
                ErrorCode::FencedLeaderEpoch
                | ErrorCode::InvalidUpdateVersion
                | ErrorCode::InvalidRequest
                | ErrorCode::UnknownTopicOrPartition
                | ErrorCode::UnknownTopicId
                | ErrorCode::NewLeaderElected => ProposalAnswer::Unknown,
                _ => ProposalAnswer::Retry,
            };
            ((topic, partition.partition_index), answer)
        })
        .collect()
}
