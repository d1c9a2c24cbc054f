//! What is decided once for each topic and schema: the table, its columns, and the statements.

use std::collections::HashMap;
use std::sync::Arc;

use towpath_api::{ConnectorError, EventSchema, SchemaId};
use towpath_sql::TableName;
use towpath_sql::sink::{self, Layout, LayoutError, RecordRefusal};
use towpath_types::TopicName;

use super::alter;
use super::config::{Config, OnUnknown};
use super::database::Database;
use super::statements::Statements;
use super::table::Table;

/// Plans kept before the cache starts anew.
const PLANS_MAX: usize = 4096;

/// How records of one schema in one topic are written.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) table: TableName,
    /// The layout's columns that are written.
    pub(crate) columns: Vec<usize>,
    pub(crate) statements: Statements,
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

/// Makes and keeps plans, as long as a task lives.
#[derive(Debug)]
pub(crate) struct Planner {
    config: Arc<Config>,
    pipeline: Arc<str>,
    plans: HashMap<(SchemaId, TopicName), Planned>,
    /// How rows are deleted by records that have only a key.
    deletions: HashMap<(SchemaId, TopicName), Planned>,
}

impl Planner {
    pub(crate) fn new(config: Arc<Config>, pipeline: Arc<str>) -> Self {
        Self { config, pipeline, plans: HashMap::new(), deletions: HashMap::new() }
    }

    /// Whether there is a plan for the records of `schema` in `topic`.
    pub(crate) fn knows(&self, topic: &TopicName, schema: &EventSchema) -> bool {
        self.plans.contains_key(&(schema.id(), topic.clone()))
    }

    /// The plan for the records of `schema` in `topic`; creates and adapts the table when it is new. `empties` says that
    /// the first of them empties the table.
    pub(crate) async fn plan(
        &mut self,
        database: &mut Database,
        topic: &TopicName,
        schema: &EventSchema,
        empties: bool,
    ) -> Result<Planned, ConnectorError> {
        let id = (schema.id(), topic.clone());
        if let Some(known) = self.plans.get(&id) {
            return Ok(known.clone());
        }
        let planned = match self.layout(topic, schema) {
            Ok((name, layout)) => self.bind(database, name, layout, empties).await?,
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
        database: &mut Database,
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
                let Some(table) = Table::load(database, &name.table).await? else { return Ok(None) };
                let Ok(columns) = columns(&table, &layout, OnUnknown::Reject) else { return Ok(None) };
                match check_key(&table, &layout) {
                    Ok(()) => {}
                    // Nobody says which column a key without names is: beside rows with fields, it is none.
                    Err(_) if self.guesses_key(schema) => return Ok(None),
                    Err(error) => return Err(error),
                }
                let statements = Statements::new(&table, &layout);
                Planned::Plan(Arc::new(Plan { layout, table: name, columns, statements }))
            }
            Err(error) => Planned::Refused(Arc::new(layout_refused(error))),
        };
        if self.deletions.len() >= PLANS_MAX {
            self.deletions.clear();
        }
        self.deletions.insert(id, planned.clone());
        Ok(Some(planned))
    }

    fn guesses_key(&self, schema: &EventSchema) -> bool {
        self.config.layout.key.is_empty() && schema.key().is_some_and(|key| key.is_bare())
    }

    fn name(&self, topic: &TopicName, schema: &EventSchema) -> Result<TableName, RecordRefusal> {
        let name = self.config.table.render(&self.pipeline, topic.as_str(), schema).map_err(|error| {
            RecordRefusal::new("SINK_TABLE_NAME", error, "`table` must only use what topics and records have")
        })?;
        if name.table.to_ascii_lowercase().starts_with("sqlite_") {
            let message = format!("SQLite keeps names like {:?} for itself", name.table);
            return Err(RecordRefusal::new("SINK_TABLE_NAME", message, "choose another name with `table`"));
        }
        Ok(name)
    }

    fn layout(&self, topic: &TopicName, schema: &EventSchema) -> Result<(TableName, Layout), RecordRefusal> {
        let name = self.name(topic, schema)?;
        let layout = Layout::new(schema, &self.config.layout).map_err(layout_refused)?;
        let lower = |column: usize| layout.columns[column].field.name.to_ascii_lowercase();
        let twin = (0..layout.columns.len()).find(|at| (0..*at).any(|other| lower(other) == lower(*at)));
        match twin {
            Some(at) => {
                let name = &layout.columns[at].field.name;
                let message = format!("to SQLite, the field {name:?} has the same name as another");
                Err(RecordRefusal::new("SINK_COLUMN_TWICE", message, "rename the field with a transform"))
            }
            None => Ok((name, layout)),
        }
    }

    async fn bind(
        &mut self,
        database: &mut Database,
        name: TableName,
        layout: Layout,
        empties: bool,
    ) -> Result<Planned, ConnectorError> {
        let table = match Table::load(database, &name.table).await? {
            Some(table)
                if self.config.add_columns && alter::adapt(database, &table, &layout, empties).await? =>
            {
                // What was planned before may mean other columns by the same names.
                let is_other = |planned: &Planned| match planned {
                    Planned::Plan(plan) => plan.table != name,
                    Planned::Refused(_) => true,
                };
                self.plans.retain(|_, planned| is_other(planned));
                self.deletions.retain(|_, planned| is_other(planned));
                reload(database, &name).await?
            }
            Some(table) => table,
            None if self.config.create_tables => {
                Table::create(database, &name.table, &layout).await?;
                reload(database, &name).await?
            }
            None => {
                return Err(ConnectorError::needs_operator(
                    "SINK_TABLE_MISSING",
                    format!("the table {name} does not exist, and create_tables is off"),
                )
                .with_path("create_tables"));
            }
        };
        Ok(match columns(&table, &layout, self.config.on_unknown) {
            Ok(columns) => {
                check_key(&table, &layout)?;
                check_given(&table, &layout)?;
                let statements = Statements::new(&table, &layout);
                Planned::Plan(Arc::new(Plan { layout, table: name, columns, statements }))
            }
            Err(refusal) => Planned::Refused(Arc::new(refusal)),
        })
    }
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

async fn reload(database: &mut Database, name: &TableName) -> Result<Table, ConnectorError> {
    Table::load(database, &name.table).await?.ok_or_else(|| {
        ConnectorError::retry(
            "SQLITE_TABLE_CHANGED",
            format!("the table {name} vanished just after we changed it"),
        )
    })
}

fn columns(table: &Table, layout: &Layout, on_unknown: OnUnknown) -> Result<Vec<usize>, RecordRefusal> {
    let mut columns = Vec::with_capacity(layout.columns.len());
    for (index, described) in layout.columns.iter().enumerate() {
        match table.column(&described.field.name) {
            // The database computes it, from the same fields as the source did.
            Some(column) if column.generated => {}
            Some(_) => columns.push(index),
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
    Ok(columns)
}

/// In a table that is there already, a unique index must tell rows apart by exactly the key's columns.
fn check_key(table: &Table, layout: &Layout) -> Result<(), ConnectorError> {
    let names: Vec<&str> = layout.key.iter().map(|key| layout.columns[*key].field.name.as_str()).collect();
    let same = |unique: &Vec<String>| {
        unique.len() == names.len()
            && names.iter().all(|name| unique.iter().any(|column| column.eq_ignore_ascii_case(name)))
    };
    if names.is_empty() || table.unique.iter().any(same) {
        return Ok(());
    }
    Err(ConnectorError::needs_operator(
        "SINK_KEY_NOT_UNIQUE",
        format!("no unique index of {} has exactly the key's columns ({})", table.name, names.join(", ")),
    )
    .with_hint(format!(
        "CREATE UNIQUE INDEX {} ON {} ({}); or name other columns with `key`, or use mode: append",
        towpath_sql::ident(&format!("{}_key", table.name)),
        towpath_sql::ident(&table.name),
        towpath_sql::idents(names)
    )))
}

/// Refuses tables that no record could be inserted into.
fn check_given(table: &Table, layout: &Layout) -> Result<(), ConnectorError> {
    let given = |name: &str| layout.columns.iter().any(|column| column.field.name.eq_ignore_ascii_case(name));
    match table.columns.iter().find(|column| column.must_be_given && !given(&column.name)) {
        None => Ok(()),
        Some(column) => Err(ConnectorError::needs_operator(
            "SINK_COLUMN_REQUIRED",
            format!(
                "column {:?} of {} is NOT NULL without a default, and records do not have it",
                column.name, table.name
            ),
        )
        .with_hint("give the column a default, or fill it with a transform (insert_field)")),
    }
}
