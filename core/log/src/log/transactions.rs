//! Transactions: markers, verification, and what readers may see of them.

use std::sync::Arc;

use bytes::Bytes;
use towpath_record::{
    BatchHeader, Compression, HEADER_BYTES, ValidBatch, ValidateError, marker_batch as build_marker,
};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use super::Log;
use super::append::{AppendInfo, Check, Prepared};
use super::read::FetchedData;
use crate::error::{AppendError, LogError, ReadError};
use crate::producer::{EndMarker, LastTrace, ProducerSummary, TransactionCheck, Wanted};
use crate::segment::Segment;
use crate::txn_index::{AbortedTransaction, AbortedTxn};

/// A marker, which ends a producer's transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    /// Whose transaction.
    pub producer_id: ProducerId,
    /// The producer's epoch: under `tv2` one more than that of the records.
    pub producer_epoch: ProducerEpoch,
    /// The term of the coordinator.
    pub coordinator_epoch: i32,
    /// Whether the transaction is committed; otherwise it is aborted.
    pub commit: bool,
    /// Whether it was ended under `transaction.version` 2, where every transaction has an epoch of its own (KIP-890).
    pub tv2: bool,
}

impl Log {
    /// Whether a produced batch may be appended at once, or its transaction has to be verified with its coordinator
    /// first. `tv2`: whether the producer raises its epoch with every transaction; its first batch here then has sequence
    /// number 0. Batches outside of transactions cost nothing here.
    ///
    /// # Errors
    /// [`AppendError::InvalidProducerEpoch`] for an older epoch than the log knows.
    pub fn transaction_check(
        &self,
        header: &BatchHeader,
        tv2: bool,
    ) -> Result<TransactionCheck, AppendError> {
        if !header.is_transactional() || !header.has_producer_id() {
            return Ok(TransactionCheck::Append);
        }
        self.transaction_check_of(header.producer_id, header.producer_epoch, header.base_sequence, tv2)
    }

    /// As [`Self::transaction_check`], for a batch that is not there yet: `sequence` is its first sequence number, -1
    /// for the offsets that a group coordinator writes for the producer.
    ///
    /// # Errors
    /// As there.
    pub fn transaction_check_of(
        &self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        sequence: i32,
        tv2: bool,
    ) -> Result<TransactionCheck, AppendError> {
        let now_ms = self.disk.clock.now_ms();
        let mut writer = self.writer.lock();
        if !writer.producers.needs_verification(producer_id, producer_epoch)? {
            return Ok(TransactionCheck::Append);
        }
        let wanted = Wanted { producer_id, producer_epoch, sequence, tv2 };
        Ok(TransactionCheck::Verify(writer.verifications.begin(&wanted, now_ms)))
    }

    /// Ends a producer's transaction here; also where it has written nothing. A marker of the same transaction that is
    /// there already is appended once more.
    ///
    /// # Errors
    /// [`AppendError::InvalidProducerEpoch`], [`AppendError::TransactionCoordinatorFenced`] (R6); the others as for
    /// records, except that no topic's bound is too small for a marker.
    pub fn append_marker(
        &self,
        marker: &Marker,
        leader_epoch: LeaderEpoch,
    ) -> Result<AppendInfo, AppendError> {
        self.disk.check()?;
        let config = self.config();
        let now_ms = self.disk.clock.now_ms();
        let (id, epoch) = (marker.producer_id, marker.producer_epoch);
        let bytes = build_marker(id, epoch, marker.coordinator_epoch, marker.commit, now_ms)
            .map_err(ValidateError::Rewrite)?;
        let check = Check::Marker {
            marker: EndMarker { commit: marker.commit, coordinator_epoch: marker.coordinator_epoch },
            tv2: marker.tv2,
        };
        self.append_prepared(prepared(&bytes, now_ms)?, &config, (leader_epoch, now_ms), &check)
    }

    /// Up to where `read_committed` readers see (R3): the high watermark, or the beginning of the first transaction that
    /// is open, or whose marker is not below the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self, high_watermark: Offset) -> Offset {
        self.stable_offset(high_watermark, high_watermark)
    }

    /// As [`Self::last_stable_offset`], where markers count that are below `markers`: only a simulation lets others count
    /// than those below the high watermark.
    #[must_use]
    pub fn stable_offset(&self, high_watermark: Offset, markers: Offset) -> Offset {
        match self.unstable.first_below(high_watermark.get(), markers.get()) {
            None => high_watermark,
            Some(first) => self.log_start_offset().max(Offset::new(first)).min(high_watermark),
        }
    }

    /// The high watermark has moved up, and does not go back except where the log is cut: transactions whose markers are
    /// below are forgotten.
    pub fn high_watermark_moved(&self, high_watermark: Offset) {
        self.unstable.forget_below(high_watermark.get());
    }

    /// As [`Self::read`], with the aborted transactions that overlap what is returned: a `read_committed` reader leaves
    /// out the records of each, from its first offset to its marker. `upper_bound` is the last stable offset. There may be
    /// some that begin after what is returned.
    ///
    /// # Errors
    /// As there.
    pub fn read_committed(
        &self,
        from: Offset,
        bytes_max: usize,
        upper_bound: Offset,
        min_one: bool,
    ) -> Result<(FetchedData, Vec<AbortedTransaction>), ReadError> {
        self.read_with(from, bytes_max, upper_bound, min_one, |segments, data, upper| {
            if data.is_empty() {
                return Ok(Vec::new());
            }
            let from = from.get();
            let upper = self.end_of(segments, data, upper)?;
            let aborted = self.aborted_within(segments, from, upper)?;
            Ok(aborted.iter().map(AbortedTxn::told).collect())
        })
    }

    /// An offset after all that was read, and close to it.
    fn end_of(&self, segments: &[Arc<Segment>], data: &FetchedData, upper: i64) -> Result<i64, LogError> {
        let end = match data {
            FetchedData::Empty => None,
            FetchedData::Memory(parts) => parts
                .last()
                .and_then(|last| BatchHeader::parse(last).ok())
                .map(|header| header.next_offset().get()),
            FetchedData::File(slice) => slice.offset_after(segments)?,
        };
        Ok(end.map_or(upper, |end| end.min(upper)))
    }

    /// The aborted transactions that overlap `from..upper`, in the order of their markers. They are looked for in the
    /// segments that were read: what compaction has removed since is in the data that a reader may hold.
    pub(crate) fn aborted_within(
        &self,
        segments: &[Arc<Segment>],
        from: i64,
        upper: i64,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        let mut found = Vec::new();
        let first = segments.partition_point(|segment| segment.base <= from).saturating_sub(1);
        for segment in &segments[first..] {
            if segment.collect_aborted(&self.disk, from, upper, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// The producers that the log remembers.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerSummary> {
        self.writer.lock().producers.summaries()
    }

    /// Forgets producers past `producer.id.expiration.ms`, and verifications that were not used for as long.
    pub fn expire_producers(&self) {
        let config = self.config();
        let now = self.disk.clock.now_ms();
        let mut writer = self.writer.lock();
        writer.producers.expire(now, config.producer_expiration_ms);
        writer.verifications.expire(now, config.producer_expiration_ms);
    }

    /// What compaction must leave of each producer.
    pub(crate) fn last_traces(&self) -> std::collections::HashMap<i64, LastTrace> {
        self.writer.lock().producers.last_traces()
    }
}

/// A marker's batch as [`Log::append_prepared`] takes it.
fn prepared(bytes: &Bytes, now_ms: i64) -> Result<Prepared, AppendError> {
    let parsed = BatchHeader::parse(bytes).map_err(ValidateError::from)?;
    let mut header = [0; HEADER_BYTES];
    header.copy_from_slice(&bytes[..HEADER_BYTES]);
    Ok(Prepared {
        header,
        payload: bytes.slice(HEADER_BYTES..),
        valid: ValidBatch {
            header: parsed,
            compression: Compression::None,
            max_timestamp: now_ms,
            max_timestamp_delta: 0,
        },
    })
}
