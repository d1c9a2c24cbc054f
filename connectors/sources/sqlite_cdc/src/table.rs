//! A captured table: its columns as SQLite tells them, and the schema of its records.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use towpath_api::{EventSchema, Field, RowSchema, RowWriter, SourceBlock, Type};

use super::literal::{Literal, Literals, NoLiteral};

/// A column as `PRAGMA table_xinfo` tells it. Stored with the outbox, so that old outbox rows keep their meaning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    /// Place in the primary key, from 1; 0 for other columns.
    pub(crate) key: i64,
}

impl Column {
    /// The type that SQLite's rules give the declaration ("Datatypes In SQLite", §3.1), refined by its wording.
    fn ty(&self) -> Type {
        let declared = self.declared.to_ascii_uppercase();
        let has = |word: &str| declared.contains(word);
        if has("INT") {
            Type::Int64
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Type::String
        } else if has("BLOB") || declared.is_empty() {
            if declared.is_empty() { Type::String } else { Type::Bytes }
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Type::Float64
        } else if declared == "JSON" {
            Type::Json
        } else if has("DEC") || has("NUM") {
            Type::Decimal
        } else {
            // BOOLEAN, DATE, DATETIME … hold whatever the application stores there.
            Type::String
        }
    }
}

/// A table's definition at one time.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// Whether the table has a rowid.
    pub(crate) has_rowid: bool,
    pub(crate) schema: Arc<EventSchema>,
    key_columns: Vec<usize>,
}

impl Table {
    pub(crate) fn new(
        pipeline: &str,
        database: &str,
        name: &str,
        columns: Vec<Column>,
        has_rowid: bool,
    ) -> Self {
        let types: Vec<_> = columns.iter().map(Column::ty).collect();
        Self::with_types(pipeline, database, name, columns, has_rowid, &types)
    }

    fn with_types(
        pipeline: &str,
        database: &str,
        name: &str,
        columns: Vec<Column>,
        has_rowid: bool,
        types: &[Type],
    ) -> Self {
        let field = |(column, ty): (&Column, &Type)| Field {
            nullable: !column.not_null && column.key == 0,
            source_type: (!column.declared.is_empty()).then(|| format!("sqlite:{}", column.declared)),
            ..Field::required(column.name.as_str(), ty.clone())
        };
        let fields: Vec<_> = columns.iter().zip(types).map(field).collect();
        let mut key_columns: Vec<_> = (0..columns.len()).filter(|index| columns[*index].key > 0).collect();
        key_columns.sort_by_key(|index| columns[*index].key);
        let key = (!key_columns.is_empty()).then(|| {
            Arc::new(RowSchema::new(key_columns.iter().map(|index| fields[*index].clone()).collect()))
        });
        let constants = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("connector", "sqlite"),
            ("name", pipeline),
            ("db", database),
            ("table", name),
        ];
        let source = SourceBlock {
            constants: constants.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            fields: RowSchema::new(vec![
                Field::required("ts_ms", Type::Int64),
                Field::required("snapshot", Type::String),
                Field::nullable("outbox_id", Type::Int64),
            ]),
        };
        let variables = [("database", database), ("table", name)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let schema = EventSchema::new(name, Arc::new(RowSchema::new(fields)))
            .with_key(key)
            .with_source(Some(Arc::new(source)))
            .with_variables(variables.into());
        Self { name: name.to_owned(), columns, has_rowid, schema: Arc::new(schema), key_columns }
    }

    /// The names of the key's columns, in the key's order.
    pub(crate) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key_columns.iter().map(|index| self.columns[*index].name.as_str())
    }

    pub(crate) fn has_key(&self) -> bool {
        !self.key_columns.is_empty()
    }

    /// The SQL expression whose value is a row in outbox form; `row` is `NEW.`, `OLD.` or nothing.
    pub(crate) fn row_expression(&self, row: &str) -> String {
        let quoted = |column: &Column| quoted(&format!("{row}{}", towpath_sql::ident(&column.name)));
        self.columns.iter().map(quoted).collect::<Vec<_>>().join(" || ',' || ")
    }

    /// The column that does not fit `row` under the current schema, if there is one. SQLite lets any column hold any
    /// type; a column that does becomes text from then on ([`Table::widened`]).
    pub(crate) fn misfit(&self, row: &str) -> Result<Option<usize>, BadRow> {
        let mut count = 0;
        let mut misfit = None;
        for literal in Literals::of(row) {
            let literal = literal?;
            if let Some(field) = self.schema.value().fields.get(count)
                && misfit.is_none()
                && !fits(&field.ty, &literal)
            {
                misfit = Some(count);
            }
            count += 1;
        }
        if count == self.columns.len() {
            Ok(misfit)
        } else {
            Err(BadRow::Width { table: self.name.clone(), found: count, expected: self.columns.len() })
        }
    }

    /// The same table with column `index` as text.
    pub(crate) fn widened(&self, index: usize) -> Self {
        let mut types: Vec<_> = self.schema.value().fields.iter().map(|field| field.ty.clone()).collect();
        types[index] = Type::String;
        let variable = |name: &str| self.schema.variables().get(name).map_or("", String::as_str);
        let pipeline = self.schema.source().and_then(|source| {
            source.constants.iter().find(|(name, _)| name == "name").map(|(_, value)| value.as_str())
        });
        Self::with_types(
            pipeline.unwrap_or_default(),
            variable("database"),
            &self.name,
            self.columns.clone(),
            self.has_rowid,
            &types,
        )
    }

    /// Writes a row for which [`Table::misfit`] found nothing.
    pub(crate) fn write_row(&self, writer: &mut RowWriter<'_>, row: &str) -> Result<(), BadRow> {
        for (field, literal) in self.schema.value().fields.iter().zip(Literals::of(row)) {
            write(writer, &field.ty, &literal?);
        }
        Ok(())
    }

    /// Writes the key of a row.
    pub(crate) fn write_key(&self, writer: &mut RowWriter<'_>, row: &str) -> Result<(), BadRow> {
        let literals = Literals::of(row).collect::<Result<Vec<_>, _>>()?;
        for index in &self.key_columns {
            write(writer, &self.schema.value().fields[*index].ty, &literals[*index]);
        }
        Ok(())
    }

    /// Whether two rows have the same key.
    pub(crate) fn same_key(&self, a: &str, b: &str) -> Result<bool, BadRow> {
        let a = Literals::of(a).collect::<Result<Vec<_>, _>>()?;
        let b = Literals::of(b).collect::<Result<Vec<_>, _>>()?;
        Ok(self.key_columns.iter().all(|index| a.get(*index) == b.get(*index)))
    }
}

/// The SQL expression that writes a value as a literal. `quote()` ends a text at its first NUL, as `length()` and
/// `substr()` do; such a text is written as `T'` and its bytes.
pub(crate) fn quoted(value: &str) -> String {
    format!(
        "CASE WHEN typeof({value}) = 'text' AND length(CAST({value} AS BLOB)) > \
         length(CAST(substr({value}, 1, length({value})) AS BLOB)) \
         THEN 'T''' || hex({value}) || '''' ELSE quote({value}) END"
    )
}

/// A row that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRow {
    #[error(transparent)]
    Literal(#[from] NoLiteral),
    #[error("a row of `{table}` has {found} values where {expected} are expected")]
    Width { table: String, found: usize, expected: usize },
}

fn fits(ty: &Type, literal: &Literal<'_>) -> bool {
    match (ty, literal) {
        (_, Literal::Null) | (Type::String, _) => true,
        (Type::Int64 | Type::Float64 | Type::Decimal, Literal::Integer(_)) => true,
        (Type::Float64 | Type::Decimal, Literal::Real(_)) => true,
        (Type::Bytes, Literal::Blob(_)) => true,
        (Type::Json, Literal::Text(text)) => serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok(),
        _ => false,
    }
}

fn write(writer: &mut RowWriter<'_>, ty: &Type, literal: &Literal<'_>) {
    match (ty, literal) {
        (_, Literal::Null) => writer.null(),
        (Type::Int64, Literal::Integer(value)) => writer.int(*value),
        (Type::Float64, Literal::Integer(value)) => writer.float64(*value as f64),
        (Type::Float64, Literal::Real(value)) => writer.float64(*value),
        (Type::Bytes, Literal::Blob(bytes)) => writer.bytes(bytes),
        (_, Literal::Integer(value)) => writer.text(&value.to_string()),
        (Type::Decimal, Literal::Real(value)) if value.is_infinite() => {
            writer.text(if *value > 0.0 { "Infinity" } else { "-Infinity" });
        }
        (_, Literal::Real(value)) => writer.text(&value.to_string()),
        (_, Literal::Text(text)) => writer.text(text),
        // Bytes in a column of text: as SQLite itself would show them in a literal.
        (_, Literal::Blob(bytes)) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
            writer.text(&format!("X'{digits}'"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_api::{BatchBuilder, Value};

    fn table() -> Table {
        let column = |name: &str, declared: &str, key| Column {
            name: name.into(),
            declared: declared.into(),
            not_null: false,
            key,
        };
        let columns = vec![column("b", "INTEGER", 2), column("a", "TEXT", 1), column("n", "REAL", 0)];
        Table::new("p", "main", "t", columns, true)
    }

    #[test]
    fn keys_follow_the_primary_keys_order() {
        let table = table();
        assert_eq!(table.schema.key().unwrap().fields[0].name, "a");
        assert_eq!(
            table.row_expression("NEW."),
            ["NEW.\"b\"", "NEW.\"a\"", "NEW.\"n\""].map(quoted).join(" || ',' || ")
        );
        assert!(table.same_key("1,'x',2.0", "1,'x',3.0").unwrap());
        assert!(!table.same_key("1,'x',2.0", "1,'y',2.0").unwrap());
        let mut builder = BatchBuilder::new();
        let mut record = builder.record(&table.schema);
        record.try_key(|row| table.write_key(row, "7,'x',NULL")).unwrap();
        record.finish();
        let batch = builder.build();
        let key: Vec<_> = batch.record(0).key().unwrap().values().collect();
        assert_eq!(key, [Value::Text("x"), Value::Int(7)]);
    }

    #[test]
    fn a_column_that_holds_other_types_becomes_text() {
        let table = table();
        assert_eq!(table.misfit("1,'x',2.5").unwrap(), None);
        assert_eq!(table.misfit("'one','x',2.5").unwrap(), Some(0));
        assert!(matches!(table.misfit("1,'x'"), Err(BadRow::Width { found: 2, expected: 3, .. })));
        let wide = table.widened(0);
        assert_eq!(wide.misfit("'one','x',2.5").unwrap(), None);
        assert_eq!(wide.schema.value().fields[0].ty, Type::String);
        assert_ne!(wide.schema.id(), table.schema.id());
    }
}
