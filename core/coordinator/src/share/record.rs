//! Share partitions as records of the state topic, in Kafka's own formats.

use bytes::Bytes;
use towpath_types::TopicId;
use towpath_wire::share_group_records::{
    ShareSnapshotKey, ShareSnapshotValue, ShareUpdateKey, ShareUpdateValue,
};
use towpath_wire::{Decoder, EncodeError};

use super::state::ShareKey;
use crate::record::{BadRecord, OffsetsRecord, decode_key, decode_value, encode};

const KIND_SNAPSHOT: i16 = 0;
const KIND_UPDATE: i16 = 1;

/// What a stored record says; `None` takes it away.
#[derive(Debug, Clone, PartialEq)]
pub enum StateEntry {
    /// The whole state of a share partition.
    Snapshot(ShareSnapshotKey, Option<ShareSnapshotValue>),
    /// What has changed.
    Update(ShareUpdateKey, Option<ShareUpdateValue>),
}

/// A snapshot; a tombstone without `value`.
///
/// # Errors
/// When the group's name is longer than the format allows.
pub fn snapshot_record(
    key: &ShareKey,
    value: Option<&ShareSnapshotValue>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let key = ShareSnapshotKey {
        group_id: (*key.group).to_owned(),
        topic_id: key.topic.get(),
        partition: key.partition,
    };
    let value = value.map(|value| encode(0, value, 0)).transpose()?;
    Ok(OffsetsRecord { key: encode(KIND_SNAPSHOT, &key, 0)?, value, timestamp_ms })
}

/// An update; a tombstone without `value`.
///
/// # Errors
/// As [`snapshot_record`].
pub fn update_record(
    key: &ShareKey,
    value: Option<&ShareUpdateValue>,
    timestamp_ms: i64,
) -> Result<OffsetsRecord, EncodeError> {
    let key = ShareUpdateKey {
        group_id: (*key.group).to_owned(),
        topic_id: key.topic.get(),
        partition: key.partition,
    };
    let value = value.map(|value| encode(0, value, 0)).transpose()?;
    Ok(OffsetsRecord { key: encode(KIND_UPDATE, &key, 0)?, value, timestamp_ms })
}

/// Reads a stored record.
///
/// # Errors
/// [`BadRecord`]: loading stops at it (R7).
pub fn decode(key: Option<&Bytes>, value: Option<&Bytes>) -> Result<StateEntry, BadRecord> {
    let mut decoder = Decoder::new(key.ok_or(BadRecord::NoKey)?.clone());
    let kind = decoder.get_i16().map_err(|cause| BadRecord::Undecodable { part: "key", cause })?;
    match kind {
        KIND_SNAPSHOT => Ok(StateEntry::Snapshot(decode_key(&mut decoder)?, decode_value(value)?)),
        KIND_UPDATE => Ok(StateEntry::Update(decode_key(&mut decoder)?, decode_value(value)?)),
        other => Err(BadRecord::UnknownKind(other)),
    }
}

pub(super) fn key_of(group: &str, topic: uuid::Uuid, partition: i32) -> ShareKey {
    ShareKey { group: group.into(), topic: TopicId::new(topic), partition }
}
