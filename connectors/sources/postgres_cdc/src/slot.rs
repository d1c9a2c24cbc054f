//! Whether the slot still has what our position needs (R7).

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, literal};

use super::catalog::{Slot, find_slot};
use super::errors::classify;
use super::lsn::Lsn;
use super::offsets::{StreamDoc, System};
use super::session::Session;
use super::wire::PgError;

const START_ANEW: &str = "reset the pipeline (`towpath pipelines reset`) to copy the tables anew; before, drop the slot if it exists: \
                          SELECT pg_drop_replication_slot('SLOT');";

fn start_anew(slot: &str) -> String {
    START_ANEW.replace("SLOT'", &format!("{slot}'"))
}

/// Compares the stored position with the server and the slot; what is lost stops the task with the gap.
pub(crate) async fn verify(
    session: &mut Session,
    system: &System,
    slot_name: &str,
    position: &StreamDoc,
) -> Result<Slot, ConnectorError> {
    same_server(system, slot_name, position)?;
    let Some(slot) = find_slot(session, slot_name).await? else {
        let now = current_lsn(session).await?;
        return Err(ConnectorError::terminal(
            "PG_SLOT_MISSING",
            format!(
                "replication slot {slot_name} does not exist any more; changes from {} on ({}) cannot be read",
                position.end_lsn,
                gap(position.end_lsn, now)
            ),
        )
        .with_hint(start_anew(slot_name)));
    };
    if slot.plugin != "pgoutput" || slot.database != system.database {
        return Err(ConnectorError::terminal(
            "PG_SLOT_FOREIGN",
            format!(
                "replication slot {slot_name} belongs to plugin {:?} and database {:?}",
                slot.plugin, slot.database
            ),
        )
        .with_hint("choose another name with the option slot"));
    }
    if let Some(reason) = slot.lost_because() {
        let now = current_lsn(session).await?;
        return Err(ConnectorError::terminal(
            "PG_SLOT_LOST",
            format!(
                "replication slot {slot_name} was given up by the server ({reason}); changes from {} on ({}) cannot be \
                 read",
                position.end_lsn,
                gap(position.end_lsn, now)
            ),
        )
        .with_hint(format!("raise max_slot_wal_keep_size; then {}", start_anew(slot_name))));
    }
    ahead(slot_name, slot.confirmed.unwrap_or_default(), position)?;
    Ok(slot)
}

/// A slot that is further than we are would skip silently what we miss.
fn ahead(slot_name: &str, confirmed: Lsn, position: &StreamDoc) -> Result<(), ConnectorError> {
    if confirmed <= position.end_lsn {
        return Ok(());
    }
    Err(ConnectorError::terminal(
        "PG_SLOT_AHEAD",
        format!(
            "replication slot {slot_name} stands at {confirmed}, but our position is {}: {} of changes are missing; the \
             slot was created again or read by somebody else",
            position.end_lsn,
            gap(position.end_lsn, confirmed)
        ),
    )
    .with_hint(start_anew(slot_name)))
}

fn gap(from: Lsn, to: Lsn) -> String {
    format!("{} bytes of log", to.0.saturating_sub(from.0))
}

fn same_server(system: &System, slot_name: &str, position: &StreamDoc) -> Result<(), ConnectorError> {
    let differs = |code, what: &str, now: &str, stored: &str| {
        ConnectorError::terminal(
            code,
            format!("the {what} is {now}, but the stored position belongs to {stored}"),
        )
        .with_hint(format!("point the URL at the right server, or {}", start_anew(slot_name)))
    };
    if system.id != position.system_id {
        return Err(differs(
            "PG_OTHER_SERVER",
            "server's system identifier",
            &system.id,
            &position.system_id,
        ));
    }
    if system.database != position.database {
        return Err(differs("PG_OTHER_DATABASE", "database", &system.database, &position.database));
    }
    if slot_name != position.slot {
        return Err(differs("PG_SLOT_RENAMED", "slot", slot_name, &position.slot));
    }
    if system.timeline != position.timeline {
        // After a failover or a point-in-time recovery nothing says that the slot saw what we saw.
        let (now, stored) = (system.timeline.to_string(), position.timeline.to_string());
        return Err(differs("PG_TIMELINE", "server's timeline", &now, &stored));
    }
    Ok(())
}

async fn current_lsn(session: &mut Session) -> Result<Lsn, ConnectorError> {
    const WHAT: &str = "ask for the log's end";
    let rows = session.query(WHAT, "SELECT pg_current_wal_lsn()").await?;
    let row = rows.first().ok_or(PgError::Answer("log position"));
    row.and_then(|row| row.parse(0, "log position")).map_err(|error| classify(WHAT, error))
}

/// An LSN behind every transaction whose commit has returned by now, and which the stream reaches even when nothing
/// else happens. That is the end of the flushed log. Where more is written than flushed (commits with
/// `synchronous_commit = off` return before they are), a message with a flush of its own is such a point.
pub(crate) async fn upstream_end(session: &mut Session) -> Result<Lsn, ConnectorError> {
    /// Bytes of a page's header, by which the place of the next record can lie behind the end of the last.
    const PAGE_HEADER_BYTES: u64 = 64;
    const WHAT: &str = "ask for the log's end";
    let rows = session.query(WHAT, "SELECT pg_current_wal_flush_lsn(), pg_current_wal_insert_lsn()").await?;
    let read = || {
        let row = rows.first().ok_or(PgError::Answer("log position"))?;
        Ok((row.parse(0, "log position")?, row.parse(1, "log position")?))
    };
    let (flushed, inserted): (Lsn, Lsn) = read().map_err(|error| classify(WHAT, error))?;
    if inserted.0 <= flushed.0.saturating_add(PAGE_HEADER_BYTES) {
        return Ok(flushed);
    }
    let marked = format!(
        "BEGIN; SET LOCAL synchronous_commit = 'local'; \
         SELECT pg_logical_emit_message(true, {}, ''); COMMIT",
        literal("towpath", Dialect::Postgres)
    );
    match session.try_query(&marked).await {
        Ok(rows) => {
            let row = rows.first().ok_or(PgError::Answer("log position"));
            row.and_then(|row| row.parse(0, "log position")).map_err(|error| classify(WHAT, error))
        }
        Err(PgError::Server(_)) => {
            // The failed transaction is still open. The rest of the log will be flushed by whoever wrote it.
            session.close().await;
            Ok(inserted)
        }
        Err(error) => Err(classify(WHAT, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::offsets::Setup;
    use super::*;

    #[test]
    fn a_slot_that_is_ahead_is_refused_with_the_gap() {
        let system = System { id: "7".into(), timeline: 1, database: "shop".into() };
        let position = StreamDoc::new(&system, "s", Setup::Ready, Lsn(1000));
        assert!(ahead("s", Lsn(1000), &position).is_ok() && ahead("s", Lsn(0), &position).is_ok());
        let error = ahead("s", Lsn(1001), &position).unwrap_err();
        assert!(error.message().contains("1 bytes of log"), "{error}");
        assert!(error.hint().unwrap().contains("pg_drop_replication_slot('s')"));
        assert!(same_server(&system, "s", &position).is_ok());
        let other = System { timeline: 2, ..system.clone() };
        assert_eq!(same_server(&other, "s", &position).unwrap_err().code(), "PG_TIMELINE");
        let other = System { id: "8".into(), ..system };
        assert_eq!(same_server(&other, "s", &position).unwrap_err().code(), "PG_OTHER_SERVER");
    }
}
