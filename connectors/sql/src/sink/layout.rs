//! Which columns the records of a schema fill, and where each column's value comes from.

use towpath_api::{EventSchema, Field, Op, RecordView, Row, RowSchema, Type, Value};

/// The column for a key that is one value without a name.
const BARE_KEY: &str = "key";
/// The column for a value without a name (a text line, a JSON scalar).
const BARE_VALUE: &str = "value";

/// Where a column's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This field of the row.
    Value(usize),
    /// This field of the key, which the row does not have.
    Key(usize),
    /// The record itself.
    Extra(Extra),
}

/// What a record tells beside its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// The letter of the operation.
    Op,
    /// The record's timestamp, milliseconds since 1970 UTC.
    Timestamp,
    /// The offset in the partition.
    Offset,
}

/// A column that records fill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutColumn {
    /// The field: the column's name, type and source type.
    pub field: Field,
    /// Where its value comes from.
    pub origin: Origin,
    /// The field of the record's key that has the same name.
    in_key: Option<usize>,
}

/// How records become rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayoutOptions {
    /// Every record is a row of its own; otherwise rows are kept equal to the source's.
    pub append: bool,
    /// The key's columns, for records that come without a key or with another.
    pub key: Vec<String>,
    /// In append mode, the column for the operation's letter.
    pub op_column: Option<String>,
    /// In append mode, the column for the record's timestamp.
    pub timestamp_column: Option<String>,
    /// In append mode, the column for the record's offset.
    pub offset_column: Option<String>,
}

/// Why records of a schema do not make rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// `key` names a field that the records do not have.
    #[error("the records have no field {0:?}, which `key` names")]
    NoSuchKey(String),
    /// Two columns of one name.
    #[error("two columns would be called {0:?}")]
    Twice(String),
    /// Neither fields nor a key.
    #[error("the records have no fields")]
    NoFields,
}

/// The columns of a schema's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In the order of the fields; extra columns last.
    pub columns: Vec<LayoutColumn>,
    /// The key's columns; empty when rows have no identity (or none is wanted: append mode).
    pub key: Vec<usize>,
    append: bool,
    /// Whether `op_column` tells deletions apart, so that append mode writes them.
    tells_op: bool,
}

impl Layout {
    /// The layout of the records of `schema`.
    ///
    /// # Errors
    /// [`LayoutError`].
    pub fn new(schema: &EventSchema, options: &LayoutOptions) -> Result<Self, LayoutError> {
        let value = schema.value();
        let key_fields = schema.key().map_or(&[][..], |key| &key.fields);
        let bare_key = schema.key().is_some_and(|key| key.is_bare());
        let mut columns: Vec<LayoutColumn> = Vec::with_capacity(value.fields.len() + 2);
        for (index, field) in value.fields.iter().enumerate() {
            let field = if value.is_bare() { renamed(field, BARE_VALUE) } else { field.clone() };
            let in_key = key_fields.iter().position(|key| key.name == field.name);
            columns.push(LayoutColumn { field, origin: Origin::Value(index), in_key });
        }
        for (index, field) in key_fields.iter().enumerate() {
            let field = match (bare_key, options.key.as_slice()) {
                (false, _) => field.clone(),
                // `key: [id]` names the column that a bare key stands for.
                (true, [name]) => renamed(field, name),
                (true, _) if value.is_bare() => renamed(field, BARE_KEY),
                (true, _) => continue,
            };
            match columns.iter_mut().find(|column| column.field.name == field.name) {
                Some(column) => column.in_key = Some(index),
                None => columns.push(LayoutColumn { field, origin: Origin::Key(index), in_key: Some(index) }),
            }
        }
        if columns.is_empty() {
            return Err(LayoutError::NoFields);
        }
        let key = key_columns(&columns, options)?;
        let mut layout = Self { columns, key, append: options.append, tells_op: false };
        layout.add_extras(options);
        layout.refuse_doubles()?;
        Ok(layout)
    }

    /// The layout of records of `schema` that have only a key, by which rows are deleted: the key's columns. `None`
    /// where rows have no identity.
    ///
    /// # Errors
    /// [`LayoutError`]: the records' key is not the rows'.
    pub fn of_key(schema: &EventSchema, options: &LayoutOptions) -> Result<Option<Self>, LayoutError> {
        let Some(row) = schema.key().filter(|_| !options.append) else { return Ok(None) };
        let mut columns: Vec<LayoutColumn> = Vec::with_capacity(row.fields.len());
        for (index, field) in row.fields.iter().enumerate() {
            let field = match (row.is_bare(), options.key.as_slice()) {
                (false, _) => field.clone(),
                (true, [name]) => renamed(field, name),
                (true, _) => renamed(field, BARE_KEY),
            };
            columns.push(LayoutColumn { field, origin: Origin::Key(index), in_key: Some(index) });
        }
        let key = key_columns(&columns, options)?;
        if key.is_empty() {
            return Ok(None);
        }
        let columns: Vec<LayoutColumn> = key.iter().map(|column| columns[*column].clone()).collect();
        let layout = Self { key: (0..columns.len()).collect(), columns, append: false, tells_op: false };
        layout.refuse_doubles()?;
        Ok(Some(layout))
    }

    fn add_extras(&mut self, options: &LayoutOptions) {
        if !options.append {
            return;
        }
        let extras = [
            (&options.op_column, Type::String, Extra::Op),
            (&options.timestamp_column, Type::Int64, Extra::Timestamp),
            (&options.offset_column, Type::Int64, Extra::Offset),
        ];
        for (name, ty, extra) in extras {
            if let Some(name) = name {
                let field = Field::nullable(name.as_str(), ty);
                self.columns.push(LayoutColumn { field, origin: Origin::Extra(extra), in_key: None });
            }
        }
        self.tells_op = options.op_column.is_some();
    }

    fn refuse_doubles(&self) -> Result<(), LayoutError> {
        for (index, column) in self.columns.iter().enumerate() {
            if self.columns[..index].iter().any(|other| other.field.name == column.field.name) {
                return Err(LayoutError::Twice(column.field.name.clone()));
            }
        }
        Ok(())
    }

    /// Whether rows have an identity.
    #[must_use]
    pub const fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }

    /// Whether every record is a row of its own.
    #[must_use]
    pub const fn is_append(&self) -> bool {
        self.append
    }

    /// Whether `column` belongs to the key.
    #[must_use]
    pub fn is_key(&self, column: usize) -> bool {
        self.key.contains(&column)
    }

    /// Whether records that have nothing but a key with the fields of `key`, which is that of this layout's records,
    /// name their rows as those do.
    #[must_use]
    pub fn is_keyed_by(&self, key: &RowSchema) -> bool {
        let is_same = |column: &usize| {
            let column = &self.columns[*column];
            let field = column.in_key.and_then(|index| key.fields.get(index));
            field.is_some_and(|field| field.ty == column.field.ty)
        };
        self.is_keyed() && self.key.iter().all(is_same)
    }

    /// What append mode does with a record: tombstones and truncations are no rows, deletions only where a column
    /// tells them apart.
    #[must_use]
    pub fn appends(&self, record: &RecordView<'_>) -> bool {
        match record.op() {
            Some(Op::Tombstone | Op::Truncate) => false,
            Some(Op::Delete) => self.tells_op,
            _ => record.after().is_some(),
        }
    }

    /// The value of `column` after the change; where the row does not tell it, the key may.
    #[must_use]
    pub fn value<'a>(&self, record: &RecordView<'a>, column: usize) -> Value<'a> {
        self.value_of(record, record.after().as_ref(), column)
    }

    /// The value of `column` in append mode: of a deletion, that of the deleted row.
    #[must_use]
    pub fn appended<'a>(&self, record: &RecordView<'a>, column: usize) -> Value<'a> {
        let row = record.after().or_else(|| record.before());
        self.value_of(record, row.as_ref(), column)
    }

    fn value_of<'a>(&self, record: &RecordView<'a>, row: Option<&Row<'a>>, column: usize) -> Value<'a> {
        let described = &self.columns[column];
        let value = match described.origin {
            Origin::Value(index) => row.map_or(Value::Absent, |row| row.get(index)),
            Origin::Key(_) => Value::Absent,
            Origin::Extra(Extra::Op) => record.op().and_then(Op::letter).map_or(Value::Null, Value::Text),
            Origin::Extra(Extra::Timestamp) => Value::Int(record.timestamp_ms()),
            Origin::Extra(Extra::Offset) => Value::Int(record.offset()),
        };
        match (value, described.in_key) {
            (Value::Absent, Some(index)) => record.key().map_or(Value::Absent, |key| key.get(index)),
            _ => value,
        }
    }

    /// The value of `column` before the change.
    #[must_use]
    pub fn before<'a>(&self, record: &RecordView<'a>, column: usize) -> Value<'a> {
        match self.columns[column].origin {
            Origin::Value(index) => record.before().map_or(Value::Absent, |row| row.get(index)),
            _ => Value::Absent,
        }
    }

    /// The value of the key's `column` that identifies the row which the record writes or deletes.
    #[must_use]
    pub fn key_value<'a>(&self, record: &RecordView<'a>, column: usize) -> Value<'a> {
        let described = &self.columns[column];
        if let (Origin::Value(index), Some(after)) = (described.origin, record.after()) {
            let value = after.get(index);
            if !matches!(value, Value::Absent) {
                return value;
            }
        }
        match (described.in_key, record.key()) {
            (Some(index), Some(key)) => key.get(index),
            _ => self.before(record, column),
        }
    }

    /// The value of the key's `column` that identifies the row which goes: a deletion's, or the one that an update
    /// gives another key.
    #[must_use]
    pub fn old_key_value<'a>(&self, record: &RecordView<'a>, column: usize) -> Value<'a> {
        if record.after().is_some() { self.before(record, column) } else { self.key_value(record, column) }
    }

    /// Appends the key's bytes; false when a part of it is missing.
    pub(crate) fn push_key(&self, record: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
        self.push_values(out, |column| self.key_value(record, column))
    }

    /// Appends the bytes of the key before the change; false when a part of it is not told.
    pub(crate) fn push_key_before(&self, record: &RecordView<'_>, out: &mut Vec<u8>) -> bool {
        self.push_values(out, |column| self.before(record, column))
    }

    fn push_values<'a>(&self, out: &mut Vec<u8>, value: impl Fn(usize) -> Value<'a>) -> bool {
        for column in &self.key {
            let (tag, bytes): (u8, &[u8]) = match value(*column) {
                Value::Null | Value::Absent => return false,
                Value::Bool(value) => (0, &[u8::from(value)]),
                Value::Int(value) => (1, &value.to_le_bytes()),
                // Both zeros are one key in every database.
                Value::Float32(value) => (2, &f64::from(value + 0.0).to_le_bytes()),
                Value::Float64(value) => (2, &(value + 0.0).to_le_bytes()),
                Value::Bytes(bytes) => (3, bytes),
                Value::Text(text) => (4, text.as_bytes()),
            };
            out.push(tag);
            out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        true
    }
}

fn renamed(field: &Field, name: &str) -> Field {
    Field { name: name.to_owned(), ..field.clone() }
}

fn key_columns(columns: &[LayoutColumn], options: &LayoutOptions) -> Result<Vec<usize>, LayoutError> {
    if options.append {
        return Ok(Vec::new());
    }
    if options.key.is_empty() {
        // In the key's order: it is the primary key's.
        let mut key: Vec<_> =
            columns.iter().enumerate().filter_map(|(at, column)| Some((column.in_key?, at))).collect();
        key.sort_unstable();
        return Ok(key.into_iter().map(|(_, at)| at).collect());
    }
    let find = |name: &String| {
        let found = columns.iter().position(|column| column.field.name == *name);
        found.ok_or_else(|| LayoutError::NoSuchKey(name.clone()))
    };
    options.key.iter().map(find).collect()
}
