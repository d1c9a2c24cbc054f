//! WriteTxnMarkers: a coordinator, or an operator, ends a transaction in partitions that this broker leads.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use towpath_coordinator::{EndMarker, TransactionalProducer};
use towpath_log::Marker;
use towpath_replica::{Appended, Partition, PartitionError};
use towpath_types::{ProducerEpoch, ProducerId};
use towpath_wire::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use towpath_wire::{ErrorCode, WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::{RequestContext, groups, partition_error_code};
use crate::state::{BrokerState, OFFSETS_TOPIC, TRANSACTIONS_TOPIC};

/// How long the markers may take to be committed; whoever sent them sends them again then.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(20);
/// `transaction.version` 2: the epoch is raised with every transaction (KIP-890).
const VERSION_BUMP: i8 = 2;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    write(&broker, request).await
}

/// Where a result stands: marker, topic, partition.
type At = (usize, usize, usize);

/// A marker that is appended and not known to be committed.
struct Uncommitted {
    at: At,
    partition: Arc<Partition>,
    appended: Appended,
}

/// Appends all markers, then waits until all are committed.
pub(crate) async fn write(
    broker: &Arc<BrokerState>,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let mut response = WriteTxnMarkersResponse { markers: request.markers.iter().map(empty).collect() };
    let mut uncommitted = Vec::new();
    let mut of_groups = JoinSet::new();
    for (m, marker) in request.markers.iter().enumerate() {
        for (t, topic) in marker.topics.iter().enumerate() {
            for (p, index) in topic.partition_indexes.iter().enumerate() {
                let at = (m, t, p);
                if topic.name == OFFSETS_TOPIC {
                    // Through the group coordinator: the offsets count from then on.
                    let (broker, index, marker) = (Arc::clone(broker), *index, end_marker(marker));
                    of_groups.spawn(async move { (at, end_offsets(&broker, index, marker).await) });
                    continue;
                }
                match append(broker, &topic.name, *index, marker) {
                    Ok((partition, appended)) => uncommitted.push(Uncommitted { at, partition, appended }),
                    Err(code) => set(&mut response, at, code),
                }
            }
        }
    }
    let deadline = tokio::time::Instant::now() + COMMIT_TIMEOUT;
    for Uncommitted { at, partition, appended } in uncommitted {
        let code = match tokio::time::timeout_at(deadline, partition.committed(&appended)).await {
            Ok(Ok(())) => ErrorCode::None,
            Ok(Err(error)) => partition_error_code(&error),
            Err(_) => ErrorCode::RequestTimedOut,
        };
        set(&mut response, at, code);
    }
    // What is not done by then is said to be so, and sent again.
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, of_groups.join_next()).await {
        match ended {
            Ok((at, code)) => set(&mut response, at, code),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => {}
        }
    }
    response
}

/// The result of a marker, with nothing known yet.
fn empty(marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let topics = marker.topics.iter().map(|topic| WritableTxnMarkerTopicResult {
        name: topic.name.clone(),
        partitions: topic
            .partition_indexes
            .iter()
            .map(|index| WritableTxnMarkerPartitionResult {
                partition_index: *index,
                error_code: ErrorCode::RequestTimedOut.code(),
            })
            .collect(),
    });
    WritableTxnMarkerResult { producer_id: marker.producer_id, topics: topics.collect() }
}

fn set(response: &mut WriteTxnMarkersResponse, (m, t, p): At, code: ErrorCode) {
    let topic = response.markers.get_mut(m).and_then(|marker| marker.topics.get_mut(t));
    if let Some(partition) = topic.and_then(|topic| topic.partitions.get_mut(p)) {
        partition.error_code = code.code();
    }
}

fn append(
    broker: &BrokerState,
    topic: &str,
    index: i32,
    marker: &WritableTxnMarker,
) -> Result<(Arc<Partition>, Appended), ErrorCode> {
    if topic == TRANSACTIONS_TOPIC {
        // No transaction can have records there, whoever has added it: nothing is to be ended.
        return Err(ErrorCode::UnsupportedForMessageFormat);
    }
    let found = broker.replicas.topic(topic).map_or(Ok(None), |topic| topic.partition(index));
    let told = |error: PartitionError| partition_error_code(&error);
    let partition = found.map_err(told)?.ok_or_else(|| absent(broker, topic, index))?;
    let marker = Marker {
        producer_id: ProducerId::new(marker.producer_id),
        producer_epoch: ProducerEpoch::new(marker.producer_epoch),
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.transaction_result,
        tv2: marker.transaction_version >= VERSION_BUMP,
    };
    let appended = partition.append_marker(&marker).map_err(told)?;
    Ok((partition, appended))
}

/// A partition that this broker has no replica of: another one has it, or nobody.
fn absent(broker: &BrokerState, topic: &str, index: i32) -> ErrorCode {
    let image = broker.image();
    let partition = image
        .topic(topic)
        .and_then(|topic| usize::try_from(index).ok().and_then(|index| topic.partitions.get(index)));
    if partition.is_some() { ErrorCode::NotLeaderOrFollower } else { ErrorCode::UnknownTopicOrPartition }
}

const fn end_marker(marker: &WritableTxnMarker) -> EndMarker {
    EndMarker {
        producer: TransactionalProducer {
            id: ProducerId::new(marker.producer_id),
            epoch: ProducerEpoch::new(marker.producer_epoch),
        },
        coordinator_epoch: marker.coordinator_epoch,
        commit: marker.transaction_result,
        bumps_epoch: marker.transaction_version >= VERSION_BUMP,
    }
}

async fn end_offsets(broker: &BrokerState, index: i32, marker: EndMarker) -> ErrorCode {
    let Some(groups) = groups(broker) else { return ErrorCode::NotLeaderOrFollower };
    match groups.complete_transaction(index, marker).await {
        // As in Kafka: it is not this broker's to write, or not yet.
        ErrorCode::NotCoordinator
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::CoordinatorLoadInProgress => ErrorCode::NotLeaderOrFollower,
        code => code,
    }
}
