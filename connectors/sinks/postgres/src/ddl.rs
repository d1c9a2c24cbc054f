//! Creating tables and columns, safe against other tasks that do the same at the same time.

use std::collections::BTreeMap;

use towpath_api::{ConnectorError, Field, Type};
use towpath_sql::sink::{Fault, Known, Layout};
use towpath_sql::{Dialect, TableName, ident, idents, literal, pg_type};

use super::catalog::{OWN_COMMENT, fetch, get};
use super::remembered::Remembered;
use super::session::{Session, texts};

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
            Some(native) => is_known_type(session, native).await?.then(|| native.to_owned()),
            None => None,
        };
        types.insert(field.name.clone(), known.unwrap_or_else(|| column_type(&field.ty)));
    }
    Ok(types)
}

/// Whether `name` is a type of this database, and nothing but a type: it comes out of a topic and goes into DDL.
pub(crate) async fn is_known_type(session: &mut Session, name: &str) -> Result<bool, ConnectorError> {
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
    remembered: &Remembered,
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
    let known = |field: &&&Field| Some(Known { id: field.id?, name: field.name.clone() });
    let known: Vec<Known> = fields.iter().filter_map(|field| known(&field)).collect();
    let mut statements = vec![
        remembered.forget_missing_sql(name),
        format!("CREATE TABLE IF NOT EXISTS {quoted} (\n{}\n)", lines.join(",\n")),
        format!("COMMENT ON TABLE {quoted} IS {comment}"),
    ];
    statements.extend(remembered.store_sql(name, &known));
    let schema = name.schema.as_deref().unwrap_or_default();
    locked(session, schema, &format!("create the table {name}"), &statements).await?;
    tracing::info!(table = %name, "created");
    Ok(())
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
    fn nested_arrays_are_one_array() {
        let nested = Type::Array(Box::new(Type::Array(Box::new(Type::Int32))));
        assert_eq!(column_type(&nested), "integer[]");
    }
}
