//! Groups and offsets as records of the offsets topic, in Kafka's own formats: an `i16` (the kind in a key, the
//! version in a value), then the message.

use bytes::{BufMut, Bytes, BytesMut};
use towpath_wire::consumer_group_records::{
    ConsumerGroupCurrentMemberAssignmentKey, ConsumerGroupCurrentMemberAssignmentValue,
    ConsumerGroupMemberMetadataKey, ConsumerGroupMemberMetadataValue, ConsumerGroupMetadataKey,
    ConsumerGroupMetadataValue, ConsumerGroupPartitionMetadataKey, ConsumerGroupPartitionMetadataValue,
    ConsumerGroupRegularExpressionKey, ConsumerGroupRegularExpressionValue,
    ConsumerGroupTargetAssignmentMemberKey, ConsumerGroupTargetAssignmentMemberValue,
    ConsumerGroupTargetAssignmentMetadataKey, ConsumerGroupTargetAssignmentMetadataValue,
};
use towpath_wire::share_group_records::{
    ShareGroupCurrentMemberAssignmentKey, ShareGroupCurrentMemberAssignmentValue,
    ShareGroupMemberMetadataKey, ShareGroupMemberMetadataValue, ShareGroupMetadataKey,
    ShareGroupMetadataValue, ShareGroupStatePartitionMetadataKey, ShareGroupStatePartitionMetadataValue,
    ShareGroupTargetAssignmentMemberKey, ShareGroupTargetAssignmentMemberValue,
    ShareGroupTargetAssignmentMetadataKey, ShareGroupTargetAssignmentMetadataValue,
};
use towpath_wire::{
    DecodeError, Decoder, EncodeError, GroupMetadataKey, GroupMetadataValue, Message, OffsetCommitKey,
    OffsetCommitValue,
};

const KIND_OFFSET: i16 = 1;
const KIND_GROUP: i16 = 2;
/// The epoch of a consumer group.
pub(crate) const KIND_EPOCH: i16 = 3;
/// What a consumer group subscribes to, in Kafka before 4.1.
pub(crate) const KIND_OLD_METADATA: i16 = 4;
/// A member of a consumer group.
pub(crate) const KIND_MEMBER: i16 = 5;
/// The epoch of a consumer group's target assignment.
pub(crate) const KIND_TARGET_EPOCH: i16 = 6;
/// What a member shall have.
pub(crate) const KIND_TARGET: i16 = 7;
/// What a member has.
pub(crate) const KIND_CURRENT: i16 = 8;
/// A member of a share group.
pub(crate) const KIND_SHARE_MEMBER: i16 = 10;
/// The epoch of a share group.
pub(crate) const KIND_SHARE_EPOCH: i16 = 11;
/// The epoch of a share group's target assignment.
pub(crate) const KIND_SHARE_TARGET_EPOCH: i16 = 12;
/// What a member of a share group shall have.
pub(crate) const KIND_SHARE_TARGET: i16 = 13;
/// What a member of a share group has.
pub(crate) const KIND_SHARE_CURRENT: i16 = 14;
/// The topics whose share partitions may have a state.
pub(crate) const KIND_SHARE_STATE: i16 = 15;
/// What a regular expression was resolved to.
pub(crate) const KIND_REGEX: i16 = 16;
/// The newest version without tagged fields, which Kafka 2.1 and later read.
const GROUP_VERSION: i16 = 3;
/// The version whose offset carries the time at which it expires (commits with a retention of their own).
const OFFSET_VERSION_EXPIRING: i16 = 1;
const OFFSET_VERSION: i16 = 3;
/// The version with the topic's id (Kafka 4.1).
const OFFSET_VERSION_TOPIC_ID: i16 = 4;

/// A record to append to the offsets topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsRecord {
    /// The key.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// The record's timestamp: milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
}

impl OffsetsRecord {
    /// Bytes of key and value.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// A record of the offsets topic that cannot be understood. Loading stops at it (R7): to go on would forget
/// what somebody committed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A record without a key cannot be compacted and means nothing.
    #[error("it has no key")]
    NoKey,
    /// A kind of record that this version does not know; a newer one wrote it.
    #[error("its key is of kind {0}, which this version does not know")]
    UnknownKind(i16),
    /// A version of a value that this version does not know; a newer one wrote it.
    #[error("its value has version {0}, which this version does not know")]
    UnknownVersion(i16),
    /// The bytes are not the message.
    #[error("its {part} cannot be read")]
    Undecodable {
        /// Key or value.
        part: &'static str,
        /// Why.
        #[source]
        cause: DecodeError,
    },
    /// A group that cannot be.
    #[error("its group {0}")]
    Impossible(&'static str),
}

/// What a stored record says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// An offset was committed, or (`None`) forgotten.
    Offset(OffsetCommitKey, Option<OffsetCommitValue>),
    /// A group has a new generation, or (`None`) is gone.
    Group(GroupMetadataKey, Option<GroupMetadataValue>),
    /// Something about a consumer group.
    Consumer(ConsumerEntry),
    /// Something about a share group.
    Share(ShareEntry),
}

/// What a stored record says about a consumer group; `None` takes it away.
#[derive(Debug, Clone, PartialEq)]
pub enum ConsumerEntry {
    /// The group's epoch.
    Epoch(ConsumerGroupMetadataKey, Option<ConsumerGroupMetadataValue>),
    /// What it subscribes to, as Kafka before 4.1 stored it.
    OldMetadata(ConsumerGroupPartitionMetadataKey, Option<ConsumerGroupPartitionMetadataValue>),
    /// A member.
    Member(ConsumerGroupMemberMetadataKey, Option<ConsumerGroupMemberMetadataValue>),
    /// The epoch of the target assignment.
    TargetEpoch(ConsumerGroupTargetAssignmentMetadataKey, Option<ConsumerGroupTargetAssignmentMetadataValue>),
    /// What a member shall have.
    Target(ConsumerGroupTargetAssignmentMemberKey, Option<ConsumerGroupTargetAssignmentMemberValue>),
    /// What a member has.
    Current(ConsumerGroupCurrentMemberAssignmentKey, Option<ConsumerGroupCurrentMemberAssignmentValue>),
    /// What a regular expression was resolved to.
    Regex(ConsumerGroupRegularExpressionKey, Option<ConsumerGroupRegularExpressionValue>),
}

/// What a stored record says about a share group; `None` takes it away.
#[derive(Debug, Clone, PartialEq)]
pub enum ShareEntry {
    /// The group's epoch.
    Epoch(ShareGroupMetadataKey, Option<ShareGroupMetadataValue>),
    /// A member.
    Member(ShareGroupMemberMetadataKey, Option<ShareGroupMemberMetadataValue>),
    /// The epoch of the target assignment.
    TargetEpoch(ShareGroupTargetAssignmentMetadataKey, Option<ShareGroupTargetAssignmentMetadataValue>),
    /// What a member shall have.
    Target(ShareGroupTargetAssignmentMemberKey, Option<ShareGroupTargetAssignmentMemberValue>),
    /// What a member has.
    Current(ShareGroupCurrentMemberAssignmentKey, Option<ShareGroupCurrentMemberAssignmentValue>),
    /// The topics whose share partitions may have a state.
    State(ShareGroupStatePartitionMetadataKey, Option<ShareGroupStatePartitionMetadataValue>),
}

pub(crate) fn encode(prefix: i16, message: &impl Message, version: i16) -> Result<Bytes, EncodeError> {
    let mut buffer = BytesMut::with_capacity(128);
    buffer.put_i16(prefix);
    message.encode(&mut buffer, version)?;
    Ok(buffer.freeze())
}

/// The record of a committed offset; a tombstone without `value`.
///
/// # Errors
/// When a name or the metadata is longer than the format allows.
pub fn offset_record(
    key: &OffsetCommitKey,
    value: Option<&OffsetCommitValue>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let version = |value: &OffsetCommitValue| {
        if value.expire_timestamp >= 0 {
            OFFSET_VERSION_EXPIRING
        } else if value.topic_id.is_nil() {
            OFFSET_VERSION
        } else {
            OFFSET_VERSION_TOPIC_ID
        }
    };
    let value = value.map(|value| encode(version(value), value, version(value))).transpose()?;
    Ok(OffsetsRecord { key: encode(KIND_OFFSET, key, 0)?, value, timestamp_ms })
}

/// The record of a group's generation; a tombstone without `value`.
///
/// # Errors
/// When a name is longer than the format allows.
pub fn group_record(
    group: &str,
    value: Option<&GroupMetadataValue>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let key = GroupMetadataKey { group: group.to_owned() };
    let value = value.map(|value| encode(GROUP_VERSION, value, GROUP_VERSION)).transpose()?;
    Ok(OffsetsRecord { key: encode(KIND_GROUP, &key, 0)?, value, timestamp_ms })
}

/// A record with a key of `kind`, both in version 0; a tombstone without `value`.
///
/// # Errors
/// When a name is longer than the format allows.
pub(crate) fn keyed_record<K: Message, V: Message>(
    kind: i16,
    key: &K,
    value: Option<&V>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let value = value.map(|value| encode(0, value, 0)).transpose()?;
    Ok(OffsetsRecord { key: encode(kind, key, 0)?, value, timestamp_ms })
}

pub(crate) fn decode_key<M: Message>(decoder: &mut Decoder) -> Result<M, BadRecord> {
    let read = |decoder: &mut Decoder| {
        let message = M::decode(decoder, 0)?;
        decoder.finish()?;
        Ok(message)
    };
    read(decoder).map_err(|cause| BadRecord::Undecodable { part: "key", cause })
}

pub(crate) fn decode_value<M: Message>(value: Option<&Bytes>) -> Result<Option<M>, BadRecord> {
    let Some(bytes) = value else { return Ok(None) };
    let undecodable = |cause| BadRecord::Undecodable { part: "value", cause };
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.get_i16().map_err(undecodable)?;
    if !M::VERSIONS.contains(version) {
        return Err(BadRecord::UnknownVersion(version));
    }
    // Trailing bytes are left alone: Kafka's own reader does so, too.
    M::decode(&mut decoder, version).map(Some).map_err(undecodable)
}

/// Reads a stored record.
///
/// # Errors
/// [`BadRecord`].
pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<Entry, BadRecord> {
    let mut decoder = Decoder::new(key.ok_or(BadRecord::NoKey)?.clone());
    let kind = decoder.get_i16().map_err(|cause| BadRecord::Undecodable { part: "key", cause })?;
    let d = &mut decoder;
    let consumer = match kind {
        0 | KIND_OFFSET => return Ok(Entry::Offset(decode_key(d)?, decode_value(value)?)),
        KIND_GROUP => return Ok(Entry::Group(decode_key(d)?, decode_value(value)?)),
        KIND_EPOCH => ConsumerEntry::Epoch(decode_key(d)?, decode_value(value)?),
        KIND_OLD_METADATA => ConsumerEntry::OldMetadata(decode_key(d)?, decode_value(value)?),
        KIND_MEMBER => ConsumerEntry::Member(decode_key(d)?, decode_value(value)?),
        KIND_TARGET_EPOCH => ConsumerEntry::TargetEpoch(decode_key(d)?, decode_value(value)?),
        KIND_TARGET => ConsumerEntry::Target(decode_key(d)?, decode_value(value)?),
        KIND_CURRENT => ConsumerEntry::Current(decode_key(d)?, decode_value(value)?),
        KIND_REGEX => ConsumerEntry::Regex(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_MEMBER..=KIND_SHARE_STATE => return decode_share(kind, d, value).map(Entry::Share),
        other => return Err(BadRecord::UnknownKind(other)),
    };
    Ok(Entry::Consumer(consumer))
}

fn decode_share(kind: i16, d: &mut Decoder, value: Option<&Bytes>) -> Result<ShareEntry, BadRecord> {
    Ok(match kind {
        KIND_SHARE_MEMBER => ShareEntry::Member(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_EPOCH => ShareEntry::Epoch(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_TARGET_EPOCH => ShareEntry::TargetEpoch(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_TARGET => ShareEntry::Target(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_CURRENT => ShareEntry::Current(decode_key(d)?, decode_value(value)?),
        KIND_SHARE_STATE => ShareEntry::State(decode_key(d)?, decode_value(value)?),
        other => return Err(BadRecord::UnknownKind(other)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_wire::offset_records::MemberMetadata;
    use uuid::Uuid;

    fn key() -> OffsetCommitKey {
        OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 3 }
    }

    fn value() -> OffsetCommitValue {
        OffsetCommitValue {
            offset: 42,
            leader_epoch: 7,
            metadata: "m".into(),
            commit_timestamp: 1_000,
            ..Default::default()
        }
    }

    #[test]
    fn offsets_have_kafkas_bytes() {
        let record = offset_record(&key(), Some(&value()), 5).unwrap();
        assert_eq!(&record.key[..], b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03");
        let expected: &[u8] =
            b"\x00\x03\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x00\x00\x07\x00\x01m\x00\x00\x00\x00\x00\x00\x03\xe8";
        assert_eq!(record.value.as_deref(), Some(expected));
        assert_eq!(record.size_in_bytes(), record.key.len() + expected.len());
    }

    #[test]
    fn offsets_come_back_in_every_version() {
        let expiring = OffsetCommitValue { expire_timestamp: 9_000, leader_epoch: -1, ..value() };
        let identified = OffsetCommitValue { topic_id: Uuid::from_u128(77), ..value() };
        for value in [value(), expiring, identified] {
            let record = offset_record(&key(), Some(&value), 0).unwrap();
            let read = decode(Some(&record.key), record.value.as_ref()).unwrap();
            assert_eq!(read, Entry::Offset(key(), Some(value)));
        }
        let tombstone = offset_record(&key(), None, 0).unwrap();
        assert_eq!(decode(Some(&tombstone.key), None).unwrap(), Entry::Offset(key(), None));
    }

    #[test]
    fn groups_come_back() {
        let value = GroupMetadataValue {
            protocol_type: "consumer".into(),
            generation: 4,
            protocol: Some("range".into()),
            leader: Some("m1".into()),
            current_state_timestamp: 123,
            members: vec![MemberMetadata {
                member_id: "m1".into(),
                group_instance_id: Some("i".into()),
                subscription: Bytes::from_static(b"sub"),
                assignment: Bytes::from_static(b"ass"),
                rebalance_timeout: 5,
                session_timeout: 6,
                ..Default::default()
            }],
        };
        let record = group_record("g", Some(&value), 0).unwrap();
        assert_eq!(&record.key[..], b"\x00\x02\x00\x01g");
        let read = decode(Some(&record.key), record.value.as_ref()).unwrap();
        assert_eq!(read, Entry::Group(GroupMetadataKey { group: "g".into() }, Some(value)));
    }

    #[test]
    fn what_cannot_be_understood_is_refused() {
        let bytes = |raw: &'static [u8]| Bytes::from_static(raw);
        assert_eq!(decode(None, None), Err(BadRecord::NoKey));
        assert_eq!(decode(Some(&bytes(b"\x00\x09\x00\x01g")), None), Err(BadRecord::UnknownKind(9)));
        let good = group_record("g", None, 0).unwrap().key;
        assert_eq!(decode(Some(&good), Some(&bytes(b"\x00\x63"))), Err(BadRecord::UnknownVersion(99)));
        for (key, value) in [
            (bytes(b"\x00"), None),
            (bytes(b"\x00\x02\x00\x05g"), None),
            (bytes(b"\x00\x02\x00\x01gg"), None),
            (good, Some(bytes(b"\x00\x03\x00"))),
        ] {
            let error = decode(Some(&key), value.as_ref()).unwrap_err();
            assert!(matches!(error, BadRecord::Undecodable { .. }), "{error}");
        }
        let long = OffsetCommitKey { topic: "x".repeat(40_000), ..key() };
        assert!(offset_record(&long, None, 0).is_err());
    }
}
