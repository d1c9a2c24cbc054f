//! Share groups (KIP-932) and how far they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_types::{GroupId, LeaderEpoch, Offset, TopicName, TopicPartition};
use towpath_wire::messages::alter_share_group_offsets::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
};
use towpath_wire::messages::delete_share_group_offsets::{
    DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequestTopic,
};
use towpath_wire::messages::describe_share_group_offsets::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    DescribeShareGroupOffsetsRequestTopic, DescribeShareGroupOffsetsResponsePartition,
};
use towpath_wire::messages::share_group_describe::{self, ShareGroupDescribeRequest};
use towpath_wire::{ApiKey, ErrorCode};

use super::{Admin, GroupDescription, GroupMemberDescription, MemberReconciliation, PerItem, left_out};
use crate::ClientError;
use crate::client::check;
use crate::group::Coordinator;
use crate::group::coordinator::partition_of;

/// How Kafka names the type of share groups.
const SHARE: &str = "share";

/// How far a share group is in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareGroupOffset {
    /// The first offset that the group is not done with; `None` where it has not begun.
    pub start_offset: Option<Offset>,
    /// The leader epoch in which that was stored.
    pub leader_epoch: LeaderEpoch,
    /// Records that the group is not done with; `None` where the cluster does not know.
    pub lag: Option<i64>,
}

impl Admin {
    /// Describes share groups; one that does not exist is `GROUP_ID_NOT_FOUND`.
    ///
    /// # Errors
    /// None of its own at present: every group has its result.
    pub async fn describe_share_groups(
        &self,
        groups: &[GroupId],
    ) -> Result<PerItem<GroupId, GroupDescription>, ClientError> {
        let mut results = BTreeMap::new();
        for group in groups {
            let coordinator = self.coordinator(group);
            let result = self.patiently("describing a share group", || describe(&coordinator)).await;
            results.insert(group.clone(), result);
        }
        Ok(results)
    }

    /// How far a share group is: in the partitions given, or in all that it has a state of. (A group that does not exist
    /// has none.)
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses.
    pub async fn list_share_group_offsets(
        &self,
        group: &GroupId,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<PerItem<TopicPartition, ShareGroupOffset>, ClientError> {
        let coordinator = self.coordinator(group);
        self.patiently("describing offsets of a share group", || list_offsets(&coordinator, partitions)).await
    }

    /// Lets a share group without members begin anew at these offsets: what was acknowledged behind them is given out
    /// again, what comes before them is not.
    ///
    /// # Errors
    /// When the coordinator cannot be asked, or refuses (`NON_EMPTY_GROUP`, `GROUP_ID_NOT_FOUND`).
    pub async fn alter_share_group_offsets(
        &self,
        group: &GroupId,
        offsets: &BTreeMap<TopicPartition, Offset>,
    ) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        let coordinator = self.coordinator(group);
        self.patiently("altering offsets of a share group", || alter_offsets(&coordinator, offsets)).await
    }

    /// Forgets how far a share group without members is in these topics: it begins there as its
    /// `share.auto.offset.reset` says.
    ///
    /// # Errors
    /// As [`Self::alter_share_group_offsets`].
    pub async fn delete_share_group_offsets(
        &self,
        group: &GroupId,
        topics: &[TopicName],
    ) -> Result<PerItem<TopicName, ()>, ClientError> {
        let coordinator = self.coordinator(group);
        self.patiently("deleting offsets of a share group", || delete_offsets(&coordinator, topics)).await
    }
}

/// One share group.
pub(super) async fn describe(coordinator: &Coordinator) -> Result<GroupDescription, ClientError> {
    let request = ShareGroupDescribeRequest {
        group_ids: vec![coordinator.group.as_str().to_owned()],
        ..Default::default()
    };
    let api = ApiKey::ShareGroupDescribe;
    let limit = coordinator.client.request_timeout();
    let (mut response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let group = response.groups.pop().ok_or_else(|| left_out(api, &broker))?;
    coordinator.check(group.error_code, group.error_message.clone(), api, &broker)?;
    let member = |member: share_group_describe::Member| {
        let assignment = member
            .assignment
            .topic_partitions
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| partition_of(&topic.topic_name, *index)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(GroupMemberDescription {
            reconciliation: Some(MemberReconciliation {
                epoch: member.member_epoch,
                rack: member.rack_id,
                topics: member.subscribed_topic_names,
                regex: None,
                // Nothing is handed over: what a member is to have it has.
                target: assignment.clone(),
                is_classic: None,
            }),
            assignment,
            member_id: member.member_id,
            group_instance_id: None,
            client_id: member.client_id,
            client_host: member.client_host,
        })
    };
    Ok(GroupDescription {
        members: group.members.into_iter().map(member).collect::<Result<_, ClientError>>()?,
        group_id: group.group_id,
        state: group.group_state,
        group_type: SHARE.to_owned(),
        protocol_type: SHARE.to_owned(),
        protocol: group.assignor_name,
        epochs: Some((group.group_epoch, group.assignment_epoch)),
    })
}

/// Partitions by topic.
fn by_topic<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(partition.topic.as_str()).or_default().push(partition.partition);
    }
    topics
}

async fn list_offsets(
    coordinator: &Coordinator,
    partitions: Option<&[TopicPartition]>,
) -> Result<PerItem<TopicPartition, ShareGroupOffset>, ClientError> {
    let topic = |(name, partitions): (&str, Vec<i32>)| DescribeShareGroupOffsetsRequestTopic {
        topic_name: name.to_owned(),
        partitions,
    };
    let group = DescribeShareGroupOffsetsRequestGroup {
        group_id: coordinator.group.as_str().to_owned(),
        topics: partitions.map(|wanted| by_topic(wanted.iter()).into_iter().map(topic).collect()),
    };
    let request = DescribeShareGroupOffsetsRequest { groups: vec![group] };
    let api = ApiKey::DescribeShareGroupOffsets;
    let limit = coordinator.client.request_timeout();
    let (mut response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    let group = response.groups.pop().ok_or_else(|| left_out(api, &broker))?;
    coordinator.check(group.error_code, group.error_message, api, &broker)?;
    let told = |entry: DescribeShareGroupOffsetsResponsePartition, partition: &TopicPartition| {
        check(entry.error_code, entry.error_message, api, &broker, partition)?;
        Ok(ShareGroupOffset {
            start_offset: (entry.start_offset >= 0).then_some(Offset::new(entry.start_offset)),
            leader_epoch: LeaderEpoch::new(entry.leader_epoch),
            lag: (entry.lag >= 0).then_some(entry.lag),
        })
    };
    let mut results = BTreeMap::new();
    for topic in group.topics {
        for entry in topic.partitions {
            let partition = partition_of(&topic.topic_name, entry.partition_index)?;
            let result = told(entry, &partition);
            results.insert(partition, result);
        }
    }
    complete(&mut results, partitions.unwrap_or_default(), api, &broker);
    Ok(results)
}

async fn alter_offsets(
    coordinator: &Coordinator,
    offsets: &BTreeMap<TopicPartition, Offset>,
) -> Result<PerItem<TopicPartition, ()>, ClientError> {
    let mut topics: Vec<AlterShareGroupOffsetsRequestTopic> = Vec::new();
    for (partition, offset) in offsets {
        let entry = AlterShareGroupOffsetsRequestPartition {
            partition_index: partition.partition,
            start_offset: offset.get(),
        };
        match topics.last_mut().filter(|topic| topic.topic_name == partition.topic.as_str()) {
            Some(topic) => topic.partitions.push(entry),
            None => topics.push(AlterShareGroupOffsetsRequestTopic {
                topic_name: partition.topic.as_str().to_owned(),
                partitions: vec![entry],
            }),
        }
    }
    let request = AlterShareGroupOffsetsRequest { group_id: coordinator.group.as_str().to_owned(), topics };
    let api = ApiKey::AlterShareGroupOffsets;
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    coordinator.check(response.error_code, response.error_message, api, &broker)?;
    let mut results = BTreeMap::new();
    for topic in response.responses {
        for entry in topic.partitions {
            let partition = partition_of(&topic.topic_name, entry.partition_index)?;
            let result = check(entry.error_code, entry.error_message, api, &broker, &partition);
            again_if_it_helps(coordinator, &result)?;
            results.insert(partition, result);
        }
    }
    let wanted: Vec<_> = offsets.keys().cloned().collect();
    complete(&mut results, &wanted, api, &broker);
    Ok(results)
}

async fn delete_offsets(
    coordinator: &Coordinator,
    topics: &[TopicName],
) -> Result<PerItem<TopicName, ()>, ClientError> {
    let topic =
        |name: &TopicName| DeleteShareGroupOffsetsRequestTopic { topic_name: name.as_str().to_owned() };
    let request = DeleteShareGroupOffsetsRequest {
        group_id: coordinator.group.as_str().to_owned(),
        topics: topics.iter().map(topic).collect(),
    };
    let api = ApiKey::DeleteShareGroupOffsets;
    let limit = coordinator.client.request_timeout();
    let (response, broker) = coordinator.call(&request, i16::MAX, limit).await?;
    coordinator.check(response.error_code, response.error_message, api, &broker)?;
    let mut results = BTreeMap::new();
    for entry in response.responses {
        let result = check(entry.error_code, entry.error_message, api, &broker, &entry.topic_name);
        again_if_it_helps(coordinator, &result)?;
        results.insert(TopicName::new(&entry.topic_name)?, result);
    }
    complete(&mut results, topics, api, &broker);
    Ok(results)
}

/// What heals by itself is retried as a whole: each of these requests may be repeated. That something does not exist is
/// for whoever asks to judge.
fn again_if_it_helps(coordinator: &Coordinator, result: &Result<(), ClientError>) -> Result<(), ClientError> {
    let Err(error) = result else { return Ok(()) };
    let code = error.code().unwrap_or(ErrorCode::None);
    coordinator.note(code);
    match code {
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId => Ok(()),
        _ if error.is_retriable() => Err(error.clone()),
        _ => Ok(()),
    }
}

fn complete<K: Ord + Clone, V>(results: &mut PerItem<K, V>, wanted: &[K], api: ApiKey, broker: &Arc<str>) {
    for item in wanted {
        results.entry(item.clone()).or_insert_with(|| Err(left_out(api, broker)));
    }
}
