//! What a leader checks before it appends a produced batch (Kafka's `LogValidator`).

use bytes::Bytes;
use towpath_types::limits;

use crate::batch::verify_crc;
use crate::walk::{self, Fail, RECORD_BYTES_MIN, Slice, Source, Stream};
use crate::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, InvalidRecord, TimestampType, ValidateError,
    compression,
};

/// How many faulty records an error lists.
const INVALID_RECORDS_MAX: usize = 100;

/// Who made a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A producer: everything is checked.
    #[default]
    Client,
    /// A group or transaction coordinator of this broker: may write control batches, and records without sequence
    /// numbers for a producer.
    Coordinator,
}

/// The topic's rules.
#[derive(Debug, Clone, Copy)]
pub struct ValidateOptions {
    /// Who made the batch.
    pub origin: Origin,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
    /// Whether every record needs a key (`cleanup.policy` contains `compact`).
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// The broker's time.
    pub now_ms: i64,
    /// Bytes that the payload may decompress to.
    pub uncompressed_bytes_max: usize,
}

impl Default for ValidateOptions {
    /// Kafka's defaults, at time zero.
    fn default() -> Self {
        Self {
            origin: Origin::Client,
            message_bytes_max: limits::MESSAGE_BYTES_MAX_DEFAULT,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            now_ms: 0,
            uncompressed_bytes_max: limits::BATCH_UNCOMPRESSED_BYTES_MAX,
        }
    }
}

/// A batch that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidBatch {
    /// The header as the producer sent it.
    pub header: BatchHeader,
    /// The codec.
    pub compression: Compression,
    /// The largest timestamp of the records (ms); the header's claim may differ, and the log then corrects it.
    pub max_timestamp: i64,
    /// The offset delta of the first record that has it.
    pub max_timestamp_delta: i32,
}

/// Checks that `bytes` are exactly one batch that may be appended. The records are walked over, not copied;
/// compressed ones through a small window.
///
/// # Errors
/// See [`ValidateError`]; each variant names the protocol's error code.
pub fn validate(bytes: &Bytes, options: &ValidateOptions) -> Result<ValidBatch, ValidateError> {
    let header = BatchHeader::parse(bytes)?;
    let size = header.size_in_bytes();
    if size > bytes.len() {
        return Err(BatchError::Truncated { needed: size, available: bytes.len() }.into());
    }
    if size < bytes.len() {
        return Err(ValidateError::InvalidBatch("a partition takes exactly one record batch per request"));
    }
    if size > options.message_bytes_max {
        return Err(ValidateError::TooLarge { bytes: size, max: options.message_bytes_max });
    }
    verify_crc(&header, bytes)?;
    check_header(&header, options)?;
    let compression = header.compression()?;
    let payload = &bytes[HEADER_BYTES..];
    match compression {
        Compression::None => {
            if header.record_count as usize > payload.len() / RECORD_BYTES_MIN {
                return Err(BatchError::Header("the record count is larger than the payload can hold").into());
            }
            check_records(&header, compression, Slice::new(payload), options)
        }
        _ => {
            let max = options.uncompressed_bytes_max;
            let reader = compression::reader(compression, payload, max)?;
            check_records(&header, compression, Stream::new(reader, compression, max), options)
        }
    }
}

fn check_header(header: &BatchHeader, options: &ValidateOptions) -> Result<(), ValidateError> {
    let invalid = |problem| Err(ValidateError::InvalidBatch(problem));
    if header.record_count <= 0 {
        return invalid("it has no records");
    }
    if header.record_count as usize > limits::BATCH_RECORDS_MAX {
        return invalid("it has too many records");
    }
    if header.last_offset_delta != header.record_count - 1 {
        return invalid("its last offset delta does not match its record count");
    }
    if header.delete_horizon_ms().is_some() {
        return invalid("only the log cleaner sets a delete horizon");
    }
    if header.has_producer_id() {
        if header.producer_epoch.get() < 0 {
            return invalid("it has a producer id without a producer epoch");
        }
        // Offsets of a transaction, which a group coordinator writes for the producer, have none.
        if header.base_sequence < 0 && options.origin == Origin::Client && !header.is_control() {
            return invalid("it has a producer id without a sequence number");
        }
    } else if header.is_transactional() {
        return invalid("it is transactional without a producer id");
    }
    if options.origin == Origin::Client {
        if header.is_control() {
            return invalid("clients may not write control records");
        }
        if header.base_offset.get() != 0 {
            return invalid("its base offset is not 0");
        }
        if header.timestamp_type() == TimestampType::LogAppendTime {
            return Err(ValidateError::InvalidTimestamps(vec![InvalidRecord {
                index: 0,
                problem: "a producer may not set the timestamp type to LogAppendTime",
            }]));
        }
    }
    Ok(())
}

/// Collects the complaints about records.
#[derive(Default)]
struct Complaints {
    records: Vec<InvalidRecord>,
    timestamps: Vec<InvalidRecord>,
}

impl Complaints {
    fn note(list: &mut Vec<InvalidRecord>, index: i32, problem: &'static str) {
        if list.len() < INVALID_RECORDS_MAX {
            list.push(InvalidRecord { index, problem });
        }
    }

    fn result(self) -> Result<(), ValidateError> {
        if !self.records.is_empty() {
            return Err(ValidateError::InvalidRecords(self.records));
        }
        if !self.timestamps.is_empty() {
            return Err(ValidateError::InvalidTimestamps(self.timestamps));
        }
        Ok(())
    }
}

fn check_records<S: Source>(
    header: &BatchHeader,
    compression: Compression,
    mut source: S,
    options: &ValidateOptions,
) -> Result<ValidBatch, ValidateError> {
    let oldest = options.now_ms.saturating_sub(options.timestamp_before_max_ms);
    let newest = options.now_ms.saturating_add(options.timestamp_after_max_ms);
    let bounded = options.timestamp_type == TimestampType::CreateTime && options.origin == Origin::Client;
    let mut max_timestamp = i64::MIN;
    let mut max_timestamp_delta = 0;
    let mut complaints = Complaints::default();
    for index in 0..header.record_count {
        let shape = match walk::record(&mut source) {
            Ok(shape) => shape,
            Err(Fail::Shape(problem)) => return Err(BatchError::Record { index, problem }.into()),
            Err(Fail::Source(error)) => return Err(error.into()),
        };
        if shape.offset_delta != i64::from(index) {
            Complaints::note(&mut complaints.records, index, "its offset delta is not its index");
        }
        if options.compacted && !shape.has_key && !header.is_control() {
            Complaints::note(
                &mut complaints.records,
                index,
                "a compacted topic takes no record without a key",
            );
        }
        let timestamp = header.base_timestamp.wrapping_add(shape.timestamp_delta);
        if bounded && timestamp != -1 && !(oldest..=newest).contains(&timestamp) {
            Complaints::note(&mut complaints.timestamps, index, "its timestamp is out of the topic's bounds");
        }
        if timestamp > max_timestamp {
            max_timestamp = timestamp;
            max_timestamp_delta = index;
        }
    }
    match source.at_end() {
        Ok(true) => {}
        Ok(false) => return Err(BatchError::Header("bytes are left after the last record").into()),
        Err(Fail::Shape(_)) => return Err(BatchError::Header("bytes are left after the last record").into()),
        Err(Fail::Source(error)) => return Err(error.into()),
    }
    complaints.result()?;
    Ok(ValidBatch { header: *header, compression, max_timestamp, max_timestamp_delta })
}
