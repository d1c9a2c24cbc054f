//! DeleteTopics.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{AdminError, DeleteTarget, delete_topics};
use towpath_types::TopicId;
use towpath_wire::delete_topics::DeletableTopicResult;
use towpath_wire::{DeleteTopicsRequest, DeleteTopicsResponse, ErrorCode};

use super::RequestContext;
use crate::connection::ErrorChain;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let targets: Vec<DeleteTarget> = if cx.version >= 6 {
        let target = |topic: towpath_wire::delete_topics::DeleteTopicState| DeleteTarget {
            name: topic.name,
            id: TopicId::new(topic.topic_id),
        };
        request.topics.into_iter().map(target).collect()
    } else {
        let target = |name| DeleteTarget { name: Some(name), id: TopicId::ZERO };
        request.topic_names.into_iter().map(target).collect()
    };
    let asked = targets.clone();
    let answers = match broker.change(move |image: &MetadataImage| delete_topics(image, &asked)).await {
        Ok(answers) => answers,
        Err(error) => {
            let refusal = AdminError::new(error.code(), ErrorChain(&error).to_string());
            vec![Err(refusal); targets.len()]
        }
    };
    let mut named = BTreeSet::new();
    let responses = targets
        .into_iter()
        .zip(answers)
        // A topic that is named twice is answered once.
        .filter(|(target, _)| named.insert((target.name.clone(), target.id.get())))
        .map(|(target, answer)| match answer {
            Ok(deleted) => DeletableTopicResult {
                name: Some(deleted.name.as_str().to_owned()),
                topic_id: deleted.id.get(),
                error_code: ErrorCode::None.code(),
                error_message: None,
            },
            Err(error) => DeletableTopicResult {
                name: target.name,
                topic_id: target.id.get(),
                error_code: error.code.code(),
                error_message: Some(error.message),
            },
        })
        .collect();
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}
