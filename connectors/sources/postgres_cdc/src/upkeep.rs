//! What goes on beside the stream: heartbeats into an idle database, a look for new tables, and an eye on the log that
//! the slot holds back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use towpath_api::ConnectorError;
use towpath_sql::{Dialect, TableName, literal};

use super::catalog::{Table, find_tables, observe};
use super::check::unfit;
use super::config::Config;
use super::lsn::Lsn;
use super::session::Session;
use super::slot;
use super::tracked::Look;
use super::wire::PgError;

/// How often new tables and changed columns are looked for and the held log is measured; with very many tables less
/// often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const TABLES_PER_LOOK: u32 = 500;
/// Failures in a row after which somebody should know.
const FAILURES_TOLD: u32 = 3;

/// What the side task has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Tables or partitions that are to be captured came, went, or got other names.
    pub(crate) tables_changed: AtomicBool,
    /// The last look at the columns.
    pub(crate) look: Mutex<Option<Look>>,
    /// Records since the last heartbeat: with any, none is needed.
    pub(crate) records: AtomicU64,
    /// Bytes of log that the slot holds back, if they are above the limit.
    pub(crate) held_bytes: AtomicU64,
    /// What somebody waits for: an LSN that the next look should cover.
    awaited: AtomicU64,
    wake: Notify,
}

/// The running side task. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Upkeep {
    pub(crate) seen: Arc<Seen>,
    stop: CancellationToken,
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A table's name and partitions.
type Known = HashMap<u32, (TableName, BTreeSet<u32>)>;

struct Task {
    session: Session,
    config: Arc<Config>,
    slot: String,
    tables: Vec<Table>,
    seen: Arc<Seen>,
    heartbeats_refused: bool,
    told: HashSet<u32>,
}

impl Upkeep {
    /// Starts beside the stream of `tables`, with a look that covers `awaited`.
    pub(crate) fn start(
        session: Session,
        config: Arc<Config>,
        slot: String,
        tables: Vec<Table>,
        awaited: Lsn,
    ) -> Self {
        let seen = Arc::new(Seen { awaited: AtomicU64::new(awaited.0), ..Seen::default() });
        seen.wake.notify_one();
        let stop = CancellationToken::new();
        let task = Task {
            session,
            config,
            slot,
            tables,
            seen: Arc::clone(&seen),
            heartbeats_refused: false,
            told: HashSet::new(),
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(task.run()).await });
        Self { seen, stop }
    }

    /// Asks for a look that covers `awaited`, now.
    pub(crate) fn look(&self, awaited: Lsn) {
        self.seen.awaited.fetch_max(awaited.0, Ordering::AcqRel);
        self.seen.wake.notify_one();
    }
}

fn known(tables: &[Table]) -> Known {
    let leaves = |table: &Table| table.leaves.iter().map(|leaf| leaf.oid).collect();
    tables.iter().map(|table| (table.oid, (table.name.clone(), leaves(table)))).collect()
}

impl Task {
    async fn run(mut self) {
        let every = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let beats = self.config.heartbeat_ms > 0;
        let mut heartbeats = every(Duration::from_millis(self.config.heartbeat_ms.max(10)));
        let many = u32::try_from(self.tables.len()).unwrap_or(u32::MAX) / TABLES_PER_LOOK;
        let mut looks = every(LOOK_EVERY.saturating_mul(many.saturating_add(1)));
        let seen = Arc::clone(&self.seen);
        let mut failures = 0_u32;
        loop {
            let done = tokio::select! {
                _ = heartbeats.tick(), if beats && !self.heartbeats_refused => self.heartbeat().await,
                _ = looks.tick() => self.look().await,
                () = seen.wake.notified() => self.look().await,
            };
            match done {
                Ok(()) => failures = 0,
                Err(error) => {
                    // The stream's own connection tells when the server is gone; this one is made again next time.
                    failures += 1;
                    tracing::debug!(%error, "upkeep beside the replication stream failed");
                    if failures == FAILURES_TOLD {
                        tracing::warn!(%error, "new tables and changed columns cannot be looked for beside the stream");
                    }
                }
            }
        }
    }

    async fn heartbeat(&mut self) -> Result<(), ConnectorError> {
        if self.seen.records.swap(0, Ordering::Relaxed) > 0 {
            return Ok(());
        }
        let sql =
            format!("SELECT pg_logical_emit_message(true, {}, '')", literal("towpath", Dialect::Postgres));
        match self.session.try_query(&sql).await {
            Ok(_) => Ok(()),
            Err(PgError::Server(error)) if matches!(error.sqlstate.as_str(), "42501" | "25006" | "55000") => {
                tracing::warn!(%error, "no heartbeats: the server does not let this user write log messages");
                self.heartbeats_refused = true;
                Ok(())
            }
            Err(error) => Err(super::errors::classify("write a heartbeat", error)),
        }
    }

    async fn look(&mut self) -> Result<(), ConnectorError> {
        self.measure().await?;
        let covers = Lsn(self.seen.awaited.load(Ordering::Acquire));
        let taken = Instant::now();
        let mut found = find_tables(&mut self.session, &self.config.selection).await?;
        let captured = known(&self.tables);
        for table in &found.tables {
            let Some(problem) = unfit(table).filter(|_| !captured.contains_key(&table.oid)) else { continue };
            if self.told.insert(table.oid) {
                tracing::error!(table = %table.name, %problem, "a new table is not captured");
            }
        }
        found.tables.retain(|table| captured.contains_key(&table.oid) || unfit(table).is_none());
        if known(&found.tables) != captured {
            self.seen.tables_changed.store(true, Ordering::Release);
            return Ok(());
        }
        let all: Vec<&Table> = self.tables.iter().collect();
        let tables = observe(&mut self.session, &all).await?;
        let reached = slot::upstream_end(&mut self.session).await?;
        *self.seen.look.lock() = Some(Look { taken, covers, reached, tables });
        Ok(())
    }

    async fn measure(&mut self) -> Result<(), ConnectorError> {
        let limit = self.config.wal_limit_bytes;
        if limit == 0 {
            return Ok(());
        }
        let sql = format!(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::int8 FROM pg_replication_slots \
              WHERE slot_name = {}",
            literal(&self.slot, Dialect::Postgres)
        );
        let rows = self.session.query("measure the log that the slot holds back", &sql).await?;
        let held: u64 = rows.first().and_then(|row| row.parse(0, "bytes").ok()).unwrap_or_default();
        let before = self.seen.held_bytes.swap(if held > limit { held } else { 0 }, Ordering::Relaxed);
        if held > limit && before == 0 {
            tracing::warn!(slot = %self.slot, held_bytes = held, limit_bytes = limit,
                "PG_WAL_HELD: the slot holds back more log than wal_limit_bytes allows");
        }
        Ok(())
    }
}
