//! Reading the batch that comes in. The form stands in `plugins/wit/README.md`.

use std::rc::Rc;

use crate::row::Row;
use crate::schema::{Field, Schema, Schemas};

pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"TPB1");
pub(crate) const HEADER_BYTES: usize = 16;
pub(crate) const ENTRY_BYTES: usize = 96;
pub(crate) const NOT_THERE: u32 = u32::MAX;

/// Where the slots of an entry stand.
pub(crate) mod at {
    pub(crate) const KEY: usize = 40;
    pub(crate) const BEFORE: usize = 48;
    pub(crate) const AFTER: usize = 56;
    pub(crate) const SOURCE: usize = 64;
    pub(crate) const HEADERS: usize = 72;
    pub(crate) const POSITION: usize = 80;
    pub(crate) const TOPIC: usize = 88;
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Inserted.
    Create,
    /// Read by a snapshot.
    Read,
    /// Updated.
    Update,
    /// Deleted.
    Delete,
    /// The whole table was truncated.
    Truncate,
    /// A null value that lets compaction forget the key.
    Tombstone,
}

impl Op {
    pub(crate) const fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Create,
            2 => Self::Read,
            3 => Self::Update,
            4 => Self::Delete,
            5 => Self::Truncate,
            6 => Self::Tombstone,
            _ => return None,
        })
    }

    pub(crate) const fn code(op: Option<Self>) -> u8 {
        match op {
            None => 0,
            Some(Self::Create) => 1,
            Some(Self::Read) => 2,
            Some(Self::Update) => 3,
            Some(Self::Delete) => 4,
            Some(Self::Truncate) => 5,
            Some(Self::Tombstone) => 6,
        }
    }
}

/// The records that came in.
#[derive(Debug)]
pub struct Batch<'a> {
    bytes: &'a [u8],
    entries: &'a [u8],
    /// Number and schema, in the order in which they appeared.
    schemas: Vec<(u32, Rc<Schema>)>,
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u32::from_le_bytes(*raw))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |raw| u64::from_le_bytes(*raw))
}

impl<'a> Batch<'a> {
    /// Reads a buffer of the host; `None` if it is none, which the host does not send.
    #[cfg_attr(
        not(any(test, target_arch = "wasm32")),
        expect(dead_code, reason = "only a component has a host")
    )]
    pub(crate) fn read(bytes: &'a [u8], schemas: &mut Schemas) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let entries = bytes.get(u32_at(bytes, 8) as usize..)?;
        if entries.len() != (u32_at(bytes, 4) as usize).checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let mut found: Vec<(u32, Rc<Schema>)> = Vec::new();
        for entry in entries.chunks_exact(ENTRY_BYTES) {
            let number = u32_at(entry, 0);
            if found.last().is_none_or(|(known, _)| *known != number)
                && !found.iter().any(|(known, _)| *known == number)
            {
                found.push((number, schemas.get(number)?));
            }
        }
        Some(Self { bytes, entries, schemas: found })
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_BYTES
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'_>> + '_ {
        self.entries.chunks_exact(ENTRY_BYTES).enumerate().map(|(index, entry)| {
            let number = u32_at(entry, 0);
            let known = self.schemas.iter().position(|(known, _)| *known == number);
            // Every number of this batch was looked up when it was read.
            let schema = &*self.schemas[known.unwrap_or_default()].1;
            Record { bytes: self.bytes, entry, schema, index: index as u32 }
        })
    }
}

/// One record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    bytes: &'a [u8],
    pub(crate) entry: &'a [u8],
    schema: &'a Schema,
    pub(crate) index: u32,
}

impl<'a> Record<'a> {
    /// Its schema.
    #[must_use]
    pub const fn schema(&self) -> &'a Schema {
        self.schema
    }

    /// The number of its schema, which stands for it as long as this instance lives.
    #[must_use]
    pub fn schema_number(&self) -> u32 {
        u32_at(self.entry, 0)
    }

    /// What happened, if this is a change event.
    #[must_use]
    pub fn op(&self) -> Option<Op> {
        Op::of(self.entry[8])
    }

    /// Whether formats write the row alone instead of the envelope.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.entry[9] == 1
    }

    /// Milliseconds since 1970 UTC.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        u64_at(self.entry, 16).cast_signed()
    }

    /// The offset in the partition it was read from; −1 on the way into a topic.
    #[must_use]
    pub fn offset(&self) -> i64 {
        u64_at(self.entry, 24).cast_signed()
    }

    pub(crate) fn slot(&self, at: usize) -> Option<&'a [u8]> {
        let (start, length) = (u32_at(self.entry, at), u32_at(self.entry, at + 4));
        if start == NOT_THERE {
            return None;
        }
        self.bytes.get(start as usize..)?.get(..length as usize)
    }

    fn row(&self, at: usize, fields: &'a [Field]) -> Option<Row<'a>> {
        self.slot(at).map(|bytes| Row::new(fields, bytes))
    }

    /// The key's row.
    #[must_use]
    pub fn key(&self) -> Option<Row<'a>> {
        self.row(at::KEY, self.schema.key.as_deref()?)
    }

    /// The row before the change.
    #[must_use]
    pub fn before(&self) -> Option<Row<'a>> {
        self.row(at::BEFORE, &self.schema.value)
    }

    /// The row after the change, or a plain record's row.
    #[must_use]
    pub fn after(&self) -> Option<Row<'a>> {
        self.row(at::AFTER, &self.schema.value)
    }

    /// The source block's row.
    #[must_use]
    pub fn source(&self) -> Option<Row<'a>> {
        self.row(at::SOURCE, &self.schema.source.as_ref()?.fields)
    }

    /// The topic chosen for it.
    #[must_use]
    pub fn topic(&self) -> Option<&'a str> {
        std::str::from_utf8(self.slot(at::TOPIC)?).ok()
    }

    /// The partition chosen for it.
    #[must_use]
    pub fn partition(&self) -> Option<i32> {
        Some(u32_at(self.entry, 4).cast_signed()).filter(|partition| *partition >= 0)
    }

    /// Headers in order; a value may be null.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.slot(at::HEADERS).unwrap_or_default() }
    }
}

/// Iterates over headers.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    fn take(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length);
        if length == u32::MAX {
            self.rest = rest;
            return Some(None);
        }
        let (bytes, rest) = rest.split_at_checked(length as usize)?;
        self.rest = rest;
        Some(Some(bytes))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = std::str::from_utf8(self.take()??).ok()?;
        Some((name, self.take()?))
    }
}
