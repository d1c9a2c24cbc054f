//! Groups and their offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_types::{GroupId, TopicPartition};
use towpath_wire::messages::consumer_group_describe::{self, ConsumerGroupDescribeRequest};
use towpath_wire::messages::delete_groups::DeleteGroupsRequest;
use towpath_wire::messages::describe_groups::{DescribeGroupsRequest, DescribedGroup};
use towpath_wire::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use towpath_wire::messages::list_groups::ListGroupsRequest;
use towpath_wire::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use towpath_wire::{ApiKey, ErrorCode};

use super::{
    Admin, GroupDescription, GroupListing, GroupMemberDescription, MemberReconciliation, PerItem, left_out,
    shares,
};
use crate::client::{SHARED_CHANNEL, check};
use crate::consumer::CommittedOffset;
use crate::group::coordinator::partition_of;
use crate::group::{Coordinator, describe_assignment};
use crate::{ClientError, GroupKind};

/// A member for [`Admin::remove_members`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberToRemove {
    /// By the id that the coordinator gave it.
    Member(String),
    /// By the id that a static member gave itself.
    Instance(String),
}

impl Admin {
    pub(super) fn coordinator(&self, group: &GroupId) -> Coordinator {
        Coordinator::shared(Arc::clone(&self.client), group.clone())
    }

    /// All groups of all coordinators, by id.
    ///
    /// # Errors
    /// When a broker cannot be asked.
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        self.list_groups_with(&[], &[]).await
    }

    /// The groups in one of these states (e.g. `Stable`) and of one of these types (`classic`, `consumer`, `share`,
    /// `streams`), by id; an empty list means all.
    ///
    /// # Errors
    /// When a broker cannot be asked, or is too old to filter.
    pub async fn list_groups_with(
        &self,
        states: &[&str],
        types: &[&str],
    ) -> Result<Vec<GroupListing>, ClientError> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = ListGroupsRequest { states_filter: owned(states), types_filter: owned(types) };
        let cluster = self.client.refresh(&[], false).await?;
        let nodes: BTreeSet<i32> = cluster.nodes.keys().copied().collect();
        let mut listed = BTreeMap::new();
        for node in nodes {
            let groups = self.patiently("listing groups", || self.list_groups_of(node, &request)).await?;
            listed.extend(groups.into_iter().map(|group| (group.group_id.clone(), group)));
        }
        Ok(listed.into_values().collect())
    }

    async fn list_groups_of(
        &self,
        node: i32,
        request: &ListGroupsRequest,
    ) -> Result<Vec<GroupListing>, ClientError> {
        let connection = self.client.connection(node, SHARED_CHANNEL).await?;
        let response = connection.request(request, self.client.request_timeout()).await?;
        check(response.error_code, None, ApiKey::ListGroups, connection.broker(), "groups")?;
        let listing = |group: towpath_wire::messages::list_groups::ListedGroup| GroupListing {
            group_id: group.group_id,
            protocol_type: group.protocol_type,
            state: group.group_state,
            group_type: group.group_type,
        };
        Ok(response.groups.into_iter().map(listing).collect())
    }

    /// Describes groups of all kinds; one that does not exist is `Dead`, or `GROUP_ID_NOT_FOUND` from newer
    /// brokers.
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
            let describe = || describe_any(&coordinator);
            let result = self.patiently("describing a group", describe).await;
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
            let result = self.patiently("deleting a group", || delete_group(&coordinator)).await;
            results.insert(group.clone(), result);
        }
        Ok(results)
    }

    /// Removes members from a group, with the words that its members and logs will show.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn remove_members(
        &self,
        group: &GroupId,
        members: &[MemberToRemove],
        reason: &str,
    ) -> Result<PerItem<MemberToRemove, ()>, ClientError> {
        let coordinator = self.coordinator(group);
        let remove = || remove_members(&coordinator, members, reason);
        self.patiently("removing members", remove).await
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

    /// As [`Self::list_group_offsets`]; transactions that commit offsets of these partitions are waited for, so that
    /// none of the offsets is about to change (KIP-447).
    ///
    /// # Errors
    /// As [`Self::list_group_offsets`].
    pub async fn list_stable_group_offsets(
        &self,
        group: &GroupId,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        self.coordinator(group).committed(partitions, true).await
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
        self.patiently("deleting offsets", || delete_offsets(&coordinator, partitions)).await
    }
}

/// In the consumer protocol, or, if the group is none of it, in the classic one; else as a share group.
async fn describe_any(coordinator: &Coordinator) -> Result<GroupDescription, ClientError> {
    let described = describe_either(coordinator).await;
    let is_missing = match &described {
        Ok(group) => group.state == "Dead",
        Err(error) => error.code() == Some(ErrorCode::GroupIdNotFound),
    };
    if is_missing && let Ok(shared) = shares::describe(coordinator).await {
        return Ok(shared);
    }
    described
}

async fn describe_either(coordinator: &Coordinator) -> Result<GroupDescription, ClientError> {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![coordinator.group.as_str().to_owned()],
        ..Default::default()
    };
    let api = ApiKey::ConsumerGroupDescribe;
    let limit = coordinator.client.request_timeout();
    let (mut response, broker) = match coordinator.call(&request, i16::MAX, limit).await {
        Err(ClientError::UnsupportedApi { .. }) => return describe_group(coordinator).await,
        answer => answer?,
    };
    let group = response.groups.pop().ok_or_else(|| left_out(api, &broker))?;
    let code = ErrorCode::from_code(group.error_code);
    if matches!(code, ErrorCode::GroupIdNotFound | ErrorCode::UnsupportedVersion) {
        return describe_group(coordinator).await;
    }
    coordinator.check(group.error_code, group.error_message.clone(), api, &broker)?;
    reconciled(group)
}

fn reconciled(group: consumer_group_describe::DescribedGroup) -> Result<GroupDescription, ClientError> {
    let partitions = |assignment: &consumer_group_describe::Assignment| {
        let each = assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| partition_of(&topic.topic_name, *index)));
        each.collect::<Result<Vec<_>, _>>()
    };
    let member = |member: consumer_group_describe::Member| {
        Ok(GroupMemberDescription {
            assignment: partitions(&member.assignment)?,
            reconciliation: Some(MemberReconciliation {
                epoch: member.member_epoch,
                rack: member.rack_id,
                topics: member.subscribed_topic_names,
                regex: member.subscribed_topic_regex.filter(|regex| !regex.is_empty()),
                target: partitions(&member.target_assignment)?,
                is_classic: (member.member_type >= 0).then_some(member.member_type == 0),
            }),
            member_id: member.member_id,
            group_instance_id: member.instance_id,
            client_id: member.client_id,
            client_host: member.client_host,
        })
    };
    Ok(GroupDescription {
        members: group.members.into_iter().map(member).collect::<Result<_, ClientError>>()?,
        group_id: group.group_id,
        state: group.group_state,
        group_type: GroupKind::Consumer.name().to_owned(),
        protocol_type: "consumer".to_owned(),
        protocol: group.assignor_name,
        epochs: Some((group.group_epoch, group.assignment_epoch)),
    })
}

async fn remove_members(
    coordinator: &Coordinator,
    members: &[MemberToRemove],
    reason: &str,
) -> Result<PerItem<MemberToRemove, ()>, ClientError> {
    let identity = |member: &MemberToRemove| {
        let (member_id, group_instance_id) = match member {
            MemberToRemove::Member(id) => (id.clone(), None),
            MemberToRemove::Instance(id) => (String::new(), Some(id.clone())),
        };
        MemberIdentity { member_id, group_instance_id, reason: Some(reason.to_owned()) }
    };
    let request = LeaveGroupRequest {
        group_id: coordinator.group.as_str().to_owned(),
        members: members.iter().map(identity).collect(),
        ..Default::default()
    };
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let api = ApiKey::LeaveGroup;
    coordinator.check(response.error_code, None, api, &broker)?;
    let mut results: PerItem<MemberToRemove, ()> = BTreeMap::new();
    for answer in response.members {
        let member = match answer.group_instance_id {
            Some(id) => MemberToRemove::Instance(id),
            None => MemberToRemove::Member(answer.member_id),
        };
        let result = check(answer.error_code, None, api, &broker, &coordinator.group);
        results.insert(member, result);
    }
    for member in members {
        results.entry(member.clone()).or_insert_with(|| Err(left_out(api, &broker)));
    }
    Ok(results)
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
        reconciliation: None,
    });
    GroupDescription {
        members: members.collect(),
        group_id: group.group_id,
        state: group.group_state,
        group_type: GroupKind::Classic.name().to_owned(),
        protocol_type: group.protocol_type,
        protocol: group.protocol_data,
        epochs: None,
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
