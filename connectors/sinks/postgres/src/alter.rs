//! Changing the columns of a table that is there, as its source's were changed.

use std::collections::BTreeMap;

use towpath_api::{Computed, ConnectorError, ErrorKind, Field, Type};
use towpath_sql::sink::{ColumnChange, Columns, ColumnsError, Filling, Known, Layout, reconcile};
use towpath_sql::{Dialect, ident, idents, literal, pg_array};

use super::catalog::{Column, Table};
use super::computed;
use super::ddl::{locked, wanted_types};
use super::remembered::Remembered;
use super::session::Session;

/// Adds columns for fields that `table` does not have; renames and widens columns of tables that are ours. `empties`
/// says that its rows are about to go. Gives whether anything was done.
pub(crate) async fn adapt_columns(
    session: &mut Session,
    remembered: &Remembered,
    table: &Table,
    layout: &Layout,
    computed: &[Computed],
    empties: bool,
) -> Result<bool, ConnectorError> {
    let fields: Vec<&Field> = layout.columns.iter().map(|column| &column.field).collect();
    let types = wanted_types(session, &fields).await?;
    let mut known = remembered.load(session, &table.name).await?;
    let unchanged = remembered.unchanged_sql(&table.name, &known);
    let mut statements = Vec::new();
    if empties && is_another_table(&known, &fields) {
        // Nothing is left of the one before.
        known.clear();
        statements.push(remembered.forget_sql(&table.name));
    }
    // What is computed is made anew at the end, where it has to be.
    let is_ours = |column: &&Column| column.computed_by_us.is_some();
    let names = table.columns.iter().filter(|column| !is_ours(column));
    let names: Vec<String> = names.map(|column| column.name.clone()).collect();
    let columns = Columns { names: &names, known: &known, ours: table.ours, same: |one, other| one == other };
    let found = reconcile(columns, &fields).map_err(|error| refused(table, &error))?;
    let work = Alteration { table, fields: &fields, types: &types, changes: &found.changes };
    statements.extend(found.changes.iter().flat_map(|change| work.statements(change)));
    statements.extend(remembered.store_sql(&table.name, &found.known));
    let schema = table.name.schema.as_deref().unwrap_or_default();
    let what = format!("change the columns of {}", table.name);
    // In append mode truncations are left out: the rows stay, and have to fit.
    let groups = work.shape(layout, empties && !layout.is_append());
    let changes = !found.changes.is_empty() || !groups.is_empty();
    let dropped = computed::drop_stale(session, table, computed, changes).await?;
    if !statements.is_empty() {
        // Another task may have done the same since: swapped names would be swapped back.
        statements.insert(0, unchanged);
        locked(session, schema, &what, &statements).await?;
    }
    if !found.changes.is_empty() {
        tracing::info!(table = %table.name, changes = ?found.changes, "columns changed");
    }
    let mut changed = !found.changes.is_empty() || dropped;
    for statements in groups {
        match locked(session, schema, &what, &statements).await {
            Ok(()) => {
                changed = true;
                tracing::info!(table = %table.name, changes = statements.join("; "), "columns changed");
            }
            Err(error) if matches!(error.kind(), ErrorKind::RetryAfter(_)) => return Err(error),
            // A view stands in the way, for example. Values that fit as the table is still do; others are rejected.
            Err(error) => {
                tracing::warn!(table = %table.name, %error, changes = statements.join("; "), "columns not changed");
            }
        }
    }
    let missing = computed.iter().any(|column| table.column(&column.name).is_none());
    if table.ours && (dropped || missing) {
        let now = Table::load(session, &table.name).await?;
        if let Some(now) = now {
            changed |= computed::add_missing(session, &now, computed).await?;
        }
    }
    Ok(changed)
}

/// Whether what is remembered is of other tables of the source only.
fn is_another_table(known: &[Known], fields: &[&Field]) -> bool {
    let is_known =
        |field: &&Field| field.id.is_some_and(|id| known.iter().any(|known| known.id.table == id.table));
    !known.is_empty() && !fields.iter().any(is_known)
}

fn refused(table: &Table, error: &ColumnsError) -> ConnectorError {
    let quoted = table.name.quoted();
    let hint = match error {
        ColumnsError::Shared { to, .. } => format!(
            "let every source have a table of its own with `table`, or rename the field back to what it was with a \
             transform, and not to {to:?}"
        ),
        ColumnsError::Taken { from, to } => {
            format!(
                "rename or drop the other column: ALTER TABLE {quoted} DROP COLUMN {}; then {} can take its name",
                ident(to),
                ident(from)
            )
        }
    };
    ConnectorError::needs_operator("SINK_COLUMN_RENAMED", format!("{}: {error}", table.name)).with_hint(hint)
}

/// The changes of one table.
struct Alteration<'a> {
    table: &'a Table,
    fields: &'a [&'a Field],
    /// The type that each field's column should have.
    types: &'a BTreeMap<String, String>,
    changes: &'a [ColumnChange],
}

impl Alteration<'_> {
    fn statements(&self, change: &ColumnChange) -> Vec<String> {
        let table = self.table.name.quoted();
        match change {
            ColumnChange::Rename { from, to } => {
                vec![format!("ALTER TABLE {table} RENAME COLUMN {} TO {}", ident(from), ident(to))]
            }
            ColumnChange::Add(index) => {
                let field = self.fields[*index];
                add_column(&table, field, &self.types[&field.name])
            }
            ColumnChange::Fill(fillings) => {
                let assignments: Vec<String> = fillings.iter().map(|filling| self.filling(filling)).collect();
                vec![format!("UPDATE {table} SET {}", assignments.join(", "))]
            }
        }
    }

    fn filling(&self, filling: &Filling) -> String {
        let field = self.fields[filling.field];
        let column = self.table.column(&field.name);
        let ty = column.map_or(self.types[&field.name].as_str(), |column| column.full_type.as_str());
        let value = match &filling.from {
            Some(from) => format!("{}::text", ident(from)),
            None => initial(field).unwrap_or_else(|| "NULL".to_owned()),
        };
        format!("{} = CAST({value} AS {ty})", ident(&field.name))
    }

    /// The name that a column has before (`back`) or after the renamings.
    fn renamed(&self, name: &str, back: bool) -> String {
        let mut name = name.to_owned();
        let mut follow = |change: &ColumnChange| {
            if let ColumnChange::Rename { from, to } = change {
                let (from, to) = if back { (to, from) } else { (from, to) };
                if name == *from {
                    name.clone_from(to);
                }
            }
        };
        if back {
            self.changes.iter().rev().for_each(&mut follow);
        } else {
            self.changes.iter().for_each(&mut follow);
        }
        name
    }

    /// What else becomes of a table of ours, as groups of statements; it does without each of them.
    fn shape(&self, layout: &Layout, empties: bool) -> Vec<Vec<String>> {
        if !self.table.ours {
            return Vec::new();
        }
        let quoted = self.table.name.quoted();
        let (mut groups, mut exact) = (Vec::new(), Vec::new());
        for field in self.fields {
            let wanted = &self.types[&field.name];
            let is_added = |change: &ColumnChange| matches!(change, ColumnChange::Add(at) if self.fields[*at].name == field.name);
            let Some(column) = self.table.column(&self.renamed(&field.name, true)) else { continue };
            if self.changes.iter().any(is_added) || is_type(&column.full_type, wanted) {
                continue;
            }
            let name = ident(&field.name);
            if empties && !column.generated {
                exact.push(format!("ALTER COLUMN {name} TYPE {wanted} USING NULL::{wanted}"));
            }
            if let Some(ty) = widened(&column.full_type, wanted) {
                groups.push(vec![format!(
                    "ALTER TABLE {quoted} ALTER COLUMN {name} TYPE {ty} USING {name}::{ty}"
                )]);
            }
        }
        let truncate = || format!("TRUNCATE TABLE {quoted}");
        if !exact.is_empty() {
            // Whatever the types were: no row has to fit both. Where it fails, the wider types may still do.
            let alter = format!("ALTER TABLE {quoted} {}", exact.join(", "));
            groups.insert(0, vec![truncate(), alter]);
        }
        if let Some(mut key) = self.key(layout) {
            if empties {
                key.insert(0, truncate());
            }
            groups.push(key);
        }
        groups
    }

    /// The statements that give our table another primary key, if it needs one.
    fn key(&self, layout: &Layout) -> Option<Vec<String>> {
        if layout.is_append() {
            return None;
        }
        let (constraint, old) = match &self.table.primary {
            Some((constraint, old)) => (Some(constraint), old.as_slice()),
            None => (None, &[][..]),
        };
        let old: Vec<String> = old.iter().map(|name| self.renamed(name, false)).collect();
        let new: Vec<&str> =
            layout.key.iter().map(|column| layout.columns[*column].field.name.as_str()).collect();
        let same = old.len() == new.len() && new.iter().all(|name| old.iter().any(|old| old == name));
        if same {
            return None;
        }
        let quoted = self.table.name.quoted();
        let mut statements = Vec::new();
        if let Some(constraint) = constraint {
            let mut parts = vec![format!("DROP CONSTRAINT {}", ident(constraint))];
            let gone = old.iter().filter(|name| !new.contains(&name.as_str()));
            parts.extend(gone.map(|name| format!("ALTER COLUMN {} DROP NOT NULL", ident(name))));
            statements.push(format!("ALTER TABLE {quoted} {}", parts.join(", ")));
        }
        if !new.is_empty() {
            statements.push(format!("ALTER TABLE {quoted} ADD PRIMARY KEY ({})", idents(new)));
        }
        Some(statements)
    }
}

/// Whether `full` (as the session's `search_path` lets it be written) is the type `wanted`.
fn is_type(full: &str, wanted: &str) -> bool {
    full == wanted || wanted.strip_suffix(full).is_some_and(|schema| schema.ends_with('.'))
}

/// A field's initial value as an SQL expression.
fn initial(field: &Field) -> Option<String> {
    let initial = field.initial.as_deref()?;
    let text = match &field.ty {
        Type::Array(element) => pg_array::json_to_literal(initial, element, b',').ok(),
        _ => None,
    };
    Some(literal(text.as_deref().unwrap_or(initial), Dialect::Postgres))
}

/// Rows that are there get what the source's rows had; later rows bring their own.
fn add_column(table: &str, field: &Field, ty: &str) -> Vec<String> {
    let name = ident(&field.name);
    let add = format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {ty}");
    match initial(field) {
        None => vec![add],
        Some(value) => vec![
            format!("{add} DEFAULT CAST({value} AS {ty})"),
            format!("ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"),
        ],
    }
}

/// A type's name and the numbers in its parentheses: `numeric(10,2)`, `timestamp(3) without time zone`.
fn parts(ty: &str) -> Option<(String, Vec<u32>)> {
    let Some((before, rest)) = ty.split_once('(') else { return Some((ty.to_owned(), Vec::new())) };
    let (numbers, after) = rest.split_once(')')?;
    let numbers = numbers.split(',').map(|number| number.trim().parse().ok()).collect::<Option<_>>()?;
    Some((format!("{before}{after}"), numbers))
}

/// The type that holds every value of both, where that is not `from` itself: what a column of ours becomes.
fn widened(from: &str, wanted: &str) -> Option<String> {
    let is_integer = matches!(from, "smallint" | "integer" | "bigint");
    if is_integer && matches!(wanted, "real" | "double precision") {
        return Some("numeric".to_owned());
    }
    is_wider(from, wanted).then(|| wanted.to_owned())
}

/// Whether every value of type `from` is one of type `to`, which holds more.
fn is_wider(from: &str, to: &str) -> bool {
    let (Some((from, old)), Some((to, new))) = (parts(from), parts(to)) else { return false };
    let rank =
        |name: &str| ["smallint", "integer", "bigint", "numeric"].iter().position(|known| *known == name);
    let unbounded = new.is_empty();
    match (from.as_str(), to.as_str()) {
        (from, "text") => from != "text",
        ("real", "double precision") | ("date", "timestamp without time zone") | ("cidr", "inet") => true,
        // In UTC, as both sides of a pipeline see them.
        ("timestamp without time zone", "timestamp with time zone") => {
            unbounded || new >= old && !old.is_empty()
        }
        ("bit" | "bit varying", "bit varying") => (from != to || !old.is_empty()) && (unbounded || new > old),
        ("character varying", "character varying") => !old.is_empty() && (unbounded || new > old),
        ("numeric", "numeric") => match (old.as_slice(), new.as_slice()) {
            ([_, ..], []) => true,
            ([old_digits, old_scale], [digits, scale]) => {
                (digits, scale) != (old_digits, old_scale)
                    && scale >= old_scale
                    && digits.saturating_sub(*scale) >= old_digits.saturating_sub(*old_scale)
            }
            _ => false,
        },
        (from, to) if from == to => !old.is_empty() && (unbounded || new > old) && from.starts_with("time"),
        (from, to) => match (rank(from), rank(to)) {
            (Some(old_rank), Some(new_rank)) => old_rank < new_rank && unbounded,
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wider_types_hold_every_value() {
        for (from, to) in [
            ("smallint", "integer"),
            ("integer", "bigint"),
            ("integer", "numeric"),
            ("real", "double precision"),
            ("character varying(10)", "text"),
            ("character varying(10)", "character varying(20)"),
            ("character varying(10)", "character varying"),
            ("numeric(10,2)", "numeric"),
            ("numeric(10,2)", "numeric(12,4)"),
            ("timestamp(0) without time zone", "timestamp without time zone"),
            ("timestamp without time zone", "timestamp with time zone"),
            ("cidr", "inet"),
            ("bit(5)", "bit varying"),
            ("bit varying(5)", "bit varying(9)"),
        ] {
            assert!(is_wider(from, to), "{from} → {to}");
            assert!(!is_wider(to, from), "{to} → {from}");
            assert!(!is_wider(from, from) && !is_wider(to, to));
        }
        assert!(!is_wider("numeric(10,2)", "numeric(11,4)"), "fewer digits before the point");
        assert_eq!(widened("bigint", "double precision").as_deref(), Some("numeric"));
        assert_eq!(widened("numeric", "double precision"), None);
        assert!(!is_wider("text", "integer") && !is_wider("integer", "numeric(3,0)"));
    }

    #[test]
    fn a_types_schema_may_be_left_out() {
        assert!(is_type("integer", "integer") && is_type("mood", "public.mood"));
        assert!(!is_type("mood", "public.amood") && !is_type("integer", "bigint"));
    }
}
