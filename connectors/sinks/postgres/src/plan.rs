//! What is decided once for each topic and schema: the table, its columns, and the statements.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use towpath_api::{ConnectorError, EventSchema, SchemaId};
use towpath_sql::TableName;
use towpath_sql::sink::{self, Layout, LayoutError, RecordRefusal};
use towpath_types::TopicName;

use super::alter;
use super::catalog::Table;
use super::columns::Target;
use super::computed;
use super::config::{Config, NAME_BYTES_MAX, OnUnknown};
use super::ddl;
use super::remembered::Remembered;
use super::session::Session;
use super::statements::Statements;

/// Leaves foreign keys unchecked until [`CHECKED`], or the end of the transaction.
pub(crate) const UNCHECKED: &str = "SET LOCAL session_replication_role = replica";
/// Ends [`UNCHECKED`].
pub(crate) const CHECKED: &str = "SET LOCAL session_replication_role TO DEFAULT";

/// Plans kept before the cache starts anew.
const PLANS_MAX: usize = 4096;

/// How records of one schema in one topic are written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) table: TableName,
    /// The columns that are written, in the layout's order.
    pub(crate) targets: Vec<Target>,
    /// Those of the key, as indexes into `targets`.
    pub(crate) key: Vec<usize>,
    pub(crate) statements: Statements,
    /// Whether foreign keys are not to be checked here: rows of different topics come in any order.
    pub(crate) unchecked: bool,
    /// How many folds are written without trying `COPY` first, since rows that were said to be new were not.
    copy_pause: AtomicU32,
}

/// Folds that pass after a `COPY` in vain before it is tried again.
const COPY_PAUSE: u32 = 100;

impl Plan {
    /// Whether new rows are worth a `COPY` now.
    pub(crate) fn may_copy(&self) -> bool {
        let counted = |pause: u32| pause.checked_sub(1);
        self.copy_pause.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted).is_err()
    }

    /// A `COPY` was in vain.
    pub(crate) fn pause_copy(&self) {
        self.copy_pause.store(COPY_PAUSE, Ordering::Relaxed);
    }
}

impl sink::Plan for Plan {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn table(&self) -> &TableName {
        &self.table
    }
}

type Planned = sink::Planned<Plan>;

/// Makes and keeps plans. Lives as long as a task: when the server says that a table was changed, the task opens
/// again and plans anew.
#[derive(Debug)]
pub(crate) struct Planner {
    config: Arc<Config>,
    pipeline: Arc<str>,
    remembered: Remembered,
    plans: HashMap<(SchemaId, TopicName), Planned>,
    /// How rows are deleted by records that have only a key.
    deletions: HashMap<(SchemaId, TopicName), Planned>,
}

impl Planner {
    pub(crate) fn new(config: Arc<Config>, pipeline: Arc<str>, remembered: Remembered) -> Self {
        Self { config, pipeline, remembered, plans: HashMap::new(), deletions: HashMap::new() }
    }

    /// Whether there is a plan for the records of `schema` in `topic`.
    pub(crate) fn knows(&self, topic: &TopicName, schema: &EventSchema) -> bool {
        self.plans.contains_key(&(schema.id(), topic.clone()))
    }

    /// The plan for the records of `schema` in `topic`; creates and adapts the table when it is new. `empties` says that
    /// the first of them empties the table.
    pub(crate) async fn plan(
        &mut self,
        session: &mut Session,
        topic: &TopicName,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned, ConnectorError> {
        let id = (schema.id(), topic.clone());
        if let Some(known) = self.plans.get(&id) {
            return Ok(known.clone());
        }
        let planned = match self.layout(topic, schema) {
            Ok((name, layout)) => self.bind(session, name, layout, schema, empties).await?,
            Err(refusal) => Planned::Refused(Arc::new(refusal)),
        };
        if self.plans.len() >= PLANS_MAX {
            self.plans.clear();
        }
        self.plans.insert(id, planned.clone());
        Ok(planned)
    }

    /// The plan for deletions by the key of `schema`, if `topic` has a table whose rows such a key tells apart.
    pub(crate) async fn plan_deletions(
        &mut self,
        session: &mut Session,
        topic: &TopicName,
        schema: &EventSchema,
    ) -> Result<Option<Planned>, ConnectorError> {
        let id = (schema.id(), topic.clone());
        if let Some(known) = self.deletions.get(&id) {
            return Ok(Some(known.clone()));
        }
        let planned = match Layout::of_key(schema, &self.config.layout) {
            Ok(None) => return Ok(None),
            Ok(Some(layout)) => {
                // A table that is named by what only values tell is not found by a key.
                let Ok(name) = self.name(topic, schema) else { return Ok(None) };
                let Some(table) = Table::load(session, &name).await? else { return Ok(None) };
                let is_guess = self.guesses_key(schema);
                match bind_deletions(session, name, &table, layout, is_guess).await? {
                    Some(plan) => Planned::Plan(Arc::new(plan)),
                    None => return Ok(None),
                }
            }
            Err(error) => Planned::Refused(Arc::new(layout_refused(error))),
        };
        if self.deletions.len() >= PLANS_MAX {
            self.deletions.clear();
        }
        self.deletions.insert(id, planned.clone());
        Ok(Some(planned))
    }

    /// Whether nobody says which column a key without names is: beside rows with fields, it is none.
    fn guesses_key(&self, schema: &EventSchema) -> bool {
        self.config.layout.key.is_empty() && schema.key().is_some_and(|key| key.is_bare())
    }

    fn name(&self, topic: &TopicName, schema: &EventSchema) -> Result<TableName, RecordRefusal> {
        let mut name = self.config.table.render(&self.pipeline, topic.as_str(), schema).map_err(|error| {
            RecordRefusal::new("SINK_TABLE_NAME", error, "`table` must only use what topics and records have")
        })?;
        name.schema.get_or_insert_with(|| self.config.schema.clone());
        Ok(name)
    }

    fn layout(&self, topic: &TopicName, schema: &EventSchema) -> Result<(TableName, Layout), RecordRefusal> {
        let name = self.name(topic, schema)?;
        let layout = Layout::new(schema, &self.config.layout).map_err(layout_refused)?;
        let schema_name = name.schema.as_deref().unwrap_or_default();
        let fields = layout.columns.iter().map(|column| column.field.name.as_str());
        let mut names = [schema_name, name.table.as_str()].into_iter().chain(fields);
        if let Some(long) = names.find(|name| name.len() > NAME_BYTES_MAX) {
            return Err(RecordRefusal::new(
                "SINK_NAME_TOO_LONG",
                format!("{long:?} has more than 63 bytes, PostgreSQL's limit"),
                "choose another name with `table`, or rename the field with a transform",
            ));
        }
        drop(names);
        Ok((name, layout))
    }

    async fn bind(
        &mut self,
        session: &mut Session,
        name: TableName,
        layout: Layout,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned, ConnectorError> {
        let computed = schema.computed();
        let table = match Table::load(session, &name).await? {
            Some(table) if self.config.add_columns => {
                if alter::adapt_columns(session, &self.remembered, &table, &layout, computed, empties).await?
                {
                    // What was planned before may mean other columns by the same names.
                    let is_other = |planned: &Planned| match planned {
                        Planned::Plan(plan) => plan.table != name,
                        Planned::Refused(_) => true,
                    };
                    self.plans.retain(|_, planned| is_other(planned));
                    self.deletions.retain(|_, planned| is_other(planned));
                    reload(session, &name).await?
                } else {
                    table
                }
            }
            Some(table) => table,
            None if self.config.create_tables => {
                ddl::create_table(session, &self.pipeline, &self.remembered, &name, &layout).await?;
                let table = reload(session, &name).await?;
                match computed::add_missing(session, &table, computed).await? {
                    true => reload(session, &name).await?,
                    false => table,
                }
            }
            None => {
                return Err(ConnectorError::needs_operator(
                    "SINK_TABLE_MISSING",
                    format!("the table {name} does not exist, and create_tables is off"),
                )
                .with_path("create_tables"));
            }
        };
        Ok(match targets(&table, &layout, self.config.on_unknown) {
            Ok(targets) => {
                let key = key_targets(&table, &layout, &targets)?;
                given(&table, &targets)?;
                let statements = Statements::new(&table, &targets, &key);
                let unchecked = table.has_foreign_keys && may_leave_unchecked(session, &name).await?;
                let copy_pause = AtomicU32::new(0);
                Planned::Plan(Arc::new(Plan {
                    layout,
                    table: name,
                    targets,
                    key,
                    statements,
                    unchecked,
                    copy_pause,
                }))
            }
            Err(refusal) => Planned::Refused(Arc::new(refusal)),
        })
    }
}

async fn bind_deletions(
    session: &mut Session,
    name: TableName,
    table: &Table,
    layout: Layout,
    is_guess: bool,
) -> Result<Option<Plan>, ConnectorError> {
    let Ok(targets) = targets(table, &layout, OnUnknown::Reject) else { return Ok(None) };
    let key = match key_targets(table, &layout, &targets) {
        Ok(key) => key,
        Err(_) if is_guess => return Ok(None),
        Err(error) => return Err(error),
    };
    let statements = Statements::new(table, &targets, &key);
    let unchecked = table.has_foreign_keys && may_leave_unchecked(session, &name).await?;
    let copy_pause = AtomicU32::new(0);
    Ok(Some(Plan { layout, table: name, targets, key, statements, unchecked, copy_pause }))
}

fn layout_refused(error: LayoutError) -> RecordRefusal {
    match error {
        LayoutError::NoSuchKey(_) => {
            RecordRefusal::new("SINK_NO_KEY", error, "name fields with `key` that every record has")
        }
        LayoutError::Twice(_) => RecordRefusal::new(
            "SINK_COLUMN_TWICE",
            error,
            "rename the field with a transform, or the extra column",
        ),
        LayoutError::NoFields => {
            RecordRefusal::new("SINK_NO_COLUMNS", error, "only records with fields or a key can become rows")
        }
    }
}

async fn reload(session: &mut Session, name: &TableName) -> Result<Table, ConnectorError> {
    Table::load(session, name).await?.ok_or_else(|| {
        ConnectorError::retry(
            "PG_TABLE_CHANGED",
            format!("the table {name} vanished just after we changed it"),
        )
    })
}

/// Whether this user may write as PostgreSQL's own replication does, without foreign keys (and ordinary triggers).
async fn may_leave_unchecked(session: &mut Session, name: &TableName) -> Result<bool, ConnectorError> {
    let trial = format!("{UNCHECKED}; SELECT 1");
    match ddl::trial(session, "leave foreign keys unchecked", &trial).await {
        Ok(()) => Ok(true),
        Err(error) if error.code() == "PG_PRIVILEGE" => {
            tracing::warn!(
                table = %name,
                "foreign keys lead from or to the table, and this user may not set session_replication_role: rows that \
                 come before those they refer to are rejected (GRANT SET ON PARAMETER session_replication_role TO it)"
            );
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn targets(table: &Table, layout: &Layout, on_unknown: OnUnknown) -> Result<Vec<Target>, RecordRefusal> {
    let mut targets = Vec::with_capacity(layout.columns.len());
    for (index, described) in layout.columns.iter().enumerate() {
        match table.column(&described.field.name) {
            // The server computes it, from the same fields as the source did.
            Some(column) if column.generated => {}
            Some(column) => targets.push(Target::new(index, &described.field, column)),
            None if on_unknown == OnUnknown::Ignore && !layout.is_key(index) => {}
            None => {
                let (name, table) = (&described.field.name, &table.name);
                return Err(RecordRefusal::new(
                    "SINK_UNKNOWN_FIELD",
                    format!("the table {table} has no column {name:?}, and add_columns is off"),
                    "add the column, drop the field with a transform, or set add_columns or on_unknown: ignore",
                ));
            }
        }
    }
    Ok(targets)
}

/// The key's targets. In a table that is there already, a unique index must tell rows apart by exactly them.
fn key_targets(table: &Table, layout: &Layout, targets: &[Target]) -> Result<Vec<usize>, ConnectorError> {
    let key = layout.key.iter().map(|column| {
        targets.iter().position(|target| target.layout == *column).ok_or_else(|| {
            let name = &layout.columns[*column].field.name;
            ConnectorError::needs_operator(
                "SINK_KEY_GENERATED",
                format!("the key's column {name:?} of {} is generated and cannot be written", table.name),
            )
        })
    });
    let key: Vec<usize> = key.collect::<Result<_, _>>()?;
    let names: Vec<&str> = key.iter().map(|target| targets[*target].column.name.as_str()).collect();
    let same = |unique: &Vec<String>| {
        unique.len() == names.len() && names.iter().all(|name| unique.iter().any(|column| column == name))
    };
    if !names.is_empty() && !table.unique.iter().any(same) {
        return Err(ConnectorError::needs_operator(
            "SINK_KEY_NOT_UNIQUE",
            format!("no unique index of {} has exactly the key's columns ({})", table.name, names.join(", ")),
        )
        .with_hint(format!(
            "CREATE UNIQUE INDEX ON {} ({}); or name other columns with `key`, or use mode: append",
            table.name.quoted(),
            towpath_sql::idents(names),
        )));
    }
    Ok(key)
}

/// Refuses tables that no record could be inserted into.
fn given(table: &Table, targets: &[Target]) -> Result<(), ConnectorError> {
    let missing = table.columns.iter().find(|column| {
        column.must_be_given && !targets.iter().any(|target| target.column.name == column.name)
    });
    match missing {
        None => Ok(()),
        Some(column) => Err(ConnectorError::needs_operator(
            "SINK_COLUMN_REQUIRED",
            format!(
                "column {:?} of {} is NOT NULL without a default, and records do not have it",
                column.name, table.name
            ),
        )
        .with_hint(format!(
            "ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL",
            table.name.quoted(),
            towpath_sql::ident(&column.name)
        ))),
    }
}
