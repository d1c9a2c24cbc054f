//! What capture puts into the database: an outbox, table definitions, and triggers for each table.
//!
//! `_towpath_<pipeline>_outbox` gets a row for every changed row, in the transaction that changes it.
//! `_towpath_<pipeline>_tables` keeps every definition (an *epoch*) under which outbox rows were written, so that rows
//! written before a column was added keep their meaning; `_towpath_<pipeline>_gaps`, which of them began after triggers
//! had been missing. `_towpath_<pipeline>_displaced` is empty between statements (`displaced`), and
//! `_towpath_<pipeline>_meta` holds the outbox's identity.

use std::collections::BTreeSet;

use sqlx::{Connection as _, SqliteConnection};
use towpath_api::ConnectorError;
use towpath_sql::{Dialect, ident, literal};

use super::database::{classify, execute, get, number, rows};
use super::displaced::{Displacement, displacement};
use super::options::Options;
use super::table::{Column, Table};

/// Now, in ms since 1970. The application's own SQLite runs the triggers, however old it is: nothing newer than
/// `julianday()` in them.
const NOW_MS: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// The names of one pipeline's capture in a database.
#[derive(Debug, Clone)]
pub(crate) struct Capture {
    pipeline: String,
    prefix: String,
}

/// A captured table under the epoch of its triggers.
#[derive(Debug, Clone)]
pub(crate) struct Captured {
    pub(crate) epoch: i64,
    pub(crate) table: Table,
    /// Whether the triggers of the epoch before were missing: changes may have been made that no outbox row tells.
    pub(crate) gap: bool,
}

/// What [`Capture::install`] found.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    /// The tables that there are to capture.
    pub(crate) present: BTreeSet<String>,
    /// Whether some of them got other triggers.
    pub(crate) changed: bool,
    /// The greatest outbox id: rows up to it were written by the triggers of before.
    pub(crate) last_id: i64,
}

impl Capture {
    pub(crate) fn new(pipeline: &str) -> Self {
        Self { pipeline: pipeline.to_owned(), prefix: format!("_towpath_{pipeline}_") }
    }

    fn name(&self, what: &str) -> String {
        ident(&format!("{}{what}", self.prefix))
    }

    pub(crate) fn outbox(&self) -> String {
        self.name("outbox")
    }

    /// Creates what is missing and brings the triggers up to the tables' columns, in one transaction.
    pub(crate) async fn install(
        &self,
        connection: &mut SqliteConnection,
        options: &Options,
    ) -> Result<Installed, ConnectorError> {
        // BEGIN IMMEDIATE: no other process changes a table between our look at it and its trigger.
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|error| classify(error, "the capture's triggers cannot be set up"))?;
        self.create_tables(&mut transaction).await?;
        let known = self.captured(&mut transaction).await?;
        let mut installed = Installed::default();
        for table in self.wanted_tables(&mut transaction, options).await? {
            installed.present.insert(table.name.clone());
            let current = known.iter().rev().find(|captured| captured.table.name == table.name);
            let whole = match current {
                Some(captured) => self.triggers_of(&mut transaction, captured.epoch).await? == 3,
                None => true,
            };
            let unique = unique_keys(&mut transaction, &table).await?;
            let same = |captured: &&Captured| whole && captured.table.columns == table.columns;
            if let Some(captured) = current.filter(same) {
                if !self.watches(&mut transaction, captured.epoch, &table, &unique).await? {
                    self.put_triggers(&mut transaction, captured.epoch, &table, &unique).await?;
                }
                continue;
            }
            let epoch = self.add_epoch(&mut transaction, &table, !whole).await?;
            self.put_triggers(&mut transaction, epoch, &table, &unique).await?;
            installed.changed = true;
        }
        installed.last_id = self.last_id(&mut transaction).await?;
        transaction
            .commit()
            .await
            .map_err(|error| classify(error, "the capture's triggers cannot be set up"))?;
        Ok(installed)
    }

    async fn create_tables(&self, connection: &mut SqliteConnection) -> Result<(), ConnectorError> {
        let statements = [
            format!(
                "CREATE TABLE IF NOT EXISTS {} (id INTEGER PRIMARY KEY AUTOINCREMENT, epoch INTEGER NOT NULL, \
                 op TEXT NOT NULL, ts_ms INTEGER NOT NULL, before TEXT, after TEXT)",
                self.outbox()
            ),
            format!(
                "CREATE TABLE IF NOT EXISTS {} (epoch INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, \
                 has_rowid INTEGER NOT NULL, columns TEXT NOT NULL)",
                self.name("tables")
            ),
            format!("CREATE TABLE IF NOT EXISTS {} (epoch INTEGER PRIMARY KEY)", self.name("gaps")),
            format!("CREATE TABLE IF NOT EXISTS {} (epoch INTEGER, before TEXT)", self.name("displaced")),
            format!("CREATE TABLE IF NOT EXISTS {} (instance TEXT NOT NULL)", self.name("meta")),
            format!(
                "INSERT INTO {meta} SELECT lower(hex(randomblob(16))) WHERE NOT EXISTS (SELECT 1 FROM {meta})",
                meta = self.name("meta")
            ),
        ];
        for sql in statements {
            execute(connection, sql).await?;
        }
        Ok(())
    }

    /// The tables of the database that are to be captured, as they are now.
    pub(crate) async fn wanted_tables(
        &self,
        connection: &mut SqliteConnection,
        options: &Options,
    ) -> Result<Vec<Table>, ConnectorError> {
        let sql =
            "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table' ORDER BY name";
        let mut tables = Vec::new();
        for row in rows(connection, sql.to_owned()).await? {
            let name: String = get(&row, 0)?;
            if name.starts_with("sqlite_") || name.starts_with("_towpath_") || !options.wants(&name) {
                continue;
            }
            let columns = columns(connection, &name).await?;
            let has_rowid = get::<i64>(&row, 1)? == 0;
            tables.push(Table::new(&self.pipeline, &database_name(options), &name, columns, has_rowid));
        }
        Ok(tables)
    }

    /// Every definition that outbox rows can refer to, the oldest first.
    pub(crate) async fn captured(
        &self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<Captured>, ConnectorError> {
        let sql = format!(
            "SELECT epoch, name, has_rowid, columns, epoch IN (SELECT epoch FROM {}) FROM {} ORDER BY epoch",
            self.name("gaps"),
            self.name("tables")
        );
        let mut captured = Vec::new();
        for row in rows(connection, sql).await? {
            let name: String = get(&row, 1)?;
            let columns: Vec<Column> = serde_json::from_str(&get::<String>(&row, 3)?).map_err(|error| {
                // R7: a definition that cannot be read is not guessed.
                ConnectorError::terminal(
                    "SQLITE_CAPTURE_DAMAGED",
                    format!("the stored definition of `{name}` is damaged"),
                )
                .with_cause(error)
            })?;
            let database = self.database(connection).await?;
            let table = Table::new(&self.pipeline, &database, &name, columns, get::<i64>(&row, 2)? != 0);
            captured.push(Captured { epoch: get(&row, 0)?, table, gap: get::<i64>(&row, 4)? != 0 });
        }
        Ok(captured)
    }

    async fn database(&self, connection: &mut SqliteConnection) -> Result<String, ConnectorError> {
        let rows =
            rows(connection, "SELECT file FROM pragma_database_list WHERE name = 'main'".to_owned()).await?;
        let file: String = rows.first().map_or_else(|| Ok(String::new()), |row| get(row, 0))?;
        Ok(stem(std::path::Path::new(&file)))
    }

    async fn triggers_of(
        &self,
        connection: &mut SqliteConnection,
        epoch: i64,
    ) -> Result<i64, ConnectorError> {
        let names: Vec<_> = ["c", "u", "d"]
            .map(|op| literal(&format!("{}{epoch}_{op}", self.prefix), Dialect::Sqlite))
            .into();
        let sql = format!(
            "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND name IN ({})",
            names.join(", ")
        );
        number(connection, sql).await
    }

    /// A new epoch for a definition.
    async fn add_epoch(
        &self,
        connection: &mut SqliteConnection,
        table: &Table,
        gap: bool,
    ) -> Result<i64, ConnectorError> {
        let columns = serde_json::to_string(&table.columns).map_err(|error| {
            ConnectorError::bug("SQLITE_CAPTURE", "a definition cannot be written").with_cause(error)
        })?;
        let sql = format!(
            "INSERT INTO {} (name, has_rowid, columns) VALUES ({}, {}, {}) RETURNING epoch",
            self.name("tables"),
            literal(&table.name, Dialect::Sqlite),
            i64::from(table.has_rowid),
            literal(&columns, Dialect::Sqlite)
        );
        let epoch = number(connection, sql).await?;
        if gap {
            execute(connection, format!("INSERT INTO {} VALUES ({epoch})", self.name("gaps"))).await?;
        }
        Ok(epoch)
    }

    /// The trigger before an insert.
    fn noting_trigger(&self, epoch: i64, table: &Table, displacement: &Displacement) -> String {
        format!(
            "CREATE TRIGGER {} BEFORE INSERT ON {} BEGIN {}; END",
            self.name(&format!("{epoch}_bc")),
            ident(&table.name),
            displacement.before_insert
        )
    }

    fn displacement(&self, epoch: i64, table: &Table, unique: &[Vec<String>]) -> Option<Displacement> {
        displacement(table, unique, (&self.name("displaced"), &self.outbox()), epoch, NOW_MS)
    }

    /// Whether the triggers of an epoch watch just these unique keys.
    async fn watches(
        &self,
        connection: &mut SqliteConnection,
        epoch: i64,
        table: &Table,
        unique: &[Vec<String>],
    ) -> Result<bool, ConnectorError> {
        let name = literal(&format!("{}{epoch}_bc", self.prefix), Dialect::Sqlite);
        let sql = format!("SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = {name}");
        let found = rows(connection, sql).await?;
        let found: Option<String> = found.first().map(|row| get(row, 0)).transpose()?;
        let wanted = self.displacement(epoch, table, unique).map(|it| self.noting_trigger(epoch, table, &it));
        Ok(found == wanted)
    }

    /// Replaces the triggers of a table.
    async fn put_triggers(
        &self,
        connection: &mut SqliteConnection,
        epoch: i64,
        table: &Table,
        unique: &[Vec<String>],
    ) -> Result<(), ConnectorError> {
        self.drop_triggers(connection, &table.name).await?;
        let displacement = self.displacement(epoch, table, unique);
        if let Some(displacement) = &displacement {
            execute(connection, self.noting_trigger(epoch, table, displacement)).await?;
            // Of whatever columns: what an ignored statement has noted must be forgotten before any trigger behind.
            let sql = format!(
                "CREATE TRIGGER {} BEFORE UPDATE ON {} BEGIN {}; END",
                self.name(&format!("{epoch}_bu")),
                ident(&table.name),
                displacement.before_update
            );
            execute(connection, sql).await?;
        }
        let first = |of: fn(&Displacement) -> &str| displacement.as_ref().map_or("", of);
        let (new, old) = (table.row_expression("NEW."), table.row_expression("OLD."));
        for (op, event, first, before, after) in [
            ("c", "INSERT", first(|it| &it.after), "NULL", &*new),
            ("u", "UPDATE", first(|it| &it.after), &*old, &*new),
            ("d", "DELETE", first(|it| &it.after_delete), &*old, "NULL"),
        ] {
            let sql = format!(
                "CREATE TRIGGER {} AFTER {event} ON {} BEGIN {first} \
                 INSERT INTO {} (epoch, op, ts_ms, before, after) VALUES ({epoch}, '{op}', {NOW_MS}, {before}, {after}); \
                 END",
                self.name(&format!("{epoch}_{op}")),
                ident(&table.name),
                self.outbox(),
            );
            execute(connection, sql).await?;
        }
        Ok(())
    }

    async fn drop_triggers(
        &self,
        connection: &mut SqliteConnection,
        table: &str,
    ) -> Result<(), ConnectorError> {
        let sql = format!(
            "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = {} AND substr(name, 1, {}) = {}",
            literal(table, Dialect::Sqlite),
            self.prefix.chars().count(),
            literal(&self.prefix, Dialect::Sqlite)
        );
        for row in rows(connection, sql).await? {
            let name: String = get(&row, 0)?;
            if self.is_trigger(&name) {
                execute(connection, format!("DROP TRIGGER {}", ident(&name))).await?;
            }
        }
        Ok(())
    }

    /// Whether a trigger is of this pipeline: another one's name may begin as this one's.
    fn is_trigger(&self, name: &str) -> bool {
        let rest = name.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('_'));
        rest.is_some_and(|(epoch, op)| {
            epoch.parse::<i64>().is_ok() && matches!(op, "c" | "u" | "d" | "bc" | "bu")
        })
    }

    /// The identity of the outbox: another one after it was dropped and made again.
    pub(crate) async fn instance(&self, connection: &mut SqliteConnection) -> Result<String, ConnectorError> {
        let rows = rows(connection, format!("SELECT instance FROM {}", self.name("meta"))).await?;
        match rows.first() {
            Some(row) => get(row, 0),
            None => {
                Err(ConnectorError::terminal("SQLITE_CAPTURE_DAMAGED", "the capture's own table is empty"))
            }
        }
    }

    /// Whether a capture of this pipeline was set up before.
    pub(crate) async fn exists(&self, connection: &mut SqliteConnection) -> Result<bool, ConnectorError> {
        let name = literal(&format!("{}meta", self.prefix), Dialect::Sqlite);
        let sql = format!("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = {name}");
        Ok(number(connection, sql).await? > 0)
    }

    /// The greatest outbox id ever given: ids are not reused, even after rows are deleted (AUTOINCREMENT).
    pub(crate) async fn last_id(&self, connection: &mut SqliteConnection) -> Result<i64, ConnectorError> {
        let name = literal(&format!("{}outbox", self.prefix), Dialect::Sqlite);
        number(connection, format!("SELECT seq FROM sqlite_sequence WHERE name = {name}")).await
    }
}

/// The unique keys of a table besides its primary key: what `REPLACE` displaces by. Those over expressions and over a
/// part of the rows are left out.
async fn unique_keys(
    connection: &mut SqliteConnection,
    table: &Table,
) -> Result<Vec<Vec<String>>, ConnectorError> {
    let name = literal(&table.name, Dialect::Sqlite);
    let sql = format!(
        "SELECT name FROM pragma_index_list({name}) WHERE \"unique\" AND NOT partial AND origin <> 'pk' ORDER BY name"
    );
    let mut keys = Vec::new();
    for row in rows(connection, sql).await? {
        let index = literal(&get::<String>(&row, 0)?, Dialect::Sqlite);
        let columns =
            rows(connection, format!("SELECT name FROM pragma_index_info({index}) ORDER BY seqno")).await?;
        let columns: Vec<Option<String>> = columns.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
        keys.extend(columns.into_iter().collect::<Option<Vec<String>>>().filter(|key| !key.is_empty()));
    }
    Ok(keys)
}

async fn columns(connection: &mut SqliteConnection, table: &str) -> Result<Vec<Column>, ConnectorError> {
    // Generated columns (hidden ≠ 0) are left out: whoever has the others computes them.
    let sql = format!(
        "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo({}) WHERE hidden = 0 ORDER BY cid",
        literal(table, Dialect::Sqlite)
    );
    let mut columns = Vec::new();
    for row in rows(connection, sql).await? {
        columns.push(Column {
            name: get(&row, 0)?,
            declared: get(&row, 1)?,
            not_null: get::<i64>(&row, 2)? != 0,
            key: get(&row, 3)?,
        });
    }
    Ok(columns)
}

/// What `{database}` stands for: the file's name without directory and ending.
pub(crate) fn database_name(options: &Options) -> String {
    stem(&options.path)
}

fn stem(path: &std::path::Path) -> String {
    path.file_stem().map_or_else(|| "main".to_owned(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_of_pipelines_with_similar_names_are_told_apart() {
        let capture = Capture::new("a");
        assert!(capture.is_trigger("_towpath_a_12_c") && capture.is_trigger("_towpath_a_12_bu"));
        for other in ["_towpath_a_1_12_c", "_towpath_a_x_1_c", "_towpath_ab_1_c", "_towpath_a_1_x", "mine"] {
            assert!(!capture.is_trigger(other), "{other}");
        }
    }
}
