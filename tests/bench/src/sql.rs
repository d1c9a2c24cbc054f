//! One session with PostgreSQL, for looking often; and statements by psql.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::runtime::{Builder, Runtime};
use towpath_harness::{Guarded, Postgres};

const TIMEOUT: Duration = Duration::from_secs(600);

/// A session.
pub(crate) struct Sql {
    runtime: Runtime,
    session: PgConnection,
}

impl Sql {
    /// Connects to a database.
    pub(crate) fn connect(server: &Postgres, database: &str) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
        let session = runtime.block_on(PgConnection::connect(&server.url(database)))?;
        Ok(Self { runtime, session })
    }

    /// A query's one number.
    pub(crate) fn number(&mut self, query: &str) -> Result<u64> {
        let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(query));
        let number = self.runtime.block_on(query.fetch_one(&mut self.session))?;
        u64::try_from(number).context("a negative number")
    }
}

/// Runs a statement that writes much, without waiting for the disk at each commit of its own.
pub(crate) fn write(server: &Postgres, database: &str, statement: &str) -> Result<()> {
    let mut psql = server.program("psql");
    psql.env("PGOPTIONS", "-c synchronous_commit=off");
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]);
    Guarded::run("psql", psql, TIMEOUT).map(drop)
}
