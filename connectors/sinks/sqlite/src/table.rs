//! What SQLite says about a table, and changes of it.

use sqlx::Arguments as _;
use sqlx::sqlite::SqliteArguments;
use towpath_api::{ConnectorError, Field};
use towpath_sql::sink::{Fault, Known, Layout};
use towpath_sql::{ident, idents};

use super::cells::column_type;
use super::database::{Database, get};
use super::remembered;

/// A table that is there.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// The columns of each unique index, the primary key first.
    pub(crate) unique: Vec<Vec<String>>,
    /// How rows without a key are told apart; `None` in a table WITHOUT ROWID.
    pub(crate) rowid: Option<&'static str>,
}

/// One of its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) generated: bool,
    /// Not null, and nothing fills it by itself.
    pub(crate) must_be_given: bool,
}

fn texts(values: &[&str]) -> Result<SqliteArguments, ConnectorError> {
    let mut arguments = SqliteArguments::default();
    for value in values {
        arguments.add(*value).map_err(|error| {
            ConnectorError::bug("SQLITE_CLIENT", "a value cannot be passed").with_cause(error)
        })?;
    }
    Ok(arguments)
}

const CATALOG: &str = "read the catalog";

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        // SQLite's names are equal without regard to ASCII case.
        self.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Reads it; `None` if it is not there.
    pub(crate) async fn load(database: &mut Database, name: &str) -> Result<Option<Self>, ConnectorError> {
        let sql = "SELECT name, type, \"notnull\", dflt_value IS NOT NULL AS has_default, pk, hidden \
                   FROM pragma_table_xinfo(?1) ORDER BY cid";
        let rows = database.fetch(CATALOG, sql, texts(&[name])?).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = Vec::new();
        let (mut key, mut types) = (Vec::new(), Vec::new());
        for row in &rows {
            let (name, place): (String, i64) = (get(row, "name")?, get(row, "pk")?);
            if place > 0 {
                key.push((place, name.clone()));
                types.push(get::<String>(row, "type")?);
            }
            let hidden: i64 = get(row, "hidden")?;
            let required: bool = get::<i64>(row, "notnull")? != 0 && get::<i64>(row, "has_default")? == 0;
            columns.push(Column { name, generated: hidden >= 2, must_be_given: required && hidden == 0 });
        }
        key.sort_unstable();
        let key: Vec<String> = key.into_iter().map(|(_, name)| name).collect();
        if let ([only], [ty]) = (key.as_slice(), types.as_slice())
            && ty.eq_ignore_ascii_case("INTEGER")
        {
            // The rowid under another name fills itself.
            columns
                .iter_mut()
                .filter(|column| column.name == *only)
                .for_each(|column| column.must_be_given = false);
        }
        let mut unique = Self::load_unique(database, name).await?;
        if !key.is_empty() {
            unique.insert(0, key);
        }
        let rowid = Self::find_rowid(database, name, &columns).await?;
        Ok(Some(Self { name: name.to_owned(), columns, unique, rowid }))
    }

    async fn load_unique(database: &mut Database, name: &str) -> Result<Vec<Vec<String>>, ConnectorError> {
        let sql = "SELECT l.name AS \"index\", coalesce(i.name, '') AS \"column\" FROM pragma_index_list(?1) AS l, \
                   pragma_index_info(l.name) AS i WHERE l.\"unique\" = 1 AND l.partial = 0 ORDER BY l.seq, i.seqno";
        let mut unique: Vec<(String, Vec<String>)> = Vec::new();
        for row in database.fetch(CATALOG, sql, texts(&[name])?).await? {
            let (index, column): (String, String) = (get(&row, "index")?, get(&row, "column")?);
            match unique.last_mut() {
                Some((last, columns)) if *last == index => columns.push(column),
                _ => unique.push((index, vec![column])),
            }
        }
        Ok(unique.into_iter().map(|(_, columns)| columns).collect())
    }

    async fn find_rowid(
        database: &mut Database,
        name: &str,
        columns: &[Column],
    ) -> Result<Option<&'static str>, ConnectorError> {
        let sql = "SELECT wr FROM pragma_table_list WHERE name = ?1 COLLATE NOCASE AND schema = 'main'";
        let rows = database.fetch(CATALOG, sql, texts(&[name])?).await?;
        let without: i64 = rows.first().map_or(Ok(0), |row| get(row, "wr"))?;
        let is_free =
            |name: &&'static str| !columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
        Ok(if without != 0 { None } else { ["rowid", "_rowid_", "oid"].into_iter().find(is_free) })
    }

    /// Creates the table of `layout`.
    pub(crate) async fn create(
        database: &mut Database,
        name: &str,
        layout: &Layout,
    ) -> Result<(), ConnectorError> {
        let fields = layout.columns.iter().map(|column| &column.field);
        let mut lines: Vec<String> = fields.map(definition).collect();
        if layout.is_keyed() {
            let key = layout.key.iter().map(|column| layout.columns[*column].field.name.as_str());
            lines.push(format!("PRIMARY KEY ({})", idents(key)));
        }
        let mut statements = remembered::forget(name);
        statements.push(format!("CREATE TABLE IF NOT EXISTS {} (\n{}\n)", ident(name), lines.join(",\n")));
        statements.push(remembered::mark_created(name));
        let known = |field: &Field| Some(Known { id: field.id?, name: field.name.clone() });
        let known: Vec<Known> = layout.columns.iter().filter_map(|column| known(&column.field)).collect();
        statements.extend(remembered::store(name, &known));
        let sql = format!("BEGIN IMMEDIATE; {}; COMMIT", statements.join(";\n"));
        database.script(&format!("create the table {name}"), sql).await.map_err(Fault::fatal)?;
        tracing::info!(table = name, "created");
        Ok(())
    }
}

pub(crate) fn definition(field: &Field) -> String {
    format!("{} {}", ident(&field.name), column_type(&field.ty, field.source_type.as_deref()))
}
