//! The 61 bytes before the records.

use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use crate::{BatchError, Compression};

/// Bytes of a batch's header, from the base offset to the record count.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that `batch_length` counts: base offset and the length itself.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the checksummed part begins (`attributes`); base offset and leader epoch are outside of it.
pub(crate) const CRC_FROM: usize = 21;
pub(crate) const AT_LENGTH: usize = 8;
pub(crate) const AT_LEADER_EPOCH: usize = 12;
pub(crate) const AT_MAGIC: usize = 16;
pub(crate) const AT_CRC: usize = 17;
pub(crate) const AT_ATTRIBUTES: usize = 21;
pub(crate) const AT_LAST_OFFSET_DELTA: usize = 23;
pub(crate) const AT_BASE_TIMESTAMP: usize = 27;
pub(crate) const AT_MAX_TIMESTAMP: usize = 35;
pub(crate) const AT_PRODUCER_ID: usize = 43;
pub(crate) const AT_PRODUCER_EPOCH: usize = 51;
pub(crate) const AT_BASE_SEQUENCE: usize = 53;
pub(crate) const AT_RECORD_COUNT: usize = 57;

pub(crate) const ATTRIBUTE_COMPRESSION: i16 = 0x07;
pub(crate) const ATTRIBUTE_LOG_APPEND_TIME: i16 = 0x08;
pub(crate) const ATTRIBUTE_TRANSACTIONAL: i16 = 0x10;
pub(crate) const ATTRIBUTE_CONTROL: i16 = 0x20;
pub(crate) const ATTRIBUTE_DELETE_HORIZON: i16 = 0x40;

/// Whose clock stamped a batch (`message.timestamp.type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's, at the append; one timestamp for the whole batch.
    LogAppendTime,
}

/// A parsed header; the layout is `DefaultRecordBatch` of Apache Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record, also of one that compaction has removed.
    pub base_offset: Offset,
    /// Bytes after the length field.
    pub batch_length: i32,
    /// The epoch of the leader that appended the batch.
    pub partition_leader_epoch: LeaderEpoch,
    /// The CRC-32C as stored.
    pub crc: u32,
    /// The raw attribute bits.
    pub attributes: i16,
    /// The last offset relative to the base offset; compaction keeps it.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to (ms); the delete horizon where that bit is set (KIP-534).
    pub base_timestamp: i64,
    /// The largest timestamp (ms), or the append time.
    pub max_timestamp: i64,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence number of the first record, or -1.
    pub base_sequence: i32,
    /// How many records follow; 0 is legal after compaction.
    pub record_count: i32,
}

#[inline]
pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

impl BatchHeader {
    /// Parses the header at the front of `bytes`; the records need not be there.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] under 61 bytes, [`BatchError::Length`], [`BatchError::Magic`]. The checksum is not
    /// looked at: see [`crate::RecordBatch::verify_crc`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Truncated { needed: HEADER_BYTES, available: bytes.len() });
        }
        let batch_length = i32::from_be_bytes(get(bytes, AT_LENGTH));
        let magic = i8::from_be_bytes(get(bytes, AT_MAGIC));
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        if batch_length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(BatchError::Length(batch_length));
        }
        Ok(Self {
            base_offset: Offset::new(i64::from_be_bytes(get(bytes, 0))),
            batch_length,
            partition_leader_epoch: LeaderEpoch::new(i32::from_be_bytes(get(bytes, AT_LEADER_EPOCH))),
            crc: u32::from_be_bytes(get(bytes, AT_CRC)),
            attributes: i16::from_be_bytes(get(bytes, AT_ATTRIBUTES)),
            last_offset_delta: i32::from_be_bytes(get(bytes, AT_LAST_OFFSET_DELTA)),
            base_timestamp: i64::from_be_bytes(get(bytes, AT_BASE_TIMESTAMP)),
            max_timestamp: i64::from_be_bytes(get(bytes, AT_MAX_TIMESTAMP)),
            producer_id: ProducerId::new(i64::from_be_bytes(get(bytes, AT_PRODUCER_ID))),
            producer_epoch: ProducerEpoch::new(i16::from_be_bytes(get(bytes, AT_PRODUCER_EPOCH))),
            base_sequence: i32::from_be_bytes(get(bytes, AT_BASE_SEQUENCE)),
            record_count: i32::from_be_bytes(get(bytes, AT_RECORD_COUNT)),
        })
    }

    /// The whole batch's size, header included.
    #[must_use]
    pub const fn size_in_bytes(&self) -> usize {
        self.batch_length as usize + LENGTH_PREFIX_BYTES
    }

    /// The offset of the last record (also of one that compaction has removed); saturates at the end of the space.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset::new(self.base_offset.get().saturating_add(self.last_offset_delta as i64))
    }

    /// The offset after this batch.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// The codec of the payload.
    ///
    /// # Errors
    /// [`BatchError::UnknownCompression`].
    pub const fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes & ATTRIBUTE_COMPRESSION) as u8;
        match Compression::from_id(id) {
            Some(compression) => Ok(compression),
            None => Err(BatchError::UnknownCompression(id)),
        }
    }

    /// Whose clock stamped the records.
    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & ATTRIBUTE_LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record, which consumers do not see.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// When the tombstones of the batch may be removed (ms), if compaction has set that (KIP-534).
    #[must_use]
    pub const fn delete_horizon_ms(&self) -> Option<i64> {
        if self.attributes & ATTRIBUTE_DELETE_HORIZON == 0 { None } else { Some(self.base_timestamp) }
    }

    /// Whether an idempotent or transactional producer wrote the batch.
    #[must_use]
    pub const fn has_producer_id(&self) -> bool {
        self.producer_id.get() >= 0
    }

    /// The sequence number of the last record; sequences wrap from `i32::MAX` to 0.
    #[must_use]
    pub const fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return -1;
        }
        ((self.base_sequence as i64 + self.last_offset_delta as i64) & 0x7fff_ffff) as i32
    }
}
