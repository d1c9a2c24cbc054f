//! The shapes of tables: from the catalog for snapshots, from the stream's own description for changes.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::ConnectorError;
use towpath_sql::TableName;

use super::super::errors::classify;
use super::super::pgoutput::RelationMessage;
use super::super::session::Session;
use super::super::shape::{Column, Origin, Shape};
use super::super::wire::{PgError, Row};
use super::tables::Table;
use super::types::{Resolved, TypeRef, resolve};

/// A column of `pg_attribute`.
struct Attribute {
    name: String,
    type_ref: TypeRef,
    not_null: bool,
    primary: bool,
    identity: bool,
}

/// Columns of the tables `oids`, without generated ones, which the stream does not carry.
async fn attributes(session: &mut Session, oids: &[u32]) -> Result<HashMap<u32, Vec<Attribute>>, ConnectorError> {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attnotnull, \
                a.attnum = ANY((pk.indkey::int2[])[0:pk.indnkeyatts - 1]), \
                a.attnum = ANY((ri.indkey::int2[])[0:ri.indnkeyatts - 1]) \
           FROM pg_attribute a \
           LEFT JOIN pg_index pk ON pk.indrelid = a.attrelid AND pk.indisprimary AND pk.indimmediate \
           LEFT JOIN pg_index ri ON ri.indrelid = a.attrelid AND ri.indisreplident \
          WHERE a.attrelid = ANY('{{{}}}'::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
          ORDER BY a.attrelid, a.attnum",
        list.join(",")
    );
    let mut tables: HashMap<u32, Vec<Attribute>> = HashMap::new();
    for row in session.query("read the columns", &sql).await? {
        let (oid, attribute) = attribute(&row).map_err(|error| classify("read the columns", error))?;
        tables.entry(oid).or_default().push(attribute);
    }
    Ok(tables)
}

fn attribute(row: &Row) -> Result<(u32, Attribute), PgError> {
    let attribute = Attribute {
        name: row.text(1, "column name")?.to_owned(),
        type_ref: (row.parse(2, "column type")?, row.parse(3, "type modifier")?),
        not_null: row.flag(4),
        primary: row.flag(5),
        identity: row.flag(6),
    };
    Ok((row.parse(0, "table")?, attribute))
}

fn column(name: String, resolved: Option<&Resolved>, nullable: bool, key: bool) -> Column {
    let Resolved { ty, codec, formatted } = resolved.cloned().unwrap_or_else(Resolved::unknown);
    Column { name, ty, codec, formatted, nullable, key }
}

/// The shapes of `tables` as they are now.
pub(crate) async fn snapshot_shapes(
    session: &mut Session,
    origin: &Origin,
    tables: &[Table],
) -> Result<HashMap<u32, Arc<Shape>>, ConnectorError> {
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let mut attributes = attributes(session, &oids).await?;
    let wanted: Vec<TypeRef> = attributes.values().flatten().map(|attribute| attribute.type_ref).collect();
    let types = resolve(session, &wanted).await?;
    let mut shapes = HashMap::with_capacity(tables.len());
    for table in tables {
        let columns = attributes.remove(&table.oid).unwrap_or_default().into_iter().map(|attribute| {
            let key = if table.identity == b'i' { attribute.identity } else { attribute.primary };
            column(attribute.name, types.get(&attribute.type_ref), !attribute.not_null, key)
        });
        let shape = Shape::new(origin, table.name.clone(), columns.collect());
        shapes.insert(table.oid, Arc::new(shape));
    }
    Ok(shapes)
}

/// The shape that `message` describes. It can be older than the catalog, which adds what the message does not carry:
/// nullability, and the primary key where the replica identity is not one. `before` is the shape known until now.
pub(crate) async fn described(
    session: &mut Session,
    origin: &Origin,
    message: &RelationMessage<'_>,
    before: Option<&Arc<Shape>>,
) -> Result<Arc<Shape>, ConnectorError> {
    let attributes = attributes(session, &[message.oid]).await?.remove(&message.oid).unwrap_or_default();
    let wanted: Vec<TypeRef> =
        message.columns.iter().map(|column| (column.type_oid, column.type_modifier)).collect();
    let types = resolve(session, &wanted).await?;
    let is_key = key_of(message, &attributes, before);
    let columns = message.columns.iter().zip(is_key).map(|(told, key)| {
        let not_null =
            attributes.iter().any(|attribute| attribute.name == told.name && attribute.not_null);
        let resolved = types.get(&(told.type_oid, told.type_modifier));
        column(told.name.to_owned(), resolved, !not_null, key)
    });
    let shape = Shape::new(origin, TableName::new(message.schema, message.table), columns.collect());
    match before {
        // Sent again without a change: keep the old one, so that records go on sharing a schema.
        Some(before) if before.schema == shape.schema && before.columns() == shape.columns() => {
            Ok(Arc::clone(before))
        }
        _ => Ok(Arc::new(shape)),
    }
}

/// Which columns form the key: those of the replica identity; where that is "all" or "none", the primary key.
fn key_of(message: &RelationMessage<'_>, attributes: &[Attribute], before: Option<&Arc<Shape>>) -> Vec<bool> {
    if matches!(message.identity, b'd' | b'i') {
        return message.columns.iter().map(|column| column.identity).collect();
    }
    let primary: Vec<&str> =
        attributes.iter().filter(|attribute| attribute.primary).map(|attribute| attribute.name.as_str()).collect();
    let known: Vec<&str> = before
        .map(|shape| shape.columns().iter().filter(|column| column.key).map(|column| column.name.as_str()).collect())
        .unwrap_or_default();
    let has_all = |names: &[&str]| names.iter().all(|name| message.columns.iter().any(|column| column.name == *name));
    let names = [primary, known].into_iter().find(|names| !names.is_empty() && has_all(names)).unwrap_or_default();
    message.columns.iter().map(|column| names.contains(&column.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::pgoutput::ColumnMessage;
    use super::*;

    fn message(identity: u8, flags: [bool; 2]) -> RelationMessage<'static> {
        let column = |name, identity| ColumnMessage { identity, name, type_oid: 23, type_modifier: -1 };
        RelationMessage {
            oid: 1,
            schema: "public",
            table: "t",
            identity,
            columns: vec![column("a", flags[0]), column("b", flags[1])],
        }
    }

    fn attribute(name: &str, primary: bool) -> Attribute {
        Attribute { name: name.into(), type_ref: (23, -1), not_null: true, primary, identity: false }
    }

    #[test]
    fn a_full_identity_is_keyed_by_the_primary_key() {
        let attributes = [attribute("a", false), attribute("b", true)];
        assert_eq!(key_of(&message(b'f', [true, true]), &attributes, None), [false, true]);
        assert_eq!(key_of(&message(b'd', [true, false]), &attributes, None), [true, false]);
        assert_eq!(key_of(&message(b'n', [false, false]), &[], None), [false, false]);
        let renamed = [attribute("c", true)];
        assert_eq!(key_of(&message(b'f', [true, true]), &renamed, None), [false, false]);
    }
}
