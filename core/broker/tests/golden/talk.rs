//! Conversations with a broker, ours or Kafka's, of which every request and every answer is kept.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use towpath_broker::Broker;
use towpath_wire::frame::{LENGTH_BYTES, decode_response, encode_request, encode_response};
use towpath_wire::{ApiKey, Request};

use crate::settle::{Names, settle};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long Kafka may take for an answer: some requests never get one.
const KAFKA_PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at what is not there yet.
const PAUSE: Duration = Duration::from_millis(10);
/// The correlation id of every request: one is in flight at a time, and files do not change when a case is added.
pub(crate) const CORRELATION_ID: i32 = 0x0102_0304;
/// The name that the client gives itself.
pub(crate) const CLIENT_ID: &str = "golden";

/// A broker of either kind.
#[derive(Clone, Copy)]
pub(crate) enum Server<'a> {
    Ours(&'a Broker),
    Kafka(SocketAddr),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Server<'_> {
    async fn connect(self) -> Box<dyn Stream> {
        match self {
            Server::Ours(broker) => {
                let (ours, theirs) = tokio::io::duplex(1 << 20);
                broker.accept_stream(theirs);
                Box::new(ours)
            }
            Server::Kafka(address) => Box::new(TcpStream::connect(address).await.unwrap()),
        }
    }

    /// Whether it is ours.
    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Server::Ours(_))
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A frame, without its length.
    Frame(Vec<u8>),
    /// The end of the connection.
    Closed,
    /// Nothing, as it should be after `acks=0`.
    Nothing,
}

/// A request and its answer, with the names and values of one run taken out.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) case: String,
    /// The frame, without its length.
    pub(crate) request: Vec<u8>,
    pub(crate) answer: Answer,
    /// The answer in words.
    pub(crate) shown: String,
}

/// A conversation.
pub(crate) struct Talk<'a> {
    pub(crate) server: Server<'a>,
    stream: Box<dyn Stream>,
    /// What stands for this run's ids.
    pub(crate) names: Names,
    /// What was said, in its order.
    pub(crate) exchanges: Vec<Exchange>,
}

impl<'a> Talk<'a> {
    pub(crate) async fn begin(server: Server<'a>) -> Self {
        let stream = server.connect().await;
        Self { server, stream, names: Names::default(), exchanges: Vec::new() }
    }

    /// Begins another connection.
    pub(crate) async fn reconnect(&mut self) {
        self.stream = self.server.connect().await;
    }

    /// The next frame, without its length; none when the connection ends.
    async fn frame(&mut self) -> Option<Bytes> {
        let patience = if self.server.is_ours() { PATIENCE } else { KAFKA_PATIENCE };
        let frame = tokio::time::timeout(patience, async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        })
        .await;
        // Kafka leaves some requests without an answer, where an error escapes its handlers.
        match frame {
            Ok(frame) => frame,
            Err(_) if !self.server.is_ours() => None,
            Err(_) => panic!("the broker has not answered within {PATIENCE:?}"),
        }
    }

    async fn send(&mut self, frame: &[u8]) {
        // A broker that has closed the connection already is found out when reading.
        let _ = self.stream.write_all(&length(frame)).await;
        let _ = self.stream.write_all(frame).await;
    }

    /// Asks without keeping it: for what only makes ready, or has to be asked until it is so.
    pub(crate) async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(&encoded(version, request)).await;
        let frame = self.frame().await.unwrap_or_else(|| panic!("closed by {request:?}"));
        let (header, response) = decode_response::<R>(frame, version).unwrap();
        assert_eq!(header.correlation_id, CORRELATION_ID);
        response
    }

    /// Asks until the answer is as wished, without keeping it.
    pub(crate) async fn until<R: Request>(
        &mut self,
        version: i16,
        request: &R,
        is_so: impl Fn(&R::Response) -> bool,
    ) -> R::Response {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let response = self.ask(version, request).await;
            if is_so(&response) {
                return response;
            }
            assert!(tokio::time::Instant::now() < end, "{request:?}: {response:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks, keeps both, and returns the answer; a default one where the connection was closed instead.
    pub(crate) async fn call<R>(&mut self, version: i16, case: &str, request: &R) -> R::Response
    where
        R: Request,
        R::Response: 'static,
    {
        self.call_naming(version, case, request, |_, _| {}).await
    }

    /// As [`Self::call`], for an answer that brings new ids.
    pub(crate) async fn call_naming<R>(
        &mut self,
        version: i16,
        case: &str,
        request: &R,
        name: impl FnOnce(&R::Response, &mut Names),
    ) -> R::Response
    where
        R: Request,
        R::Response: 'static,
    {
        let sent = encoded(version, request);
        self.send(&sent).await;
        let Some(frame) = self.frame().await else {
            self.keep(R::KEY.code(), version, case, &sent, Answer::Closed, "closed");
            self.reconnect().await;
            return R::Response::default();
        };
        let (header, response) = decode_response::<R>(frame.clone(), version)
            .unwrap_or_else(|error| panic!("{} v{version}, {case}: {error}: {frame:?}", R::KEY));
        assert_eq!(header.correlation_id, CORRELATION_ID);
        if self.server.is_ours() {
            let again = body::<R>(version, &response);
            assert_eq!(again, frame, "{} v{version}, {case}: other bytes for the same answer", R::KEY);
        }
        name(&response, &mut self.names);
        let mut settled = response.clone();
        settle(&mut settled);
        let bytes = self.names.apply(&body::<R>(version, &settled));
        let (_, settled) = decode_response::<R>(bytes.clone().into(), version).unwrap();
        let shown = format!("{settled:#?}");
        self.keep(R::KEY.code(), version, case, &sent, Answer::Frame(bytes), &shown);
        response
    }

    /// Sends what has no answer, and sees by another request that it has none.
    pub(crate) async fn call_unanswered<R: Request>(&mut self, version: i16, case: &str, request: &R) {
        let sent = encoded(version, request);
        self.send(&sent).await;
        let probe = towpath_wire::ApiVersionsRequest::default();
        self.send(&encoded(0, &probe)).await;
        let (answer, shown) = match self.frame().await {
            Some(frame) => {
                // The frame is the probe's: it begins with error 0 and a list.
                let read = decode_response::<towpath_wire::ApiVersionsRequest>(frame, 0);
                assert!(read.is_ok(), "{} v{version}, {case}: it is answered", R::KEY);
                (Answer::Nothing, "nothing")
            }
            None => {
                self.reconnect().await;
                (Answer::Closed, "closed")
            }
        };
        self.keep(R::KEY.code(), version, case, &sent, answer, shown);
    }

    /// Sends a frame made by hand on a connection of its own, and keeps what comes.
    pub(crate) async fn call_raw(&mut self, case: &str, frame: &[u8]) {
        self.reconnect().await;
        let &[k0, k1, v0, v1, ..] = frame else { panic!("{case}: a frame has a key and a version") };
        self.send(frame).await;
        let (answer, shown) = match self.frame().await {
            Some(frame) => (Answer::Frame(self.names.apply(&frame)), format!("{frame:?}")),
            None => (Answer::Closed, "closed".to_owned()),
        };
        let (key, version) = (i16::from_be_bytes([k0, k1]), i16::from_be_bytes([v0, v1]));
        self.keep(key, version, case, frame, answer, &shown);
        self.reconnect().await;
    }

    fn keep(&mut self, key: i16, version: i16, case: &str, request: &[u8], answer: Answer, shown: &str) {
        let is_there = |it: &Exchange| it.key == key && it.version == version && it.case.as_str() == case;
        assert!(!self.exchanges.iter().any(is_there), "{key} v{version}, {case}: there twice");
        self.exchanges.push(Exchange {
            key,
            version,
            case: case.to_owned(),
            request: self.names.apply(request),
            answer,
            shown: shown.to_owned(),
        });
    }
}

fn length(frame: &[u8]) -> [u8; LENGTH_BYTES] {
    i32::try_from(frame.len()).unwrap().to_be_bytes()
}

/// A request's frame, without its length.
fn encoded<R: Request>(version: i16, request: &R) -> Vec<u8> {
    let frame = encode_request(request, version, CORRELATION_ID, Some(CLIENT_ID))
        .unwrap_or_else(|error| panic!("{} v{version}: {error}: {request:?}", R::KEY));
    frame.into_bytes()[LENGTH_BYTES..].to_vec()
}

fn body<R: Request>(version: i16, response: &R::Response) -> Vec<u8> {
    let frame = encode_response(R::KEY, version, CORRELATION_ID, response).unwrap();
    frame.into_bytes()[LENGTH_BYTES..].to_vec()
}

/// The versions of an API that are advertised.
pub(crate) fn versions<R: Request>() -> impl Iterator<Item = i16> {
    R::KEY.stable_versions().iter()
}

/// The name of an API, known or not.
pub(crate) fn name(key: i16) -> &'static str {
    ApiKey::try_from(key).map_or("Unknown", ApiKey::name)
}
