//! UnregisterBroker: a broker that is gone for good.

use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_controller::decide::{Decision, unregister_broker};
use towpath_types::BrokerId;
use towpath_wire::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use super::{RequestContext, told};
use crate::cluster;
use crate::connection::ErrorChain;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = BrokerId::new(request.broker_id);
    let policy = broker.policy();
    let decide = move |image: &MetadataImage| match unregister_broker(image, &policy, id) {
        Ok(Decision { records, answer }) => Decision { records, answer: Ok(answer) },
        Err(error) => Decision::unchanged(Err(error)),
    };
    let (error_code, error_message) = match broker.change(decide).await {
        Ok(answer) => told(answer),
        Err(error) => (error.code().code(), Some(ErrorChain(&error).to_string())),
    };
    if error_code == 0
        && let Some(node) = broker.cluster()
    {
        cluster::forget_member(node, id).await;
    }
    UnregisterBrokerResponse { error_code, error_message, ..UnregisterBrokerResponse::default() }
}
