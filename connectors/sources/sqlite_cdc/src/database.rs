//! The connection, and what its errors mean.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Row as _, SqliteConnection};
use towpath_api::ConnectorError;

/// How long a statement waits for another process's lock before the task is tried again.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// The code of an error that only means that another process is writing.
pub(crate) const BUSY: &str = "SQLITE_BUSY";
/// Rows that are read ahead.
const ROWS_AHEAD: usize = 16;

/// Opens an existing database.
pub(crate) async fn open(path: &Path) -> Result<SqliteConnection, ConnectorError> {
    if !path.exists() {
        return Err(ConnectorError::needs_operator(
            "SQLITE_NO_FILE",
            format!("there is no file {}", path.display()),
        )
        .with_path("path")
        .with_hint("create the database, or correct `path`; it is meant from where towpath was started"));
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROWS_AHEAD)
        .disable_statement_logging();
    options.connect().await.map_err(|error| classify(error, "the database cannot be opened"))
}

/// Closes a connection; a failure to close loses nothing.
pub(crate) async fn close(connection: SqliteConnection) {
    if let Err(error) = connection.close().await {
        tracing::debug!(%error, "an SQLite connection did not close cleanly");
    }
}

/// Runs a statement built by this crate out of quoted names and numbers.
pub(crate) async fn execute(connection: &mut SqliteConnection, sql: String) -> Result<u64, ConnectorError> {
    match sqlx::query(AssertSqlSafe(sql)).execute(connection).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(error) => Err(classify(error, "a statement failed")),
    }
}

/// As [`execute`], without waiting for another process's lock.
pub(crate) async fn execute_if_free(
    connection: &mut SqliteConnection,
    sql: String,
) -> Result<(), ConnectorError> {
    execute(connection, "PRAGMA busy_timeout = 0".to_owned()).await?;
    let outcome = execute(connection, sql).await.map(drop);
    let timeout_ms = BUSY_TIMEOUT.as_millis();
    execute(connection, format!("PRAGMA busy_timeout = {timeout_ms}")).await?;
    outcome
}

/// Gives the rows of a query to `take`, one by one, until it says that this is enough. R10: only a few rows are in
/// memory, however many there are and however large.
pub(crate) async fn each(
    connection: &mut SqliteConnection,
    sql: String,
    mut take: impl FnMut(&SqliteRow) -> Result<ControlFlow<()>, ConnectorError>,
) -> Result<(), ConnectorError> {
    let mut found = sqlx::query(AssertSqlSafe(sql)).persistent(false).fetch(connection);
    while let Some(row) = found.try_next().await.map_err(|error| classify(error, "a query failed"))? {
        if take(&row)?.is_break() {
            break;
        }
    }
    Ok(())
}

/// A text that may hold bytes which are no UTF-8: SQLite does not look.
pub(crate) fn get_text(row: &SqliteRow, index: usize) -> Result<Option<Vec<u8>>, ConnectorError> {
    get(row, index)
}

/// The rows of a query built by this crate out of quoted names and numbers.
pub(crate) async fn rows(
    connection: &mut SqliteConnection,
    sql: String,
) -> Result<Vec<SqliteRow>, ConnectorError> {
    sqlx::query(AssertSqlSafe(sql))
        .fetch_all(connection)
        .await
        .map_err(|error| classify(error, "a query failed"))
}

/// The one number of a query, 0 when there is none.
pub(crate) async fn number(connection: &mut SqliteConnection, sql: String) -> Result<i64, ConnectorError> {
    let rows = rows(connection, sql).await?;
    rows.first().map_or(Ok(0), |row| get::<Option<i64>>(row, 0).map(Option::unwrap_or_default))
}

/// Column `index` of a row.
pub(crate) fn get<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, ConnectorError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(index).map_err(|error| classify(error, "an answer of SQLite has another form than expected"))
}

/// What an error of SQLite means for the task. Codes: "Result and Error Codes" of SQLite's manual.
pub(crate) fn classify(error: sqlx::Error, what: &str) -> ConnectorError {
    let code = match &error {
        sqlx::Error::Database(error) => {
            error.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff)
        }
        _ => None,
    };
    let classified = match code {
        Some(5 | 6) => ConnectorError::retry(
            BUSY,
            format!("{what}: another process holds the database's lock"),
        )
        .with_hint(
            "a writer that keeps its transaction open blocks everybody; journal_mode=WAL helps readers",
        ),
        Some(8) => ConnectorError::needs_operator(
            "SQLITE_READ_ONLY",
            format!("{what}: the database is read-only"),
        )
        .with_hint(
            "capture needs to write triggers and an outbox: give towpath write access to file and directory",
        ),
        Some(10) => ConnectorError::needs_operator("SQLITE_IO", what),
        Some(11 | 26) => {
            ConnectorError::terminal("SQLITE_CORRUPT", format!("{what}: this is no intact SQLite database"))
        }
        Some(13) => ConnectorError::needs_operator("SQLITE_FULL", format!("{what}: the disk is full"))
            .with_hint("free some space; capture goes on by itself"),
        Some(14) => ConnectorError::needs_operator("SQLITE_CANNOT_OPEN", what)
            .with_hint("look at the permissions of the file and its directory"),
        _ => ConnectorError::retry("SQLITE_ERROR", what),
    };
    classified.with_cause(error)
}
