//! Clients' requests that only the active controller can answer: any node takes them and passes them on (KIP-590). And
//! brokers' own requests to one another.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towpath_types::BrokerId;
use towpath_wire::frame::{LENGTH_BYTES, decode_response, encode_request};
use towpath_wire::{ApiKey, ErrorCode, ForwardRequest, ForwardResponse, Request};

use super::ClusterNode;
use super::peer::{Lane, PeerError};
use crate::connection::{ErrorChain, Peer};
use crate::handlers::{self, Begun, Reply, RequestContext};
use crate::outgoing::Frame;
use crate::state::BrokerState;

/// How long a request is tried, over changes of the controller.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// How long until the next attempt.
const RETRY: Duration = Duration::from_millis(50);
/// How long this node may take to see what its client did.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Whether requests of this kind are answered by the active controller alone.
pub(crate) const fn is_for_controller(key: ApiKey) -> bool {
    matches!(
        key,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::ElectLeaders
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::UnregisterBroker
            | ApiKey::UpdateFeatures
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter
            | ApiKey::DescribeQuorum
    )
}

/// Passes a whole request frame on, and its answer back.
pub(crate) async fn pass_on(
    broker: Arc<BrokerState>,
    node: Arc<ClusterNode>,
    cx: RequestContext,
    frame: Bytes,
) -> Reply {
    let request = ForwardRequest {
        client_id: cx.client_id.clone(),
        client_host: cx.client_host(),
        request: frame.clone(),
        is_for_broker: false,
    };
    match forward(&node, &broker, &request).await {
        Forwarded::Answer(answer) => Reply::Frame(Frame::from_bytes(answer)),
        Forwarded::Here => {
            let peer = Peer { address: cx.address, node: None, connection: 0 };
            run(&broker, &peer, frame).await
        }
        // Without an answer the client does not know: it asks again, here or elsewhere.
        Forwarded::GivenUp => Reply::Close,
    }
}

/// Sends a request of this node's own; none when no controller answers.
pub(crate) async fn ask<R: Request>(
    node: &ClusterNode,
    broker: &BrokerState,
    request: &R,
) -> Option<R::Response> {
    let version = R::KEY.stable_versions().max;
    let frame = encode_request(request, version, 0, None).ok()?.into_bytes();
    let request = own_request(frame, false);
    match forward(node, broker, &request).await {
        Forwarded::Answer(answer) if answer.len() > LENGTH_BYTES => {
            decode_response::<R>(answer.slice(LENGTH_BYTES..), version).ok().map(|(_, response)| response)
        }
        _ => None,
    }
}

fn own_request(frame: Bytes, is_for_broker: bool) -> ForwardRequest {
    ForwardRequest {
        client_id: None,
        client_host: String::new(),
        request: frame.slice(LENGTH_BYTES..),
        is_for_broker,
    }
}

/// Why another broker did not answer a request of this one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// The metadata do not say where it is.
    #[error("broker {0} is not known")]
    Unknown(BrokerId),
    /// It cannot be reached, or does not answer in time.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// It cannot answer.
    #[error("broker {broker} cannot answer: {message}")]
    Refused { broker: BrokerId, message: String },
    /// The request cannot be written, or its answer cannot be read.
    #[error("broker {broker} and this one do not understand each other: {message}")]
    Foreign { broker: BrokerId, message: String },
}

/// Sends a request of this broker's own to another one.
///
/// # Errors
/// [`AskError`]; whether it was carried out is then unknown.
pub(crate) async fn ask_broker<R: Request>(
    node: &ClusterNode,
    broker: BrokerId,
    request: &R,
    within: Duration,
) -> Result<R::Response, AskError> {
    let version = R::KEY.stable_versions().max;
    let foreign = |error: &dyn std::error::Error| AskError::Foreign { broker, message: error.to_string() };
    let frame = encode_request(request, version, 0, None).map_err(|error| foreign(&error))?.into_bytes();
    let peer = node.peer_of(broker).ok_or(AskError::Unknown(broker))?;
    let answer = node.peers().call(&peer, Lane::Requests, &own_request(frame, true), within).await;
    let answer = answer.inspect_err(|error| node.lost_node(broker, error))?;
    if answer.error_code != ErrorCode::None.code() || answer.response.len() <= LENGTH_BYTES {
        return Err(AskError::Refused { broker, message: answer.error_message.unwrap_or_default() });
    }
    let response = decode_response::<R>(answer.response.slice(LENGTH_BYTES..), version);
    response.map(|(_, response)| response).map_err(|error| foreign(&error))
}

/// What became of a request that is for the controller.
enum Forwarded {
    /// A whole frame, its length in front.
    Answer(Bytes),
    /// This node has become the controller meanwhile.
    Here,
    /// Nobody answered in time.
    GivenUp,
}

async fn forward(node: &ClusterNode, broker: &BrokerState, request: &ForwardRequest) -> Forwarded {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !broker.is_stopping() {
        if node.is_active_controller() {
            return Forwarded::Here;
        }
        if let Some(peer) = node.active_controller().filter(|peer| peer.node != node.me()) {
            match node.peers().call(&peer, Lane::Requests, request, ATTEMPT).await {
                Ok(response) if response.error_code == ErrorCode::NotController.code() => {}
                Ok(response) if response.error_code == ErrorCode::None.code() => {
                    // The client sees what it did also where it asked for it.
                    node.wait_for_metadata(broker, response.metadata_offset, CATCH_UP).await;
                    return Forwarded::Answer(response.response);
                }
                // It cannot be read there: nor would it be the next time.
                Ok(_) => return Forwarded::GivenUp,
                Err(error) => {
                    tracing::debug!(%error, "a request cannot be passed on");
                    node.lost_node(peer.node, &error);
                    if !error.was_not_sent() {
                        // It may have been carried out: a deletion that is sent again could hit another topic of the name.
                        return Forwarded::GivenUp;
                    }
                }
            }
        }
        if tokio::time::Instant::now() >= deadline {
            tracing::warn!("no active controller answers: a request is given up");
            break;
        }
        node.wait_for_controller_change(RETRY).await;
    }
    Forwarded::GivenUp
}

async fn run(broker: &Arc<BrokerState>, peer: &Peer, frame: Bytes) -> Reply {
    let mut begun = match handlers::begin_here(broker, peer, frame) {
        Ok((_, begun)) => begun,
        Err(error) => {
            tracing::debug!(error = %ErrorChain(&error), "a request that was passed on cannot be read");
            return Reply::Close;
        }
    };
    loop {
        match begun {
            Begun::Done(reply) => return reply,
            Begun::Waiting(future) => return future.await,
            Begun::Beginning(future) => begun = future.await,
        }
    }
}

/// Answers what another node has passed on.
pub(crate) async fn answer(
    node: &Arc<ClusterNode>,
    request: ForwardRequest,
    caller: BrokerId,
) -> ForwardResponse {
    let failed = |code: ErrorCode, message: &str| ForwardResponse {
        error_code: code.code(),
        error_message: Some(message.to_owned()),
        ..ForwardResponse::default()
    };
    if !request.is_for_broker && !node.is_active_controller() {
        return failed(ErrorCode::NotController, "this node is not the active controller");
    }
    let Some(broker) = node.broker() else {
        let code =
            if request.is_for_broker { ErrorCode::BrokerNotAvailable } else { ErrorCode::NotController };
        return failed(code, "this broker is not open yet");
    };
    let peer = Peer { address: None, node: Some(caller), connection: 0 };
    let offset = |broker: &BrokerState| broker.metadata.newest_offset().get();
    match run(&broker, &peer, request.request).await {
        Reply::Frame(frame) => ForwardResponse {
            metadata_offset: offset(&broker),
            controller_id: node.me().get(),
            response: frame.into_bytes(),
            ..ForwardResponse::default()
        },
        Reply::Nothing | Reply::Close => failed(ErrorCode::InvalidRequest, "the request cannot be answered"),
    }
}
