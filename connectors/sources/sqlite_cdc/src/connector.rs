//! Checks, and the way into a task.

use std::num::NonZeroU32;

use async_trait::async_trait;
use towpath_api::{ConnectorError, Source, SourceConnector, SourceOffsets, TaskContext, TaskSpec};

use super::capture::Capture;
use super::database::{self, number, rows};
use super::options::Options;
use super::task::Task;

/// A configured `sqlite_cdc`.
#[derive(Debug)]
pub(crate) struct Connector {
    options: Options,
}

impl Connector {
    pub(crate) const fn new(options: Options) -> Self {
        Self { options }
    }

    async fn look(&self, context: &TaskContext) -> Result<Vec<String>, ConnectorError> {
        let mut connection = database::open(&self.options.path).await?;
        let mut lines = vec![format!("{} opens", self.options.path.display())];
        let capture = Capture::new(&context.pipeline);
        let tables = capture.wanted_tables(&mut connection, &self.options).await?;
        if tables.is_empty() {
            return Err(ConnectorError::needs_operator(
                "SQLITE_NO_TABLES",
                "no table of the database matches `tables`",
            )
            .with_path("tables")
            .with_hint("list the names with: sqlite3 FILE .tables"));
        }
        for table in &tables {
            let key = if table.has_key() {
                "by primary key"
            } else {
                "without a primary key: whole rows are compared"
            };
            lines.push(format!("table {}: {} columns, {key}", table.name, table.columns.len()));
        }
        let mode = rows(&mut connection, "PRAGMA journal_mode".to_owned()).await?;
        let mode: String = mode.first().map_or_else(|| Ok(String::new()), |row| database::get(row, 0))?;
        lines.push(match mode.as_str() {
            "wal" => "journal_mode is wal: reading never blocks the application".to_owned(),
            other => format!("journal_mode is {other}: the snapshot blocks writers while it reads a table"),
        });
        let writable =
            std::fs::metadata(&self.options.path).is_ok_and(|metadata| !metadata.permissions().readonly());
        if !writable {
            return Err(ConnectorError::needs_operator("SQLITE_READ_ONLY", "the database file is read-only")
                .with_path("path")
                .with_hint("capture needs to write triggers and an outbox: give towpath write access"));
        }
        number(&mut connection, "SELECT count(*) FROM sqlite_schema".to_owned()).await?;
        database::close(connection).await;
        Ok(lines)
    }
}

#[async_trait]
impl SourceConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        self.look(context).await.map_err(|error| vec![error])
    }

    async fn plan(&self, _tasks_max: NonZeroU32) -> Result<Vec<TaskSpec>, ConnectorError> {
        // One outbox has one order, and one reader.
        Ok(vec![TaskSpec::default()])
    }

    async fn open(
        &self,
        _task: TaskSpec,
        resume: SourceOffsets,
        context: TaskContext,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        Ok(Box::new(Task::open(self.options.clone(), &resume, context).await?))
    }
}
