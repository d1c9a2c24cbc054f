//! Large values that a change does not tell, where the record would be of no use without them.
//!
//! A change of key is a delete and a create, and the create stands for the whole row; but the server leaves unchanged
//! TOAST values out of it (unless the replica identity is FULL). They are then read from the table. What is read can
//! be newer than the change; the stream has every later change of the value, so that whoever applies all of it ends
//! up right. A row that is gone by now stays without them: its delete follows.

use towpath_api::ConnectorError;
use towpath_sql::{Dialect, ident, idents, literal};

use super::super::cells::{Cell, Cells};
use super::super::session::Session;
use super::super::shape::Shape;

/// A row whose unchanged values have to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingToast {
    sql: String,
    /// The columns asked for, by place in the row.
    columns: Vec<usize>,
    width: usize,
}

impl MissingToast {
    /// `None` when every value of the new row `cells` is told.
    pub(super) fn of(shape: &Shape, cells: Cells<'_>) -> Option<Self> {
        let missing = |index: &usize| cells.get(*index) == Cell::Unchanged;
        let columns: Vec<usize> = (0..shape.columns().len()).filter(missing).collect();
        if columns.is_empty() || !shape.is_keyed() {
            return None;
        }
        let mut conditions = Vec::new();
        for (index, column) in shape.columns().iter().enumerate().filter(|(_, column)| column.key) {
            let Cell::Text(value) = cells.get(index) else { return None };
            let value = literal(std::str::from_utf8(value).ok()?, Dialect::Postgres);
            conditions.push(format!("{} = {value}", ident(&column.name)));
        }
        let names = columns.iter().map(|index| shape.columns()[*index].name.as_str());
        let sql = format!(
            "SELECT {} FROM {} WHERE {}",
            idents(names),
            shape.table.quoted(),
            conditions.join(" AND ")
        );
        Some(Self { sql, columns, width: shape.columns().len() })
    }
}

/// Reads the values: one per column of the row, `None` for those that were told, and for all when the row is gone.
pub(crate) async fn fetch_toast(
    session: &mut Session,
    missing: &MissingToast,
) -> Result<Vec<Option<Option<String>>>, ConnectorError> {
    let mut values = vec![None; missing.width];
    let rows = match session.try_query(&missing.sql).await {
        Ok(rows) => rows,
        // The column or table is gone: so is the value, and the stream tells how.
        Err(error) if matches!(error.sqlstate(), Some("42703" | "42P01")) => return Ok(values),
        Err(error) => {
            return Err(super::super::errors::classify("read values that a change of key left out", error));
        }
    };
    if let Some(row) = rows.first() {
        for (place, column) in missing.columns.iter().enumerate() {
            values[*column] = Some(row.opt(place).map(str::to_owned));
        }
    }
    Ok(values)
}
