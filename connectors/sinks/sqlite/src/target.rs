//! SQLite as the target of an SQL sink's task.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;
use towpath_api::{ConnectorError, EventSchema, Rejected, TaskContext};
use towpath_sql::sink::{Fault, OFFSETS_TABLE, Owned, Planned, Step, Target, Work, fenced, topic_key};
use towpath_sql::{Dialect, literal};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::apply::Applier;
use super::config::Config;
use super::database::{Database, get};
use super::plan::{Plan, Planner};
use super::remembered;

/// A connection with everything that a task remembers.
#[derive(Debug)]
pub(crate) struct SqliteTarget {
    database: Database,
    pipeline: Arc<str>,
    planner: Planner,
}

impl SqliteTarget {
    /// Opens the file, and makes sure that there is a table for the positions.
    pub(crate) async fn open(config: Arc<Config>, context: &TaskContext) -> Result<Self, ConnectorError> {
        let mut database = Database::open(&config.path, config.busy_timeout, true).await?;
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {OFFSETS_TABLE} (pipeline TEXT NOT NULL, topic_id TEXT NOT NULL, \
             \"partition\" INTEGER NOT NULL, topic TEXT NOT NULL, next_offset INTEGER NOT NULL, \
             owner_epoch INTEGER NOT NULL, PRIMARY KEY (pipeline, topic_id, \"partition\")) WITHOUT ROWID"
        );
        database.script("create the table of positions", sql).await.map_err(Fault::fatal)?;
        remembered::ensure(&mut database).await?;
        let pipeline = Arc::clone(&context.pipeline);
        Ok(Self { database, planner: Planner::new(config, Arc::clone(&pipeline)), pipeline })
    }
}

#[async_trait]
impl Target for SqliteTarget {
    type Plan = Plan;

    async fn take(&mut self, partition: &TopicPartition, id: TopicId) -> Result<Owned, ConnectorError> {
        let key = topic_key(&partition.topic, id);
        let sql = format!(
            "INSERT INTO {OFFSETS_TABLE} (pipeline, topic_id, \"partition\", topic, next_offset, owner_epoch) \
             VALUES (?1, ?2, ?3, ?4, 0, 1) ON CONFLICT (pipeline, topic_id, \"partition\") DO UPDATE \
             SET owner_epoch = owner_epoch + 1, topic = excluded.topic RETURNING next_offset, owner_epoch"
        );
        let mut arguments = SqliteArguments::default();
        let added = arguments
            .add(&*self.pipeline)
            .and_then(|()| arguments.add(key.as_str()))
            .and_then(|()| arguments.add(partition.partition))
            .and_then(|()| arguments.add(partition.topic.as_str()));
        added.map_err(|error| {
            ConnectorError::bug("SQLITE_CLIENT", "a value cannot be passed").with_cause(error)
        })?;
        let rows = self.database.fetch("take over a partition", &sql, arguments).await?;
        let row = rows.first();
        let read = |column| row.map_or(Ok(-1), |row| get::<i64>(row, column));
        let (next_offset, owner_epoch) = (read("next_offset")?, read("owner_epoch")?);
        if next_offset < 0 {
            // R7: a position that is none stops the task.
            return Err(ConnectorError::terminal(
                "SINK_POSITION",
                format!("the position of {partition} in {OFFSETS_TABLE} cannot be read"),
            ));
        }
        let partition = partition.partition;
        Ok(Owned { topic_key: key, partition, owner_epoch, next_offset: Offset::new(next_offset) })
    }

    async fn begin(&mut self, owned: &Owned, next_offset: Offset) -> Result<(), ConnectorError> {
        let text = |value: &str| literal(value, Dialect::Sqlite);
        let sql = format!(
            "BEGIN IMMEDIATE; UPDATE {OFFSETS_TABLE} SET next_offset = {} WHERE pipeline = {} AND topic_id = {} AND \
             \"partition\" = {} AND owner_epoch = {} AND next_offset = {}",
            next_offset.get(),
            text(&self.pipeline),
            text(&owned.topic_key),
            owned.partition,
            owned.owner_epoch,
            owned.next_offset.get(),
        );
        let affected = self.database.script("begin a transaction", sql).await.map_err(Fault::fatal)?;
        if affected.last() == Some(&1) {
            return Ok(());
        }
        // R6: a fenced owner changes nothing.
        self.script("roll back", "ROLLBACK").await.map_err(Fault::fatal)?;
        Err(fenced(owned))
    }

    async fn script(&mut self, what: &str, sql: &'static str) -> Result<(), Fault> {
        self.database.script(what, sql.to_owned()).await.map(drop)
    }

    fn knows(&self, topic: &TopicName, schema: &EventSchema) -> bool {
        self.planner.knows(topic, schema)
    }

    async fn plan(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned<Plan>, ConnectorError> {
        self.planner.plan(&mut self.database, topic, schema, empties).await
    }

    async fn plan_deletions(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
    ) -> Result<Option<Planned<Plan>>, ConnectorError> {
        self.planner.plan_deletions(&mut self.database, topic, schema).await
    }

    async fn step(
        &mut self,
        work: &Work<'_, Plan>,
        step: Step,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Fault> {
        Applier { database: &mut self.database, rejected }.step(work, step).await
    }

    async fn close(self) {
        self.database.close().await;
    }
}
