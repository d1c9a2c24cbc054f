//! A group's coordinator, and the offsets that it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use towpath_types::{GroupId, LeaderEpoch, Offset, TopicName, TopicPartition};
use towpath_wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use towpath_wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use towpath_wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use towpath_wire::{ApiKey, ErrorCode, Request};

use super::MembershipIdentity;
use crate::ClientError;
use crate::admin::PerItem;
use crate::client::{Channel, ClientInner, check};
use crate::connection::Connection;
use crate::consumer::CommittedOffset;
use crate::coordinator::{CoordinatorLink, KeyType};

/// The last version of OffsetCommit and OffsetFetch that names topics; the next has their ids.
const OFFSETS_VERSION_NAMES: i16 = 9;
/// The first version of LeaveGroup with several members.
const LEAVE_VERSION_BATCH: i16 = 3;
/// The first version of OffsetFetch that asks for several groups at once.
const FETCH_VERSION_GROUPS: i16 = 8;
/// The first version of OffsetFetch that can ask for offsets that no open transaction changes.
const STABLE_VERSION: i16 = 7;

/// A group's coordinator.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) client: Arc<ClientInner>,
    pub(crate) group: GroupId,
    link: CoordinatorLink,
}

impl Coordinator {
    /// With connections of its own, for requests that wait.
    pub(crate) fn new(client: Arc<ClientInner>, group: GroupId) -> Self {
        let channel = Some(Arc::new(client.channel()));
        Self::with_channel(client, channel, group)
    }

    /// With the connections that everything shares, for a few short requests.
    pub(crate) fn shared(client: Arc<ClientInner>, group: GroupId) -> Self {
        Self::with_channel(client, None, group)
    }

    fn with_channel(client: Arc<ClientInner>, channel: Option<Arc<Channel>>, group: GroupId) -> Self {
        let link = CoordinatorLink::new(Arc::clone(&client), channel, KeyType::Group, group.as_str());
        Self { client, group, link }
    }

    /// A connection to the coordinator on this group's own channel.
    pub(crate) async fn connection(&self) -> Result<Connection, ClientError> {
        self.link.connection().await
    }

    /// Looks for the coordinator again before the next request.
    pub(crate) fn forget(&self) {
        self.link.forget();
    }

    /// As [`CoordinatorLink::call`].
    pub(crate) async fn call<R: Request>(
        &self,
        request: &R,
        version_max: i16,
        timeout_after: Duration,
    ) -> Result<(R::Response, Arc<str>), ClientError> {
        self.link.call(request, version_max, timeout_after).await
    }

    /// Turns an error code into an error, and notes what it says of the coordinator.
    pub(crate) fn check(
        &self,
        code: i16,
        message: Option<String>,
        api: ApiKey,
        broker: &Arc<str>,
    ) -> Result<(), ClientError> {
        self.note(ErrorCode::from_code(code));
        check(code, message, api, broker, &self.group)
    }

    /// As [`CoordinatorLink::note`].
    pub(crate) fn note(&self, code: ErrorCode) {
        self.link.note(code);
    }

    /// Leaves the group; a failure is left to the session timeout.
    pub(crate) async fn leave(&self, member_id: &str, group_instance_id: Option<String>) {
        let result = self.leave_once(member_id, group_instance_id).await;
        if let Err(error) = result {
            tracing::debug!(group = %self.group, %error, "could not leave the group");
        }
    }

    async fn leave_once(
        &self,
        member_id: &str,
        group_instance_id: Option<String>,
    ) -> Result<(), ClientError> {
        let connection = self.connection().await?;
        let version = connection.version_of(ApiKey::LeaveGroup)?;
        let mut request =
            LeaveGroupRequest { group_id: self.group.as_str().to_owned(), ..Default::default() };
        if version >= LEAVE_VERSION_BATCH {
            let member_id = member_id.to_owned();
            request.members = vec![MemberIdentity { member_id, group_instance_id, reason: None }];
        } else {
            request.member_id = member_id.to_owned();
        }
        let response = connection.request_at(&request, version, self.client.request_timeout()).await?;
        check(response.error_code, None, ApiKey::LeaveGroup, connection.broker(), &self.group)
    }

    /// Commits; the results are per partition, and retriable ones were retried until the API timeout.
    pub(crate) async fn commit(
        &self,
        identity: Option<&MembershipIdentity>,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let mut topics: Vec<OffsetCommitRequestTopic> = Vec::new();
        for (partition, committed) in offsets {
            let entry = OffsetCommitRequestPartition {
                partition_index: partition.partition,
                committed_offset: committed.offset.get(),
                committed_leader_epoch: committed.leader_epoch.get(),
                committed_metadata: Some(committed.metadata.clone()),
            };
            match topics.last_mut().filter(|topic| topic.name == partition.topic.as_str()) {
                Some(topic) => topic.partitions.push(entry),
                None => topics.push(OffsetCommitRequestTopic {
                    name: partition.topic.as_str().to_owned(),
                    partitions: vec![entry],
                    ..Default::default()
                }),
            }
        }
        let request = OffsetCommitRequest {
            group_id: self.group.as_str().to_owned(),
            generation_id_or_member_epoch: identity.map_or(-1, |identity| identity.generation.get()),
            member_id: identity.map(|identity| identity.member_id.to_string()).unwrap_or_default(),
            group_instance_id: identity
                .and_then(|identity| identity.group_instance_id.as_ref().map(ToString::to_string)),
            topics,
            ..Default::default()
        };
        let mut retry = self.client.retrying("committing offsets", self.client.config.api_timeout_ms);
        loop {
            match self.commit_once(&request, offsets).await {
                Ok(results) => return Ok(results),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn commit_once(
        &self,
        request: &OffsetCommitRequest,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let limit = self.client.request_timeout();
        let (response, broker) = self.call(request, OFFSETS_VERSION_NAMES, limit).await?;
        let mut results = BTreeMap::new();
        for topic in response.topics {
            for entry in topic.partitions {
                let code = ErrorCode::from_code(entry.error_code);
                self.note(code);
                let partition = partition_of(&topic.name, entry.partition_index)?;
                let subject = format_args!("{} in group {}", partition, self.group);
                let result = check(entry.error_code, None, ApiKey::OffsetCommit, &broker, subject);
                match result {
                    // A rebalance ends when this member has joined again: waiting here would be in its way.
                    Err(error) if error.is_retriable() && code != ErrorCode::RebalanceInProgress => {
                        return Err(error);
                    }
                    result => results.insert(partition, result),
                };
            }
        }
        if offsets.keys().any(|partition| !results.contains_key(partition)) {
            let problem = "it leaves out a partition";
            return Err(ClientError::Malformed { broker, api: ApiKey::OffsetCommit, problem });
        }
        Ok(results)
    }

    /// What is committed, of some partitions or of all; partitions without an offset are left out. With
    /// `require_stable`, transactions that commit offsets of these partitions are waited for (KIP-447).
    pub(crate) async fn committed(
        &self,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        if partitions.is_some_and(<[_]>::is_empty) {
            return Ok(BTreeMap::new());
        }
        let mut retry = self.client.retrying("fetching offsets", self.client.config.api_timeout_ms);
        loop {
            match self.committed_once(partitions, require_stable).await {
                Ok(offsets) => return Ok(offsets),
                Err(error) => retry.after(error).await?,
            }
        }
    }

    async fn committed_once(
        &self,
        partitions: Option<&[TopicPartition]>,
        require_stable: bool,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        let connection = self.connection().await?;
        let version = connection.version_of(ApiKey::OffsetFetch)?.min(OFFSETS_VERSION_NAMES);
        let request = offset_fetch_request(&self.group, partitions, require_stable, version);
        let answer = connection.request_at(&request, version, self.client.request_timeout()).await;
        let response = answer.inspect_err(|error| {
            if error.is_network() {
                self.forget();
            }
        })?;
        let broker = connection.broker();
        let mut committed = BTreeMap::new();
        let mut add = |topic: &str, index, offset, epoch, metadata: Option<String>, code| {
            self.check(code, None, ApiKey::OffsetFetch, broker)?;
            if offset >= 0 {
                let offset = CommittedOffset {
                    offset: Offset::new(offset),
                    leader_epoch: LeaderEpoch::new(epoch),
                    metadata: metadata.unwrap_or_default(),
                };
                committed.insert(partition_of(topic, index)?, offset);
            }
            Ok::<_, ClientError>(())
        };
        self.check(response.error_code, None, ApiKey::OffsetFetch, broker)?;
        for topic in response.topics {
            for p in topic.partitions {
                let (offset, epoch) = (p.committed_offset, p.committed_leader_epoch);
                add(&topic.name, p.partition_index, offset, epoch, p.metadata, p.error_code)?;
            }
        }
        for group in response.groups {
            self.check(group.error_code, None, ApiKey::OffsetFetch, broker)?;
            for topic in group.topics {
                for p in topic.partitions {
                    let (offset, epoch) = (p.committed_offset, p.committed_leader_epoch);
                    add(&topic.name, p.partition_index, offset, epoch, p.metadata, p.error_code)?;
                }
            }
        }
        Ok(committed)
    }
}

/// A partition as a response names it.
pub(crate) fn partition_of(topic: &str, index: i32) -> Result<TopicPartition, ClientError> {
    Ok(TopicPartition::new(TopicName::new(topic)?, index))
}

fn offset_fetch_request(
    group: &GroupId,
    partitions: Option<&[TopicPartition]>,
    require_stable: bool,
    version: i16,
) -> OffsetFetchRequest {
    let mut topics: Option<Vec<(String, Vec<i32>)>> = None;
    if let Some(partitions) = partitions {
        let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            by_topic.entry(partition.topic.as_str()).or_default().push(partition.partition);
        }
        topics = Some(by_topic.into_iter().map(|(name, indexes)| (name.to_owned(), indexes)).collect());
    }
    let group_id = group.as_str().to_owned();
    // Older brokers cannot wait for the end of transactions that commit offsets.
    let require_stable = require_stable && version >= STABLE_VERSION;
    if version >= FETCH_VERSION_GROUPS {
        let topic = |(name, partition_indexes)| OffsetFetchRequestTopics {
            name,
            partition_indexes,
            ..Default::default()
        };
        let topics = topics.map(|topics| topics.into_iter().map(topic).collect());
        let groups = vec![OffsetFetchRequestGroup { group_id, topics, ..Default::default() }];
        return OffsetFetchRequest { groups, require_stable, ..Default::default() };
    }
    let topic = |(name, partition_indexes)| OffsetFetchRequestTopic { name, partition_indexes };
    let topics = topics.map(|topics| topics.into_iter().map(topic).collect());
    OffsetFetchRequest { group_id, topics, require_stable, ..Default::default() }
}
