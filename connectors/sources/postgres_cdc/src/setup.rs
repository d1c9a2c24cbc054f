//! What a pipeline keeps in the database: publications and the replication slot.

use std::collections::{HashMap, HashSet};

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, TableName, ident, literal};

use super::catalog::Table;
use super::config::Names;
use super::errors::classify;
use super::lsn::Lsn;
use super::offsets::System;
use super::session::Session;
use super::wire::{Connection, Kind, PgError, Row};

/// Asks the server who it is, over a replication connection of its own.
pub(crate) async fn identify(session: &Session) -> Result<System, PgError> {
    let mut connection =
        Box::pin(Connection::open(session.endpoint(), Kind::Replication, session.name())).await?;
    let rows = connection.query("IDENTIFY_SYSTEM").await?;
    let row = rows.first().ok_or(PgError::Answer("system identifier"))?;
    let system = System {
        id: row.text(0, "system identifier")?.to_owned(),
        timeline: row.parse(1, "timeline")?,
        database: row.text(3, "database")?.to_owned(),
    };
    connection.close().await;
    Ok(system)
}

/// A publication as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Publication {
    pub(crate) all_tables: bool,
    pub(crate) via_root: bool,
    /// insert, update, delete, truncate.
    pub(crate) publishes: [bool; 4],
    pub(crate) owned: bool,
    pub(crate) tables: HashSet<u32>,
}

/// Reads the two publications of `names`, as far as they exist.
pub(crate) async fn publications(
    session: &mut Session,
    names: &Names,
) -> Result<HashMap<String, Publication>, ConnectorError> {
    const WHAT: &str = "read the publications";
    let quoted = |name: &str| literal(name, Dialect::Postgres);
    let sql = format!(
        "SELECT p.pubname, p.puballtables, p.pubviaroot, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, \
                pg_has_role(p.pubowner, 'USAGE'), \
                (SELECT string_agg(r.prrelid::text, ',') FROM pg_publication_rel r WHERE r.prpubid = p.oid) \
           FROM pg_publication p WHERE p.pubname IN ({}, {})",
        quoted(&names.publication),
        quoted(&names.insert_only_publication)
    );
    let rows = session.query(WHAT, &sql).await?;
    let read = |row: &Row| {
        let oids = row.opt(8).unwrap_or_default();
        let publication = Publication {
            all_tables: row.flag(1),
            via_root: row.flag(2),
            publishes: [row.flag(3), row.flag(4), row.flag(5), row.flag(6)],
            owned: row.flag(7),
            tables: oids.split(',').filter_map(|oid| oid.parse().ok()).collect(),
        };
        Ok((row.text(0, "publication name")?.to_owned(), publication))
    };
    rows.iter().map(read).collect::<Result<_, PgError>>().map_err(|error| classify(WHAT, error))
}

/// One of the two publications as it should be.
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    publish: &'static str,
    publishes: [bool; 4],
    pub(crate) tables: Vec<&'a Table>,
}

/// What the publications of `names` should be for `tables`. Both always exist, so that the set that the stream is
/// opened with, and with it the numbering of changes, never depends on the configuration.
pub(crate) fn wanted<'a>(names: &'a Names, tables: &'a [Table]) -> [Wanted<'a>; 2] {
    let of = |insert_only| tables.iter().filter(|table| table.insert_only == insert_only).collect();
    [
        Wanted {
            name: &names.publication,
            publish: "insert, update, delete, truncate",
            publishes: [true; 4],
            tables: of(false),
        },
        Wanted {
            name: &names.insert_only_publication,
            publish: "insert, truncate",
            publishes: [true, false, false, true],
            tables: of(true),
        },
    ]
}

/// `ONLY` keeps inheritance children, which are tables of their own, out; a partitioned table means its partitions.
fn member(name: &TableName, partitioned: bool) -> String {
    if partitioned { name.quoted() } else { format!("ONLY {}", name.quoted()) }
}

impl Wanted<'_> {
    /// The statement that creates it.
    pub(crate) fn create_sql(&self) -> String {
        let members: Vec<String> =
            self.tables.iter().map(|table| member(&table.name, table.partitioned)).collect();
        let tables =
            if members.is_empty() { String::new() } else { format!(" FOR TABLE {}", members.join(", ")) };
        let options = self.options();
        format!("CREATE PUBLICATION {}{tables} WITH ({options})", ident(self.name))
    }

    fn options(&self) -> String {
        format!("publish = '{}', publish_via_partition_root = true", self.publish)
    }

    /// The statements that turn `existing` into it. With `prune`, tables that are not wanted are taken out, too;
    /// `never` are taken out in any case.
    pub(crate) fn alter_sql(&self, existing: &Publication, prune: bool, never: &[&Table]) -> Vec<String> {
        let name = ident(self.name);
        let mut statements = Vec::new();
        if existing.publishes != self.publishes || !existing.via_root {
            statements.push(format!("ALTER PUBLICATION {name} SET ({})", self.options()));
        }
        if existing.all_tables {
            return statements;
        }
        let members = |tables: &[&Table]| -> String {
            let members: Vec<String> =
                tables.iter().map(|table| member(&table.name, table.partitioned)).collect();
            members.join(", ")
        };
        let wanted: HashSet<u32> = self.tables.iter().map(|table| table.oid).collect();
        if prune && existing.tables.iter().any(|oid| !wanted.contains(oid)) && !self.tables.is_empty() {
            statements.push(format!("ALTER PUBLICATION {name} SET TABLE {}", members(&self.tables)));
            return statements;
        }
        let misplaced: Vec<&Table> =
            never.iter().copied().filter(|table| existing.tables.contains(&table.oid)).collect();
        if !misplaced.is_empty() {
            statements.push(format!("ALTER PUBLICATION {name} DROP TABLE {}", members(&misplaced)));
        }
        let missing: Vec<&Table> =
            self.tables.iter().copied().filter(|table| !existing.tables.contains(&table.oid)).collect();
        if !missing.is_empty() {
            statements.push(format!("ALTER PUBLICATION {name} ADD TABLE {}", members(&missing)));
        }
        statements
    }
}

/// The statements that bring both publications into the state that `tables` need; none if they are in it.
pub(crate) fn publication_statements(
    names: &Names,
    tables: &[Table],
    existing: &HashMap<String, Publication>,
) -> Vec<(String, Vec<String>)> {
    let wanted = wanted(names, tables);
    let mut statements = Vec::new();
    for (index, one) in wanted.iter().enumerate() {
        let never = &wanted[1 - index].tables;
        let needed = match existing.get(one.name) {
            None => vec![one.create_sql()],
            Some(existing) => one.alter_sql(existing, names.own_publication, never),
        };
        if !needed.is_empty() {
            statements.push((one.name.to_owned(), needed));
        }
    }
    statements
}

/// Creates or alters the publications for `tables`. Comes before the slot: a slot cannot see what was published after
/// the changes that it reads.
pub(crate) async fn ensure_publications(
    session: &mut Session,
    names: &Names,
    tables: &[Table],
) -> Result<(), ConnectorError> {
    let existing = publications(session, names).await?;
    for (name, statements) in publication_statements(names, tables, &existing) {
        for sql in statements {
            tracing::info!(publication = %name, %sql, "setting up the publication");
            session.try_query(&sql).await.map_err(|error| {
                let refused = error.sqlstate() == Some("42501");
                let error = classify(&format!("set up publication {name}"), error);
                if refused {
                    error.with_hint(format!("let the tables' owner or a superuser type: {sql};"))
                } else {
                    error
                }
            })?;
        }
    }
    Ok(())
}

/// A slot that was just created, with the snapshot that belongs to it. The snapshot lives as long as the connection.
#[derive(Debug)]
pub(crate) struct FreshSlot {
    connection: Connection,
    /// Transactions that commit before it are in the snapshot, all others come through the slot.
    pub(crate) consistent: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub(crate) snapshot_name: String,
}

impl FreshSlot {
    /// Whether the connection, and with it the snapshot, is no longer needed.
    pub(crate) async fn close(self) {
        self.connection.close().await;
    }
}

/// Creates slot `name`; a temporary one vanishes with its connection. Waits for transactions that are running.
pub(crate) async fn create_slot(
    session: &Session,
    name: &str,
    temporary: bool,
) -> Result<FreshSlot, ConnectorError> {
    let what = format!("create replication slot {name}");
    let failed = |error| classify(&what, error);
    let opening = Box::pin(Connection::open(session.endpoint(), Kind::Replication, session.name()));
    let mut connection = opening.await.map_err(failed)?;
    let kind = if temporary { "TEMPORARY " } else { "" };
    // The syntax of PostgreSQL 13, which later versions read as well.
    let sql = format!("CREATE_REPLICATION_SLOT {} {kind}LOGICAL pgoutput EXPORT_SNAPSHOT", ident(name));
    let rows = connection.query_slowly(&sql).await.map_err(failed)?;
    let read = || {
        let row = rows.first().ok_or(PgError::Answer("new slot"))?;
        Ok((row.parse(1, "consistent point")?, row.text(2, "snapshot name")?.to_owned()))
    };
    let (consistent, snapshot_name) = read().map_err(failed)?;
    Ok(FreshSlot { connection, consistent, snapshot_name })
}

/// Drops slot `name`.
pub(crate) async fn drop_slot(session: &mut Session, name: &str) -> Result<(), ConnectorError> {
    let sql = format!("SELECT pg_drop_replication_slot({})", literal(name, Dialect::Postgres));
    session.query("drop the unused replication slot", &sql).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: u32, name: &str, insert_only: bool) -> Table {
        Table {
            oid,
            name: TableName::new("public", name),
            partitioned: name.starts_with("part"),
            identity: b'd',
            identifiable: true,
            insert_only,
            leaves: vec![],
            readable: true,
            schema_usable: true,
            owned: true,
        }
    }

    fn names() -> Names {
        Names {
            slot: "s".into(),
            publication: "p".into(),
            insert_only_publication: "p_insert_only".into(),
            own_publication: true,
        }
    }

    #[test]
    fn publications_are_created_with_their_tables() {
        let tables = [table(1, "a\"b", false), table(2, "parts", false), table(3, "log", true)];
        let statements = publication_statements(&names(), &tables, &HashMap::new());
        assert_eq!(
            statements[0].1,
            [
                r#"CREATE PUBLICATION "p" FOR TABLE ONLY "public"."a""b", "public"."parts" WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"#
            ]
        );
        assert_eq!(
            statements[1].1,
            [
                r#"CREATE PUBLICATION "p_insert_only" FOR TABLE ONLY "public"."log" WITH (publish = 'insert, truncate', publish_via_partition_root = true)"#
            ]
        );
    }

    #[test]
    fn publications_are_altered_only_as_far_as_needed() {
        let tables = [table(1, "a", false), table(3, "log", true)];
        let publication = |oids: &[u32], publishes| Publication {
            via_root: true,
            publishes,
            owned: true,
            tables: oids.iter().copied().collect(),
            ..Publication::default()
        };
        let insert_only = ("p_insert_only".to_owned(), publication(&[3], [true, false, false, true]));
        let state = |oids: &[u32]| {
            HashMap::from([("p".to_owned(), publication(oids, [true; 4])), insert_only.clone()])
        };
        assert!(publication_statements(&names(), &tables, &state(&[1])).is_empty());
        let added = publication_statements(&names(), &tables, &state(&[]));
        assert_eq!(added[0].1, [r#"ALTER PUBLICATION "p" ADD TABLE ONLY "public"."a""#]);
        let pruned = publication_statements(&names(), &tables, &state(&[1, 9]));
        assert_eq!(pruned[0].1, [r#"ALTER PUBLICATION "p" SET TABLE ONLY "public"."a""#]);
        let chosen = Names { own_publication: false, ..names() };
        assert!(publication_statements(&chosen, &tables, &state(&[1, 9])).is_empty(), "others' tables stay");
        let misplaced = publication_statements(&chosen, &tables, &state(&[1, 3]));
        assert_eq!(misplaced[0].1, [r#"ALTER PUBLICATION "p" DROP TABLE ONLY "public"."log""#]);
    }
}
