//! Fetched records, borrowed from the response they came in.

use std::sync::Arc;

use towpath_record::{Headers, RecordIter, Records};
use towpath_types::{Offset, TopicId, TopicPartition};

use crate::ClientError;

/// Consecutive records of one partition.
#[derive(Debug, Clone)]
pub struct PartitionRecords {
    /// The partition.
    pub partition: Arc<TopicPartition>,
    /// The topic's id; zero when the cluster has none.
    pub topic_id: TopicId,
    /// The position at which these records begin (the first record may have a larger offset: compaction).
    pub first_offset: Offset,
    /// The position after them. It passes control batches and offsets that compaction removed, so that there may be
    /// no record at all between the two.
    pub next_offset: Offset,
    /// The partition's high watermark when they were fetched.
    pub high_watermark: Offset,
    pub(crate) batches: Vec<Records>,
}

impl PartitionRecords {
    /// The records in offset order. An error is a malformed batch: a reader must not go on past it (R7).
    #[must_use]
    pub fn records(&self) -> RecordsIter<'_> {
        RecordsIter { owner: self, batch: 0, current: None }
    }

    /// How many records there are at most (those below [`Self::first_offset`] in the first batch are counted).
    #[must_use]
    pub fn len_hint(&self) -> usize {
        self.batches.iter().map(Records::len).sum()
    }
}

impl<'a> IntoIterator for &'a PartitionRecords {
    type Item = Result<Record<'a>, ClientError>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> RecordsIter<'a> {
        self.records()
    }
}

/// One record, borrowed from its [`PartitionRecords`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp (ms): the producer's, or the broker's append time if the topic says so.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers, parsed as they are iterated.
    pub headers: Headers<'a>,
}

/// See [`PartitionRecords::records`].
#[derive(Debug, Clone)]
pub struct RecordsIter<'a> {
    owner: &'a PartitionRecords,
    batch: usize,
    current: Option<RecordIter<'a>>,
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<Record<'a>, ClientError>;

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
                Some(Ok(record)) if record.offset < self.owner.first_offset => {}
                Some(Ok(record)) => {
                    return Some(Ok(Record {
                        offset: record.offset,
                        timestamp_ms: record.timestamp,
                        key: record.key,
                        value: record.value,
                        headers: record.headers,
                    }));
                }
                Some(Err(source)) => {
                    self.batch = self.owner.batches.len();
                    self.current = None;
                    return Some(Err(ClientError::CorruptBatch {
                        partition: (*self.owner.partition).clone(),
                        offset: self.owner.first_offset,
                        source: Arc::new(source),
                    }));
                }
            }
        }
    }
}
