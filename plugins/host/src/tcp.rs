//! TCP for guests, to where it is granted.

use std::collections::BTreeMap;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use towpath_types::limits::{PLUGIN_CONNECTIONS_MAX, PLUGIN_READ_BYTES_MAX};

use super::bindings::towpath::plugin::tcp as wit;
use super::bindings::towpath::plugin::types::Error;
use super::error::cut;
use super::grants::{Way, refused};
use super::outside::{passing, wrong};
use super::state::State;

/// A connection, with TLS around it or without.
trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for T {}

type Stream = Box<dyn Duplex>;

/// The connections of one instance, which end with it.
#[derive(Default)]
pub(crate) struct Connections {
    open: BTreeMap<u32, Stream>,
    next: u32,
}

impl Connections {
    fn take(&mut self, number: u32) -> Result<Stream, Error> {
        let none = || passing("PLUGIN_TCP", format!("the connection {number} is closed"));
        self.open.remove(&number).ok_or_else(none)
    }
}

async fn connect(way: Way, host: &str, port: u16, place: &str) -> Result<Stream, Error> {
    let failed = |error: std::io::Error| passing("PLUGIN_TCP", format!("{place} cannot be reached: {error}"));
    let stream = TcpStream::connect((host, port)).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(match way {
        Way::Plain => Box::new(stream),
        Way::Tls(config) => Box::new(super::tls::connect(config, host, place, stream).await?),
    })
}

async fn write(stream: &mut Stream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    // TLS may hold back what it has taken.
    stream.flush().await
}

impl State {
    async fn tcp_connect(&mut self, host: &str, port: u16, timeout_ms: u32) -> Result<u32, Error> {
        self.may_reach()?;
        let place = format!("{}:{port}", cut(host, 255));
        let Some(way) = self.plugin.grants.tcp(host, port) else {
            let what = format!("connect to {place} by TCP");
            return Err(refused(&self.plugin.name, &what, &format!("tcp: [\"{place}\"]")));
        };
        if self.connections.open.len() >= PLUGIN_CONNECTIONS_MAX {
            let message = format!("a plugin can have {PLUGIN_CONNECTIONS_MAX} connections at a time");
            return Err(wrong("PLUGIN_LIMIT", message));
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let connected = self.wait(timeout_ms, connect(way, &host, port, &place)).await;
        let late = || passing("PLUGIN_TCP", format!("{place} cannot be reached: it does not answer in time"));
        let stream = connected.ok_or_else(late)??;
        let number = self.connections.next;
        self.connections.next = number.wrapping_add(1);
        self.connections.open.insert(number, stream);
        Ok(number)
    }

    async fn tcp_read(&mut self, number: u32, max: u32, timeout_ms: u32) -> Result<wit::Received, Error> {
        self.may_reach()?;
        let mut stream = self.connections.take(number)?;
        // R10: whatever the guest asks for.
        let mut bytes = vec![0; (max as usize).clamp(1, PLUGIN_READ_BYTES_MAX)];
        let read = self.wait(timeout_ms, stream.read(&mut bytes)).await;
        let received = match read {
            None => wit::Received::Nothing,
            Some(Ok(0)) => return Ok(wit::Received::Closed),
            Some(Ok(length)) => {
                bytes.truncate(length);
                wit::Received::Bytes(bytes)
            }
            Some(Err(error)) => {
                return Err(passing("PLUGIN_TCP", format!("the connection is broken: {error}")));
            }
        };
        self.connections.open.insert(number, stream);
        Ok(received)
    }

    async fn tcp_write(&mut self, number: u32, bytes: &[u8], timeout_ms: u32) -> Result<(), Error> {
        self.may_reach()?;
        let mut stream = self.connections.take(number)?;
        let bytes = self.marks.replace(bytes).into_owned();
        let written = self.wait(timeout_ms, write(&mut stream, &bytes)).await;
        match written {
            Some(Ok(())) => {
                self.connections.open.insert(number, stream);
                Ok(())
            }
            Some(Err(error)) => Err(passing("PLUGIN_TCP", format!("the connection is broken: {error}"))),
            None => Err(passing("PLUGIN_TCP", "what is written is not taken in time")),
        }
    }
}

impl wit::Host for State {
    async fn connect(
        &mut self,
        host: String,
        port: u16,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<u32, Error>> {
        Ok(self.tcp_connect(&host, port, timeout_ms).await)
    }

    async fn read(
        &mut self,
        connection: u32,
        max: u32,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<wit::Received, Error>> {
        Ok(self.tcp_read(connection, max, timeout_ms).await)
    }

    async fn write(
        &mut self,
        connection: u32,
        bytes: Vec<u8>,
        timeout_ms: u32,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(self.tcp_write(connection, &bytes, timeout_ms).await)
    }

    fn close(&mut self, connection: u32) -> wasmtime::Result<()> {
        self.connections.open.remove(&connection);
        Ok(())
    }
}
