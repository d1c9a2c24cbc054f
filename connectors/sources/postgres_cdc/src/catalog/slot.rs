//! Replication slots.

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, literal};

use super::super::errors::classify;
use super::super::lsn::Lsn;
use super::super::session::Session;
use super::super::wire::{PgError, Row};

/// A row of `pg_replication_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Empty for a physical slot.
    pub(crate) plugin: String,
    pub(crate) database: String,
    pub(crate) active_pid: Option<i32>,
    pub(crate) confirmed: Option<Lsn>,
    pub(crate) restart: Option<Lsn>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub(crate) wal_status: String,
    /// Why the server gave it up, where the server says so.
    pub(crate) invalidation: Option<String>,
}

impl Slot {
    /// Why nothing can be read from it any more, if that is so.
    pub(crate) fn lost_because(&self) -> Option<&str> {
        match (&self.invalidation, self.wal_status.as_str(), self.restart) {
            (Some(reason), _, _) => Some(reason),
            (None, "lost", _) => Some("its WAL has been removed"),
            (None, _, None) => Some("it reserves no WAL"),
            _ => None,
        }
    }
}

/// Looks for the slot called `name`.
pub(crate) async fn find_slot(session: &mut Session, name: &str) -> Result<Option<Slot>, ConnectorError> {
    const WHAT: &str = "look for the replication slot";
    let version = session.connection().await.map_err(|error| classify(WHAT, error))?.server_version;
    let invalidation = match version {
        170_000.. => "invalidation_reason",
        160_000.. => "CASE WHEN conflicting THEN 'it conflicted with recovery' END",
        _ => "NULL",
    };
    let sql = format!(
        "SELECT plugin, database, active_pid, confirmed_flush_lsn, restart_lsn, wal_status, {invalidation} \
           FROM pg_replication_slots WHERE slot_name = {}",
        literal(name, Dialect::Postgres)
    );
    let rows = session.query(WHAT, &sql).await?;
    rows.first().map(read).transpose().map_err(|error| classify(WHAT, error))
}

fn read(row: &Row) -> Result<Slot, PgError> {
    let lsn = |index, name| row.opt(index).map(|_| row.parse(index, name)).transpose();
    Ok(Slot {
        plugin: row.opt(0).unwrap_or_default().to_owned(),
        database: row.opt(1).unwrap_or_default().to_owned(),
        active_pid: row.opt(2).map(|_| row.parse(2, "process id")).transpose()?,
        confirmed: lsn(3, "confirmed LSN")?,
        restart: lsn(4, "restart LSN")?,
        wal_status: row.opt(5).unwrap_or_default().to_owned(),
        invalidation: row.opt(6).map(str::to_owned),
    })
}
