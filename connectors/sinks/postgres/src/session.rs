//! One connection, set up so that values are read as they were written.

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgConnectOptions, PgRow, PgTypeInfo};
use sqlx::{AssertSqlSafe, Connection, Either, Encode, Executor, PgConnection, Postgres, Type};
use tokio_util::sync::CancellationToken;
use towpath_api::ConnectorError;

use towpath_sql::sink::Fault;

use super::errors::classify;
use super::nodelay;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a statement may go on after the task was told to stop.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The text forms that sources write are read the same whatever the database's defaults are. A task that is gone without
/// a word ends for the server, too, and with it the lock on its positions (the keepalives do nothing on a Unix socket).
const SETTINGS: &str = "SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; \
                        SET standard_conforming_strings = on; SET xmloption = content; \
                        SET client_min_messages = warning; SET check_function_bodies = off; \
                        SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; \
                        SET tcp_keepalives_count = 3; SET idle_in_transaction_session_timeout = '5min'";

/// Values of one column as a `text[]` in PostgreSQL's binary form, built in place.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextArray {
    bytes: Vec<u8>,
    count: u32,
    /// Where the last value begins.
    last: usize,
}

/// Number of dimensions, "has nulls", element type, length, lower bound.
const ARRAY_HEADER: usize = 20;
const TEXT_OID: u32 = 25;
const TEXT_ARRAY_OID: u32 = 1009;

impl TextArray {
    /// Appends a value that `write` writes; false stands for NULL.
    pub(crate) fn push<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<bool, E>) -> Result<(), E> {
        if self.bytes.is_empty() {
            self.bytes.resize(ARRAY_HEADER, 0);
        }
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0xff; 4]);
        match write(&mut self.bytes) {
            Ok(true) => {
                let length = (self.bytes.len() - at - 4) as u32;
                self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            Ok(false) => self.bytes.truncate(at + 4),
            Err(error) => {
                self.bytes.truncate(at);
                return Err(error);
            }
        }
        self.count += 1;
        self.last = at;
        Ok(())
    }

    /// How many values there are.
    pub(crate) const fn len(&self) -> u32 {
        self.count
    }

    /// Takes the last value away, if there are more than `count`.
    pub(crate) fn pop(&mut self, count: u32) {
        if self.count > count {
            self.bytes.truncate(self.last);
            self.count -= 1;
        }
    }

    fn sealed(mut self) -> Self {
        if self.bytes.is_empty() {
            // No dimensions: the empty array.
            self.bytes.resize(12, 0);
        } else {
            self.bytes[0..4].copy_from_slice(&1_u32.to_be_bytes());
            self.bytes[4..8].copy_from_slice(&1_u32.to_be_bytes());
            self.bytes[12..16].copy_from_slice(&self.count.to_be_bytes());
            self.bytes[16..20].copy_from_slice(&1_u32.to_be_bytes());
        }
        self.bytes[8..12].copy_from_slice(&TEXT_OID.to_be_bytes());
        self
    }
}

impl Type<Postgres> for TextArray {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(sqlx::postgres::types::Oid(TEXT_ARRAY_OID))
    }
}

impl Encode<'_, Postgres> for TextArray {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.bytes);
        Ok(IsNull::No)
    }

    fn size_hint(&self) -> usize {
        self.bytes.len()
    }
}

/// A connection of one task.
#[derive(Debug)]
pub(crate) struct Session {
    connection: PgConnection,
    stop: CancellationToken,
}

impl Session {
    /// Connects.
    pub(crate) async fn open(
        options: &PgConnectOptions,
        stop: &CancellationToken,
    ) -> Result<Self, ConnectorError> {
        let unreachable = |message: String| {
            ConnectorError::retry("PG_UNREACHABLE", message).with_hint(
                "check host and port of the URL, listen_addresses of the server, and any firewall between",
            )
        };
        let place = format!("{}:{}", options.get_host(), options.get_port());
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(PgConnection::connect_with(options)));
        let connection = tokio::select! {
            connected = connecting => match connected {
                Ok(Ok(connection)) => connection,
                Ok(Err(error @ sqlx::Error::Io(_))) => {
                    return Err(unreachable(format!("cannot connect to PostgreSQL at {place}")).with_cause(error));
                }
                Ok(Err(error)) => return Err(classify(&format!("connect to PostgreSQL at {place}"), error).fatal()),
                Err(_) => return Err(unreachable(format!("PostgreSQL at {place} does not answer"))),
            },
            () = stop.cancelled() => return Err(stopped()),
        };
        nodelay::set(options.get_port());
        let mut session = Self { connection, stop: stop.clone() };
        session.script("set up the session", SETTINGS.to_owned()).await.map_err(Fault::fatal)?;
        Ok(session)
    }

    /// Runs statements in one round trip; gives how many rows each affected.
    pub(crate) async fn script(&mut self, what: &str, sql: String) -> Result<Vec<u64>, Fault> {
        let connection = &mut self.connection;
        let work = async {
            let mut affected = Vec::new();
            let mut results = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_many(connection);
            while let Some(item) = results.try_next().await? {
                if let Either::Left(done) = item {
                    affected.push(done.rows_affected());
                }
            }
            Ok(affected)
        };
        bounded(&self.stop, what, work).await
    }

    /// Runs a prepared statement; gives how many rows it affected.
    pub(crate) async fn execute(
        &mut self,
        what: &str,
        sql: &str,
        arguments: PgArguments,
    ) -> Result<u64, Fault> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        let work = async { Ok(self.connection.execute(query).await?.rows_affected()) };
        bounded(&self.stop, what, work).await
    }

    /// Runs a prepared statement and fetches its rows.
    pub(crate) async fn fetch(
        &mut self,
        what: &str,
        sql: &str,
        arguments: PgArguments,
    ) -> Result<Vec<PgRow>, Fault> {
        let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
        bounded(&self.stop, what, self.connection.fetch_all(query)).await
    }

    /// `COPY … FROM STDIN` of all of `data`.
    pub(crate) async fn copy_in(&mut self, what: &str, sql: &str, data: &[u8]) -> Result<u64, Fault> {
        let connection = &mut self.connection;
        let work = async {
            let mut copy = connection.copy_in_raw(sql).await?;
            copy.send(data).await?;
            copy.finish().await
        };
        bounded(&self.stop, what, work).await
    }

    /// Says goodbye.
    pub(crate) async fn close(self) {
        // The server notices the end of the connection anyway.
        let _ended = tokio::time::timeout(Duration::from_secs(2), self.connection.close()).await;
    }
}

/// Arguments of these arrays.
pub(crate) fn arguments(columns: Vec<TextArray>) -> Result<PgArguments, ConnectorError> {
    use sqlx::Arguments as _;
    let mut arguments = PgArguments::default();
    for column in columns {
        arguments.add(column.sealed()).map_err(encoding)?;
    }
    Ok(arguments)
}

/// Arguments of these scalar texts.
pub(crate) fn texts<'a>(
    values: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<PgArguments, ConnectorError> {
    use sqlx::Arguments as _;
    let mut arguments = PgArguments::default();
    for value in values {
        arguments.add(value).map_err(encoding)?;
    }
    Ok(arguments)
}

fn encoding(error: BoxDynError) -> ConnectorError {
    ConnectorError::bug("PG_CLIENT", "arguments of a statement cannot be encoded").with_cause(error)
}

fn stopped() -> ConnectorError {
    ConnectorError::retry("SINK_STOPPED", "the task was stopped before the database answered")
}

/// Waits for `work`, but not for long after the task was told to stop. What is dropped then leaves the connection in
/// the middle of an answer: the caller closes it, as after every error.
async fn bounded<T>(
    stop: &CancellationToken,
    what: &str,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Fault> {
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    };
    tokio::select! {
        biased;
        result = work => result.map_err(|error| classify(what, error)),
        () = patience => Err(stopped().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_what_the_server_reads() {
        let mut array = TextArray::default();
        array
            .push(|out| {
                out.extend_from_slice(b"ab");
                Ok::<_, ()>(true)
            })
            .unwrap();
        array.push(|_| Ok::<_, ()>(false)).unwrap();
        array
            .push(|out| {
                out.extend_from_slice(b"half");
                Err("no")
            })
            .unwrap_err();
        array
            .push(|out| {
                out.extend_from_slice(b"gone");
                Ok::<_, ()>(true)
            })
            .unwrap();
        array.pop(2);
        array.pop(2);
        assert_eq!(array.len(), 2);
        let expected = [
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, b'a', b'b', 255, 255,
            255, 255,
        ];
        assert_eq!(array.sealed().bytes, expected);
        assert_eq!(TextArray::default().sealed().bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25]);
    }
}
