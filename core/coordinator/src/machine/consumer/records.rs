//! The records of a consumer group, in Kafka's own formats.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use towpath_wire::consumer_group_records::{
    ClassicMemberMetadata, ClassicProtocol, ConsumerGroupCurrentMemberAssignmentKey,
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataKey,
    ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey, ConsumerGroupMetadataValue,
    ConsumerGroupPartitionMetadataKey, ConsumerGroupPartitionMetadataValue,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue, TopicPartition,
    TopicPartitions,
};
use towpath_wire::{EncodeError, GroupMetadataValue};

use super::member::{ClassicMetadata, ConsumerMember, MemberState, Owned, Partitions};
use super::{ConsumerGroup, ResolvedRegex};
use crate::machine::ClientContext;
use crate::machine::group::{Group, GroupState, Kind};
use crate::machine::member::{MemberId, Protocol};
use crate::machine::share::{self, ShareKey};
use crate::record::{self, OffsetsRecord, keyed_record};

/// A record of a group, by what it says. The order is that in which tombstones stand in the log: Kafka's reader wants to
/// see a member's assignment go before the member, and everything before the group.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::machine) enum Key {
    /// What a member has (8).
    Current(MemberId),
    /// What a member shall have (7).
    Target(MemberId),
    /// The epoch of the target (6).
    TargetEpoch,
    /// A member (5).
    Member(MemberId),
    /// A regular expression (16).
    Regex(String),
    /// What the group subscribes to, as Kafka 4.0 stored it (4).
    OldMetadata,
    /// The group's epoch (3).
    Epoch,
    /// The group, when it is a classic one (2).
    Classic,
    /// Something of a share group.
    Share(ShareKey),
}

impl Key {
    /// The record that takes away what the key names.
    pub(in crate::machine) fn tombstone(
        &self,
        group: &Arc<str>,
        now_ms: i64,
    ) -> Result<OffsetsRecord, EncodeError> {
        // Of a group that holds nothing there are only tombstones.
        let nothing = Group::new(Arc::clone(group), 0);
        let record = record_of(&nothing, self, now_ms)?;
        // The record of a classic group is the only one that may be left out, and not of an empty one.
        record.map_or_else(|| record::group_record(group, None, now_ms), Ok)
    }

    /// The order of values: the group's target epoch after the targets, so that half of a target is never taken for whole.
    const fn rank(&self) -> u8 {
        match self {
            Self::Member(_) => 0,
            Self::Regex(_) => 1,
            Self::OldMetadata => 2,
            Self::Epoch => 3,
            Self::Target(_) => 4,
            Self::TargetEpoch => 5,
            Self::Current(_) => 6,
            Self::Classic => 7,
            Self::Share(key) => key.rank(),
        }
    }
}

/// The records of these keys as the group is now: tombstones first, then what there is. A key whose record would be wrong
/// now (that of a classic group amid a rebalance, which writes it itself at its end) is left out.
pub(in crate::machine) fn records(
    group: &Group,
    keys: &BTreeSet<Key>,
    now_ms: i64,
) -> Result<Vec<OffsetsRecord>, EncodeError> {
    let (mut tombstones, mut values) = (Vec::new(), Vec::new());
    for key in keys {
        let Some(record) = record_of(group, key, now_ms)? else { continue };
        if record.value.is_none() {
            tombstones.push(record);
        } else {
            values.push((key.rank(), record));
        }
    }
    values.sort_by_key(|(rank, _)| *rank);
    tombstones.extend(values.into_iter().map(|(_, record)| record));
    Ok(tombstones)
}

fn record_of(group: &Group, key: &Key, now_ms: i64) -> Result<Option<OffsetsRecord>, EncodeError> {
    let consumer = group.consumer();
    let group_id = || (*group.id).to_owned();
    let member_id = |id: &MemberId| (**id).to_owned();
    let member = |id: &MemberId| consumer.and_then(|consumer| consumer.members.get(id));
    match key {
        Key::Classic => return classic_record(group, now_ms),
        Key::Share(key) => share::record_of(&group.id, group.share(), key, now_ms),
        Key::Epoch => {
            let value = consumer.map(|consumer| ConsumerGroupMetadataValue {
                epoch: consumer.epoch,
                metadata_hash: consumer.metadata_hash,
            });
            let key = ConsumerGroupMetadataKey { group_id: group_id() };
            keyed_record(record::KIND_EPOCH, &key, value.as_ref(), now_ms)
        }
        Key::OldMetadata => {
            let key = ConsumerGroupPartitionMetadataKey { group_id: group_id() };
            let none: Option<&ConsumerGroupPartitionMetadataValue> = None;
            keyed_record(record::KIND_OLD_METADATA, &key, none, now_ms)
        }
        Key::Member(id) => {
            let key = ConsumerGroupMemberMetadataKey { group_id: group_id(), member_id: member_id(id) };
            let value = member(id).map(metadata_value);
            keyed_record(record::KIND_MEMBER, &key, value.as_ref(), now_ms)
        }
        Key::TargetEpoch => {
            let value = consumer.map(|consumer| ConsumerGroupTargetAssignmentMetadataValue {
                assignment_epoch: consumer.target_epoch,
                assignment_timestamp: consumer.target_at_ms,
            });
            let key = ConsumerGroupTargetAssignmentMetadataKey { group_id: group_id() };
            keyed_record(record::KIND_TARGET_EPOCH, &key, value.as_ref(), now_ms)
        }
        Key::Target(id) => {
            let key =
                ConsumerGroupTargetAssignmentMemberKey { group_id: group_id(), member_id: member_id(id) };
            let target = consumer.and_then(|consumer| consumer.targets.get(id));
            keyed_record(record::KIND_TARGET, &key, target.map(target_value).as_ref(), now_ms)
        }
        Key::Current(id) => {
            let key =
                ConsumerGroupCurrentMemberAssignmentKey { group_id: group_id(), member_id: member_id(id) };
            let value = member(id).map(current_value);
            keyed_record(record::KIND_CURRENT, &key, value.as_ref(), now_ms)
        }
        Key::Regex(regex) => {
            let key =
                ConsumerGroupRegularExpressionKey { group_id: group_id(), regular_expression: regex.clone() };
            let resolved = consumer.and_then(|consumer| consumer.regexes.get(regex));
            keyed_record(record::KIND_REGEX, &key, resolved.map(regex_value).as_ref(), now_ms)
        }
    }
    .map(Some)
}

/// The record of a classic group; a tombstone when the group is none (any more).
fn classic_record(group: &Group, now_ms: i64) -> Result<Option<OffsetsRecord>, EncodeError> {
    let value: Option<GroupMetadataValue> = match (&group.kind, group.state) {
        (Kind::Classic, GroupState::Stable | GroupState::Empty) if group.persisted => {
            Some(group.to_value(|_, member| member.assignment.clone()))
        }
        (Kind::Classic, GroupState::Stable | GroupState::Empty) => None,
        // It writes its record itself, when the rebalance ends.
        (Kind::Classic, _) => return Ok(None),
        _ => None,
    };
    record::group_record(&group.id, value.as_ref(), now_ms).map(Some)
}

fn metadata_value(member: &ConsumerMember) -> ConsumerGroupMemberMetadataValue {
    let classic = |classic: &ClassicMetadata| ClassicMemberMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        supported_protocols: classic
            .protocols
            .iter()
            .map(|protocol| ClassicProtocol {
                name: protocol.name.clone(),
                metadata: protocol.metadata.clone(),
            })
            .collect(),
    };
    ConsumerGroupMemberMetadataValue {
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        client_id: member.client.client_id.clone(),
        client_host: member.client.host.clone(),
        subscribed_topic_names: member.topics.iter().cloned().collect(),
        subscribed_topic_regex: member.regex.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        server_assignor: member.assignor.clone(),
        classic_member_metadata: member.classic.as_ref().map(classic),
    }
}

/// Takes over what a record says about a member.
pub(super) fn load_metadata(member: &mut ConsumerMember, value: ConsumerGroupMemberMetadataValue) {
    // Copied: a slice would keep the whole chunk of the log alive.
    let protocol = |protocol: ClassicProtocol| Protocol {
        name: protocol.name,
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    };
    member.instance_id = value.instance_id;
    member.rack_id = value.rack_id;
    member.client = ClientContext { client_id: value.client_id, host: value.client_host };
    member.topics = value.subscribed_topic_names.into_iter().collect();
    member.regex = value.subscribed_topic_regex;
    member.rebalance_timeout_ms = value.rebalance_timeout_ms;
    member.assignor = value.server_assignor;
    member.classic = value.classic_member_metadata.map(|classic| ClassicMetadata {
        session_timeout_ms: classic.session_timeout_ms,
        protocols: classic.supported_protocols.into_iter().map(protocol).collect(),
    });
}

fn target_value(target: &Partitions) -> ConsumerGroupTargetAssignmentMemberValue {
    let topic = |(topic, partitions): (&towpath_types::TopicId, &BTreeSet<i32>)| TopicPartition {
        topic_id: topic.get(),
        partitions: partitions.iter().copied().collect(),
    };
    ConsumerGroupTargetAssignmentMemberValue { topic_partitions: target.iter().map(topic).collect() }
}

pub(super) fn load_target(value: ConsumerGroupTargetAssignmentMemberValue) -> Partitions {
    let topic = |topic: TopicPartition| {
        (towpath_types::TopicId::new(topic.topic_id), topic.partitions.into_iter().collect())
    };
    value.topic_partitions.into_iter().map(topic).collect()
}

fn owned_value(owned: &Owned) -> Vec<TopicPartitions> {
    let topic = |(topic, partitions): (&towpath_types::TopicId, &std::collections::BTreeMap<i32, i32>)| {
        TopicPartitions {
            topic_id: topic.get(),
            partitions: partitions.keys().copied().collect(),
            assignment_epochs: Some(partitions.values().copied().collect()),
        }
    };
    owned.iter().map(topic).collect()
}

/// Where a record does not say in which epoch a partition was assigned (Kafka before 4.3), it was the member's.
fn load_owned(value: Vec<TopicPartitions>, member_epoch: i32) -> Owned {
    let topic = |topic: TopicPartitions| {
        let epochs = topic.assignment_epochs.unwrap_or_default();
        let epoch = |at: usize| epochs.get(at).copied().unwrap_or(member_epoch);
        let partitions = topic.partitions.iter().enumerate().map(|(at, partition)| (*partition, epoch(at)));
        (towpath_types::TopicId::new(topic.topic_id), partitions.collect())
    };
    value.into_iter().map(topic).collect()
}

fn current_value(member: &ConsumerMember) -> ConsumerGroupCurrentMemberAssignmentValue {
    ConsumerGroupCurrentMemberAssignmentValue {
        member_epoch: member.epoch,
        previous_member_epoch: member.previous_epoch,
        state: member.state.code(),
        assigned_partitions: owned_value(&member.assigned),
        partitions_pending_revocation: owned_value(&member.revoking),
    }
}

/// Takes over what a record says about a member's assignment.
pub(super) fn load_current(member: &mut ConsumerMember, value: ConsumerGroupCurrentMemberAssignmentValue) {
    member.epoch = value.member_epoch;
    member.previous_epoch = value.previous_member_epoch;
    member.state = MemberState::from_code(value.state);
    member.assigned = load_owned(value.assigned_partitions, value.member_epoch);
    member.revoking = load_owned(value.partitions_pending_revocation, value.member_epoch);
}

fn regex_value(resolved: &ResolvedRegex) -> ConsumerGroupRegularExpressionValue {
    ConsumerGroupRegularExpressionValue {
        topics: resolved.topics.iter().cloned().collect(),
        version: resolved.version,
        timestamp: resolved.at_ms,
    }
}

pub(super) fn load_regex(value: ConsumerGroupRegularExpressionValue) -> ResolvedRegex {
    ResolvedRegex {
        topics: value.topics.into_iter().collect(),
        version: value.version,
        at_ms: value.timestamp,
    }
}

/// The tombstones of all records of a consumer group that is gone.
pub(in crate::machine) fn keys_of(consumer: &ConsumerGroup) -> BTreeSet<Key> {
    let mut keys = consumer.keys();
    keys.extend(consumer.changed.iter().cloned());
    keys
}
