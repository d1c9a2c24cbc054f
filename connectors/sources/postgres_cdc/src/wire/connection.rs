//! One connection: startup, simple queries, COPY TO STDOUT, and the bytes below them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::auth;
use super::endpoint::{Address, Endpoint};
use super::error::{PgError, ServerError};
use super::tls::{self, Upgraded};

/// Bytes of one message: a row of two images of the largest values that a record can hold (R10).
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes that the rows of one query may hold: catalog queries over many thousand tables stay far below (R10).
const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;
/// Bytes asked of the socket at once where data is read in bulk.
const BULK_READ_BYTES: usize = 256 * 1024;
const CONNECT_SECONDS: u64 = 15;
const QUERY_SECONDS: u64 = 60;

/// A byte stream to the server.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for T {}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SQL.
    Session,
    /// SQL and replication commands (`replication=database`).
    Replication,
}

/// One row of a simple query, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(Vec<Option<String>>);

impl Row {
    /// The text of column `index`; `None` for NULL.
    pub(crate) fn opt(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// The text of column `index`, called `name` in errors.
    pub(crate) fn text(&self, index: usize, name: &'static str) -> Result<&str, PgError> {
        self.opt(index).ok_or(PgError::Answer(name))
    }

    /// Column `index` as whatever can be parsed.
    pub(crate) fn parse<T: std::str::FromStr>(&self, index: usize, name: &'static str) -> Result<T, PgError> {
        self.text(index, name)?.parse().map_err(|_| PgError::Answer(name))
    }

    /// Column `index` as a boolean; NULL is false.
    pub(crate) fn flag(&self, index: usize) -> bool {
        self.opt(index) == Some("t")
    }
}

/// The length of the frame (tag, length, payload) at the beginning of `bytes`, once its header is there.
pub(crate) fn frame_length(bytes: &[u8]) -> Result<Option<usize>, PgError> {
    let Some(header) = bytes.first_chunk::<5>() else { return Ok(None) };
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(PgError::Protocol("a message's length is out of bounds"));
    }
    Ok(Some(length + 1))
}

/// A connection to one server.
pub(crate) struct Connection {
    stream: Box<dyn Duplex>,
    buffer: Vec<u8>,
    start: usize,
    read_bytes: usize,
    /// As in `server_version_num`: 150004.
    pub(crate) server_version: u32,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("server_version", &self.server_version).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects, authenticates, and waits until the server is ready. `name` is shown in `pg_stat_activity`.
    pub(crate) async fn open(endpoint: &Endpoint, kind: Kind, name: &str) -> Result<Self, PgError> {
        let opening = Box::pin(Self::open_slowly(endpoint, kind, name));
        timeout(Duration::from_secs(CONNECT_SECONDS), opening).await.unwrap_or_else(|_| {
            Err(PgError::Connect { target: endpoint.target(), cause: io::ErrorKind::TimedOut.into() })
        })
    }

    async fn open_slowly(endpoint: &Endpoint, kind: Kind, name: &str) -> Result<Self, PgError> {
        let failed = |cause| PgError::Connect { target: endpoint.target(), cause };
        let stream: Box<dyn Duplex> = match &endpoint.address {
            Address::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
            Address::Tcp(host, port) => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
                tcp.set_nodelay(true).map_err(failed)?;
                match tls::upgrade(tcp, endpoint, host).await? {
                    Upgraded::Plain(tcp) => Box::new(tcp),
                    Upgraded::Tls(tls) => tls,
                }
            }
        };
        let mut connection =
            Self { stream, buffer: Vec::new(), start: 0, read_bytes: READ_BYTES, server_version: 0 };
        connection.startup(endpoint, kind, name).await?;
        auth::authenticate(&mut connection, endpoint).await?;
        loop {
            let (tag, payload) = connection.message().await?;
            match tag {
                b'S' => {
                    if let Some(version) = version_parameter(payload) {
                        connection.server_version = version;
                    }
                }
                b'Z' => return Ok(connection),
                _ => {}
            }
        }
    }

    /// Every setting that changes how values are written, or that could end a long snapshot, is pinned here.
    async fn startup(&mut self, endpoint: &Endpoint, kind: Kind, name: &str) -> Result<(), PgError> {
        let mut parameters = vec![
            ("user", endpoint.user.as_str()),
            ("database", endpoint.database.as_str()),
            ("application_name", name),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO, YMD"),
            ("TimeZone", "UTC"),
            ("IntervalStyle", "postgres"),
            ("extra_float_digits", "3"),
            ("bytea_output", "hex"),
            ("search_path", ""),
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            // A copy is taken up behind the last row that was stored: rows must come in the order of their places.
            ("synchronize_seqscans", "off"),
            ("max_parallel_workers_per_gather", "0"),
            // Rows hidden by a policy must be an error, not a gap.
            ("row_security", "off"),
        ];
        if kind == Kind::Replication {
            parameters.push(("replication", "database"));
        }
        let mut payload = 196_608_u32.to_be_bytes().to_vec();
        for (name, value) in parameters {
            payload.extend_from_slice(name.as_bytes());
            payload.push(0);
            payload.extend_from_slice(value.as_bytes());
            payload.push(0);
        }
        payload.push(0);
        let length = (payload.len() + 4) as u32;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.append(&mut payload);
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// Sends one message.
    pub(crate) async fn send(&mut self, tag: u8, payload: &[u8]) -> Result<(), PgError> {
        let mut bytes = Vec::with_capacity(payload.len() + 5);
        bytes.push(tag);
        bytes.extend_from_slice(&((payload.len() + 4) as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next message that is there already: its tag and payload.
    pub(crate) fn ready_message(&mut self) -> Result<Option<(u8, &[u8])>, PgError> {
        let rest = &self.buffer[self.start..];
        let Some(length) = frame_length(rest)? else { return Ok(None) };
        if rest.len() < length {
            return Ok(None);
        }
        let from = self.start;
        self.start += length;
        Ok(Some((self.buffer[from], &self.buffer[from + 5..from + length])))
    }

    /// Reads what the socket has.
    pub(crate) async fn fill(&mut self) -> Result<(), PgError> {
        if self.start > 0 {
            // What is left is the beginning of one message.
            self.buffer.copy_within(self.start.., 0);
            self.buffer.truncate(self.buffer.len() - self.start);
            self.start = 0;
        }
        self.buffer.reserve(self.read_bytes);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())),
            _ => Ok(()),
        }
    }

    /// The next message, errors of the server taken out.
    pub(crate) async fn message(&mut self) -> Result<(u8, &[u8]), PgError> {
        loop {
            let rest = &self.buffer[self.start..];
            match frame_length(rest)? {
                Some(length) if rest.len() >= length => break,
                _ => self.fill().await?,
            }
        }
        match self.ready_message()? {
            Some((b'E', payload)) => Err(PgError::Server(Box::new(ServerError::parse(payload)))),
            Some(message) => Ok(message),
            None => Err(PgError::Protocol("a message vanished")),
        }
    }

    /// Runs one or more statements and gives all their rows, within a bounded time.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        let asked = Duration::from_secs(QUERY_SECONDS);
        timeout(asked, self.query_slowly(sql)).await.unwrap_or(Err(PgError::Timeout(QUERY_SECONDS)))
    }

    /// As [`Connection::query`], for statements that may wait for others' transactions.
    pub(crate) async fn query_slowly(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.send_query(sql).await?;
        let mut rows = Vec::new();
        let mut bytes = 0_usize;
        let mut failed = None;
        loop {
            match self.message().await {
                Ok((b'D', payload)) => {
                    bytes = bytes.saturating_add(payload.len());
                    if bytes > ANSWER_BYTES_MAX {
                        return Err(PgError::Protocol("an answer is larger than any catalog"));
                    }
                    rows.push(parse_row(payload)?);
                }
                Ok((b'Z', _)) => return failed.map_or(Ok(rows), Err),
                Ok((b'G' | b'H' | b'W', _)) => return Err(PgError::Protocol("a query began to copy")),
                Ok(_) => {}
                Err(PgError::Server(error)) if error.severity == "ERROR" => {
                    failed = Some(PgError::Server(error))
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a simple query; the caller reads the answer.
    pub(crate) async fn send_query(&mut self, sql: &str) -> Result<(), PgError> {
        if sql.as_bytes().contains(&0) {
            return Err(PgError::Protocol("a statement holds a NUL"));
        }
        let mut payload = Vec::with_capacity(sql.len() + 1);
        payload.extend_from_slice(sql.as_bytes());
        payload.push(0);
        self.send(b'Q', &payload).await
    }

    /// Begins a COPY TO STDOUT, one of the statements in `sql`; gives the rows of those before it. What follows is
    /// read with [`Connection::ready_message`] and [`Connection::fill`] up to `Z`.
    pub(crate) async fn begin_copy(&mut self, sql: &str) -> Result<Vec<Row>, PgError> {
        self.read_bytes = BULK_READ_BYTES;
        self.send_query(sql).await?;
        let mut failed = None;
        let mut rows = Vec::new();
        loop {
            match self.message().await {
                Ok((b'H', _)) => return Ok(rows),
                Ok((b'D', payload)) => rows.push(parse_row(payload)?),
                Ok((b'Z', _)) => return Err(failed.unwrap_or(PgError::Protocol("no COPY began"))),
                Ok(_) => {}
                Err(PgError::Server(error)) if error.severity == "ERROR" => {
                    failed = Some(PgError::Server(error))
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends START_REPLICATION and hands over the stream with what was read beyond the answer.
    pub(crate) async fn start_replication(
        mut self,
        sql: &str,
    ) -> Result<(Box<dyn Duplex>, Vec<u8>), PgError> {
        self.send_query(sql).await?;
        loop {
            match self.message().await? {
                (b'W', _) => {
                    let rest = self.buffer.split_off(self.start);
                    return Ok((self.stream, rest));
                }
                (b'Z', _) => return Err(PgError::Protocol("replication did not start")),
                _ => {}
            }
        }
    }

    /// Says good-bye; errors do not matter any more.
    pub(crate) async fn close(mut self) {
        let _gone = timeout(Duration::from_secs(1), self.send(b'X', &[])).await;
    }
}

fn version_parameter(payload: &[u8]) -> Option<u32> {
    let mut parts = payload.split(|byte| *byte == 0);
    if parts.next()? != b"server_version" {
        return None;
    }
    // "15.4 (Debian …)", "17beta1": only the major number decides anything.
    let text = std::str::from_utf8(parts.next()?).ok()?;
    let digits = text.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse::<u32>().ok()?.checked_mul(10_000)
}

fn parse_row(payload: &[u8]) -> Result<Row, PgError> {
    const SHORT: PgError = PgError::Protocol("a short DataRow");
    let (count, mut rest) = payload.split_first_chunk::<2>().ok_or(SHORT)?;
    let mut columns = Vec::with_capacity(usize::from(u16::from_be_bytes(*count)).min(rest.len() / 4));
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
        match i32::from_be_bytes(*length) {
            -1 => {
                columns.push(None);
                rest = after;
            }
            length => {
                let length = usize::try_from(length).map_err(|_| SHORT)?;
                let (value, after) = after.split_at_checked(length).ok_or(SHORT)?;
                columns.push(Some(String::from_utf8_lossy(value).into_owned()));
                rest = after;
            }
        }
    }
    Ok(Row(columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_anything_is_allocated() {
        assert_eq!(frame_length(b"d\0\0\0").unwrap(), None);
        assert_eq!(frame_length(b"d\0\0\0\x04").unwrap(), Some(5));
        assert!(frame_length(b"d\0\0\0\x03").is_err());
        assert!(frame_length(b"d\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn data_rows_are_read_and_cut_ones_refused() {
        let bytes = b"\0\x02\0\0\0\x01x\xff\xff\xff\xff";
        let row = parse_row(bytes).unwrap();
        assert_eq!((row.opt(0), row.opt(1), row.opt(2)), (Some("x"), None, None));
        for end in 0..bytes.len() {
            assert!(parse_row(&bytes[..end]).is_err(), "{end}");
        }
        assert!(parse_row(b"\0\x01\x80\0\0\0").is_err());
    }

    #[test]
    fn the_version_is_its_major_number() {
        assert_eq!(version_parameter(b"server_version\x0015.4 (Debian)\0"), Some(150_000));
        assert_eq!(version_parameter(b"server_version\x0018beta1\0"), Some(180_000));
        assert_eq!(version_parameter(b"TimeZone\0UTC\0"), None);
    }
}
