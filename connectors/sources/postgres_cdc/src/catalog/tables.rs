//! Which tables are captured.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, TableName, TablePattern, literal};

use super::super::errors::classify;
use super::super::session::Session;
use super::super::wire::{PgError, Row};

/// The schema of a pattern that names none.
const DEFAULT_SCHEMA: &str = "public";

/// What the configuration says about tables.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    pub(crate) tables: Vec<TablePattern>,
    pub(crate) exclude: Vec<TablePattern>,
    pub(crate) insert_only: Vec<TablePattern>,
}

fn any(patterns: &[TablePattern], name: &TableName) -> bool {
    let schema = name.schema.as_deref().unwrap_or(DEFAULT_SCHEMA);
    patterns.iter().any(|pattern| pattern.matches(schema, &name.table, DEFAULT_SCHEMA))
}

/// A table with rows of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) oid: u32,
    pub(crate) name: TableName,
    /// The planner's estimate.
    pub(crate) rows: u64,
}

/// A table to capture: ordinary, or the root of a partitioned one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) name: TableName,
    pub(crate) partitioned: bool,
    /// `d`efault, `n`othing, `f`ull, `i`ndex.
    pub(crate) identity: u8,
    /// Whether updates and deletes can be told, here and in every partition.
    pub(crate) identifiable: bool,
    pub(crate) insert_only: bool,
    /// Where the rows are: itself, or its partitions.
    pub(crate) leaves: Vec<Leaf>,
    pub(crate) readable: bool,
    pub(crate) schema_usable: bool,
    pub(crate) owned: bool,
}

/// The answer of [`find_tables`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Tables {
    /// What is captured.
    pub(crate) tables: Vec<Table>,
    /// Patterns of `tables` (by index) that match nothing capturable, and why.
    pub(crate) unmatched: Vec<(usize, Unmatched)>,
    /// Patterns of `insert_only` (by index) that match no captured table.
    pub(crate) unmatched_insert_only: Vec<usize>,
    /// Tables that match and cannot be captured for want of a log.
    pub(crate) unlogged: Vec<TableName>,
}

/// Why a pattern yields no table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unmatched {
    /// Nothing has such a name.
    Missing,
    /// Something has, but it holds no rows that could be captured.
    NotATable(&'static str),
    /// All that it matches is excluded.
    Excluded,
}

/// Everything in the database that has rows or looks like it.
struct Candidate {
    oid: u32,
    name: TableName,
    kind: u8,
    persistence: u8,
    identity: u8,
    has_primary_key: bool,
    has_identity_index: bool,
    readable: bool,
    owned: bool,
    schema_usable: bool,
    parent: Option<u32>,
    rows: u64,
}

impl Candidate {
    fn unfit(&self) -> Option<&'static str> {
        match (self.kind, self.persistence) {
            (b'v', _) => Some("it is a view"),
            (b'm', _) => Some("it is a materialized view"),
            (b'f', _) => Some("it is a foreign table"),
            (_, b'u') => Some("it is an unlogged table, whose changes are not in the WAL"),
            (_, b't') => Some("it is a temporary table"),
            _ => None,
        }
    }

    fn is_identifiable(&self) -> bool {
        match self.identity {
            b'd' => self.has_primary_key,
            b'i' => self.has_identity_index,
            b'f' => true,
            _ => false,
        }
    }
}

/// Finds the tables of `selection` in the catalog. Partitions of a captured table are part of it.
pub(crate) async fn find_tables(
    session: &mut Session,
    selection: &Selection,
) -> Result<Tables, ConnectorError> {
    const WHAT: &str = "read the catalog";
    let sql = "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, \
                      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary \
                              AND i.indimmediate AND i.indisvalid), \
                      EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisreplident), \
                      has_table_privilege(c.oid, 'SELECT'), pg_has_role(c.relowner, 'USAGE'), \
                      has_schema_privilege(n.oid, 'USAGE'), \
                      CASE WHEN c.relispartition THEN (SELECT i.inhparent FROM pg_inherits i WHERE i.inhrelid = c.oid \
                              ORDER BY i.inhseqno LIMIT 1) END, \
                      greatest(c.reltuples, 0)::int8 \
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' \
                  AND n.nspname !~ '^pg_(catalog|toast|temp)' \
                ORDER BY n.nspname, c.relname";
    let rows = session.query(WHAT, sql).await?;
    let candidates: Result<Vec<Candidate>, PgError> = rows.iter().map(candidate).collect();
    let candidates = candidates.map_err(|error| classify(WHAT, error))?;
    Ok(select(&candidates, selection))
}

/// Those of `leaves` that were created as partitions, so that every row of theirs came through the stream. One that was
/// attached later may have brought rows of its own; so may one that was attached by the transaction that wrote them.
pub(crate) async fn partitions_born_empty(
    session: &mut Session,
    leaves: &[Leaf],
) -> Result<BTreeSet<u32>, ConnectorError> {
    const WHAT: &str = "look at new partitions";
    let mut born = BTreeSet::new();
    for leaf in leaves {
        let sql = format!(
            "SELECT i.xmin = t.xmin AND NOT EXISTS (SELECT FROM ONLY {} r WHERE r.xmin = i.xmin) \
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_type t ON t.oid = c.reltype \
              WHERE i.inhrelid = {}",
            leaf.name.quoted(),
            leaf.oid
        );
        match session.try_query(&sql).await {
            Ok(rows) if rows.first().is_some_and(|row| row.flag(0)) => {
                born.insert(leaf.oid);
            }
            Ok(_) => {}
            // Gone already.
            Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => {}
            Err(error) => return Err(classify(WHAT, error)),
        }
    }
    Ok(born)
}

/// Whether `leaf` holds a row that was there when `snapshot` was taken: then it has not been emptied since.
pub(crate) async fn has_old_row(
    session: &mut Session,
    leaf: &Leaf,
    snapshot: &str,
) -> Result<bool, ConnectorError> {
    const WHAT: &str = "look at a partition's rows";
    let rows = session.query(WHAT, "SELECT pg_snapshot_xmax(pg_current_snapshot())").await?;
    let next = rows.first().ok_or(PgError::Answer("transaction id"));
    let next = next.and_then(|row| row.parse(0, "transaction id")).map_err(|error| classify(WHAT, error))?;
    let sql = format!(
        "SELECT EXISTS (SELECT FROM ONLY {} WHERE pg_visible_in_snapshot({}, {}::pg_snapshot))",
        leaf.name.quoted(),
        full_xmin(next),
        literal(snapshot, Dialect::Postgres)
    );
    match session.try_query(&sql).await {
        Ok(rows) => Ok(rows.first().is_some_and(|row| row.flag(0))),
        // It is gone, which is found out elsewhere.
        Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => Ok(true),
        Err(error) => Err(classify(WHAT, error)),
    }
}

/// A row's `xmin` with its epoch. `xmin` has the low 32 bits only; a row is at most 2³² transactions older than
/// `next_xid`, the next id there is. Ids below 3 mean "since ever".
pub(crate) fn full_xmin(next_xid: u64) -> String {
    let (epoch, low) = (next_xid & !0xffff_ffff, next_xid & 0xffff_ffff);
    let before = i128::from(epoch) - (1 << 32);
    format!(
        "(CASE WHEN xmin::text::int8 < 3 THEN 3 \
               WHEN xmin::text::int8 <= {low} THEN {epoch} + xmin::text::int8 \
               ELSE greatest({before} + xmin::text::int8, 3) END)::text::xid8"
    )
}

fn candidate(row: &Row) -> Result<Candidate, PgError> {
    let letter = |index, name| row.text(index, name).map(|text| text.bytes().next().unwrap_or_default());
    Ok(Candidate {
        oid: row.parse(0, "table")?,
        name: TableName::new(row.text(1, "schema")?, row.text(2, "table name")?),
        kind: letter(3, "kind")?,
        persistence: letter(4, "persistence")?,
        identity: letter(5, "replica identity")?,
        has_primary_key: row.flag(6),
        has_identity_index: row.flag(7),
        readable: row.flag(8),
        owned: row.flag(9),
        schema_usable: row.flag(10),
        parent: row.opt(11).map(|_| row.parse(11, "parent")).transpose()?,
        rows: row.parse(12, "row estimate")?,
    })
}

fn select(candidates: &[Candidate], selection: &Selection) -> Tables {
    let by_oid: HashMap<u32, &Candidate> = candidates.iter().map(|one| (one.oid, one)).collect();
    let wanted = |one: &Candidate| {
        one.unfit().is_none() && any(&selection.tables, &one.name) && !any(&selection.exclude, &one.name)
    };
    // The topmost ancestor that is wanted stands for its partitions.
    let root_of = |one: &Candidate| {
        let mut root = wanted(one).then_some(one.oid);
        let mut parent = one.parent;
        while let Some(ancestor) = parent.and_then(|oid| by_oid.get(&oid)) {
            if wanted(ancestor) {
                root = Some(ancestor.oid);
            }
            parent = ancestor.parent;
        }
        root
    };
    let mut members: BTreeMap<u32, Vec<&Candidate>> = BTreeMap::new();
    for one in candidates {
        if let Some(root) = root_of(one) {
            members.entry(root).or_default().push(one);
        }
    }
    let mut found = Tables::default();
    for one in candidates {
        if let Some(members) = members.get(&one.oid) {
            found.tables.push(table(one, members, any(&selection.insert_only, &one.name)));
        }
    }
    let is_unlogged = |one: &&Candidate| {
        one.persistence == b'u' && any(&selection.tables, &one.name) && !any(&selection.exclude, &one.name)
    };
    found.unlogged = candidates.iter().filter(is_unlogged).map(|one| one.name.clone()).collect();
    for (index, pattern) in selection.tables.iter().enumerate() {
        let only = std::slice::from_ref(pattern);
        let named: Vec<&Candidate> = candidates.iter().filter(|one| any(only, &one.name)).collect();
        if named.iter().any(|one| wanted(one)) {
            continue;
        }
        let why = match named.iter().find_map(|one| one.unfit()) {
            _ if named.is_empty() => Unmatched::Missing,
            Some(kind) => Unmatched::NotATable(kind),
            None => Unmatched::Excluded,
        };
        found.unmatched.push((index, why));
    }
    for (index, pattern) in selection.insert_only.iter().enumerate() {
        let only = std::slice::from_ref(pattern);
        if !found.tables.iter().any(|table| any(only, &table.name)) {
            found.unmatched_insert_only.push(index);
        }
    }
    found
}

fn table(root: &Candidate, members: &[&Candidate], insert_only: bool) -> Table {
    let leaves = members.iter().filter(|one| one.kind == b'r');
    Table {
        oid: root.oid,
        name: root.name.clone(),
        partitioned: root.kind == b'p',
        identity: root.identity,
        identifiable: members.iter().all(|one| one.is_identifiable()),
        insert_only,
        leaves: leaves.map(|one| Leaf { oid: one.oid, name: one.name.clone(), rows: one.rows }).collect(),
        readable: members.iter().all(|one| one.readable),
        schema_usable: members.iter().all(|one| one.schema_usable),
        owned: root.owned,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towpath_sql::Dialect;

    fn patterns(texts: &[&str]) -> Vec<TablePattern> {
        texts.iter().map(|text| TablePattern::parse(text, Dialect::Postgres).unwrap()).collect()
    }

    fn candidate(oid: u32, table: &str, kind: u8, parent: Option<u32>) -> Candidate {
        Candidate {
            oid,
            name: TableName::new("public", table),
            kind,
            persistence: b'p',
            identity: b'd',
            has_primary_key: true,
            has_identity_index: false,
            readable: true,
            owned: true,
            schema_usable: true,
            parent,
            rows: 5,
        }
    }

    #[test]
    fn xmin_gets_its_epoch() {
        let sql = full_xmin((2 << 32) + 100);
        assert!(sql.contains("<= 100 THEN 8589934592 + "), "{sql}");
        assert!(sql.contains("greatest(4294967296 + "), "{sql}");
        assert!(full_xmin(7).contains("greatest(-4294967296 + "), "no epoch before the first");
    }

    #[test]
    fn partitions_belong_to_the_topmost_wanted_table() {
        let candidates = [
            candidate(1, "root", b'p', None),
            candidate(2, "mid", b'p', Some(1)),
            candidate(3, "leaf_a", b'r', Some(2)),
            candidate(4, "leaf_b", b'r', Some(1)),
            candidate(5, "plain", b'r', None),
            candidate(6, "seen", b'v', None),
        ];
        let selection = Selection {
            tables: patterns(&["*"]),
            exclude: patterns(&["plain"]),
            insert_only: patterns(&["root"]),
        };
        let found = select(&candidates, &selection);
        assert_eq!(found.tables.len(), 1);
        let root = &found.tables[0];
        assert!(root.insert_only && root.partitioned);
        assert_eq!(root.leaves.iter().map(|leaf| leaf.oid).collect::<Vec<_>>(), [3, 4]);
        assert!(found.unmatched.is_empty() && found.unmatched_insert_only.is_empty());
        let selection =
            Selection { tables: patterns(&["mid", "leaf_b"]), exclude: vec![], insert_only: vec![] };
        let found = select(&candidates, &selection);
        let names: Vec<_> = found.tables.iter().map(|table| table.name.table.as_str()).collect();
        assert_eq!(names, ["mid", "leaf_b"]);
    }

    #[test]
    fn patterns_without_a_table_are_told_with_the_reason() {
        let candidates = [candidate(1, "a", b'r', None), candidate(2, "seen", b'v', None)];
        let selection = Selection {
            tables: patterns(&["nope", "seen", "a"]),
            exclude: patterns(&["a"]),
            insert_only: patterns(&["b"]),
        };
        let found = select(&candidates, &selection);
        let expected =
            [(0, Unmatched::Missing), (1, Unmatched::NotATable("it is a view")), (2, Unmatched::Excluded)];
        assert_eq!(found.unmatched, expected);
        assert_eq!(found.unmatched_insert_only, [0]);
    }
}
