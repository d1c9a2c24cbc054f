//! A running copy: its connections, and what has arrived.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use towpath_api::{Batch, BatchBuilder, Budget, ConnectorError, Op, RejectedInput};

use super::super::offsets::copy_position;
use super::super::session::Session;
use super::super::setup::FreshSlot;
use super::super::shape::Provenance;
use super::copy::{CopyError, Piece, Shared, work};
use super::plan::{Filter, Job, Plan};

/// Batches that wait for the runtime; with those in the making, what a copy holds in memory.
const BATCHES_WAITING: usize = 2;

/// A copy in progress.
pub(crate) struct Run {
    shared: Arc<Shared>,
    receiver: mpsc::Receiver<Result<Piece, CopyError>>,
    /// Ends the connections when it is dropped.
    tasks: JoinSet<()>,
    slot: FreshSlot,
    /// The truncate records, until they are handed out.
    truncates: Option<Batch>,
    /// Unit → jobs that have not ended.
    open: Vec<usize>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("open", &self.open).finish_non_exhaustive()
    }
}

/// What a copy had to say.
#[derive(Debug)]
pub(crate) enum Progressed {
    /// Nothing for the moment.
    Waiting,
    /// Rows, and what they change in the document of their table, if they are a table's.
    Rows { batch: Batch, rejected: Vec<RejectedInput>, copied: Option<Copied> },
    /// A table was rewritten or lost a column: what is left has to be planned again.
    Changed(String),
    /// Everything is copied.
    Finished,
}

/// How far a table's copy has come.
#[derive(Debug)]
pub(crate) struct Copied {
    /// The name of its document.
    pub(crate) table: String,
    /// The chunk, if its rows count as such: looking for newer rows in one that was copied before adds none.
    pub(crate) chunk: Option<Reached>,
    /// Whether the whole table is copied.
    pub(crate) done: bool,
}

/// How far a chunk's copy has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Up to the row at block and tuple.
    Row(u32, (u32, u16)),
    /// To its end.
    End(u32),
}

impl Run {
    /// Starts `connections` that copy what `plan` says.
    pub(crate) fn start(plan: Plan, session: Session, connections: usize, budget: Budget) -> Self {
        let provenance = Provenance {
            ts_ms: plan.ts_ms,
            snapshot: true,
            xid: None,
            lsn: plan.slot.consistent.0,
            commit_lsn: plan.slot.consistent.0,
        };
        let mut open = vec![0; plan.units.len()];
        for job in &plan.jobs {
            open[job.unit] += 1;
        }
        let connections = connections.min(plan.jobs.len());
        let shared = Arc::new(Shared {
            session,
            snapshot_name: plan.slot.snapshot_name.clone(),
            next_xid: plan.next_xid,
            units: plan.units,
            jobs: Mutex::new(plan.jobs),
            provenance,
            budget,
        });
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING);
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(work(Arc::clone(&shared), sender.clone()));
        }
        let truncates = Some(truncates(&shared)).filter(|batch| !batch.is_empty());
        Self { shared, receiver, tasks, slot: plan.slot, truncates, open }
    }

    /// Tables and partitions whose copy is complete, and all of them.
    pub(crate) fn tables(&self) -> (usize, usize) {
        (self.open.iter().filter(|open| **open == 0).count(), self.open.len())
    }

    /// Waits up to `patience` for what comes next.
    pub(crate) async fn next(&mut self, patience: Duration) -> Result<Progressed, ConnectorError> {
        if let Some(batch) = self.truncates.take() {
            return Ok(Progressed::Rows { batch, rejected: vec![], copied: None });
        }
        match timeout(patience, self.receiver.recv()).await {
            Err(_) => Ok(Progressed::Waiting),
            Ok(Some(Ok(piece))) => Ok(self.arrived(piece)),
            Ok(Some(Err(CopyError::Changed(table)))) => Ok(Progressed::Changed(table)),
            Ok(Some(Err(CopyError::Failed(error)))) => Err(error),
            Ok(None) if self.open.iter().all(|open| *open == 0) => Ok(Progressed::Finished),
            Ok(None) => {
                let ended = self.tasks.join_next().await;
                let error = ConnectorError::bug("PG_COPY", "a copying task ended before its work");
                Err(match ended {
                    Some(Err(cause)) => error.with_cause(cause),
                    _ => error,
                })
            }
        }
    }

    fn arrived(&mut self, piece: Piece) -> Progressed {
        let Piece { batch, rejected, job, finished, last_row } = piece;
        let Job { unit, chunk, filter, .. } = job;
        if finished {
            self.open[unit] = self.open[unit].saturating_sub(1);
        }
        let reached = match (filter, last_row) {
            (Filter::NewerThan(_), _) => None,
            _ if finished => Some(Reached::End(chunk)),
            (_, Some(row)) => Some(Reached::Row(chunk, row)),
            (_, None) => None,
        };
        let table = self.shared.units[unit].key.clone();
        Progressed::Rows {
            batch,
            rejected,
            copied: Some(Copied { table, chunk: reached, done: self.open[unit] == 0 }),
        }
    }

    /// Ends the connections and lets the snapshot go.
    pub(crate) async fn close(mut self) {
        self.receiver.close();
        self.tasks.shutdown().await;
        self.slot.close().await;
    }
}

/// The records that empty tables before they are copied again.
fn truncates(shared: &Shared) -> Batch {
    let mut builder = BatchBuilder::new();
    for unit in shared.units.iter().filter(|unit| unit.truncate) {
        let mut record = builder.record(&unit.shape.schema);
        record
            .op(Some(Op::Truncate))
            .timestamp_ms(shared.provenance.ts_ms)
            .position(unit.doc.truncate_lane(), &copy_position(0, 0))
            .source(|row| shared.provenance.write(row));
        record.finish();
    }
    builder.build()
}
