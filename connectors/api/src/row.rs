//! Rows: the typed binary form of a record's key, before and after images, and source block.
//!
//! Layout: for each field a little-endian `u32` whose top two bits tell its state (present, null, absent) and whose
//! other bits are the end of its payload, counted from the end of this table; then the payloads, one after the other.
//! Integers take 8 bytes, `float32` 4, `float64` 8, `bool` 1, everything else its own bytes.

use super::schema::{RowSchema, Type};

const STATE_SHIFT: u32 = 30;
const END_MASK: u32 = (1 << STATE_SHIFT) - 1;
const PRESENT: u32 = 0;
const NULL: u32 = 1;
const ABSENT: u32 = 2;

/// One field's value, borrowed from its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// The database's NULL.
    Null,
    /// Not told by the source (an unchanged TOAST column): never to be taken for NULL.
    Absent,
    /// [`Type::Bool`].
    Bool(bool),
    /// [`Type::Int16`], [`Type::Int32`] and [`Type::Int64`].
    Int(i64),
    /// [`Type::Float32`].
    Float32(f32),
    /// [`Type::Float64`].
    Float64(f64),
    /// [`Type::Bytes`].
    Bytes(&'a [u8]),
    /// Every type carried as text.
    Text(&'a str),
}

impl Value<'_> {
    /// Whether there is nothing to show: null or absent.
    #[must_use]
    pub const fn is_missing(&self) -> bool {
        matches!(self, Self::Null | Self::Absent)
    }
}

/// A row that breaks its layout or its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a row does not fit its schema: {0}")]
pub struct MalformedRow(&'static str);

/// A view of one row under its schema.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    schema: &'a RowSchema,
    ends: &'a [u8],
    payload: &'a [u8],
}

impl<'a> Row<'a> {
    /// Checks the layout of `bytes` against `schema` (lengths, states, UTF-8), for rows that come from outside the
    /// process's own builders (a WASM guest, a file).
    ///
    /// # Errors
    /// [`MalformedRow`] with what is wrong.
    pub fn checked(schema: &'a RowSchema, bytes: &'a [u8]) -> Result<Self, MalformedRow> {
        let row = Self::trusted(schema, bytes).ok_or(MalformedRow("the field table is cut short"))?;
        let mut from = 0;
        for (index, field) in schema.fields.iter().enumerate() {
            let (state, end) = row.entry(index);
            if state > ABSENT || end < from || end > row.payload.len() {
                return Err(MalformedRow("a field's end lies outside the row"));
            }
            if state != PRESENT && end != from {
                return Err(MalformedRow("a null or absent field has bytes"));
            }
            let bytes = &row.payload[from..end];
            let fits = state != PRESENT
                || match field.ty {
                    Type::Bool => bytes.len() == 1,
                    Type::Int16 => int(bytes).is_some_and(|it| i16::try_from(it).is_ok()),
                    Type::Int32 => int(bytes).is_some_and(|it| i32::try_from(it).is_ok()),
                    Type::Int64 | Type::Float64 => bytes.len() == 8,
                    Type::Float32 => bytes.len() == 4,
                    Type::Bytes => true,
                    _ => std::str::from_utf8(bytes).is_ok(),
                };
            if !fits {
                return Err(MalformedRow("a field's bytes do not fit its type"));
            }
            from = end;
        }
        if from == row.payload.len() { Ok(row) } else { Err(MalformedRow("bytes are left over")) }
    }

    /// A row made by [`RowWriter`] under the same schema.
    pub(crate) fn trusted(schema: &'a RowSchema, bytes: &'a [u8]) -> Option<Self> {
        let (ends, payload) = bytes.split_at_checked(schema.fields.len() * 4)?;
        Some(Self { schema, ends, payload })
    }

    fn entry(&self, index: usize) -> (u32, usize) {
        let mut raw = [0; 4];
        raw.copy_from_slice(&self.ends[index * 4..index * 4 + 4]);
        let raw = u32::from_le_bytes(raw);
        (raw >> STATE_SHIFT, (raw & END_MASK) as usize)
    }

    /// The schema.
    #[must_use]
    pub const fn schema(&self) -> &'a RowSchema {
        self.schema
    }

    /// How many fields there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.schema.fields.len()
    }

    /// Whether the row has no field.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.schema.fields.is_empty()
    }

    /// The raw bytes of field `index` (empty for null and absent).
    #[must_use]
    pub fn bytes(&self, index: usize) -> &'a [u8] {
        let from = if index == 0 { 0 } else { self.entry(index - 1).1 };
        self.payload.get(from..self.entry(index).1).unwrap_or_default()
    }

    /// The value of field `index`, which must be below [`Row::len`].
    #[must_use]
    pub fn get(&self, index: usize) -> Value<'a> {
        match self.entry(index).0 {
            PRESENT => {}
            NULL => return Value::Null,
            _ => return Value::Absent,
        }
        let bytes = self.bytes(index);
        match self.schema.fields[index].ty {
            Type::Bool => Value::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
            Type::Int16 | Type::Int32 | Type::Int64 => Value::Int(i64::from_le_bytes(fixed(bytes))),
            Type::Float32 => Value::Float32(f32::from_le_bytes(fixed(bytes))),
            Type::Float64 => Value::Float64(f64::from_le_bytes(fixed(bytes))),
            Type::Bytes => Value::Bytes(bytes),
            // Writers take `&str` only, and rows from outside go through `checked`.
            _ => Value::Text(std::str::from_utf8(bytes).unwrap_or_default()),
        }
    }

    /// The value of the field called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Value<'a>> {
        self.schema.index_of(name).map(|index| self.get(index))
    }

    /// All values in order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// An integer out of exactly its bytes.
fn int(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_le_bytes)
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut raw = [0; N];
    if let Some(head) = bytes.get(..N) {
        raw.copy_from_slice(head);
    }
    raw
}

/// Writes one row at the end of an arena, field by field in the schema's order.
#[derive(Debug)]
pub struct RowWriter<'a> {
    arena: &'a mut Vec<u8>,
    start: usize,
    fields: usize,
    written: usize,
}

impl<'a> RowWriter<'a> {
    /// Begins a row of `schema` at the end of `arena`.
    pub fn new(arena: &'a mut Vec<u8>, schema: &RowSchema) -> Self {
        let start = arena.len();
        let fields = schema.fields.len();
        arena.resize(start + fields * 4, 0);
        Self { arena, start, fields, written: 0 }
    }

    fn seal(&mut self, state: u32) {
        debug_assert!(self.written < self.fields, "more values than the schema has fields");
        if self.written >= self.fields {
            return;
        }
        let end = (self.arena.len() - self.start - self.fields * 4) as u32 & END_MASK;
        let at = self.start + self.written * 4;
        self.arena[at..at + 4].copy_from_slice(&(state << STATE_SHIFT | end).to_le_bytes());
        self.written += 1;
    }

    /// Writes NULL.
    pub fn null(&mut self) {
        self.seal(NULL);
    }

    /// Writes "not told by the source".
    pub fn absent(&mut self) {
        self.seal(ABSENT);
    }

    /// Writes a [`Type::Bool`].
    pub fn bool(&mut self, value: bool) {
        self.arena.push(u8::from(value));
        self.seal(PRESENT);
    }

    /// Writes an integer of any width.
    pub fn int(&mut self, value: i64) {
        self.arena.extend_from_slice(&value.to_le_bytes());
        self.seal(PRESENT);
    }

    /// Writes a [`Type::Float32`].
    pub fn float32(&mut self, value: f32) {
        self.arena.extend_from_slice(&value.to_le_bytes());
        self.seal(PRESENT);
    }

    /// Writes a [`Type::Float64`].
    pub fn float64(&mut self, value: f64) {
        self.arena.extend_from_slice(&value.to_le_bytes());
        self.seal(PRESENT);
    }

    /// Writes a [`Type::Bytes`].
    pub fn bytes(&mut self, value: &[u8]) {
        self.arena.extend_from_slice(value);
        self.seal(PRESENT);
    }

    /// Writes a value of any type carried as text.
    pub fn text(&mut self, value: &str) {
        self.arena.extend_from_slice(value.as_bytes());
        self.seal(PRESENT);
    }

    /// Writes a text value in pieces: `write` appends UTF-8 to the buffer it is given.
    ///
    /// # Errors
    /// What `write` returns; the field is then not written, and the caller abandons the row.
    pub fn text_with<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let before = self.arena.len();
        if let Err(error) = write(self.arena) {
            self.arena.truncate(before);
            return Err(error);
        }
        debug_assert!(std::str::from_utf8(&self.arena[before..]).is_ok(), "text fields are UTF-8");
        self.seal(PRESENT);
        Ok(())
    }

    /// Writes a value read from another row, whose field has the same type.
    pub fn value(&mut self, value: Value<'_>) {
        match value {
            Value::Null => self.null(),
            Value::Absent => self.absent(),
            Value::Bool(value) => self.bool(value),
            Value::Int(value) => self.int(value),
            Value::Float32(value) => self.float32(value),
            Value::Float64(value) => self.float64(value),
            Value::Bytes(value) => self.bytes(value),
            Value::Text(value) => self.text(value),
        }
    }

    /// How many fields have been written.
    #[must_use]
    pub const fn written(&self) -> usize {
        self.written
    }

    /// Ends the row; fields that were not written are absent. Returns where the row lies in the arena.
    pub fn finish(mut self) -> std::ops::Range<usize> {
        while self.written < self.fields {
            self.absent();
        }
        self.start..self.arena.len()
    }

    /// Drops what was written of this row.
    pub fn abandon(self) {
        self.arena.truncate(self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Field;
    use super::*;
    use proptest::prelude::*;

    fn schema() -> RowSchema {
        RowSchema::new(vec![
            Field::nullable("id", Type::Int64),
            Field::nullable("ok", Type::Bool),
            Field::nullable("ratio", Type::Float32),
            Field::nullable("sum", Type::Float64),
            Field::nullable("name", Type::String),
            Field::nullable("raw", Type::Bytes),
            Field::nullable("note", Type::String),
        ])
    }

    #[test]
    fn every_kind_of_value_comes_back() {
        let schema = schema();
        let mut arena = b"earlier".to_vec();
        let mut row = RowWriter::new(&mut arena, &schema);
        row.int(-7);
        row.bool(true);
        row.float32(f32::INFINITY);
        row.float64(-0.5);
        row.text("Zoë");
        row.null();
        let range = row.finish();
        let row = Row::checked(&schema, &arena[range]).unwrap();
        let values: Vec<_> = row.values().collect();
        assert_eq!(
            values,
            [
                Value::Int(-7),
                Value::Bool(true),
                Value::Float32(f32::INFINITY),
                Value::Float64(-0.5),
                Value::Text("Zoë"),
                Value::Null,
                Value::Absent,
            ]
        );
        assert_eq!(row.by_name("name"), Some(Value::Text("Zoë")));
        assert_eq!(row.by_name("nobody"), None);
    }

    #[test]
    fn an_abandoned_row_leaves_nothing() {
        let schema = schema();
        let mut arena = b"earlier".to_vec();
        let mut row = RowWriter::new(&mut arena, &schema);
        row.int(1);
        let failed: Result<(), &str> = RowWriter::new(&mut Vec::new(), &schema).text_with(|_| Err("no"));
        assert_eq!(failed, Err("no"));
        row.abandon();
        assert_eq!(arena, b"earlier");
    }

    #[test]
    fn integers_are_as_wide_as_their_type() {
        for (ty, largest) in
            [(Type::Int16, i64::from(i16::MAX)), (Type::Int32, i64::from(i32::MAX)), (Type::Int64, i64::MAX)]
        {
            let schema = RowSchema::bare(ty);
            let fits = |value: i64| {
                let mut arena = Vec::new();
                let mut row = RowWriter::new(&mut arena, &schema);
                row.int(value);
                row.finish();
                Row::checked(&schema, &arena).is_ok()
            };
            assert!(fits(largest) && fits(-largest - 1));
            assert!(largest == i64::MAX || !fits(largest + 1) && !fits(-largest - 2));
        }
    }

    proptest! {
        #[test]
        fn forged_rows_are_refused_or_readable(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let schema = schema();
            if let Ok(row) = Row::checked(&schema, &bytes) {
                prop_assert_eq!(row.values().count(), 7);
            }
        }
    }
}
