//! An ordinary connection that is made when it is needed and made again when it broke.

use towpath_api::ConnectorError;

use super::errors::classify;
use super::wire::{Connection, Endpoint, Kind, PgError, Row};

/// A lazily kept connection for catalog queries.
#[derive(Debug)]
pub(crate) struct Session {
    endpoint: Endpoint,
    name: String,
    connection: Option<Connection>,
}

impl Session {
    /// Does not connect yet. `name` is shown in `pg_stat_activity`.
    pub(crate) fn new(endpoint: &Endpoint, name: &str) -> Self {
        Self { endpoint: endpoint.clone(), name: name.to_owned(), connection: None }
    }

    /// Another session of the same kind, for another task.
    pub(crate) fn another(&self) -> Self {
        Self::new(&self.endpoint, &self.name)
    }

    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The connection, made now if there is none.
    pub(crate) async fn connection(&mut self) -> Result<&mut Connection, PgError> {
        if self.connection.is_none() {
            let opened = Box::pin(Connection::open(&self.endpoint, Kind::Session, &self.name)).await?;
            self.connection = Some(opened);
        }
        self.connection.as_mut().ok_or(PgError::Protocol("a connection vanished"))
    }

    /// Runs `sql`; a connection that broke while idle is replaced once.
    pub(crate) async fn try_query(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        let was_open = self.connection.is_some();
        match self.connection().await?.query(sql).await {
            Err(PgError::Io(_) | PgError::Timeout(_)) if was_open => {
                self.connection = None;
                self.connection().await?.query(sql).await
            }
            Err(PgError::Server(error)) if error.severity != "ERROR" => {
                // FATAL: the server ended the session (it was told to, or it restarts).
                self.connection = None;
                if was_open {
                    return self.connection().await?.query(sql).await;
                }
                Err(PgError::Server(error))
            }
            Err(error) => {
                if !matches!(error, PgError::Server(_)) {
                    self.connection = None;
                }
                Err(error)
            }
            rows => rows,
        }
    }

    /// As [`Session::try_query`], with the error classified: `what` we were trying to do.
    pub(crate) async fn query(&mut self, what: &str, sql: &str) -> Result<Vec<Row>, ConnectorError> {
        self.try_query(sql).await.map_err(|error| classify(what, error))
    }

    /// Ends the connection, if there is one.
    pub(crate) async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }
}
