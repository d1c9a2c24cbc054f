//! The shapes of tables: from the catalog for snapshots, from the stream's own description for changes.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::ConnectorError;
use towpath_sql::TableName;

use super::super::errors::classify;
use super::super::offsets::ColumnDoc;
use super::super::pgoutput::RelationMessage;
use super::super::session::Session;
use super::super::shape::{Column, News, Origin, Shape};
use super::super::values::Codec;
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
    number: i16,
    /// What rows have that were there before the column was added.
    missing: Option<String>,
}

/// Columns of the tables `oids`, without generated ones, which the stream does not carry.
async fn attributes(
    session: &mut Session,
    oids: &[u32],
) -> Result<HashMap<u32, Vec<Attribute>>, ConnectorError> {
    let list: Vec<String> = oids.iter().map(u32::to_string).collect();
    let sql = format!(
        "SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod, a.attnotnull, \
                a.attnum = ANY((pk.indkey::int2[])[0:pk.indnkeyatts - 1]), \
                a.attnum = ANY((ri.indkey::int2[])[0:ri.indnkeyatts - 1]), a.attnum, \
                CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END \
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
        number: row.parse(7, "column number")?,
        missing: row.opt(8).map(str::to_owned),
    };
    Ok((row.parse(0, "table")?, attribute))
}

fn column(name: &str, resolved: Option<&Resolved>, attribute: Option<&Attribute>, key: bool) -> Column {
    let Resolved { ty, codec, formatted } = resolved.cloned().unwrap_or_else(Resolved::unknown);
    Column {
        name: name.to_owned(),
        ty,
        codec,
        formatted,
        nullable: !attribute.is_some_and(|attribute| attribute.not_null),
        key,
        number: attribute.map(|attribute| attribute.number),
        news: News::default(),
    }
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
            column(&attribute.name, types.get(&attribute.type_ref), Some(&attribute), key)
        });
        let shape = Shape::new(origin, table.name.clone(), columns.collect());
        shapes.insert(table.oid, Arc::new(shape));
    }
    Ok(shapes)
}

/// The shape that `message` describes. It can be older than the catalog, which adds what the message does not carry:
/// nullability, column numbers, and the primary key where the replica identity is not one. `before` is the shape known
/// until now, `remembered` the columns of the last record that was stored.
pub(crate) async fn described(
    session: &mut Session,
    origin: &Origin,
    message: &RelationMessage<'_>,
    before: Option<&Arc<Shape>>,
    remembered: &[ColumnDoc],
) -> Result<Arc<Shape>, ConnectorError> {
    let attributes = attributes(session, &[message.oid]).await?.remove(&message.oid).unwrap_or_default();
    let wanted: Vec<TypeRef> =
        message.columns.iter().map(|column| (column.type_oid, column.type_modifier)).collect();
    let types = resolve(session, &wanted).await?;
    let is_key = key_of(message, &attributes, before);
    let columns = message.columns.iter().zip(is_key).map(|(told, key)| {
        let attribute = attributes.iter().find(|attribute| attribute.name == told.name);
        column(told.name, types.get(&(told.type_oid, told.type_modifier)), attribute, key)
    });
    let mut columns: Vec<Column> = columns.collect();
    let known = before.map_or_else(|| remembered.to_vec(), |before| before.remembered());
    tell_news(&mut columns, &known, &attributes);
    let shape = Shape::new(origin, TableName::new(message.schema, message.table), columns);
    match before {
        // Sent again without a change: keep the old one, so that records go on sharing a schema.
        Some(before) if before.is_same(&shape) => Ok(Arc::clone(before)),
        _ => Ok(Arc::new(shape)),
    }
}

/// Marks the columns that were renamed or added since `known`.
fn tell_news(columns: &mut [Column], known: &[ColumnDoc], attributes: &[Attribute]) {
    if known.is_empty() {
        return;
    }
    let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
    let gone = |old: &&ColumnDoc| !names.contains(&old.name);
    // Where a number is unknown (the catalog is past the shape already), columns that stayed at their places tell.
    let in_place = columns.len() >= known.len()
        && known.iter().zip(columns.iter()).all(|(old, new)| {
            old.name == new.name
                || (old.formatted == new.formatted && gone(&old) && old.number.zip(new.number).is_none())
        });
    for (place, column) in columns.iter_mut().enumerate() {
        if known.iter().any(|old| old.name == column.name) {
            continue;
        }
        let numbered =
            known.iter().filter(gone).find(|old| old.number.is_some() && old.number == column.number);
        let placed = known.get(place).filter(|old| in_place && gone(old));
        match numbered.or(placed) {
            Some(old) => column.news.renamed_from = Some(old.name.clone()),
            None => {
                let attribute = attributes.iter().find(|attribute| attribute.name == column.name);
                column.news.initial = attribute
                    .and_then(|attribute| attribute.missing.as_deref())
                    .map(|text| carried(&column.codec, text));
            }
        }
    }
}

/// A value's text in the form in which fields carry it.
fn carried(codec: &Codec, text: &str) -> String {
    let mut out = Vec::new();
    match codec {
        Codec::Timestamp => towpath_sql::pg_type::push_timestamp(&mut out, text.as_bytes()),
        Codec::Array { element, delimiter } => {
            if towpath_sql::pg_array::literal_to_json(text, element, *delimiter, &mut out).is_err() {
                return text.to_owned();
            }
        }
        Codec::Bool => return (if text == "t" { "true" } else { "false" }).to_owned(),
        _ => return text.to_owned(),
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

/// Which columns form the key: those of the replica identity; where that is "all" or "none", the primary key.
fn key_of(message: &RelationMessage<'_>, attributes: &[Attribute], before: Option<&Arc<Shape>>) -> Vec<bool> {
    if matches!(message.identity, b'd' | b'i') {
        return message.columns.iter().map(|column| column.identity).collect();
    }
    let primary: Vec<&str> = attributes
        .iter()
        .filter(|attribute| attribute.primary)
        .map(|attribute| attribute.name.as_str())
        .collect();
    let known: Vec<&str> = before
        .map(|shape| {
            shape.columns().iter().filter(|column| column.key).map(|column| column.name.as_str()).collect()
        })
        .unwrap_or_default();
    let has_all =
        |names: &[&str]| names.iter().all(|name| message.columns.iter().any(|column| column.name == *name));
    let names =
        [primary, known].into_iter().find(|names| !names.is_empty() && has_all(names)).unwrap_or_default();
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
        let number = if name == "a" { 1 } else { 2 };
        Attribute {
            name: name.into(),
            type_ref: (23, -1),
            not_null: true,
            primary,
            identity: false,
            number,
            missing: None,
        }
    }

    fn doc(name: &str, number: Option<i16>) -> ColumnDoc {
        ColumnDoc { name: name.into(), number, formatted: "text".into() }
    }

    fn news(columns: &[(&str, Option<i16>)], known: &[ColumnDoc], missing: Option<&str>) -> Vec<News> {
        let one = |(name, number): &(&str, Option<i16>)| Column {
            number: *number,
            ..column(name, None, None, false)
        };
        let mut columns: Vec<Column> = columns.iter().map(one).collect();
        let attributes: Vec<Attribute> = columns
            .iter()
            .map(|column| Attribute { missing: missing.map(str::to_owned), ..attribute(&column.name, false) })
            .collect();
        tell_news(&mut columns, known, &attributes);
        columns.into_iter().map(|column| column.news).collect()
    }

    #[test]
    fn renamings_are_known_by_number_and_by_place_where_there_is_none() {
        let renamed = |old: &str| News { renamed_from: Some(old.into()), initial: None };
        let known = [doc("a", Some(1)), doc("b", Some(2))];
        assert_eq!(news(&[("a", Some(1)), ("c", Some(2))], &known, None)[1], renamed("b"));
        assert_eq!(news(&[("c", Some(2))], &known, None)[0], renamed("b"), "a was dropped as well");
        let replaced = news(&[("a", Some(1)), ("c", Some(3))], &known, Some("5"));
        assert_eq!(replaced[1], News { renamed_from: None, initial: Some("5".into()) }, "dropped and added");
        let unnumbered = [doc("a", Some(1)), doc("b", None)];
        assert_eq!(news(&[("a", Some(1)), ("c", Some(2))], &unnumbered, None)[1], renamed("b"));
        let same = news(&[("a", Some(1)), ("b", Some(2))], &known, Some("5"));
        assert_eq!(same, [News::default(), News::default()], "an old default is no news");
        assert_eq!(
            news(&[("c", Some(2))], &[], Some("5"))[0],
            News::default(),
            "nothing is known: nothing is new"
        );
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
