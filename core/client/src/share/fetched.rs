//! From the answer of a leader to records: of whole batches only what was acquired is given to the application.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use towpath_record::{BatchError, RecordBatch, Records, batches};
use towpath_types::{Offset, TopicPartition};
use towpath_wire::messages::share_fetch::AcquiredRecords;

use super::ShareRecords;
use super::lease::Leases;
use super::state::Place;
use crate::ClientError;

/// Offsets that one answer may give out of a partition (R10): Kafka's own bound on records in flight is 10,000, which
/// the rest of a batch and what compaction has removed may exceed.
const ACQUIRED_MAX: i64 = 1_000_000;

/// Consecutive offsets that were acquired, with how often each was given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acquired {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) deliveries: i16,
}

/// What an answer says was acquired; `None` when it cannot be.
pub(super) fn acquired(told: &[AcquiredRecords]) -> Option<Arc<[Acquired]>> {
    let mut end = -1;
    let mut total = 0;
    let mut all = Vec::with_capacity(told.len());
    for range in told {
        if range.first_offset <= end || range.last_offset < range.first_offset {
            return None;
        }
        end = range.last_offset;
        total += (range.last_offset - range.first_offset).saturating_add(1).min(ACQUIRED_MAX + 1);
        if total > ACQUIRED_MAX {
            return None;
        }
        all.push(Acquired {
            first: range.first_offset,
            last: range.last_offset,
            deliveries: range.delivery_count,
        });
    }
    Some(all.into())
}

/// How records are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) check_crcs: bool,
    pub(super) bytes_max: usize,
}

/// The answer about one partition, taken apart batch by batch as the application asks for it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) place: Place,
    pub(super) partition: Arc<TopicPartition>,
    /// When the locks have certainly ended.
    pub(super) until: Instant,
    /// Bytes counted against `buffer_bytes`.
    pub(super) bytes: usize,
    batches: std::vec::IntoIter<RecordBatch>,
    acquired: Arc<[Acquired]>,
    /// A broken batch after the good ones.
    broken: Option<BatchError>,
    /// The last offset of the batches that were taken.
    end: i64,
}

impl Fetched {
    pub(super) fn new(
        place: Place,
        partition: Arc<TopicPartition>,
        until: Instant,
        records: &Bytes,
        acquired: Arc<[Acquired]>,
    ) -> Self {
        let mut whole = Vec::new();
        let mut broken = None;
        for batch in batches(records) {
            match batch {
                Ok(batch) => whole.push(batch),
                Err(error) => broken = Some(error),
            }
        }
        let bytes = records.len();
        Self { place, partition, until, bytes, batches: whole.into_iter(), acquired, broken, end: -1 }
    }

    /// Whether there is nothing (more) to take.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.len() == 0 && self.broken.is_none()
    }

    /// Records for the application, at least one batch with any and then up to `reading.bytes_max` decompressed bytes;
    /// also how many records and bytes they are. What turns out not to be a record is said to be a gap.
    pub(super) fn take(
        &mut self,
        leases: &mut Leases,
        reading: Reading,
    ) -> Result<(ShareRecords, usize, usize), ClientError> {
        let mut taken = ShareRecords {
            partition: Arc::clone(&self.partition),
            topic_id: self.place.0,
            batches: Vec::new(),
            acquired: Arc::clone(&self.acquired),
        };
        let (mut count, mut bytes) = (0, 0);
        while let Some(batch) = self.batches.as_slice().first() {
            if bytes > 0 && bytes >= reading.bytes_max {
                return Ok((taken, count, bytes));
            }
            let (first, last) = (batch.base_offset.get(), batch.last_offset().get());
            let found = read(batch, reading.check_crcs).map_err(|source| self.corrupt(first, source));
            let found = found.and_then(|records| records.map(|it| self.hold(it, leases)).transpose());
            match found {
                Ok(Some((records, held))) if held > 0 => {
                    bytes += records.size_in_bytes();
                    count += held;
                    taken.batches.push(records);
                }
                Ok(_) => {}
                // What came before is good: it is returned now, and this next time.
                Err(_) if count > 0 => return Ok((taken, count, bytes)),
                Err(error) => {
                    leases.settle_waiting(first, last, true);
                    self.batches.next();
                    return Err(error);
                }
            }
            leases.settle_waiting(first, last, false);
            self.end = self.end.max(last);
            self.batches.next();
        }
        if count == 0
            && let Some(source) = self.broken.take()
        {
            self.give_back(leases);
            return Err(self.corrupt(self.end + 1, source));
        }
        if self.broken.is_none() {
            for range in self.acquired.iter() {
                // Offsets that no batch has: compaction has removed them, unless they are behind the last one.
                leases.settle_waiting(range.first, range.last.min(self.end), false);
            }
            self.give_back(leases);
        }
        Ok((taken, count, bytes))
    }

    /// Marks what the application is given of a batch; nothing, if one of its records cannot be read (R7).
    fn hold(&self, records: Records, leases: &mut Leases) -> Result<(Records, usize), ClientError> {
        let one = ShareRecords {
            partition: Arc::clone(&self.partition),
            topic_id: self.place.0,
            batches: vec![records.clone()],
            acquired: Arc::clone(&self.acquired),
        };
        let offsets = one.records().map(|record| Ok(record?.offset.get()));
        let offsets: Vec<i64> = offsets.collect::<Result<_, ClientError>>()?;
        Ok((records, offsets.into_iter().filter(|offset| leases.hold(*offset)).count()))
    }

    /// What the application was not given is given back.
    pub(super) fn give_back(&self, leases: &mut Leases) {
        for range in self.acquired.iter() {
            leases.settle_waiting(range.first, range.last, true);
        }
    }

    fn corrupt(&self, offset: i64, source: BatchError) -> ClientError {
        let (partition, offset) = ((*self.partition).clone(), Offset::new(offset));
        ClientError::CorruptBatch { partition, offset, source: Arc::new(source) }
    }
}

/// The records of a batch, unless the application must not see them.
fn read(batch: &RecordBatch, check_crcs: bool) -> Result<Option<Records>, BatchError> {
    if check_crcs {
        batch.verify_crc()?;
    }
    if batch.is_control() {
        return Ok(None);
    }
    let records = batch.records()?;
    Ok((!records.is_empty()).then_some(records))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use towpath_record::{BatchBuilder, Compression};
    use towpath_types::{LeaderEpoch, TopicId, TopicName};

    use super::super::lease::Batch;
    use super::*;

    const READING: Reading = Reading { check_crcs: true, bytes_max: 1 << 20 };

    fn batch(base: i64, values: &[&str], control: bool) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.set_control(control);
        for value in values {
            builder.append(1, None, Some(value.as_bytes()), &[]).unwrap();
        }
        builder.set_base(Offset::new(base), LeaderEpoch::new(3));
        builder.build().unwrap().to_vec()
    }

    fn fetched(bytes: Vec<u8>, ranges: &[(i64, i64, i16)]) -> (Fetched, Leases) {
        let until = Instant::now() + Duration::from_secs(30);
        let partition = Arc::new(TopicPartition::new(TopicName::new("t").unwrap(), 0));
        let mut leases = Leases::default();
        let all: Vec<_> = ranges
            .iter()
            .map(|(first, last, deliveries)| {
                leases.acquire(1, *first, *last, until);
                Acquired { first: *first, last: *last, deliveries: *deliveries }
            })
            .collect();
        let place = (TopicId::ZERO, 0);
        (Fetched::new(place, partition, until, &Bytes::from(bytes), all.into()), leases)
    }

    fn seen(records: &ShareRecords) -> Vec<(i64, i16)> {
        let seen = |record: Result<super::super::ShareRecord<'_>, ClientError>| {
            let record = record.unwrap();
            (record.offset.get(), record.delivery_count)
        };
        records.records().map(seen).collect()
    }

    #[test]
    fn only_what_was_acquired_is_given_and_gaps_are_said() {
        let mut bytes = batch(10, &["a", "b", "c", "d"], false);
        bytes.extend(batch(14, &["x"], true));
        bytes.extend(batch(17, &["e"], false));
        let (mut fetched, mut leases) = fetched(bytes, &[(11, 11, 3), (13, 17, 1)]);
        let (records, count, _) = fetched.take(&mut leases, READING).unwrap();
        assert_eq!((seen(&records), count), (vec![(11, 3), (13, 1), (17, 1)], 3));
        assert!(fetched.is_empty());
        assert_eq!(leases.held(), 3);
        assert_eq!(leases.send(1).batches, [Batch { first: 14, last: 16, types: vec![0] }]);
    }

    #[test]
    fn a_flipped_bit_is_reported_after_what_is_good_and_given_back() {
        let mut bytes = batch(0, &["good"], false);
        let mut bad = batch(1, &["bad"], false);
        let last = bad.len() - 1;
        bad[last] ^= 1;
        bytes.extend(bad);
        bytes.extend(batch(2, &["good again"], false));
        let (mut fetched, mut leases) = fetched(bytes, &[(0, 2, 1)]);
        let (records, ..) = fetched.take(&mut leases, READING).unwrap();
        assert_eq!(seen(&records), [(0, 1)]);
        let error = fetched.take(&mut leases, READING).unwrap_err();
        assert!(matches!(error, ClientError::CorruptBatch { offset, .. } if offset.get() == 1), "{error}");
        assert_eq!(leases.send(1).batches, [Batch { first: 1, last: 1, types: vec![2] }]);
        let (records, ..) = fetched.take(&mut leases, READING).unwrap();
        assert_eq!(seen(&records), [(2, 1)]);
    }

    #[test]
    fn the_byte_bound_splits_between_batches() {
        let mut bytes = batch(0, &["a"], false);
        bytes.extend(batch(1, &["b"], false));
        let (mut fetched, mut leases) = fetched(bytes, &[(0, 1, 1)]);
        let reading = Reading { bytes_max: 1, ..READING };
        assert_eq!(seen(&fetched.take(&mut leases, reading).unwrap().0), [(0, 1)]);
        assert_eq!(seen(&fetched.take(&mut leases, reading).unwrap().0), [(1, 1)]);
        assert!(fetched.is_empty() && leases.held() == 2);
    }

    #[test]
    fn ranges_that_cannot_be_are_refused() {
        let range =
            |first_offset, last_offset| AcquiredRecords { first_offset, last_offset, delivery_count: 1 };
        assert!(acquired(&[range(0, 4), range(5, 5)]).is_some());
        assert!(acquired(&[range(0, 4), range(4, 5)]).is_none());
        assert!(acquired(&[range(3, 2)]).is_none());
        assert!(acquired(&[range(-5, 2)]).is_none());
        assert!(acquired(&[range(0, i64::MAX)]).is_none(), "R10");
    }
}
