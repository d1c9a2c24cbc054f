//! Which column of ours holds which column of the source: a table beside the data, changed with the columns.

use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;
use towpath_api::{ColumnId, ConnectorError};
use towpath_sql::sink::{COLUMNS_TABLE, Fault, Known};
use towpath_sql::{Dialect, literal};

use super::database::{Database, get};

/// The entry that says that we created the table; no table of a source has this number.
const CREATED: i64 = -1;

/// What is remembered of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Remembered {
    pub(crate) known: Vec<Known>,
    /// Whether this sink created it.
    pub(crate) ours: bool,
}

fn text(value: &str) -> String {
    literal(value, Dialect::Sqlite)
}

/// SQLite's names are equal without regard to ASCII case.
fn key(table: &str) -> String {
    text(&table.to_ascii_lowercase())
}

/// Creates the table where it is missing.
pub(crate) async fn ensure(database: &mut Database) -> Result<(), ConnectorError> {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS {COLUMNS_TABLE} (table_name TEXT NOT NULL, source_table INTEGER NOT NULL, \
         source_column INTEGER NOT NULL, column_name TEXT NOT NULL, \
         PRIMARY KEY (table_name, source_table, source_column)) WITHOUT ROWID"
    );
    database.script("create the table of columns", sql).await.map(drop).map_err(Fault::fatal)
}

/// What is remembered of `table`.
pub(crate) async fn load(database: &mut Database, table: &str) -> Result<Remembered, ConnectorError> {
    let sql = format!(
        "SELECT source_table, source_column, column_name FROM {COLUMNS_TABLE} WHERE table_name = ?1 \
         ORDER BY source_table, source_column"
    );
    let mut arguments = SqliteArguments::default();
    arguments.add(table.to_ascii_lowercase()).map_err(|error| {
        ConnectorError::bug("SQLITE_CLIENT", "a value cannot be passed").with_cause(error)
    })?;
    let mut remembered = Remembered::default();
    for row in database.fetch("read the remembered columns", &sql, arguments).await? {
        let (table, column): (i64, i64) = (get(&row, "source_table")?, get(&row, "source_column")?);
        if table == CREATED {
            remembered.ours = true;
            continue;
        }
        let (Ok(table), Ok(column)) = (u64::try_from(table), u32::try_from(column)) else {
            // R7: what cannot be read is never guessed.
            let message = format!("{COLUMNS_TABLE} holds a column that is none");
            return Err(ConnectorError::terminal("SINK_COLUMNS", message));
        };
        let name = get(&row, "column_name")?;
        remembered.known.push(Known { id: ColumnId { table, column }, name });
    }
    Ok(remembered)
}

/// The statement that remembers `known` of `table`, in place of what was.
pub(crate) fn store(table: &str, known: &[Known]) -> Option<String> {
    let row = |known: &Known| {
        let (id, name) = (known.id, text(&known.name));
        format!("({}, {}, {}, {name})", key(table), id.table, id.column)
    };
    let rows: Vec<String> = known.iter().map(row).collect();
    (!rows.is_empty()).then(|| format!("INSERT OR REPLACE INTO {COLUMNS_TABLE} VALUES {}", rows.join(", ")))
}

/// The statement that remembers that we created `table`.
pub(crate) fn mark_created(table: &str) -> String {
    format!("INSERT OR REPLACE INTO {COLUMNS_TABLE} VALUES ({}, {CREATED}, 0, '')", key(table))
}

/// The statements that forget everything about `table`.
pub(crate) fn forget(table: &str) -> Vec<String> {
    vec![format!("DELETE FROM {COLUMNS_TABLE} WHERE table_name = {}", key(table))]
}

/// The statement that forgets the columns of `table`.
pub(crate) fn forget_columns(table: &str) -> String {
    format!("DELETE FROM {COLUMNS_TABLE} WHERE table_name = {} AND source_table <> {CREATED}", key(table))
}
