//! One connection to one broker: requests are pipelined, answers are matched by correlation id.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use towpath_types::limits;
use towpath_wire::frame::{self, LENGTH_BYTES};
use towpath_wire::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, Decoder, ErrorCode, Message, Request, Segments,
    VersionRange,
};

use crate::ClientError;
use crate::metrics::ConnectionMetrics;
use crate::transport::ByteStream;

/// Bytes for which the reader makes room when nothing is announced.
const READ_BYTES: usize = 16 * 1024;
/// Bytes for which the reader makes room at once for an announced frame; a larger one grows as its bytes arrive.
const READ_BYTES_UP_FRONT: usize = 2 * 1024 * 1024;
/// Slices written by one system call.
const SLICES_MAX: usize = 64;

/// A connection with negotiated versions; cheap to clone, closed when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    broker: Arc<str>,
    client_id: Arc<str>,
    metrics: Arc<ConnectionMetrics>,
    /// By API key.
    versions: Vec<Option<VersionRange>>,
    features: Features,
    queue: mpsc::UnboundedSender<Outgoing>,
    shared: Arc<Shared>,
    correlation: AtomicI32,
    /// Bounds what waits in `queue` and in `pending`.
    in_flight: Semaphore,
}

/// What a broker said of the cluster's finalized features (KIP-584).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Grows with every change; −1 when the broker does not tell.
    pub(crate) epoch: i64,
    /// The level of `transaction.version`; 0 if it is not finalized.
    pub(crate) transaction_version: i16,
}

impl Default for Features {
    fn default() -> Self {
        Self { epoch: -1, transaction_version: 0 }
    }
}

impl Features {
    fn from_wire(response: &ApiVersionsResponse) -> Self {
        let level = |name: &str| {
            let found = response.finalized_features.iter().find(|feature| feature.name == name);
            found.map_or(0, |feature| feature.max_version_level)
        };
        Self { epoch: response.finalized_features_epoch, transaction_version: level("transaction.version") }
    }

    /// Whether partitions are added to transactions by the brokers, and every end of one bumps the epoch (KIP-890).
    pub(crate) const fn transactions_v2(self) -> bool {
        self.transaction_version >= 2
    }
}

#[derive(Debug)]
struct Outgoing {
    segments: Segments,
    /// Told when the request is written, for requests that have no answer.
    written: Option<oneshot::Sender<()>>,
}

/// What the handle and the two tasks share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pending: HashMap<i32, oneshot::Sender<Bytes>>,
    closed: Option<Arc<str>>,
    tasks: Vec<AbortHandle>,
}

impl Shared {
    /// Ends the connection: everything that waits gets the reason.
    fn close(&self, reason: &str) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(Arc::from(reason));
        }
        let (pending, tasks) = (std::mem::take(&mut state.pending), std::mem::take(&mut state.tasks));
        drop(state);
        drop(pending);
        tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.metrics.open.decrement(1);
        self.shared.close("closed by this client");
    }
}

/// A request that was sent (in the order of the calls) and whose answer is awaited.
#[derive(Debug)]
pub(crate) struct InFlight<R> {
    connection: Connection,
    version: i16,
    correlation: i32,
    answer: oneshot::Receiver<Bytes>,
    request: PhantomData<fn() -> R>,
}

impl<R> Drop for InFlight<R> {
    fn drop(&mut self) {
        // An answer that nobody waits for any more is still expected from the wire: keep the entry, close the
        // receiver; the reader then drops the answer.
        self.answer.close();
    }
}

impl Connection {
    /// Takes over a stream and negotiates the versions.
    ///
    /// # Errors
    /// When the peer closes, does not answer in time, or does not speak the protocol.
    pub(crate) async fn open(
        stream: Box<dyn ByteStream>,
        broker: Arc<str>,
        client_id: Arc<str>,
        metrics: Arc<ConnectionMetrics>,
        timeout_after: Duration,
    ) -> Result<Self, ClientError> {
        let (read, write) = tokio::io::split(stream);
        let (queue, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let reader = tokio::spawn(read_loop(read, Arc::clone(&shared), Arc::clone(&broker)));
        let writer = tokio::spawn(write_loop(write, requests, Arc::clone(&shared)));
        shared.state.lock().tasks.extend([reader.abort_handle(), writer.abort_handle()]);
        let mut inner = Inner {
            broker,
            client_id,
            metrics,
            versions: Vec::new(),
            features: Features::default(),
            queue,
            shared,
            correlation: AtomicI32::new(0),
            in_flight: Semaphore::new(limits::REQUESTS_IN_FLIGHT_MAX),
        };
        // Before anything can fail: the end of `inner` counts it out.
        inner.metrics.open.increment(1);
        inner.metrics.opened.increment(1);
        (inner.versions, inner.features) = negotiate(&inner, timeout_after).await?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// `host:port`.
    pub(crate) fn broker(&self) -> &Arc<str> {
        &self.inner.broker
    }

    /// The cluster's features as the broker knew them when the connection was opened.
    pub(crate) fn features(&self) -> Features {
        self.inner.features
    }

    /// Whether it can take requests.
    pub(crate) fn is_open(&self) -> bool {
        self.inner.shared.state.lock().closed.is_none()
    }

    /// The highest version of an API that both sides know.
    ///
    /// # Errors
    /// [`ClientError::UnsupportedApi`].
    pub(crate) fn version_of(&self, api: ApiKey) -> Result<i16, ClientError> {
        usize::try_from(api.code())
            .ok()
            .and_then(|index| self.inner.versions.get(index).copied().flatten())
            .map(|range| range.max)
            .ok_or_else(|| ClientError::UnsupportedApi { api, broker: Arc::clone(&self.inner.broker) })
    }

    /// Sends a request at the highest common version and waits for the answer.
    pub(crate) async fn request<R: Request>(
        &self,
        request: &R,
        timeout_after: Duration,
    ) -> Result<R::Response, ClientError> {
        let version = self.version_of(R::KEY)?;
        self.request_at(request, version, timeout_after).await
    }

    /// Sends a request at `version` and waits for the answer.
    pub(crate) async fn request_at<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout_after: Duration,
    ) -> Result<R::Response, ClientError> {
        let _permit = self.inner.in_flight.acquire().await.map_err(|_| ClientError::Closed)?;
        self.begin(request, version)?.answer(timeout_after).await
    }

    /// Sends a request now, without waiting for room: for callers that bound what they have in flight themselves and
    /// need the order of their calls on the wire.
    pub(crate) fn begin<R: Request>(&self, request: &R, version: i16) -> Result<InFlight<R>, ClientError> {
        let correlation = self.inner.correlation.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.inner.submit(request, version, correlation, Some(sender), None)?;
        Ok(InFlight { connection: self.clone(), version, correlation, answer, request: PhantomData })
    }

    /// Sends a request that has no answer (produce with `acks=0`); the receiver is told when it is written.
    pub(crate) fn begin_oneway<R: Request>(
        &self,
        request: &R,
        version: i16,
    ) -> Result<oneshot::Receiver<()>, ClientError> {
        let correlation = self.inner.correlation.fetch_add(1, Ordering::Relaxed);
        let (sender, written) = oneshot::channel();
        self.inner.submit(request, version, correlation, None, Some(sender))?;
        Ok(written)
    }

    /// Waits until a request without an answer is written. After the timeout the connection is closed: the broker does
    /// not read.
    pub(crate) async fn written(
        &self,
        written: oneshot::Receiver<()>,
        api: ApiKey,
        timeout_after: Duration,
    ) -> Result<(), ClientError> {
        match timeout(timeout_after, written).await {
            Ok(written) => written.map_err(|_| self.disconnected()),
            Err(_) => {
                self.inner.shared.close("a request was not written in time");
                Err(ClientError::RequestTimeout {
                    broker: Arc::clone(&self.inner.broker),
                    api,
                    after_ms: u64::try_from(timeout_after.as_millis()).unwrap_or(u64::MAX),
                })
            }
        }
    }

    /// Why the connection ended, as an error.
    pub(crate) fn disconnected(&self) -> ClientError {
        self.inner.disconnected()
    }
}

impl Inner {
    fn submit<R: Request>(
        &self,
        request: &R,
        version: i16,
        correlation: i32,
        answer: Option<oneshot::Sender<Bytes>>,
        written: Option<oneshot::Sender<()>>,
    ) -> Result<(), ClientError> {
        let segments = frame::encode_request(request, version, correlation, Some(&self.client_id)).map_err(
            |source| ClientError::Encode { broker: Arc::clone(&self.broker), api: R::KEY, source },
        )?;
        let mut state = self.shared.state.lock();
        if state.closed.is_some() {
            drop(state);
            return Err(self.disconnected());
        }
        // Sent under the lock: what is registered is sent, and in this order.
        if let Some(answer) = answer {
            state.pending.insert(correlation, answer);
        }
        if self.queue.send(Outgoing { segments, written }).is_err() {
            state.pending.remove(&correlation);
            drop(state);
            return Err(self.disconnected());
        }
        drop(state);
        self.metrics.sent(R::KEY);
        Ok(())
    }

    fn disconnected(&self) -> ClientError {
        let reason = self.shared.state.lock().closed.clone();
        ClientError::Disconnected {
            broker: Arc::clone(&self.broker),
            reason: reason.unwrap_or_else(|| Arc::from("the connection is being closed")),
        }
    }

    fn decode_error(&self, api: ApiKey, source: towpath_wire::DecodeError) -> ClientError {
        ClientError::Decode { broker: Arc::clone(&self.broker), api, source }
    }
}

impl<R: Request> InFlight<R> {
    /// Waits for the answer. After the timeout the connection is closed: its state is unknown.
    pub(crate) async fn answer(mut self, timeout_after: Duration) -> Result<R::Response, ClientError> {
        let inner = &self.connection.inner;
        match timeout(timeout_after, &mut self.answer).await {
            Ok(Ok(frame)) => frame::decode_response::<R>(frame, self.version)
                .map(|(_, response)| response)
                .map_err(|source| inner.decode_error(R::KEY, source)),
            Ok(Err(_)) => Err(inner.disconnected()),
            Err(_) => {
                let error = ClientError::RequestTimeout {
                    broker: Arc::clone(&inner.broker),
                    api: R::KEY,
                    after_ms: u64::try_from(timeout_after.as_millis()).unwrap_or(u64::MAX),
                };
                inner.metrics.timed_out(R::KEY);
                inner.shared.close(&format!("request {} was not answered in time", self.correlation));
                Err(error)
            }
        }
    }
}

/// Asks for the broker's versions at our highest, and again at its own highest if that is too high (KIP-511).
async fn negotiate(
    inner: &Inner,
    timeout_after: Duration,
) -> Result<(Vec<Option<VersionRange>>, Features), ClientError> {
    let api = ApiKey::ApiVersions;
    let mut version = ApiVersionsRequest::VERSIONS.max;
    loop {
        let request = ApiVersionsRequest {
            client_software_name: "towpath".to_owned(),
            client_software_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (sender, answer) = oneshot::channel();
        let correlation = inner.correlation.fetch_add(1, Ordering::Relaxed);
        inner.submit(&request, version, correlation, Some(sender), None)?;
        let frame = match timeout(timeout_after, answer).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(inner.disconnected()),
            Err(_) => {
                let after_ms = u64::try_from(timeout_after.as_millis()).unwrap_or(u64::MAX);
                return Err(ClientError::RequestTimeout { broker: Arc::clone(&inner.broker), api, after_ms });
            }
        };
        let response =
            decode_api_versions(frame, version).map_err(|source| inner.decode_error(api, source))?;
        match ErrorCode::from_code(response.error_code) {
            ErrorCode::None => return Ok((common_versions(&response), Features::from_wire(&response))),
            ErrorCode::UnsupportedVersion if version > 0 => {
                let offered = response.api_keys.iter().find(|entry| entry.api_key == api.code());
                version = offered.map_or(0, |entry| entry.max_version.clamp(0, version - 1));
            }
            code => {
                return Err(ClientError::Broker {
                    code,
                    api,
                    broker: Arc::clone(&inner.broker),
                    subject: "the connection".into(),
                    message: None,
                });
            }
        }
    }
}

/// An unknown version of ApiVersions is answered at version 0.
fn decode_api_versions(frame: Bytes, version: i16) -> Result<ApiVersionsResponse, towpath_wire::DecodeError> {
    let mut peek = Decoder::new(frame.clone());
    peek.get_i32()?;
    let refused = peek.get_i16()? == ErrorCode::UnsupportedVersion.code();
    let version = if refused { 0 } else { version };
    frame::decode_response::<ApiVersionsRequest>(frame, version).map(|(_, response)| response)
}

fn common_versions(response: &ApiVersionsResponse) -> Vec<Option<VersionRange>> {
    let mut versions = vec![None; 128];
    for entry in &response.api_keys {
        let Ok(api) = ApiKey::try_from(entry.api_key) else { continue };
        let theirs = VersionRange::new(entry.min_version, entry.max_version);
        let slot = usize::try_from(entry.api_key).ok().and_then(|index| versions.get_mut(index));
        if let Some(slot) = slot {
            *slot = api.stable_versions().intersect(theirs);
        }
    }
    versions
}

async fn read_loop(mut read: impl AsyncRead + Unpin, shared: Arc<Shared>, broker: Arc<str>) {
    let reason = match read_frames(&mut read, &shared).await {
        Ok(()) => "the broker closed it".to_owned(),
        Err(error) => error.to_string(),
    };
    tracing::debug!(%broker, %reason, "connection ended");
    shared.close(&reason);
}

async fn read_frames(read: &mut (impl AsyncRead + Unpin), shared: &Shared) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    loop {
        // R10: the length is checked before room is made for the frame.
        let announced = frame::announced_length(&buffer, limits::RESPONSE_BYTES_MAX)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if let Some(length) = announced {
            let whole = length + LENGTH_BYTES;
            if buffer.len() >= whole {
                let _ = buffer.split_to(LENGTH_BYTES);
                deliver(buffer.split_to(length).freeze(), shared)?;
                continue;
            }
            let missing = whole - buffer.len();
            buffer.reserve(missing.min(READ_BYTES_UP_FRONT.max(buffer.len())));
        } else {
            buffer.reserve(READ_BYTES);
        }
        if read.read_buf(&mut buffer).await? == 0 {
            if buffer.is_empty() {
                return Ok(());
            }
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn deliver(frame: Bytes, shared: &Shared) -> io::Result<()> {
    let Some(correlation) = frame.first_chunk::<4>().map(|bytes| i32::from_be_bytes(*bytes)) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer without a correlation id"));
    };
    let waiting = shared.state.lock().pending.remove(&correlation);
    match waiting {
        // The receiver may be gone: its caller gave up.
        Some(waiting) => drop(waiting.send(frame)),
        None => {
            let problem = format!("an answer to request {correlation}, which was not sent");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
    }
    Ok(())
}

async fn write_loop(
    mut write: impl AsyncWrite + Unpin,
    mut requests: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
) {
    let mut batch = Vec::with_capacity(16);
    while requests.recv_many(&mut batch, 16).await > 0 {
        if let Err(error) = write_all(&mut write, &batch).await {
            shared.close(&error.to_string());
            return;
        }
        for written in batch.drain(..).filter_map(|outgoing| outgoing.written) {
            let _ = written.send(());
        }
    }
}

/// Writes all segments of all requests with as few system calls as possible.
async fn write_all(write: &mut (impl AsyncWrite + Unpin), batch: &[Outgoing]) -> io::Result<()> {
    let mut pending: Vec<&[u8]> =
        batch.iter().flat_map(|outgoing| outgoing.segments.as_slice()).map(|bytes| &bytes[..]).collect();
    let mut first = 0;
    while first < pending.len() {
        let slices: smallvec::SmallVec<[IoSlice<'_>; 16]> =
            pending[first..].iter().take(SLICES_MAX).map(|slice| IoSlice::new(slice)).collect();
        let mut written = write.write_vectored(&slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while written > 0 && first < pending.len() {
            let length = pending[first].len();
            if written >= length {
                written -= length;
                first += 1;
            } else {
                pending[first] = &pending[first][written..];
                written = 0;
            }
        }
    }
    write.flush().await
}

#[cfg(test)]
mod tests {
    use towpath_wire::frame::{RequestPeek, encode_response, peek_request, take_frame};
    use towpath_wire::messages::api_versions::ApiVersion;
    use towpath_wire::{HeartbeatRequest, HeartbeatResponse};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    /// Reads `count` requests.
    async fn requests(
        stream: &mut tokio::io::DuplexStream,
        buffer: &mut BytesMut,
        count: usize,
    ) -> Vec<RequestPeek> {
        let mut peeks = Vec::new();
        while peeks.len() < count {
            match take_frame(buffer, 1 << 20).unwrap() {
                Some(request) => peeks.push(peek_request(&request).unwrap()),
                None => assert!(stream.read_buf(buffer).await.unwrap() > 0, "the client closed"),
            }
        }
        peeks
    }

    async fn answer(stream: &mut tokio::io::DuplexStream, peek: RequestPeek, throttle_time_ms: i32) {
        let bytes = if peek.api_key == ApiKey::ApiVersions.code() {
            let key = ApiKey::Heartbeat;
            let entry = ApiVersion { api_key: key.code(), min_version: 0, max_version: 3 };
            let response = ApiVersionsResponse { api_keys: vec![entry], ..Default::default() };
            encode_response(ApiKey::ApiVersions, peek.api_version, peek.correlation_id, &response)
        } else {
            let response = HeartbeatResponse { throttle_time_ms, error_code: 0 };
            encode_response(ApiKey::Heartbeat, peek.api_version, peek.correlation_id, &response)
        };
        stream.write_all(&bytes.unwrap().into_bytes()).await.unwrap();
    }

    async fn connected() -> (Connection, tokio::io::DuplexStream, BytesMut) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let open = Connection::open(
            Box::new(ours),
            "b:1".into(),
            "test".into(),
            Arc::new(ConnectionMetrics::new("test")),
            LIMIT,
        );
        let mut buffer = BytesMut::new();
        let serve = async {
            let peek = requests(&mut theirs, &mut buffer, 1).await.remove(0);
            answer(&mut theirs, peek, 0).await;
        };
        let (connection, ()) = tokio::join!(open, serve);
        (connection.unwrap(), theirs, buffer)
    }

    #[tokio::test]
    async fn answers_in_another_order_find_their_requests() {
        let (connection, mut broker, mut buffer) = connected().await;
        assert_eq!(connection.version_of(ApiKey::Heartbeat).unwrap(), 3, "the highest that both know");
        assert!(connection.version_of(ApiKey::Fetch).is_err());
        let request = HeartbeatRequest::default();
        let mut in_flight = Vec::new();
        for _ in 0..10 {
            in_flight
                .push(connection.begin(&HeartbeatRequest { group_instance_id: None, ..request.clone() }, 3));
        }
        let peeks = requests(&mut broker, &mut buffer, 10).await;
        for (index, peek) in peeks.into_iter().enumerate().rev() {
            answer(&mut broker, peek, index as i32).await;
        }
        for (index, in_flight) in in_flight.into_iter().enumerate() {
            let response = in_flight.unwrap().answer(LIMIT).await.unwrap();
            assert_eq!(response.throttle_time_ms, index as i32);
        }
    }

    #[tokio::test]
    async fn a_lost_connection_fails_everything_in_flight() {
        let (connection, broker, _) = connected().await;
        let in_flight = connection.begin(&HeartbeatRequest::default(), 3).unwrap();
        drop(broker);
        let error = in_flight.answer(LIMIT).await.unwrap_err();
        assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
        assert!(!connection.is_open());
        assert!(connection.begin(&HeartbeatRequest::default(), 3).is_err());
    }

    #[tokio::test]
    async fn a_late_answer_closes_the_connection() {
        let (connection, _broker, _) = connected().await;
        let in_flight = connection.begin(&HeartbeatRequest::default(), 3).unwrap();
        let error = in_flight.answer(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ClientError::RequestTimeout { after_ms: 20, .. }), "{error}");
        assert!(!connection.is_open());
    }

    #[tokio::test]
    async fn an_abandoned_request_disturbs_nobody() {
        let (connection, mut broker, mut buffer) = connected().await;
        drop(connection.begin(&HeartbeatRequest::default(), 3).unwrap());
        let next = connection.begin(&HeartbeatRequest::default(), 3).unwrap();
        for peek in requests(&mut broker, &mut buffer, 2).await {
            answer(&mut broker, peek, 7).await;
        }
        assert_eq!(next.answer(LIMIT).await.unwrap().throttle_time_ms, 7);
    }
}
