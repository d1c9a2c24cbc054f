//! The batch that travels between source, transforms, format and sink: an arena of bytes and fixed-size entries.

use std::sync::Arc;

use towpath_types::TopicName;

use super::row::{Row, RowWriter};
use super::schema::{EventSchema, RowSchema};

pub mod flat;

/// What happened to a row, in Debezium's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `c`: inserted.
    Create,
    /// `r`: read by a snapshot.
    Read,
    /// `u`: updated.
    Update,
    /// `d`: deleted.
    Delete,
    /// `t`: the whole table was truncated; the record has no key and no images.
    Truncate,
    /// A null value that lets compaction forget the key; follows a delete.
    Tombstone,
}

impl Op {
    /// The letter in the envelope's `op`; a tombstone has none.
    #[must_use]
    pub const fn letter(self) -> Option<&'static str> {
        match self {
            Self::Create => Some("c"),
            Self::Read => Some("r"),
            Self::Update => Some("u"),
            Self::Delete => Some("d"),
            Self::Truncate => Some("t"),
            Self::Tombstone => None,
        }
    }

    /// The operation of an envelope's `op`.
    #[must_use]
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "c" => Self::Create,
            "r" => Self::Read,
            "u" => Self::Update,
            "d" => Self::Delete,
            "t" => Self::Truncate,
            _ => return None,
        })
    }
}

/// A stretch of the arena; `None` stands for "not there".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    start: u32,
    end: u32,
}

impl Slot {
    const NONE: Self = Self { start: u32::MAX, end: u32::MAX };

    fn of(range: &std::ops::Range<usize>) -> Self {
        Self { start: range.start as u32, end: range.end as u32 }
    }

    fn bytes(self, arena: &[u8]) -> Option<&[u8]> {
        if self == Self::NONE { None } else { arena.get(self.start as usize..self.end as usize) }
    }
}

/// One record's fixed-size part.
#[derive(Debug, Clone, Copy)]
struct Entry {
    schema: u32,
    topic: u32,
    partition: i32,
    op: Option<Op>,
    flat: bool,
    timestamp_ms: i64,
    offset: i64,
    lane: u64,
    key: Slot,
    before: Slot,
    after: Slot,
    source: Slot,
    headers: Slot,
    position: Slot,
}

const NO_TOPIC: u32 = u32::MAX;

/// Records with their schemas. Cheap to move, never cloned on the hot path.
#[derive(Debug, Default)]
pub struct Batch {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    schemas: Vec<Arc<EventSchema>>,
    topics: Vec<TopicName>,
}

impl Batch {
    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many schemas its records have, at most.
    #[must_use]
    pub fn schema_count(&self) -> usize {
        self.schemas.len()
    }

    /// Bytes held, payload and bookkeeping.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.arena.len() + self.entries.len() * size_of::<Entry>()
    }

    /// Record `index`, which must be below [`Batch::len`].
    #[must_use]
    pub fn record(&self, index: usize) -> RecordView<'_> {
        RecordView { batch: self, entry: &self.entries[index] }
    }

    /// All records in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordView<'_>> + '_ {
        self.entries.iter().map(|entry| RecordView { batch: self, entry })
    }

    /// Keeps the records for which `keep` says so; their bytes stay in the arena until the batch is dropped.
    pub fn retain(&mut self, mut keep: impl FnMut(usize, RecordView<'_>) -> bool) {
        let entries = std::mem::take(&mut self.entries);
        let mut kept = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            if keep(index, RecordView { batch: self, entry }) {
                kept.push(*entry);
            }
        }
        self.entries = kept;
    }

    /// Turns the batch into a builder that appends to it, to reuse its memory or to add records.
    #[must_use]
    pub fn into_builder(self) -> BatchBuilder {
        BatchBuilder { batch: self }
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct RecordView<'a> {
    batch: &'a Batch,
    entry: &'a Entry,
}

impl<'a> RecordView<'a> {
    /// The schema.
    #[must_use]
    pub fn schema(&self) -> &'a Arc<EventSchema> {
        &self.batch.schemas[self.entry.schema as usize]
    }

    /// What happened, if the record is a change event; `None` for a plain record.
    #[must_use]
    pub const fn op(&self) -> Option<Op> {
        self.entry.op
    }

    /// Whether formats write the row alone instead of the envelope (`unwrap`). `op` and `before` stay readable.
    #[must_use]
    pub const fn is_flat(&self) -> bool {
        self.entry.flat
    }

    /// Milliseconds since 1970 UTC: the record's timestamp in the topic.
    #[must_use]
    pub const fn timestamp_ms(&self) -> i64 {
        self.entry.timestamp_ms
    }

    /// The offset in the partition it was read from; −1 for a record on its way into a topic.
    #[must_use]
    pub const fn offset(&self) -> i64 {
        self.entry.offset
    }

    /// The topic that a source or transform chose for it, before the pipeline's template.
    #[must_use]
    pub fn topic(&self) -> Option<&'a TopicName> {
        self.batch.topics.get(self.entry.topic as usize)
    }

    /// The partition that a source or transform chose for it; otherwise the partitioner decides.
    #[must_use]
    pub const fn partition(&self) -> Option<i32> {
        if self.entry.partition < 0 { None } else { Some(self.entry.partition) }
    }

    /// The key's row.
    #[must_use]
    pub fn key(&self) -> Option<Row<'a>> {
        self.row(self.entry.key, self.schema().key()?)
    }

    /// The row before the change.
    #[must_use]
    pub fn before(&self) -> Option<Row<'a>> {
        self.row(self.entry.before, self.schema().value())
    }

    /// The row after the change, or the row of a plain record; `None` is a deletion.
    #[must_use]
    pub fn after(&self) -> Option<Row<'a>> {
        self.row(self.entry.after, self.schema().value())
    }

    /// The source block's row.
    #[must_use]
    pub fn source(&self) -> Option<Row<'a>> {
        self.row(self.entry.source, &self.schema().source()?.fields)
    }

    fn row(&self, slot: Slot, schema: &'a RowSchema) -> Option<Row<'a>> {
        Row::trusted(schema, slot.bytes(&self.batch.arena)?)
    }

    /// The lane of [`RecordView::position`]: positions are ordered within a lane only.
    #[must_use]
    pub const fn lane(&self) -> u64 {
        self.entry.lane
    }

    /// The record's place in its source, ordered as bytes within the lane and unique there. It travels in a header,
    /// and lets a restarted task drop what its topic already holds (data-semantics §1).
    #[must_use]
    pub fn position(&self) -> Option<&'a [u8]> {
        self.entry.position.bytes(&self.batch.arena)
    }

    /// Headers in order; a value may be null.
    pub fn headers(&self) -> Headers<'a> {
        Headers { rest: self.entry.headers.bytes(&self.batch.arena).unwrap_or_default() }
    }
}

/// Iterates a record's headers.
#[derive(Debug, Clone)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    fn take(&mut self) -> Option<Option<&'a [u8]>> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
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

/// Builds a batch record by record.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    batch: Batch,
}

impl BatchBuilder {
    /// An empty builder.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether there is no record yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Bytes held so far.
    #[must_use]
    pub fn size_in_bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// Begins a record under `schema`. Nothing is added before [`RecordBuilder::finish`].
    pub fn record(&mut self, schema: &Arc<EventSchema>) -> RecordBuilder<'_> {
        let index = self.schema_index(schema);
        let start = self.batch.arena.len();
        let entry = Entry {
            schema: index,
            topic: NO_TOPIC,
            partition: -1,
            op: None,
            flat: false,
            timestamp_ms: 0,
            offset: -1,
            lane: 0,
            key: Slot::NONE,
            before: Slot::NONE,
            after: Slot::NONE,
            source: Slot::NONE,
            headers: Slot::NONE,
            position: Slot::NONE,
        };
        RecordBuilder { batch: &mut self.batch, entry, start, schema: Arc::clone(schema) }
    }

    /// Begins a record that is a copy of `from` but for its schema, key, images and source block, which the caller
    /// writes: what a transform needs.
    pub fn record_like(&mut self, from: RecordView<'_>, schema: &Arc<EventSchema>) -> RecordBuilder<'_> {
        let mut record = self.record(schema);
        record.op(from.op()).flat(from.is_flat()).timestamp_ms(from.timestamp_ms()).offset(from.offset());
        if let Some(topic) = from.topic() {
            record.topic(topic);
        }
        if let Some(partition) = from.partition() {
            record.partition(partition);
        }
        if let Some(position) = from.position() {
            record.position(from.lane(), position);
        }
        for (name, value) in from.headers() {
            record.header(name, value);
        }
        record
    }

    /// Appends a copy of `from`.
    pub fn push(&mut self, from: RecordView<'_>) {
        let schema = Arc::clone(from.schema());
        let mut record = self.record_like(from, &schema);
        record.copy_key(from).copy_images(from).copy_source(from);
        record.finish();
    }

    fn schema_index(&mut self, schema: &Arc<EventSchema>) -> u32 {
        let schemas = &mut self.batch.schemas;
        // Records of one table come in runs: the last one used is almost always the one.
        if let Some(index) = schemas.iter().rposition(|known| Arc::ptr_eq(known, schema)) {
            return index as u32;
        }
        schemas.push(Arc::clone(schema));
        (schemas.len() - 1) as u32
    }

    /// The finished batch.
    #[must_use]
    pub fn build(self) -> Batch {
        self.batch
    }

    /// The finished batch, leaving an empty builder behind, with room for another like it.
    #[must_use]
    pub fn take(&mut self) -> Batch {
        let next = Batch {
            arena: Vec::with_capacity(self.batch.arena.len()),
            entries: Vec::with_capacity(self.batch.entries.len()),
            ..Batch::default()
        };
        std::mem::replace(&mut self.batch, next)
    }
}

/// Builds one record; dropped without [`RecordBuilder::finish`], it leaves no trace.
#[derive(Debug)]
pub struct RecordBuilder<'a> {
    batch: &'a mut Batch,
    entry: Entry,
    start: usize,
    schema: Arc<EventSchema>,
}

impl RecordBuilder<'_> {
    /// Sets the operation.
    pub fn op(&mut self, op: Option<Op>) -> &mut Self {
        self.entry.op = op;
        self
    }

    /// Sets whether formats write the row alone.
    pub fn flat(&mut self, flat: bool) -> &mut Self {
        self.entry.flat = flat;
        self
    }

    /// Sets the timestamp.
    pub fn timestamp_ms(&mut self, timestamp_ms: i64) -> &mut Self {
        self.entry.timestamp_ms = timestamp_ms;
        self
    }

    /// Sets the offset (records read from a topic).
    pub fn offset(&mut self, offset: i64) -> &mut Self {
        self.entry.offset = offset;
        self
    }

    /// Chooses the topic.
    pub fn topic(&mut self, topic: &TopicName) -> &mut Self {
        let topics = &mut self.batch.topics;
        let known = topics.iter().rposition(|known| known == topic);
        self.entry.topic = known.unwrap_or_else(|| {
            topics.push(topic.clone());
            topics.len() - 1
        }) as u32;
        self
    }

    /// Chooses the partition.
    pub fn partition(&mut self, partition: i32) -> &mut Self {
        self.entry.partition = partition;
        self
    }

    /// Sets the lane and the position in it.
    pub fn position(&mut self, lane: u64, position: &[u8]) -> &mut Self {
        self.entry.lane = lane;
        let from = self.batch.arena.len();
        self.batch.arena.extend_from_slice(position);
        self.entry.position = Slot::of(&(from..self.batch.arena.len()));
        self
    }

    /// Adds a header. Headers lie together: add them before or after everything else, not in between.
    pub fn header(&mut self, name: &str, value: Option<&[u8]>) -> &mut Self {
        let arena = &mut self.batch.arena;
        if self.entry.headers != Slot::NONE && self.entry.headers.end as usize != arena.len() {
            let old = self.entry.headers.start as usize..self.entry.headers.end as usize;
            self.entry.headers.start = arena.len() as u32;
            arena.extend_from_within(old);
        } else if self.entry.headers == Slot::NONE {
            self.entry.headers.start = arena.len() as u32;
        }
        arena.extend_from_slice(&(name.len() as u32).to_le_bytes());
        arena.extend_from_slice(name.as_bytes());
        match value {
            None => arena.extend_from_slice(&u32::MAX.to_le_bytes()),
            Some(bytes) => {
                arena.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                arena.extend_from_slice(bytes);
            }
        }
        self.entry.headers.end = arena.len() as u32;
        self
    }

    /// Writes the key's row; without a key schema nothing is written.
    pub fn key(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        if let Some(schema) = self.schema.key() {
            self.entry.key = Self::write(&mut self.batch.arena, schema, write);
        }
        self
    }

    /// Writes the row before the change.
    pub fn before(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.entry.before = Self::write(&mut self.batch.arena, self.schema.value(), write);
        self
    }

    /// Writes the row after the change, or a plain record's row.
    pub fn after(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.entry.after = Self::write(&mut self.batch.arena, self.schema.value(), write);
        self
    }

    /// As [`RecordBuilder::after`], for a writer that can fail.
    ///
    /// # Errors
    /// What `write` returns; drop the record then.
    pub fn try_after<E>(&mut self, write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        self.entry.after = Self::try_write(&mut self.batch.arena, self.schema.value(), write)?;
        Ok(())
    }

    /// As [`RecordBuilder::before`], for a writer that can fail.
    ///
    /// # Errors
    /// What `write` returns; drop the record then.
    pub fn try_before<E>(
        &mut self,
        write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.entry.before = Self::try_write(&mut self.batch.arena, self.schema.value(), write)?;
        Ok(())
    }

    /// As [`RecordBuilder::key`], for a writer that can fail.
    ///
    /// # Errors
    /// What `write` returns; drop the record then.
    pub fn try_key<E>(&mut self, write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>) -> Result<(), E> {
        if let Some(schema) = self.schema.key() {
            self.entry.key = Self::try_write(&mut self.batch.arena, schema, write)?;
        }
        Ok(())
    }

    /// Writes the source block's row; without one in the schema nothing is written.
    pub fn source(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        if let Some(block) = self.schema.source() {
            self.entry.source = Self::write(&mut self.batch.arena, &block.fields, write);
        }
        self
    }

    /// As [`RecordBuilder::source`], for a writer that can fail.
    ///
    /// # Errors
    /// What `write` returns; drop the record then.
    pub fn try_source<E>(
        &mut self,
        write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(block) = self.schema.source() {
            self.entry.source = Self::try_write(&mut self.batch.arena, &block.fields, write)?;
        }
        Ok(())
    }

    fn write(arena: &mut Vec<u8>, schema: &RowSchema, write: impl FnOnce(&mut RowWriter<'_>)) -> Slot {
        let mut writer = RowWriter::new(arena, schema);
        write(&mut writer);
        Slot::of(&writer.finish())
    }

    fn try_write<E>(
        arena: &mut Vec<u8>,
        schema: &RowSchema,
        write: impl FnOnce(&mut RowWriter<'_>) -> Result<(), E>,
    ) -> Result<Slot, E> {
        let mut writer = RowWriter::new(arena, schema);
        match write(&mut writer) {
            Ok(()) => Ok(Slot::of(&writer.finish())),
            Err(error) => {
                writer.abandon();
                Err(error)
            }
        }
    }

    fn copy(&mut self, slot: Slot, from: &Batch) -> Slot {
        let Some(bytes) = slot.bytes(&from.arena) else { return Slot::NONE };
        let start = self.batch.arena.len();
        self.batch.arena.extend_from_slice(bytes);
        Slot::of(&(start..self.batch.arena.len()))
    }

    /// Copies the key of `from`, whose key schema must be the same.
    pub fn copy_key(&mut self, from: RecordView<'_>) -> &mut Self {
        self.entry.key = self.copy(from.entry.key, from.batch);
        self
    }

    /// Copies both images of `from`, whose value schema must be the same.
    pub fn copy_images(&mut self, from: RecordView<'_>) -> &mut Self {
        self.entry.before = self.copy(from.entry.before, from.batch);
        self.entry.after = self.copy(from.entry.after, from.batch);
        self
    }

    /// Copies the source block of `from`, whose source schema must be the same.
    pub fn copy_source(&mut self, from: RecordView<'_>) -> &mut Self {
        self.entry.source = self.copy(from.entry.source, from.batch);
        self
    }

    /// Adds the record to the batch.
    pub fn finish(mut self) {
        self.start = usize::MAX;
        self.batch.entries.push(self.entry);
    }
}

impl Drop for RecordBuilder<'_> {
    fn drop(&mut self) {
        if self.start != usize::MAX {
            self.batch.arena.truncate(self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Value;
    use super::super::schema::{Field, SourceBlock, Type};
    use super::*;

    fn schema() -> Arc<EventSchema> {
        let row =
            RowSchema::new(vec![Field::required("id", Type::Int32), Field::nullable("name", Type::String)]);
        let key = RowSchema::new(vec![Field::required("id", Type::Int32)]);
        let source = SourceBlock {
            constants: vec![("table".into(), "orders".into())],
            fields: RowSchema::new(vec![Field::required("lsn", Type::Int64)]),
        };
        Arc::new(
            EventSchema::new("public.orders", Arc::new(row))
                .with_key(Some(Arc::new(key)))
                .with_source(Some(Arc::new(source))),
        )
    }

    fn update(builder: &mut BatchBuilder, schema: &Arc<EventSchema>) {
        let mut record = builder.record(schema);
        record
            .op(Some(Op::Update))
            .timestamp_ms(5)
            .header("a", Some(b"1"))
            .position(3, b"pos")
            .key(|row| row.int(7))
            .before(|row| {
                row.int(7);
                row.text("old");
            })
            .after(|row| {
                row.int(7);
                row.absent();
            })
            .source(|row| row.int(99))
            .header("b", None);
        record.finish();
    }

    #[test]
    fn a_change_event_comes_back_whole_and_so_does_its_copy() {
        let schema = schema();
        let mut builder = BatchBuilder::new();
        update(&mut builder, &schema);
        let original = builder.take();
        builder.push(original.record(0));
        for batch in [original, builder.build()] {
            let record = batch.record(0);
            assert_eq!(record.op(), Some(Op::Update));
            assert_eq!(record.key().unwrap().get(0), Value::Int(7));
            assert_eq!(record.before().unwrap().get(1), Value::Text("old"));
            assert_eq!(record.after().unwrap().get(1), Value::Absent);
            assert_eq!(record.source().unwrap().get(0), Value::Int(99));
            assert_eq!((record.lane(), record.position()), (3, Some(&b"pos"[..])));
            let headers: Vec<_> = record.headers().collect();
            assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None)]);
            assert_eq!(record.topic(), None);
        }
    }

    #[test]
    fn an_unfinished_record_leaves_no_trace() {
        let schema = schema();
        let mut builder = BatchBuilder::new();
        update(&mut builder, &schema);
        let bytes = builder.size_in_bytes();
        builder.record(&schema).key(|row| row.int(1));
        let failed = builder.record(&schema).try_after(|_| Err("bad"));
        assert_eq!(failed, Err("bad"));
        assert_eq!((builder.len(), builder.size_in_bytes()), (1, bytes));
    }

    #[test]
    fn retain_keeps_what_it_is_told() {
        let schema = schema();
        let mut builder = BatchBuilder::new();
        for id in 0..10 {
            let mut record = builder.record(&schema);
            record.after(|row| row.int(id));
            record.finish();
        }
        let mut batch = builder.build();
        batch.retain(|_, record| matches!(record.after().unwrap().get(0), Value::Int(id) if id % 2 == 0));
        let ids: Vec<_> = batch.records().map(|record| record.after().unwrap().get(0)).collect();
        assert_eq!(ids, [0, 2, 4, 6, 8].map(Value::Int));
    }
}
