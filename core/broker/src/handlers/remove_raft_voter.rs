//! RemoveRaftVoter (KIP-853): a voter of the metadata quorum listens from here on.

use std::sync::Arc;

use towpath_controller::ControllerError;
use towpath_types::BrokerId;
use towpath_wire::{RemoveRaftVoterRequest, RemoveRaftVoterResponse, ErrorCode};

use super::RequestContext;
use crate::connection::ErrorChain;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let failed = |code: ErrorCode, message: String| RemoveRaftVoterResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..RemoveRaftVoterResponse::default()
    };
    if request.cluster_id.as_ref().is_some_and(|id| *id != broker.cluster_id) {
        return failed(ErrorCode::InconsistentClusterId, format!("This cluster's id is {}.", broker.cluster_id));
    }
    if request.voter_id < 0 || request.voter_directory_id.is_nil() {
        return failed(ErrorCode::InvalidRequest, "The request does not name a valid voter.".to_owned());
    }
    let Some(node) = broker.cluster() else {
        return failed(ErrorCode::UnsupportedVersion, "This node is alone: it has no quorum.".to_owned());
    };
    match node.quorum().remove_voter(BrokerId::new(request.voter_id)).await {
        Ok(()) => RemoveRaftVoterResponse::default(),
        Err(error @ ControllerError::NotController { .. }) => failed(ErrorCode::NotController, error.to_string()),
        Err(error) => failed(ErrorCode::InvalidRequest, ErrorChain(&error).to_string()),
    }
}
