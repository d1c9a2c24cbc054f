//! Control records: the markers that end a transaction.

use bytes::Bytes;
use towpath_types::{ProducerEpoch, ProducerId};

use crate::{BatchBuilder, BatchError, BuildError, Compression, Record};

/// Bytes of a batch that [`marker_batch`] makes.
pub const MARKER_BYTES: usize = 78;
/// The version of a control record's key and of a marker's value.
const VERSION: i16 = 0;
const ABORT: i16 = 0;
const COMMIT: i16 = 1;

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
        ABORT => ControlType::Abort,
        COMMIT => ControlType::Commit,
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

/// The batch that ends a producer's transaction (Kafka's `MemoryRecords.withEndTransactionMarker`): one control record,
/// not compressed, without a sequence number.
///
/// # Errors
/// [`BuildError`], which a record of this size does not bring.
pub fn marker_batch(
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    coordinator_epoch: i32,
    commit: bool,
    timestamp_ms: i64,
) -> Result<Bytes, BuildError> {
    let control_type = if commit { COMMIT } else { ABORT };
    let mut key = [0; 4];
    key[..2].copy_from_slice(&VERSION.to_be_bytes());
    key[2..].copy_from_slice(&control_type.to_be_bytes());
    let mut value = [0; 6];
    value[..2].copy_from_slice(&VERSION.to_be_bytes());
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::new(Compression::None);
    builder.set_producer(producer_id, producer_epoch, -1);
    builder.set_transactional(true);
    builder.set_control(true);
    builder.append(timestamp_ms, Some(&key), Some(&value), &[])?;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecordBatch;

    #[test]
    fn markers_come_back_as_they_were_made() {
        for (commit, control_type) in [(true, ControlType::Commit), (false, ControlType::Abort)] {
            let bytes = marker_batch(ProducerId::new(7), ProducerEpoch::new(3), 12, commit, 1_000).unwrap();
            assert_eq!(bytes.len(), MARKER_BYTES);
            let batch = RecordBatch::parse(&bytes).unwrap();
            batch.verify_crc().unwrap();
            assert!(batch.is_control() && batch.is_transactional());
            assert_eq!((batch.base_sequence, batch.record_count, batch.max_timestamp), (-1, 1, 1_000));
            let records = batch.records().unwrap();
            let decoded = control_record(&records.iter().next().unwrap().unwrap()).unwrap();
            assert_eq!(decoded, ControlRecord { control_type, coordinator_epoch: Some(12) });
        }
    }
}
