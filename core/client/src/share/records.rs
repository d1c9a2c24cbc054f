//! Records that a share consumer was given, borrowed from the response they came in.

use std::sync::Arc;

use towpath_record::{Headers, RecordIter, Records};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::fetched::Acquired;
use crate::ClientError;

/// Records of one partition that this consumer has for a while, in offset order; there may be gaps between them.
#[derive(Debug, Clone)]
pub struct ShareRecords {
    /// The partition.
    pub partition: Arc<TopicPartition>,
    /// The topic's id.
    pub topic_id: TopicId,
    pub(super) batches: Vec<Records>,
    pub(super) acquired: Arc<[Acquired]>,
}

impl ShareRecords {
    /// The records in offset order. An error is a malformed record: release what comes after it.
    #[must_use]
    pub fn records(&self) -> ShareRecordsIter<'_> {
        ShareRecordsIter { owner: self, batch: 0, current: None, at: 0 }
    }
}

impl<'a> IntoIterator for &'a ShareRecords {
    type Item = Result<ShareRecord<'a>, ClientError>;
    type IntoIter = ShareRecordsIter<'a>;

    fn into_iter(self) -> ShareRecordsIter<'a> {
        self.records()
    }
}

/// One record, borrowed from its [`ShareRecords`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareRecord<'a> {
    /// Its offset.
    pub offset: Offset,
    /// How often it was given out, this time included.
    pub delivery_count: i16,
    /// Its timestamp (ms): the producer's, or the broker's append time if the topic says so.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, parsed as they are iterated.
    pub headers: Headers<'a>,
}

/// See [`ShareRecords::records`].
#[derive(Debug, Clone)]
pub struct ShareRecordsIter<'a> {
    owner: &'a ShareRecords,
    batch: usize,
    current: Option<RecordIter<'a>>,
    /// The range of `acquired` that comes next.
    at: usize,
}

impl ShareRecordsIter<'_> {
    /// How often a record was given out, if this consumer was given it. Offsets are asked for in order.
    fn deliveries(&mut self, offset: i64) -> Option<i16> {
        while self.owner.acquired.get(self.at).is_some_and(|range| range.last < offset) {
            self.at += 1;
        }
        let range = self.owner.acquired.get(self.at)?;
        (range.first <= offset).then_some(range.deliveries)
    }
}

impl<'a> Iterator for ShareRecordsIter<'a> {
    type Item = Result<ShareRecord<'a>, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(current) = &mut self.current else {
                self.current = Some(self.owner.batches.get(self.batch)?.iter());
                continue;
            };
            match current.next() {
                None => {
                    self.current = None;
                    self.batch += 1;
                }
                Some(Ok(record)) => {
                    let Some(delivery_count) = self.deliveries(record.offset.get()) else { continue };
                    return Some(Ok(ShareRecord {
                        offset: record.offset,
                        delivery_count,
                        timestamp_ms: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                Some(Err(source)) => {
                    self.batch = self.owner.batches.len();
                    self.current = None;
                    let first = self.owner.acquired.first().map_or(0, |range| range.first);
                    return Some(Err(ClientError::CorruptBatch {
                        partition: (*self.owner.partition).clone(),
                        offset: Offset::new(first),
                        source: Arc::new(source),
                    }));
                }
            }
        }
    }
}
