//! Batches that come in one burst from one producer: written to the file together, in one call.

use bytes::Bytes;
use towpath_record::{BatchHeader, Origin, TimestampType};
use towpath_types::LeaderEpoch;

use super::append::{AppendInfo, AppendOptions, Effort, Prepared, prepare};
use super::{Log, Writer};
use crate::config::LogConfig;
use crate::error::AppendError;
use crate::producer::{Appender, Decision};
use crate::segment::LOG;

/// Batches of one call: more than a producer has under way.
pub(super) const BATCHES_MAX: usize = 8;

impl Log {
    /// As [`Self::append_as_leader_with`] for each of `batches` in turn, whatever the effort. Those that follow each other
    /// without a doubt are written in one call: a file takes large pieces for less than small ones.
    ///
    /// # Errors
    /// Each batch has its own; one that was refused does not keep the next from being appended.
    pub fn append_burst_as_leader(
        &self,
        batches: &[Bytes],
        leader_epoch: LeaderEpoch,
        origin: Origin,
    ) -> Vec<Result<AppendInfo, AppendError>> {
        let options = AppendOptions { origin, effort: Effort::Any, guard: None };
        let mut results = Vec::with_capacity(batches.len());
        for burst in batches.chunks(BATCHES_MAX) {
            let mut together = self.append_together(burst, leader_epoch, origin).unwrap_or_default();
            let left = burst.get(together.len()..).unwrap_or_default();
            results.append(&mut together);
            let alone = |batch: &Bytes| self.append_as_leader_with(batch.clone(), leader_epoch, &options);
            results.extend(left.iter().map(alone));
        }
        results
    }

    /// Appends batches of which it is certain beforehand that each will be taken, and where it goes. `None` if it is not:
    /// nothing has happened then. After an error, those behind it are left out.
    fn append_together(
        &self,
        burst: &[Bytes],
        leader_epoch: LeaderEpoch,
        origin: Origin,
    ) -> Option<Vec<Result<AppendInfo, AppendError>>> {
        if burst.len() < 2 || self.disk.check().is_err() {
            return None;
        }
        let config = self.config();
        let now_ms = self.disk.clock.now_ms();
        let prepared = burst.iter().map(|batch| prepare(batch.clone(), &config, origin, now_ms, Effort::Any));
        let mut prepared = prepared.collect::<Result<Vec<_>, _>>().ok()?;
        if !follow_each_other(&prepared) {
            return None;
        }
        let mut writer = self.writer.lock();
        let writer = &mut *writer;
        // An epoch's first batch goes alone, and so does one of a leader that is none any more (R6).
        if self.check_open(writer).is_err() || self.epochs.read().latest() != leader_epoch {
            return None;
        }
        let first = &prepared.first()?.valid.header;
        let appender = Appender { origin, guard: None };
        if !matches!(writer.producers.check(first, appender, &writer.verifications), Ok(Decision::Append)) {
            return None;
        }
        let append_time = (config.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
        let mut next = self.log_end_offset();
        let mut headers = Vec::with_capacity(prepared.len());
        for batch in &mut prepared {
            let header = self.assign(batch, next, leader_epoch, append_time).ok()?;
            next = header.next_offset();
            headers.push(header);
        }
        if !self.has_room_for(writer, &config, &headers) {
            return None;
        }
        self.write_together(writer, &config, &headers, &prepared)?;
        let mut results = Vec::with_capacity(headers.len());
        for (header, batch) in headers.iter().zip(&prepared) {
            let noted = self.note_written(writer, &config, header, [&batch.header, &batch.payload]);
            let failed = noted.is_err();
            results.push(noted.map_err(AppendError::from).map(|()| AppendInfo {
                first_offset: header.base_offset,
                last_offset: header.last_offset(),
                log_append_time_ms: append_time,
                log_start_offset: self.log_start_offset(),
                duplicate: false,
                rolled: false,
            }));
            if failed {
                // With it, those behind it were cut off again.
                break;
            }
        }
        Some(results)
    }

    /// Whether the active segment takes all of them.
    fn has_room_for(&self, writer: &Writer, config: &LogConfig, headers: &[BatchHeader]) -> bool {
        let size = writer.active.size();
        let bytes: u64 = headers.iter().map(|header| header.size_in_bytes() as u64).sum();
        let full = |header: &BatchHeader| {
            writer.active.is_full(&self.disk, config, header, header.last_offset().get()).unwrap_or(true)
        };
        // The first batch of a segment goes alone: the age of the others is told from it.
        size > 0 && size + bytes <= config.segment_bytes.min(i32::MAX as u64) && !headers.iter().any(full)
    }

    /// Writes them to the file, where nobody looks yet; `None` when the disk failed, which then takes nothing more.
    fn write_together(
        &self,
        writer: &mut Writer,
        config: &LogConfig,
        headers: &[BatchHeader],
        prepared: &[Prepared],
    ) -> Option<()> {
        writer.changed = true;
        let position = writer.active.size();
        let end = headers.iter().fold(position, |end, header| end + header.size_in_bytes() as u64);
        writer.room.ahead(writer.file.as_ref(), position, end, config.segment_bytes);
        let parts: Vec<&[u8]> = prepared.iter().flat_map(|it| [&it.header[..], &it.payload[..]]).collect();
        let written = writer.file.write_all_at(&parts, position);
        self.disk.wrote("write", &writer.active.path(LOG), written).ok()
    }
}

/// Whether each batch is taken if the first one is: they are one producer's, one after the other, and none has to do with a
/// transaction.
fn follow_each_other(prepared: &[Prepared]) -> bool {
    let plain = |header: &BatchHeader| !header.is_transactional() && !header.is_control();
    let next = |last: i32| if last == i32::MAX { 0 } else { last + 1 };
    prepared.iter().all(|it| plain(&it.valid.header))
        && prepared.windows(2).all(|pair| {
            let [before, after] = pair else { return true };
            let (before, after) = (&before.valid.header, &after.valid.header);
            let producer = |header: &BatchHeader| (header.producer_id, header.producer_epoch);
            producer(before) == producer(after)
                && (!after.has_producer_id() || after.base_sequence == next(before.last_sequence()))
        })
}
