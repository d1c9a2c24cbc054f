//! The task: rows that are there first, table by table, then the outbox in its order.
//!
//! A table's rows are read in one read transaction that begins at outbox id W. Changes up to W are in those rows, and
//! the outbox's rows up to W are dropped for this table. After a crash the reading goes on behind the last stored
//! rowid in a new transaction, while W stays: rows may then be newer than W, and the changes that follow bring every
//! key to its last state. A table without a key cannot take a change twice: its copy begins again, after a truncate;
//! and so that this is known after a crash, such a copy writes nothing before its beginning is stored.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};
use towpath_api::{
    BatchBuilder, Budget, ConnectorError, Poll, Position, Source, SourceBatch, SourceOffsets, TaskContext,
};

use super::capture::{Capture, Captured};
use super::copy::{Copying, Page};
use super::database::{self, execute, get, number, rows};
use super::options::{Options, Snapshot};
use super::records::{self, Change};
use super::table::Table;

/// The source partition of the outbox.
const STREAM: &str = "outbox";
/// Rows asked for at a time.
const PAGE_ROWS: usize = 2_000;
/// The outbox is cleaned when so many durable rows have gathered, or after [`CLEAN_AFTER`].
const CLEAN_ROWS: i64 = 5_000;
const CLEAN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// The stored offset of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StreamOffset {
    v: u8,
    instance: String,
    id: i64,
}

/// The stored offset of a table's copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableOffset {
    pub(crate) v: u8,
    /// The outbox id at which the copy began: changes up to it are in the copied rows.
    pub(crate) from: i64,
    /// Whether every row has been copied.
    pub(crate) done: bool,
    /// Where to go on: the last copied row's place, as SQL literals.
    pub(crate) after: Option<String>,
    /// How often the copy of a table without a key has begun again.
    #[serde(default)]
    pub(crate) attempt: u32,
}

/// A running task.
pub(crate) struct Task {
    connection: SqliteConnection,
    capture: Capture,
    options: Options,
    context: TaskContext,
    instance: String,
    schema_version: i64,
    /// Definitions by epoch.
    tables: HashMap<i64, Table>,
    /// What is stored for each table's copy.
    copies: BTreeMap<String, TableOffset>,
    /// Tables still to be copied.
    queue: VecDeque<Captured>,
    copying: Option<Copying>,
    /// The copy under way waits until its beginning is durable.
    intent: bool,
    /// The last outbox id that was read.
    read_id: i64,
    /// The id told in the last offsets.
    told_id: Option<i64>,
    cleaned: (i64, Instant),
}

impl Task {
    pub(crate) async fn open(
        options: Options,
        resume: &SourceOffsets,
        context: TaskContext,
    ) -> Result<Self, ConnectorError> {
        let mut connection = database::open(&options.path).await?;
        let capture = Capture::new(&context.pipeline);
        let stored = stored_stream(resume)?;
        if stored.is_some() && !capture.exists(&mut connection).await? {
            return Err(lost("the outbox that this pipeline has been reading is gone"));
        }
        capture.install(&mut connection, &options).await?;
        let instance = capture.instance(&mut connection).await?;
        let last_id = capture.last_id(&mut connection).await?;
        let copies = stored_copies(resume)?;
        if let Some(stored) = &stored {
            if stored.instance != instance {
                return Err(lost("the outbox was dropped and made again since this pipeline last read it"));
            }
            if stored.id > last_id {
                let message = format!("position {} was stored, but the outbox ends at {last_id}", stored.id);
                return Err(lost(&format!("the database went back in time (a restored backup?): {message}")));
            }
        }
        let captured = capture.captured(&mut connection).await?;
        let read_id = match &stored {
            Some(stored) => stored.id,
            None if options.snapshot == Snapshot::Never => last_id,
            // Before the first offset is stored nothing is deleted from the outbox: it can be read from its beginning.
            None => 0,
        };
        let mut task = Self {
            schema_version: 0,
            tables: captured.iter().map(|captured| (captured.epoch, captured.table.clone())).collect(),
            queue: VecDeque::new(),
            copying: None,
            intent: false,
            told_id: None,
            cleaned: (read_id, Instant::now()),
            connection,
            capture,
            options,
            context,
            instance,
            copies,
            read_id,
        };
        task.schema_version = task.current_schema_version().await?;
        task.plan_copies(captured);
        Ok(task)
    }

    /// Queues the newest definition of every table whose copy is not done.
    fn plan_copies(&mut self, captured: Vec<Captured>) {
        if self.options.snapshot == Snapshot::Never {
            return;
        }
        let mut newest: BTreeMap<String, Captured> = BTreeMap::new();
        for captured in captured {
            newest.insert(captured.table.name.clone(), captured);
        }
        for (name, captured) in newest {
            let done = self.copies.get(&name).is_some_and(|copy| copy.done);
            if !done && self.options.wants(&name) {
                self.queue.push_back(captured);
            }
        }
    }

    async fn current_schema_version(&mut self) -> Result<i64, ConnectorError> {
        number(&mut self.connection, "PRAGMA schema_version".to_owned()).await
    }

    /// Notices tables and columns that have come or gone.
    async fn follow_schema(&mut self) -> Result<(), ConnectorError> {
        let version = self.current_schema_version().await?;
        if version == self.schema_version {
            return Ok(());
        }
        let installed = self.capture.install(&mut self.connection, &self.options).await?;
        self.schema_version = self.current_schema_version().await?;
        for captured in installed.added.iter().chain(&installed.changed) {
            self.tables.insert(captured.epoch, captured.table.clone());
        }
        if self.options.snapshot == Snapshot::Never {
            return Ok(());
        }
        for captured in installed.changed {
            let table = &captured.table;
            // Rows changed between the ALTER TABLE and our new triggers were written without the new column: read
            // them again. Without a key nobody could tell which rows they replace.
            if table.has_key() {
                if let Some(copy) = self.copies.get_mut(&table.name) {
                    copy.done = false;
                    copy.after = None;
                }
                self.queue.push_back(captured);
            } else {
                tracing::warn!(table = %table.name, "columns changed; rows changed in that moment lack the new ones");
            }
        }
        self.queue.extend(installed.added);
        Ok(())
    }

    async fn copy_page(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        if self.intent {
            self.nap().await;
            return Ok(Some(Poll::Idle(SourceOffsets::default())));
        }
        if self.copying.is_none() {
            let Some(captured) = self.queue.pop_front() else { return Ok(None) };
            let resumed = self.copies.get(&captured.table.name).cloned();
            let reader = database::open(&self.options.path).await?;
            let copying =
                Copying::start(reader, &self.capture, captured.table, resumed, &self.context.progress)
                    .await?;
            let copying = self.copying.insert(copying);
            if !copying.table().has_key() {
                self.intent = true;
                let (name, offset) = (copying.table().name.clone(), copying.offset(false));
                let offsets = SourceOffsets { partitions: [(table_partition(&name), json!(offset))].into() };
                self.copies.insert(name, offset);
                return Ok(Some(Poll::Idle(offsets)));
            }
        }
        let mut builder = BatchBuilder::new();
        let Some(copying) = &mut self.copying else { return Ok(None) };
        let page = copying.page(budget.records.min(PAGE_ROWS), budget.bytes, &mut builder).await?;
        let offset = copying.offset(page == Page::Last);
        let name = copying.table().name.clone();
        if page == Page::Last {
            if let Some(copying) = self.copying.take() {
                copying.finish().await;
            }
            if self.queue.is_empty() {
                self.context.progress.clear();
            }
        }
        let offsets = SourceOffsets { partitions: [(table_partition(&name), json!(offset))].into() };
        self.copies.insert(name, offset);
        Ok(Some(Poll::Batch(SourceBatch { batch: builder.build(), offsets, ..SourceBatch::default() })))
    }

    async fn stream_page(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        let sql = format!(
            "SELECT id, epoch, op, ts_ms, before, after FROM {} WHERE id > {} ORDER BY id LIMIT {}",
            self.capture.outbox(),
            self.read_id,
            budget.records.clamp(1, PAGE_ROWS)
        );
        let found = rows(&mut self.connection, sql).await?;
        if found.is_empty() {
            return Ok(None);
        }
        let mut builder = BatchBuilder::new();
        for row in &found {
            let epoch: i64 = get(row, 1)?;
            let change = Change {
                id: get(row, 0)?,
                op: get(row, 2)?,
                ts_ms: get(row, 3)?,
                before: get(row, 4)?,
                after: get(row, 5)?,
            };
            let table = self.tables.get_mut(&epoch).ok_or_else(|| {
                ConnectorError::terminal(
                    "SQLITE_CAPTURE_DAMAGED",
                    format!("outbox row {} has no definition", change.id),
                )
            })?;
            let covered = self.copies.get(&table.name).is_some_and(|copy| change.id <= copy.from);
            if !covered {
                records::change(&mut builder, table, &change).map_err(|error| {
                    ConnectorError::terminal(
                        "SQLITE_OUTBOX_ROW",
                        format!("outbox row {} cannot be read", change.id),
                    )
                    .with_cause(error)
                })?;
            }
            self.read_id = change.id;
            if builder.size_in_bytes() >= budget.bytes {
                break;
            }
        }
        let offsets = self.stream_offsets();
        Ok(Some(Poll::Batch(SourceBatch { batch: builder.build(), offsets, ..SourceBatch::default() })))
    }

    fn stream_offsets(&mut self) -> SourceOffsets {
        self.told_id = Some(self.read_id);
        let offset = StreamOffset { v: 1, instance: self.instance.clone(), id: self.read_id };
        SourceOffsets { partitions: [(STREAM.to_owned(), json!(offset))].into() }
    }

    /// Waits a little, or until the task is to stop.
    async fn nap(&self) {
        tokio::select! {
            () = tokio::time::sleep(self.options.poll_interval) => {}
            () = self.context.stop.cancelled() => {}
        }
    }

    async fn clean(&mut self, durable: i64, force: bool) -> Result<(), ConnectorError> {
        let (cleaned, at) = self.cleaned;
        let due = durable - cleaned >= CLEAN_ROWS || at.elapsed() >= CLEAN_AFTER || force;
        if durable <= cleaned || !due {
            return Ok(());
        }
        execute(&mut self.connection, format!("DELETE FROM {} WHERE id <= {durable}", self.capture.outbox()))
            .await?;
        self.cleaned = (durable, Instant::now());
        Ok(())
    }
}

#[async_trait]
impl Source for Task {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        if self.context.stop.is_cancelled() {
            return Ok(Poll::Idle(SourceOffsets::default()));
        }
        if self.copying.is_none() && self.options.snapshot != Snapshot::Only {
            self.follow_schema().await?;
        }
        if let Some(poll) = self.copy_page(budget).await? {
            return Ok(poll);
        }
        if self.options.snapshot == Snapshot::Only {
            return Ok(Poll::End);
        }
        if let Some(poll) = self.stream_page(budget).await? {
            return Ok(poll);
        }
        if self.told_id != Some(self.read_id) {
            return Ok(Poll::Idle(self.stream_offsets()));
        }
        self.nap().await;
        Ok(Poll::Idle(SourceOffsets::default()))
    }

    async fn commit(&mut self, durable: &SourceOffsets) -> Result<(), ConnectorError> {
        if self.intent {
            let copy =
                self.copying.as_ref().map(|copying| (copying.table().name.as_str(), copying.offset(false)));
            let stored = stored_copies(durable)?;
            self.intent = !copy.is_some_and(|(name, offset)| stored.get(name) == Some(&offset));
        }
        // R4: outbox rows go only now that their records and this offset are durable.
        match stored_stream(durable)? {
            Some(stream) => self.clean(stream.id, false).await,
            None => Ok(()),
        }
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        if self.options.snapshot == Snapshot::Only {
            return Ok(None);
        }
        let id = self.capture.last_id(&mut self.connection).await?;
        Ok(Some(Position { document: json!(id), text: format!("outbox row {id}") }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let copied = self.options.snapshot == Snapshot::Never
            || (self.queue.is_empty()
                && self.copying.is_none()
                && stored_copies(durable).is_ok_and(|copies| {
                    self.copies.keys().all(|name| copies.get(name).is_some_and(|copy| copy.done))
                }));
        let streamed = stored_stream(durable).ok().flatten().map(|stream| stream.id);
        copied && streamed >= end.document.as_i64()
    }

    fn status(&self) -> String {
        match &self.copying {
            Some(copying) => format!("copying {}, {} tables to go", copying.table().name, self.queue.len()),
            None if !self.queue.is_empty() => format!("{} tables to copy", self.queue.len()),
            None => format!("streaming, outbox row {}", self.read_id),
        }
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        if let Some(copying) = self.copying.take() {
            copying.finish().await;
        }
        self.connection
            .close()
            .await
            .map_err(|error| database::classify(error, "the database could not be closed"))
    }
}

pub(crate) fn table_partition(table: &str) -> String {
    format!("table {table}")
}

fn stored_stream(offsets: &SourceOffsets) -> Result<Option<StreamOffset>, ConnectorError> {
    offsets.partitions.get(STREAM).map(|stored| decode(STREAM, stored)).transpose()
}

fn stored_copies(offsets: &SourceOffsets) -> Result<BTreeMap<String, TableOffset>, ConnectorError> {
    let tables =
        offsets.partitions.iter().filter_map(|(name, stored)| Some((name.strip_prefix("table ")?, stored)));
    tables.map(|(name, stored)| Ok((name.to_owned(), decode(name, stored)?))).collect()
}

/// R7: an offset that cannot be read stops the task; it is never taken for "none".
fn decode<T: serde::de::DeserializeOwned>(
    name: &str,
    stored: &serde_json::Value,
) -> Result<T, ConnectorError> {
    T::deserialize(stored).map_err(|error| {
        ConnectorError::terminal("SQLITE_OFFSET", format!("the stored offset of `{name}` cannot be read"))
            .with_cause(error)
    })
}

fn lost(message: &str) -> ConnectorError {
    ConnectorError::terminal("SQLITE_POSITION_LOST", message).with_hint(
        "changes may be missing: start over under another pipeline name, which copies the tables again",
    )
}
