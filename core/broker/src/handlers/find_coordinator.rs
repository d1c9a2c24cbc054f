//! FindCoordinator: which broker coordinates a group, or a transactional id.

use std::collections::HashSet;
use std::sync::Arc;

use towpath_wire::find_coordinator::Coordinator;
use towpath_wire::{ErrorCode, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{RequestContext, groups};
use crate::connection::ErrorChain;
use crate::state::{BrokerState, OFFSETS_TOPIC, SHARE_STATE_TOPIC, TRANSACTIONS_TOPIC};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;
/// From here on any number of keys can be asked for.
const VERSION_BATCH: i16 = 4;
/// From here on share partitions can be asked for (KIP-932).
const VERSION_SHARE: i16 = 6;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if cx.version >= VERSION_BATCH {
        let mut coordinators = Vec::new();
        // R10: once each.
        let mut seen = HashSet::new();
        for key in request.coordinator_keys {
            if !seen.insert(key.clone()) {
                continue;
            }
            coordinators.push(find(&broker, (request.key_type, cx.version), key).await);
        }
        return FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() };
    }
    let found = find(&broker, (request.key_type, cx.version), request.key).await;
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

async fn find(broker: &Arc<BrokerState>, (key_type, version): (i8, i16), key: String) -> Coordinator {
    let found = match key_type {
        GROUP => find_group(broker, &key).await,
        TRANSACTION => find_transaction(broker, &key).await,
        SHARE if version >= VERSION_SHARE => find_share(broker, &key).await,
        _ => Err((ErrorCode::InvalidRequest, format!("There is no coordinator of type {key_type}."))),
    };
    found.map_or_else(
        |(error, message)| Coordinator {
            key: key.clone(),
            node_id: -1,
            port: -1,
            error_code: error.code(),
            error_message: Some(message),
            ..Coordinator::default()
        },
        |(node_id, host, port)| Coordinator {
            key: key.clone(),
            node_id,
            host,
            port,
            error_code: ErrorCode::None.code(),
            error_message: None,
        },
    )
}

type Found = Result<(i32, String, i32), (ErrorCode, String)>;

fn not_available(message: &str) -> (ErrorCode, String) {
    (ErrorCode::CoordinatorNotAvailable, message.to_owned())
}

async fn find_group(broker: &Arc<BrokerState>, group: &str) -> Found {
    let groups = groups(broker).ok_or_else(|| not_available("The broker is starting."))?;
    // The first group of a cluster brings the offsets topic into being. Clients try again until it is there.
    if let Err(error) = groups.ensure_topic().await {
        tracing::warn!(error = %ErrorChain(&error), "the offsets topic cannot be created");
        return Err(not_available("The offsets topic cannot be created."));
    }
    let partition =
        groups.partition_of(group).ok_or_else(|| not_available("The offsets topic is being created."))?;
    leader(broker, OFFSETS_TOPIC, partition)
}

async fn find_transaction(broker: &Arc<BrokerState>, transactional_id: &str) -> Found {
    let transactions =
        broker.transactions.get().ok_or_else(|| not_available("The broker is starting."))?;
    // As for groups.
    if let Err(error) = transactions.ensure_topic().await {
        tracing::warn!(error = %ErrorChain(&error), "the topic of transactions cannot be created");
        return Err(not_available("The topic of transactions cannot be created."));
    }
    let partition = transactions
        .partition_of(transactional_id)
        .ok_or_else(|| not_available("The topic of transactions is being created."))?;
    leader(broker, TRANSACTIONS_TOPIC, partition)
}

/// A share partition's name: `group:topic id:partition`.
fn is_share_key(key: &str) -> bool {
    let mut parts = key.rsplitn(3, ':');
    let (partition, topic, group) = (parts.next(), parts.next(), parts.next());
    let is_number = partition.is_some_and(|it| it.parse::<i32>().is_ok_and(|it| it >= 0));
    is_number && topic.is_some_and(|it| !it.is_empty()) && group.is_some_and(|it| !it.is_empty())
}

async fn find_share(broker: &Arc<BrokerState>, key: &str) -> Found {
    if !is_share_key(key) {
        let message = "The key must be group:topicId:partition.".to_owned();
        return Err((ErrorCode::InvalidRequest, message));
    }
    let shares = broker.share_states.get().ok_or_else(|| not_available("The broker is starting."))?;
    // As for groups.
    if let Err(error) = shares.ensure_topic().await {
        tracing::warn!(error = %ErrorChain(&error), "the share groups' state topic cannot be created");
        return Err(not_available("The topic of share groups' states cannot be created."));
    }
    let partition = shares
        .partition_of(key)
        .ok_or_else(|| not_available("The topic of share groups' states is being created."))?;
    leader(broker, SHARE_STATE_TOPIC, partition)
}

fn leader(broker: &BrokerState, topic: &str, partition: i32) -> Found {
    let image = broker.image();
    let leader = image
        .topic(topic)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?)?.leader)
        .and_then(|leader| image.broker(leader))
        .ok_or_else(|| not_available("The coordinator's partition has no leader."))?;
    Ok((leader.id.get(), leader.host.clone(), i32::from(leader.port)))
}
