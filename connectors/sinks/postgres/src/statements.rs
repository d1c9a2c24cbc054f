//! The SQL of one plan. Values come in as arrays of text, one for each column, and are cast by the server.

use std::fmt::Write as _;

use towpath_sql::{ident, idents};

use super::catalog::Table;
use super::columns::Target;

/// Statements of one table and shape, all but those that depend on which columns a record tells.
#[derive(Debug)]
pub(crate) struct Statements {
    table: String,
    partitioned: bool,
    overriding: &'static str,
    /// `COPY … FROM STDIN`, where the table and every column allow it.
    pub(crate) copy: Option<String>,
    /// Inserts rows: all targets.
    pub(crate) insert: String,
    /// Inserts or updates rows by their key: all targets.
    pub(crate) upsert: String,
    /// Deletes rows by their key: the key's targets.
    pub(crate) delete: String,
    /// Empties the table, the quick way and the one that needs no privilege of its own.
    pub(crate) truncate: String,
    pub(crate) delete_all: String,
    /// Names of columns whose indexes find rows.
    indexed: Vec<String>,
}

impl Statements {
    pub(crate) fn new(table: &Table, targets: &[Target], key: &[usize]) -> Self {
        let quoted = table.name.quoted();
        let always = targets.iter().any(|target| target.column.identity_always);
        let mut statements = Self {
            copy: (table.copyable && targets.iter().all(Target::is_direct))
                .then(|| format!("COPY {quoted} ({}) FROM STDIN", names(targets.iter()))),
            insert: String::new(),
            upsert: String::new(),
            delete: String::new(),
            truncate: format!("TRUNCATE TABLE {quoted}"),
            delete_all: format!("DELETE FROM {quoted}"),
            table: quoted,
            partitioned: table.partitioned,
            overriding: if always { " OVERRIDING SYSTEM VALUE" } else { "" },
            indexed: table.indexed.clone(),
        };
        let all: Vec<&Target> = targets.iter().collect();
        statements.insert = statements.insert_of(&all);
        if !key.is_empty() {
            let keys: Vec<&Target> = key.iter().map(|index| &targets[*index]).collect();
            let set: Vec<String> = (0..targets.len())
                .filter(|index| !key.contains(index) && !targets[*index].column.identity_always)
                .map(|index| ident(&targets[index].column.name))
                .map(|name| format!("{name} = EXCLUDED.{name}"))
                .collect();
            let action =
                if set.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", set.join(", ")) };
            let arbiter = names(keys.iter().copied());
            statements.upsert = format!("{} ON CONFLICT ({arbiter}) DO {action}", statements.insert);
            statements.delete = format!(
                "DELETE FROM {} AS t USING {} WHERE {}",
                statements.table,
                source(0, keys.len(), false),
                matches(&keys, 0)
            );
        }
        statements
    }

    /// Inserts rows of these targets; the other columns get their defaults.
    pub(crate) fn insert_of(&self, targets: &[&Target]) -> String {
        format!(
            // An alias, since a table may be called "excluded".
            "INSERT INTO {} AS t ({}){} SELECT {} FROM {}",
            self.table,
            names(targets.iter().copied()),
            self.overriding,
            casts(targets),
            source(0, targets.len(), false)
        )
    }

    /// Updates the rows that have the `keys` (which come after `set` in the arguments); gives the places, from 1, of
    /// those that were there.
    pub(crate) fn update_of(&self, set: &[&Target], keys: &[&Target]) -> String {
        let mut assignments: Vec<String> = set
            .iter()
            .enumerate()
            .filter(|(_, target)| !target.column.identity_always)
            .map(|(index, target)| {
                format!("{} = {}", ident(&target.column.name), target.cast(&format!("s.c{index}")))
            })
            .collect();
        if let ([], Some(first)) = (assignments.as_slice(), keys.first()) {
            // Nothing to set; whether the row is there is still the question.
            let name = ident(&first.column.name);
            assignments.push(format!("{name} = t.{name}"));
        }
        format!(
            "UPDATE {} AS t SET {} FROM {} WHERE {} RETURNING s.place::int8",
            self.table,
            assignments.join(", "),
            source(0, set.len() + keys.len(), true),
            matches(keys, set.len())
        )
    }

    /// Changes or deletes exactly one row that equals the image before. Arguments are plain texts: the values of
    /// `set` first (none of them GENERATED ALWAYS), then those of `before`. Columns are compared by their text, since not every type has an equality;
    /// where an index can find the row, by their value, too. `nulls` tells which of `before` are null.
    pub(crate) fn change_one(&self, set: Option<&[&Target]>, before: &[&Target], nulls: &[bool]) -> String {
        let first = set.map_or(0, <[_]>::len);
        let mut conditions = Vec::with_capacity(before.len() + 1);
        for (index, (target, null)) in before.iter().zip(nulls).enumerate() {
            let (name, value) = (ident(&target.column.name), format!("${}::text", first + index + 1));
            if *null {
                // The argument must be mentioned, or it would have no type.
                conditions.push(format!("t.{name} IS NULL AND {value} IS NULL"));
                continue;
            }
            if self.indexed.contains(&target.column.name) {
                conditions.push(format!("t.{name} = {}", target.cast(&value)));
            }
            conditions.push(format!("t.{name}::text = ({})::text", target.cast_full(&value)));
        }
        let conditions = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
        let relation = if self.partitioned { " AND t.tableoid = (SELECT relation FROM hit)" } else { "" };
        let mut sql = format!(
            "WITH hit AS MATERIALIZED (SELECT t.ctid AS place, t.tableoid AS relation FROM {} AS t WHERE {conditions} \
             LIMIT 1) ",
            self.table
        );
        match set {
            None => {
                let _ = write!(sql, "DELETE FROM {} AS t", self.table);
            }
            Some(targets) => {
                let assignments = targets.iter().enumerate().map(|(index, target)| {
                    let value = format!("${}::text", index + 1);
                    format!("{} = {}", ident(&target.column.name), target.cast(&value))
                });
                let assignments: Vec<String> = assignments.collect();
                let _ = write!(sql, "UPDATE {} AS t SET {}", self.table, assignments.join(", "));
            }
        }
        let _ = write!(sql, " WHERE t.ctid = (SELECT place FROM hit){relation}");
        sql
    }
}

fn names<'a>(targets: impl Iterator<Item = &'a Target>) -> String {
    idents(targets.map(|target| target.column.name.as_str()))
}

fn casts(targets: &[&Target]) -> String {
    let casts: Vec<String> =
        targets.iter().enumerate().map(|(index, target)| target.cast(&format!("s.c{index}"))).collect();
    casts.join(", ")
}

/// Rows of the arrays from the argument after `first`, as `s` with the columns `c0` …, and the row's number from 1 as
/// `place`. In the select list, since `FROM unnest(a, b, …)` writes every array into a store of its own first, which
/// costs six times as much.
fn source(first: usize, count: usize, with_place: bool) -> String {
    let column = |index: usize| format!("unnest(${}::text[]) AS c{index}", first + index + 1);
    let mut columns: Vec<String> = (0..count).map(column).collect();
    if with_place {
        columns.push(format!("generate_subscripts(${}::text[], 1) AS place", first + 1));
    }
    format!("(SELECT {}) AS s", columns.join(", "))
}

/// The condition that a row has the key in the columns of `s` after `first`.
fn matches(keys: &[&Target], first: usize) -> String {
    let conditions: Vec<String> = keys
        .iter()
        .enumerate()
        .map(|(index, key)| {
            format!("t.{} = {}", ident(&key.column.name), key.cast(&format!("s.c{}", first + index)))
        })
        .collect();
    conditions.join(" AND ")
}
