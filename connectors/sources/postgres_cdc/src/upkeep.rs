//! What goes on beside the stream: heartbeats into an idle database, a look for new tables, and an eye on the log that
//! the slot holds back.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use towpath_api::ConnectorError;
use towpath_sql::{Dialect, literal};

use super::catalog::{Selection, find_tables};
use super::check::unfit;
use super::config::Config;
use super::session::Session;
use super::wire::PgError;

/// How often new tables are looked for and the held log is measured.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the side task has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Tables that are to be captured came into being.
    pub(crate) new_tables: AtomicBool,
    /// Records since the last heartbeat: with any, none is needed.
    pub(crate) records: AtomicU64,
    /// Bytes of log that the slot holds back, if they are above the limit.
    pub(crate) held_bytes: AtomicU64,
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

struct Task {
    session: Session,
    config: Arc<Config>,
    slot: String,
    known: HashSet<u32>,
    seen: Arc<Seen>,
    heartbeats_refused: bool,
    told: HashSet<u32>,
}

impl Upkeep {
    /// Starts beside the stream of the tables `known`.
    pub(crate) fn start(session: Session, config: Arc<Config>, slot: String, known: HashSet<u32>) -> Self {
        let seen = Arc::new(Seen::default());
        let stop = CancellationToken::new();
        let task = Task {
            session,
            config,
            slot,
            known,
            seen: Arc::clone(&seen),
            heartbeats_refused: false,
            told: HashSet::new(),
        };
        let stopped = stop.clone();
        tokio::spawn(async move { stopped.run_until_cancelled(task.run()).await });
        Self { seen, stop }
    }
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
        let mut looks = every(LOOK_EVERY);
        loop {
            let done = tokio::select! {
                _ = heartbeats.tick(), if beats && !self.heartbeats_refused => self.heartbeat().await,
                _ = looks.tick() => self.look().await,
            };
            if let Err(error) = done {
                // The stream's own connection tells when the server is gone; this one is made again next time.
                tracing::debug!(%error, "upkeep beside the replication stream failed");
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
        let selection: &Selection = &self.config.selection;
        if !selection.tables.iter().any(towpath_sql::TablePattern::is_glob) {
            return Ok(());
        }
        let found = find_tables(&mut self.session, selection).await?;
        for table in found.tables.iter().filter(|table| !self.known.contains(&table.oid)) {
            match unfit(table) {
                None => self.seen.new_tables.store(true, Ordering::Release),
                Some(problem) if self.told.insert(table.oid) => {
                    tracing::error!(table = %table.name, %problem, "a new table is not captured");
                }
                Some(_) => {}
            }
        }
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
