//! The open source: from the first intent over the copy to the stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use towpath_api::{
    Batch, BatchBuilder, Budget, ConnectorError, Poll, Position, Source, SourceBatch, SourceOffsets,
    TaskContext,
};

use super::catalog::{Table, find_tables, observe};
use super::check::unfit;
use super::config::{Config, Names, SnapshotMode};
use super::evolution::is_touched;
use super::lsn::Lsn;
use super::offsets::{Offsets, STREAM, Setup, StreamDoc, System, columns_partition};
use super::session::Session;
use super::setup::ensure_publications;
use super::shape::{Origin, Provenance};
use super::slot;
use super::snapshot::{Copied, Plan, Prepare, Prepared, Progressed, Reached, Run, prepare};
use super::streaming::{Streaming, start};
use super::tracked::Look;
use super::upkeep::Upkeep;

/// How long a poll waits before it says that there is nothing.
pub(crate) const PATIENCE: Duration = Duration::from_millis(100);
/// How long it waits for what it handed out to become durable.
const DURABILITY_PAUSE: Duration = Duration::from_millis(5);
/// How often the position is stored while nothing of ours changes.
const IDLE_STORE_EVERY: Duration = Duration::from_millis(500);
/// Times in a row that a copy may be upset before somebody should look.
const UPSETS_MAX: u32 = 20;

/// What [`PostgresSource`] is made of.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) config: Arc<Config>,
    pub(crate) names: Names,
    pub(crate) context: TaskContext,
    pub(crate) origin: Origin,
    pub(crate) system: System,
    pub(crate) session: Session,
    pub(crate) tables: Vec<Table>,
    pub(crate) offsets: Offsets,
}

/// What comes after something has become durable.
#[derive(Debug)]
enum Next {
    /// Create the slot.
    Prepare,
    /// Copy.
    Copy(Plan),
    /// Stream.
    Stream,
}

#[derive(Debug)]
enum State {
    /// All documents are handed out; nothing goes on before they are durable.
    Announcing {
        next: Next,
        told: bool,
        durable: bool,
    },
    /// A task finds out what to copy, and creates the slot where there is none.
    Preparing(JoinHandle<Result<Prepared, ConnectorError>>),
    Copying(Run),
    /// A task starts the stream.
    Starting(JoinHandle<Result<Streaming, ConnectorError>>),
    Streaming(Box<Streaming>),
    /// Everything is copied, and nothing else was wanted.
    Ended,
    /// Something failed; the runtime will open us anew.
    Failed,
}

/// A task that captures one database.
#[derive(Debug)]
pub(crate) struct PostgresSource {
    opened: Opened,
    forgotten: Vec<String>,
    state: State,
    upkeep: Option<Upkeep>,
    /// What [`Source::upstream_end`] said last.
    awaited: Lsn,
    /// A look at the columns that the stream has not caught up with.
    look: Option<Look>,
    /// Everything that was done to columns before this has been told.
    looked: Lsn,
    /// Documents that must be stored before that counts.
    told: BTreeMap<String, serde_json::Value>,
    /// Whether the stream's document changed without having been handed out.
    stream_changed: bool,
    stored_idle: Instant,
    upsets: u32,
}

fn idle() -> Poll {
    Poll::Idle(SourceOffsets::default())
}

impl PostgresSource {
    pub(crate) fn new(mut opened: Opened) -> Self {
        let only = opened.config.snapshot == SnapshotMode::Only;
        let is_first = opened.offsets.stream.as_ref().is_none_or(|stream| stream.setup == Setup::Creating);
        let state = if is_first && !only {
            // The intent goes first: a slot that is found later is then known to be ours and unused.
            let intent = StreamDoc::new(&opened.system, &opened.names.slot, Setup::Creating, Lsn(0));
            opened.offsets.stream = Some(intent);
            State::Announcing { next: Next::Prepare, told: false, durable: false }
        } else {
            State::Failed
        };
        let now = Instant::now();
        let mut source = Self {
            opened,
            forgotten: Vec::new(),
            state,
            upkeep: None,
            awaited: Lsn(0),
            look: None,
            looked: Lsn(0),
            told: BTreeMap::new(),
            stream_changed: false,
            stored_idle: now.checked_sub(IDLE_STORE_EVERY).unwrap_or(now),
            upsets: 0,
        };
        if matches!(source.state, State::Failed) {
            source.state = source.preparing();
        }
        source
    }

    fn preparing(&self) -> State {
        let opened = &self.opened;
        State::Preparing(tokio::spawn(prepare(Prepare {
            session: opened.session.another(),
            config: Arc::clone(&opened.config),
            names: opened.names.clone(),
            system: opened.system.clone(),
            origin: opened.origin.clone(),
            tables: opened.tables.clone(),
            offsets: opened.offsets.clone(),
        })))
    }

    /// Takes one step. `None` means that another can be taken at once.
    async fn step(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        match &mut self.state {
            State::Announcing { told, durable, .. } => {
                if *durable {
                    self.announced(budget);
                    return Ok(None);
                }
                if std::mem::replace(told, true) {
                    sleep(DURABILITY_PAUSE).await;
                    return Ok(Some(idle()));
                }
                let mut whole = self.opened.offsets.whole()?;
                for name in &self.forgotten {
                    whole.partitions.insert(name.clone(), serde_json::Value::Null);
                }
                Ok(Some(Poll::Idle(whole)))
            }
            State::Preparing(task) => {
                let Ok(prepared) = timeout(PATIENCE, task).await else { return Ok(Some(idle())) };
                self.prepared(joined(prepared)?);
                Ok(None)
            }
            State::Copying(run) => {
                let progressed = run.next(PATIENCE).await?;
                self.copied(progressed).await
            }
            State::Starting(task) => {
                let Ok(started) = timeout(PATIENCE, task).await else { return Ok(Some(idle())) };
                let streaming = joined(started)?;
                self.state = State::Streaming(Box::new(streaming));
                self.keep_up();
                Ok(None)
            }
            State::Streaming(_) => self.stream(budget).await,
            State::Ended => Ok(Some(Poll::End)),
            State::Failed => Err(ConnectorError::bug("PG_FAILED", "the source was used after it had failed")),
        }
    }

    /// What was handed out is durable.
    fn announced(&mut self, budget: Budget) {
        let State::Announcing { next, .. } = std::mem::replace(&mut self.state, State::Failed) else {
            return;
        };
        self.forgotten.clear();
        self.state = match next {
            Next::Prepare => self.preparing(),
            Next::Stream => self.after_copy(),
            Next::Copy(plan) => {
                if let Some(stream) = &mut self.opened.offsets.stream {
                    // That they are copied anew is in their own documents now.
                    self.stream_changed = !stream.copies.is_empty();
                    stream.copies.clear();
                }
                self.opened.context.progress.expect(plan.rows);
                let session = self.opened.session.another();
                State::Copying(Run::start(plan, session, self.opened.config.snapshot_connections, budget))
            }
        };
    }

    fn prepared(&mut self, prepared: Prepared) {
        let unchanged = prepared.offsets == self.opened.offsets && prepared.forgotten.is_empty();
        self.opened.offsets = prepared.offsets;
        self.forgotten = prepared.forgotten;
        // Whatever was on its way is stored with the documents that are announced now, or replaced by them.
        self.told.clear();
        self.state = match prepared.plan {
            None if unchanged => self.after_copy(),
            None => State::Announcing { next: Next::Stream, told: false, durable: false },
            Some(plan) => State::Announcing { next: Next::Copy(plan), told: false, durable: false },
        };
    }

    fn after_copy(&self) -> State {
        let opened = &self.opened;
        if opened.config.snapshot == SnapshotMode::Only {
            return State::Ended;
        }
        State::Starting(tokio::spawn(start(
            opened.session.another(),
            opened.system.clone(),
            opened.names.clone(),
            opened.origin.clone(),
            opened.tables.clone(),
            opened.offsets.clone(),
            Arc::clone(&opened.config),
        )))
    }

    fn keep_up(&mut self) {
        let opened = &self.opened;
        let (session, config) = (opened.session.another(), Arc::clone(&opened.config));
        let (slot, tables) = (opened.names.slot.clone(), opened.tables.clone());
        self.upkeep = Some(Upkeep::start(session, config, slot, tables, self.awaited));
    }

    async fn copied(&mut self, progressed: Progressed) -> Result<Option<Poll>, ConnectorError> {
        if let Progressed::Rows { copied: Some(Copied { table, done: true, .. }), .. } = &progressed {
            let table = table.clone();
            if self.is_touched(&table).await? {
                return self.upset(&table).await;
            }
        }
        match progressed {
            Progressed::Waiting => Ok(Some(idle())),
            Progressed::Rows { batch, rejected, copied } => {
                self.opened.context.progress.advance(batch.len() as u64);
                let offsets = match copied {
                    Some(copied) => self.note(copied)?,
                    None => self.opened.offsets.emptied()?,
                };
                Ok(Some(if batch.is_empty() && rejected.is_empty() {
                    Poll::Idle(offsets)
                } else {
                    Poll::Batch(SourceBatch { batch, offsets, rejected })
                }))
            }
            Progressed::Changed(table) => self.upset(&table).await,
            Progressed::Finished => {
                self.opened.context.progress.clear();
                if let State::Copying(run) = std::mem::replace(&mut self.state, State::Failed) {
                    run.close().await;
                }
                self.state = self.after_copy();
                Ok(None)
            }
        }
    }

    /// A table was changed while it was copied.
    async fn upset(&mut self, table: &str) -> Result<Option<Poll>, ConnectorError> {
        tracing::warn!(%table, "a table was changed while it was copied; its copy is planned again");
        self.upsets += 1;
        if self.upsets > UPSETS_MAX {
            return Err(ConnectorError::needs_operator(
                "PG_TABLE_CHANGES",
                format!("{table} is rewritten again and again while it is copied"),
            ));
        }
        self.replan().await?;
        Ok(None)
    }

    /// Whether columns of the table or partition `leaf` got other names while it was copied: then what was read under
    /// a name may be another column's.
    async fn is_touched(&mut self, leaf: &str) -> Result<bool, ConnectorError> {
        let opened = &mut self.opened;
        let is_of = |table: &&Table| table.leaves.iter().any(|known| known.name.to_string() == leaf);
        let Some(table) = opened.tables.iter().find(is_of) else { return Ok(false) };
        let Some(doc) = opened.offsets.shapes.get(&table.name.to_string()) else { return Ok(false) };
        let observed = observe(&mut opened.session, &[table]).await?;
        Ok(observed.get(&table.oid).is_none_or(|now| is_touched(&doc.columns, &doc.seen, now)))
    }

    /// Notes how far a table's copy has come.
    fn note(&mut self, copied: Copied) -> Result<SourceOffsets, ConnectorError> {
        let Copied { table, chunk, done } = copied;
        if let Some(doc) = self.opened.offsets.tables.get_mut(&table) {
            match chunk {
                Some(Reached::End(chunk)) => {
                    self.upsets = 0;
                    doc.add(chunk);
                }
                Some(Reached::Row(chunk, row)) => doc.begin(chunk, row),
                None => {}
            }
            doc.done = done;
            if done {
                doc.chunks.clear();
            }
        }
        let mut update = self.opened.offsets.table_update(&table)?;
        if std::mem::take(&mut self.stream_changed) {
            update.merge(self.opened.offsets.stream_update()?);
        }
        Ok(update)
    }

    /// Looks for the tables again and copies what is not copied.
    async fn replan(&mut self) -> Result<(), ConnectorError> {
        self.leave().await;
        let opened = &mut self.opened;
        opened.context.progress.clear();
        let mut found = find_tables(&mut opened.session, &opened.config.selection).await?;
        let is_captured = |table: &Table| opened.tables.iter().any(|known| known.oid == table.oid);
        if let Some(error) = found.tables.iter().filter(|table| is_captured(table)).find_map(unfit) {
            // Left out of the publication, its changes would be gone for good; a new partition may have made it so.
            return Err(error);
        }
        // One that appeared since must not stop the others.
        found.tables.retain(|table| unfit(table).is_none());
        opened.tables = found.tables;
        if opened.config.snapshot != SnapshotMode::Only {
            ensure_publications(&mut opened.session, &opened.names, &opened.tables).await?;
        }
        self.state = self.preparing();
        Ok(())
    }

    /// Ends whatever runs.
    async fn leave(&mut self) {
        self.upkeep = None;
        self.look = None;
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Preparing(task) => task.abort(),
            State::Starting(task) => task.abort(),
            State::Copying(run) => run.close().await,
            State::Streaming(streaming) => streaming.feed.close().await,
            State::Announcing { .. } | State::Ended | State::Failed => {}
        }
    }

    async fn stream(&mut self, budget: Budget) -> Result<Option<Poll>, ConnectorError> {
        let State::Streaming(streaming) = &mut self.state else { return Ok(None) };
        let seen = self.upkeep.as_ref().map(|upkeep| Arc::clone(&upkeep.seen));
        let tables_changed = seen.as_ref().is_some_and(|seen| seen.tables_changed.load(Ordering::Acquire));
        let copies = !streaming.columns.copies().is_empty();
        if (tables_changed || copies) && streaming.records.is_between_transactions() {
            tracing::info!("tables are to be copied; then the stream goes on");
            self.replan().await?;
            return Ok(None);
        }
        if self.look.is_none() {
            self.look = seen.and_then(|seen| seen.look.lock().take());
        }
        let position = streaming.records.position().0;
        let is_due = |look: &mut Look| position >= look.reached;
        if streaming.records.is_between_transactions()
            && let Some(look) = self.look.take_if(is_due)
        {
            return self.compare(look).await;
        }
        let (opened, awaited) = (&mut self.opened, self.awaited);
        let urgent = |end_lsn: Lsn, stored: Lsn| stored < awaited && end_lsn >= awaited;
        let stored = opened.offsets.stream.as_ref().map(|stream| stream.end_lsn).unwrap_or_default();
        let batch = streaming
            .poll(budget, &mut opened.session, &opened.origin, &opened.context.stop, |end| {
                urgent(end, stored)
            })
            .await?;
        let rejected = streaming.records.take_rejected();
        let is_empty = batch.is_empty() && rejected.is_empty();
        let end_lsn = streaming.records.position().0;
        let is_due = !is_empty || urgent(end_lsn, stored) || self.stored_idle.elapsed() >= IDLE_STORE_EVERY;
        let offsets = self.moved(&batch, is_due)?;
        if is_empty {
            return Ok(Some(Poll::Idle(offsets)));
        }
        if let Some(upkeep) = &self.upkeep {
            upkeep.seen.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        Ok(Some(Poll::Batch(SourceBatch { batch, offsets, rejected })))
    }

    /// What is to be stored after `batch`; the position where it `is_due`.
    fn moved(&mut self, batch: &Batch, is_due: bool) -> Result<SourceOffsets, ConnectorError> {
        let State::Streaming(streaming) = &mut self.state else { return Ok(SourceOffsets::default()) };
        let offsets = &mut self.opened.offsets;
        let mut update = SourceOffsets::default();
        let Some(stream) = &mut offsets.stream else { return Ok(update) };
        let (end_lsn, transaction) = streaming.records.position();
        let moved = stream.end_lsn != end_lsn || stream.transaction != transaction;
        // That a table is to be copied anew is stored with the first position that passes changes of it.
        let copies = streaming.columns.copies();
        let is_new = |name: &String| !stream.copies.contains_key(name);
        let found: Vec<_> = copies.iter().filter(|(name, _)| is_new(name)).collect();
        if moved && is_due || !found.is_empty() || self.stream_changed {
            stream.copies.extend(found.into_iter().map(|(name, why)| (name.clone(), why.clone())));
            stream.end_lsn = end_lsn;
            stream.transaction = transaction;
            self.stream_changed = false;
            self.stored_idle = Instant::now();
            update = offsets.stream_update()?;
        }
        for (name, doc) in streaming.columns.take_changed(batch) {
            offsets.shapes.insert(name.clone(), doc);
            let shape = offsets.shape_update(&name)?;
            let partition = columns_partition(&name);
            if let (Some(told), Some(document)) =
                (self.told.get_mut(&partition), shape.partitions.get(&partition))
            {
                told.clone_from(document);
            }
            update.merge(shape);
        }
        Ok(update)
    }

    /// Tells what happened to columns without a change of a row, as far as the stream has caught up with `look`.
    async fn compare(&mut self, look: Look) -> Result<Option<Poll>, ConnectorError> {
        let State::Streaming(streaming) = &mut self.state else { return Ok(None) };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let provenance = Provenance {
            ts_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            snapshot: false,
            xid: None,
            lsn: look.reached.0,
            commit_lsn: look.reached.0,
        };
        let covers = look.covers;
        let mut builder = BatchBuilder::new();
        let opened = &mut self.opened;
        let compared = streaming
            .columns
            .compare(&mut opened.session, &opened.origin, look, &mut builder, provenance)
            .await?;
        for oid in compared.left_out {
            streaming.records.leave_out(oid);
        }
        let batch = builder.build();
        let mut offsets = self.moved(&batch, false)?;
        let is_column = |name: &&String| name.starts_with(&columns_partition(""));
        for name in offsets.partitions.keys().filter(is_column) {
            self.told.insert(name.clone(), offsets.partitions[name].clone());
        }
        if compared.all {
            self.looked = self.looked.max(covers);
        } else if let Some(upkeep) = &self.upkeep {
            upkeep.look(self.awaited);
        }
        if !batch.is_empty() {
            return Ok(Some(Poll::Batch(SourceBatch { batch, offsets, rejected: Vec::new() })));
        }
        // Somebody may wait for the look alone.
        offsets.merge(self.opened.offsets.stream_update()?);
        Ok(Some(Poll::Idle(offsets)))
    }
}

/// Without [`Source::close`] nothing goes on in the background, either.
impl Drop for PostgresSource {
    fn drop(&mut self) {
        match &self.state {
            State::Preparing(task) => task.abort(),
            State::Starting(task) => task.abort(),
            _ => {}
        }
    }
}

fn joined<T>(ended: Result<Result<T, ConnectorError>, tokio::task::JoinError>) -> Result<T, ConnectorError> {
    ended.unwrap_or_else(|cause| {
        Err(ConnectorError::bug("PG_TASK", "a task of the source ended unexpectedly").with_cause(cause))
    })
}

/// The end LSN in a stored stream document.
fn end_lsn_of(offsets: &SourceOffsets) -> Option<Lsn> {
    offsets.partitions.get(STREAM)?.get("end_lsn")?.as_str()?.parse().ok()
}

#[async_trait]
impl Source for PostgresSource {
    async fn poll(&mut self, budget: Budget) -> Result<Poll, ConnectorError> {
        loop {
            if self.opened.context.stop.is_cancelled() {
                return Ok(idle());
            }
            match self.step(budget).await {
                Ok(Some(poll)) => return Ok(poll),
                Ok(None) => {}
                Err(error) => {
                    self.leave().await;
                    return Err(error);
                }
            }
        }
    }

    async fn commit(&mut self, durable: &SourceOffsets) -> Result<(), ConnectorError> {
        match &mut self.state {
            State::Announcing { told: true, durable: is_durable, .. } => {
                let announced = self.opened.offsets.whole()?;
                *is_durable = announced
                    .partitions
                    .iter()
                    .all(|(name, document)| durable.partitions.get(name) == Some(document));
            }
            State::Streaming(streaming) => {
                self.told.retain(|name, document| durable.partitions.get(name) != Some(document));
                // R4: what is durable here may be forgotten there.
                if let Some(end_lsn) = end_lsn_of(durable) {
                    streaming.feed.flush(end_lsn);
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn upstream_end(&mut self) -> Result<Option<Position>, ConnectorError> {
        if self.opened.config.snapshot == SnapshotMode::Only {
            return Ok(None);
        }
        let end = slot::upstream_end(&mut self.opened.session).await?;
        self.awaited = self.awaited.max(end);
        if let Some(upkeep) = self.upkeep.as_ref().filter(|_| self.looked < self.awaited) {
            upkeep.look(self.awaited);
        }
        let text = end.to_string();
        Ok(Some(Position { document: serde_json::Value::String(text.clone()), text }))
    }

    fn has_passed(&self, durable: &SourceOffsets, end: &Position) -> bool {
        let Ok(stored) = Offsets::read(durable) else { return false };
        let end: Option<Lsn> = end.document.as_str().and_then(|text| text.parse().ok());
        let streamed = match (&stored.stream, end) {
            (Some(stream), Some(end)) => stream.setup == Setup::Ready && stream.end_lsn >= end,
            _ => false,
        };
        // Columns that changed with no row after them have been told, too.
        let looked = end.is_some_and(|end| self.looked >= end)
            && matches!(self.state, State::Streaming(_))
            && self.opened.offsets.stream.as_ref().is_some_and(|stream| stream.copies.is_empty())
            && self.told.iter().all(|(name, document)| durable.partitions.get(name) == Some(document));
        let leaves = self.opened.tables.iter().flat_map(|table| &table.leaves);
        let copied = |name: String| stored.tables.get(&name).is_some_and(|doc| doc.done);
        streamed && looked && leaves.map(|leaf| leaf.name.to_string()).all(copied)
    }

    fn status(&self) -> String {
        let text = match &self.state {
            State::Announcing { next: Next::Prepare, .. } => "setting up".to_owned(),
            State::Announcing { .. } => "waiting for stored offsets".to_owned(),
            State::Preparing(_) => {
                "waiting for a snapshot (transactions that are running must end)".to_owned()
            }
            State::Copying(run) => {
                let (done, all) = run.tables();
                format!("snapshot {done} of {all} tables")
            }
            State::Starting(_) => "starting the stream".to_owned(),
            State::Streaming(streaming) => {
                let (at, received) = (streaming.records.position().0, streaming.feed.received());
                let behind = received.0.saturating_sub(at.0);
                if behind == 0 {
                    format!("streaming at {at}")
                } else {
                    format!("streaming at {at}, {behind} bytes behind")
                }
            }
            State::Ended => "ended".to_owned(),
            State::Failed => "failed".to_owned(),
        };
        let held = self.upkeep.as_ref().map_or(0, |upkeep| upkeep.seen.held_bytes.load(Ordering::Relaxed));
        if held == 0 { text } else { format!("{text}; ALARM: the slot holds back {held} bytes of log") }
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        self.leave().await;
        self.opened.session.close().await;
        Ok(())
    }
}
