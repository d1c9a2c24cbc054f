//! Creating tables and columns, safe against other tasks that do the same at the same time.

use std::collections::BTreeMap;

use towpath_api::{ConnectorError, ErrorKind, Field, Type};
use towpath_sql::sink::Layout;
use towpath_sql::{Dialect, TableName, ident, idents, literal, pg_array, pg_type};

use super::catalog::{Column, OWN_COMMENT, Table, fetch, get};
use super::session::{Session, texts};
use towpath_sql::sink::Fault;

/// `pg_advisory_xact_lock` of every change of tables by this sink ("towpath" in ASCII).
const LOCK: i64 = 0x0074_6f77_7061_7468;

/// Whether there is a relation of this name.
pub(crate) async fn exists(session: &mut Session, schema: &str, table: &str) -> Result<bool, ConnectorError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                       ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)";
    let rows = fetch(session, SQL, &[schema, table]).await?;
    rows.first().map_or(Ok(false), |row| get(row, 0))
}

/// Runs `statements` in one transaction under the lock, after creating `schema` where it is missing.
pub(crate) async fn locked(
    session: &mut Session,
    schema: &str,
    what: &str,
    statements: &[String],
) -> Result<(), ConnectorError> {
    const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
    let rows = fetch(session, SQL, &[schema]).await?;
    let has_schema: bool = rows.first().map_or(Ok(false), |row| get(row, 0))?;
    let mut script = format!("BEGIN; SET LOCAL lock_timeout = '30s'; SELECT pg_advisory_xact_lock({LOCK});");
    if !has_schema {
        // IF NOT EXISTS needs the privilege even where there is nothing to do.
        script.push_str(&format!(" CREATE SCHEMA IF NOT EXISTS {};", ident(schema)));
    }
    for statement in statements {
        script.push('\n');
        script.push_str(statement);
        script.push(';');
    }
    script.push_str("\nCOMMIT");
    match session.script(what, script).await {
        Ok(_) => Ok(()),
        Err(fault) => {
            // After an error inside the script the transaction is still open.
            let error = fault.fatal();
            session.script("roll back", "ROLLBACK".to_owned()).await.map_err(Fault::fatal)?;
            Err(error)
        }
    }
}

/// The column type for each field: the source's own where this database has it, otherwise the nearest one.
pub(crate) async fn wanted_types(
    session: &mut Session,
    fields: &[&Field],
) -> Result<BTreeMap<String, String>, ConnectorError> {
    let mut types = BTreeMap::new();
    for field in fields {
        let native = field.source_type.as_deref().and_then(pg_type::formatted);
        let known = match native {
            Some(native) => resolve(session, native).await?.then(|| native.to_owned()),
            None => None,
        };
        types.insert(field.name.clone(), known.unwrap_or_else(|| column_type(&field.ty)));
    }
    Ok(types)
}

/// Whether `name` is a type of this database, and nothing but a type: it comes out of a topic and goes into DDL.
async fn resolve(session: &mut Session, name: &str) -> Result<bool, ConnectorError> {
    // A name that holds a comment could hide what follows it.
    if name.contains("--") || name.contains("/*") || name.contains('\0') {
        return Ok(false);
    }
    let arguments = texts([Some(name)])?;
    match session.fetch("look a type up", "SELECT to_regtype($1)::oid::int8", arguments).await {
        Ok(rows) => Ok(rows.first().and_then(|row| get::<Option<i64>>(row, 0).ok()).flatten().is_some()),
        // Older servers raise an error for text that is no type.
        Err(Fault::Fatal(error)) if error.code() == "PG_SERVER" || error.code() == "PG_TABLE_CHANGED" => {
            Ok(false)
        }
        Err(Fault::Data(_)) => Ok(false),
        Err(fault) => Err(fault.fatal()),
    }
}

/// The type for values from elsewhere.
pub(crate) fn column_type(ty: &Type) -> String {
    match ty {
        Type::Bool => "boolean".into(),
        Type::Int16 => "smallint".into(),
        Type::Int32 => "integer".into(),
        Type::Int64 => "bigint".into(),
        Type::Float32 => "real".into(),
        Type::Float64 => "double precision".into(),
        Type::Decimal => "numeric".into(),
        Type::String => "text".into(),
        Type::Bytes => "bytea".into(),
        Type::Date => "date".into(),
        Type::Time => "time without time zone".into(),
        Type::TimeTz => "time with time zone".into(),
        Type::Timestamp => "timestamp without time zone".into(),
        Type::TimestampTz => "timestamp with time zone".into(),
        Type::Interval => "interval".into(),
        Type::Uuid => "uuid".into(),
        Type::Json => "jsonb".into(),
        Type::Array(element) => match element.as_ref() {
            Type::Array(_) => column_type(element),
            element => format!("{}[]", column_type(element)),
        },
    }
}

/// Creates the table of `layout`.
pub(crate) async fn create_table(
    session: &mut Session,
    pipeline: &str,
    name: &TableName,
    layout: &Layout,
) -> Result<(), ConnectorError> {
    let fields: Vec<&Field> = layout.columns.iter().map(|column| &column.field).collect();
    let types = wanted_types(session, &fields).await?;
    let mut lines: Vec<String> =
        fields.iter().map(|field| format!("{} {}", ident(&field.name), types[&field.name])).collect();
    if layout.is_keyed() {
        let key = layout.key.iter().map(|column| layout.columns[*column].field.name.as_str());
        lines.push(format!("PRIMARY KEY ({})", idents(key)));
    }
    let quoted = name.quoted();
    let comment = literal(&format!("{OWN_COMMENT}, pipeline {pipeline}"), Dialect::Postgres);
    let statements = [
        format!("CREATE TABLE IF NOT EXISTS {quoted} (\n{}\n)", lines.join(",\n")),
        format!("COMMENT ON TABLE {quoted} IS {comment}"),
    ];
    let schema = name.schema.as_deref().unwrap_or_default();
    locked(session, schema, &format!("create the table {name}"), &statements).await?;
    tracing::info!(table = %name, "created");
    Ok(())
}

/// Adds columns for fields that `table` does not have; renames and widens columns of tables that are ours. Gives
/// whether anything was done.
pub(crate) async fn adapt_columns(
    session: &mut Session,
    table: &Table,
    layout: &Layout,
) -> Result<bool, ConnectorError> {
    let fields: Vec<&Field> = layout.columns.iter().map(|column| &column.field).collect();
    let types = wanted_types(session, &fields).await?;
    let quoted = table.name.quoted();
    let (mut statements, mut wider) = (Vec::new(), Vec::new());
    for field in &fields {
        let (name, wanted) = (ident(&field.name), &types[&field.name]);
        let old = old_column(table, &fields, field);
        match (table.column(&field.name), old) {
            (None, None) => add_column(&mut statements, &quoted, field, wanted),
            (None, Some(old)) => {
                statements.push(format!("ALTER TABLE {quoted} RENAME COLUMN {} TO {name}", ident(&old.name)));
            }
            (Some(_), _) => {}
        }
        let column = table.column(&field.name).or(old).filter(|_| table.ours);
        if let Some(ty) = column.and_then(|column| widened(&column.full_type, wanted)) {
            wider.push(format!("ALTER TABLE {quoted} ALTER COLUMN {name} TYPE {ty} USING {name}::{ty}"));
        }
    }
    if statements.is_empty() && wider.is_empty() {
        return Ok(false);
    }
    let schema = table.name.schema.as_deref().unwrap_or_default();
    let what = format!("change the columns of {}", table.name);
    if !statements.is_empty() {
        locked(session, schema, &what, &statements).await?;
        tracing::info!(table = %table.name, changes = statements.join("; "), "columns changed");
    }
    for statement in wider {
        match locked(session, schema, &what, std::slice::from_ref(&statement)).await {
            Ok(()) => tracing::info!(table = %table.name, change = statement, "column widened"),
            Err(error) if matches!(error.kind(), ErrorKind::RetryAfter(_)) => return Err(error),
            // A view stands in the way, for example. Values that fit the old type still do; others are rejected.
            Err(error) => {
                tracing::warn!(table = %table.name, %error, change = statement, "column not widened")
            }
        }
    }
    Ok(true)
}

/// The column of our own table that only has to be renamed to become `field`'s.
fn old_column<'a>(table: &'a Table, fields: &[&Field], field: &Field) -> Option<&'a Column> {
    let old = table.column(field.renamed_from.as_deref()?)?;
    let is_free = table.ours && !fields.iter().any(|other| other.name == old.name);
    is_free.then_some(old)
}

/// Rows that are there get what the source's rows had; later rows bring their own.
fn add_column(statements: &mut Vec<String>, table: &str, field: &Field, ty: &str) {
    let name = ident(&field.name);
    let Some(initial) = &field.initial else {
        statements.push(format!("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {ty}"));
        return;
    };
    let text = match &field.ty {
        Type::Array(element) => pg_array::json_to_literal(initial, element, b',').ok(),
        _ => None,
    };
    let value = literal(text.as_deref().unwrap_or(initial), Dialect::Postgres);
    statements.push(format!(
        "ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {ty} DEFAULT CAST({value} AS {ty})"
    ));
    statements.push(format!("ALTER TABLE {table} ALTER COLUMN {name} DROP DEFAULT"));
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
        ("real", "double precision") | ("date", "timestamp without time zone") => true,
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

/// Creates the offsets table's kind of script in `check`: a transaction that is always rolled back.
pub(crate) async fn trial(session: &mut Session, what: &str, statements: &str) -> Result<(), ConnectorError> {
    let tried = session.script(what, format!("BEGIN; SET LOCAL lock_timeout = '5s'; {statements}")).await;
    session.script("roll back", "ROLLBACK".to_owned()).await.map_err(Fault::fatal)?;
    tried.map(drop).map_err(Fault::fatal)
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
    fn nested_arrays_are_one_array() {
        let nested = Type::Array(Box::new(Type::Array(Box::new(Type::Int32))));
        assert_eq!(column_type(&nested), "integer[]");
    }
}
