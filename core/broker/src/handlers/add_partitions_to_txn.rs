//! AddPartitionsToTxn: partitions become part of a transaction (KIP-98), or it is asked whether they are (KIP-890).

use std::sync::Arc;

use towpath_wire::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ErrorCode};

use super::RequestContext;
use crate::state::{BrokerState, TRANSACTIONS_TOPIC};

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    add(&broker, request, cx.version).await
}

/// Serves a client's request, or a broker's.
pub(crate) async fn add(
    broker: &Arc<BrokerState>,
    request: AddPartitionsToTxnRequest,
    version: i16,
) -> AddPartitionsToTxnResponse {
    let Some(transactions) = broker.transactions.get() else {
        return AddPartitionsToTxnResponse {
            error_code: ErrorCode::CoordinatorNotAvailable.code(),
            ..AddPartitionsToTxnResponse::default()
        };
    };
    let image = broker.image();
    let check = move |topic: &str, partition: i32| {
        if topic == TRANSACTIONS_TOPIC {
            // Nobody writes there but the coordinators.
            return ErrorCode::TopicAuthorizationFailed;
        }
        let exists = image.topic(topic).is_some_and(|topic| {
            usize::try_from(partition).is_ok_and(|index| index < topic.partitions.len())
        });
        if exists { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition }
    };
    transactions.add_partitions(request, version, check).await
}
