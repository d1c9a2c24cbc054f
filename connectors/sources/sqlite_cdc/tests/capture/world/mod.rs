//! A real database file that another connection writes to.
#![allow(dead_code, unreachable_pub, missing_docs)] // Each test binary uses its part.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use towpath_api::{
    Budget, ConnectorError, Poll, RawConfig, Source, SourceConnector, SourceFactory as _, SourceOffsets,
    TaskContext, TaskSpec, Value,
};
use towpath_source_sqlite_cdc::SqliteCdc;

pub struct World {
    pub directory: tempfile::TempDir,
    pub application: SqliteConnection,
}

impl World {
    pub async fn new(sql: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options =
            SqliteConnectOptions::new().filename(directory.path().join("shop.db")).create_if_missing(true);
        let mut world = Self { application: options.connect().await.unwrap(), directory };
        world.run("PRAGMA journal_mode=WAL").await;
        world.run(sql).await;
        world
    }

    pub async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.application).await.unwrap();
    }

    pub fn connector(&self, more: serde_json::Value) -> Box<dyn SourceConnector> {
        connector(&self.directory.path().join("shop.db"), more)
    }

    pub async fn open(
        &self,
        resume: &SourceOffsets,
        more: serde_json::Value,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        self.open_as("p", resume, more).await
    }

    pub async fn open_as(
        &self,
        pipeline: &str,
        resume: &SourceOffsets,
        more: serde_json::Value,
    ) -> Result<Box<dyn Source>, ConnectorError> {
        self.connector(more).open(TaskSpec::default(), resume.clone(), TaskContext::new(pipeline, 0)).await
    }

    /// A statement that may fail.
    pub async fn try_run(&mut self, sql: &str) -> Result<(), String> {
        let outcome = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut self.application).await;
        outcome.map(drop).map_err(|error| error.to_string())
    }

    pub async fn count(&mut self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut self.application).await.unwrap()
    }
}

pub fn connector(path: &Path, more: serde_json::Value) -> Box<dyn SourceConnector> {
    let factory = SqliteCdc::default();
    let mut values = json!({ "path": path.to_str().unwrap(), "poll_interval": 5 });
    values.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let config = RawConfig::with_defaults(&factory.descriptor().options, values).unwrap();
    factory.parse(&config).unwrap()
}

pub const BUDGET: Budget = Budget { bytes: 1 << 20, records: 1000 };

/// What a record says, for comparing.
pub fn shown(record: towpath_api::RecordView<'_>) -> String {
    let row = |row: Option<towpath_api::Row<'_>>| {
        row.map_or("-".to_owned(), |row| {
            let value = |value| match value {
                Value::Null => "null".to_owned(),
                Value::Absent => "?".to_owned(),
                Value::Int(value) => value.to_string(),
                Value::Float64(value) => format!("{value:?}"),
                Value::Text(text) => text.to_owned(),
                Value::Bytes(bytes) => format!("{bytes:?}"),
                other => format!("{other:?}"),
            };
            row.values().map(value).collect::<Vec<_>>().join(",")
        })
    };
    let op = record.op().map_or("-", |op| op.letter().unwrap_or("tombstone"));
    format!(
        "{op} {} [{}] {} > {}",
        record.schema().name(),
        row(record.key()),
        row(record.before()),
        row(record.after())
    )
}

/// Polls and commits until the source has passed where the database stands.
pub async fn drain(source: &mut dyn Source, offsets: &mut SourceOffsets) -> Vec<String> {
    let end = source.upstream_end().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut lines = Vec::new();
    loop {
        match source.poll(BUDGET).await.unwrap() {
            Poll::Batch(batch) => {
                lines.extend(batch.batch.records().map(shown));
                offsets.merge(batch.offsets);
            }
            Poll::Idle(moved) => offsets.merge(moved),
            Poll::End => return lines,
        }
        source.commit(offsets).await.unwrap();
        if end.as_ref().is_some_and(|end| source.has_passed(offsets, end)) {
            return lines;
        }
        assert!(Instant::now() < deadline, "never idle; so far {lines:?}");
    }
}
