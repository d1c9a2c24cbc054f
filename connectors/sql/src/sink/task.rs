//! An SQL sink's task, whatever its dialect: positions, transactions, and the search for records that the database
//! refuses. A [`Target`] does the talking.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{
    Batch, ConnectorError, Durability, EventSchema, Op, RecordView, Rejected, Sink, SinkBatch, Written,
};
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

use super::layout::Layout;
use super::steps::{Refusal, Step, deletes_by_key, plan_steps};
use crate::name::TableName;

/// The name of the table that holds the positions.
pub const OFFSETS_TABLE: &str = "towpath_sink_offsets";

/// Why a statement did not do its work.
#[derive(Debug)]
pub enum Fault {
    /// The database refused a value: some record is at fault. The error is that record's, once it is found.
    Data(ConnectorError),
    /// Everything else.
    Fatal(ConnectorError),
}

impl From<ConnectorError> for Fault {
    fn from(error: ConnectorError) -> Self {
        Self::Fatal(error)
    }
}

impl Fault {
    /// For statements that carry no records.
    #[must_use]
    pub fn fatal(self) -> ConnectorError {
        match self {
            Self::Fatal(error) | Self::Data(error) => error,
        }
    }
}

/// A partition that this task owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// What the position is found by; see [`topic_key`].
    pub topic_key: String,
    /// The partition's number.
    pub partition: i32,
    /// This task's fence (R6).
    pub owner_epoch: i64,
    /// The next offset that the database wants.
    pub next_offset: Offset,
}

/// What stands for a topic beside its position: its id, since a topic that was deleted and created again is another
/// one. Clusters without topic ids give zero; there, the name has to do.
#[must_use]
pub fn topic_key(topic: &TopicName, id: TopicId) -> String {
    if id.is_zero() { format!("name:{topic}") } else { id.to_string() }
}

/// Another task has taken the partition over.
#[must_use]
pub fn fenced(owned: &Owned) -> ConnectorError {
    let partition = owned.partition;
    ConnectorError::retry(
        "SINK_FENCED",
        format!("another task has taken over partition {partition}, or its position in {OFFSETS_TABLE} was changed"),
    )
    .with_hint("nothing was written; the task opens again and reads the position that counts")
}

/// An error that is told for many records.
#[derive(Debug)]
pub struct RecordRefusal {
    code: &'static str,
    message: String,
    hint: &'static str,
}

impl RecordRefusal {
    /// A refusal.
    #[must_use]
    pub fn new(code: &'static str, message: impl ToString, hint: &'static str) -> Self {
        Self { code, message: message.to_string(), hint }
    }

    /// The error for one of the records.
    #[must_use]
    pub fn error(&self) -> ConnectorError {
        ConnectorError::terminal(self.code, self.message.clone()).with_hint(self.hint)
    }
}

/// What is decided once for each topic and schema.
pub trait Plan: std::fmt::Debug + Send + Sync + 'static {
    /// The columns.
    fn layout(&self) -> &Layout;
    /// The table.
    fn table(&self) -> &TableName;
}

/// A schema's plan, or why its records have none.
#[derive(Debug)]
pub enum Planned<P> {
    /// How they are written.
    Plan(Arc<P>),
    /// Each of them goes to the dead-letter topic.
    Refused(Arc<RecordRefusal>),
}

impl<P> Clone for Planned<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Plan(plan) => Self::Plan(Arc::clone(plan)),
            Self::Refused(refusal) => Self::Refused(Arc::clone(refusal)),
        }
    }
}

/// A batch with the plan of each record.
#[derive(Debug)]
pub struct Work<'a, P> {
    /// The records.
    pub batch: &'a Batch,
    /// The plans; steps name them by their place here.
    pub plans: Vec<Arc<P>>,
    /// Table and plan of each record; `None` for what is not written.
    places: Vec<Option<(usize, usize)>>,
}

/// A database that an SQL sink writes to. After an error it is dropped, with whatever was open on its connection.
#[async_trait]
pub trait Target: std::fmt::Debug + Send + 'static {
    /// Its plans.
    type Plan: Plan;

    /// Takes a partition over: older owners are fenced (R6). The position is zero for one never seen.
    async fn take(&mut self, partition: &TopicPartition, id: TopicId) -> Result<Owned, ConnectorError>;

    /// Begins a transaction and moves the position in it; [`fenced`] if the partition is no longer ours or not where
    /// we know it to be (R6).
    async fn begin(&mut self, owned: &Owned, next_offset: Offset) -> Result<(), ConnectorError>;

    /// Runs statements that carry no records: `COMMIT`, `ROLLBACK`, savepoints.
    async fn script(&mut self, what: &str, sql: &'static str) -> Result<(), Fault>;

    /// Called in a transaction in which records at fault are searched for: constraints speak up at once from here.
    async fn begin_search(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Whether there is a plan for the records of `schema` in `topic`.
    fn knows(&self, topic: &TopicName, schema: &EventSchema) -> bool;

    /// The plan for the records of `schema` in `topic`; creates and adapts the table when it is new. `empties` says that
    /// the first of them empties the table, so that nothing that is there has to survive.
    async fn plan(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned<Self::Plan>, ConnectorError>;

    /// The plan for records of `schema` in `topic` that have only a key, whose row goes. Neither creates nor adapts a
    /// table: `None` where no table has rows that such a key tells apart, so that there is nothing to delete.
    async fn plan_deletions(
        &mut self,
        topic: &TopicName,
        schema: &EventSchema,
    ) -> Result<Option<Planned<Self::Plan>>, ConnectorError>;

    /// Takes a step. Records that are known to be unwritable go to `rejected`.
    async fn step(
        &mut self,
        work: &Work<'_, Self::Plan>,
        step: Step,
        rejected: &mut Vec<Rejected>,
    ) -> Result<(), Fault>;

    /// Ends the connection.
    async fn close(self);
}

/// A task's sink over a target.
#[derive(Debug)]
pub struct SqlTask<T> {
    /// `None` after an error.
    target: Option<T>,
    owned: HashMap<TopicPartition, Owned>,
}

impl<T: Target> SqlTask<T> {
    /// A task without partitions.
    #[must_use]
    pub fn new(target: T) -> Self {
        Self { target: Some(target), owned: HashMap::new() }
    }

    /// The target; it is put back when nothing failed.
    fn target(&mut self) -> Result<T, ConnectorError> {
        self.target.take().ok_or_else(|| {
            ConnectorError::retry(
                "SINK_BROKEN",
                "the task ended with an error before, and has to be opened again",
            )
        })
    }

    fn owner(&self, batch: &SinkBatch) -> Result<&Owned, ConnectorError> {
        self.owned.get(batch.partition.as_ref()).ok_or_else(|| {
            ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{} is not this task's", batch.partition))
        })
    }
}

/// Whether a record says nothing to us. A tombstone without a key tells of the table's columns, which changed with no
/// row; one that stands for a deletion is not silent (see [`deletes_by_key`]).
fn is_silent(record: &RecordView<'_>) -> bool {
    let tells_columns = || record.schema().value().fields.iter().any(|field| field.id.is_some());
    record.op() == Some(Op::Tombstone)
        && !deletes_by_key(record)
        && (record.key().is_some() || !tells_columns())
}

/// Where the records from `from` on must be cut: before the first of a schema that was not seen yet, since its plan can
/// change the table (add, rename or widen columns) on which the records before it rely.
fn segment_end<T: Target>(target: &T, batch: &SinkBatch, from: usize) -> usize {
    let (topic, records) = (&batch.partition.topic, &batch.batch);
    let mut last: Option<&Arc<EventSchema>> = None;
    for index in from..records.len() {
        let record = records.record(index);
        let schema = record.schema();
        // A deletion by the key alone changes no table.
        let changes_nothing = is_silent(&record) || deletes_by_key(&record);
        if changes_nothing || last.is_some_and(|last| Arc::ptr_eq(last, schema)) {
            continue;
        }
        if last.is_some_and(|last| last.id() != schema.id()) && !target.knows(topic, schema) {
            return index;
        }
        last = Some(schema);
    }
    records.len()
}

/// A run of records of one schema, and how they are written; `None` for what is not.
struct Run<'a, P> {
    schema: &'a Arc<EventSchema>,
    planned: Option<Planned<P>>,
    /// The numbers of table and plan.
    place: Option<(usize, usize)>,
}

impl<'a, P: Plan> Run<'a, P> {
    fn new(
        schema: &'a Arc<EventSchema>,
        planned: Option<Planned<P>>,
        tables: &mut Vec<Arc<P>>,
        plans: &mut Vec<Arc<P>>,
    ) -> Self {
        let place = match &planned {
            Some(Planned::Plan(plan)) => Some((
                number(tables, plan, |known| known.table() == plan.table()),
                number(plans, plan, |known| Arc::ptr_eq(known, plan)),
            )),
            Some(Planned::Refused(_)) | None => None,
        };
        Self { schema, planned, place }
    }

    fn is_of(&self, schema: &Arc<EventSchema>) -> bool {
        Arc::ptr_eq(self.schema, schema)
    }

    /// Whether a record of `schema` that has only its key can be written as those of this run are: one fold may then
    /// hold both.
    fn takes_deletions_of(&self, schema: &EventSchema) -> bool {
        let Some(Planned::Plan(plan)) = &self.planned else { return false };
        self.schema.key() == schema.key() && schema.key().is_some_and(|key| plan.layout().is_keyed_by(key))
    }
}

/// Finds the plan of each record of `range`.
async fn place<'a, T: Target>(
    target: &mut T,
    batch: &'a SinkBatch,
    range: Range<usize>,
    rejected: &mut Vec<Rejected>,
) -> Result<Work<'a, T::Plan>, ConnectorError> {
    let (topic, places) = (&batch.partition.topic, vec![None; batch.batch.len()]);
    let mut work = Work { batch: &batch.batch, places, plans: Vec::new() };
    let mut tables: Vec<Arc<T::Plan>> = Vec::new();
    // Records of one schema come in runs.
    let mut rows: Option<Run<'_, T::Plan>> = None;
    let mut deletions: Option<Run<'_, T::Plan>> = None;
    for index in range {
        let record = batch.batch.record(index);
        let schema = record.schema();
        if is_silent(&record) {
            continue;
        }
        let deletes = deletes_by_key(&record);
        let run = if deletes && !rows.as_ref().is_some_and(|run| run.takes_deletions_of(schema)) {
            if !deletions.as_ref().is_some_and(|run| run.is_of(schema)) {
                let planned = target.plan_deletions(topic, schema).await?;
                deletions = Some(Run::new(schema, planned, &mut tables, &mut work.plans));
            }
            &deletions
        } else {
            if !deletes && !rows.as_ref().is_some_and(|run| run.is_of(schema)) {
                let empties = record.op() == Some(Op::Truncate);
                let planned = target.plan(topic, schema, empties).await?;
                rows = Some(Run::new(schema, Some(planned), &mut tables, &mut work.plans));
                // There may be a table now.
                deletions = None;
            }
            &rows
        };
        let Some(run) = run else { continue };
        match &run.planned {
            Some(Planned::Refused(refusal)) => rejected.push(Rejected { index, error: refusal.error() }),
            Some(Planned::Plan(_)) | None => work.places[index] = run.place,
        }
    }
    Ok(work)
}

/// The place of `plan` in `known`, where it is put if it is new.
fn number<P>(known: &mut Vec<Arc<P>>, plan: &Arc<P>, same: impl Fn(&Arc<P>) -> bool) -> usize {
    known.iter().position(same).unwrap_or_else(|| {
        known.push(Arc::clone(plan));
        known.len() - 1
    })
}

/// Writes the records `range` inside an open transaction.
async fn apply<T: Target>(
    target: &mut T,
    work: &Work<'_, T::Plan>,
    range: Range<usize>,
    rejected: &mut Vec<Rejected>,
) -> Result<(), Fault> {
    let (tables, refusals) = {
        let layouts: Vec<&Layout> = work.plans.iter().map(|plan| plan.layout()).collect();
        plan_steps(work.batch, range, |index| work.places[index], &layouts)
    };
    rejected.extend(refusals.into_iter().map(|(index, refusal)| Rejected { index, error: refused(refusal) }));
    for step in tables.into_iter().flat_map(|table| table.steps) {
        target.step(work, step, rejected).await?;
    }
    Ok(())
}

/// Writes a part of the batch and moves the position to `next_offset`, all or nothing.
async fn transact<T: Target>(
    target: &mut T,
    batch: &SinkBatch,
    owned: &Owned,
    range: Range<usize>,
    next_offset: Offset,
) -> Result<Vec<Rejected>, ConnectorError> {
    let mut rejected = Vec::new();
    let work = place(target, batch, range.clone(), &mut rejected).await?;
    let refused = rejected.len();
    target.begin(owned, next_offset).await?;
    let outcome = match apply(target, &work, range.clone(), &mut rejected).await {
        Ok(()) if rejected.is_empty() => target.script("commit", "COMMIT").await,
        other => other,
    };
    match outcome {
        Ok(()) if rejected.is_empty() => return Ok(rejected),
        Ok(()) => {}
        Err(Fault::Fatal(error)) => return Err(error),
        // Some record is at fault: once more, looking for it. After a failed commit there is no transaction any more,
        // and rolling back does no harm.
        Err(Fault::Data(_)) => {
            rejected.truncate(refused);
            target.script("roll back", "ROLLBACK").await.map_err(Fault::fatal)?;
            target.begin(owned, next_offset).await?;
            search(target, &work, range, &mut rejected).await.map_err(Fault::fatal)?;
        }
    }
    // R5: the position passes a rejected record only after it is durable in the dead-letter topic.
    let end = if rejected.is_empty() { "COMMIT" } else { "ROLLBACK" };
    target.script("end the transaction", end).await.map_err(Fault::fatal)?;
    rejected.sort_by_key(|rejected| rejected.index);
    rejected.dedup_by_key(|rejected| rejected.index);
    Ok(rejected)
}

/// Finds the records that the database refuses by halving; everything else is written, in order.
async fn search<T: Target>(
    target: &mut T,
    work: &Work<'_, T::Plan>,
    records: Range<usize>,
    rejected: &mut Vec<Rejected>,
) -> Result<(), Fault> {
    target.begin_search().await?;
    let mut ranges = vec![records];
    while let Some(range) = ranges.pop() {
        let before = rejected.len();
        target.script("set a savepoint", "SAVEPOINT towpath").await?;
        match apply(target, work, range.clone(), rejected).await {
            Ok(()) => {}
            Err(Fault::Fatal(error)) => return Err(Fault::Fatal(error)),
            Err(Fault::Data(error)) => {
                rejected.truncate(before);
                target.script("roll back", "ROLLBACK TO towpath").await?;
                if range.len() == 1 {
                    rejected.push(Rejected { index: range.start, error });
                } else {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
        }
        target.script("end a savepoint", "RELEASE SAVEPOINT towpath").await?;
    }
    Ok(())
}

fn refused(refusal: Refusal) -> ConnectorError {
    match refusal {
        Refusal::NoKey => {
            ConnectorError::terminal("SINK_NO_KEY", "a part of the record's key is null or not there")
                .with_hint("name the fields that identify a row with `key`, or use mode: append")
        }
        Refusal::NoBefore => ConnectorError::terminal(
            "SINK_NO_BEFORE",
            "the table has no key, and the change does not tell the row before it",
        )
        .with_hint("let the source tell whole rows (REPLICA IDENTITY FULL), or name a key with `key`"),
    }
}

#[async_trait]
impl<T: Target> Sink for SqlTask<T> {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut target = self.target()?;
        let mut positions = BTreeMap::new();
        for (partition, id) in added {
            let owned = target.take(partition, *id).await?;
            positions.insert(partition.clone(), owned.next_offset);
            self.owned.insert(partition.clone(), owned);
        }
        self.target = Some(target);
        Ok(positions)
    }

    async fn write(&mut self, batch: SinkBatch) -> Result<Written, ConnectorError> {
        let mut owned = self.owner(&batch)?.clone();
        if batch.next_offset <= owned.next_offset {
            return Ok(Written::durable());
        }
        // The database has what comes before already: when a reader starts over, or when a part of the batch was
        // committed before records of another were refused. Those records stay where they are, since whoever is told
        // of a rejection counts them.
        let is_new = |record: RecordView<'_>| record.offset() >= owned.next_offset.get();
        let mut from = batch.batch.records().position(is_new).unwrap_or(batch.batch.len());
        let mut target = self.target()?;
        loop {
            let end = segment_end(&target, &batch, from);
            let whole = end == batch.batch.len();
            let next_offset =
                if whole { batch.next_offset } else { Offset::new(batch.batch.record(end).offset()) };
            let rejected = Box::pin(transact(&mut target, &batch, &owned, from..end, next_offset)).await?;
            if !rejected.is_empty() {
                self.target = Some(target);
                return Ok(Written { durability: Durability::Accepted, rejected });
            }
            owned.next_offset = next_offset;
            self.owned.insert(batch.partition.as_ref().clone(), owned.clone());
            if whole {
                self.target = Some(target);
                return Ok(Written::durable());
            }
            from = end;
        }
    }

    async fn flush(&mut self) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        // Every write was durable when it returned.
        Ok(self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.next_offset)).collect())
    }

    async fn revoke(&mut self, removed: &[TopicPartition]) -> Result<(), ConnectorError> {
        for partition in removed {
            self.owned.remove(partition);
        }
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<(), ConnectorError> {
        if let Some(target) = self.target.take() {
            target.close().await;
        }
        Ok(())
    }
}
