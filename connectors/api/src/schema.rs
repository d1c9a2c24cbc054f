//! The shape of records: typed, named fields, and where a change event came from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The type of a field. Types marked "text" are carried as canonical text, which keeps what a database wrote
/// (precision, infinity, years beyond 9999) exactly as it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Type {
    /// True or false.
    Bool,
    /// A signed integer of 16 bits.
    Int16,
    /// A signed integer of 32 bits.
    Int32,
    /// A signed integer of 64 bits.
    Int64,
    /// IEEE 754, 32 bits; NaN and infinities are values.
    Float32,
    /// IEEE 754, 64 bits; NaN and infinities are values.
    Float64,
    /// Text: a decimal number of any precision, `NaN`, `Infinity` or `-Infinity`.
    Decimal,
    /// Text.
    String,
    /// Bytes.
    Bytes,
    /// Text: `YYYY-MM-DD`, possibly with ` BC`, or `infinity`, `-infinity`.
    Date,
    /// Text: `HH:MM:SS[.ffffff]`.
    Time,
    /// Text: `HH:MM:SS[.ffffff]` and an offset.
    TimeTz,
    /// Text: `YYYY-MM-DDTHH:MM:SS[.ffffff]`, possibly with ` BC`, or `infinity`, `-infinity`.
    Timestamp,
    /// Text: a timestamp and `Z` or an offset.
    TimestampTz,
    /// Text: an interval as its database writes it.
    Interval,
    /// Text: 8-4-4-4-12 hexadecimal digits.
    Uuid,
    /// Text: one JSON value.
    Json,
    /// Text: one JSON array whose elements are JSON forms of the element type; where the database's array has
    /// bounds of its own, a JSON string with the database's literal.
    Array(Box<Type>),
}

impl Type {
    /// Whether values are carried as text.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        !matches!(
            self,
            Self::Bool
                | Self::Int16
                | Self::Int32
                | Self::Int64
                | Self::Float32
                | Self::Float64
                | Self::Bytes
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int16 => "int16",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Decimal => "decimal",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Date => "date",
            Self::Time => "time",
            Self::TimeTz => "time_tz",
            Self::Timestamp => "timestamp",
            Self::TimestampTz => "timestamp_tz",
            Self::Interval => "interval",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Array(element) => return write!(f, "array<{element}>"),
        })
    }
}

/// What a column is known by, whatever it is called at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ColumnId {
    /// Stands for the table; one that was dropped and created again is another.
    pub table: u64,
    /// Stands for the column in it; one that was dropped and added again is another.
    pub column: u32,
}

/// One field of a row.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Field {
    /// The name as the source spells it.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub ty: Type,
    /// Whether null is a value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// The type as the source's own system writes it (`numeric(10,2)`), with the dialect in front:
    /// `postgres:numeric(10,2)`. A sink of the same dialect creates the column with it where it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// The name that the column had before it was renamed, in the first schema after the renaming: a sink renames
    /// its own column instead of adding one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// What rows have in this field that were there before the column was added (its default at that time, in its
    /// carried form, as text): a sink adds the column with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// The column's identity, where the source knows one: a sink that remembers it follows a renaming whichever
    /// schemas it has seen, and tells a column that was dropped and added again from one that stayed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ColumnId>,
}

impl Field {
    /// A field that cannot be null.
    #[must_use]
    pub fn required(name: impl Into<String>, ty: Type) -> Self {
        let name = name.into();
        Self { name, ty, nullable: false, source_type: None, renamed_from: None, initial: None, id: None }
    }

    /// A field that can be null.
    #[must_use]
    pub fn nullable(name: impl Into<String>, ty: Type) -> Self {
        Self { nullable: true, ..Self::required(name, ty) }
    }
}

/// A column that its database computes from the others of the row: records do not carry it, and a sink of the same
/// dialect may compute it as well.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Computed {
    /// The name as the source spells it.
    pub name: String,
    /// The type, as in [`Field::source_type`].
    pub source_type: String,
    /// The expression, with the dialect in front as well: `postgres:(price * amount)`.
    pub expression: String,
}

/// The fields of a row, in order. A *bare* row has exactly one field whose name is empty and stands for the value
/// itself (a text line, a JSON scalar).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RowSchema {
    /// The fields.
    pub fields: Vec<Field>,
}

impl RowSchema {
    /// A schema of these fields.
    #[must_use]
    pub const fn new(fields: Vec<Field>) -> Self {
        Self { fields }
    }

    /// A row that is one value without a name.
    #[must_use]
    pub fn bare(ty: Type) -> Self {
        Self { fields: vec![Field::nullable("", ty)] }
    }

    /// Whether this is a bare row.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        matches!(self.fields.as_slice(), [only] if only.name.is_empty())
    }

    /// The place of the field called `name`.
    #[must_use]
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }
}

/// The `source` block of Debezium's envelope: what is the same for every record of a schema, and the fields that
/// each record fills.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SourceBlock {
    /// Constant entries (`connector`, `db`, `schema`, `table` …), in the order in which they are written, first.
    pub constants: Vec<(String, String)>,
    /// Fields of each record (`ts_ms`, `snapshot`, `lsn`, `txId` …), written after the constants.
    pub fields: RowSchema,
}

/// The first 64 bits of the SHA-256 of a schema's canonical JSON: needs no coordination to assign.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub [u8; 8]);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SchemaId({self})")
    }
}

/// What a schema says, as it is stored in the schemas topic.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Body {
    name: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    variables: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Arc<RowSchema>>,
    value: Arc<RowSchema>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    computed: Vec<Computed>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<Arc<SourceBlock>>,
}

/// The schema of the records of one table, file or stream: immutable, shared, identified by its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSchema {
    body: Body,
    id: SchemaId,
}

impl EventSchema {
    /// A schema called `name` (`public.orders`, unquoted parts joined by dots) with the rows' fields.
    #[must_use]
    pub fn new(name: impl Into<String>, value: Arc<RowSchema>) -> Self {
        Self::seal(Body { name: name.into(), value, ..Body::default() })
    }

    fn seal(body: Body) -> Self {
        // Serialising maps with string keys, strings and enums into memory cannot fail.
        let canonical = serde_json::to_vec(&body).unwrap_or_default();
        let mut id = [0; 8];
        id.copy_from_slice(&Sha256::digest(&canonical)[..8]);
        Self { body, id: SchemaId(id) }
    }

    /// The same with the key's fields.
    #[must_use]
    pub fn with_key(self, key: Option<Arc<RowSchema>>) -> Self {
        Self::seal(Body { key, ..self.body })
    }

    /// The same with a source block: its records are change events.
    #[must_use]
    pub fn with_source(self, source: Option<Arc<SourceBlock>>) -> Self {
        Self::seal(Body { source, ..self.body })
    }

    /// The same with what `{name}` stands for in topic and table templates (`schema`, `table`, `database` …).
    #[must_use]
    pub fn with_variables(self, variables: BTreeMap<String, String>) -> Self {
        Self::seal(Body { variables, ..self.body })
    }

    /// The same with other value fields.
    #[must_use]
    pub fn with_value(self, value: Arc<RowSchema>) -> Self {
        Self::seal(Body { value, ..self.body })
    }

    /// The same with columns that the source computes.
    #[must_use]
    pub fn with_computed(self, computed: Vec<Computed>) -> Self {
        Self::seal(Body { computed, ..self.body })
    }

    /// Columns that the source computes, and that records do not carry.
    #[must_use]
    pub fn computed(&self) -> &[Computed] {
        &self.body.computed
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.body.name
    }

    /// What `{…}` stands for in templates.
    #[must_use]
    pub const fn variables(&self) -> &BTreeMap<String, String> {
        &self.body.variables
    }

    /// The key's fields, if records have keys.
    #[must_use]
    pub const fn key(&self) -> Option<&Arc<RowSchema>> {
        self.body.key.as_ref()
    }

    /// The fields of a row, before and after a change.
    #[must_use]
    pub const fn value(&self) -> &Arc<RowSchema> {
        &self.body.value
    }

    /// The source block, if the records are change events.
    #[must_use]
    pub const fn source(&self) -> Option<&Arc<SourceBlock>> {
        self.body.source.as_ref()
    }

    /// The identity.
    #[must_use]
    pub const fn id(&self) -> SchemaId {
        self.id
    }

    /// The form in which the schemas topic keeps it.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.body).unwrap_or_default()
    }

    /// Reads the form of [`EventSchema::to_json`].
    ///
    /// # Errors
    /// When the bytes are not such a form; a stored schema that cannot be read is never guessed (R7).
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes).map(Self::seal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> EventSchema {
        let value = RowSchema::new(vec![
            Field::required("id", Type::Int64),
            Field {
                source_type: Some("postgres:numeric(10,2)".into()),
                ..Field::nullable("price", Type::Decimal)
            },
            Field::nullable("tags", Type::Array(Box::new(Type::String))),
        ]);
        let key = RowSchema::new(vec![Field::required("id", Type::Int64)]);
        EventSchema::new("public.orders", Arc::new(value))
            .with_key(Some(Arc::new(key)))
            .with_variables([("table".to_owned(), "orders".to_owned())].into())
    }

    #[test]
    fn identity_is_the_content() {
        assert_eq!(orders().id(), orders().id());
        assert_ne!(orders().id(), orders().with_key(None).id());
        let read = EventSchema::from_json(&orders().to_json()).unwrap();
        assert_eq!(read, orders());
        assert_eq!(read.id().to_string().len(), 16);
        assert!(EventSchema::from_json(b"{}").is_err(), "a schema without fields is no schema");
    }
}
