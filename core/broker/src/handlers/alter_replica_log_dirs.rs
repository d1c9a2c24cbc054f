//! AlterReplicaLogDirs: moves replicas to other directories of this broker (KIP-113). The answer says that a move has begun.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_log::LogDir;
use towpath_wire::alter_replica_log_dirs::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult};
use towpath_wire::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, ErrorCode};

use super::describe_log_dirs::absolute;
use super::{RequestContext, partition_error_code};
use crate::connection::ErrorChain;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let failed: Vec<(String, i32)> = request
        .dirs
        .iter()
        .flat_map(|dir| &dir.topics)
        .flat_map(|topic| topic.partitions.iter().map(|index| (topic.name.clone(), *index)))
        .collect();
    // Files are made.
    match tokio::task::spawn_blocking(move || begin_all(&broker, &request)).await {
        Ok(results) => answer(results),
        Err(error) => {
            tracing::error!(%error, "moves of replicas cannot be begun");
            answer(failed.into_iter().map(|key| (key, ErrorCode::UnknownServerError)).collect())
        }
    }
}

type Results = Vec<((String, i32), ErrorCode)>;

fn begin_all(broker: &BrokerState, request: &AlterReplicaLogDirsRequest) -> Results {
    let mut results = Results::new();
    for dir in &request.dirs {
        let to = directory(broker, &dir.path);
        for topic in &dir.topics {
            for index in &topic.partitions {
                let begun = match &to {
                    Ok(to) => begin(broker, &topic.name, *index, to),
                    Err(code) => Err(*code),
                };
                let code = begun.err().unwrap_or(ErrorCode::None);
                results.push(((topic.name.clone(), *index), code));
            }
        }
    }
    results
}

fn directory(broker: &BrokerState, path: &str) -> Result<Arc<LogDir>, ErrorCode> {
    let named = std::path::Path::new(path);
    let dirs = broker.replicas.dirs();
    let found = dirs.all().iter().find(|dir| named.is_absolute() && absolute(dir.path()) == absolute(named));
    let is_unusable = || {
        let mut unusable = dirs.unusable().into_iter().filter_map(|dir| dir.path);
        unusable.any(|dir| absolute(&dir) == absolute(named))
    };
    match found {
        Some(dir) if dir.offline_reason().is_none() => Ok(Arc::clone(dir)),
        Some(_) => Err(ErrorCode::KafkaStorageError),
        None if is_unusable() => Err(ErrorCode::KafkaStorageError),
        None => Err(ErrorCode::LogDirNotFound),
    }
}

fn begin(broker: &BrokerState, topic: &str, index: i32, to: &Arc<LogDir>) -> Result<(), ErrorCode> {
    let image = broker.image();
    let known = image.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let state = usize::try_from(index).ok().and_then(|index| known.partitions.get(index));
    let state = state.ok_or(ErrorCode::UnknownTopicOrPartition)?;
    if !state.replicas.contains(&broker.config.node_id) {
        return Err(ErrorCode::ReplicaNotAvailable);
    }
    let replicas = broker.replicas.topic_by_id(known.id).ok_or(ErrorCode::ReplicaNotAvailable)?;
    broker.replicas.move_replica(&replicas, index, to).map_err(|error| {
        tracing::warn!(topic, index, error = %ErrorChain(&error), "the move of a replica cannot be begun");
        partition_error_code(&error)
    })
}

fn answer(results: Results) -> AlterReplicaLogDirsResponse {
    let mut by_topic: Vec<AlterReplicaLogDirTopicResult> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for ((topic_name, partition_index), code) in results {
        let place = *places.entry(topic_name.clone()).or_insert_with(|| {
            by_topic.push(AlterReplicaLogDirTopicResult { topic_name, partitions: Vec::new() });
            by_topic.len() - 1
        });
        let result = AlterReplicaLogDirPartitionResult { partition_index, error_code: code.code() };
        by_topic[place].partitions.push(result);
    }
    AlterReplicaLogDirsResponse { results: by_topic, ..AlterReplicaLogDirsResponse::default() }
}
