//! The open sink: positions, transactions, and the search for records that the server refuses.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{
    ConnectorError, Durability, EventSchema, Op, Rejected, Sink, SinkBatch, TaskContext, Written,
};
use towpath_types::{Offset, TopicId, TopicPartition};

use super::apply::{Applier, Work};
use super::config::Config;
use super::errors::Fault;
use super::offsets::{Offsets, Owned};
use super::plan::{Plan, Planned, Planner};
use super::session::Session;

/// A task's sink.
#[derive(Debug)]
pub(crate) struct PostgresTask {
    config: Arc<Config>,
    context: TaskContext,
    /// `None` after an error that leaves the connection in the middle of something.
    session: Option<Session>,
    offsets: Offsets,
    owned: HashMap<TopicPartition, Owned>,
    planner: Planner,
    buffer: Vec<u8>,
}

impl PostgresTask {
    /// Connects, and makes sure that there is a table for the positions.
    pub(crate) async fn open(config: Arc<Config>, context: TaskContext) -> Result<Self, ConnectorError> {
        let mut session = Session::open(&config.connect, &context.stop).await?;
        let offsets = Offsets::new(&config.schema, &context.pipeline);
        offsets.ensure(&mut session).await?;
        let planner = Planner::new(Arc::clone(&config), Arc::clone(&context.pipeline));
        Ok(Self {
            config,
            context,
            session: Some(session),
            offsets,
            owned: HashMap::new(),
            planner,
            buffer: Vec::new(),
        })
    }

    async fn session(&mut self) -> Result<Session, ConnectorError> {
        match self.session.take() {
            Some(session) => Ok(session),
            None => Session::open(&self.config.connect, &self.context.stop).await,
        }
    }

    fn owner(&self, batch: &SinkBatch) -> Result<&Owned, ConnectorError> {
        self.owned.get(batch.partition.as_ref()).ok_or_else(|| {
            ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{} is not this task's", batch.partition))
        })
    }

    /// Drops what the database has already: a batch can begin before the position only when its owner starts over.
    fn skip_known(batch: &mut SinkBatch, next_offset: Offset) {
        if batch.first_offset < next_offset {
            batch.batch.retain(|_, record| record.offset() >= next_offset.get());
        }
    }

    /// Where the records from `from` on must be cut: before the first of a schema that was not seen yet, since its
    /// plan can change the table (add, rename or widen columns) on which the records before it rely.
    fn segment_end(&self, batch: &SinkBatch, from: usize) -> usize {
        let (topic, records) = (&batch.partition.topic, &batch.batch);
        let mut last: Option<&Arc<EventSchema>> = None;
        for index in from..records.len() {
            let record = records.record(index);
            if record.op() == Some(Op::Tombstone)
                || last.is_some_and(|last| Arc::ptr_eq(last, record.schema()))
            {
                continue;
            }
            if last.is_some_and(|last| last.id() != record.schema().id())
                && !self.planner.knows(topic, record.schema())
            {
                return index;
            }
            last = Some(record.schema());
        }
        records.len()
    }

    /// Finds the plan of each record of `range`.
    async fn place<'a>(
        &mut self,
        session: &mut Session,
        batch: &'a SinkBatch,
        range: Range<usize>,
        rejected: &mut Vec<Rejected>,
    ) -> Result<Work<'a>, ConnectorError> {
        let places = vec![None; batch.batch.len()];
        let mut work = Work { batch: &batch.batch, places, plans: Vec::new() };
        let mut tables: Vec<Arc<Plan>> = Vec::new();
        // Records of one schema come in runs.
        let mut last: Option<(&Arc<EventSchema>, Planned, Option<(usize, usize)>)> = None;
        for index in range {
            let record = batch.batch.record(index);
            if record.op() == Some(Op::Tombstone) {
                continue;
            }
            if !last.as_ref().is_some_and(|(schema, ..)| Arc::ptr_eq(schema, record.schema())) {
                let planned = self.planner.plan(session, &batch.partition.topic, record.schema()).await?;
                let place = match &planned {
                    Planned::Refused(_) => None,
                    Planned::Plan(plan) => Some((
                        number(&mut tables, plan, |known| known.table == plan.table),
                        number(&mut work.plans, plan, |known| Arc::ptr_eq(known, plan)),
                    )),
                };
                last = Some((record.schema(), planned, place));
            }
            match &last {
                Some((_, Planned::Refused(refusal), _)) => {
                    rejected.push(Rejected { index, error: refusal.error() })
                }
                Some((_, Planned::Plan(_), place)) => work.places[index] = *place,
                None => {}
            }
        }
        Ok(work)
    }

    /// Writes a part of the batch and moves the position to `next_offset`, all or nothing.
    async fn transact(
        &mut self,
        session: &mut Session,
        batch: &SinkBatch,
        range: Range<usize>,
        next_offset: Offset,
    ) -> Result<Vec<Rejected>, ConnectorError> {
        let owned = self.owner(batch)?.clone();
        let mut refused = Vec::new();
        let work = self.place(session, batch, range.clone(), &mut refused).await?;
        self.offsets.begin(session, &owned, next_offset).await?;
        let mut applier = Applier { session, buffer: &mut self.buffer, rejected: refused };
        let refused = applier.rejected.len();
        let outcome = match applier.apply(&work, range.clone()).await {
            Ok(()) if applier.rejected.is_empty() => {
                applier.session.script("commit", "COMMIT".to_owned()).await.map(drop)
            }
            other => other,
        };
        match outcome {
            Ok(()) if applier.rejected.is_empty() => return Ok(Vec::new()),
            Ok(()) => {}
            Err(Fault::Fatal(error)) => return Err(error),
            // Some record is at fault: once more, looking for it. After a failed commit there is no transaction.
            Err(Fault::Data(_)) => {
                applier.rejected.truncate(refused);
                applier.session.script("roll back", "ROLLBACK".to_owned()).await.map_err(Fault::fatal)?;
                self.offsets.begin(applier.session, &owned, next_offset).await?;
                search(&mut applier, &work, range).await.map_err(Fault::fatal)?;
            }
        }
        // R5: the position passes a rejected record only after it is durable in the dead-letter topic.
        let end = if applier.rejected.is_empty() { "COMMIT" } else { "ROLLBACK" };
        applier.session.script("end the transaction", end.to_owned()).await.map_err(Fault::fatal)?;
        let mut rejected = applier.rejected;
        rejected.sort_by_key(|rejected| rejected.index);
        rejected.dedup_by_key(|rejected| rejected.index);
        Ok(rejected)
    }
}

/// The place of `plan` in `known`, where it is put if it is new.
fn number(known: &mut Vec<Arc<Plan>>, plan: &Arc<Plan>, same: impl Fn(&Arc<Plan>) -> bool) -> usize {
    known.iter().position(same).unwrap_or_else(|| {
        known.push(Arc::clone(plan));
        known.len() - 1
    })
}

/// Finds the records that the server refuses by halving; everything else of the batch is written, in order.
async fn search(applier: &mut Applier<'_>, work: &Work<'_>, records: Range<usize>) -> Result<(), Fault> {
    // Deferred constraints speak up where the record at fault can still be found.
    let immediate = "SET CONSTRAINTS ALL IMMEDIATE".to_owned();
    applier.session.script("check constraints at once", immediate).await?;
    let mut ranges: Vec<Range<usize>> = vec![records];
    while let Some(range) = ranges.pop() {
        let before = applier.rejected.len();
        applier.session.script("set a savepoint", "SAVEPOINT towpath".to_owned()).await?;
        let end = match applier.apply(work, range.clone()).await {
            Ok(()) => "RELEASE towpath",
            Err(Fault::Fatal(error)) => return Err(Fault::Fatal(error)),
            Err(Fault::Data(refused)) => {
                applier.rejected.truncate(before);
                if range.len() == 1 {
                    applier.rejected.push(Rejected { index: range.start, error: refused.into_error() });
                } else {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
                "ROLLBACK TO towpath; RELEASE towpath"
            }
        };
        applier.session.script("end a savepoint", end.to_owned()).await?;
    }
    Ok(())
}

#[async_trait]
impl Sink for PostgresTask {
    async fn assign(
        &mut self,
        added: &[(TopicPartition, TopicId)],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ConnectorError> {
        let mut session = self.session().await?;
        let mut positions = BTreeMap::new();
        for (partition, id) in added {
            let owned = self.offsets.take(&mut session, partition, *id).await?;
            positions.insert(partition.clone(), owned.next_offset);
            self.owned.insert(partition.clone(), owned);
        }
        self.session = Some(session);
        Ok(positions)
    }

    async fn write(&mut self, mut batch: SinkBatch) -> Result<Written, ConnectorError> {
        let known = self.owner(&batch)?.next_offset;
        if batch.next_offset <= known {
            return Ok(Written::durable());
        }
        Self::skip_known(&mut batch, known);
        let mut session = self.session().await?;
        let mut from = 0;
        loop {
            let end = self.segment_end(&batch, from);
            let whole = end == batch.batch.len();
            let next_offset =
                if whole { batch.next_offset } else { Offset::new(batch.batch.record(end).offset()) };
            // After an error the connection is dropped with whatever was open on it: the server rolls back.
            let rejected = Box::pin(self.transact(&mut session, &batch, from..end, next_offset)).await?;
            if !rejected.is_empty() {
                self.session = Some(session);
                return Ok(Written { durability: Durability::Accepted, rejected });
            }
            if let Some(owned) = self.owned.get_mut(batch.partition.as_ref()) {
                owned.next_offset = next_offset;
            }
            if whole {
                self.session = Some(session);
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
        if let Some(session) = self.session.take() {
            session.close().await;
        }
        Ok(())
    }
}
