//! How connections are opened: TCP, or a pipe to a broker in the same process.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};

/// A connection's two directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// Opens byte streams to brokers.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Connects to the broker at an address as the bootstrap list or the broker's metadata name it.
    ///
    /// # Errors
    /// When nobody answers there.
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>>;
}

/// Plain TCP, without delay (Nagle).
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

#[async_trait]
impl Transport for TcpTransport {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// What takes the broker's end of an in-process connection.
type Acceptor = dyn Fn(&str, u16, DuplexStream) -> io::Result<()> + Send + Sync;

/// Connections to brokers in the same process: a pair of bounded in-memory pipes instead of a socket.
#[derive(Clone)]
pub struct InProcessTransport {
    accept: Arc<Acceptor>,
    pipe_bytes: usize,
}

impl InProcessTransport {
    /// Bytes that each direction of a connection holds until the other side reads them.
    const PIPE_BYTES: usize = 256 * 1024;

    /// A transport whose connections, to whatever address, are given to `accept`:
    /// `InProcessTransport::new(move |stream| broker.accept_stream(stream))`.
    #[must_use]
    pub fn new(accept: impl Fn(DuplexStream) + Send + Sync + 'static) -> Self {
        Self::routed(move |_, _, stream| {
            accept(stream);
            Ok(())
        })
    }

    /// A transport that chooses the broker by host and port; an error refuses the connection.
    #[must_use]
    pub fn routed(
        accept: impl Fn(&str, u16, DuplexStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { accept: Arc::new(accept), pipe_bytes: Self::PIPE_BYTES }
    }
}

impl fmt::Debug for InProcessTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InProcessTransport")
    }
}

#[async_trait]
impl Transport for InProcessTransport {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        let (ours, theirs) = tokio::io::duplex(self.pipe_bytes);
        (self.accept)(host, port, theirs)?;
        Ok(Box::new(ours))
    }
}

/// Connections to the one broker that is in the same process through memory, to all others over TCP.
#[derive(Debug, Clone)]
pub struct NearbyTransport {
    host: String,
    port: u16,
    near: InProcessTransport,
    far: TcpTransport,
}

impl NearbyTransport {
    /// `host` and `port` are what the broker in this process advertises.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16, near: InProcessTransport) -> Self {
        Self { host: host.into(), port, near, far: TcpTransport }
    }
}

#[async_trait]
impl Transport for NearbyTransport {
    async fn connect(&self, host: &str, port: u16) -> io::Result<Box<dyn ByteStream>> {
        if host == self.host && port == self.port {
            return self.near.connect(host, port).await;
        }
        self.far.connect(host, port).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn only_the_broker_in_the_process_is_reached_through_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let near = InProcessTransport::new(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let transport = NearbyTransport::new("here", port, near);
        transport.connect("here", port).await.unwrap();
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
        let (there, _) = tokio::join!(transport.connect("127.0.0.1", port), listener.accept());
        there.unwrap();
        assert_eq!(accepted.load(Ordering::Relaxed), 1);
    }
}
