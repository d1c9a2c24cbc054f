//! Changing the columns of a table that is there, as its source's were changed.

use towpath_api::{ConnectorError, Field, Type};
use towpath_sql::sink::{ColumnChange, Columns, ColumnsError, Fault, Layout, reconcile};
use towpath_sql::{Dialect, ident, literal};

use super::database::Database;
use super::remembered;
use super::table::{Table, definition};

/// Adds or renames columns for fields that `table` does not have. `empties` says that its rows are about to go. Gives
/// whether anything was done.
pub(crate) async fn adapt(
    database: &mut Database,
    table: &Table,
    layout: &Layout,
    empties: bool,
) -> Result<bool, ConnectorError> {
    let fields: Vec<&Field> = layout.columns.iter().map(|column| &column.field).collect();
    let mut known = remembered::load(database, &table.name).await?;
    let mut statements = Vec::new();
    let is_of = |field: &&Field| {
        field.id.is_some_and(|id| known.known.iter().any(|known| known.id.table == id.table))
    };
    if empties && !known.known.is_empty() && !fields.iter().any(is_of) {
        // Nothing is left of the source's table before.
        known.known.clear();
        statements.push(remembered::forget_columns(&table.name));
    }
    let names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
    // SQLite's names are equal without regard to ASCII case.
    let same = |one: &str, other: &str| one.eq_ignore_ascii_case(other);
    let columns = Columns { names: &names, known: &known.known, ours: known.ours, same };
    let found = reconcile(columns, &fields).map_err(|error| refused(table, &error))?;
    statements.extend(found.changes.iter().map(|change| statement(table, &fields, change)));
    statements.extend(remembered::store(&table.name, &found.known));
    if statements.is_empty() {
        return Ok(false);
    }
    let sql = format!("BEGIN IMMEDIATE; {}; COMMIT", statements.join(";\n"));
    let what = format!("change the columns of {}", table.name);
    database.script(&what, sql).await.map_err(Fault::fatal)?;
    if found.changes.is_empty() {
        return Ok(false);
    }
    tracing::info!(table = table.name, changes = ?found.changes, "columns changed");
    Ok(true)
}

fn refused(table: &Table, error: &ColumnsError) -> ConnectorError {
    let hint = match error {
        ColumnsError::Shared { .. } => "let every source have a table of its own with `table`",
        ColumnsError::Taken { .. } => "rename or drop the other column",
    };
    ConnectorError::needs_operator("SINK_COLUMN_RENAMED", format!("{}: {error}", table.name)).with_hint(hint)
}

fn statement(table: &Table, fields: &[&Field], change: &ColumnChange) -> String {
    let quoted = ident(&table.name);
    match change {
        ColumnChange::Rename { from, to } => {
            format!("ALTER TABLE {quoted} RENAME COLUMN {} TO {}", ident(from), ident(to))
        }
        ColumnChange::Add(index) => {
            let field = fields[*index];
            let initial = initial(field).map(|value| format!(" DEFAULT {value}")).unwrap_or_default();
            format!("ALTER TABLE {quoted} ADD COLUMN {}{initial}", definition(field))
        }
        ColumnChange::Fill(fillings) => {
            let assignments = fillings.iter().map(|filling| {
                let field = fields[filling.field];
                let value = match &filling.from {
                    // Qualified: a quoted name that is no column would be a string.
                    Some(from) => format!("{quoted}.{}", ident(from)),
                    None => initial(field).unwrap_or_else(|| "NULL".to_owned()),
                };
                format!("{} = {value}", ident(&field.name))
            });
            format!("UPDATE {quoted} SET {}", assignments.collect::<Vec<_>>().join(", "))
        }
    }
}

/// A field's initial value, as [`super::cells::push`] would write it.
fn initial(field: &Field) -> Option<String> {
    let text = field.initial.as_deref()?;
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(f64::is_finite);
    Some(match &field.ty {
        Type::Bool => i32::from(text == "true").to_string(),
        Type::Int16 | Type::Int32 | Type::Int64 if text.parse::<i64>().is_ok() => text.to_owned(),
        Type::Float32 | Type::Float64 if is_number(text) => text.to_owned(),
        Type::Bytes if text.starts_with(r"\x") => format!("X'{}'", &text[2..].replace('\'', "")),
        _ => literal(text, Dialect::Sqlite),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_have_the_storage_class_of_the_others() {
        let value = |ty: Type, text: &str| {
            initial(&Field { initial: Some(text.into()), ..Field::nullable("x", ty) }).unwrap()
        };
        assert_eq!(value(Type::Bool, "true"), "1");
        assert_eq!(value(Type::Bool, "false"), "0");
        assert_eq!(value(Type::Int32, "-5"), "-5");
        assert_eq!(value(Type::Int32, "5); DROP"), "'5); DROP'");
        assert_eq!(value(Type::Float64, "1.5"), "1.5");
        assert_eq!(value(Type::Float64, "NaN"), "'NaN'");
        assert_eq!(value(Type::Bytes, r"\x00ff"), "X'00ff'");
        assert_eq!(value(Type::Decimal, "1.50"), "'1.50'");
        assert_eq!(value(Type::String, "it's"), "'it''s'");
        assert_eq!(initial(&Field::nullable("x", Type::Bool)), None);
    }
}
