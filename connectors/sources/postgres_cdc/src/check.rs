//! What a database lacks for capture: everything at once, each with what to type.

use std::num::ParseIntError;

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, ident, literal};

use super::catalog::{Table, Tables, Unmatched, find_slot, find_tables};
use super::config::{Config, Names, SnapshotMode};
use super::errors::classify;
use super::session::Session;
use super::setup::{identify, publication_statements, publications};
use super::wire::{PgError, Row};

/// The oldest version that can publish partitions under their root's name.
const VERSION_MIN: u32 = 130_000;

/// What was found in order, and what was not.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) good: Vec<String>,
    pub(crate) bad: Vec<ConnectorError>,
}

/// Looks at everything that capture needs. Changes nothing.
pub(crate) async fn check(session: &mut Session, config: &Config, names: &Names) -> Findings {
    let mut findings = Findings::default();
    match session.connection().await {
        Ok(connection) if connection.server_version < VERSION_MIN => {
            findings.bad.push(too_old(connection.server_version));
            return findings;
        }
        Ok(connection) => {
            let major = connection.server_version / 10_000;
            let target = session.endpoint().target();
            findings.good.push(format!("connected to PostgreSQL {major} at {target}"));
        }
        Err(error) => {
            findings.bad.push(classify(&format!("connect to {}", session.endpoint().target()), error));
            return findings;
        }
    }
    let parts = [
        server(session, config, names, &mut findings).await,
        tables(session, config, names, &mut findings).await,
    ];
    findings.bad.extend(parts.into_iter().filter_map(Result::err));
    findings
}

/// The version does not do.
pub(crate) fn too_old(version: u32) -> ConnectorError {
    ConnectorError::needs_operator("PG_VERSION", format!("PostgreSQL {} is too old", version / 10_000))
        .with_hint("capture needs PostgreSQL 13 or newer")
}

/// Whether `version` does.
pub(crate) const fn is_supported(version: u32) -> bool {
    version >= VERSION_MIN
}

/// Settings, the role's right to replicate, and room for a slot.
async fn server(
    session: &mut Session,
    config: &Config,
    names: &Names,
    findings: &mut Findings,
) -> Result<(), ConnectorError> {
    const WHAT: &str = "read the server's settings";
    let sql = "SELECT current_setting('wal_level'), rolreplication OR rolsuper, rolname, \
                      current_setting('max_replication_slots'), (SELECT count(*) FROM pg_replication_slots), \
                      current_setting('max_wal_senders'), (SELECT count(*) FROM pg_stat_replication), \
                      pg_encoding_to_char((SELECT encoding FROM pg_database WHERE datname = current_database())), \
                      pg_is_in_recovery() \
                 FROM pg_roles WHERE rolname = current_user";
    let rows = session.query(WHAT, sql).await?;
    let row = rows.first().ok_or(PgError::Answer("settings")).map_err(|error| classify(WHAT, error))?;
    let text = |index| row.opt(index).unwrap_or_default().to_owned();
    if text(0) == "logical" {
        findings.good.push("wal_level is logical".to_owned());
    } else {
        findings.bad.push(
            ConnectorError::needs_operator("PG_WAL_LEVEL", format!("wal_level is {}, not logical", text(0)))
                .with_hint("ALTER SYSTEM SET wal_level = 'logical'; then restart the server"),
        );
    }
    if text(7) == "SQL_ASCII" {
        findings.bad.push(
            ConnectorError::needs_operator("PG_ENCODING", "the database's encoding is SQL_ASCII").with_hint(
                "its texts have no known encoding; capture needs a database with one, such as UTF8",
            ),
        );
    }
    replication(session, &text(2), row.flag(1), findings).await;
    room(session, config, names, row, findings).await
}

/// Some services grant replication by other means than the attribute, so trying it decides.
async fn replication(session: &Session, role: &str, attribute: bool, findings: &mut Findings) {
    match identify(session).await {
        Ok(system) => findings.good.push(format!("role {role} may replicate (system {})", system.id)),
        Err(error) if !attribute && error.sqlstate().is_some() => findings.bad.push(
            ConnectorError::needs_operator(
                "PG_REPLICATION_PRIVILEGE",
                format!("role {role} may not replicate"),
            )
            .with_hint(format!("ALTER ROLE {} WITH REPLICATION;", ident(role)))
            .with_cause(error),
        ),
        Err(error) => findings.bad.push(classify("open a replication connection", error)),
    }
}

async fn room(
    session: &mut Session,
    config: &Config,
    names: &Names,
    row: &Row,
    findings: &mut Findings,
) -> Result<(), ConnectorError> {
    let number = |index| -> Result<u64, ParseIntError> { row.opt(index).unwrap_or_default().parse() };
    let existing = find_slot(session, &names.slot).await?;
    let snapshot = u64::from(config.snapshot != SnapshotMode::Never);
    let streams = u64::from(config.snapshot != SnapshotMode::Only);
    // A copy that has to be resumed takes a second slot for a while; the first start takes one.
    let needed = if existing.is_some() { snapshot } else { streams.max(snapshot) };
    if let (Ok(most), Ok(used)) = (number(3), number(4)) {
        if used + needed > most {
            findings.bad.push(
                ConnectorError::needs_operator(
                    "PG_SLOTS_FULL",
                    format!("{used} of {most} replication slots are taken, and {needed} more are needed"),
                )
                .with_hint(format!(
                    "ALTER SYSTEM SET max_replication_slots = {}; then restart the server; or drop slots that nobody \
                     uses: SELECT slot_name FROM pg_replication_slots WHERE NOT active;",
                    used + needed + 2
                )),
            );
        } else {
            findings.good.push(format!("{} replication slots are free", most.saturating_sub(used)));
        }
    }
    let active = existing.as_ref().is_some_and(|slot| slot.active_pid.is_some());
    let senders = if active { 0 } else { 1 };
    if let (Ok(most), Ok(used)) = (number(5), number(6))
        && used + senders > most
    {
        findings.bad.push(
            ConnectorError::needs_operator("PG_SENDERS_FULL", format!("all {most} WAL senders are taken"))
                .with_hint(format!(
                    "ALTER SYSTEM SET max_wal_senders = {}; then restart the server",
                    most + 3
                )),
        );
    }
    if let Some(reason) = existing.as_ref().and_then(|slot| slot.lost_because()) {
        findings.bad.push(ConnectorError::terminal(
            "PG_SLOT_LOST",
            format!("replication slot {} was given up by the server ({reason})", names.slot),
        ));
    }
    Ok(())
}

/// Tables, the right to read and to publish them.
async fn tables(
    session: &mut Session,
    config: &Config,
    names: &Names,
    findings: &mut Findings,
) -> Result<(), ConnectorError> {
    let found = find_tables(session, &config.selection).await?;
    findings.bad.extend(problems(config, &found));
    if !found.tables.is_empty() {
        findings.good.push(format!("{} tables match", found.tables.len()));
    }
    if config.snapshot == SnapshotMode::Only {
        return Ok(());
    }
    let existing = publications(session, names).await?;
    let statements = publication_statements(names, &found.tables, &existing);
    if statements.is_empty() {
        findings.good.push(format!("publications {} are as needed", names.publication));
        return Ok(());
    }
    const WHAT: &str = "read the database's privileges";
    let rows = session
        .query(
            WHAT,
            "SELECT has_database_privilege(current_database(), 'CREATE'), current_user, current_database(), \
                    (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)",
        )
        .await?;
    let row = rows.first().ok_or(PgError::Answer("privileges")).map_err(|error| classify(WHAT, error))?;
    if row.flag(3) {
        return Ok(());
    }
    let (role, database) = (ident(row.opt(1).unwrap_or_default()), ident(row.opt(2).unwrap_or_default()));
    for (name, statements) in statements {
        let sql = statements.join("; ");
        match existing.get(&name) {
            None if !row.flag(0) => findings.bad.push(
                ConnectorError::needs_operator(
                    "PG_PUBLICATION_PRIVILEGE",
                    format!("role {role} may not create publication {name}"),
                )
                .with_hint(format!(
                    "GRANT CREATE ON DATABASE {database} TO {role}; or let a superuser type: {sql};"
                )),
            ),
            Some(publication) if !publication.owned => findings.bad.push(
                ConnectorError::needs_operator(
                    "PG_PUBLICATION_OWNER",
                    format!("publication {name} is not as needed, and role {role} does not own it"),
                )
                .with_hint(format!("let its owner type: {sql};")),
            ),
            _ => findings.bad.extend(found.tables.iter().filter(|table| !table.owned).map(|table| {
                ConnectorError::needs_operator(
                    "PG_TABLE_OWNER",
                    format!("role {role} does not own {} and cannot publish it", table.name),
                )
                .with_hint(format!("let its owner grant its role to {role}, or let a superuser type: {sql};"))
            })),
        }
    }
    Ok(())
}

/// What is wrong with the tables that were found, and with what was not found.
pub(crate) fn problems(config: &Config, found: &Tables) -> Vec<ConnectorError> {
    let mut problems = Vec::new();
    for (index, why) in &found.unmatched {
        let pattern = &config.selection.tables[*index];
        let (message, hint) = match why {
            Unmatched::Missing if pattern.is_glob() => {
                (format!("no table matches {pattern}"), "check the schema's name")
            }
            Unmatched::Missing => (
                format!("table {pattern} does not exist, or this user may not see it"),
                "names without quotes are taken in lower case: write public.\"Orders\" for a name with capitals",
            ),
            Unmatched::NotATable(kind) => {
                (format!("{pattern} cannot be captured: {kind}"), "name tables with rows of their own")
            }
            Unmatched::Excluded => (
                format!("{pattern} matches only tables that exclude_tables leaves out"),
                "remove one of the two",
            ),
        };
        problems.push(
            ConnectorError::needs_operator("PG_TABLE_MISSING", message)
                .with_path(format!("tables[{index}]"))
                .with_hint(hint),
        );
    }
    for index in &found.unmatched_insert_only {
        let pattern = &config.selection.insert_only[*index];
        problems.push(
            ConnectorError::needs_operator(
                "PG_TABLE_MISSING",
                format!("{pattern} is none of the captured tables"),
            )
            .with_path(format!("insert_only[{index}]"))
            .with_hint("tables in insert_only must be matched by tables, too"),
        );
    }
    problems.extend(found.tables.iter().filter_map(unfit));
    problems
}

/// Why `table` cannot be captured as it is, if so.
pub(crate) fn unfit(table: &Table) -> Option<ConnectorError> {
    let quoted = table.name.quoted();
    if !table.insert_only && !table.identifiable {
        return Some(
            ConnectorError::needs_operator(
                "PG_NO_REPLICA_IDENTITY",
                format!(
                    "{} has neither a primary key nor another replica identity: once it is published, PostgreSQL would \
                     refuse every UPDATE and DELETE of it",
                    table.name
                ),
            )
            .with_path("tables")
            .with_hint(format!(
                "two ways out: ALTER TABLE {quoted} REPLICA IDENTITY FULL; or, if its rows are only ever inserted, list \
                 {} under insert_only",
                table.name
            )),
        );
    }
    let schema = table.name.schema.clone().unwrap_or_default();
    let hint = match (table.schema_usable, table.readable) {
        (true, true) => return None,
        (false, true) => format!("GRANT USAGE ON SCHEMA {} TO the user of the URL;", ident(&schema)),
        (true, false) => format!("GRANT SELECT ON {quoted} TO the user of the URL;"),
        (false, false) => format!(
            "GRANT USAGE ON SCHEMA {} TO the user of the URL; GRANT SELECT ON {quoted} TO the user of the URL;",
            ident(&schema)
        ),
    };
    let message = format!("the user of the URL may not read {}", table.name);
    Some(ConnectorError::needs_operator("PG_SELECT_PRIVILEGE", message).with_path("tables").with_hint(hint))
}

/// What keeps a first start from creating its slot: one of that name that is not known to be ours.
pub(crate) fn slot_exists(slot: &str) -> ConnectorError {
    ConnectorError::needs_operator(
        "PG_SLOT_EXISTS",
        format!("replication slot {slot} exists, but this pipeline has no stored position in it"),
    )
    .with_hint(format!(
        "if no other pipeline uses it, type SELECT pg_drop_replication_slot({}); otherwise choose another name with the \
         option slot",
        literal(slot, Dialect::Postgres)
    ))
}
