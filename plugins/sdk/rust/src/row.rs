//! Rows: reading one under its fields, and writing one.

use std::ops::Range;

use crate::schema::{Field, Scalar, Type};

const STATE_SHIFT: u32 = 30;
const END_MASK: u32 = (1 << STATE_SHIFT) - 1;

/// One field's value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// The database's NULL.
    Null,
    /// Not told by the source: never to be taken for NULL.
    Absent,
    /// [`Scalar::Boolean`].
    Bool(bool),
    /// Integers of any width.
    Int(i64),
    /// [`Scalar::Float32`].
    Float32(f32),
    /// [`Scalar::Float64`].
    Float64(f64),
    /// [`Scalar::Bytes`].
    Bytes(&'a [u8]),
    /// Everything else, arrays among it.
    Text(&'a str),
}

/// One row under its fields.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    fields: &'a [Field],
    bytes: &'a [u8],
}

fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// The host looks at every row before it hands it over, and writes into this memory whatever it wants: looking again would
/// take a third of the time of a transform that reads its texts.
#[cfg(target_arch = "wasm32")]
fn text(bytes: &[u8]) -> &str {
    #[expect(unsafe_code, reason = "the host has found it to be UTF-8")]
    unsafe {
        std::str::from_utf8_unchecked(bytes)
    }
}

/// On this machine, as in the tests of a plugin, rows are whatever somebody wrote.
#[cfg(not(target_arch = "wasm32"))]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl<'a> Row<'a> {
    pub(crate) const fn new(fields: &'a [Field], bytes: &'a [u8]) -> Self {
        Self { fields, bytes }
    }

    /// The fields.
    #[must_use]
    pub const fn fields(&self) -> &'a [Field] {
        self.fields
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn entry(&self, index: usize) -> (u32, usize) {
        let raw = u32::from_le_bytes(fixed(self.bytes.get(index * 4..).unwrap_or_default()));
        (raw >> STATE_SHIFT, (raw & END_MASK) as usize)
    }

    /// The value of field `index`; [`Value::Absent`] where there is no such field.
    #[must_use]
    pub fn get(&self, index: usize) -> Value<'a> {
        let Some(field) = self.fields.get(index) else { return Value::Absent };
        let (state, end) = self.entry(index);
        match state {
            0 => {}
            1 => return Value::Null,
            _ => return Value::Absent,
        }
        let from = if index == 0 { 0 } else { self.entry(index - 1).1 };
        let table = self.fields.len() * 4;
        let bytes = self.bytes.get(table + from..table + end).unwrap_or_default();
        let Type { scalar, dimensions: 0 } = field.ty else {
            return Value::Text(text(bytes));
        };
        match scalar {
            Scalar::Boolean => Value::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
            Scalar::Int16 | Scalar::Int32 | Scalar::Int64 => Value::Int(i64::from_le_bytes(fixed(bytes))),
            Scalar::Float32 => Value::Float32(f32::from_le_bytes(fixed(bytes))),
            Scalar::Float64 => Value::Float64(f64::from_le_bytes(fixed(bytes))),
            Scalar::Bytes => Value::Bytes(bytes),
            _ => Value::Text(text(bytes)),
        }
    }

    /// The value of the field called `name`.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<Value<'a>> {
        self.fields.iter().position(|field| field.name == name).map(|index| self.get(index))
    }

    /// All values in order.
    pub fn values(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).map(|index| self.get(index))
    }
}

/// A row that is copied, with changes that leave its form as it is; see [`Rewrite::after_with`](crate::Rewrite::after_with).
#[derive(Debug)]
pub struct RowEdit<'a> {
    row: Row<'a>,
    copy: &'a mut [u8],
}

impl<'a> RowEdit<'a> {
    /// `copy` is a copy of the row's bytes.
    pub(crate) const fn new(row: Row<'a>, copy: &'a mut [u8]) -> Self {
        Self { row, copy }
    }

    /// Puts others in the place of the ASCII characters that stand at `range` of the text of field `index`, counted in
    /// bytes. All others stay, and nothing happens where there is no text, or it ends.
    pub fn map_ascii(&mut self, index: usize, range: Range<usize>, with: impl Fn(u8) -> u8) {
        let Value::Text(text) = self.row.get(index) else { return };
        let from = if index == 0 { 0 } else { self.row.entry(index - 1).1 };
        let start = self.row.len() * 4 + from;
        let range = start + range.start..start + range.end.min(text.len());
        // What stands there is ASCII before and after: the text stays one.
        let map = |byte: &mut u8| *byte = if byte.is_ascii() { with(*byte) & 0x7f } else { *byte };
        // Each turn of a loop looks at the sandbox's clock.
        let (fours, rest) = self.copy.get_mut(range).unwrap_or_default().as_chunks_mut::<4>();
        fours.iter_mut().for_each(|four| four.iter_mut().for_each(map));
        rest.iter_mut().for_each(map);
    }
}

/// Writes one row, field by field in the order of the schema; what is not written is absent.
#[derive(Debug)]
pub struct RowWriter<'a> {
    arena: &'a mut Vec<u8>,
    start: usize,
    fields: usize,
    written: usize,
}

impl<'a> RowWriter<'a> {
    pub(crate) fn new(arena: &'a mut Vec<u8>, fields: usize) -> Self {
        let start = arena.len();
        arena.resize(start + fields * 4, 0);
        Self { arena, start, fields, written: 0 }
    }

    fn seal(&mut self, state: u32) {
        if self.written < self.fields {
            let end = (self.arena.len() - self.start - self.fields * 4) as u32 & END_MASK;
            let at = self.start + self.written * 4;
            self.arena[at..at + 4].copy_from_slice(&(state << STATE_SHIFT | end).to_le_bytes());
            self.written += 1;
        }
    }

    /// Writes a value, which must be of the field's type.
    pub fn value(&mut self, value: Value<'_>) {
        let state = match value {
            Value::Null => 1,
            Value::Absent => 2,
            Value::Bool(value) => {
                self.arena.push(u8::from(value));
                0
            }
            Value::Int(value) => {
                self.arena.extend_from_slice(&value.to_le_bytes());
                0
            }
            Value::Float32(value) => {
                self.arena.extend_from_slice(&value.to_le_bytes());
                0
            }
            Value::Float64(value) => {
                self.arena.extend_from_slice(&value.to_le_bytes());
                0
            }
            Value::Bytes(value) => {
                self.arena.extend_from_slice(value);
                0
            }
            Value::Text(value) => {
                self.arena.extend_from_slice(value.as_bytes());
                0
            }
        };
        self.seal(state);
    }

    /// Writes a text.
    pub fn text(&mut self, text: &str) {
        self.value(Value::Text(text));
    }

    /// Writes a text part by part, where it goes, without a copy of its own.
    pub fn text_of(&mut self, write: impl FnOnce(&mut TextWriter<'_>)) {
        write(&mut TextWriter { arena: self.arena });
        self.seal(0);
    }

    pub(crate) fn finish(mut self) -> (usize, usize) {
        while self.written < self.fields {
            self.seal(2);
        }
        (self.start, self.arena.len() - self.start)
    }
}

/// Writes one text; see [`RowWriter::text_of`]. `write!` writes to it as well.
#[derive(Debug)]
pub struct TextWriter<'a> {
    arena: &'a mut Vec<u8>,
}

impl TextWriter<'_> {
    /// Appends a part.
    pub fn push(&mut self, part: &str) {
        self.arena.extend_from_slice(part.as_bytes());
    }
}

impl std::fmt::Write for TextWriter<'_> {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.push(part);
        Ok(())
    }
}
