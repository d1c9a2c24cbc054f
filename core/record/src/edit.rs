//! The header fields that a broker owns, changed in place.

use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use crate::header::{
    AT_ATTRIBUTES, AT_BASE_SEQUENCE, AT_CRC, AT_LEADER_EPOCH, AT_MAX_TIMESTAMP, AT_PRODUCER_EPOCH,
    AT_PRODUCER_ID, ATTRIBUTE_LOG_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL, CRC_FROM, HEADER_BYTES, get,
};
use crate::{BatchError, TimestampType};

fn checked(batch: &mut [u8]) -> Result<&mut [u8], BatchError> {
    let available = batch.len();
    if available < HEADER_BYTES {
        return Err(BatchError::Truncated { needed: HEADER_BYTES, available });
    }
    Ok(batch)
}

/// Sets the base offset and the partition leader epoch. Both are outside of the checksum, which stays valid.
///
/// # Errors
/// [`BatchError::Truncated`] if there is no whole header.
pub fn assign(batch: &mut [u8], base_offset: Offset, epoch: LeaderEpoch) -> Result<(), BatchError> {
    let batch = checked(batch)?;
    batch[..8].copy_from_slice(&base_offset.get().to_be_bytes());
    batch[AT_LEADER_EPOCH..AT_LEADER_EPOCH + 4].copy_from_slice(&epoch.get().to_be_bytes());
    Ok(())
}

/// Sets the timestamp type and the largest timestamp (ms), and recomputes the checksum: `header` is the batch's
/// first 61 bytes, `payload` the rest.
///
/// # Errors
/// [`BatchError::Truncated`] if there is no whole header.
pub fn set_timestamp(
    header: &mut [u8],
    payload: &[u8],
    timestamp_type: TimestampType,
    max_timestamp: i64,
) -> Result<(), BatchError> {
    let header = checked(header)?;
    let attributes = i16::from_be_bytes(get(header, AT_ATTRIBUTES));
    let attributes = match timestamp_type {
        TimestampType::CreateTime => attributes & !ATTRIBUTE_LOG_APPEND_TIME,
        TimestampType::LogAppendTime => attributes | ATTRIBUTE_LOG_APPEND_TIME,
    };
    header[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    header[AT_MAX_TIMESTAMP..AT_MAX_TIMESTAMP + 8].copy_from_slice(&max_timestamp.to_be_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[CRC_FROM..HEADER_BYTES]), payload);
    header[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Sets the producer's identity and the first sequence number of a whole batch, and recomputes the checksum: what a
/// producer does that sends a batch again under a new epoch.
///
/// # Errors
/// [`BatchError::Truncated`] if there is no whole header.
pub fn set_producer(
    batch: &mut [u8],
    id: ProducerId,
    epoch: ProducerEpoch,
    base_sequence: i32,
) -> Result<(), BatchError> {
    let batch = checked(batch)?;
    batch[AT_PRODUCER_ID..AT_PRODUCER_ID + 8].copy_from_slice(&id.get().to_be_bytes());
    batch[AT_PRODUCER_EPOCH..AT_PRODUCER_EPOCH + 2].copy_from_slice(&epoch.get().to_be_bytes());
    batch[AT_BASE_SEQUENCE..AT_BASE_SEQUENCE + 4].copy_from_slice(&base_sequence.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[AT_CRC..AT_CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// Makes a batch of another log one of a producer's own: offsets from 0 on, no leader epoch, the producer's identity and
/// sequence number, outside of transactions; and recomputes the checksum.
///
/// # Errors
/// [`BatchError::Truncated`] if there is no whole header.
pub fn adopt(
    batch: &mut [u8],
    id: ProducerId,
    epoch: ProducerEpoch,
    base_sequence: i32,
) -> Result<(), BatchError> {
    assign(batch, Offset::ZERO, LeaderEpoch::NONE)?;
    let attributes = i16::from_be_bytes(get(batch, AT_ATTRIBUTES)) & !ATTRIBUTE_TRANSACTIONAL;
    batch[AT_ATTRIBUTES..AT_ATTRIBUTES + 2].copy_from_slice(&attributes.to_be_bytes());
    set_producer(batch, id, epoch, base_sequence)
}
