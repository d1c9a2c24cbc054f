//! The stream as the source polls it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use towpath_api::{Batch, BatchBuilder, Budget, ConnectorError};
use towpath_sql::{Dialect, ident, literal};

use super::catalog::Table;
use super::config::{Config, Names, SnapshotMode};
use super::errors::classify;
use super::lsn::Lsn;
use super::offsets::{Offsets, System, TableDoc};
use super::pgoutput::{Decoder, Message};
use super::session::Session;
use super::shape::Origin;
use super::slot;
use super::source::PATIENCE;
use super::stream::{Feed, Need, Records, Selected, fetch_toast};
use super::tracked::TrackedColumns;
use super::wire::{PgError, frame_length};

/// How long a slot that is still active elsewhere is waited for: after our own `kill -9` the server needs a moment.
const ACTIVE_PATIENCE: Duration = Duration::from_secs(10);
const ACTIVE_PAUSE: Duration = Duration::from_millis(150);
/// Tag and length of a CopyData message, then kind, start, end and time of XLogData.
const XLOG_HEADER: usize = 5 + 25;

/// A running stream.
#[derive(Debug)]
pub(crate) struct Streaming {
    pub(crate) feed: Feed,
    pub(crate) records: Records,
    /// What is known of the captured tables' columns.
    pub(crate) columns: TrackedColumns,
    chunk: Vec<u8>,
    at: usize,
    /// An error that came behind records, to be told next time.
    failed: Option<PgError>,
}

/// How a look into the chunk in hand ended.
enum Taken {
    /// It is used up.
    Empty,
    /// The batch is full.
    Full,
    /// Something must be looked up; the message comes again then.
    Need(Need),
}

/// Starts the stream of `tables` at the stored position, after another look at the slot.
pub(crate) async fn start(
    mut session: Session,
    system: System,
    names: Names,
    origin: Origin,
    tables: Vec<Table>,
    offsets: Offsets,
    config: Arc<Config>,
) -> Result<Streaming, ConnectorError> {
    tracing::debug!(pipeline = %origin.pipeline, slot = %names.slot, "starting the stream");
    let Some(position) = &offsets.stream else {
        return Err(ConnectorError::bug("PG_OFFSETS", "the stream has no position"));
    };
    let selected = lsns(&tables, &offsets, |doc| doc.from_lsn);
    let (tombstones, may_copy) = (config.tombstones, config.snapshot != SnapshotMode::Never);
    let publications = format!("{}, {}", ident(&names.publication), ident(&names.insert_only_publication));
    let sql = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {})",
        ident(&names.slot),
        position.end_lsn,
        literal(&publications, Dialect::Postgres)
    );
    let deadline = Instant::now() + ACTIVE_PATIENCE;
    loop {
        slot::verify(&mut session, &system, &names.slot, position).await?;
        let name = session.name().to_owned();
        match Feed::start(session.endpoint().clone(), name, sql.clone(), position.end_lsn).await {
            Ok(feed) => {
                session.close().await;
                let overtaken = lsns(&tables, &offsets, |doc| doc.until_lsn);
                let records = Records::new(selected, overtaken, position, tombstones);
                let columns = TrackedColumns::new(tables, &offsets, may_copy);
                return Ok(Streaming { feed, records, columns, chunk: Vec::new(), at: 0, failed: None });
            }
            Err(error) if error.sqlstate() == Some("55006") && Instant::now() < deadline => {
                sleep(ACTIVE_PAUSE).await;
            }
            Err(error) => {
                let active = error.sqlstate() == Some("55006");
                let error = classify("start replication", error);
                return Err(if active {
                    error.with_hint(
                        "if no other process should read it: SELECT pg_terminate_backend(active_pid) FROM \
                                     pg_replication_slots WHERE active;",
                    )
                } else {
                    error
                });
            }
        }
    }
}

/// The captured tables, with an LSN of each: the latest of their partitions', which are copied anew together.
fn lsns(tables: &[Table], offsets: &Offsets, of: impl Fn(&TableDoc) -> Lsn) -> Selected {
    let latest = |table: &Table| {
        let docs = table.leaves.iter().filter_map(|leaf| offsets.tables.get(&leaf.name.to_string()));
        docs.map(&of).max().unwrap_or_default()
    };
    tables.iter().map(|table| (table.oid, latest(table))).collect()
}

impl Streaming {
    /// Collects records up to `budget`, or until there is nothing more at the moment. An empty batch means that a
    /// while has passed, that the task should stop, or that the position moved in a way that is `urgent` to tell.
    pub(crate) async fn poll(
        &mut self,
        budget: Budget,
        session: &mut Session,
        origin: &Origin,
        stop: &CancellationToken,
        urgent: impl Fn(Lsn) -> bool,
    ) -> Result<Batch, ConnectorError> {
        const WHAT: &str = "read the replication stream";
        if let Some(error) = self.failed.take() {
            return Err(classify(WHAT, error));
        }
        let deadline = Instant::now() + PATIENCE;
        let mut builder = BatchBuilder::new();
        loop {
            match self.take(&mut builder, budget)? {
                Taken::Full => return Ok(builder.build()),
                Taken::Need(need) => {
                    self.look_up(need, session, origin).await?;
                    continue;
                }
                Taken::Empty => {}
            }
            if urgent(self.records.position().0) {
                return Ok(builder.build());
            }
            let chunk = match self.feed.ready() {
                Some(chunk) => chunk,
                None if !builder.is_empty() => return Ok(builder.build()),
                None => {
                    let waited = stop.run_until_cancelled(timeout_at(deadline, self.feed.next())).await;
                    let Some(Ok(chunk)) = waited else { return Ok(builder.build()) };
                    chunk
                }
            };
            match chunk {
                Ok(chunk) => {
                    self.feed.recycle(std::mem::replace(&mut self.chunk, chunk));
                    self.at = 0;
                }
                Err(error) if builder.is_empty() => return Err(classify(WHAT, error)),
                Err(error) => {
                    self.failed = Some(error);
                    return Ok(builder.build());
                }
            }
        }
    }

    /// Takes frames of the chunk in hand.
    fn take(&mut self, builder: &mut BatchBuilder, budget: Budget) -> Result<Taken, ConnectorError> {
        let broken = |_| ConnectorError::bug("PG_PROTOCOL", "the replication stream is out of step");
        while let Some(length) = frame_length(&self.chunk[self.at..]).map_err(broken)? {
            if builder.len() >= budget.records || builder.size_in_bytes() >= budget.bytes {
                return Ok(Taken::Full);
            }
            let Some(frame) = self.chunk.get(self.at..self.at + length) else { break };
            match (frame[0], frame.get(5)) {
                (b'd', Some(b'w')) => {
                    let (header, message) = frame
                        .split_at_checked(XLOG_HEADER)
                        .ok_or_else(|| ConnectorError::bug("PG_PROTOCOL", "a short XLogData"))?;
                    if let Some(need) = self.records.take(message, number(&header[6..14]), builder)? {
                        return Ok(Taken::Need(need));
                    }
                    if self.records.has_rejected() {
                        self.at += length;
                        return Ok(Taken::Full);
                    }
                }
                (b'd', Some(b'k')) => {
                    self.records.keepalive(Lsn(number(frame.get(6..14).unwrap_or_default())));
                }
                _ => {}
            }
            self.at += length;
        }
        Ok(Taken::Empty)
    }

    async fn look_up(
        &mut self,
        need: Need,
        session: &mut Session,
        origin: &Origin,
    ) -> Result<(), ConnectorError> {
        match need {
            Need::Toast(missing) => {
                let values = fetch_toast(session, &missing).await?;
                self.records.provide_toast(&values);
            }
            Need::Relation(oid) => {
                let bytes = self.records.description(oid).unwrap_or_default().to_vec();
                let mut decoder = Decoder::default();
                let Ok(Message::Relation(message)) = decoder.decode(&bytes) else {
                    return Err(ConnectorError::bug("PG_PROTOCOL", "a table's description vanished"));
                };
                match self.columns.resolve(session, origin, &message).await? {
                    Some(shape) => self.records.describe(oid, shape),
                    None => self.records.leave_out(oid),
                }
            }
        }
        Ok(())
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
