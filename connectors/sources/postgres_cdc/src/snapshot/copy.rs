//! One connection that copies chunks.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use towpath_api::{Batch, BatchBuilder, Budget, ConnectorError, Op, RejectedInput};
use towpath_sql::{Dialect, idents, literal};

use super::super::catalog::full_xmin;
use super::super::cells::Cells;
use super::super::errors::classify;
use super::super::offsets::copy_position;
use super::super::session::Session;
use super::super::shape::{Image, Provenance, UNREADABLE_VALUE};
use super::super::wire::{Connection, Kind, PgError, ServerError};
use super::parse::CopyRow;
use super::plan::{Filter, Job, Unit};

/// What all copying connections share.
pub(super) struct Shared {
    pub(super) session: Session,
    pub(super) snapshot_name: String,
    pub(super) next_xid: u64,
    pub(super) units: Vec<Unit>,
    pub(super) jobs: Mutex<VecDeque<Job>>,
    pub(super) provenance: Provenance,
    pub(super) budget: Budget,
}

/// Rows of one chunk.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) batch: Batch,
    /// Rows that could not be made records of.
    pub(super) rejected: Vec<RejectedInput>,
    /// The chunk's job, and whether this is its end.
    pub(super) job: Job,
    pub(super) finished: bool,
    /// Block and tuple of the last row.
    pub(super) last_row: Option<(u32, u16)>,
}

/// Why a copy stopped.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The table is not what it was when the copy was planned.
    Changed(String),
    Failed(ConnectorError),
}

impl From<ConnectorError> for CopyError {
    fn from(error: ConnectorError) -> Self {
        Self::Failed(error)
    }
}

pub(super) type Sender = mpsc::Sender<Result<Piece, CopyError>>;

/// Takes jobs until there are none.
pub(super) async fn work(shared: Arc<Shared>, sender: Sender) {
    let mut connection = None;
    let mut row = CopyRow::default();
    loop {
        let job = shared.jobs.lock().pop_front();
        let Some(job) = job else { break };
        if let Err(error) = run(&shared, &mut connection, &mut row, job, &sender).await {
            // The receiver is gone only when nobody wants to know.
            let _ = sender.send(Err(error)).await;
            return;
        }
    }
    if let Some(connection) = connection {
        connection.close().await;
    }
}

async fn run(
    shared: &Shared,
    kept: &mut Option<Connection>,
    row: &mut CopyRow,
    job: Job,
    sender: &Sender,
) -> Result<(), CopyError> {
    let unit = &shared.units[job.unit];
    let what = format!("copy {}", unit.leaf.name);
    let failed = |error: PgError| match error.sqlstate() {
        // A column or the table itself is gone, or has been replaced by something that is no table.
        Some("42703" | "42P01" | "42809" | "3F000") => CopyError::Changed(unit.key.clone()),
        // Only a snapshot whose owner is gone is "invalid".
        Some("22023" | "42704") => CopyError::Failed(
            ConnectorError::retry("PG_SNAPSHOT_LOST", format!("cannot {what}: its snapshot ended"))
                .with_cause(error),
        ),
        _ => CopyError::Failed(classify(&what, error)),
    };
    if kept.is_none() {
        let session = &shared.session;
        let opening = Box::pin(Connection::open(session.endpoint(), Kind::Session, session.name()));
        *kept = Some(opening.await.map_err(failed)?);
    }
    let Some(connection) = kept.as_mut() else { return Ok(()) };
    let rows = connection.begin_copy(&statement(shared, unit, &job)).await.map_err(failed)?;
    let filenode: Option<u32> = rows.first().and_then(|row| row.parse(0, "file number").ok());
    if filenode != Some(unit.doc.filenode) {
        return Err(CopyError::Changed(unit.key.clone()));
    }
    let mut writer = Writer { shared, unit, lane: unit.doc.lane(job.chunk), scratch: Vec::new() };
    let mut builder = BatchBuilder::new();
    let mut rejected = Vec::new();
    let mut last_row = None;
    loop {
        match connection.ready_message().map_err(failed)? {
            Some((b'd', line)) => {
                let (block, tuple) = row.read(line).map_err(|cause| {
                    ConnectorError::bug("PG_PROTOCOL", format!("cannot {what}")).with_cause(cause)
                })?;
                last_row = Some((block, tuple));
                match writer.write(&mut builder, row.cells(line), &copy_position(block, tuple)) {
                    Err(error) if error.code() == UNREADABLE_VALUE => rejected.push(RejectedInput {
                        position: format!("{}, row at ({block},{tuple})", unit.leaf.name),
                        bytes: line.to_vec(),
                        error,
                    }),
                    written => written?,
                }
            }
            Some((b'E', payload)) => {
                return Err(failed(PgError::Server(Box::new(ServerError::parse(payload)))));
            }
            Some((b'Z', _)) => break,
            Some(_) => {}
            None => connection.fill().await.map_err(failed)?,
        }
        let full = builder.size_in_bytes() >= shared.budget.bytes || builder.len() >= shared.budget.records;
        if full || !rejected.is_empty() {
            let rejected = std::mem::take(&mut rejected);
            let piece =
                Piece { batch: builder.take(), rejected, job: job.clone(), finished: false, last_row };
            if sender.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
    }
    let piece = Piece { batch: builder.build(), rejected, job, finished: true, last_row };
    // Nobody listens any more only when the copy is given up.
    let _ = sender.send(Ok(piece)).await;
    Ok(())
}

/// The whole transaction of one chunk. The lock keeps the table from being rewritten between the look at its file
/// and the copy.
fn statement(shared: &Shared, unit: &Unit, job: &Job) -> String {
    let table = unit.leaf.name.quoted();
    let names: Vec<&str> = unit.shape.columns().iter().map(|column| column.name.as_str()).collect();
    let columns = if names.is_empty() { String::new() } else { format!(", {}", idents(names)) };
    let from = u64::from(job.chunk) * u64::from(unit.doc.chunk_blocks);
    let mut condition = match job.after {
        Some((block, tuple)) => format!("ctid > '({block},{tuple})'::tid"),
        None => format!("ctid >= '({from},0)'::tid"),
    };
    if !job.last {
        let to = from + u64::from(unit.doc.chunk_blocks);
        condition.push_str(&format!(" AND ctid < '({to},0)'::tid"));
    }
    let (is_seen, snapshot) = match &job.filter {
        Filter::All => (true, None),
        Filter::SeenBy(snapshot) => (true, Some(snapshot)),
        Filter::NewerThan(snapshot) => (false, Some(snapshot)),
    };
    if let Some(snapshot) = snapshot {
        let not = if is_seen { "" } else { "NOT " };
        let snapshot = literal(snapshot, Dialect::Postgres);
        let xid = full_xmin(shared.next_xid);
        condition.push_str(&format!(" AND {not}pg_visible_in_snapshot({xid}, {snapshot}::pg_snapshot)"));
    }
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {snapshot}; \
         LOCK TABLE ONLY {table} IN ACCESS SHARE MODE; SELECT pg_relation_filenode({oid}::oid); \
         COPY (SELECT ctid{columns} FROM ONLY {table} WHERE {condition}) TO STDOUT; COMMIT",
        snapshot = literal(&shared.snapshot_name, Dialect::Postgres),
        oid = unit.leaf.oid,
    )
}

struct Writer<'a> {
    shared: &'a Shared,
    unit: &'a Unit,
    lane: u64,
    scratch: Vec<u8>,
}

impl Writer<'_> {
    fn write(
        &mut self,
        builder: &mut BatchBuilder,
        cells: Cells<'_>,
        position: &[u8],
    ) -> Result<(), ConnectorError> {
        let shape = &self.unit.shape;
        if cells.len() != shape.columns().len() {
            return Err(ConnectorError::bug("PG_PROTOCOL", "a copied row has another number of columns"));
        }
        let scratch = &mut self.scratch;
        let mut record = builder.record(&shape.schema);
        record.op(Some(Op::Read)).timestamp_ms(self.shared.provenance.ts_ms).position(self.lane, position);
        record.try_key(|row| shape.write_key(row, cells, None, scratch))?;
        record.try_after(|row| shape.write_row(row, cells, Image::Whole, scratch))?;
        record.source(|row| self.shared.provenance.write(row));
        record.finish();
        Ok(())
    }
}
