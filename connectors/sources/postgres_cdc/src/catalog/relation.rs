//! The shapes of tables: from the catalog for snapshots, from the stream's own description for changes.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::{Computed, ConnectorError};
use towpath_sql::{TableName, pg_type};

use super::super::errors::classify;
use super::super::evolution::{Attribute, Observed, Told};
use super::super::offsets::{ColumnDoc, ShapeDoc};
use super::super::pgoutput::RelationMessage;
use super::super::session::Session;
use super::super::shape::{Column, News, Origin, Shape};
use super::super::values::Codec;
use super::super::wire::{PgError, Row};
use super::tables::Table;
use super::types::{Resolved, TypeRef, resolve};

const WHAT: &str = "read the columns";

/// What the catalog says about `tables` at one moment, by their object id. A table that is gone is missing.
pub(crate) async fn observe(
    session: &mut Session,
    tables: &[&Table],
) -> Result<HashMap<u32, Observed>, ConnectorError> {
    let list = |oids: Vec<u32>| oids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let roots = list(tables.iter().map(|table| table.oid).collect());
    let leaf_roots: HashMap<u32, u32> =
        tables.iter().flat_map(|table| table.leaves.iter().map(|leaf| (leaf.oid, table.oid))).collect();
    let leaves = list(leaf_roots.keys().copied().collect());
    // One statement, and with it one snapshot. Initial values of a partitioned table are kept by its partitions.
    let sql = format!(
        "SELECT 'a', a.attrelid, a.attnum::text, a.attname::text, a.atttypid::text, a.atttypmod::text, a.attnotnull, \
                a.attnum = ANY((pk.indkey::int2[])[0:pk.indnkeyatts - 1]), \
                a.attnum = ANY((ri.indkey::int2[])[0:ri.indnkeyatts - 1]), a.attisdropped, a.attgenerated <> '', \
                a.xmin::text, CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END, \
                CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END \
           FROM pg_attribute a \
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
           LEFT JOIN pg_index pk ON pk.indrelid = a.attrelid AND pk.indisprimary AND pk.indimmediate \
           LEFT JOIN pg_index ri ON ri.indrelid = a.attrelid AND ri.indisreplident \
          WHERE a.attrelid = ANY('{{{roots}}}'::oid[]) AND a.attnum > 0 \
         UNION ALL \
         SELECT 'f', c.oid, c.relfilenode::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
           FROM pg_class c WHERE c.oid = ANY('{{{leaves}}}'::oid[]) \
         UNION ALL \
         SELECT 'm', a.attrelid, NULL, a.attname::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
                (a.attmissingval::text::text[])[1], NULL \
           FROM pg_attribute a \
          WHERE a.attrelid = ANY('{{{leaves}}}'::oid[]) AND a.attrelid <> ALL('{{{roots}}}'::oid[]) \
            AND a.attnum > 0 AND a.atthasmissing \
         UNION ALL \
         SELECT 's', NULL, pg_current_snapshot()::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
    );
    let rows = session.query(WHAT, &sql).await?;
    collect(&rows, &leaf_roots).map_err(|error| classify(WHAT, error))
}

fn collect(rows: &[Row], leaf_roots: &HashMap<u32, u32>) -> Result<HashMap<u32, Observed>, PgError> {
    let mut observed: HashMap<u32, Observed> = HashMap::new();
    let kind = |row: &Row, kind: &str| row.opt(0) == Some(kind);
    for row in rows.iter().filter(|row| kind(row, "a")) {
        observed.entry(row.parse(1, "table")?).or_default().attributes.push(attribute(row)?);
    }
    for table in observed.values_mut() {
        table.attributes.sort_by_key(|attribute| attribute.number);
    }
    // A table may have no columns at all.
    for row in rows.iter().filter(|row| kind(row, "f")) {
        if let Some(table) = leaf_roots.get(&row.parse(1, "table")?) {
            observed.entry(*table).or_default();
        }
    }
    for row in rows.iter().filter(|row| !kind(row, "a")) {
        if kind(row, "s") {
            let snapshot = row.text(2, "snapshot")?;
            observed.values_mut().for_each(|table| snapshot.clone_into(&mut table.snapshot));
            continue;
        }
        let leaf: u32 = row.parse(1, "table")?;
        let Some(table) = leaf_roots.get(&leaf).and_then(|root| observed.get_mut(root)) else { continue };
        if kind(row, "f") {
            table.files.insert(leaf, row.parse(2, "file number")?);
            continue;
        }
        let name = row.text(3, "column name")?;
        let same = |attribute: &&mut Attribute| !attribute.dropped && attribute.name == name;
        if let Some(attribute) = table.attributes.iter_mut().find(same) {
            attribute.missing = row.opt(12).map(str::to_owned);
        }
    }
    Ok(observed)
}

fn attribute(row: &Row) -> Result<Attribute, PgError> {
    Ok(Attribute {
        number: row.parse(2, "column number")?,
        name: row.text(3, "column name")?.to_owned(),
        type_oid: row.parse(4, "column type")?,
        modifier: row.parse(5, "type modifier")?,
        not_null: row.flag(6),
        primary: row.flag(7),
        identity: row.flag(8),
        dropped: row.flag(9),
        generated: row.flag(10),
        expression: row.opt(13).map(str::to_owned),
        version: row.parse(11, "column version")?,
        missing: row.opt(12).map(str::to_owned),
    })
}

/// What a shape is made of beside its columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Described<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) oid: u32,
    pub(crate) name: &'a TableName,
    /// The columns before, whose names may have changed.
    pub(crate) before: &'a [ColumnDoc],
    /// What was computed before: the catalog's expressions may speak of later columns.
    pub(crate) computed_before: &'a [Computed],
    /// The catalog, which may be newer than the columns.
    pub(crate) now: &'a Observed,
}

/// The shape of a table with the columns `docs`; `is_key` tells for each whether it belongs to the key.
pub(crate) async fn shape_of(
    session: &mut Session,
    described: Described<'_>,
    docs: &[ColumnDoc],
    is_key: &[bool],
) -> Result<Shape, ConnectorError> {
    let mut wanted: Vec<TypeRef> = docs.iter().map(|doc| (doc.type_oid, doc.modifier)).collect();
    wanted.extend(described.now.computed().map(|attribute| (attribute.type_oid, attribute.modifier)));
    let types = resolve(session, &wanted).await?;
    Ok(shape_with(&types, described, docs, is_key))
}

fn shape_with(
    types: &HashMap<TypeRef, Resolved>,
    described: Described<'_>,
    docs: &[ColumnDoc],
    is_key: &[bool],
) -> Shape {
    let Described { origin, oid, name, before, computed_before, now } = described;
    let columns = docs.iter().zip(is_key).map(|(doc, key)| {
        let resolved = types.get(&(doc.type_oid, doc.modifier)).cloned();
        let Resolved { ty, codec, formatted } = resolved.unwrap_or_else(Resolved::unknown);
        let attribute = now.attribute(doc.number).filter(|attribute| !attribute.dropped);
        let old = before.iter().find(|old| old.number == doc.number);
        let news = News {
            renamed_from: old.map(|old| old.name.clone()).filter(|old| *old != doc.name),
            initial: doc.initial.as_deref().map(|text| carried(&codec, text)),
        };
        Column {
            name: doc.name.clone(),
            ty,
            codec,
            formatted,
            nullable: !attribute.is_some_and(|attribute| attribute.not_null),
            key: *key,
            number: doc.number,
            news,
        }
    });
    let computed = if now.has_exactly(docs) { computed(types, now) } else { computed_before.to_vec() };
    Shape::new(origin, oid, name.clone(), columns.collect(), computed)
}

fn computed(types: &HashMap<TypeRef, Resolved>, now: &Observed) -> Vec<Computed> {
    let computed = |attribute: &Attribute| {
        let resolved = types.get(&(attribute.type_oid, attribute.modifier))?;
        Some(Computed {
            name: attribute.name.clone(),
            source_type: pg_type::source_type(&resolved.formatted),
            expression: pg_type::source_type(attribute.expression.as_deref()?),
        })
    };
    now.computed().filter_map(computed).collect()
}

/// The shapes of `tables` as they are now, and what is to be remembered of them.
pub(crate) async fn snapshot_shapes(
    session: &mut Session,
    origin: &Origin,
    tables: &[Table],
) -> Result<HashMap<u32, (Arc<Shape>, ShapeDoc)>, ConnectorError> {
    let all: Vec<&Table> = tables.iter().collect();
    let observed = observe(session, &all).await?;
    let columns: HashMap<u32, Vec<ColumnDoc>> =
        observed.iter().map(|(oid, now)| (*oid, now.columns())).collect();
    let mut wanted: Vec<TypeRef> =
        columns.values().flatten().map(|doc| (doc.type_oid, doc.modifier)).collect();
    let computed = observed.values().flat_map(Observed::computed);
    wanted.extend(computed.map(|attribute| (attribute.type_oid, attribute.modifier)));
    let types = resolve(session, &wanted).await?;
    let mut shapes = HashMap::with_capacity(tables.len());
    let none = Observed::default();
    for table in tables {
        let now = observed.get(&table.oid).unwrap_or(&none);
        let docs = columns.get(&table.oid).cloned().unwrap_or_default();
        let (oid, name) = (table.oid, &table.name);
        let described = Described { origin, oid, name, before: &docs, computed_before: &[], now };
        let shape = shape_with(&types, described, &docs, &keys_now(table, &docs, now));
        let doc = ShapeDoc::new(table.oid, docs, now.highest(), now.remembered(None));
        shapes.insert(table.oid, (Arc::new(shape), doc));
    }
    Ok(shapes)
}

/// Which of `docs`, the columns that there are `now`, belong to the key.
pub(crate) fn keys_now(table: &Table, docs: &[ColumnDoc], now: &Observed) -> Vec<bool> {
    let is_key = |doc: &ColumnDoc| {
        now.attribute(doc.number).is_some_and(|attribute| {
            if table.identity == b'i' { attribute.identity } else { attribute.primary }
        })
    };
    docs.iter().map(is_key).collect()
}

/// The columns of a description.
pub(crate) fn told(message: &RelationMessage<'_>) -> Vec<Told> {
    let told = |column: &super::super::pgoutput::ColumnMessage<'_>| Told {
        name: column.name.to_owned(),
        type_oid: column.type_oid,
        modifier: column.type_modifier,
    };
    message.columns.iter().map(told).collect()
}

/// Which of `docs`, the columns that `message` describes, belong to the key: those of the replica identity; where that
/// is "all" or "none", the primary key as the catalog has it, or, where the catalog is past these columns, as it was
/// `before`.
pub(crate) fn keys_told(
    message: &RelationMessage<'_>,
    docs: &[ColumnDoc],
    now: &Observed,
    before: Option<&Shape>,
) -> Vec<bool> {
    if matches!(message.identity, b'd' | b'i') {
        return message.columns.iter().map(|column| column.identity).collect();
    }
    let primary = now.attributes.iter().filter(|attribute| attribute.primary);
    let primary: Vec<i16> = primary.map(|attribute| attribute.number).collect();
    let known: Vec<i16> = before
        .map(|shape| shape.columns().iter().filter(|column| column.key).map(|column| column.number).collect())
        .unwrap_or_default();
    let has_all = |numbers: &[i16]| numbers.iter().all(|number| docs.iter().any(|doc| doc.number == *number));
    let numbers = [primary, known].into_iter().find(|numbers| !numbers.is_empty() && has_all(numbers));
    let numbers = numbers.unwrap_or_default();
    docs.iter().map(|doc| numbers.contains(&doc.number)).collect()
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

#[cfg(test)]
mod tests {
    use super::super::super::pgoutput::ColumnMessage;
    use super::*;

    #[test]
    fn a_full_identity_is_keyed_by_the_primary_key() {
        let message = |identity, flags: [bool; 2]| {
            let column = |name, identity| ColumnMessage { identity, name, type_oid: 23, type_modifier: -1 };
            RelationMessage {
                oid: 1,
                schema: "public",
                table: "t",
                identity,
                columns: vec![column("a", flags[0]), column("b", flags[1])],
            }
        };
        let attribute = |number, primary| Attribute {
            number,
            name: format!("c{number}"),
            type_oid: 23,
            modifier: -1,
            not_null: true,
            primary,
            identity: false,
            dropped: false,
            generated: false,
            expression: None,
            version: 1,
            missing: None,
        };
        let doc = |number| ColumnDoc {
            number,
            name: format!("c{number}"),
            type_oid: 23,
            modifier: -1,
            initial: None,
        };
        let docs = [doc(1), doc(2)];
        let now =
            |attributes: &[Attribute]| Observed { attributes: attributes.to_vec(), ..Observed::default() };
        let both = now(&[attribute(1, false), attribute(2, true)]);
        assert_eq!(keys_told(&message(b'f', [true, true]), &docs, &both, None), [false, true]);
        assert_eq!(keys_told(&message(b'd', [true, false]), &docs, &both, None), [true, false]);
        assert_eq!(keys_told(&message(b'n', [false, false]), &docs, &now(&[]), None), [false, false]);
        let later = now(&[attribute(3, true)]);
        assert_eq!(keys_told(&message(b'f', [true, true]), &docs, &later, None), [false, false]);
    }
}
