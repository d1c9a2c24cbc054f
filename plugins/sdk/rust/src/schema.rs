//! The shapes of records.

use std::collections::BTreeMap;
use std::rc::Rc;

/// What a value is when it is no array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it; the forms stand in plugins/wit/host.wit")]
pub enum Scalar {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
}

/// A type: a scalar, or an array of so many dimensions of it, which is carried as JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Type {
    /// The innermost element.
    pub scalar: Scalar,
    /// 0 for the scalar itself.
    pub dimensions: u8,
}

impl From<Scalar> for Type {
    fn from(scalar: Scalar) -> Self {
        Self { scalar, dimensions: 0 }
    }
}

/// What a column is known by, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ColumnId {
    /// Stands for the table.
    pub table: u64,
    /// Stands for the column in it.
    pub column: u32,
}

/// One field of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// The name.
    pub name: String,
    /// The type.
    pub ty: Type,
    /// Whether null is a value.
    pub nullable: bool,
    /// The type as the source's system writes it, with the dialect in front.
    pub source_type: Option<String>,
    /// The name before it was renamed.
    pub renamed_from: Option<String>,
    /// What rows have in it that were there before the column was added.
    pub initial: Option<String>,
    /// The column's identity.
    pub id: Option<ColumnId>,
}

impl Field {
    /// A field that can be null.
    #[must_use]
    pub fn nullable(name: &str, ty: impl Into<Type>) -> Self {
        let (source_type, renamed_from, initial, id) = (None, None, None, None);
        Self { name: name.to_owned(), ty: ty.into(), nullable: true, source_type, renamed_from, initial, id }
    }
}

/// A column that its database computes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Computed {
    /// The name.
    pub name: String,
    /// The type, with the dialect in front.
    pub source_type: String,
    /// The expression, with the dialect in front.
    pub expression: String,
}

/// Debezium's `source` block.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceBlock {
    /// Constant entries.
    pub constants: Vec<(String, String)>,
    /// Fields of each record.
    pub fields: Vec<Field>,
}

/// The schema of the records of one table, file or stream.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Schema {
    /// `public.orders`.
    pub name: String,
    /// What `{…}` stands for in templates.
    pub variables: Vec<(String, String)>,
    /// The key's fields.
    pub key: Option<Vec<Field>>,
    /// The fields of a row.
    pub value: Vec<Field>,
    /// Columns that records do not carry.
    pub computed: Vec<Computed>,
    /// The source block, if the records are change events.
    pub source: Option<SourceBlock>,
}

impl Schema {
    /// A schema of plain records.
    #[must_use]
    pub fn plain(name: &str, value: Vec<Field>) -> Self {
        let (variables, computed) = (Vec::new(), Vec::new());
        Self { name: name.to_owned(), variables, key: None, value, computed, source: None }
    }
}

/// The schemas that this instance knows by number.
#[derive(Debug, Default)]
pub struct Schemas {
    known: BTreeMap<u32, Rc<Schema>>,
    #[cfg_attr(target_arch = "wasm32", allow(dead_code, reason = "the host knows them there"))]
    defined: BTreeMap<Schema, u32>,
}

impl Schemas {
    /// The schema of a number, asked for once.
    #[cfg(target_arch = "wasm32")]
    pub fn get(&mut self, number: u32) -> Option<Rc<Schema>> {
        if let Some(schema) = self.known.get(&number) {
            return Some(Rc::clone(schema));
        }
        let schema = Rc::new(crate::bindings::schema(number)?);
        self.known.insert(number, Rc::clone(&schema));
        Some(schema)
    }

    /// The schema of a number.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn get(&mut self, number: u32) -> Option<Rc<Schema>> {
        self.known.get(&number).cloned()
    }

    /// A number for a schema; `None` when there are too many, or it is too large.
    #[cfg(target_arch = "wasm32")]
    pub fn define(&mut self, schema: Schema) -> Option<u32> {
        let number = crate::bindings::define(&schema)?;
        self.known.insert(number, Rc::new(schema));
        Some(number)
    }

    /// A number for a schema.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn define(&mut self, schema: Schema) -> Option<u32> {
        let next = u32::try_from(self.known.len()).ok()?;
        let number = *self.defined.entry(schema.clone()).or_insert(next);
        self.known.insert(number, Rc::new(schema));
        Some(number)
    }
}
