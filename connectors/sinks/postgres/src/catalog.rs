//! What the database says about a table.

use sqlx::Row;
use sqlx::postgres::PgRow;
use towpath_api::ConnectorError;
use towpath_sql::TableName;

use super::computed::COMMENT;
use super::session::{Session, texts};
use towpath_sql::sink::Fault;

/// What stands at the beginning of the comment on tables that this sink creates.
pub(crate) const OWN_COMMENT: &str = "Created by Towpath";

/// A table that is there.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: TableName,
    pub(crate) columns: Vec<Column>,
    /// Whether `COPY … FROM` may write into it.
    pub(crate) copyable: bool,
    /// Whether rows may lie in more than one relation.
    pub(crate) partitioned: bool,
    /// Whether this sink created it.
    pub(crate) ours: bool,
    /// Whether foreign keys lead from it or to it.
    pub(crate) has_foreign_keys: bool,
    /// The primary key's constraint and its columns.
    pub(crate) primary: Option<(String, Vec<String>)>,
    /// The columns of each index that can arbitrate `ON CONFLICT`.
    pub(crate) unique: Vec<Vec<String>>,
    /// Columns by which an index finds rows.
    pub(crate) indexed: Vec<String>,
}

/// One of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The type with its modifiers.
    pub(crate) full_type: String,
    /// The base type (under any domains) without modifiers: what text is cast to. Modifiers are applied by the
    /// assignment, which refuses what is too long, where an explicit cast would cut it off.
    pub(crate) cast_type: String,
    /// The base type's object id.
    pub(crate) oid: u32,
    /// `pg_type.typcategory` of the base type.
    pub(crate) category: char,
    /// Object id of the element type and what separates elements, of an array.
    pub(crate) element: Option<(u32, u8)>,
    pub(crate) generated: bool,
    pub(crate) identity_always: bool,
    /// Not null, and nothing fills it by itself.
    pub(crate) must_be_given: bool,
    /// The comment that says what it computes, where this sink made it.
    pub(crate) computed_by_us: Option<String>,
}

/// What indexes say about a table.
#[derive(Debug, Default)]
struct Indexes {
    primary: Option<(String, Vec<String>)>,
    unique: Vec<Vec<String>>,
    indexed: Vec<String>,
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Reads it; `None` if it is not there.
    pub(crate) async fn load(
        session: &mut Session,
        name: &TableName,
    ) -> Result<Option<Self>, ConnectorError> {
        const SQL: &str = "SELECT c.oid::text, c.relkind::text, c.relrowsecurity, \
             coalesce(pg_catalog.obj_description(c.oid, 'pg_class'), ''), \
             EXISTS (SELECT FROM pg_catalog.pg_constraint f WHERE f.contype = 'f' AND c.oid IN (f.conrelid, f.confrelid)) \
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = $1 AND c.relname = $2";
        let schema = name.schema.as_deref().unwrap_or_default();
        let rows = fetch(session, SQL, &[schema, &name.table]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (oid, kind) = (get::<String>(row, 0)?, get::<String>(row, 1)?);
        let (row_security, comment) = (get::<bool>(row, 2)?, get::<String>(row, 3)?);
        if !matches!(kind.as_str(), "r" | "p" | "v" | "f") {
            return Err(ConnectorError::needs_operator("SINK_NOT_A_TABLE", format!("{name} is not a table"))
                .with_hint("choose another name with `table`"));
        }
        let columns = Self::load_columns(session, &oid).await?;
        let Indexes { primary, unique, indexed } = Self::load_indexes(session, &oid).await?;
        Ok(Some(Self {
            name: name.clone(),
            columns,
            copyable: matches!(kind.as_str(), "r" | "p") && !row_security,
            partitioned: kind == "p",
            ours: comment.starts_with(OWN_COMMENT),
            has_foreign_keys: get(row, 4)?,
            primary,
            unique,
            indexed,
        }))
    }

    async fn load_columns(session: &mut Session, oid: &str) -> Result<Vec<Column>, ConnectorError> {
        const SQL: &str = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), \
             pg_catalog.format_type(b.oid, -1), b.oid::int8, b.typcategory::text, \
             CASE WHEN b.typcategory = 'A' AND b.typlen = -1 AND b.oid NOT IN (22, 30) THEN b.typelem ELSE 0 END::int8, \
             coalesce(e.typdelim::text, ','), a.attgenerated <> '', a.attidentity = 'a', \
             a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '', \
             CASE WHEN a.attgenerated <> '' THEN pg_catalog.col_description(a.attrelid, a.attnum) END \
             FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ( \
                 WITH RECURSIVE chain(oid, base) AS ( \
                     SELECT t.oid, t.typbasetype FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
                     UNION ALL SELECT t.oid, t.typbasetype FROM chain JOIN pg_catalog.pg_type t ON t.oid = chain.base \
                     WHERE chain.base <> 0) \
                 SELECT t.* FROM chain JOIN pg_catalog.pg_type t ON t.oid = chain.oid WHERE chain.base = 0) b \
             LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem \
             WHERE a.attrelid = $1::text::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let rows = fetch(session, SQL, &[oid]).await?;
        rows.iter().map(column).collect()
    }

    async fn load_indexes(session: &mut Session, oid: &str) -> Result<Indexes, ConnectorError> {
        const SQL: &str = "SELECT ARRAY(SELECT coalesce(a.attname::text, '') \
                 FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place) \
                 LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
                 WHERE k.place <= i.indnkeyatts ORDER BY k.place), \
             i.indisunique AND i.indimmediate AND i.indexprs IS NULL, am.amname IN ('btree', 'hash'), \
             CASE WHEN i.indisprimary THEN c.relname::text END \
             FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
             JOIN pg_catalog.pg_am am ON am.oid = c.relam \
             WHERE i.indrelid = $1::text::oid AND i.indisvalid AND i.indpred IS NULL";
        let mut indexes = Indexes::default();
        for row in fetch(session, SQL, &[oid]).await? {
            let columns: Vec<String> = get(&row, 0)?;
            if let Some(constraint) = get::<Option<String>>(&row, 3)? {
                indexes.primary = Some((constraint, columns.clone()));
            }
            if get::<bool>(&row, 2)?
                && let Some(first) = columns.first().filter(|first| !first.is_empty())
            {
                indexes.indexed.push(first.clone());
            }
            if get::<bool>(&row, 1)? {
                indexes.unique.push(columns);
            }
        }
        Ok(indexes)
    }
}

fn column(row: &PgRow) -> Result<Column, ConnectorError> {
    let element = get::<i64>(row, 5)?;
    let delimiter = get::<String>(row, 6)?.bytes().next().unwrap_or(b',');
    Ok(Column {
        name: get(row, 0)?,
        full_type: get(row, 1)?,
        cast_type: get(row, 2)?,
        oid: u32::try_from(get::<i64>(row, 3)?).unwrap_or_default(),
        category: get::<String>(row, 4)?.chars().next().unwrap_or('U'),
        element: u32::try_from(element).ok().filter(|oid| *oid != 0).map(|oid| (oid, delimiter)),
        generated: get(row, 7)?,
        identity_always: get(row, 8)?,
        must_be_given: get(row, 9)?,
        computed_by_us: get::<Option<String>>(row, 10)?.filter(|comment| comment.starts_with(COMMENT)),
    })
}

/// Queries the catalog.
pub(crate) async fn fetch(
    session: &mut Session,
    sql: &str,
    values: &[&str],
) -> Result<Vec<PgRow>, ConnectorError> {
    let arguments = texts(values.iter().copied().map(Some))?;
    session.fetch("read the catalog", sql, arguments).await.map_err(Fault::fatal)
}

/// A column of an answer.
pub(crate) fn get<'r, T>(row: &'r PgRow, index: usize) -> Result<T, ConnectorError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|error| {
        ConnectorError::bug("PG_CATALOG", "an answer of the catalog cannot be read").with_cause(error)
    })
}
