//! The driver: which partition a request belongs to, and the shapes of requests and answers by version.

mod consumer;
mod partition;
mod share;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use towpath_types::TopicPartition;
use towpath_wire::delete_groups::DeletableGroupResult;
use towpath_wire::describe_groups::DescribedGroup;
use towpath_wire::leave_group::MemberIdentity;
use towpath_wire::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use towpath_wire::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, ErrorCode,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse,
};

use self::partition::Partition;
pub use self::partition::{PartitionState, PartitionStatus};
use crate::config::GroupConfig;
use crate::hash::partition_for;
use crate::log::{CoordinatorLog, CoordinatorLogError};
use crate::machine::{ClientContext, HeldBytes, Reply, commit_error, join_error, sync_error};
use crate::topics::{NoTopics, Topics};

/// Milliseconds since 1970 UTC, for what is stored.
pub trait Clock: Send + Sync + 'static {
    /// The time.
    fn now_ms(&self) -> i64;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

struct Inner {
    config: GroupConfig,
    log: Arc<dyn CoordinatorLog>,
    clock: Arc<dyn Clock>,
    partitions: Mutex<HashMap<i32, Arc<Partition>>>,
    topics: Mutex<Arc<dyn Topics>>,
    /// What the groups of all partitions hold (R10).
    held: Arc<HeldBytes>,
    is_stopped: AtomicBool,
}

/// The group coordinator of a broker. Cheap to clone. Everything that it serves lies in the offsets topic; a
/// partition is loaded when its broker begins to lead it, or when it is first asked for.
#[derive(Clone)]
pub struct GroupCoordinator {
    inner: Arc<Inner>,
}

impl fmt::Debug for GroupCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.inner.partitions.lock().len();
        f.debug_struct("GroupCoordinator").field("partitions", &loaded).finish_non_exhaustive()
    }
}

impl GroupCoordinator {
    /// A coordinator over `log`, by the system's clock.
    #[must_use]
    pub fn new(config: GroupConfig, log: Arc<dyn CoordinatorLog>) -> Self {
        Self::with_clock(config, log, Arc::new(SystemClock))
    }

    /// A coordinator by a clock of its own.
    #[must_use]
    pub fn with_clock(config: GroupConfig, log: Arc<dyn CoordinatorLog>, clock: Arc<dyn Clock>) -> Self {
        let partitions = Mutex::new(HashMap::new());
        let topics: Mutex<Arc<dyn Topics>> = Mutex::new(Arc::new(NoTopics));
        let is_stopped = AtomicBool::new(false);
        let held = Arc::default();
        Self { inner: Arc::new(Inner { config, log, clock, partitions, topics, held, is_stopped }) }
    }

    /// Begins to load every partition that this broker leads. Call it within a tokio runtime, once the log is there.
    pub fn start(&self) {
        for partition in 0..self.inner.log.partition_count().unwrap_or(0) {
            self.elected(partition);
        }
    }

    /// This broker leads `partition` from now on: loads it. Does nothing when it does not, or does already.
    pub fn elected(&self, partition: i32) {
        // Whoever asks for a group of it is told the same.
        let _not_led = self.partition(partition);
    }

    /// This broker does not lead `partition` any more: whoever waits is told to look for the new coordinator.
    pub fn resigned(&self, partition: i32) {
        if let Some(partition) = self.inner.partitions.lock().remove(&partition) {
            partition.close();
        }
    }

    /// Stops: what is on its way to the log is written, everybody else who waits is answered.
    pub async fn shutdown(&self) {
        self.inner.is_stopped.store(true, Ordering::Release);
        let partitions: Vec<_> =
            self.inner.partitions.lock().drain().map(|(_, partition)| partition).collect();
        partitions.iter().for_each(|partition| partition.close());
        for partition in partitions {
            partition.finished().await;
        }
    }

    /// How each partition is doing, in order.
    #[must_use]
    pub fn status(&self) -> Vec<PartitionStatus> {
        let partitions: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        let mut statuses: Vec<_> = partitions.iter().map(|partition| partition.status()).collect();
        statuses.sort_by_key(|status| status.partition);
        statuses
    }

    /// The partition of the offsets topic that holds `group`; `None` while there is no such topic.
    #[must_use]
    pub fn partition_of(&self, group: &str) -> Option<i32> {
        Some(partition_for(group, self.inner.log.partition_count()?))
    }

    /// Makes sure that the offsets topic is there or on its way.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        if self.inner.log.partition_count().is_some() {
            return Ok(());
        }
        self.inner.log.ensure_topic().await?;
        // A list of groups needs all partitions.
        self.start();
        Ok(())
    }

    fn partition(&self, id: i32) -> Result<Arc<Partition>, ErrorCode> {
        if self.inner.is_stopped.load(Ordering::Acquire) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let mut partitions = self.inner.partitions.lock();
        // With the lock held: of two that ask, none goes by an older term than the other.
        let Some(term) = self.inner.log.term(id) else {
            if let Some(partition) = partitions.remove(&id) {
                partition.close();
            }
            return Err(ErrorCode::NotCoordinator);
        };
        if let Some(partition) = partitions.get(&id) {
            if partition.term() == term {
                return Ok(Arc::clone(partition));
            }
            partition.close();
        }
        let inner = &self.inner;
        let log = Arc::clone(&inner.log);
        let topics = Arc::clone(&inner.topics.lock());
        let (clock, held) = (Arc::clone(&inner.clock), Arc::clone(&inner.held));
        let partition = Partition::new(id, term, inner.config.clone(), log, clock, topics, held);
        partitions.insert(id, Arc::clone(&partition));
        tokio::spawn(Arc::clone(&partition).run());
        Ok(partition)
    }

    fn find(&self, group: &str) -> Result<Arc<Partition>, ErrorCode> {
        self.partition(self.partition_of(group).ok_or(ErrorCode::CoordinatorNotAvailable)?)
    }

    /// Serves JoinGroup; waits until the generation is formed.
    pub async fn join_group(
        &self,
        client: &ClientContext,
        request: JoinGroupRequest,
        version: i16,
    ) -> JoinGroupResponse {
        let member = request.member_id.clone();
        let reply = match self.find(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Err(error) => Err(error),
            Ok(partition) => {
                let act = |machine: &mut crate::GroupMachine, now, waiter, out: &mut _| {
                    machine.join_group(now, waiter, client, request, version, out);
                };
                partition.ask(act).await
            }
        };
        let mut response = match reply {
            Ok(Reply::Join(response)) => response,
            Ok(_) => join_error(&member, ErrorCode::UnknownServerError),
            Err(error) => join_error(&member, error),
        };
        if version < 7 && response.protocol_name.is_none() {
            response.protocol_name = Some(String::new());
        }
        response
    }

    /// Serves SyncGroup; waits until the assignment is stored.
    pub async fn sync_group(&self, request: SyncGroupRequest) -> SyncGroupResponse {
        let reply = match self.find(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Err(error) => Err(error),
            Ok(partition) => {
                partition.ask(|machine, now, waiter, out| machine.sync_group(now, waiter, request, out)).await
            }
        };
        match reply {
            Ok(Reply::Sync(response)) => response,
            // A client takes this one for "join again", which is right while the coordinator loads.
            Err(ErrorCode::CoordinatorLoadInProgress) => sync_error(ErrorCode::RebalanceInProgress),
            Ok(_) => sync_error(ErrorCode::UnknownServerError),
            Err(error) => sync_error(error),
        }
    }

    /// Serves Heartbeat.
    #[must_use]
    pub fn heartbeat(&self, request: &HeartbeatRequest) -> HeartbeatResponse {
        let result = self
            .find(&request.group_id)
            .and_then(|partition| partition.act(|machine, now, out| machine.heartbeat(now, request, out)));
        match result {
            Ok(response) => response,
            // The session begins anew when the partition is loaded.
            Err(ErrorCode::CoordinatorLoadInProgress) => HeartbeatResponse::default(),
            Err(error) => HeartbeatResponse { error_code: error.code(), ..HeartbeatResponse::default() },
        }
    }

    /// Serves LeaveGroup.
    #[must_use]
    pub fn leave_group(&self, mut request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
        if version < 3 {
            let member_id = std::mem::take(&mut request.member_id);
            request.members = vec![MemberIdentity { member_id, ..MemberIdentity::default() }];
        }
        let result = self
            .find(&request.group_id)
            .and_then(|partition| partition.act(|machine, now, out| machine.leave_group(now, &request, out)));
        let mut response = result.unwrap_or_else(|error| LeaveGroupResponse {
            error_code: error.code(),
            ..LeaveGroupResponse::default()
        });
        if version < 3
            && let Some(member) = std::mem::take(&mut response.members).first()
        {
            response.error_code = member.error_code;
        }
        response
    }

    /// Serves OffsetCommit; waits until the offsets are committed in the log. Topics must have names; those whose
    /// ids are known should have them, too, so that a recreated topic does not inherit offsets.
    pub async fn commit_offsets(&self, request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
        let reply = match self.find(&request.group_id) {
            Err(error) => Err(error),
            Ok(partition) => {
                let act = |machine: &mut crate::GroupMachine, now, waiter, out: &mut _| {
                    machine.commit_offsets(now, waiter, &request, version, out);
                };
                partition.ask(act).await
            }
        };
        match reply {
            Ok(Reply::Commit(response)) => response,
            Ok(_) => commit_error(&request, ErrorCode::UnknownServerError),
            Err(error) => commit_error(&request, error),
        }
    }

    /// Serves OffsetFetch of any version. Topics must have names (from version 10 on beside their ids).
    #[must_use]
    pub fn fetch_offsets(&self, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
        if version >= 8 {
            let stable = request.require_stable;
            let groups = request.groups.iter().map(|group| self.fetch_group_offsets(group, stable)).collect();
            return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
        }
        let topics = request.topics.map(|topics| {
            let topic =
                |topic: towpath_wire::offset_fetch::OffsetFetchRequestTopic| OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..OffsetFetchRequestTopics::default()
                };
            topics.into_iter().map(topic).collect()
        });
        let group = OffsetFetchRequestGroup {
            group_id: request.group_id,
            topics,
            ..OffsetFetchRequestGroup::default()
        };
        let mut fetched = self.fetch_group_offsets(&group, request.require_stable);
        if version < 2 && fetched.error_code != ErrorCode::None.code() {
            // Version 1 has no place for an error but beside each partition.
            fetched.topics = failed_topics(&group, fetched.error_code);
        }
        OffsetFetchResponse {
            topics: fetched.topics.into_iter().map(flat_topic).collect(),
            error_code: fetched.error_code,
            ..OffsetFetchResponse::default()
        }
    }

    fn fetch_group_offsets(
        &self,
        group: &OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let result = self.find(&group.group_id).and_then(|partition| {
            partition.act(|machine, _, _| machine.fetch_offsets(group, require_stable))
        });
        result.unwrap_or_else(|error| OffsetFetchResponseGroup {
            group_id: group.group_id.clone(),
            error_code: error.code(),
            ..OffsetFetchResponseGroup::default()
        })
    }

    /// Serves OffsetDelete; waits until the tombstones are committed in the log.
    pub async fn delete_offsets(&self, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
        let reply = match self.find(&request.group_id) {
            _ if request.group_id.is_empty() => Err(ErrorCode::InvalidGroupId),
            Err(error) => Err(error),
            Ok(partition) => {
                partition
                    .ask(|machine, now, waiter, out| machine.delete_offsets(now, waiter, &request, out))
                    .await
            }
        };
        let failed =
            |error: ErrorCode| OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
        match reply {
            Ok(Reply::OffsetDelete(response)) => response,
            Ok(_) => failed(ErrorCode::UnknownServerError),
            Err(error) => failed(error),
        }
    }

    /// Serves DescribeGroups.
    #[must_use]
    pub fn describe_groups(&self, request: &DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
        let describe = |id: &String| {
            let result = self
                .find(id)
                .and_then(|partition| partition.act(|machine, _, _| machine.describe_group(id, version)));
            result.unwrap_or_else(|error| DescribedGroup {
                error_code: error.code(),
                group_id: id.clone(),
                ..DescribedGroup::default()
            })
        };
        DescribeGroupsResponse {
            groups: request.groups.iter().map(describe).collect(),
            ..DescribeGroupsResponse::default()
        }
    }

    /// Serves ListGroups: the groups of all partitions that this broker leads. While one of them loads, the list
    /// would have a hole: an error then.
    #[must_use]
    pub fn list_groups(&self, request: &ListGroupsRequest) -> ListGroupsResponse {
        let mut response = ListGroupsResponse::default();
        for id in 0..self.inner.log.partition_count().unwrap_or(0) {
            let listed = self
                .partition(id)
                .and_then(|partition| partition.act(|machine, _, _| machine.list_groups(request)));
            match listed {
                Ok(groups) => response.groups.extend(groups),
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => {
                    return ListGroupsResponse { error_code: error.code(), ..ListGroupsResponse::default() };
                }
            }
        }
        response
    }

    /// Serves DeleteGroups; waits until the tombstones are committed in the log.
    pub async fn delete_groups(&self, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut response = DeleteGroupsResponse::default();
        for id in &request.groups_names {
            let reply = match self.find(id) {
                Err(error) => Err(error),
                Ok(partition) => {
                    partition
                        .ask(|machine, now, waiter, out| machine.delete_group(now, waiter, id, out))
                        .await
                }
            };
            let error = match reply {
                Ok(Reply::DeleteGroup(error)) | Err(error) => error,
                Ok(_) => ErrorCode::UnknownServerError,
            };
            response.results.push(DeletableGroupResult { group_id: id.clone(), error_code: error.code() });
        }
        response
    }

    /// Forgets the offsets of partitions whose topic was deleted, in all groups that this broker coordinates.
    pub fn partitions_deleted(&self, partitions: &[TopicPartition]) {
        let led: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        for partition in led {
            // One that is loading keeps them until they expire, as in Kafka.
            let _loading =
                partition.act(|machine, now, out| machine.partitions_deleted(now, partitions, out));
        }
    }
}

fn failed_topics(group: &OffsetFetchRequestGroup, error_code: i16) -> Vec<OffsetFetchResponseTopics> {
    let partition = |partition_index: &i32| OffsetFetchResponsePartitions {
        partition_index: *partition_index,
        committed_offset: -1,
        metadata: Some(String::new()),
        error_code,
        ..OffsetFetchResponsePartitions::default()
    };
    let topic = |topic: &OffsetFetchRequestTopics| OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    };
    group.topics.iter().flatten().map(topic).collect()
}

fn flat_topic(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}
