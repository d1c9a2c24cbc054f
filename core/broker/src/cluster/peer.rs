//! Connections to other nodes: one each for messages, opened when somebody calls and again when it has broken.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use towpath_types::{BrokerId, limits};
use towpath_wire::frame;
use towpath_wire::{ErrorCode, NodeHelloRequest, NodeHelloResponse, Request};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The least time that a request has once there is a connection.
const CALL_MIN: Duration = Duration::from_millis(50);
/// Requests that wait for answers on one connection.
const PENDING_MAX: usize = 4096;
/// Bytes for which room is made at once.
const READ_BYTES: usize = 64 * 1024;

/// Why another node did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    /// The connection cannot be made, or broke.
    #[error("node {node} at {address}: {source}")]
    Io {
        node: BrokerId,
        address: Arc<str>,
        #[source]
        source: io::Error,
    },
    /// The connection could not be made.
    #[error(transparent)]
    NoConnection(Box<PeerError>),
    /// The other side does not take us for one of its own.
    #[error("node {node} at {address} refuses: {message}")]
    Refused { node: BrokerId, address: Arc<str>, message: String },
    /// No answer in time.
    #[error("node {node} at {address} does not answer within {} ms", within.as_millis())]
    Timeout { node: BrokerId, address: Arc<str>, within: Duration },
}

impl PeerError {
    /// Whether the request certainly did not go out: there was no connection.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::NoConnection(_)) || self.is_refused_connection()
    }

    /// Whether nobody listens there: the process is gone.
    pub(crate) fn is_refused_connection(&self) -> bool {
        match self {
            Self::NoConnection(error) => error.is_refused_connection(),
            Self::Io { source, .. } => source.kind() == io::ErrorKind::ConnectionRefused,
            _ => false,
        }
    }

    /// As an error of the quorum's transport.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::NoConnection(_) => io::ErrorKind::NotConnected,
            Self::Io { source, .. } => source.kind(),
            Self::Refused { .. } => io::ErrorKind::PermissionDenied,
            Self::Timeout { .. } => io::ErrorKind::TimedOut,
        };
        io::Error::new(kind, self)
    }
}

/// Where a node is reached by other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerAddress {
    pub(crate) node: BrokerId,
    /// `host:port`.
    pub(crate) address: Arc<str>,
}

impl PeerAddress {
    fn io(&self, source: io::Error) -> PeerError {
        PeerError::Io { node: self.node, address: Arc::clone(&self.address), source }
    }

    fn timeout(&self, within: Duration) -> PeerError {
        PeerError::Timeout { node: self.node, address: Arc::clone(&self.address), within }
    }

    /// Opens a connection and says who we are; returns it with what the other side says of itself.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) async fn connect(
        &self,
        hello: &NodeHelloRequest,
    ) -> Result<(TcpStream, NodeHelloResponse), PeerError> {
        let opening = async {
            let mut stream = TcpStream::connect(&*self.address).await.map_err(|error| self.io(error))?;
            stream.set_nodelay(true).map_err(|error| self.io(error))?;
            let hello = NodeHelloRequest { expected_node_id: self.node.get(), ..hello.clone() };
            let bytes = encode(&hello, 0, 0).map_err(|error| self.io(error))?;
            stream.write_all(&bytes).await.map_err(|error| self.io(error))?;
            let mut buffer = BytesMut::new();
            let answer = read_frame(&mut stream, &mut buffer).await.map_err(|error| self.io(error))?;
            let (_, answer) = frame::decode_response::<NodeHelloRequest>(answer, 0)
                .map_err(|error| self.io(io::Error::new(io::ErrorKind::InvalidData, error)))?;
            if answer.error_code != ErrorCode::None.code() {
                let message = answer.error_message.unwrap_or_else(|| format!("error {}", answer.error_code));
                return Err(PeerError::Refused {
                    node: self.node,
                    address: Arc::clone(&self.address),
                    message,
                });
            }
            Ok((stream, answer))
        };
        timeout(CONNECT_TIMEOUT, opening).await.unwrap_or_else(|_| Err(self.timeout(CONNECT_TIMEOUT)))
    }
}

pub(crate) fn encode<R: Request>(request: &R, version: i16, correlation: i32) -> io::Result<Bytes> {
    frame::encode_request(request, version, correlation, None)
        .map(towpath_wire::Segments::into_bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads one frame without its length.
pub(crate) async fn read_frame<S: AsyncReadExt + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
) -> io::Result<Bytes> {
    read_frame_within(stream, buffer, limits::RESPONSE_BYTES_MAX).await
}

/// As [`read_frame`], of so many bytes at most.
pub(crate) async fn read_frame_within<S: AsyncReadExt + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> io::Result<Bytes> {
    loop {
        let taken = frame::take_frame(buffer, bytes_max)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(frame) = taken {
            return Ok(frame);
        }
        // R10: the buffer grows with what arrives, not with what is announced.
        buffer.reserve(READ_BYTES);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A request's own version: the newest that this version of Towpath knows, since nodes of one cluster are of one kind.
pub(crate) const fn version_of<R: Request>() -> i16 {
    R::KEY.versions().max
}

/// One open connection.
#[derive(Debug)]
struct Channel {
    peer: PeerAddress,
    write: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Mutex<HashMap<i32, oneshot::Sender<Bytes>>>,
    correlation: AtomicI32,
    broken: AtomicBool,
    retired: AtomicBool,
    reader: Mutex<Option<AbortHandle>>,
}

impl Channel {
    async fn open(peer: &PeerAddress, hello: &NodeHelloRequest) -> Result<Arc<Self>, PeerError> {
        let (stream, _) = peer.connect(hello).await?;
        let (read, write) = stream.into_split();
        let channel = Arc::new(Self {
            peer: peer.clone(),
            write: tokio::sync::Mutex::new(write),
            pending: Mutex::default(),
            correlation: AtomicI32::new(1),
            broken: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            reader: Mutex::new(None),
        });
        let reading = tokio::spawn(Self::read(Arc::downgrade(&channel), read));
        *channel.reader.lock() = Some(reading.abort_handle());
        Ok(channel)
    }

    async fn read(this: std::sync::Weak<Self>, mut stream: OwnedReadHalf) {
        let mut buffer = BytesMut::new();
        while let Ok(answer) = read_frame(&mut stream, &mut buffer).await {
            let Some(this) = this.upgrade() else { return };
            let correlation = answer.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes));
            let waiting = correlation.and_then(|correlation| this.pending.lock().remove(&correlation));
            if let Some(waiting) = waiting {
                // Whoever has stopped waiting does not hear it.
                drop(waiting.send(answer));
            }
        }
        if let Some(this) = this.upgrade() {
            this.break_off();
        }
    }

    fn break_off(&self) {
        self.broken.store(true, Ordering::Release);
        self.pending.lock().clear();
    }

    /// Whether new requests go over another connection.
    fn is_retired(&self) -> bool {
        self.is_broken() || self.retired.load(Ordering::Acquire)
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }

    async fn call<R: Request>(&self, request: &R, within: Duration) -> Result<R::Response, PeerError> {
        let version = version_of::<R>();
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed);
        let bytes = encode(request, version, correlation).map_err(|error| self.peer.io(error))?;
        let (sender, answer) = oneshot::channel();
        {
            let mut pending = self.pending.lock();
            if pending.len() >= PENDING_MAX {
                return Err(self.peer.io(io::Error::other("too many requests wait for answers")));
            }
            pending.insert(correlation, sender);
        }
        let broken = || self.peer.io(io::ErrorKind::ConnectionReset.into());
        let answered = async {
            let written = self.write.lock().await.write_all(&bytes).await;
            if let Err(error) = written {
                self.break_off();
                return Err(self.peer.io(error));
            }
            // The reader may have gone between the look and the insertion.
            if self.is_broken() {
                return Err(broken());
            }
            answer.await.map_err(|_| broken())
        };
        let answered = timeout(within, answered).await;
        let answer = match answered {
            Ok(answer) => answer?,
            Err(_) => {
                self.pending.lock().remove(&correlation);
                // A frame may be half written, and a peer that is this slow is asked on a new connection; what others
                // wait for may yet be answered on this one.
                self.retired.store(true, Ordering::Release);
                return Err(self.peer.timeout(within));
            }
        };
        let decoded = frame::decode_response::<R>(answer, version);
        decoded.map(|(_, response)| response).map_err(|error| {
            self.break_off();
            self.peer.io(io::Error::new(io::ErrorKind::InvalidData, error))
        })
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.lock().take() {
            reader.abort();
        }
    }
}

/// What connects us to one node.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Channel>>>>;

/// The connections to all other nodes. Kinds of messages have connections of their own, so that a large one does not
/// hold up what must be fast.
#[derive(Debug)]
pub(crate) struct Peers {
    hello: Mutex<NodeHelloRequest>,
    slots: Mutex<HashMap<(BrokerId, Lane), Slot>>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Messages of the quorum.
    Quorum,
    /// Heartbeats, and the registration before them: the controller takes the end of this connection for a sign.
    Heartbeat,
    /// Everything else.
    Requests,
}

impl Peers {
    pub(crate) fn new(hello: NodeHelloRequest) -> Self {
        Self { hello: Mutex::new(hello), slots: Mutex::default() }
    }

    /// What this node says of itself.
    pub(crate) fn hello(&self) -> NodeHelloRequest {
        self.hello.lock().clone()
    }

    /// The node has come to know its cluster's id.
    pub(crate) fn set_cluster_id(&self, id: &str) {
        self.hello.lock().cluster_id = Some(id.to_owned());
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// [`PeerError`]; whether the request was carried out is then unknown.
    pub(crate) async fn call<R: Request>(
        &self,
        peer: &PeerAddress,
        lane: Lane,
        request: &R,
        within: Duration,
    ) -> Result<R::Response, PeerError> {
        let begun = tokio::time::Instant::now();
        // The wait for a connection counts: somebody else may be waiting for one in vain.
        let channel = match timeout(within, self.channel(peer, lane)).await {
            Ok(channel) => channel.map_err(|error| PeerError::NoConnection(Box::new(error)))?,
            Err(_) => return Err(PeerError::NoConnection(Box::new(peer.timeout(within)))),
        };
        channel.call(request, within.saturating_sub(begun.elapsed()).max(CALL_MIN)).await
    }

    async fn channel(&self, peer: &PeerAddress, lane: Lane) -> Result<Arc<Channel>, PeerError> {
        let slot = Arc::clone(self.slots.lock().entry((peer.node, lane)).or_default());
        let mut open = slot.lock().await;
        match &*open {
            Some(channel) if !channel.is_retired() && channel.peer == *peer => Ok(Arc::clone(channel)),
            _ => {
                *open = None;
                let channel = Channel::open(peer, &self.hello()).await?;
                *open = Some(Arc::clone(&channel));
                Ok(channel)
            }
        }
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.slots.lock().clear();
    }
}
