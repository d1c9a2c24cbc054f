//! Writing the batch that goes on.

use crate::batch::{ENTRY_BYTES, HEADER_BYTES, MAGIC, NOT_THERE, Op, Record, at};
use crate::error::Rejection;
use crate::row::{Row, RowEdit, RowWriter};
use crate::schema::{Schema, Schemas};

/// The records that go on, and those that are rejected. Each record of the incoming batch can go on once, in order.
#[derive(Debug)]
pub struct Output<'a> {
    arena: Vec<u8>,
    entries: Vec<u8>,
    rejected: Vec<(u32, Rejection)>,
    schemas: &'a mut Schemas,
}

impl<'a> Output<'a> {
    /// Nothing yet, with room for about `bytes`.
    pub fn new(bytes: usize, schemas: &'a mut Schemas) -> Self {
        let mut arena = Vec::with_capacity(bytes);
        arena.resize(HEADER_BYTES, 0);
        Self { arena, entries: Vec::new(), rejected: Vec::new(), schemas }
    }

    /// A number for a schema to write records of; `None` when there are too many, or it is too large.
    pub fn define(&mut self, schema: Schema) -> Option<u32> {
        self.schemas.define(schema)
    }

    /// Lets the record go on as it is.
    pub fn keep(&mut self, record: Record<'_>) {
        self.rewrite(record).finish();
    }

    /// Lets the record go on, but for what is written of it.
    pub fn rewrite<'b>(&'b mut self, record: Record<'b>) -> Rewrite<'b> {
        let number = record.schema_number();
        self.begin(record, number, record.schema().clone_counts())
    }

    /// Lets the record go on under another schema, of which `schema` is the number and `fields` the count of the
    /// value's fields: its images are those that are written, its key and source block stay.
    pub fn rewrite_as<'b>(&'b mut self, record: Record<'b>, schema: u32, fields: usize) -> Rewrite<'b> {
        let counts = Counts { value: fields, images: false, ..record.schema().clone_counts() };
        self.begin(record, schema, counts)
    }

    fn begin<'b>(&'b mut self, record: Record<'b>, schema: u32, counts: Counts) -> Rewrite<'b> {
        let mut entry = [0; ENTRY_BYTES];
        entry.copy_from_slice(record.entry);
        entry[..4].copy_from_slice(&schema.to_le_bytes());
        entry[12..16].copy_from_slice(&record.index.to_le_bytes());
        // Positions are the host's business.
        entry[at::POSITION..at::POSITION + 8].copy_from_slice(&no_slot());
        Rewrite { arena: &mut self.arena, entries: &mut self.entries, record, entry, counts, written: 0 }
    }

    /// Sends the record, as it came, to the dead-letter topic.
    pub fn reject(&mut self, record: Record<'_>, why: Rejection) {
        self.rejected.push((record.index, why));
    }

    /// The buffer, and the rejected records by their index.
    #[must_use]
    pub fn finish(self) -> (Vec<u8>, Vec<(u32, Rejection)>) {
        (seal(self.arena, &self.entries), self.rejected)
    }
}

/// The buffer out of its arena, which begins with room for the head, and its entries.
pub(crate) fn seal(mut arena: Vec<u8>, entries: &[u8]) -> Vec<u8> {
    let head = [MAGIC, (entries.len() / ENTRY_BYTES) as u32, arena.len() as u32, 0];
    for (at, word) in arena.chunks_exact_mut(4).zip(head) {
        at.copy_from_slice(&word.to_le_bytes());
    }
    arena.extend_from_slice(entries);
    arena
}

/// Appends headers.
pub(crate) fn write_headers<'h>(
    arena: &mut Vec<u8>,
    headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
) {
    for (name, value) in headers {
        arena.extend_from_slice(&(name.len() as u32).to_le_bytes());
        arena.extend_from_slice(name.as_bytes());
        let length = value.map_or(u32::MAX, |value| value.len() as u32);
        arena.extend_from_slice(&length.to_le_bytes());
        arena.extend_from_slice(value.unwrap_or_default());
    }
}

/// How many fields the rows of a schema have, and whether its images can be copied.
#[derive(Debug, Clone, Copy)]
struct Counts {
    key: usize,
    value: usize,
    images: bool,
}

impl Schema {
    fn clone_counts(&self) -> Counts {
        Counts { key: self.key.as_ref().map_or(0, Vec::len), value: self.value.len(), images: true }
    }
}

fn no_slot() -> [u8; 8] {
    (u64::from(NOT_THERE)).to_le_bytes()
}

/// A record on its way out; without [`Rewrite::finish`] it does not go on.
#[derive(Debug)]
pub struct Rewrite<'a> {
    arena: &'a mut Vec<u8>,
    entries: &'a mut Vec<u8>,
    record: Record<'a>,
    entry: [u8; ENTRY_BYTES],
    counts: Counts,
    /// One bit for each slot that is written already.
    written: u8,
}

impl Rewrite<'_> {
    fn put(&mut self, at: usize, start: usize, length: usize) {
        self.entry[at..at + 4].copy_from_slice(&(start as u32).to_le_bytes());
        self.entry[at + 4..at + 8].copy_from_slice(&(length as u32).to_le_bytes());
        self.written |= 1 << ((at - at::KEY) / 8);
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.put(at, start, bytes.len());
    }

    fn row(&mut self, at: usize, fields: usize, write: impl FnOnce(&mut RowWriter<'_>)) {
        let mut row = RowWriter::new(self.arena, fields);
        write(&mut row);
        let (start, length) = row.finish();
        self.put(at, start, length);
    }

    /// Writes the key's row anew.
    pub fn key(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.row(at::KEY, self.counts.key, write);
        self
    }

    /// Writes the row before the change anew.
    pub fn before(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.row(at::BEFORE, self.counts.value, write);
        self
    }

    /// Writes the row after the change anew.
    pub fn after(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.row(at::AFTER, self.counts.value, write);
        self
    }

    /// As [`Rewrite::before`], where the row keeps its form: it is copied, and `edit` changes the copy.
    pub fn before_with(&mut self, edit: impl FnOnce(&mut RowEdit<'_>)) -> &mut Self {
        self.edited(at::BEFORE, self.record.before(), edit);
        self
    }

    /// As [`Rewrite::after`], where the row keeps its form: it is copied, and `edit` changes the copy.
    pub fn after_with(&mut self, edit: impl FnOnce(&mut RowEdit<'_>)) -> &mut Self {
        self.edited(at::AFTER, self.record.after(), edit);
        self
    }

    fn edited(&mut self, at: usize, row: Option<Row<'_>>, edit: impl FnOnce(&mut RowEdit<'_>)) {
        let Some((row, bytes)) = row.zip(self.record.slot(at)).filter(|_| self.counts.images) else { return };
        let start = self.arena.len();
        self.bytes(at, bytes);
        edit(&mut RowEdit::new(row, self.arena.get_mut(start..).unwrap_or_default()));
    }

    /// Sets the operation.
    pub fn op(&mut self, op: Option<Op>) -> &mut Self {
        self.entry[8] = Op::code(op);
        self
    }

    /// Sets whether formats write the row alone.
    pub fn flat(&mut self, flat: bool) -> &mut Self {
        self.entry[9] = u8::from(flat);
        self
    }

    /// Sets the timestamp.
    pub fn timestamp_ms(&mut self, timestamp_ms: i64) -> &mut Self {
        self.entry[16..24].copy_from_slice(&timestamp_ms.to_le_bytes());
        self
    }

    /// Chooses the topic.
    pub fn topic(&mut self, topic: &str) -> &mut Self {
        self.bytes(at::TOPIC, topic.as_bytes());
        self
    }

    /// Chooses the partition.
    pub fn partition(&mut self, partition: i32) -> &mut Self {
        self.entry[4..8].copy_from_slice(&partition.to_le_bytes());
        self
    }

    /// Replaces all headers.
    pub fn headers<'h>(
        &mut self,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> &mut Self {
        let start = self.arena.len();
        write_headers(self.arena, headers);
        self.put(at::HEADERS, start, self.arena.len() - start);
        self
    }

    /// The record goes on; what has not been written is copied.
    pub fn finish(&mut self) {
        for at in [at::KEY, at::BEFORE, at::AFTER, at::SOURCE, at::HEADERS, at::TOPIC] {
            if self.written & (1 << ((at - at::KEY) / 8)) != 0 {
                continue;
            }
            let image = at == at::BEFORE || at == at::AFTER;
            match self.record.slot(at).filter(|_| self.counts.images || !image) {
                Some(bytes) => self.bytes(at, bytes),
                None => self.entry[at..at + 8].copy_from_slice(&no_slot()),
            }
        }
        self.entries.extend_from_slice(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::row::Value;
    use crate::schema::{Field, Scalar};

    fn schema() -> Schema {
        Schema::plain("t", vec![Field::nullable("id", Scalar::Int64), Field::nullable("text", Scalar::Text)])
    }

    /// Three records with an id and a text each, as the host would send them.
    fn incoming(schemas: &mut Schemas) -> Vec<u8> {
        let number = schemas.define(schema()).unwrap();
        let mut out = Output::new(0, schemas);
        for id in 0..3_i64 {
            let mut row = RowWriter::new(&mut out.arena, 2);
            row.value(Value::Int(id));
            row.text("text");
            let (start, length) = row.finish();
            let mut entry = [0xff; ENTRY_BYTES];
            entry[..16].fill(0);
            entry[..4].copy_from_slice(&number.to_le_bytes());
            entry[4..8].copy_from_slice(&(-1_i32).to_le_bytes());
            entry[at::AFTER..at::AFTER + 4].copy_from_slice(&(start as u32).to_le_bytes());
            entry[at::AFTER + 4..at::AFTER + 8].copy_from_slice(&(length as u32).to_le_bytes());
            out.entries.extend_from_slice(&entry);
        }
        out.finish().0
    }

    #[test]
    fn records_are_kept_rewritten_and_rejected() {
        let mut schemas = Schemas::default();
        let bytes = incoming(&mut schemas);
        let batch = Batch::read(&bytes, &mut schemas).unwrap();
        let mut out = Output::new(bytes.len(), &mut schemas);
        for record in batch.records() {
            match record.after().unwrap().get(0) {
                Value::Int(0) => out.keep(record),
                Value::Int(1) => out.reject(record, Rejection::new("NO", "not this one")),
                _ => out
                    .rewrite(record)
                    .after(|row| {
                        row.value(Value::Null);
                        row.text("Zoë");
                    })
                    .topic("elsewhere")
                    .headers([("a", Some(&b"1"[..])), ("b", None)])
                    .finish(),
            }
        }
        let (bytes, rejected) = out.finish();
        assert_eq!(rejected, [(1, Rejection::new("NO", "not this one"))]);
        let read = Batch::read(&bytes, &mut schemas).unwrap();
        let records: Vec<_> = read.records().collect();
        assert_eq!((records.len(), records[0].index), (2, 0));
        assert_eq!(records[0].after().unwrap().by_name("text"), Some(Value::Text("text")));
        assert_eq!(
            records[1].after().unwrap().values().collect::<Vec<_>>(),
            [Value::Null, Value::Text("Zoë")]
        );
        assert_eq!((records[1].topic(), records[0].topic()), (Some("elsewhere"), None));
        assert_eq!(records[1].headers().collect::<Vec<_>>(), [("a", Some(&b"1"[..])), ("b", None)]);
        assert_eq!((records[0].partition(), records[0].op()), (None, None));
    }

    #[test]
    fn rows_are_copied_and_changed_in_place() {
        let mut schemas = Schemas::default();
        let bytes = incoming(&mut schemas);
        let batch = Batch::read(&bytes, &mut schemas).unwrap();
        let mut out = Output::new(bytes.len(), &mut schemas);
        let record = batch.records().next().unwrap();
        // Where there is no such text, and where it ends, nothing happens; the result is ASCII whatever is asked for.
        let edit = |row: &mut RowEdit<'_>| {
            row.map_ascii(1, 1..3, |byte| byte.to_ascii_uppercase());
            row.map_ascii(1, 3..99, |_| 0xff);
            row.map_ascii(0, 0..8, |_| b'x');
            row.map_ascii(7, 0..8, |_| b'x');
        };
        out.rewrite(record).after_with(edit).before_with(|row| row.map_ascii(1, 0..4, |_| b'x')).finish();
        let (bytes, _) = out.finish();
        let read = Batch::read(&bytes, &mut schemas).unwrap();
        let record = read.records().next().unwrap();
        assert!(record.before().is_none());
        let values: Vec<_> = record.after().unwrap().values().collect();
        assert_eq!(values, [Value::Int(0), Value::Text("tEX\u{7f}")]);
    }

    #[test]
    fn what_is_no_batch_is_not_read() {
        let mut schemas = Schemas::default();
        let bytes = incoming(&mut schemas);
        for length in [0, 3, HEADER_BYTES, bytes.len() - 1] {
            assert!(Batch::read(&bytes[..length], &mut schemas).is_none(), "{length}");
        }
        assert!(Batch::read(&bytes, &mut Schemas::default()).is_none(), "a schema that nobody knows");
    }
}
