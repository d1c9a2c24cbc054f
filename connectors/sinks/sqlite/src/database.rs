//! One connection to the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, Either, Executor, Row, SqliteConnection};
use towpath_api::ConnectorError;
use towpath_sql::sink::Fault;

use super::errors::classify;

/// Prepared statements that are kept: a few for each table and schema.
const STATEMENTS_MAX: usize = 500;

/// A connection of one task.
#[derive(Debug)]
pub(crate) struct Database {
    connection: SqliteConnection,
}

impl Database {
    /// Opens the file, and creates it with its directory where `create` says so.
    pub(crate) async fn open(
        path: &Path,
        busy_timeout: Duration,
        create: bool,
    ) -> Result<Self, ConnectorError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .busy_timeout(busy_timeout)
            // Rows are kept as the source has them, whatever order tables come in; its cascades are changes of their own.
            .foreign_keys(false)
            .statement_cache_capacity(STATEMENTS_MAX);
        let options = if create {
            // Readers go on while we write; a transaction is on disk when its commit returns (R4, R5).
            options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full)
        } else {
            options.read_only(true)
        };
        if let Some(folder) = path.parent().filter(|folder| create && !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| {
                let message = format!("the directory {} cannot be created", folder.display());
                ConnectorError::needs_operator("SQLITE_CANNOT_WRITE", message)
                    .with_path("path")
                    .with_cause(error)
            })?;
        }
        let opened = SqliteConnection::connect_with(&options).await;
        let connection =
            opened.map_err(|error| classify(&format!("open {}", path.display()), error).fatal())?;
        Ok(Self { connection })
    }

    /// Runs statements without arguments; gives how many rows each affected.
    pub(crate) async fn script(&mut self, what: &str, sql: String) -> Result<Vec<u64>, Fault> {
        let mut affected = Vec::new();
        let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(&mut self.connection);
        while let Some(item) = results.try_next().await.map_err(|error| classify(what, error))? {
            if let Either::Left(done) = item {
                affected.push(done.rows_affected());
            }
        }
        Ok(affected)
    }

    /// Runs a prepared statement; gives how many rows it affected.
    pub(crate) async fn execute(
        &mut self,
        what: &str,
        sql: &str,
        arguments: SqliteArguments,
    ) -> Result<u64, Fault> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let done = self.connection.execute(query).await.map_err(|error| classify(what, error))?;
        Ok(done.rows_affected())
    }

    /// Runs a query.
    pub(crate) async fn fetch(
        &mut self,
        what: &str,
        sql: &str,
        arguments: SqliteArguments,
    ) -> Result<Vec<SqliteRow>, ConnectorError> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        self.connection.fetch_all(query).await.map_err(|error| classify(what, error).fatal())
    }

    /// Ends the connection; the log is written back into the file.
    pub(crate) async fn close(self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "the database was not closed cleanly; nothing is lost by that");
        }
    }
}

/// A column of an answer.
pub(crate) fn get<'r, T>(row: &'r SqliteRow, column: &str) -> Result<T, ConnectorError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(|error| {
        ConnectorError::bug("SQLITE_CATALOG", "an answer of the database cannot be read").with_cause(error)
    })
}

/// The file that is meant.
pub(crate) fn resolve(base: &Path, path: &Path) -> PathBuf {
    base.join(path)
}
