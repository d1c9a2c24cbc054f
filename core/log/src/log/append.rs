//! Appending, by the leader and by followers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use towpath_record::{
    BatchError, BatchHeader, Compression, HEADER_BYTES, Origin, RecordBatch, TimestampType, ValidBatch,
    ValidateError, ValidateOptions, batches, edit, recompress, validate,
};
use towpath_types::{LeaderEpoch, Offset, limits};

use super::{Log, Writer};
use crate::config::LogConfig;
use crate::error::{AppendError, LogError};
use crate::producer::{Appender, Change, Decision, EndMarker, VerificationGuard};
use crate::segment::{LOG, SNAPSHOT, Segment, segment_path};
use crate::tail::TailBatch;
use crate::unstable::Ended;

/// How much work an append may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// About a millisecond's: what a thread that serves many connections can do between two of them.
    Small,
    /// Any.
    Any,
}

/// How a batch is appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOptions {
    /// Who made it.
    pub origin: Origin,
    /// How much work the append may be.
    pub effort: Effort,
    /// The proof that its transaction was verified, where the transaction is not open in this log yet: see
    /// [`Log::transaction_check`].
    pub guard: Option<VerificationGuard>,
}

/// Bytes of a compressed batch that may be decompressed within a small effort.
const SMALL_COMPRESSED_BYTES: usize = 128 * 1024;
/// Bytes that a batch may decompress to within a small effort, whatever it looked like.
const SMALL_UNCOMPRESSED_BYTES: usize = 1024 * 1024;
/// Bytes of a batch that may be compressed anew within a small effort.
const SMALL_RECOMPRESSED_BYTES: usize = 8 * 1024;

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendInfo {
    /// The offset of its first record.
    pub first_offset: Offset,
    /// The offset of its last record.
    pub last_offset: Offset,
    /// The append time (ms), where the topic's timestamps are the broker's.
    pub log_append_time_ms: Option<i64>,
    /// The log start offset at that time.
    pub log_start_offset: Offset,
    /// The batch was in the log already: nothing was appended, and these are the original offsets.
    pub duplicate: bool,
    /// A segment was closed before this batch: [`Log::flush`] is due, off the caller's thread.
    pub rolled: bool,
}

/// A batch on its way into the file: the header as it will stand there, and the rest as it came.
pub(super) struct Prepared {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) payload: Bytes,
    pub(super) valid: ValidBatch,
}

/// By which rules the producer's state is asked.
pub(super) enum Check {
    Records(Appender),
    Marker { marker: EndMarker, tv2: bool },
}

impl Log {
    /// Appends one produced batch: validates it, recognises repetitions, assigns offsets (R2) and writes it once.
    /// The bytes are not changed in place and not copied: the header is patched on its way into the file.
    ///
    /// # Errors
    /// [`AppendError`]; unless it is [`AppendError::Storage`] the log is as it was.
    pub fn append_as_leader(
        &self,
        batch: Bytes,
        leader_epoch: LeaderEpoch,
        origin: Origin,
    ) -> Result<AppendInfo, AppendError> {
        self.append_as_leader_within(batch, leader_epoch, origin, Effort::Any)
    }

    /// As [`Self::append_as_leader`], but with no more work than `effort` allows.
    ///
    /// # Errors
    /// As there; and [`AppendError::TooMuchWork`], with the log as it was.
    pub fn append_as_leader_within(
        &self,
        batch: Bytes,
        leader_epoch: LeaderEpoch,
        origin: Origin,
        effort: Effort,
    ) -> Result<AppendInfo, AppendError> {
        self.append_as_leader_with(batch, leader_epoch, &AppendOptions { origin, effort, guard: None })
    }

    /// As [`Self::append_as_leader`], also for batches of transactions: one that begins a transaction here needs a
    /// guard.
    ///
    /// # Errors
    /// As there; [`AppendError::NotVerified`] without a guard that counts, and [`AppendError::TooMuchWork`]. The log is
    /// as it was.
    pub fn append_as_leader_with(
        &self,
        batch: Bytes,
        leader_epoch: LeaderEpoch,
        options: &AppendOptions,
    ) -> Result<AppendInfo, AppendError> {
        self.disk.check()?;
        let config = self.config();
        let now_ms = self.disk.clock.now_ms();
        let prepared = prepare(batch, &config, options.origin, now_ms, options.effort)?;
        let check = match EndMarker::of(&prepared.valid.header, [&prepared.header, &prepared.payload]) {
            None => Check::Records(Appender { origin: options.origin, guard: options.guard }),
            Some(marker) => Check::Marker { marker, tv2: false },
        };
        self.append_prepared(prepared, &config, (leader_epoch, now_ms), &check)
    }

    /// Assigns offsets to a batch in the term and at the time `at`, and writes it.
    pub(super) fn append_prepared(
        &self,
        mut prepared: Prepared,
        config: &LogConfig,
        at: (LeaderEpoch, i64),
        check: &Check,
    ) -> Result<AppendInfo, AppendError> {
        let (leader_epoch, now_ms) = at;
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        self.check_open(writer)?;
        let current = self.epochs.read().latest();
        if leader_epoch < current {
            // R6: a leader of an older epoch writes nothing.
            return Err(AppendError::FencedLeaderEpoch { found: leader_epoch, current });
        }
        let log_append_time = config.timestamp_type == TimestampType::LogAppendTime;
        let log_start_offset = self.log_start_offset();
        let sent = &prepared.valid.header;
        let decision = match check {
            Check::Records(appender) => writer.producers.check(sent, *appender, &writer.verifications)?,
            Check::Marker { marker, tv2 } => {
                let producer = (sent.producer_id, sent.producer_epoch);
                writer.producers.check_marker(producer, marker.coordinator_epoch, *tv2)?;
                Decision::Append
            }
        };
        if let Decision::Duplicate { first, last, timestamp } = decision {
            return Ok(AppendInfo {
                first_offset: first,
                last_offset: last,
                log_append_time_ms: log_append_time.then_some(timestamp),
                log_start_offset,
                duplicate: true,
                rolled: false,
            });
        }
        let first_offset = self.log_end_offset();
        let header =
            self.assign(&mut prepared, first_offset, leader_epoch, log_append_time.then_some(now_ms))?;
        let rolled = self.roll_if_full(writer, config, &header)?;
        if leader_epoch > current {
            self.epochs.write().assign(leader_epoch, first_offset);
        }
        self.write(writer, config, &header, [&prepared.header, &prepared.payload])?;
        Ok(AppendInfo {
            first_offset,
            last_offset: header.last_offset(),
            log_append_time_ms: log_append_time.then_some(now_ms),
            log_start_offset,
            duplicate: false,
            rolled,
        })
    }

    /// Patches offset, epoch and, where the topic or a wrong claim needs it, the timestamp.
    pub(super) fn assign(
        &self,
        prepared: &mut Prepared,
        first_offset: Offset,
        leader_epoch: LeaderEpoch,
        append_time: Option<i64>,
    ) -> Result<BatchHeader, AppendError> {
        let delta = i64::from(prepared.valid.header.last_offset_delta);
        first_offset
            .checked_add(delta)
            .and_then(|last| last.checked_add(1))
            .ok_or(AppendError::OffsetsExhausted)?;
        let corrupt = |error: BatchError| AppendError::Invalid(error.into());
        let header = &mut prepared.header;
        edit::assign(header, first_offset, leader_epoch).map_err(corrupt)?;
        let (timestamp_type, max) = match append_time {
            Some(now_ms) => (TimestampType::LogAppendTime, now_ms),
            None => (TimestampType::CreateTime, prepared.valid.max_timestamp),
        };
        let sent = &prepared.valid.header;
        if sent.timestamp_type() != timestamp_type || sent.max_timestamp != max {
            edit::set_timestamp(header, &prepared.payload, timestamp_type, max).map_err(corrupt)?;
        }
        BatchHeader::parse(header).map_err(corrupt)
    }

    /// Appends what was fetched from the leader: whole batches that begin at the log end offset, with the leader's
    /// offsets and epochs. A partial last batch is left out. `epoch_max` is the leader epoch of the fetch: batches
    /// of a newer epoch end the append (KAFKA-18723).
    ///
    /// # Errors
    /// [`AppendError::UnexpectedOffset`], [`AppendError::Invalid`] (checksum), [`AppendError::Storage`]. Batches
    /// before the one at fault are appended.
    pub fn append_as_follower(
        &self,
        bytes: &Bytes,
        epoch_max: LeaderEpoch,
    ) -> Result<Option<AppendInfo>, AppendError> {
        self.disk.check()?;
        let config = self.config();
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        let mut info: Option<AppendInfo> = None;
        for batch in batches(bytes) {
            let batch = batch.map_err(ValidateError::from)?;
            if batch.partition_leader_epoch > epoch_max {
                break;
            }
            self.check_open(writer)?;
            let rolled = self.append_fetched(writer, &config, &batch)?;
            let log_append_time = batch.timestamp_type() == TimestampType::LogAppendTime;
            info = Some(AppendInfo {
                first_offset: info.map_or(batch.base_offset, |info| info.first_offset),
                last_offset: batch.last_offset(),
                log_append_time_ms: log_append_time.then_some(batch.max_timestamp),
                log_start_offset: self.log_start_offset(),
                duplicate: false,
                rolled: rolled || info.is_some_and(|info| info.rolled),
            });
        }
        Ok(info)
    }

    fn append_fetched(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        batch: &RecordBatch,
    ) -> Result<bool, AppendError> {
        batch.verify_crc().map_err(ValidateError::from)?;
        if batch.last_offset_delta < 0 || batch.record_count < 0 {
            return Err(ValidateError::from(BatchError::Header("a negative count")).into());
        }
        // Compaction at the leader leaves gaps, so a batch may begin after the log's end, never before it.
        let expected = self.log_end_offset();
        if batch.base_offset < expected {
            return Err(AppendError::UnexpectedOffset { found: batch.base_offset, expected });
        }
        if batch.base_offset.checked_add(i64::from(batch.last_offset_delta) + 1).is_none() {
            return Err(AppendError::OffsetsExhausted);
        }
        let rolled = self.roll_if_full(writer, config, batch.header())?;
        if batch.partition_leader_epoch > self.epochs.read().latest() {
            // Rule 5: at the log's end also before a gap. The epoch may have begun with what compaction has removed, and a
            // replica that has other records there must not keep them.
            self.epochs.write().assign(batch.partition_leader_epoch, expected);
        }
        let (header, payload) = batch.bytes().split_at(HEADER_BYTES);
        self.write(writer, config, batch.header(), [header, payload])?;
        Ok(rolled)
    }

    /// Writes one batch at the end of the active segment and lets readers see it.
    fn write(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        header: &BatchHeader,
        parts: [&[u8]; 2],
    ) -> Result<(), LogError> {
        writer.changed = true;
        let segment = &writer.active;
        let position = segment.size();
        let end = position + header.size_in_bytes() as u64;
        writer.room.ahead(writer.file.as_ref(), position, end, config.segment_bytes);
        if let Err(error) = writer.file.write_at(parts, position) {
            return self.disk.wrote("write", &segment.path(LOG), Err(error));
        }
        self.note_written(writer, config, header, parts)
    }

    /// Takes note of a batch that was written at the end of the active segment, and lets readers see it. On an error, the
    /// file ends before it again.
    pub(super) fn note_written(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        header: &BatchHeader,
        parts: [&[u8]; 2],
    ) -> Result<(), LogError> {
        let segment = &writer.active;
        let position = segment.size();
        let marker = EndMarker::of(header, parts);
        let aborted = writer.producers.aborts(header, marker);
        // First what can fail: until the end has moved, the batch is not there, and its producer may send it again.
        let room = if aborted.is_some() { segment.make_room_for_aborted(&self.disk) } else { Ok(()) };
        if let Err(error) = room.and_then(|()| segment.note(&self.disk, config, header)) {
            self.disk.wrote("truncate", &segment.path(LOG), writer.file.truncate(position))?;
            return Err(error);
        }
        if let Some(aborted) = aborted {
            segment.push_aborted(aborted);
        }
        if header.is_transactional() {
            writer.verifications.settle(header.producer_id, header.producer_epoch);
        }
        // Before the end moves: nobody may see a transaction's records and not that it is open.
        match writer.producers.update(header, marker) {
            Change::None => {}
            Change::Began => self.unstable.began(writer.producers.first_open()),
            Change::Ended { first } => {
                let ended = Ended { marker: header.base_offset.get(), first };
                self.unstable.ended(writer.producers.first_open(), ended);
            }
        }
        let batch = TailBatch {
            base_offset: header.base_offset.get(),
            last_offset: header.last_offset().get(),
            segment: segment.base,
            position,
            size: header.size_in_bytes(),
            bytes: None,
        };
        self.tail.lock().push(batch, parts, (config.tail_bytes, config.tail_batch_bytes_max));
        self.log_end.store(header.next_offset().get(), Ordering::Release);
        Ok(())
    }

    fn roll_if_full(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        header: &BatchHeader,
    ) -> Result<bool, LogError> {
        let full = writer.active.is_full(&self.disk, config, header, header.last_offset().get())?;
        if full {
            // At the log's end, also where a follower's batch begins after a gap: recovery takes a gap between two
            // segments for a loss. Only a gap that no relative offset can bridge is left.
            let end = self.log_end_offset().get();
            let bridges = header.last_offset().get() - end <= i64::from(i32::MAX);
            self.roll_at(writer, if bridges { end } else { header.base_offset.get() })?;
        }
        Ok(full)
    }

    /// Closes the active segment, if it holds anything, and begins the next one.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn roll(&self) -> Result<(), LogError> {
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        self.check_open(writer)?;
        self.roll_at(writer, self.log_end_offset().get())
    }

    pub(super) fn roll_at(&self, writer: &mut Writer, base: i64) -> Result<(), LogError> {
        let closing = Arc::clone(&writer.active);
        if closing.size() == 0 && closing.base >= base {
            return Ok(());
        }
        let disk = &self.disk;
        writer.changed = true;
        disk.wrote(
            "truncate",
            &closing.path(LOG),
            writer.room.give_back(writer.file.as_ref(), closing.size()),
        )?;
        closing.finish(disk)?;
        let snapshot = segment_path(&self.dir, base, SNAPSHOT);
        writer.producers.write_snapshot(disk, &snapshot)?;
        if self.recovery_point_stale.load(Ordering::Acquire) {
            // Before the next segment is there: recovery would not look at this one again, for its epochs neither.
            self.write_epochs()?;
            closing.sync(disk)?;
            closing.sync_indexes(disk)?;
            super::flush::sync_file(disk, &snapshot)?;
            disk.sync_dir(&self.dir)?;
        }
        let next = Segment::create(disk, &self.dir, base)?;
        self.dir_unsynced.store(true, Ordering::Release);
        {
            let mut unsynced = self.unsynced.lock();
            unsynced.closed.push(Arc::clone(&closing));
            unsynced.snapshots.push(snapshot);
        }
        writer.file = next.file(disk)?;
        writer.active = Arc::clone(&next);
        let mut segments = self.segments.write();
        let mut list = Vec::clone(&segments);
        list.push(next);
        *segments = Arc::new(list);
        Ok(())
    }
}

/// Whether it can be seen from outside that a batch is more than a small effort.
fn is_much_work(batch: &Bytes, config: &LogConfig) -> bool {
    let Some(compression) = BatchHeader::parse(batch).ok().and_then(|header| header.compression().ok())
    else {
        return false;
    };
    let is_compressed = compression != Compression::None;
    let is_changed = config.compression.is_some_and(|codec| codec.compression != compression);
    (is_compressed && batch.len() > SMALL_COMPRESSED_BYTES)
        || (is_changed && batch.len() > SMALL_RECOMPRESSED_BYTES)
}

/// Validates a batch, and compresses it anew where the topic's codec is not the producer's.
pub(super) fn prepare(
    batch: Bytes,
    config: &LogConfig,
    origin: Origin,
    now_ms: i64,
    effort: Effort,
) -> Result<Prepared, AppendError> {
    let uncompressed_bytes_max = match effort {
        Effort::Any => limits::BATCH_UNCOMPRESSED_BYTES_MAX,
        Effort::Small if is_much_work(&batch, config) => return Err(AppendError::TooMuchWork),
        Effort::Small => SMALL_UNCOMPRESSED_BYTES,
    };
    let options = ValidateOptions {
        origin,
        message_bytes_max: config.message_bytes_max,
        compacted: config.compact,
        timestamp_type: config.timestamp_type,
        timestamp_before_max_ms: config.timestamp_before_max_ms,
        timestamp_after_max_ms: config.timestamp_after_max_ms,
        now_ms,
        uncompressed_bytes_max,
    };
    let mut batch = batch;
    let mut valid = validate(&batch, &options).map_err(|error| match error {
        ValidateError::Corrupt(BatchError::UncompressedTooLarge { .. }) if effort == Effort::Small => {
            AppendError::TooMuchWork
        }
        error => error.into(),
    })?;
    if let Some(codec) = config.compression
        && codec.compression != valid.compression
        && !valid.header.is_control()
    {
        batch = recompress(&batch, codec, config.message_bytes_max)?;
        valid.header = BatchHeader::parse(&batch).map_err(ValidateError::from)?;
        valid.compression = codec.compression;
    }
    let segment_bytes = usize::try_from(config.segment_bytes).unwrap_or(usize::MAX);
    if batch.len() > segment_bytes {
        return Err(AppendError::LargerThanSegment { bytes: batch.len(), max: segment_bytes });
    }
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&batch[..HEADER_BYTES]);
    Ok(Prepared { header, payload: batch.slice(HEADER_BYTES..), valid })
}
