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
