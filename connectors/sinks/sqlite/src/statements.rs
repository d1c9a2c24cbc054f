//! The SQL of one plan.
//!
//! Wherever a column's value is read, its name is qualified by the table: to SQLite a quoted name that is no column (any
//! more) is a string, and a condition with it would only never hold.

use towpath_sql::ident;
use towpath_sql::sink::Layout;

use super::table::Table;

/// Variables of one statement (`SQLITE_MAX_VARIABLE_NUMBER`).
const VARIABLES_MAX: usize = 32_766;
/// Rows of one statement: few sizes, so that few statements are prepared.
const ROWS: [usize; 3] = [128, 16, 1];

/// Statements of one table and shape.
#[derive(Debug)]
pub(crate) struct Statements {
    table: String,
    /// Quoted names, by the layout's columns.
    names: Vec<String>,
    /// The key's columns.
    key: Vec<usize>,
    rowid: Option<&'static str>,
    pub(crate) truncate: String,
}

impl Statements {
    pub(crate) fn new(table: &Table, layout: &Layout) -> Self {
        let quoted = ident(&table.name);
        Self {
            truncate: format!("DELETE FROM {quoted}"),
            table: quoted,
            names: layout.columns.iter().map(|column| ident(&column.field.name)).collect(),
            key: layout.key.clone(),
            rowid: table.rowid,
        }
    }

    /// The largest prepared number of rows that is not more than `rows`, of `columns` values each.
    pub(crate) fn chunk(rows: usize, columns: usize) -> usize {
        let fits = |size: &usize| *size <= rows && size * columns <= VARIABLES_MAX;
        ROWS.into_iter().find(fits).unwrap_or(1)
    }

    fn list(&self, columns: &[usize]) -> String {
        columns.iter().map(|column| self.names[*column].as_str()).collect::<Vec<_>>().join(", ")
    }

    /// A column's value in the row that is there.
    fn value(&self, column: usize) -> String {
        format!("{}.{}", self.table, self.names[column])
    }

    /// Inserts `rows` rows.
    pub(crate) fn insert(&self, columns: &[usize], rows: usize) -> String {
        format!("INSERT INTO {} ({}) VALUES {}", self.table, self.list(columns), tuples(columns.len(), rows))
    }

    /// Inserts or updates `rows` rows by their key.
    pub(crate) fn upsert(&self, columns: &[usize], rows: usize) -> String {
        let set: Vec<String> = columns
            .iter()
            .filter(|column| !self.key.contains(column))
            .map(|column| format!("{0} = excluded.{0}", self.names[*column]))
            .collect();
        let action = if set.is_empty() { "NOTHING".into() } else { format!("UPDATE SET {}", set.join(", ")) };
        format!("{} ON CONFLICT ({}) DO {action}", self.insert(columns, rows), self.list(&self.key))
    }

    /// Deletes the rows of `rows` keys.
    pub(crate) fn delete(&self, rows: usize) -> String {
        let key = self.key.iter().map(|column| self.value(*column)).collect::<Vec<_>>().join(", ");
        match self.key.as_slice() {
            [_] => format!("DELETE FROM {} WHERE {key} IN ({})", self.table, vec!["?"; rows].join(", ")),
            _ => {
                let tuples = tuples(self.key.len(), rows);
                format!("DELETE FROM {} WHERE ({key}) IN (VALUES {tuples})", self.table)
            }
        }
    }

    /// Updates `set` of the row whose key follows in the arguments.
    pub(crate) fn update(&self, set: &[usize]) -> String {
        let assignments: Vec<String> = match (set, self.key.first()) {
            // Nothing to set; whether the row is there is still the question.
            ([], Some(key)) => vec![format!("{} = {}", self.names[*key], self.value(*key))],
            _ => set.iter().map(|column| format!("{} = ?", self.names[*column])).collect(),
        };
        let conditions: Vec<String> =
            self.key.iter().map(|key| format!("{} = ?", self.value(*key))).collect();
        format!("UPDATE {} SET {} WHERE {}", self.table, assignments.join(", "), conditions.join(" AND "))
    }

    /// Updates `set` (or deletes, without) in exactly one row that has the values of `before`, which follow in the
    /// arguments. `None` in a table whose rows cannot be told apart.
    pub(crate) fn change_one(&self, set: Option<&[usize]>, before: &[usize]) -> Option<String> {
        let rowid = self.rowid?;
        let action = match set {
            None => format!("DELETE FROM {}", self.table),
            Some(set) => {
                let assignments: Vec<String> =
                    set.iter().map(|column| format!("{} = ?", self.names[*column])).collect();
                format!("UPDATE {} SET {}", self.table, assignments.join(", "))
            }
        };
        let conditions: Vec<String> =
            before.iter().map(|column| format!("{} IS ?", self.value(*column))).collect();
        let conditions = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" AND ") };
        Some(format!(
            "{action} WHERE {rowid} = (SELECT {rowid} FROM {} WHERE {conditions} LIMIT 1)",
            self.table
        ))
    }
}

/// `(?, ?), (?, ?)`.
fn tuples(columns: usize, rows: usize) -> String {
    let tuple = format!("({})", vec!["?"; columns].join(", "));
    vec![tuple.as_str(); rows].join(", ")
}
