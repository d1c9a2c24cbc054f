//! The task: rows that are there first, table by table, then the outbox in its order.
//!
//! A table's rows are read in one read transaction that begins at outbox id W. Changes up to W are in those rows, and
//! the outbox's rows up to W are dropped for this table. After a crash the reading goes on behind the last stored
//! rowid in a new transaction, while W stays: rows may then be newer than W, and the changes that follow bring every
//! key to its last state. A table without a key cannot take a change twice: its copy begins again, after a truncate;
//! and so that this is known after a crash, such a copy writes nothing before its beginning is stored. So it is with a
//! table whose triggers were gone for a while (`plan`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;
use std::time::Instant;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection};
use towpath_api::{Budget, ConnectorError, Poll, Position, Source, SourceOffsets, TaskContext};

use super::capture::{Capture, Captured, Installed};
use super::copy::{Copying, Page};
use super::database::{self, each, get, get_text, number};
use super::options::{Options, Snapshot};
use super::plan::{self, Planned, Start, Step, TableOffset};
use super::records::{self, Change, Output};
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
    queue: VecDeque<Planned>,
    copying: Option<Copying>,
    /// The copy under way waits until its beginning is durable.
    intent: bool,
    /// Offsets that changed without a record.
    untold: SourceOffsets,
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
        let installed = capture.install(&mut connection, &options).await?;
        let instance = capture.instance(&mut connection).await?;
        let last_id = installed.last_id;
        let copies = stored_copies(resume)?;
        if let Some(stored) = &stored {
            check_position(stored, &instance, last_id)?;
        }
        let read_id = match &stored {
            Some(stored) => stored.id,
            None if options.snapshot == Snapshot::Never => last_id,
            // Before the first offset is stored nothing is deleted from the outbox: it can be read from its beginning.
            None => 0,
        };
        let mut task = Self {
            schema_version: 0,
            tables: HashMap::new(),
            queue: VecDeque::new(),
            copying: None,
            intent: false,
            untold: SourceOffsets::default(),
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
        task.plan_copies(&installed).await?;
        Ok(task)
    }

    /// Learns the definitions, and queues the copies that they ask for.
    async fn plan_copies(&mut self, installed: &Installed) -> Result<(), ConnectorError> {
        let captured = self.capture.captured(&mut self.connection).await?;
        self.tables.extend(captured.iter().map(|captured| (captured.epoch, captured.table.clone())));
        if self.options.snapshot == Snapshot::Never {
            return Ok(());
        }
        let mut newest: BTreeMap<&str, &Captured> = BTreeMap::new();
        for captured in &captured {
            newest.insert(&captured.table.name, captured);
        }
        for (name, captured_now) in newest {
            if !installed.present.contains(name) {
                self.forget(name);
                continue;
            }
            let copy = self.copies.get(name);
            let since = copy.map_or(i64::MAX, |copy| copy.epoch);
            let same = |captured: &&Captured| captured.table.name == name && captured.epoch > since;
            let gap = captured.iter().filter(same).any(|captured| captured.gap);
            let start = match plan::step(captured_now, copy, gap) {
                Step::None => continue,
                Step::Adopt => {
                    tracing::warn!(
                        table = name,
                        "columns changed; rows changed in that moment lack the new ones"
                    );
                    self.adopt(captured_now);
                    continue;
                }
                Step::Copy(start) => start,
            };
            if gap {
                tracing::warn!(table = name, "the capture's triggers were gone: the table is copied again");
            }
            self.queue.retain(|planned| planned.captured.table.name != name);
            let after_id = if matches!(start, Start::Rows { .. }) { installed.last_id } else { 0 };
            self.queue.push_back(Planned { captured: captured_now.clone(), start, after_id });
        }
        Ok(())
    }

    /// A table that is no longer there has nothing to copy.
    fn forget(&mut self, table: &str) {
        self.queue.retain(|planned| planned.captured.table.name != table);
        if self.copies.get(table).is_some_and(|copy| !copy.done) {
            self.copies.remove(table);
            self.untold.partitions.insert(table_partition(table), serde_json::Value::Null);
        }
    }

    /// The copy of before holds under the new definition too.
    fn adopt(&mut self, captured: &Captured) {
        if let Some(copy) = self.copies.get_mut(&captured.table.name) {
            copy.epoch = captured.epoch;
            self.untold.partitions.insert(table_partition(&captured.table.name), json!(copy));
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
        self.plan_copies(&installed).await
    }

    async fn copy_page(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        if self.intent {
            self.nap().await;
            return Ok(Some(Poll::Idle(SourceOffsets::default())));
        }
        if self.copying.is_none() {
            // What older triggers wrote comes first.
            if self.queue.front().is_none_or(|planned| planned.after_id > self.read_id) {
                return Ok(None);
            }
            let Some(planned) = self.queue.pop_front() else { return Ok(None) };
            let reader = database::open(&self.options.path).await?;
            let progress = &self.context.progress;
            let copying = Copying::start(reader, &self.capture, planned, self.read_id, progress).await?;
            let copying = self.copying.insert(copying);
            if copying.needs_intent() {
                self.intent = true;
                let (name, offset) = (copying.table().name.clone(), copying.offset(false));
                let offsets = SourceOffsets { partitions: [(table_partition(&name), json!(offset))].into() };
                self.copies.insert(name, offset);
                return Ok(Some(Poll::Idle(offsets)));
            }
        }
        let mut output = Output::default();
        let Some(copying) = &mut self.copying else { return Ok(None) };
        let page = copying.page(budget.records.min(PAGE_ROWS), budget.bytes, &mut output).await?;
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
        Ok(Some(Poll::Batch(output.finish(offsets))))
    }

    async fn stream_page(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        let sql = format!(
            "SELECT id, epoch, op, ts_ms, before, after FROM {} WHERE id > {} ORDER BY id LIMIT {}",
            self.capture.outbox(),
            self.read_id,
            budget.records.clamp(1, PAGE_ROWS)
        );
        let mut output = Output::default();
        let before = self.read_id;
        let Self { connection, tables, copies, read_id, .. } = self;
        each(connection, sql, |row| {
            let (id, epoch): (i64, i64) = (get(row, 0)?, get(row, 1)?);
            let table = tables.get_mut(&epoch).ok_or_else(|| {
                ConnectorError::terminal(
                    "SQLITE_CAPTURE_DAMAGED",
                    format!("outbox row {id} has no definition"),
                )
            })?;
            let covered = copies.get(&table.name).is_some_and(|copy| id <= copy.from);
            if !covered {
                stream_row(&mut output, table, id, row)?;
            }
            *read_id = id;
            let full = output.size_in_bytes() >= budget.bytes;
            Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .await?;
        if self.read_id == before {
            return Ok(None);
        }
        let offsets = self.stream_offsets();
        Ok(Some(Poll::Batch(output.finish(offsets))))
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
        let sql = format!("DELETE FROM {} WHERE id <= {durable}", self.capture.outbox());
        match database::execute_if_free(&mut self.connection, sql).await {
            Ok(()) => self.cleaned = (durable, Instant::now()),
            // A writer that keeps its lock does not keep us from reading: the rows go another time.
            Err(error) if error.code() == database::BUSY => {
                tracing::debug!(%error, "the outbox is not cleaned");
                self.cleaned.1 = Instant::now();
            }
            Err(error) => return Err(error),
        }
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
        if !self.untold.is_empty() {
            return Ok(Poll::Idle(std::mem::take(&mut self.untold)));
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

/// One outbox row into records, or into the rejected input.
fn stream_row(
    output: &mut Output,
    table: &mut Table,
    id: i64,
    row: &sqlx::sqlite::SqliteRow,
) -> Result<(), ConnectorError> {
    let image = |index| Ok::<_, ConnectorError>(get_text(row, index)?.map(String::from_utf8).transpose());
    let (op, before, after) = match (get::<String>(row, 2)?, image(4)?, image(5)?) {
        (op, Ok(before), Ok(after)) => (op, before, after),
        // What the row was before has gone to the dead letters already; what it is now can be told.
        (op, Err(_), Ok(after @ Some(_))) if op == "u" && table.has_key() => ("c".to_owned(), None, after),
        (_, before, after) => {
            for error in [before.err(), after.err()].into_iter().flatten() {
                output.reject(format!("outbox row {id} of table {}", table.name), error);
            }
            return Ok(());
        }
    };
    let change = Change { id, op, ts_ms: get(row, 3)?, before, after };
    records::change(&mut output.builder, table, &change).map_err(|error| {
        ConnectorError::terminal("SQLITE_OUTBOX_ROW", format!("outbox row {id} cannot be read"))
            .with_cause(error)
    })
}

/// R7: changes behind a position that the outbox does not have any more would be lost silently.
fn check_position(stored: &StreamOffset, instance: &str, last_id: i64) -> Result<(), ConnectorError> {
    if stored.instance != instance {
        return Err(lost("the outbox was dropped and made again since this pipeline last read it"));
    }
    if stored.id > last_id {
        let message = format!("position {} was stored, but the outbox ends at {last_id}", stored.id);
        return Err(lost(&format!("the database went back in time (a restored backup?): {message}")));
    }
    Ok(())
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
