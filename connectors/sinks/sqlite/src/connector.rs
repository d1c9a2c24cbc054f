//! The configured sink: what it checks, and how it opens.

use std::sync::Arc;

use async_trait::async_trait;
use towpath_api::{ConnectorError, Sink, SinkConnector, TaskContext};
use towpath_sql::sink::SqlTask;

use super::config::Config;
use super::database::{Database, resolve};
use super::table::Table;
use super::target::SqliteTarget;

/// A configured `sqlite` sink.
#[derive(Debug)]
pub(crate) struct Connector {
    config: Config,
}

impl Connector {
    pub(crate) fn new(config: Config) -> Self {
        Self { config }
    }

    fn resolved(&self, context: &TaskContext) -> Config {
        Config { path: resolve(&context.base_dir, &self.config.path), ..self.config.clone() }
    }
}

#[async_trait]
impl SinkConnector for Connector {
    async fn check(&self, context: &TaskContext) -> Result<Vec<String>, Vec<ConnectorError>> {
        let config = self.resolved(context);
        let path = config.path.display();
        if !config.path.exists() {
            // Nothing is created by a check. The task makes the directory where it is missing, within one that is there.
            let nearest = config.path.ancestors().skip(1).find(|folder| folder.exists());
            let is_folder = nearest.is_none_or(|nearest| nearest.as_os_str().is_empty() || nearest.is_dir());
            return if is_folder {
                Ok(vec![format!("{path} will be created")])
            } else {
                let message = format!("{} is not a directory", nearest.unwrap_or(&config.path).display());
                Err(vec![
                    ConnectorError::needs_operator("SQLITE_CANNOT_WRITE", message)
                        .with_path("path")
                        .with_hint("choose another path"),
                ])
            };
        }
        let opened = Database::open(&config.path, config.busy_timeout, false).await;
        let mut database = opened.map_err(|error| vec![error.with_path("path")])?;
        let mut verified = vec![format!("{path} is a database")];
        if let Some(name) = config.table.fixed() {
            match Table::load(&mut database, &name.table).await {
                Ok(Some(_)) => verified.push(format!("{name} is there")),
                Ok(None) if config.create_tables => verified.push(format!("{name} will be created")),
                Ok(None) => {
                    return Err(vec![
                        ConnectorError::needs_operator(
                            "SINK_TABLE_MISSING",
                            format!("the table {name} does not exist"),
                        )
                        .with_path("table")
                        .with_hint("create it, or set create_tables: true"),
                    ]);
                }
                Err(error) => return Err(vec![error.with_path("path")]),
            }
        }
        database.close().await;
        Ok(verified)
    }

    async fn open(&self, context: TaskContext) -> Result<Box<dyn Sink>, ConnectorError> {
        let config = Arc::new(self.resolved(&context));
        Ok(Box::new(SqlTask::new(SqliteTarget::open(config, &context).await?)))
    }
}
