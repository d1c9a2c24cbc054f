//! The records of one batch, read in place.

use bytes::Bytes;
use towpath_types::Offset;

use crate::walk::RECORD_BYTES_MIN;
use crate::{BatchError, BatchHeader, TimestampType, varint};

/// The decompressed payload of one batch.
#[derive(Debug, Clone)]
pub struct Records {
    header: BatchHeader,
    payload: Bytes,
}

impl Records {
    pub(crate) fn new(header: BatchHeader, payload: Bytes) -> Result<Self, BatchError> {
        let count = usize::try_from(header.record_count)
            .map_err(|_| BatchError::Header("the record count is negative"))?;
        if count > payload.len() / RECORD_BYTES_MIN {
            return Err(BatchError::Header("the record count is larger than the payload can hold"));
        }
        Ok(Self { header, payload })
    }

    /// How many records there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.header.record_count as usize
    }

    /// Whether there are none, as compaction may leave a batch.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.header.record_count == 0
    }

    /// Bytes of all records together, decompressed.
    #[must_use]
    pub const fn size_in_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The records, in offset order.
    #[must_use]
    pub fn iter(&self) -> RecordIter<'_> {
        RecordIter { header: self.header, payload: &self.payload, at: 0, index: 0 }
    }

    /// A part of a record (its key, value or a header) as shared bytes that keep the payload alive.
    #[must_use]
    pub fn share(&self, part: &[u8]) -> Bytes {
        if part.is_empty() { Bytes::new() } else { self.payload.slice_ref(part) }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<Record<'a>, BatchError>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.iter()
    }
}

/// One record, borrowed from its batch's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Its timestamp (ms): the producer's, or the batch's append time.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone on a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
    /// Bytes of the record, its length prefix included.
    pub size_in_bytes: usize,
}

/// One header of a record. Keys are UTF-8 by convention; duplicates are legal and keep their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

impl<'a> Header<'a> {
    /// A header with a text key.
    #[must_use]
    pub const fn new(key: &'a str, value: Option<&'a [u8]>) -> Self {
        Self { key: key.as_bytes(), value }
    }
}

/// The headers of one record, parsed as they are iterated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in their order.
    #[must_use]
    pub const fn iter(&self) -> HeaderIter<'a> {
        HeaderIter { left: self.count, bytes: self.bytes, at: 0 }
    }

    /// The value of the last header with this key, as Kafka's `lastHeader` (outer `None`: no such header).
    #[must_use]
    pub fn last(&self, key: &str) -> Option<Option<&'a [u8]>> {
        self.iter().filter(|header| header.key == key.as_bytes()).last().map(|header| header.value)
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = HeaderIter<'a>;

    fn into_iter(self) -> HeaderIter<'a> {
        self.iter()
    }
}

/// See [`Headers::iter`]. The structure was checked when the record was read.
#[derive(Debug, Clone)]
pub struct HeaderIter<'a> {
    left: usize,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for HeaderIter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        let key = nullable(self.bytes, &mut self.at)??;
        let value = nullable(self.bytes, &mut self.at)?;
        Some(Header { key, value })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// Length-prefixed bytes; the outer `None` means that they are malformed.
#[inline]
fn nullable<'a>(bytes: &'a [u8], at: &mut usize) -> Option<Option<&'a [u8]>> {
    match varint::read(bytes, at)? {
        -1 => Some(None),
        length => {
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            let part = bytes.get(*at..end)?;
            *at = end;
            Some(Some(part))
        }
    }
}

/// See [`Records::iter`]. After an error the iteration ends.
#[derive(Debug, Clone)]
pub struct RecordIter<'a> {
    header: BatchHeader,
    payload: &'a [u8],
    at: usize,
    index: i32,
}

impl<'a> RecordIter<'a> {
    fn parse(&mut self) -> Result<Record<'a>, &'static str> {
        let start = self.at;
        let length = varint::read(self.payload, &mut self.at).ok_or("its length is cut short")?;
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|end| *end <= self.payload.len())
            .ok_or("its length is out of bounds")?;
        let body = &self.payload[..end];
        let mut at = self.at;
        let record = parse_body(&self.header, body, &mut at).ok_or("its fields are out of bounds")?;
        if at != end {
            return Err("its length does not match its fields");
        }
        self.at = end;
        Ok(Record { size_in_bytes: end - start, ..record })
    }
}

fn parse_body<'a>(header: &BatchHeader, body: &'a [u8], at: &mut usize) -> Option<Record<'a>> {
    body.get(*at)?;
    *at += 1;
    let timestamp_delta = varint::read(body, at)?;
    let offset_delta = varint::read(body, at)?;
    let key = nullable(body, at)?;
    let value = nullable(body, at)?;
    let count = usize::try_from(varint::read(body, at)?).ok()?;
    let from = *at;
    for _ in 0..count {
        nullable(body, at)??;
        nullable(body, at)?;
    }
    let offset_delta = i32::try_from(offset_delta).ok()?;
    Some(Record {
        offset: header.base_offset.checked_add(i64::from(offset_delta))?,
        timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.checked_add(timestamp_delta)?,
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        key,
        value,
        headers: Headers { count, bytes: &body[from..*at] },
        size_in_bytes: 0,
    })
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.index;
        if index >= self.header.record_count {
            return None;
        }
        let record = self.parse().map_err(|problem| {
            self.index = self.header.record_count;
            BatchError::Record { index, problem }
        });
        if record.is_ok() {
            self.index += 1;
        }
        Some(record)
    }
}
