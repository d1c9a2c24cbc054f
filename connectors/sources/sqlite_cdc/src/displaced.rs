//! Rows that `REPLACE` removes to make room: their delete triggers are silent unless the application has set
//! `recursive_triggers`.
//!
//! Before a row is inserted or updated, the rows with which it would collide are written
//! down; behind the insert, those that are gone are told as deleted. Nothing is told where the statement was refused or
//! ignored: what was noted is forgotten before the next row is written.

use towpath_sql::ident;

use super::table::Table;

/// The statements that go into a table's triggers.
#[derive(Debug)]
pub(crate) struct Displacement {
    /// Before an insert.
    pub(crate) before_insert: String,
    /// Before an update.
    pub(crate) before_update: String,
    /// Behind either, first of all.
    pub(crate) after: String,
    /// Behind a delete: it is told already.
    pub(crate) after_delete: String,
}

/// What is needed for a table with these unique keys besides its primary key; `None` for one without.
pub(crate) fn displacement(
    table: &Table,
    unique: &[Vec<String>],
    (noted, outbox): (&str, &str),
    epoch: i64,
    now: &str,
) -> Option<Displacement> {
    if unique.is_empty() {
        return None;
    }
    const ROW: &str = "towpath_row.";
    let name = ident(&table.name);
    let same = |key: &[String], operator: &str, other: &str| {
        let column = |column: &String| format!("{ROW}{0} {operator} {other}{0}", ident(column));
        format!("({})", key.iter().map(column).collect::<Vec<_>>().join(" AND "))
    };
    let collides = unique.iter().map(|key| same(key, "=", "NEW.")).collect::<Vec<_>>().join(" OR ");
    // The row under the same key is not displaced: it is told as what it becomes.
    let key: Vec<_> = table.key_names().map(str::to_owned).collect();
    let other = |row: &str| match key.is_empty() {
        true => format!("{} <> {}", table.row_expression(ROW), table.row_expression(row)),
        false => format!("NOT {}", same(&key, "IS", row)),
    };
    let forget = format!("DELETE FROM {noted} WHERE epoch = {epoch}");
    let note = |other: &str| {
        format!(
            "{forget}; INSERT INTO {noted} SELECT {epoch}, {} FROM {name} AS towpath_row WHERE ({collides}) AND {other}",
            table.row_expression(ROW)
        )
    };
    Some(Displacement {
        before_insert: note(&other("NEW.")),
        before_update: note(&other("OLD.")),
        after: format!(
            "INSERT INTO {outbox} (epoch, op, ts_ms, before) SELECT {epoch}, 'd', {now}, before FROM {noted} AS towpath_noted \
             WHERE epoch = {epoch} AND NOT EXISTS (SELECT 1 FROM {name} AS towpath_row WHERE ({collides}) AND {} = \
             towpath_noted.before); {forget};",
            table.row_expression(ROW)
        ),
        after_delete: format!("{forget} AND before = {};", table.row_expression("OLD.")),
    })
}
