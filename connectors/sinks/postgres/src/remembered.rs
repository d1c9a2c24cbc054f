//! Which column of ours holds which column of the source: a table beside the data, changed with the columns.

use towpath_api::{ColumnId, ConnectorError};
use towpath_sql::sink::{COLUMNS_TABLE, Known};
use towpath_sql::{Dialect, TableName, literal};

use super::catalog::{fetch, get};
use super::ddl;
use super::session::Session;

/// The table that remembers.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    table: TableName,
}

fn text(value: &str) -> String {
    literal(value, Dialect::Postgres)
}

impl Remembered {
    pub(crate) fn new(schema: &str) -> Self {
        Self { table: TableName::new(schema, COLUMNS_TABLE) }
    }

    /// Creates the table where it is missing.
    pub(crate) async fn ensure(&self, session: &mut Session) -> Result<(), ConnectorError> {
        let (schema, table) = (self.table.schema.as_deref().unwrap_or_default(), &self.table.table);
        if ddl::exists(session, schema, table).await? {
            return Ok(());
        }
        let quoted = self.table.quoted();
        let statements = [
            format!(
                "CREATE TABLE IF NOT EXISTS {quoted} (table_name text NOT NULL, source_table bigint NOT NULL, \
                 source_column bigint NOT NULL, column_name text NOT NULL, \
                 PRIMARY KEY (table_name, source_table, source_column))"
            ),
            format!(
                "COMMENT ON TABLE {quoted} IS 'Towpath: which column holds which of the source; part of the data'"
            ),
        ];
        ddl::locked(session, schema, "create the table of columns", &statements).await
    }

    /// What is remembered of `table`.
    pub(crate) async fn load(
        &self,
        session: &mut Session,
        table: &TableName,
    ) -> Result<Vec<Known>, ConnectorError> {
        let sql = format!(
            "SELECT source_table, source_column, column_name FROM {} WHERE table_name = $1 \
             ORDER BY source_table, source_column",
            self.table.quoted()
        );
        let rows = fetch(session, &sql, &[&table.quoted()]).await?;
        let known = |row| {
            let (table, column): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            match (u64::try_from(table), u32::try_from(column)) {
                (Ok(table), Ok(column)) => Ok(Known { id: ColumnId { table, column }, name: get(row, 2)? }),
                // R7: what cannot be read is never guessed.
                _ => Err(ConnectorError::terminal(
                    "SINK_COLUMNS",
                    format!("{} holds a column that is none", self.table),
                )),
            }
        };
        rows.iter().map(known).collect()
    }

    /// Fails as a conflict of transactions does, if `known` is not what is remembered of `table` any more.
    pub(crate) fn unchanged_sql(&self, table: &TableName, known: &[Known]) -> String {
        let row = |known: &Known| format!("{},{},{}", known.id.table, known.id.column, known.name);
        let rows: Vec<String> = known.iter().map(row).collect();
        let body = format!(
            "BEGIN IF (SELECT coalesce(string_agg(concat_ws(',', source_table, source_column, column_name), ';' \
             ORDER BY source_table, source_column), '') FROM {} WHERE table_name = {}) <> {} THEN \
             RAISE EXCEPTION 'another task changes the columns' USING ERRCODE = '40001'; END IF; END",
            self.table.quoted(),
            text(&table.quoted()),
            text(&rows.join(";"))
        );
        format!("DO {}", text(&body))
    }

    /// Remembers `known` of `table`, in place of what was.
    pub(crate) fn store_sql(&self, table: &TableName, known: &[Known]) -> Option<String> {
        let row = |known: &Known| {
            let (id, name) = (known.id, text(&known.name));
            format!("({}, {}, {}, {name})", text(&table.quoted()), id.table, id.column)
        };
        let rows: Vec<String> = known.iter().map(row).collect();
        (!rows.is_empty()).then(|| {
            format!(
                "INSERT INTO {} (table_name, source_table, source_column, column_name) VALUES {} \
                 ON CONFLICT (table_name, source_table, source_column) DO UPDATE SET column_name = EXCLUDED.column_name",
                self.table.quoted(),
                rows.join(", ")
            )
        })
    }

    /// Forgets what was remembered of a table called `table` that is not there any more.
    pub(crate) fn forget_missing_sql(&self, table: &TableName) -> String {
        let name = text(&table.quoted());
        format!(
            "DELETE FROM {} WHERE table_name = {name} AND to_regclass({name}) IS NULL",
            self.table.quoted()
        )
    }

    /// Forgets whatever is remembered of `table`.
    pub(crate) fn forget_sql(&self, table: &TableName) -> String {
        format!("DELETE FROM {} WHERE table_name = {}", self.table.quoted(), text(&table.quoted()))
    }
}
