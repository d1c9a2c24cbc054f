//! The records of a share group, in Kafka's own formats.

use std::collections::{BTreeMap, BTreeSet};

use towpath_types::TopicId;
use towpath_wire::EncodeError;
use towpath_wire::share_group_records::{
    ShareGroupCurrentMemberAssignmentKey, ShareGroupCurrentMemberAssignmentValue,
    ShareGroupMemberMetadataKey, ShareGroupMemberMetadataValue, ShareGroupMetadataKey,
    ShareGroupMetadataValue, ShareGroupStatePartitionMetadataKey, ShareGroupStatePartitionMetadataValue,
    ShareGroupTargetAssignmentMemberKey, ShareGroupTargetAssignmentMemberValue,
    ShareGroupTargetAssignmentMetadataKey, ShareGroupTargetAssignmentMetadataValue, TopicPartition,
    TopicPartitions, TopicPartitionsInfo,
};

use super::{ShareGroup, ShareMember, StateTopic};
use crate::machine::ClientContext;
use crate::machine::consumer::Partitions;
use crate::machine::member::MemberId;
use crate::record::{self, OffsetsRecord, keyed_record};

/// A member's state in its record: it has what it was given.
const STABLE: i8 = 0;

/// A record of a share group, by what it says; the order is that of tombstones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::machine) enum ShareKey {
    /// What a member has (14).
    Current(MemberId),
    /// What a member shall have (13).
    Target(MemberId),
    /// The epoch of the target (12).
    TargetEpoch,
    /// A member (10).
    Member(MemberId),
    /// The topics whose share partitions may have a state (15).
    State,
    /// The group's epoch (11).
    Epoch,
}

impl ShareKey {
    /// The order of values; see [`crate::machine::consumer::Key`].
    pub(in crate::machine) const fn rank(&self) -> u8 {
        match self {
            Self::Member(_) => 0,
            Self::Epoch => 3,
            Self::Target(_) => 4,
            Self::TargetEpoch => 5,
            Self::Current(_) => 6,
            Self::State => 7,
        }
    }
}

/// The record of a key as the group is now; a tombstone without the group.
pub(in crate::machine) fn record_of(
    group: &str,
    share: Option<&ShareGroup>,
    key: &ShareKey,
    now_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let group_id = || group.to_owned();
    let member_id = |id: &MemberId| (**id).to_owned();
    let member = |id: &MemberId| share.and_then(|share| share.members.get(id));
    match key {
        ShareKey::Epoch => {
            let value = share.map(|share| ShareGroupMetadataValue {
                epoch: share.epoch,
                metadata_hash: share.metadata_hash,
            });
            let key = ShareGroupMetadataKey { group_id: group_id() };
            keyed_record(record::KIND_SHARE_EPOCH, &key, value.as_ref(), now_ms)
        }
        ShareKey::Member(id) => {
            let key = ShareGroupMemberMetadataKey { group_id: group_id(), member_id: member_id(id) };
            keyed_record(record::KIND_SHARE_MEMBER, &key, member(id).map(metadata_value).as_ref(), now_ms)
        }
        ShareKey::TargetEpoch => {
            let value = share.map(|share| ShareGroupTargetAssignmentMetadataValue {
                assignment_epoch: share.target_epoch,
                assignment_timestamp: share.target_at_ms,
            });
            let key = ShareGroupTargetAssignmentMetadataKey { group_id: group_id() };
            keyed_record(record::KIND_SHARE_TARGET_EPOCH, &key, value.as_ref(), now_ms)
        }
        ShareKey::Target(id) => {
            let key = ShareGroupTargetAssignmentMemberKey { group_id: group_id(), member_id: member_id(id) };
            let target = share.and_then(|share| share.targets.get(id));
            keyed_record(record::KIND_SHARE_TARGET, &key, target.map(target_value).as_ref(), now_ms)
        }
        ShareKey::Current(id) => {
            let key = ShareGroupCurrentMemberAssignmentKey { group_id: group_id(), member_id: member_id(id) };
            keyed_record(record::KIND_SHARE_CURRENT, &key, member(id).map(current_value).as_ref(), now_ms)
        }
        ShareKey::State => {
            let key = ShareGroupStatePartitionMetadataKey { group_id: group_id() };
            let value = share.filter(|share| !share.state_topics.is_empty()).map(state_value);
            keyed_record(record::KIND_SHARE_STATE, &key, value.as_ref(), now_ms)
        }
    }
}

fn metadata_value(member: &ShareMember) -> ShareGroupMemberMetadataValue {
    ShareGroupMemberMetadataValue {
        rack_id: member.rack_id.clone(),
        client_id: member.client.client_id.clone(),
        client_host: member.client.host.clone(),
        subscribed_topic_names: member.topics.iter().cloned().collect(),
    }
}

pub(super) fn load_metadata(member: &mut ShareMember, value: ShareGroupMemberMetadataValue) {
    member.rack_id = value.rack_id;
    member.client = ClientContext { client_id: value.client_id, host: value.client_host };
    member.topics = value.subscribed_topic_names.into_iter().collect();
}

fn target_value(target: &Partitions) -> ShareGroupTargetAssignmentMemberValue {
    let topic = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| TopicPartition {
        topic_id: topic.get(),
        partitions: partitions.iter().copied().collect(),
    };
    ShareGroupTargetAssignmentMemberValue { topic_partitions: target.iter().map(topic).collect() }
}

pub(super) fn load_target(value: ShareGroupTargetAssignmentMemberValue) -> Partitions {
    let topic =
        |topic: TopicPartition| (TopicId::new(topic.topic_id), topic.partitions.into_iter().collect());
    value.topic_partitions.into_iter().map(topic).collect()
}

fn current_value(member: &ShareMember) -> ShareGroupCurrentMemberAssignmentValue {
    let topic = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| TopicPartitions {
        topic_id: topic.get(),
        partitions: partitions.iter().copied().collect(),
    };
    ShareGroupCurrentMemberAssignmentValue {
        member_epoch: member.epoch,
        previous_member_epoch: member.previous_epoch,
        state: STABLE,
        assigned_partitions: member.assigned.iter().map(topic).collect(),
    }
}

pub(super) fn load_current(member: &mut ShareMember, value: ShareGroupCurrentMemberAssignmentValue) {
    let topic =
        |topic: TopicPartitions| (TopicId::new(topic.topic_id), topic.partitions.into_iter().collect());
    member.epoch = value.member_epoch;
    member.previous_epoch = value.previous_member_epoch;
    member.assigned = value.assigned_partitions.into_iter().map(topic).collect();
}

fn state_value(share: &ShareGroup) -> ShareGroupStatePartitionMetadataValue {
    let topic = |(id, topic): (&TopicId, &StateTopic)| TopicPartitionsInfo {
        topic_id: id.get(),
        topic_name: topic.name.clone(),
        partitions: topic.partitions.iter().copied().collect(),
    };
    ShareGroupStatePartitionMetadataValue {
        initialized_topics: share.state_topics.iter().map(topic).collect(),
        ..ShareGroupStatePartitionMetadataValue::default()
    }
}

/// What Kafka was still initialising counts, too: a state is made when it is first needed.
pub(super) fn load_state(value: ShareGroupStatePartitionMetadataValue) -> BTreeMap<TopicId, StateTopic> {
    let mut topics: BTreeMap<TopicId, StateTopic> = BTreeMap::new();
    for topic in value.initialized_topics.into_iter().chain(value.initializing_topics) {
        let entry = topics
            .entry(TopicId::new(topic.topic_id))
            .or_insert_with(|| StateTopic { name: topic.topic_name, partitions: BTreeSet::new() });
        entry.partitions.extend(topic.partitions);
    }
    topics
}
