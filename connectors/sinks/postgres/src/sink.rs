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

    /// Drops what the database has already: a batch can begin before the position only when its owner starts over.
    fn skip_known(batch: &mut SinkBatch, next_offset: Offset) {
        if batch.first_offset < next_offset {
            batch.batch.retain(|_, record| record.offset() >= next_offset.get());
        }
    }

    /// Finds the plan of each record.
    async fn place<'a>(
        &mut self,
        session: &mut Session,
        batch: &'a SinkBatch,
        rejected: &mut Vec<Rejected>,
    ) -> Result<Work<'a>, ConnectorError> {
        let mut work =
            Work { batch: &batch.batch, places: Vec::with_capacity(batch.batch.len()), plans: Vec::new() };
        let mut tables: Vec<Arc<Plan>> = Vec::new();
        // Records of one schema come in runs.
        let mut last: Option<(Arc<EventSchema>, Planned, Option<(usize, usize)>)> = None;
        for (index, record) in batch.batch.records().enumerate() {
            if record.op() == Some(Op::Tombstone) {
                work.places.push(None);
                continue;
            }
            let same = last.as_ref().is_some_and(|(schema, ..)| Arc::ptr_eq(schema, record.schema()));
            if !same {
                let planned = self.planner.plan(session, &batch.partition.topic, record.schema()).await?;
                let place = match &planned {
                    Planned::Refused(_) => None,
                    Planned::Plan(plan) => Some((
                        number(&mut tables, plan, |known| known.table == plan.table),
                        number(&mut work.plans, plan, |known| Arc::ptr_eq(known, plan)),
                    )),
                };
                last = Some((Arc::clone(record.schema()), planned, place));
            }
            let Some((_, planned, place)) = &last else { continue };
            if let Planned::Refused(refusal) = planned {
                rejected.push(Rejected { index, error: refusal.error() });
            }
            work.places.push(*place);
        }
        Ok(work)
    }

    /// Writes the batch and moves the position, all or nothing.
    async fn transact(
        &mut self,
        session: &mut Session,
        batch: &SinkBatch,
        owned: &Owned,
    ) -> Result<Vec<Rejected>, ConnectorError> {
        let mut refused = Vec::new();
        let work = self.place(session, batch, &mut refused).await?;
        self.offsets.begin(session, owned, batch.next_offset).await?;
        let mut applier = Applier { session, buffer: &mut self.buffer, rejected: refused };
        let refused = applier.rejected.len();
        let outcome = match applier.apply(&work, 0..batch.batch.len()).await {
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
                self.offsets.begin(applier.session, owned, batch.next_offset).await?;
                search(&mut applier, &work, batch.batch.len()).await.map_err(Fault::fatal)?;
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
async fn search(applier: &mut Applier<'_>, work: &Work<'_>, records: usize) -> Result<(), Fault> {
    // Deferred constraints speak up where the record at fault can still be found.
    let immediate = "SET CONSTRAINTS ALL IMMEDIATE".to_owned();
    applier.session.script("check constraints at once", immediate).await?;
    let mut ranges: Vec<Range<usize>> = vec![0..records];
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
        let owned = self.owned.get(batch.partition.as_ref()).cloned().ok_or_else(|| {
            ConnectorError::bug("SINK_NOT_ASSIGNED", format!("{} is not this task's", batch.partition))
        })?;
        if batch.next_offset <= owned.next_offset {
            return Ok(Written::durable());
        }
        Self::skip_known(&mut batch, owned.next_offset);
        let mut session = self.session().await?;
        // After an error the connection is dropped with whatever was open on it: the server rolls back.
        let rejected = Box::pin(self.transact(&mut session, &batch, &owned)).await?;
        self.session = Some(session);
        if !rejected.is_empty() {
            return Ok(Written { durability: Durability::Accepted, rejected });
        }
        if let Some(owned) = self.owned.get_mut(batch.partition.as_ref()) {
            owned.next_offset = batch.next_offset;
        }
        Ok(Written::durable())
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
