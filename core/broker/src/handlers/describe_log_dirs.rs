//! DescribeLogDirs: what lies where, and how much of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_controller::MetadataImage;
use towpath_replica::Partition;
use towpath_wire::describe_log_dirs::{DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic};
use towpath_wire::{DescribeLogDirsRequest, DescribeLogDirsResponse, ErrorCode};

use super::RequestContext;
use crate::state::BrokerState;

pub(super) async fn handle(
    broker: Arc<BrokerState>,
    _cx: RequestContext,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let dir = broker.replicas.dir();
    let path = std::path::absolute(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    let mut result =
        DescribeLogDirsResult { log_dir: path.display().to_string(), ..DescribeLogDirsResult::default() };
    if dir.offline_reason().is_some() {
        result.error_code = ErrorCode::KafkaStorageError.code();
    } else {
        result.topics = topics(&broker, &request, &broker.image());
        let (total, usable) = match rustix::fs::statvfs(&path) {
            Ok(volume) => (bytes(volume.f_blocks, volume.f_frsize), bytes(volume.f_bavail, volume.f_frsize)),
            Err(_) => (-1, -1),
        };
        result.total_bytes = total;
        result.usable_bytes = usable;
    }
    DescribeLogDirsResponse { results: vec![result], ..DescribeLogDirsResponse::default() }
}

fn bytes(blocks: u64, block_bytes: u64) -> i64 {
    i64::try_from(blocks.saturating_mul(block_bytes)).unwrap_or(i64::MAX)
}

fn describe(index: i32, partition: Option<&Partition>) -> DescribeLogDirsPartition {
    let size = partition.map_or(0, |partition| partition.log().size_in_bytes());
    DescribeLogDirsPartition {
        partition_index: index,
        partition_size: i64::try_from(size).unwrap_or(i64::MAX),
        offset_lag: 0,
        is_future_key: false,
    }
}

fn topics(broker: &BrokerState, request: &DescribeLogDirsRequest, image: &MetadataImage) -> Vec<DescribeLogDirsTopic> {
    let mut asked: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    match &request.topics {
        Some(topics) => topics.iter().for_each(|topic| asked.entry(&topic.topic).or_default().extend(&topic.partitions)),
        None => {
            for topic in image.topics() {
                let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                asked.insert(topic.name.as_str(), (0..count).collect());
            }
        }
    }
    let described = asked.into_iter().filter_map(|(name, indices)| {
        let topic = image.topic(name)?;
        let replicas = broker.replicas.topic(name)?;
        let known = |index: &i32| usize::try_from(*index).is_ok_and(|index| index < topic.partitions.len());
        let partitions: Vec<_> = indices
            .into_iter()
            .filter(known)
            .map(|index| describe(index, replicas.open_partition(index).as_deref()))
            .collect();
        Some(DescribeLogDirsTopic { name: name.to_owned(), partitions })
    });
    described.filter(|topic| !topic.partitions.is_empty()).collect()
}
