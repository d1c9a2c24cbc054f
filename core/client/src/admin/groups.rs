//! Groups and their offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_types::{GroupId, TopicPartition};
use towpath_wire::messages::delete_groups::DeleteGroupsRequest;
use towpath_wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use towpath_wire::messages::list_groups::ListGroupsRequest;
use towpath_wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::{Admin, GroupDescription, GroupListing, GroupMemberDescription, PerItem, left_out};
use crate::ClientError;
use crate::client::{SHARED_CHANNEL, check};
use crate::consumer::CommittedOffset;
use crate::group::coordinator::partition_of;
use crate::group::{Coordinator, describe_assignment};

impl Admin {
    fn coordinator(&self, group: &GroupId) -> Coordinator {
        Coordinator::shared(Arc::clone(&self.client), group.clone())
    }

    /// All groups of all coordinators, by id.
    ///
    /// # Errors
    /// When a broker cannot be asked.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        let cluster = self.client.refresh(&[], false).await?;
        let nodes: BTreeSet<i32> = cluster.nodes.keys().copied().collect();
        let mut listed = BTreeMap::new();
        for node in nodes {
            let mut retry = self.client.retrying("listing groups", self.client.config.api_timeout_ms);
            let groups = loop {
                match self.list_groups_of(node).await {
                    Ok(groups) => break groups,
                    Err(error) => retry.after(error).await?,
                }
            };
            listed.extend(groups.into_iter().map(|group| (group.group_id.clone(), group)));
        }
        Ok(listed.into_values().collect())
    }

    async fn list_groups_of(&self, node: i32) -> Result<Vec<GroupListing>, ClientError> {
        let connection = self.client.connection(node, SHARED_CHANNEL).await?;
        let request = ListGroupsRequest::default();
        let response = connection.request(&request, self.client.request_timeout()).await?;
        check(response.error_code, None, ApiKey::ListGroups, connection.broker(), "groups")?;
        let listing = |group: towpath_wire::messages::list_groups::ListedGroup| GroupListing {
            group_id: group.group_id,
            protocol_type: group.protocol_type,
            state: group.group_state,
            group_type: group.group_type,
        };
        Ok(response.groups.into_iter().map(listing).collect())
    }

    /// Describes groups; one that does not exist is `Dead`, or `GROUP_ID_NOT_FOUND` from newer brokers.
    ///
    /// # Errors
    /// None of its own at present: every group has its result.
    pub async fn describe_groups(
        &self,
        groups: &[GroupId],
    ) -> Result<PerItem<GroupId, GroupDescription>, ClientError> {
        let mut results = BTreeMap::new();
        for group in groups {
            let coordinator = self.coordinator(group);
            let mut retry = self.client.retrying("describing a group", self.client.config.api_timeout_ms);
            let result = loop {
                match describe_group(&coordinator).await {
                    Ok(description) => break Ok(description),
                    Err(error) => {
                        if let Err(error) = retry.after(error).await {
                            break Err(error);
                        }
                    }
                }
            };
            results.insert(group.clone(), result);
        }
        Ok(results)
    }

    /// Deletes groups without members, with their offsets.
    ///
    /// # Errors
    /// None of its own at present: every group has its result.
    pub async fn delete_groups(&self, groups: &[GroupId]) -> Result<PerItem<GroupId, ()>, ClientError> {
        let mut results = BTreeMap::new();
        for group in groups {
            let coordinator = self.coordinator(group);
            let mut retry = self.client.retrying("deleting a group", self.client.config.api_timeout_ms);
            let result = loop {
                match delete_group(&coordinator).await {
                    Ok(()) => break Ok(()),
                    Err(error) => {
                        if let Err(error) = retry.after(error).await {
                            break Err(error);
                        }
                    }
                }
            };
            results.insert(group.clone(), result);
        }
        Ok(results)
    }

    /// What a group has committed: of the partitions given, or of all. Partitions without an offset are left out.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn list_group_offsets(
        &self,
        group: &GroupId,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        self.coordinator(group).committed(partitions, false).await
    }

    /// Sets the offsets of a group that has no members.
    ///
    /// # Errors
    /// When the coordinator cannot be asked.
    pub async fn alter_group_offsets(
        &self,
        group: &GroupId,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        self.coordinator(group).commit(None, offsets).await
    }

    /// Deletes committed offsets of partitions that the group's members do not read.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn delete_group_offsets(
        &self,
        group: &GroupId,
        partitions: &[TopicPartition],
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let coordinator = self.coordinator(group);
        let mut retry = self.client.retrying("deleting offsets", self.client.config.api_timeout_ms);
        loop {
            match delete_offsets(&coordinator, partitions).await {
                Ok(results) => return Ok(results),
                Err(error) => retry.after(error).await?,
            }
        }
    }
}

async fn describe_group(coordinator: &Coordinator) -> Result<GroupDescription, ClientError> {
    let request =
        DescribeGroupsRequest { groups: vec![coordinator.group.as_str().to_owned()], ..Default::default() };
    let limit = coordinator.client.request_timeout();
    let (mut response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let group = response.groups.pop().ok_or_else(|| left_out(ApiKey::DescribeGroups, &broker))?;
    coordinator.check(group.error_code, group.error_message.clone(), ApiKey::DescribeGroups, &broker)?;
    Ok(described(group))
}

fn described(group: DescribedGroup) -> GroupDescription {
    let consumer = group.protocol_type == "consumer";
    let members = group.members.into_iter().map(|member| GroupMemberDescription {
        assignment: if consumer { describe_assignment(&member.member_assignment) } else { Vec::new() },
        member_id: member.member_id,
        group_instance_id: member.group_instance_id,
        client_id: member.client_id,
        client_host: member.client_host,
    });
    GroupDescription {
        members: members.collect(),
        group_id: group.group_id,
        state: group.group_state,
        protocol_type: group.protocol_type,
        protocol: group.protocol_data,
    }
}

async fn delete_group(coordinator: &Coordinator) -> Result<(), ClientError> {
    let request = DeleteGroupsRequest { groups_names: vec![coordinator.group.as_str().to_owned()] };
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let result = response.results.first().ok_or_else(|| left_out(ApiKey::DeleteGroups, &broker))?;
    coordinator.check(result.error_code, None, ApiKey::DeleteGroups, &broker)
}

async fn delete_offsets(
    coordinator: &Coordinator,
    partitions: &[TopicPartition],
) -> Result<PerItem<TopicPartition, ()>, ClientError> {
    let mut by_topic: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for partition in partitions {
        let entry = OffsetDeleteRequestPartition { partition_index: partition.partition };
        by_topic.entry(partition.topic.as_str()).or_default().push(entry);
    }
    let topic =
        |(name, partitions): (&str, _)| OffsetDeleteRequestTopic { name: name.to_owned(), partitions };
    let request = OffsetDeleteRequest {
        group_id: coordinator.group.as_str().to_owned(),
        topics: by_topic.into_iter().map(topic).collect(),
    };
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    coordinator.check(response.error_code, None, ApiKey::OffsetDelete, &broker)?;
    let mut results = BTreeMap::new();
    for topic in response.topics {
        for entry in topic.partitions {
            let partition = partition_of(&topic.name, entry.partition_index)?;
            coordinator.note(ErrorCode::from_code(entry.error_code));
            let result = check(entry.error_code, None, ApiKey::OffsetDelete, &broker, &partition);
            results.insert(partition, result);
        }
    }
    for partition in partitions {
        let missing = || Err(left_out(ApiKey::OffsetDelete, &broker));
        results.entry(partition.clone()).or_insert_with(missing);
    }
    Ok(results)
}
