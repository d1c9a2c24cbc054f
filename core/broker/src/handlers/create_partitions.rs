//! CreatePartitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, Decision, MorePartitions, create_partitions};
use towpath_types::BrokerId;
use towpath_wire::create_partitions::{CreatePartitionsTopic, CreatePartitionsTopicResult};
use towpath_wire::{CreatePartitionsRequest, CreatePartitionsResponse, ErrorCode};

use super::RequestContext;
use crate::connection::ErrorChain;
use crate::state::BrokerState;

fn more(topic: &CreatePartitionsTopic) -> MorePartitions {
    MorePartitions {
        name: topic.name.clone(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|assignments| {
            let brokers = |ids: &Vec<i32>| ids.iter().map(|id| BrokerId::new(*id)).collect();
            assignments.iter().map(|assignment| brokers(&assignment.broker_ids)).collect()
        }),
    }
}

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let topics: Vec<MorePartitions> = request.topics.iter().map(more).collect();
    let validate_only = request.validate_only;
    let decide = move |image: &MetadataImage| {
        let decision = create_partitions(image, &topics);
        if validate_only { Decision::unchanged(decision.answer) } else { decision }
    };
    let answers = match broker.change(decide).await {
        Ok(answers) => answers,
        Err(error) => {
            let refusal = AdminError::new(error.code(), ErrorChain(&error).to_string());
            vec![Err(refusal); request.topics.len()]
        }
    };
    let mut named = BTreeSet::new();
    let results = request
        .topics
        .into_iter()
        .zip(answers)
        // A topic that is named twice is answered once.
        .filter(|(topic, _)| named.insert(topic.name.clone()))
        .map(|(topic, answer)| {
            let (code, message) = match answer {
                Ok(()) => (ErrorCode::None, None),
                Err(error) => (error.code, Some(error.message)),
            };
            CreatePartitionsTopicResult { name: topic.name, error_code: code.code(), error_message: message }
        })
        .collect();
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}
