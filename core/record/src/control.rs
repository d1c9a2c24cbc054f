//! Control records: the markers that end a transaction.

use crate::{BatchError, Record};

/// What a control record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's transaction is aborted.
    Abort,
    /// The producer's transaction is committed.
    Commit,
    /// A control record of another kind (leader change, snapshot header …), by its number.
    Other(i16),
}

/// A decoded control record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlRecord {
    /// Its kind.
    pub control_type: ControlType,
    /// The epoch of the transaction coordinator, for the two markers.
    pub coordinator_epoch: Option<i32>,
}

/// Decodes a control record (`ControlRecordType` and `EndTransactionMarker` of Apache Kafka).
///
/// # Errors
/// [`BatchError::Record`] if key or value are not those of a control record.
pub fn control_record(record: &Record<'_>) -> Result<ControlRecord, BatchError> {
    let malformed = |problem| BatchError::Record { index: 0, problem };
    let key = record.key.ok_or_else(|| malformed("a control record without a key"))?;
    let [_, _, high, low, ..] = *key else {
        return Err(malformed("a control record's key is cut short"));
    };
    let control_type = match i16::from_be_bytes([high, low]) {
        0 => ControlType::Abort,
        1 => ControlType::Commit,
        other => {
            return Ok(ControlRecord { control_type: ControlType::Other(other), coordinator_epoch: None });
        }
    };
    let [_, _, epoch @ ..] = record.value.unwrap_or_default() else {
        return Err(malformed("a marker's value is cut short"));
    };
    let epoch = epoch.first_chunk::<4>().ok_or_else(|| malformed("a marker's value is cut short"))?;
    Ok(ControlRecord { control_type, coordinator_epoch: Some(i32::from_be_bytes(*epoch)) })
}
