//! Which carrier type and codec a column's type has: domains are followed to their base type, arrays to their
//! elements.

use std::collections::HashMap;
use std::fmt::Write as _;

use towpath_api::{ConnectorError, Type};
use towpath_sql::pg_type;

use super::super::session::Session;
use super::super::values::Codec;

/// A type with its modifier, as in `pg_attribute`.
pub(super) type TypeRef = (u32, i32);

/// What a column of some type becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) ty: Type,
    pub(super) codec: Codec,
    /// `format_type()` of the base type.
    pub(super) formatted: String,
}

impl Resolved {
    /// A type that the catalog does not know (any more): its text still says everything.
    pub(super) fn unknown() -> Self {
        Self { ty: Type::String, codec: Codec::Text, formatted: "text".to_owned() }
    }
}

/// A type whose domains are resolved.
struct Base {
    oid: u32,
    formatted: String,
    /// Element type and delimiter, if its text form is an array literal.
    array: Option<(u32, u8)>,
}

/// Looks `wanted` up; types that do not exist are missing in the answer.
pub(super) async fn resolve(
    session: &mut Session,
    wanted: &[TypeRef],
) -> Result<HashMap<TypeRef, Resolved>, ConnectorError> {
    let bases = bases(session, wanted).await?;
    let elements: Vec<TypeRef> =
        bases.values().filter_map(|base| base.array).map(|(oid, _)| (oid, -1)).collect();
    let elements = self::bases(session, &elements).await?;
    let resolved = |base: Base| match base.array {
        None => {
            let ty = pg_type::carrier(base.oid);
            Resolved { codec: Codec::scalar(&ty), ty, formatted: base.formatted }
        }
        Some((element, delimiter)) => {
            let element = match elements.get(&(element, -1)) {
                // An element that is an array behind a domain is carried as its text.
                Some(base) if base.array.is_none() => pg_type::carrier(base.oid),
                _ => Type::String,
            };
            Resolved {
                ty: Type::Array(Box::new(element.clone())),
                codec: Codec::Array { element, delimiter },
                formatted: base.formatted,
            }
        }
    };
    Ok(bases.into_iter().map(|(reference, base)| (reference, resolved(base))).collect())
}

async fn bases(session: &mut Session, wanted: &[TypeRef]) -> Result<HashMap<TypeRef, Base>, ConnectorError> {
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let mut values = String::new();
    for (oid, modifier) in &wanted {
        let comma = if values.is_empty() { "" } else { "," };
        // Writing into a string cannot fail.
        let _ = write!(values, "{comma}({oid}::oid,{modifier}::int4)");
    }
    let sql = format!(
        "WITH RECURSIVE chain(oid, modifier, base, base_modifier) AS ( \
           SELECT w.oid, w.modifier, w.oid, w.modifier FROM (VALUES {values}) AS w(oid, modifier) \
           UNION ALL \
           SELECT c.oid, c.modifier, t.typbasetype, t.typtypmod \
             FROM chain c JOIN pg_type t ON t.oid = c.base WHERE t.typtype = 'd') \
         SELECT c.oid, c.modifier, t.oid, format_type(c.base, c.base_modifier), \
                t.typelem <> 0 AND t.typoutput = 'array_out'::regproc, t.typelem, t.typdelim \
           FROM chain c JOIN pg_type t ON t.oid = c.base WHERE t.typtype <> 'd'"
    );
    let rows = session.query("look up column types", &sql).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let read = || {
            let delimiter = row.text(6, "delimiter")?.bytes().next().unwrap_or(b',');
            let array = if row.flag(4) { Some((row.parse(5, "element type")?, delimiter)) } else { None };
            let base = Base {
                oid: row.parse(2, "base type")?,
                formatted: row.text(3, "type name")?.to_owned(),
                array,
            };
            Ok(((row.parse(0, "type")?, row.parse(1, "type modifier")?), base))
        };
        let (reference, base) =
            read().map_err(|error| super::super::errors::classify("look up column types", error))?;
        found.insert(reference, base);
    }
    Ok(found)
}
