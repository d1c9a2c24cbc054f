//! DescribeLogDirs: what lies in which directory, and how much of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use towpath_log::{FutureKey, Log, LogDir};
use towpath_wire::describe_log_dirs::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use towpath_wire::{DescribeLogDirsRequest, DescribeLogDirsResponse, ErrorCode};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let dirs = broker.replicas.dirs();
    let failed = |path: &Path| DescribeLogDirsResult {
        log_dir: absolute(path),
        error_code: ErrorCode::KafkaStorageError.code(),
        ..DescribeLogDirsResult::default()
    };
    // Looked at once: a replica that takes another place meanwhile is told in one of them.
    let in_use: InUse = broker
        .replicas
        .partitions()
        .iter()
        .map(|partition| ((partition.topic_id(), partition.id().partition), Arc::clone(partition.log())))
        .collect();
    let mut results: Vec<_> = dirs
        .all()
        .iter()
        .map(|dir| match dir.offline_reason() {
            Some(_) => failed(dir.path()),
            None => describe(&broker, dir, &request, &in_use),
        })
        .collect();
    results.extend(dirs.unusable().iter().filter_map(|dir| dir.path.as_deref()).map(failed));
    DescribeLogDirsResponse { results, ..DescribeLogDirsResponse::default() }
}

/// The logs of the partitions that are open.
type InUse = HashMap<FutureKey, Arc<Log>>;

/// The path by which a directory is told, and by which it is named in requests.
pub(super) fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn bytes(blocks: u64, block_bytes: u64) -> i64 {
    i64::try_from(blocks.saturating_mul(block_bytes)).unwrap_or(i64::MAX)
}

fn describe(
    broker: &BrokerState,
    dir: &LogDir,
    request: &DescribeLogDirsRequest,
    in_use: &InUse,
) -> DescribeLogDirsResult {
    let (total_bytes, usable_bytes) = match rustix::fs::statvfs(dir.path()) {
        Ok(volume) => (bytes(volume.f_blocks, volume.f_frsize), bytes(volume.f_bavail, volume.f_frsize)),
        Err(_) => (-1, -1),
    };
    DescribeLogDirsResult {
        log_dir: absolute(dir.path()),
        topics: topics(broker, dir, request, in_use),
        total_bytes,
        usable_bytes,
        ..DescribeLogDirsResult::default()
    }
}

fn partition(log: &Log, lag: i64, is_future_key: bool) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition {
        partition_index: log.partition().partition,
        partition_size: i64::try_from(log.size_in_bytes()).unwrap_or(i64::MAX),
        offset_lag: lag,
        is_future_key,
    }
}

/// How many records a partition has that its log here has not: a copy lags behind the log, a log behind the high watermark.
fn lag(broker: &BrokerState, log: &Log, is_copy: bool) -> i64 {
    let topic = broker.replicas.topic_by_id(log.topic_id());
    let Some(partition) = topic.and_then(|topic| topic.open_partition(log.partition().partition)) else { return 0 };
    let end = if is_copy { partition.log().log_end_offset() } else { partition.high_watermark() };
    (end.get() - log.log_end_offset().get()).max(0)
}

fn topics(
    broker: &BrokerState,
    dir: &LogDir,
    request: &DescribeLogDirsRequest,
    in_use: &InUse,
) -> Vec<DescribeLogDirsTopic> {
    let asked: Option<BTreeMap<&str, BTreeSet<i32>>> = request.topics.as_ref().map(|topics| {
        let mut asked: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
        topics.iter().for_each(|topic| asked.entry(&topic.topic).or_default().extend(&topic.partitions));
        asked
    });
    let image = broker.image();
    let mut found: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let logs = dir.logs().into_iter().map(|log| (log, false));
    let copies = dir.futures().into_iter().map(|(_, log)| (log, true));
    for (log, is_copy) in logs.chain(copies) {
        // The metadata log is no topic that anybody has.
        let Some(topic) = image.topic_by_id(log.topic_id()) else { continue };
        let (name, index) = (topic.name.as_str(), log.partition().partition);
        let used = in_use.get(&(log.topic_id(), index));
        if !is_copy && used.is_some_and(|used| !Arc::ptr_eq(used, &log)) {
            continue;
        }
        let is_asked =
            asked.as_ref().is_none_or(|asked| asked.get(name).is_some_and(|some| some.contains(&index)));
        if is_asked {
            let lag = lag(broker, &log, is_copy);
            found.entry(name.to_owned()).or_default().push(partition(&log, lag, is_copy));
        }
    }
    let topic = |(name, partitions)| DescribeLogDirsTopic { name, partitions };
    found.into_iter().map(topic).collect()
}
