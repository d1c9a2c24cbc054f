//! The way to the share coordinator of a share partition: here, or on another broker. Each call is one attempt;
//! [`patiently`] tries again what may come right.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use towpath_coordinator::share::{ShareCoordinator, ShareKey, ShareWrite, SharedState, StateSummary};
use towpath_types::BrokerId;
use towpath_wire::share_group_records::StateBatch;
use towpath_wire::{
    DeleteShareGroupStateRequest, ErrorCode, InitializeShareGroupStateRequest, ReadShareGroupStateRequest,
    ReadShareGroupStateSummaryRequest, Request, WriteShareGroupStateRequest,
    delete_share_group_state as delete, initialize_share_group_state as initialize,
    read_share_group_state as read_state, read_share_group_state_summary as read_summary,
    write_share_group_state as write_state,
};

use crate::cluster::forward;
use crate::connection::ErrorChain;
use crate::state::{BrokerState, SHARE_STATE_TOPIC};

/// How long another broker may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long until the next attempt, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Who coordinates a share partition.
enum Coordinator<'a> {
    Here(&'a ShareCoordinator),
    There(BrokerId),
}

/// Makes sure that the state topic is there, and finds who coordinates a share partition.
async fn coordinator<'a>(broker: &'a Arc<BrokerState>, key: &ShareKey) -> Result<Coordinator<'a>, ErrorCode> {
    let shares = broker.share_states.get().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    let not_available = ErrorCode::CoordinatorNotAvailable;
    if let Err(error) = shares.ensure_topic().await {
        tracing::warn!(error = %ErrorChain(&error), "the share groups' state topic cannot be created");
        return Err(not_available);
    }
    let partition = shares.partition_of(&key.to_string()).ok_or(not_available)?;
    let image = broker.image();
    let leader = image
        .topic(SHARE_STATE_TOPIC)
        .and_then(|topic| topic.partitions.get(usize::try_from(partition).ok()?)?.leader)
        .ok_or(not_available)?;
    Ok(if leader == broker.config.node_id { Coordinator::Here(shares) } else { Coordinator::There(leader) })
}

/// Asks another broker.
///
/// # Errors
/// `NETWORK_EXCEPTION`: whether it was carried out is then unknown.
pub(super) async fn ask<R: Request>(
    broker: &BrokerState,
    other: BrokerId,
    request: &R,
) -> Result<R::Response, ErrorCode> {
    let node = broker.cluster().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    forward::ask_broker(node, other, request, ASK_TIMEOUT).await.map_err(|error| {
        tracing::debug!(%error, "another broker cannot be asked about a share group");
        ErrorCode::NetworkException
    })
}

fn outcome(code: Option<i16>) -> Result<(), ErrorCode> {
    match code.map(ErrorCode::from_code) {
        Some(ErrorCode::None) => Ok(()),
        Some(error) => Err(error),
        None => Err(ErrorCode::UnknownServerError),
    }
}

/// Begins a share partition, or begins it anew under a newer state epoch.
///
/// # Errors
/// What the coordinator says, or that there is none.
pub(crate) async fn initialize(
    broker: &Arc<BrokerState>,
    key: &ShareKey,
    state_epoch: i32,
    start_offset: i64,
) -> Result<(), ErrorCode> {
    let there = match coordinator(broker, key).await? {
        Coordinator::Here(shares) => return shares.initialize(key.clone(), state_epoch, start_offset).await,
        Coordinator::There(there) => there,
    };
    let partitions = vec![initialize::PartitionData { partition: key.partition, state_epoch, start_offset }];
    let request = InitializeShareGroupStateRequest {
        group_id: (*key.group).to_owned(),
        topics: vec![initialize::InitializeStateData { topic_id: key.topic.get(), partitions }],
    };
    let response = ask(broker, there, &request).await?;
    outcome(response.results.first().and_then(|it| it.partitions.first()).map(|it| it.error_code))
}

/// Reads a state; leaders of older epochs write nothing from then on. The state epoch is -1 where there is none.
///
/// # Errors
/// As [`initialize`].
pub(crate) async fn read(
    broker: &Arc<BrokerState>,
    key: &ShareKey,
    leader_epoch: i32,
) -> Result<SharedState, ErrorCode> {
    let there = match coordinator(broker, key).await? {
        Coordinator::Here(shares) => return shares.read(key.clone(), leader_epoch).await,
        Coordinator::There(there) => there,
    };
    let partitions = vec![read_state::PartitionData { partition: key.partition, leader_epoch }];
    let request = ReadShareGroupStateRequest {
        group_id: (*key.group).to_owned(),
        topics: vec![read_state::ReadStateData { topic_id: key.topic.get(), partitions }],
    };
    let response = ask(broker, there, &request).await?;
    let found = response.results.into_iter().flat_map(|it| it.partitions).next();
    let found = found.ok_or(ErrorCode::UnknownServerError)?;
    outcome(Some(found.error_code))?;
    let batch = |batch: read_state::StateBatch| StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    let summary = StateSummary {
        state_epoch: found.state_epoch,
        leader_epoch,
        start_offset: found.start_offset,
        delivery_complete_count: -1,
    };
    Ok(SharedState { summary, batches: found.state_batches.into_iter().map(batch).collect() })
}

/// Writes what has changed; it is committed when this returns.
///
/// # Errors
/// As [`initialize`].
pub(crate) async fn write(
    broker: &Arc<BrokerState>,
    key: &ShareKey,
    write: &ShareWrite,
) -> Result<(), ErrorCode> {
    let there = match coordinator(broker, key).await? {
        Coordinator::Here(shares) => return shares.write(key.clone(), write).await,
        Coordinator::There(there) => there,
    };
    let batch = |batch: &StateBatch| write_state::StateBatch {
        first_offset: batch.first_offset,
        last_offset: batch.last_offset,
        delivery_state: batch.delivery_state,
        delivery_count: batch.delivery_count,
    };
    let partitions = vec![write_state::PartitionData {
        partition: key.partition,
        state_epoch: write.state_epoch,
        leader_epoch: write.leader_epoch,
        start_offset: write.start_offset,
        delivery_complete_count: write.delivery_complete_count,
        state_batches: write.batches.iter().map(batch).collect(),
    }];
    let request = WriteShareGroupStateRequest {
        group_id: (*key.group).to_owned(),
        topics: vec![write_state::WriteStateData { topic_id: key.topic.get(), partitions }],
    };
    let response = ask(broker, there, &request).await?;
    outcome(response.results.first().and_then(|it| it.partitions.first()).map(|it| it.error_code))
}

/// Forgets a state.
///
/// # Errors
/// As [`initialize`].
pub(crate) async fn delete(broker: &Arc<BrokerState>, key: &ShareKey) -> Result<(), ErrorCode> {
    let there = match coordinator(broker, key).await? {
        Coordinator::Here(shares) => return shares.delete(key.clone()).await,
        Coordinator::There(there) => there,
    };
    let partitions = vec![delete::PartitionData { partition: key.partition }];
    let request = DeleteShareGroupStateRequest {
        group_id: (*key.group).to_owned(),
        topics: vec![delete::DeleteStateData { topic_id: key.topic.get(), partitions }],
    };
    let response = ask(broker, there, &request).await?;
    outcome(response.results.first().and_then(|it| it.partitions.first()).map(|it| it.error_code))
}

/// What is known of a share partition without its batches; the state epoch is -1 where there is none.
///
/// # Errors
/// As [`initialize`].
pub(crate) async fn summary(broker: &Arc<BrokerState>, key: &ShareKey) -> Result<StateSummary, ErrorCode> {
    let none =
        StateSummary { state_epoch: -1, leader_epoch: -1, start_offset: -1, delivery_complete_count: -1 };
    let there = match coordinator(broker, key).await? {
        Coordinator::Here(shares) => return shares.summary(key).map(|known| known.unwrap_or(none)),
        Coordinator::There(there) => there,
    };
    let partitions = vec![read_summary::PartitionData { partition: key.partition, leader_epoch: -1 }];
    let request = ReadShareGroupStateSummaryRequest {
        group_id: (*key.group).to_owned(),
        topics: vec![read_summary::ReadStateSummaryData { topic_id: key.topic.get(), partitions }],
    };
    let response = ask(broker, there, &request).await?;
    let found = response.results.into_iter().flat_map(|it| it.partitions).next();
    let found = found.ok_or(ErrorCode::UnknownServerError)?;
    outcome(Some(found.error_code))?;
    Ok(StateSummary {
        state_epoch: found.state_epoch,
        leader_epoch: found.leader_epoch,
        start_offset: found.start_offset,
        delivery_complete_count: found.delivery_complete_count,
    })
}

/// Whether the same may come right when it is tried again.
const fn may_come_right(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
            | ErrorCode::NetworkException
            | ErrorCode::RequestTimedOut
            // A new leader has not caught up with itself (KIP-207).
            | ErrorCode::OffsetNotAvailable
    )
}

/// Tries until it works, it cannot come right, or `patience` is over; `goes_on` is asked before every attempt but the
/// first.
///
/// # Errors
/// Those of the last attempt.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, ErrorCode>>>(
    patience: Duration,
    goes_on: impl Fn() -> bool,
    mut attempt: impl FnMut() -> F,
) -> Result<T, ErrorCode> {
    let deadline = tokio::time::Instant::now() + patience;
    let mut pause = RETRY_MIN;
    loop {
        match attempt().await {
            Err(error) if may_come_right(error) && tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
                if !goes_on() {
                    return Err(error);
                }
            }
            result => return result,
        }
    }
}
