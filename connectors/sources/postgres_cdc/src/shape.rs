//! What a table's records look like: its event schema and how each column's text is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_api::{
    ColumnId, Computed, ConnectorError, EventSchema, Field, RowSchema, RowWriter, SourceBlock, Type,
};
use towpath_sql::TableName;

use super::cells::{Cell, Cells};
use super::config::fnv1a;
use super::values::{self, Codec};

/// The code of a value that cannot be carried: its row goes to the dead letters.
pub(crate) const UNREADABLE_VALUE: &str = "PG_VALUE";

/// A column as catalog and stream describe it together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) codec: Codec,
    /// `format_type()` of the base type.
    pub(crate) formatted: String,
    pub(crate) nullable: bool,
    pub(crate) key: bool,
    /// `attnum`, which survives a renaming; 0 where it could not be found out.
    pub(crate) number: i16,
    /// What is new against the shape before.
    pub(crate) news: News,
}

impl Column {
    /// Whether both describe the same column, whatever it was called before.
    fn is_same(&self, other: &Self) -> bool {
        let plain = |column: &Self| {
            let news = News { renamed_from: None, ..column.news.clone() };
            Self { news, ..column.clone() }
        };
        plain(self) == plain(other)
    }
}

/// What a sink must know to change its table as the source's was changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct News {
    /// The name before.
    pub(crate) renamed_from: Option<String>,
    /// What the rows have that were there before the column was added, in its carried form.
    pub(crate) initial: Option<String>,
}

/// What is the same for every table of one task.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) pipeline: Arc<str>,
    pub(crate) database: String,
    /// The server's system identifier.
    pub(crate) system: String,
}

impl Origin {
    /// What stands for the table `oid` of this database everywhere: below 2⁵³, so that every reader of JSON has it.
    fn table_id(&self, oid: u32) -> u64 {
        fnv1a(format!("{}/{}/{oid}", self.system, self.database).as_bytes()) >> 11
    }
}

/// What each record's source block says beside its constants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Provenance {
    /// Commit time; for a snapshot, the time when it was taken.
    pub(crate) ts_ms: i64,
    pub(crate) snapshot: bool,
    /// Not known for rows of a snapshot.
    pub(crate) xid: Option<u32>,
    /// Of the change itself; for a snapshot, its consistent point.
    pub(crate) lsn: u64,
    pub(crate) commit_lsn: u64,
}

impl Provenance {
    fn schema() -> RowSchema {
        RowSchema::new(vec![
            Field::required("ts_ms", Type::Int64),
            Field::required("snapshot", Type::String),
            Field::nullable("txId", Type::Int64),
            Field::required("lsn", Type::Int64),
            Field::required("commit_lsn", Type::Int64),
        ])
    }

    /// Writes the fields of [`Provenance::schema`].
    pub(crate) fn write(&self, row: &mut RowWriter<'_>) {
        row.int(self.ts_ms);
        row.text(if self.snapshot { "true" } else { "false" });
        match self.xid {
            Some(xid) => row.int(i64::from(xid)),
            None => row.null(),
        }
        row.int(self.lsn as i64);
        row.int(self.commit_lsn as i64);
    }
}

/// A table's schema and columns.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<EventSchema>,
    pub(crate) table: TableName,
    columns: Vec<Column>,
    key: Vec<usize>,
}

/// Which cells of an image mean something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Image<'a> {
    /// All of them.
    Whole,
    /// Those of the key; the others were not told.
    KeyOnly,
    /// All of them, unchanged ones to be taken from this old row.
    Over(Cells<'a>),
}

impl Shape {
    /// The shape of `table`, whose object id is `oid`.
    pub(crate) fn new(
        origin: &Origin,
        oid: u32,
        table: TableName,
        columns: Vec<Column>,
        computed: Vec<Computed>,
    ) -> Self {
        let table_id = origin.table_id(oid);
        let id = |column: &Column| {
            let column = u32::try_from(column.number).ok().filter(|number| *number > 0)?;
            Some(ColumnId { table: table_id, column })
        };
        let field = |column: &Column| Field {
            id: id(column),
            nullable: column.nullable,
            source_type: Some(towpath_sql::pg_type::source_type(&column.formatted)),
            renamed_from: column.news.renamed_from.clone(),
            initial: column.news.initial.clone(),
            ..Field::required(column.name.as_str(), column.ty.clone())
        };
        let key: Vec<usize> = (0..columns.len()).filter(|index| columns[*index].key).collect();
        let key_schema = (!key.is_empty()).then(|| {
            let plain = |column: &Column| Field {
                initial: None,
                renamed_from: None,
                id: None,
                nullable: false,
                ..field(column)
            };
            let fields = key.iter().map(|index| plain(&columns[*index]));
            Arc::new(RowSchema::new(fields.collect()))
        });
        let schema_name = table.schema.clone().unwrap_or_default();
        let constants = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("connector", "postgresql"),
            ("name", &origin.pipeline),
            ("db", &origin.database),
            ("schema", &schema_name),
            ("table", &table.table),
        ];
        let source = SourceBlock {
            constants: constants.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            fields: Provenance::schema(),
        };
        let variables: BTreeMap<String, String> =
            [("database", &origin.database), ("schema", &schema_name), ("table", &table.table)]
                .map(|(name, value)| (name.to_owned(), value.clone()))
                .into();
        let value = Arc::new(RowSchema::new(columns.iter().map(field).collect()));
        let schema = EventSchema::new(format!("{schema_name}.{}", table.table), value)
            .with_key(key_schema)
            .with_computed(computed)
            .with_source(Some(Arc::new(source)))
            .with_variables(variables);
        Self { schema: Arc::new(schema), table, columns, key }
    }

    /// Whether records have a key.
    pub(crate) const fn is_keyed(&self) -> bool {
        !self.key.is_empty()
    }

    pub(crate) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether both describe the same table with the same columns, whatever is new about them.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.table == other.table
            && self.schema.computed() == other.schema.computed()
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(|(one, other)| one.is_same(other))
    }

    /// Whether the key's cells differ. Unchanged ones do not.
    pub(crate) fn key_differs(&self, old: Cells<'_>, new: Cells<'_>) -> bool {
        self.key.iter().any(|index| match (old.get(*index), new.get(*index)) {
            (_, Cell::Unchanged) => false,
            (old, new) => old != new,
        })
    }

    /// Writes the key out of a row's cells; `fallback` has those that the row does not tell.
    pub(crate) fn write_key(
        &self,
        row: &mut RowWriter<'_>,
        cells: Cells<'_>,
        fallback: Option<Cells<'_>>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        for index in &self.key {
            let cell = match (cells.get(*index), fallback) {
                (Cell::Unchanged, Some(fallback)) => fallback.get(*index),
                (cell, _) => cell,
            };
            self.write_cell(row, *index, cell, scratch)?;
        }
        Ok(())
    }

    /// Writes an image of the row.
    pub(crate) fn write_row(
        &self,
        row: &mut RowWriter<'_>,
        cells: Cells<'_>,
        image: Image<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        for index in 0..self.columns.len() {
            let cell = match (cells.get(index), image) {
                (_, Image::KeyOnly) if !self.columns[index].key => Cell::Unchanged,
                (Cell::Unchanged, Image::Over(old)) => old.get(index),
                (cell, _) => cell,
            };
            self.write_cell(row, index, cell, scratch)?;
        }
        Ok(())
    }

    fn write_cell(
        &self,
        row: &mut RowWriter<'_>,
        index: usize,
        cell: Cell<'_>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), ConnectorError> {
        match cell {
            Cell::Null => row.null(),
            Cell::Unchanged => row.absent(),
            Cell::Text(bytes) => {
                let column = &self.columns[index];
                values::write(row, &column.codec, bytes, scratch).map_err(|cause| {
                    ConnectorError::terminal(
                        UNREADABLE_VALUE,
                        format!("a value of column {:?} of {} cannot be read", column.name, self.table),
                    )
                    .with_cause(cause)
                })?;
            }
        }
        Ok(())
    }
}
