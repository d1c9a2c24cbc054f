//! Writes batches.

use bytes::{Bytes, BytesMut};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, limits};

use crate::header::{
    ATTRIBUTE_COMPRESSION, ATTRIBUTE_CONTROL, ATTRIBUTE_DELETE_HORIZON, ATTRIBUTE_LOG_APPEND_TIME,
    ATTRIBUTE_TRANSACTIONAL, CRC_FROM, HEADER_BYTES, LENGTH_PREFIX_BYTES,
};
use crate::{BatchHeader, BuildError, Codec, Compression, Compressor, Header, TimestampType, varint};

/// Bytes that a record with these parts takes at most in a batch (not compressed).
#[must_use]
pub fn record_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> usize {
    let part = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len) + 5;
    let headers: usize = headers.iter().map(|header| part(Some(header.key)) + part(header.value)).sum();
    // Length, attributes, timestamp delta, offset delta, header count at their largest.
    5 + 1 + 10 + 5 + 5 + part(key) + part(value) + headers
}

/// Builds one batch after the other. The buffer is reused as soon as the batches built from it are dropped.
#[derive(Debug)]
pub struct BatchBuilder {
    /// The header's room, then the records.
    buffer: BytesMut,
    compressor: Compressor,
    bytes_max: usize,
    base_offset: Offset,
    partition_leader_epoch: LeaderEpoch,
    producer: Option<(ProducerId, ProducerEpoch, i32)>,
    attributes: i16,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    record_count: i32,
    last_offset_delta: i32,
    forced_last_offset_delta: Option<i32>,
    forced_max_timestamp: Option<i64>,
    /// Bytes of the batch before: as many are made room for when the next one begins.
    bytes_expected: usize,
}

impl BatchBuilder {
    /// A builder of batches compressed with `codec`.
    #[must_use]
    pub fn new(codec: impl Into<Codec>) -> Self {
        let mut builder = Self {
            buffer: BytesMut::new(),
            compressor: Compressor::new(codec.into()),
            bytes_max: limits::BATCH_UNCOMPRESSED_BYTES_MAX,
            base_offset: Offset::ZERO,
            partition_leader_epoch: LeaderEpoch::NONE,
            producer: None,
            attributes: 0,
            base_timestamp: None,
            max_timestamp: -1,
            record_count: 0,
            last_offset_delta: -1,
            forced_last_offset_delta: None,
            forced_max_timestamp: None,
            bytes_expected: 0,
        };
        builder.reset();
        builder
    }

    /// Forgets everything that was appended or set, except for the codec.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES, 0);
        self.base_offset = Offset::ZERO;
        self.partition_leader_epoch = LeaderEpoch::NONE;
        self.producer = None;
        self.attributes = 0;
        self.base_timestamp = None;
        self.max_timestamp = -1;
        self.record_count = 0;
        self.last_offset_delta = -1;
        self.forced_last_offset_delta = None;
        self.forced_max_timestamp = None;
    }

    /// Makes room for batches of about `bytes`, so that appending does not grow the buffer.
    pub fn reserve(&mut self, bytes: usize) {
        self.buffer.reserve(bytes.min(self.bytes_max));
    }

    /// Sets the idempotent producer's identity and the sequence number of the first record.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) {
        self.producer = Some((id, epoch, base_sequence));
    }

    /// Takes over everything but the records of an existing batch: offsets, leader epoch, producer, attributes
    /// (without the codec), largest timestamp. For a rewrite of the same records, or of fewer.
    pub fn set_like(&mut self, header: &BatchHeader) {
        self.base_offset = header.base_offset;
        self.partition_leader_epoch = header.partition_leader_epoch;
        self.producer = Some((header.producer_id, header.producer_epoch, header.base_sequence));
        self.attributes = header.attributes & !ATTRIBUTE_COMPRESSION;
        self.base_timestamp = Some(header.base_timestamp);
        self.forced_max_timestamp = Some(header.max_timestamp);
        self.forced_last_offset_delta = Some(header.last_offset_delta);
    }

    /// Marks the batch as part of a transaction.
    pub fn set_transactional(&mut self, transactional: bool) {
        self.set_attribute(ATTRIBUTE_TRANSACTIONAL, transactional);
    }

    /// Marks the batch as holding a control record.
    pub fn set_control(&mut self, control: bool) {
        self.set_attribute(ATTRIBUTE_CONTROL, control);
    }

    fn set_attribute(&mut self, bit: i16, on: bool) {
        if on {
            self.attributes |= bit;
        } else {
            self.attributes &= !bit;
        }
    }

    /// Sets base offset and leader epoch, which an ordinary producer leaves to the broker.
    pub fn set_base(&mut self, base_offset: Offset, partition_leader_epoch: LeaderEpoch) {
        self.base_offset = base_offset;
        self.partition_leader_epoch = partition_leader_epoch;
    }

    /// Keeps what compaction must keep of an original batch: its last offset delta, although the record is gone.
    pub fn set_last_offset_delta(&mut self, delta: i32) {
        self.forced_last_offset_delta = Some(delta);
    }

    /// Stamps the batch with a delete horizon (ms, KIP-534). Before the first record: the deltas refer to it.
    pub fn set_delete_horizon(&mut self, horizon_ms: i64) {
        self.attributes |= ATTRIBUTE_DELETE_HORIZON;
        self.base_timestamp = Some(horizon_ms);
    }

    /// Takes the delete horizon out again: a batch without records waits for nothing. Before the first record.
    pub fn clear_delete_horizon(&mut self) {
        if self.attributes & ATTRIBUTE_DELETE_HORIZON != 0 {
            self.attributes &= !ATTRIBUTE_DELETE_HORIZON;
            self.base_timestamp = None;
        }
    }

    /// Sets the timestamp type; with `LogAppendTime` the batch carries `max_timestamp` for all of its records.
    pub fn set_timestamp_type(&mut self, timestamp_type: TimestampType, max_timestamp: i64) {
        self.set_attribute(ATTRIBUTE_LOG_APPEND_TIME, timestamp_type == TimestampType::LogAppendTime);
        if timestamp_type == TimestampType::LogAppendTime {
            self.forced_max_timestamp = Some(max_timestamp);
        }
    }

    /// Keeps the largest timestamp of an original batch, although its record may be gone.
    pub fn set_max_timestamp(&mut self, max_timestamp: i64) {
        self.forced_max_timestamp = Some(max_timestamp);
    }

    /// Adds a record after the last one and returns its offset delta.
    ///
    /// # Errors
    /// [`BuildError::TooLarge`]; the batch is as it was.
    pub fn append(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<i32, BuildError> {
        let too_large = BuildError::TooLarge { max: self.bytes_max };
        let delta = self.last_offset_delta.checked_add(1).ok_or(too_large)?;
        self.append_at(delta, timestamp_ms, key, value, headers)?;
        Ok(delta)
    }

    /// Adds a record with an explicit offset delta, which must be larger than the last (compaction leaves gaps).
    ///
    /// # Errors
    /// [`BuildError::OffsetOrder`], [`BuildError::TooLarge`]; the batch is as it was.
    pub fn append_at(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<(), BuildError> {
        if offset_delta <= self.last_offset_delta {
            return Err(BuildError::OffsetOrder { delta: offset_delta, last: self.last_offset_delta });
        }
        let max = self.bytes_max;
        if self.buffer.len() + record_bytes(key, value, headers) > max {
            return Err(BuildError::TooLarge { max });
        }
        let base = *self.base_timestamp.get_or_insert(timestamp_ms);
        let timestamp_delta = timestamp_ms.wrapping_sub(base);
        let part =
            |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint::size(bytes.len() as i64) + bytes.len());
        let headers_bytes: usize =
            headers.iter().map(|header| part(Some(header.key)) + part(header.value)).sum();
        let body = 1
            + varint::size(timestamp_delta)
            + varint::size(i64::from(offset_delta))
            + part(key)
            + part(value)
            + varint::size(headers.len() as i64)
            + headers_bytes;
        let out = &mut self.buffer;
        let expected = if self.record_count == 0 { self.bytes_expected } else { 0 };
        out.reserve((body + 5).max(expected));
        varint::write(out, body as i64);
        out.extend_from_slice(&[0]);
        varint::write(out, timestamp_delta);
        varint::write(out, i64::from(offset_delta));
        write_nullable(out, key);
        write_nullable(out, value);
        varint::write(out, headers.len() as i64);
        for header in headers {
            write_nullable(out, Some(header.key));
            write_nullable(out, header.value);
        }
        self.max_timestamp =
            if self.record_count == 0 { timestamp_ms } else { self.max_timestamp.max(timestamp_ms) };
        self.record_count += 1;
        self.last_offset_delta = offset_delta;
        Ok(())
    }

    /// How many records were appended.
    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether no record was appended.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// Bytes of the batch if it were not compressed.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Finishes the batch and makes the builder empty again. A batch without records is legal (compaction), with
    /// the last offset delta that was set.
    ///
    /// # Errors
    /// [`BuildError::Compress`].
    pub fn build(&mut self) -> Result<Bytes, BuildError> {
        let compression = self.compressor.codec().compression;
        self.bytes_expected = self.buffer.len();
        let batch = if compression == Compression::None || self.record_count == 0 {
            let mut batch = self.buffer.split();
            self.write_header(&mut batch, Compression::None);
            batch.freeze()
        } else {
            let mut batch = Vec::with_capacity(HEADER_BYTES + self.buffer.len() / 2 + 64);
            batch.resize(HEADER_BYTES, 0);
            self.compressor.compress(&self.buffer[HEADER_BYTES..], &mut batch)?;
            self.write_header(&mut batch, compression);
            Bytes::from(batch)
        };
        self.reset();
        Ok(batch)
    }

    fn write_header(&self, batch: &mut [u8], compression: Compression) {
        let (id, epoch, sequence) = self.producer.unwrap_or((ProducerId::NONE, ProducerEpoch::NONE, -1));
        let last_offset_delta = self.forced_last_offset_delta.unwrap_or(self.last_offset_delta);
        let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            batch[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&self.base_offset.get().to_be_bytes());
        put(&length.to_be_bytes());
        put(&self.partition_leader_epoch.get().to_be_bytes());
        put(&[2]);
        put(&[0; 4]);
        put(&(self.attributes | i16::from(compression.id())).to_be_bytes());
        put(&last_offset_delta.to_be_bytes());
        put(&self.base_timestamp.unwrap_or(-1).to_be_bytes());
        put(&self.forced_max_timestamp.unwrap_or(self.max_timestamp).to_be_bytes());
        put(&id.get().to_be_bytes());
        put(&epoch.get().to_be_bytes());
        put(&sequence.to_be_bytes());
        put(&self.record_count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[CRC_FROM - 4..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

fn write_nullable(out: &mut BytesMut, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write(out, -1),
        Some(bytes) => {
            varint::write(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}
