//! From fetched bytes to records: what is skipped, and what ends the reading.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use towpath_record::{BatchError, ControlType, RecordBatch, batches, control_record};
use towpath_types::{Offset, TopicId, TopicPartition};
use towpath_wire::messages::fetch::AbortedTransaction;

use super::PartitionRecords;
use crate::ClientError;

/// The answer about one partition, taken apart batch by batch as the application asks for it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) partition: Arc<TopicPartition>,
    /// That of the assignment it was fetched for; another one means that the position was moved since.
    pub(super) version: u64,
    pub(super) topic_id: TopicId,
    pub(super) high_watermark: i64,
    /// Bytes counted against `buffer_bytes`.
    pub(super) bytes: usize,
    batches: std::vec::IntoIter<RecordBatch>,
    /// A broken batch after the good ones.
    broken: Option<BatchError>,
    /// By first offset; not yet reached.
    aborted: std::iter::Peekable<std::vec::IntoIter<AbortedTransaction>>,
    /// Producers whose open transaction will be aborted.
    aborting: HashSet<i64>,
    /// The leader epoch of the last whole batch; −1 for none.
    pub(super) last_epoch: i32,
    /// What is behind the last whole batch.
    pub(super) next_offset: Option<i64>,
}

/// How records are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) check_crcs: bool,
    pub(super) read_committed: bool,
    pub(super) bytes_max: usize,
}

impl Fetched {
    pub(super) fn new(
        partition: Arc<TopicPartition>,
        version: u64,
        topic_id: TopicId,
        high_watermark: i64,
        records: &Bytes,
        aborted: Option<Vec<AbortedTransaction>>,
    ) -> Self {
        let mut whole = Vec::new();
        let mut broken = None;
        for batch in batches(records) {
            match batch {
                Ok(batch) => whole.push(batch),
                Err(error) => broken = Some(error),
            }
        }
        let mut aborted = aborted.unwrap_or_default();
        aborted.sort_unstable_by_key(|transaction| transaction.first_offset);
        Self {
            partition,
            version,
            topic_id,
            high_watermark,
            bytes: records.len(),
            last_epoch: whole.last().map_or(-1, |batch: &RecordBatch| batch.partition_leader_epoch.get()),
            next_offset: whole.last().map(|batch: &RecordBatch| batch.next_offset().get()),
            batches: whole.into_iter(),
            broken,
            aborted: aborted.into_iter().peekable(),
            aborting: HashSet::new(),
        }
    }

    /// Whether there is nothing (more) to take.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.len() == 0 && self.broken.is_none()
    }

    /// Records from `position` on, at least one batch and then up to `reading.bytes_max` decompressed bytes; also how
    /// many bytes they are, and the leader epoch of the last batch.
    pub(super) fn take(
        &mut self,
        position: Offset,
        reading: Reading,
    ) -> Result<(PartitionRecords, usize, i32), ClientError> {
        let mut taken = PartitionRecords {
            partition: Arc::clone(&self.partition),
            topic_id: self.topic_id,
            first_offset: position,
            next_offset: position,
            high_watermark: Offset::new(self.high_watermark),
            batches: Vec::new(),
        };
        let (mut bytes, mut epoch) = (0, -1);
        while let Some(batch) = self.batches.as_slice().first().cloned() {
            if bytes > 0 && bytes >= reading.bytes_max {
                return Ok((taken, bytes, epoch));
            }
            let next = batch.next_offset();
            let read = self.read(batch, position, reading);
            match read {
                Ok(Some(records)) => {
                    // What decompression made of it; the header's share is close enough.
                    bytes += records.0;
                    taken.batches.push(records.1);
                }
                Ok(None) => {}
                Err(source) if taken.next_offset > position => {
                    // What came before is good: it is returned now, and this next time.
                    tracing::debug!(partition = %self.partition, %source, "broken batch");
                    return Ok((taken, bytes, epoch));
                }
                Err(source) => return Err(self.corrupt(taken.next_offset, source)),
            }
            let batch = self.batches.next();
            epoch = batch.map_or(epoch, |batch| batch.partition_leader_epoch.get());
            taken.next_offset = taken.next_offset.max(next);
        }
        if taken.next_offset == position
            && let Some(source) = self.broken.take()
        {
            return Err(self.corrupt(position, source));
        }
        Ok((taken, bytes, epoch))
    }

    fn corrupt(&self, offset: Offset, source: BatchError) -> ClientError {
        ClientError::CorruptBatch { partition: (*self.partition).clone(), offset, source: Arc::new(source) }
    }

    /// The records of one batch, or `None` when the application must not see them.
    fn read(
        &mut self,
        batch: RecordBatch,
        position: Offset,
        reading: Reading,
    ) -> Result<Option<(usize, towpath_record::Records)>, BatchError> {
        if batch.last_offset() < position {
            return Ok(None);
        }
        if reading.check_crcs {
            batch.verify_crc()?;
        }
        if reading.read_committed {
            let last = batch.last_offset().get();
            while let Some(transaction) = self.aborted.next_if(|aborted| aborted.first_offset <= last) {
                self.aborting.insert(transaction.producer_id);
            }
        }
        if batch.is_control() {
            if reading.read_committed {
                self.end_transaction(&batch)?;
            }
            return Ok(None);
        }
        let producer = batch.producer_id.get();
        if reading.read_committed && batch.is_transactional() && self.aborting.contains(&producer) {
            return Ok(None);
        }
        let records = batch.records()?;
        if records.is_empty() {
            return Ok(None);
        }
        Ok(Some((records.size_in_bytes(), records)))
    }

    fn end_transaction(&mut self, batch: &RecordBatch) -> Result<(), BatchError> {
        for record in &batch.records()? {
            if control_record(&record?)?.control_type == ControlType::Abort {
                self.aborting.remove(&batch.producer_id.get());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use towpath_record::{BatchBuilder, Compression, Header};
    use towpath_types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicName};

    use super::*;

    fn batch(base: i64, values: &[&str], producer: Option<i64>, control: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        if let Some(id) = producer {
            builder.set_producer(ProducerId::new(id), ProducerEpoch::new(0), 0);
            builder.set_transactional(true);
        }
        builder.set_control(control);
        for value in values {
            let headers: &[Header<'_>] = &[];
            // An abort marker has version 0 and type 0 in its key.
            let key: Option<&[u8]> = control.then_some(&[0, 0, 0, 0]);
            let value = if control { &[0, 0, 0, 0, 0, 0][..] } else { value.as_bytes() };
            builder.append(1, key, Some(value), headers).unwrap();
        }
        builder.set_base(Offset::new(base), LeaderEpoch::new(3));
        builder.build().unwrap().to_vec()
    }

    fn fetched(bytes: Vec<u8>, aborted: Vec<AbortedTransaction>) -> Fetched {
        let partition = Arc::new(TopicPartition::new(TopicName::new("t").unwrap(), 0));
        Fetched::new(partition, 0, TopicId::ZERO, 100, &Bytes::from(bytes), Some(aborted))
    }

    const READING: Reading = Reading { check_crcs: true, read_committed: false, bytes_max: 1 << 20 };

    fn offsets(records: &PartitionRecords) -> Vec<i64> {
        records.records().map(|record| record.unwrap().offset.get()).collect()
    }

    #[test]
    fn records_below_the_position_are_skipped_and_a_partial_batch_is_left() {
        let mut bytes = batch(10, &["a", "b", "c"], None, false);
        let cut = batch(13, &["d"], None, false);
        bytes.extend(&cut[..cut.len() - 1]);
        let mut fetched = fetched(bytes, vec![]);
        assert_eq!(fetched.next_offset, Some(13));
        let (records, _, epoch) = fetched.take(Offset::new(11), READING).unwrap();
        assert_eq!(offsets(&records), [11, 12]);
        assert_eq!((records.next_offset.get(), epoch), (13, 3));
        assert!(fetched.is_empty());
    }

    #[test]
    fn a_control_batch_moves_the_position_only() {
        let mut fetched = fetched(batch(5, &["x"], Some(1), true), vec![]);
        let (records, ..) = fetched.take(Offset::new(5), READING).unwrap();
        assert_eq!(offsets(&records), [0; 0]);
        assert_eq!(records.next_offset.get(), 6);
    }

    #[test]
    fn aborted_records_are_hidden_until_their_marker() {
        let mut bytes = batch(0, &["lost"], Some(7), false);
        bytes.extend(batch(1, &["kept"], Some(8), false));
        bytes.extend(batch(2, &["x"], Some(7), true));
        bytes.extend(batch(3, &["kept"], Some(7), false));
        let aborted = vec![AbortedTransaction { producer_id: 7, first_offset: 0 }];
        let reading = Reading { read_committed: true, ..READING };
        let (records, ..) = fetched(bytes.clone(), aborted.clone()).take(Offset::new(0), reading).unwrap();
        assert_eq!(offsets(&records), [1, 3]);
        let (all, ..) = fetched(bytes, aborted).take(Offset::new(0), READING).unwrap();
        assert_eq!(offsets(&all), [0, 1, 3]);
    }

    #[test]
    fn a_flipped_bit_is_reported_after_what_is_good() {
        let mut bytes = batch(0, &["good"], None, false);
        let mut bad = batch(1, &["bad"], None, false);
        let last = bad.len() - 1;
        bad[last] ^= 1;
        bytes.extend(bad);
        let mut fetched = fetched(bytes, vec![]);
        let (records, ..) = fetched.take(Offset::new(0), READING).unwrap();
        assert_eq!(offsets(&records), [0]);
        let error = fetched.take(records.next_offset, READING).unwrap_err();
        assert!(matches!(error, ClientError::CorruptBatch { offset, .. } if offset.get() == 1));
    }

    #[test]
    fn the_byte_bound_splits_between_batches() {
        let mut bytes = batch(0, &["a"], None, false);
        bytes.extend(batch(1, &["b"], None, false));
        let mut fetched = fetched(bytes, vec![]);
        let reading = Reading { bytes_max: 1, ..READING };
        let (first, ..) = fetched.take(Offset::new(0), reading).unwrap();
        assert_eq!(offsets(&first), [0]);
        let (second, ..) = fetched.take(first.next_offset, reading).unwrap();
        assert_eq!(offsets(&second), [1]);
    }
}
