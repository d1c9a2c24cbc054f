//! The positions: one row for each partition of a pipeline, moved in the data's own transaction.

use sqlx::Row;
use towpath_api::ConnectorError;
use towpath_sql::sink::{Fault, OFFSETS_TABLE, Owned, fenced, topic_key};
use towpath_sql::{Dialect, TableName, literal};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::ddl;
use super::session::{Session, texts};

/// How long a take-over waits for the owner before, until the status says so; it is tried again.
const TAKE_TIMEOUT: &str = "5s";

/// Says why a take-over did not get its lock, if that is what `error` is.
fn held(error: ConnectorError) -> ConnectorError {
    if error.code() != "PG_CONFLICT" {
        return error;
    }
    error.with_hint(format!(
        "another session holds the partition's row in {OFFSETS_TABLE}: a task that has not ended yet, as a rule; the \
         server ends it when it is idle for 5 minutes (pg_blocking_pids and pg_stat_activity tell who it is)"
    ))
}

/// The table of positions of one sink.
#[derive(Debug, Clone)]
pub(crate) struct Offsets {
    table: TableName,
    pipeline: String,
}

impl Offsets {
    pub(crate) fn new(schema: &str, pipeline: &str) -> Self {
        Self { table: TableName::new(schema, OFFSETS_TABLE), pipeline: pipeline.to_owned() }
    }

    /// Creates the table where it is missing.
    pub(crate) async fn ensure(&self, session: &mut Session) -> Result<(), ConnectorError> {
        let (schema, table) = (self.table.schema.as_deref().unwrap_or_default(), &self.table.table);
        if ddl::exists(session, schema, table).await? {
            return Ok(());
        }
        let columns = "pipeline text NOT NULL, topic_id text NOT NULL, \"partition\" integer NOT NULL, \
                       topic text NOT NULL, next_offset bigint NOT NULL, owner_epoch bigint NOT NULL, \
                       updated_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (pipeline, topic_id, \"partition\")";
        let quoted = self.table.quoted();
        let statements = [
            format!("CREATE TABLE IF NOT EXISTS {quoted} ({columns})"),
            format!(
                "COMMENT ON TABLE {quoted} IS 'Towpath: how far each partition has been written; part of the data'"
            ),
        ];
        ddl::locked(session, schema, "create the table of positions", &statements).await
    }

    /// Takes a partition over: older owners are fenced (R6). Gives the position, zero for a partition that this
    /// database has never seen.
    pub(crate) async fn take(
        &self,
        session: &mut Session,
        partition: &TopicPartition,
        id: TopicId,
    ) -> Result<Owned, ConnectorError> {
        let key = topic_key(&partition.topic, id);
        let sql = format!(
            "INSERT INTO {} AS o (pipeline, topic_id, \"partition\", topic, next_offset, owner_epoch) \
             VALUES ($1, $2, $3::text::integer, $4, 0, 1) ON CONFLICT (pipeline, topic_id, \"partition\") DO UPDATE \
             SET owner_epoch = o.owner_epoch + 1, topic = EXCLUDED.topic RETURNING next_offset, owner_epoch",
            self.table.quoted()
        );
        let number = partition.partition.to_string();
        let arguments = texts([&self.pipeline, &key, &number, partition.topic.as_str()].map(Some))?;
        // An owner before us may hold the row in a transaction that is still open.
        let begin = format!("BEGIN; SET LOCAL lock_timeout = '{TAKE_TIMEOUT}'");
        session.script("begin a transaction", begin).await.map_err(Fault::fatal)?;
        let taken = session.fetch("take over a partition", &sql, arguments).await;
        let rows = taken.map_err(|fault| held(fault.fatal()))?;
        session.script("commit", "COMMIT".to_owned()).await.map_err(Fault::fatal)?;
        let read = |column: usize| rows.first().and_then(|row| row.try_get::<i64, _>(column).ok());
        match (read(0), read(1)) {
            // R7: a position that is none stops the task.
            (Some(next_offset), Some(owner_epoch)) if next_offset >= 0 => Ok(Owned {
                topic_key: key,
                partition: partition.partition,
                owner_epoch,
                next_offset: Offset::new(next_offset),
            }),
            _ => Err(ConnectorError::terminal(
                "SINK_POSITION",
                format!("the position of {partition} in {} cannot be read", self.table),
            )),
        }
    }

    /// Begins a transaction and moves the position in it, if the partition is still ours and where we know it to be.
    ///
    /// R6: a fenced owner changes nothing: its transaction ends here.
    pub(crate) async fn begin(
        &self,
        session: &mut Session,
        owned: &Owned,
        next_offset: Offset,
    ) -> Result<(), ConnectorError> {
        let text = |value: &str| literal(value, Dialect::Postgres);
        let sql = format!(
            "BEGIN; UPDATE {} SET next_offset = {}, updated_at = now() WHERE pipeline = {} AND topic_id = {} AND \
             \"partition\" = {} AND owner_epoch = {} AND next_offset = {}",
            self.table.quoted(),
            next_offset.get(),
            text(&self.pipeline),
            text(&owned.topic_key),
            owned.partition,
            owned.owner_epoch,
            owned.next_offset.get(),
        );
        let affected = session.script("begin a transaction", sql).await.map_err(Fault::fatal)?;
        if affected.last() == Some(&1) {
            return Ok(());
        }
        session.script("roll back", "ROLLBACK".to_owned()).await.map_err(Fault::fatal)?;
        Err(fenced(owned))
    }
}
