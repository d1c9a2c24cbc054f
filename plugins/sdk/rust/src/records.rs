//! Writing the records that a source brings.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::batch::{ENTRY_BYTES, HEADER_BYTES, NOT_THERE, Op, at};
use crate::error::Rejection;
use crate::output::{seal, write_headers};
use crate::row::RowWriter;
use crate::schema::{Schema, Schemas};

/// Input that no record could be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedInput {
    /// Where it stood, for people.
    pub position: String,
    /// The input as it was.
    pub bytes: Vec<u8>,
    /// Why.
    pub why: Rejection,
}

/// What one poll brings: records, the offsets that hold once they are durable, and input that is no record.
#[derive(Debug)]
pub struct Records<'a> {
    arena: Vec<u8>,
    entries: Vec<u8>,
    pub(crate) rejected: Vec<RejectedInput>,
    pub(crate) offsets: BTreeMap<String, Option<String>>,
    schemas: &'a mut Schemas,
}

impl<'a> Records<'a> {
    /// Nothing yet.
    pub fn new(schemas: &'a mut Schemas) -> Self {
        let arena = vec![0; HEADER_BYTES];
        Self { arena, entries: Vec::new(), rejected: Vec::new(), offsets: BTreeMap::new(), schemas }
    }

    /// A number for a schema to write records of, the same for the same schema; `None` when there are too many, or it is
    /// too large.
    pub fn define(&mut self, schema: Schema) -> Option<u32> {
        self.schemas.define(schema)
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

    /// Bytes of the records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() - HEADER_BYTES + self.entries.len()
    }

    /// Begins a record under the schema of a number.
    pub fn record(&mut self, schema: u32) -> NewRecord<'_> {
        let mut entry = [0; ENTRY_BYTES];
        entry[..4].copy_from_slice(&schema.to_le_bytes());
        entry[4..8].copy_from_slice(&(-1_i32).to_le_bytes());
        entry[12..16].copy_from_slice(&(self.len() as u32).to_le_bytes());
        entry[24..32].copy_from_slice(&(-1_i64).to_le_bytes());
        for slot in entry[at::KEY..].chunks_exact_mut(8) {
            slot.copy_from_slice(&u64::from(NOT_THERE).to_le_bytes());
        }
        let schema = self.schemas.get(schema);
        NewRecord { arena: &mut self.arena, entries: &mut self.entries, schema, entry }
    }

    /// Says where to go on in a source partition, once everything so far is durable.
    pub fn offset(&mut self, partition: &str, place: impl Into<String>) {
        self.offsets.insert(partition.to_owned(), Some(place.into()));
    }

    /// Forgets a source partition.
    pub fn forget(&mut self, partition: &str) {
        self.offsets.insert(partition.to_owned(), None);
    }

    /// Sends input that is no record to the dead-letter topic.
    pub fn reject(&mut self, position: impl Into<String>, bytes: &[u8], why: Rejection) {
        self.rejected.push(RejectedInput { position: position.into(), bytes: bytes.to_vec(), why });
    }

    /// The buffer, the input that is no record, and the offsets.
    #[must_use]
    pub fn finish(self) -> (Vec<u8>, Vec<RejectedInput>, BTreeMap<String, Option<String>>) {
        (seal(self.arena, &self.entries), self.rejected, self.offsets)
    }
}

/// A record that is being written; without [`NewRecord::finish`] there is none.
#[derive(Debug)]
pub struct NewRecord<'a> {
    arena: &'a mut Vec<u8>,
    entries: &'a mut Vec<u8>,
    schema: Option<Rc<Schema>>,
    entry: [u8; ENTRY_BYTES],
}

impl NewRecord<'_> {
    fn put(&mut self, at: usize, start: usize) {
        let length = self.arena.len() - start;
        self.entry[at..at + 4].copy_from_slice(&(start as u32).to_le_bytes());
        self.entry[at + 4..at + 8].copy_from_slice(&(length as u32).to_le_bytes());
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(bytes);
        self.put(at, start);
    }

    fn row(&mut self, at: usize, fields: usize, write: impl FnOnce(&mut RowWriter<'_>)) {
        let mut row = RowWriter::new(self.arena, fields);
        write(&mut row);
        let (start, _) = row.finish();
        self.put(at, start);
    }

    fn value_fields(&self) -> usize {
        self.schema.as_ref().map_or(0, |schema| schema.value.len())
    }

    /// Sets the operation; without one it is a plain record.
    pub fn op(&mut self, op: Option<Op>) -> &mut Self {
        self.entry[8] = Op::code(op);
        self
    }

    /// Sets whether formats write the row alone.
    pub fn flat(&mut self, flat: bool) -> &mut Self {
        self.entry[9] = u8::from(flat);
        self
    }

    /// Sets the timestamp, in milliseconds since 1970 UTC.
    pub fn timestamp_ms(&mut self, timestamp_ms: i64) -> &mut Self {
        self.entry[16..24].copy_from_slice(&timestamp_ms.to_le_bytes());
        self
    }

    /// Sets the place of the record in its lane. Places grow within their lane, compared as bytes, and are the same when
    /// the record is read again: by them a restarted task knows what its topic holds already.
    pub fn position(&mut self, lane: u64, place: &[u8]) -> &mut Self {
        self.entry[32..40].copy_from_slice(&lane.to_le_bytes());
        self.bytes(at::POSITION, place);
        self
    }

    /// Writes the key's row.
    pub fn key(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        let fields = self.schema.as_ref().and_then(|schema| schema.key.as_ref()).map(Vec::len);
        if let Some(fields) = fields {
            self.row(at::KEY, fields, write);
        }
        self
    }

    /// Writes the row before the change.
    pub fn before(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.row(at::BEFORE, self.value_fields(), write);
        self
    }

    /// Writes the row after the change, or a plain record's row.
    pub fn after(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        self.row(at::AFTER, self.value_fields(), write);
        self
    }

    /// Writes the source block's row.
    pub fn source(&mut self, write: impl FnOnce(&mut RowWriter<'_>)) -> &mut Self {
        let fields = self.schema.as_ref().and_then(|schema| schema.source.as_ref()).map(|it| it.fields.len());
        if let Some(fields) = fields {
            self.row(at::SOURCE, fields, write);
        }
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

    /// Sets the headers.
    pub fn headers<'h>(
        &mut self,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) -> &mut Self {
        let start = self.arena.len();
        write_headers(self.arena, headers);
        self.put(at::HEADERS, start);
        self
    }

    /// Adds the record.
    pub fn finish(&mut self) {
        self.entries.extend_from_slice(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::row::Value;
    use crate::schema::{Field, Scalar};

    #[test]
    fn records_are_written_with_what_belongs_to_them() {
        let mut schemas = Schemas::default();
        let mut out = Records::new(&mut schemas);
        let field = || Field::nullable("id", Scalar::Int64);
        let schema = Schema { key: Some(vec![field()]), ..Schema::plain("t", vec![field()]) };
        let number = out.define(schema).unwrap();
        out.record(number)
            .op(Some(Op::Create))
            .timestamp_ms(5)
            .key(|row| row.value(Value::Int(1)))
            .after(|row| row.value(Value::Int(2)))
            .headers([("h", Some(&b"v"[..]))])
            .position(3, b"here")
            .finish();
        let _unfinished = out.record(number);
        out.offset("a", "1");
        out.forget("b");
        out.reject("line 3", b"{", Rejection::new("BAD", "no JSON"));
        assert_eq!(out.len(), 1);
        let (bytes, rejected, offsets) = out.finish();
        assert_eq!((rejected.len(), rejected[0].position.as_str()), (1, "line 3"));
        assert_eq!(offsets, [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)].into());
        let batch = Batch::read(&bytes, &mut schemas).unwrap();
        let record = batch.records().next().unwrap();
        assert_eq!((record.op(), record.timestamp_ms(), record.offset()), (Some(Op::Create), 5, -1));
        assert_eq!(record.key().unwrap().get(0), Value::Int(1));
        assert_eq!(record.after().unwrap().get(0), Value::Int(2));
        assert!(record.before().is_none() && record.topic().is_none() && record.partition().is_none());
        assert_eq!(record.headers().collect::<Vec<_>>(), [("h", Some(&b"v"[..]))]);
        assert_eq!(record.slot(at::POSITION), Some(&b"here"[..]));
    }
}
