//! Lookups of offsets at the partitions' leaders.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use towpath_types::{LeaderEpoch, Offset, TopicPartition};
use towpath_wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use towpath_wire::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use towpath_wire::{ApiKey, ErrorCode};

use crate::admin::{ListedOffset, PerItem};
use crate::client::{ClientInner, SHARED_CHANNEL, check};
use crate::connection::Connection;
use crate::{ClientError, IsolationLevel};

/// Where a leader's log of the epoch `epoch` ends; `None` when it cannot tell (KIP-320).
pub(crate) async fn end_of_epoch(
    connection: &Connection,
    limit: Duration,
    partition: &TopicPartition,
    current: i32,
    epoch: i32,
) -> Result<Option<Offset>, ClientError> {
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: partition.topic.as_str().to_owned(),
            partitions: vec![OffsetForLeaderPartition {
                partition: partition.partition,
                current_leader_epoch: current,
                leader_epoch: epoch,
            }],
        }],
    };
    let response = connection.request(&request, limit).await?;
    let answer = response.topics.first().and_then(|topic| topic.partitions.first());
    let api = ApiKey::OffsetForLeaderEpoch;
    let Some(answer) = answer else {
        let broker = Arc::clone(connection.broker());
        return Err(ClientError::Malformed { broker, api, problem: "it leaves out the partition" });
    };
    check(answer.error_code, None, api, connection.broker(), partition)?;
    Ok((answer.end_offset >= 0).then(|| Offset::new(answer.end_offset)))
}

impl ClientInner {
    /// Where the leader's log ends, beyond what is committed; `None` when it cannot tell.
    pub(crate) async fn log_end_offset(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<Offset>, ClientError> {
        let mut retry = self.retrying("looking up the log's end", self.config.api_timeout_ms);
        loop {
            let error = match self.log_end_offset_once(partition).await {
                Err(error) => error,
                found => return found,
            };
            if error.wants_metadata() {
                // A failure here shows in the next attempt.
                let _ = self.refresh(std::slice::from_ref(&partition.topic), false).await;
            }
            retry.after(error).await?;
        }
    }

    async fn log_end_offset_once(&self, partition: &TopicPartition) -> Result<Option<Offset>, ClientError> {
        let (leader, epoch, _) = self.leader(partition).await?;
        let connection = self.connection(leader, SHARED_CHANNEL).await?;
        if epoch < 0 || connection.version_of(ApiKey::OffsetForLeaderEpoch).is_err() {
            return Ok(None);
        }
        end_of_epoch(&connection, self.request_timeout(), partition, epoch, epoch).await
    }

    /// Looks up offsets by timestamp or by Kafka's special numbers; what heals by itself is retried until the API
    /// timeout.
    pub(crate) async fn list_offsets(
        &self,
        wanted: &[(TopicPartition, i64)],
        isolation: IsolationLevel,
    ) -> PerItem<TopicPartition, ListedOffset> {
        let mut results: PerItem<TopicPartition, ListedOffset> = BTreeMap::new();
        let mut left: Vec<(TopicPartition, i64)> = wanted.to_vec();
        let mut retry = self.retrying("looking up offsets", self.config.api_timeout_ms);
        loop {
            let round = self.list_offsets_once(&left, isolation).await;
            let mut again = None;
            let mut stale = Vec::new();
            left.retain(|(partition, _)| match round.get(partition) {
                Some(Err(error)) if error.is_retriable() => {
                    if error.wants_metadata() {
                        stale.push(partition.topic.clone());
                    }
                    again = Some(error.clone());
                    true
                }
                _ => false,
            });
            results.extend(round);
            let Some(error) = again else { return results };
            stale.dedup();
            if retry.after(error).await.is_err() {
                // Every partition that is left keeps its own last error.
                return results;
            }
            if !stale.is_empty() {
                // A failure here shows in the next round.
                let _ = self.refresh(&stale, false).await;
            }
        }
    }

    /// As [`Self::list_offsets`], without trying again.
    pub(crate) async fn list_offsets_once(
        &self,
        wanted: &[(TopicPartition, i64)],
        isolation: IsolationLevel,
    ) -> PerItem<TopicPartition, ListedOffset> {
        let mut results = BTreeMap::new();
        let mut by_node: HashMap<i32, Vec<(TopicPartition, i32, i64)>> = HashMap::new();
        for (partition, timestamp) in wanted {
            match self.leader(partition).await {
                Ok((node, epoch, _)) => {
                    by_node.entry(node).or_default().push((partition.clone(), epoch, *timestamp));
                }
                Err(error) => {
                    results.insert(partition.clone(), Err(error));
                }
            }
        }
        let asked = by_node.into_iter().map(|(node, partitions)| async move {
            let answer = self.list_offsets_of(node, &partitions, isolation).await;
            (partitions, answer)
        });
        for (partitions, answer) in join_all(asked).await {
            match answer {
                Ok(mut found) => {
                    for (partition, ..) in partitions {
                        let missing = || {
                            let problem = "it leaves out a partition";
                            let broker = "the leader".into();
                            Err(ClientError::Malformed { broker, api: ApiKey::ListOffsets, problem })
                        };
                        let result = found.remove(&partition).unwrap_or_else(missing);
                        results.insert(partition, result);
                    }
                }
                Err(error) => {
                    results.extend(partitions.into_iter().map(|(p, ..)| (p, Err(error.clone()))));
                }
            }
        }
        results
    }

    async fn list_offsets_of(
        &self,
        node: i32,
        partitions: &[(TopicPartition, i32, i64)],
        isolation: IsolationLevel,
    ) -> Result<PerItem<TopicPartition, ListedOffset>, ClientError> {
        let mut topics: Vec<ListOffsetsTopic> = Vec::new();
        for (partition, epoch, timestamp) in partitions {
            let entry = ListOffsetsPartition {
                partition_index: partition.partition,
                current_leader_epoch: *epoch,
                timestamp: *timestamp,
            };
            match topics.iter_mut().find(|topic| topic.name == partition.topic.as_str()) {
                Some(topic) => topic.partitions.push(entry),
                None => topics.push(ListOffsetsTopic {
                    name: partition.topic.as_str().to_owned(),
                    partitions: vec![entry],
                }),
            }
        }
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: isolation.wire(),
            topics,
            timeout_ms: i32::try_from(self.config.request_timeout_ms).unwrap_or(i32::MAX),
        };
        let connection = self.connection(node, SHARED_CHANNEL).await?;
        let response = connection.request(&request, self.request_timeout()).await?;
        let names: HashMap<&str, _> = partitions.iter().map(|(p, ..)| (p.topic.as_str(), &p.topic)).collect();
        let mut results = BTreeMap::new();
        for topic in &response.topics {
            let Some(name) = names.get(topic.name.as_str()) else { continue };
            for entry in &topic.partitions {
                let partition = TopicPartition::new((*name).clone(), entry.partition_index);
                let api = ApiKey::ListOffsets;
                let result = check(entry.error_code, None, api, connection.broker(), &partition);
                let listed = ListedOffset {
                    offset: (entry.offset >= 0).then(|| Offset::new(entry.offset)),
                    timestamp_ms: (entry.timestamp >= 0).then_some(entry.timestamp),
                    leader_epoch: LeaderEpoch::new(entry.leader_epoch),
                };
                results.insert(partition, result.map(|()| listed));
            }
        }
        Ok(results)
    }
}

/// Whether a code says that the position is not in the log.
pub(crate) fn is_out_of_range(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::OffsetOutOfRange | ErrorCode::PositionOutOfRange)
}
