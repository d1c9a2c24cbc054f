//! From the batches of a fetch to the batches that are sent: which count, which go as they are, and which are written
//! anew.
//!
//! Kafka takes from a client neither control batches nor other producers' transactional ones, and wants each batch's
//! offsets without gaps. So control batches and aborted ones are left out whole, as header and list of aborted
//! transactions tell; a batch in which compaction has left gaps, or which begins before what is wanted, is taken apart;
//! all others are not even decompressed.

use std::collections::HashSet;

use bytes::Bytes;
use towpath_client::{AbortedTransaction, Compression, Header};
use towpath_record::{
    BatchBuilder, BatchError, BuildError, ControlType, RecordBatch, TimestampType, control_record,
};
use towpath_types::{Offset, ProducerId};

/// One batch of the source.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The source's offset after it: whatever is below is done with once this is.
    pub next_offset: Offset,
    /// Who wrote it at the source.
    pub producer_id: ProducerId,
    /// What is sent of it, if anything.
    pub copy: Option<Copy>,
}

/// A batch as it is sent, but for the producer's fields.
#[derive(Debug, Clone)]
pub struct Copy {
    /// The bytes: those of the source, or written anew.
    pub bytes: Bytes,
    /// The offsets that its records have at the source, in runs of consecutive ones: the first and how many.
    pub offsets: Vec<(Offset, u32)>,
}

impl Copy {
    /// How many records it has.
    #[must_use]
    pub fn records(&self) -> u32 {
        self.offsets.iter().map(|(_, count)| count).sum()
    }
}

/// A batch that cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// It cannot be read.
    #[error("the batch at offset {at} of the source cannot be read: {source}")]
    Batch {
        /// Where it begins.
        at: Offset,
        /// What is wrong with it.
        source: BatchError,
    },
    /// It cannot be written anew.
    #[error("the batch at offset {at} of the source cannot be written without its gaps: {source}")]
    Build {
        /// Where it begins.
        at: Offset,
        /// What is wrong.
        source: BuildError,
    },
    /// It goes back.
    #[error("the batch at offset {at} of the source comes after one that ended at {after}")]
    Order {
        /// Where it begins.
        at: Offset,
        /// The offset after the one before.
        after: Offset,
    },
}

/// Reads one partition of the source. It knows which transactions are aborted over several fetches.
#[derive(Debug, Default)]
pub struct Translator {
    /// Producers whose transactional batches do not count, until their next marker.
    aborting: HashSet<ProducerId>,
}

impl Translator {
    /// Takes apart what was fetched from `from` on with `read_committed`. The answer is in the source's order, and covers
    /// everything up to its last piece.
    ///
    /// # Errors
    /// [`TranslateError`]: then nothing of the fetch counts.
    pub fn take(
        &mut self,
        from: Offset,
        batches: &Bytes,
        aborted: &[AbortedTransaction],
    ) -> Result<Vec<Piece>, TranslateError> {
        // What an aborted transaction has below `from` is done with, and its marker may still come.
        let mut aborted: Vec<AbortedTransaction> = aborted.to_vec();
        aborted.sort_unstable_by_key(|it| it.first_offset);
        let mut aborted = aborted.into_iter().peekable();
        let mut pieces = Vec::new();
        let mut after = from;
        for batch in towpath_record::batches(batches) {
            let batch = batch.map_err(|source| TranslateError::Batch { at: after, source })?;
            let at = batch.base_offset;
            if batch.next_offset() <= from {
                continue;
            }
            if at < after && after > from {
                return Err(TranslateError::Order { at, after });
            }
            while let Some(begun) = aborted.next_if(|it| it.first_offset <= batch.last_offset()) {
                self.aborting.insert(begun.producer_id);
            }
            let copy = if batch.is_control() {
                self.control(&batch)?;
                None
            } else if batch.is_transactional() && self.aborting.contains(&batch.producer_id) {
                None
            } else {
                copy(&batch, from)?
            };
            after = batch.next_offset();
            pieces.push(Piece { next_offset: after, producer_id: batch.producer_id, copy });
        }
        Ok(pieces)
    }

    fn control(&mut self, batch: &RecordBatch) -> Result<(), TranslateError> {
        let wrong = |source| TranslateError::Batch { at: batch.base_offset, source };
        let records = batch.records().map_err(wrong)?;
        for record in &records {
            let record = control_record(&record.map_err(wrong)?).map_err(wrong)?;
            if record.control_type == ControlType::Abort {
                self.aborting.remove(&batch.producer_id);
            }
        }
        Ok(())
    }
}

/// What is sent of a batch from offset `from` on.
fn copy(batch: &RecordBatch, from: Offset) -> Result<Option<Copy>, TranslateError> {
    let dense = i64::from(batch.record_count) == i64::from(batch.last_offset_delta) + 1;
    let plain = batch.timestamp_type() == TimestampType::CreateTime && batch.delete_horizon_ms().is_none();
    if batch.record_count == 0 {
        return Ok(None);
    }
    if dense && plain && batch.base_offset >= from {
        let offsets = vec![(batch.base_offset, batch.record_count.unsigned_abs())];
        return Ok(Some(Copy { bytes: batch.bytes().clone(), offsets }));
    }
    written_anew(batch, from)
}

/// The records from `from` on, without gaps, each with the time that readers of the source see.
fn written_anew(batch: &RecordBatch, from: Offset) -> Result<Option<Copy>, TranslateError> {
    let at = batch.base_offset;
    let wrong = |source| TranslateError::Batch { at, source };
    let failed = |source| TranslateError::Build { at, source };
    let records = batch.records().map_err(wrong)?;
    let compression: Compression = batch.compression().map_err(wrong)?;
    let mut builder = BatchBuilder::new(compression);
    let mut offsets: Vec<(Offset, u32)> = Vec::new();
    for record in &records {
        let record = record.map_err(wrong)?;
        if record.offset < from {
            continue;
        }
        let headers: Vec<Header<'_>> = record.headers.iter().collect();
        builder.append(record.timestamp, record.key, record.value, &headers).map_err(failed)?;
        match offsets.last_mut().filter(|(first, n)| first.get() + i64::from(*n) == record.offset.get()) {
            Some((_, count)) => *count += 1,
            None => offsets.push((record.offset, 1)),
        }
    }
    if offsets.is_empty() {
        return Ok(None);
    }
    let bytes = builder.build().map_err(failed)?;
    Ok(Some(Copy { bytes, offsets }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use bytes::BytesMut;
    use towpath_record::{edit, marker_batch};
    use towpath_types::{LeaderEpoch, ProducerEpoch};

    use super::*;

    fn producer(id: i64) -> (ProducerId, ProducerEpoch) {
        (ProducerId::new(id), ProducerEpoch::new(0))
    }

    /// A batch from `base` on with records at these deltas, and as many values.
    fn batch(base: i64, deltas: &[i32], set: impl FnOnce(&mut BatchBuilder)) -> Bytes {
        let mut builder = BatchBuilder::new(Compression::Lz4);
        for delta in deltas {
            let value = (base + i64::from(*delta)).to_string();
            let headers = [Header::new("h", Some(b"x"))];
            let time = 1_000 + i64::from(*delta);
            builder.append_at(*delta, time, Some(b"k"), Some(value.as_bytes()), &headers).unwrap();
        }
        builder.set_base(Offset::new(base), LeaderEpoch::new(3));
        set(&mut builder);
        builder.build().unwrap()
    }

    fn transactional(base: i64, id: i64) -> Bytes {
        batch(base, &[0, 1], |builder| {
            let (id, epoch) = producer(id);
            builder.set_producer(id, epoch, 0);
            builder.set_transactional(true);
        })
    }

    fn marker(base: i64, id: i64, commit: bool) -> Bytes {
        let (id, epoch) = producer(id);
        let mut marker = BytesMut::from(&marker_batch(id, epoch, 1, commit, 5).unwrap()[..]);
        edit::assign(&mut marker, Offset::new(base), LeaderEpoch::new(3)).unwrap();
        marker.freeze()
    }

    fn take(from: i64, batches: &[Bytes], aborted: &[(i64, i64)]) -> Vec<Piece> {
        taken(&mut Translator::default(), from, batches, aborted)
    }

    fn taken(
        translator: &mut Translator,
        from: i64,
        batches: &[Bytes],
        aborted: &[(i64, i64)],
    ) -> Vec<Piece> {
        let aborted: Vec<AbortedTransaction> = aborted
            .iter()
            .map(|(id, first)| AbortedTransaction {
                producer_id: ProducerId::new(*id),
                first_offset: Offset::new(*first),
            })
            .collect();
        translator.take(Offset::new(from), &Bytes::from(batches.concat()), &aborted).unwrap()
    }

    /// The source's offsets of what is sent, checked against the values; and the offset after the last piece.
    fn offsets(pieces: &[Piece]) -> (Vec<i64>, i64) {
        let mut all = Vec::new();
        for copy in pieces.iter().filter_map(|piece| piece.copy.as_ref()) {
            let told: Vec<i64> = copy
                .offsets
                .iter()
                .flat_map(|(first, count)| first.get()..first.get() + i64::from(*count))
                .collect();
            let sent = RecordBatch::parse(&copy.bytes).unwrap();
            assert_eq!(i64::from(sent.last_offset_delta) + 1, told.len() as i64, "without gaps");
            assert_eq!(sent.compression().unwrap(), Compression::Lz4);
            let values: Vec<i64> = sent
                .records()
                .unwrap()
                .iter()
                .map(|record| std::str::from_utf8(record.unwrap().value.unwrap()).unwrap().parse().unwrap())
                .collect();
            assert_eq!(values, told);
            all.extend(told);
        }
        (all, pieces.last().unwrap().next_offset.get())
    }

    #[test]
    fn whole_batches_go_as_they_are() {
        let whole = batch(10, &[0, 1, 2], |_| {});
        let pieces = take(10, &[whole.clone(), batch(13, &[0], |_| {})], &[]);
        assert_eq!(pieces[0].copy.as_ref().unwrap().bytes, whole);
        assert_eq!(offsets(&pieces), (vec![10, 11, 12, 13], 14));
    }

    #[test]
    fn what_compaction_has_left_goes_without_its_gaps() {
        let gaps = batch(10, &[1, 2, 5], |builder| builder.set_last_offset_delta(7));
        let empty = batch(18, &[], |builder| builder.set_last_offset_delta(3));
        let pieces = take(10, &[gaps, empty, batch(30, &[0], |_| {})], &[]);
        assert_eq!(pieces[0].copy.as_ref().unwrap().offsets, [(Offset::new(11), 2), (Offset::new(15), 1)]);
        assert_eq!((pieces[0].next_offset, pieces[1].next_offset), (Offset::new(18), Offset::new(22)));
        assert!(pieces[1].copy.is_none());
        assert_eq!(offsets(&pieces), (vec![11, 12, 15, 30], 31));
    }

    #[test]
    fn a_batch_that_begins_before_is_cut() {
        let pieces = take(12, &[batch(5, &[0], |_| {}), batch(10, &[0, 1, 2, 3], |_| {})], &[]);
        assert_eq!(offsets(&pieces), (vec![12, 13], 14));
    }

    #[test]
    fn the_time_of_the_append_becomes_each_records_own() {
        let stamped = batch(10, &[0, 1], |it| it.set_timestamp_type(TimestampType::LogAppendTime, 9_000));
        let pieces = take(10, &[stamped], &[]);
        let sent = RecordBatch::parse(&pieces[0].copy.as_ref().unwrap().bytes).unwrap();
        assert_eq!(sent.timestamp_type(), TimestampType::CreateTime);
        assert!(sent.records().unwrap().iter().all(|record| record.unwrap().timestamp == 9_000));
    }

    #[test]
    fn aborted_transactions_are_left_out_up_to_their_marker() {
        let batches = [
            transactional(10, 7),
            transactional(12, 8),
            batch(14, &[0], |_| {}),
            marker(15, 7, false),
            transactional(16, 7),
            marker(18, 8, true),
            marker(19, 7, true),
        ];
        let pieces = take(10, &batches, &[(7, 10)]);
        assert_eq!(offsets(&pieces), (vec![12, 13, 14, 16, 17], 20));

        // The marker comes with the next fetch.
        let mut translator = Translator::default();
        let first = taken(&mut translator, 10, &batches[..2], &[(7, 10)]);
        assert_eq!(offsets(&first), (vec![12, 13], 14));
        let second = taken(&mut translator, 14, &batches[2..], &[(7, 10)]);
        assert_eq!(offsets(&second), (vec![14, 16, 17], 20));
    }

    #[test]
    fn batches_that_go_back_or_are_damaged_are_errors() {
        let back = [batch(12, &[0], |_| {}), batch(10, &[0, 1, 2, 3], |_| {})].concat();
        let error = Translator::default().take(Offset::new(12), &Bytes::from(back), &[]).unwrap_err();
        assert!(matches!(error, TranslateError::Order { .. }), "{error}");
        let mut damaged = BytesMut::from(&batch(10, &[0, 3], |_| {})[..]);
        let last = damaged.len() - 1;
        damaged[last] ^= 0x55;
        damaged[last - 4] ^= 0x55;
        let error = Translator::default().take(Offset::new(10), &damaged.freeze(), &[]).unwrap_err();
        assert!(matches!(error, TranslateError::Batch { .. }), "{error}");
    }
}
