//! The configured sink: what it checks, and how it opens.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{ConnectorError, Sink, SinkConnector, TaskContext};
use towpath_sql::sink::{OFFSETS_TABLE, SqlTask};
use towpath_sql::{TableName, ident};

use super::catalog::{Table, fetch, get};
use super::config::Config;
use super::ddl;
use super::session::Session;
use super::target::PostgresTarget;

/// A configured `postgres` sink.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Arc<Config>,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Self {
        Self { config: Arc::new(config) }
    }

    async fn check_offsets(&self, session: &mut Session) -> Result<String, ConnectorError> {
        let (schema, name) = (&self.config.schema, TableName::new(&self.config.schema, OFFSETS_TABLE));
        if ddl::exists(session, schema, OFFSETS_TABLE).await? {
            let trial = format!(
                "UPDATE {0} SET next_offset = next_offset WHERE false; \
                                 INSERT INTO {0} SELECT * FROM {0} WHERE false",
                name.quoted()
            );
            ddl::trial(session, "write the table of positions", &trial).await?;
            return Ok(format!("{name} holds the positions and can be written"));
        }
        let create = format!("CREATE TABLE {} (pipeline text)", name.quoted());
        let trial = match self.schema_exists(session).await? {
            true => create,
            false => format!("CREATE SCHEMA {}; {create}", ident(schema)),
        };
        ddl::trial(session, "create the table of positions", &trial).await.map_err(|error| {
            error.with_hint(format!("GRANT USAGE, CREATE ON SCHEMA {} TO the user of the URL", ident(schema)))
        })?;
        Ok(format!("{name} can be created for the positions"))
    }

    async fn schema_exists(&self, session: &mut Session) -> Result<bool, ConnectorError> {
        const SQL: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)";
        let rows = fetch(session, SQL, &[&self.config.schema]).await?;
        rows.first().map_or(Ok(false), |row| get(row, 0))
    }

    /// Looks at the one table, where the template names one.
    async fn check_table(&self, session: &mut Session) -> Result<Option<String>, ConnectorError> {
        let Some(mut name) = self.config.table.fixed() else { return Ok(None) };
        name.schema.get_or_insert_with(|| self.config.schema.clone());
        let Some(table) = Table::load(session, &name).await? else {
            return if self.config.create_tables {
                Ok(Some(format!("{name} will be created")))
            } else {
                Err(ConnectorError::needs_operator(
                    "SINK_TABLE_MISSING",
                    format!("the table {name} does not exist"),
                )
                .with_path("table")
                .with_hint("create it, or set create_tables: true"))
            };
        };
        let quoted = name.quoted();
        let mut trial = format!("INSERT INTO {quoted} SELECT * FROM {quoted} WHERE false");
        if !self.config.layout.append {
            trial.push_str(&format!("; DELETE FROM {quoted} WHERE false"));
        }
        // Identity and generated columns refuse such an INSERT for reasons that are not privileges.
        let plain = table.columns.iter().all(|column| !column.generated && !column.identity_always);
        if plain {
            ddl::trial(session, &format!("write the table {name}"), &trial).await?;
        }
        let key = &self.config.layout.key;
        let same =
            |unique: &Vec<String>| unique.len() == key.len() && key.iter().all(|name| unique.contains(name));
        if !key.is_empty() && !table.unique.iter().any(same) {
            return Err(ConnectorError::needs_operator(
                "SINK_KEY_NOT_UNIQUE",
                format!("no unique index of {name} has exactly the columns of `key`"),
            )
            .with_path("key")
            .with_hint(format!(
                "CREATE UNIQUE INDEX ON {quoted} ({})",
                towpath_sql::idents(key.iter().map(String::as_str))
            )));
        }
        Ok(Some(format!("{name} is there and can be written")))
    }
}

#[async_trait]
impl SinkConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let mut session =
            Session::open(&self.config.connect, &context.stop).await.map_err(|error| vec![error])?;
        let (host, port) = (self.config.connect.get_host(), self.config.connect.get_port());
        let (mut verified, mut errors) =
            (vec![format!("connected to PostgreSQL at {host}:{port}")], Vec::new());
        match self.check_offsets(&mut session).await {
            Ok(text) => verified.push(text),
            Err(error) => errors.push(error),
        }
        match self.check_table(&mut session).await {
            Ok(text) => verified.extend(text),
            Err(error) => errors.push(error),
        }
        session.close().await;
        if errors.is_empty() { Ok(verified) } else { Err(errors) }
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        Ok(Box::new(SqlTask::new(PostgresTarget::open(Arc::clone(&self.config), &context).await?)))
    }
}
