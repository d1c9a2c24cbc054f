//! Administration.

mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{GroupId, Offset, TopicId, TopicName, TopicPartition};

pub use types::{
    AlterConfig, BrokerInfo, ClusterDescription, ConfigEntry, ConfigResource, ConfigSource, GroupDescription,
    GroupListing, GroupMemberDescription, ListedOffset, NewTopic, OffsetSpec, PartitionDescription, PerItem,
    TopicDescription, TopicListing,
};

use crate::ClientError;
use crate::client::ClientInner;
use crate::consumer::CommittedOffset;

/// Administration of a cluster; cheap to clone. A call about several things has a result for each of them; its own
/// error means that the cluster could not be asked.
#[derive(Debug, Clone)]
pub struct Admin {
    #[allow(dead_code)]
    client: Arc<ClientInner>,
}

#[allow(clippy::unused_async)]
impl Admin {
    pub(crate) fn new(client: Arc<ClientInner>) -> Self {
        Self { client }
    }

    /// Creates topics, or checks whether they could be created. The values are the ids.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn create_topics(
        &self,
        _topics: &[NewTopic],
        _validate_only: bool,
    ) -> Result<PerItem<TopicName, TopicId>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Deletes topics.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn delete_topics(&self, _topics: &[TopicName]) -> Result<PerItem<TopicName, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Describes topics.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_topics(
        &self,
        _topics: &[TopicName],
    ) -> Result<PerItem<TopicName, TopicDescription>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Raises the number of partitions to the totals given.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn create_partitions(
        &self,
        _totals: &[(TopicName, i32)],
    ) -> Result<PerItem<TopicName, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// All configs of topics, brokers or groups.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_configs(
        &self,
        _resources: &[ConfigResource],
    ) -> Result<PerItem<ConfigResource, Vec<ConfigEntry>>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Changes single configs and leaves the others as they are.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn incremental_alter_configs(
        &self,
        _changes: &[(ConfigResource, Vec<AlterConfig>)],
        _validate_only: bool,
    ) -> Result<PerItem<ConfigResource, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Looks up offsets.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn list_offsets(
        &self,
        _partitions: &[(TopicPartition, OffsetSpec)],
    ) -> Result<PerItem<TopicPartition, ListedOffset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// All groups of all coordinators, by id.
    ///
    /// # Errors
    /// When a broker cannot be asked.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Describes groups; one that does not exist is `Dead`, or `GROUP_ID_NOT_FOUND` from newer brokers.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_groups(
        &self,
        _groups: &[GroupId],
    ) -> Result<PerItem<GroupId, GroupDescription>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Deletes groups without members, with their offsets.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn delete_groups(&self, _groups: &[GroupId]) -> Result<PerItem<GroupId, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Deletes the records before the offsets given (−1: before the high watermark). The values are the new first
    /// offsets.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn delete_records(
        &self,
        _before: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<PerItem<TopicPartition, Offset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// What a group has committed: of the partitions given, or of all. Partitions without an offset are left out.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn list_group_offsets(
        &self,
        _group: &GroupId,
        _partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Sets the offsets of a group that has no members.
    ///
    /// # Errors
    /// When the coordinator cannot be asked.
    pub async fn alter_group_offsets(
        &self,
        _group: &GroupId,
        _offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Deletes committed offsets of partitions that the group's members do not read.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn delete_group_offsets(
        &self,
        _group: &GroupId,
        _partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The cluster's brokers.
    ///
    /// # Errors
    /// When the cluster cannot be asked.
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        Err(ClientError::Closed)
    }
}
