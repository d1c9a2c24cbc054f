//! ListOffsets: the first, last and timestamped offsets of partitions.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_replica::{Isolation, Partition, PartitionError};
use towpath_types::{LeaderEpoch, Offset};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use towpath_wire::{ErrorCode, ListOffsetsRequest, ListOffsetsResponse};

use super::{RequestContext, partition_error_code};
use crate::state::BrokerState;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;
/// The number of a tool that looks at a partition as it is.
const DEBUGGING_REPLICA: i32 = -2;

/// What a lookup found: timestamp, offset, leader epoch.
type Located = (i64, Offset, Option<LeaderEpoch>);

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    cx: RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let mut partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    if !partitions.any(|asked| asked.timestamp >= 0 || asked.timestamp == MAX_TIMESTAMP) {
        return list_all(&broker, &cx, &request);
    }
    // Times are looked up in files: not on a thread that serves connections.
    let place = Arc::clone(&broker.heavy_work).acquire_owned().await;
    let task = tokio::task::spawn_blocking(move || {
        let _place = place;
        list_all(&broker, &cx, &request)
    });
    match task.await {
        Ok(response) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends.
        Err(_) => ListOffsetsResponse::default(),
    }
}

fn list_all(broker: &BrokerState, cx: &RequestContext, request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let mut times: HashMap<(&str, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *times.entry((topic.name.as_str(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let replicas = broker.replicas.topic(&topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            // What is named twice is refused, and once.
            match times.remove(&(topic.name.as_str(), asked.partition_index)) {
                Some(1) => {}
                Some(_) => {
                    partitions.push(failed(asked, ErrorCode::InvalidRequest));
                    continue;
                }
                None => continue,
            }
            let partition = replicas.as_ref().map_or(Ok(None), |topic| topic.partition(asked.partition_index));
            partitions.push(match partition {
                Ok(Some(partition)) => list(&partition, cx.version, reader(cx, request), asked),
                Ok(None) => failed(asked, ErrorCode::UnknownTopicOrPartition),
                Err(error) => failed(asked, partition_error_code(&error)),
            });
        }
        if !partitions.is_empty() {
            topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
        }
    }
    ListOffsetsResponse { topics, ..ListOffsetsResponse::default() }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Consumer(Isolation),
    /// A broker that follows: it sees the end of the log.
    Follower,
    /// A tool that looks at a partition as it is, whoever leads it.
    Debugging,
}

fn reader(cx: &RequestContext, request: &ListOffsetsRequest) -> Reader {
    match request.replica_id {
        DEBUGGING_REPLICA => Reader::Debugging,
        id if cx.node.is_some_and(|node| node.get() == id) => Reader::Follower,
        _ if request.isolation_level == 1 => Reader::Consumer(Isolation::ReadCommitted),
        _ => Reader::Consumer(Isolation::ReadUncommitted),
    }
}

fn failed(asked: &ListOffsetsPartition, code: ErrorCode) -> ListOffsetsPartitionResponse {
    ListOffsetsPartitionResponse {
        partition_index: asked.partition_index,
        error_code: code.code(),
        ..ListOffsetsPartitionResponse::default()
    }
}

fn list(
    partition: &Partition,
    version: i16,
    reader: Reader,
    asked: &ListOffsetsPartition,
) -> ListOffsetsPartitionResponse {
    // Each special timestamp belongs to the versions that know it.
    let min_version = match asked.timestamp {
        MAX_TIMESTAMP => 7,
        EARLIEST_LOCAL => 8,
        LATEST_TIERED => 9,
        EARLIEST_PENDING_UPLOAD => 11,
        _ => 0,
    };
    if version < min_version || asked.timestamp < EARLIEST_PENDING_UPLOAD {
        return failed(asked, ErrorCode::UnsupportedVersion);
    }
    let found = partition
        .check_epoch(LeaderEpoch::new(asked.current_leader_epoch))
        .and_then(|()| locate(partition, reader, asked.timestamp));
    match found {
        Ok(Some((timestamp, offset, epoch))) => ListOffsetsPartitionResponse {
            partition_index: asked.partition_index,
            error_code: ErrorCode::None.code(),
            timestamp,
            offset: offset.get(),
            leader_epoch: if version >= 4 { epoch.map_or(-1, LeaderEpoch::get) } else { -1 },
        },
        Ok(None) => failed(asked, ErrorCode::None),
        // Clients before version 5 know only the older word for "not yet".
        Err(PartitionError::OffsetNotAvailable) if version < 5 => failed(asked, ErrorCode::LeaderNotAvailable),
        Err(error) => failed(asked, partition_error_code(&error)),
    }
}

fn locate(partition: &Partition, reader: Reader, timestamp: i64) -> Result<Option<Located>, PartitionError> {
    let isolation = match reader {
        Reader::Consumer(isolation) => isolation,
        _ => Isolation::ReadUncommitted,
    };
    match timestamp {
        LATEST => {
            let offset = match reader {
                Reader::Consumer(isolation) => partition.latest_offset(isolation)?,
                Reader::Follower => partition.leader_log_end()?,
                Reader::Debugging => partition.log().log_end_offset(),
            };
            Ok(Some((-1, offset, Some(partition.leader_epoch()))))
        }
        EARLIEST | EARLIEST_LOCAL => {
            let start = match reader {
                Reader::Debugging => partition.log().log_start_offset(),
                _ => partition.earliest_offset()?,
            };
            let epoch = partition.log().epoch_at(start).unwrap_or(partition.leader_epoch());
            Ok(Some((-1, start, Some(epoch))))
        }
        // Nothing is tiered and nothing waits to be.
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => Ok(None),
        MAX_TIMESTAMP => Ok(partition.max_timestamp(isolation)?.map(|found| (found.timestamp, found.offset, found.leader_epoch))),
        at_least => {
            Ok(partition.lookup_timestamp(at_least, isolation)?.map(|found| (found.timestamp, found.offset, found.leader_epoch)))
        }
    }
}
