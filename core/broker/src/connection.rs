//! One connection: requests in, answers out, in order.
//!
//! Requests are begun in the order in which they arrive, each up to the point where it has to wait (for a flush, for
//! records, for a group); those that wait go on side by side, and the answers leave in the order of the requests.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use towpath_telemetry::names;
use towpath_types::BrokerId;
use towpath_types::limits::{REPLY_BYTES_MAX, REQUEST_ARRAYS_BYTES_MAX};
use towpath_wire::frame::{self, FrameLengthError};
use towpath_wire::{ApiKey, DecodeError, Decoder};

use crate::handlers::{self, BeginFuture, Begun, Reply, ReplyFuture};
use crate::memory::{Activity, Lease, RETRY};
use crate::outgoing::{Outgoing, WriteError};
use crate::state::BrokerState;
use crate::stream::Stream;

/// Bytes that are read at a time into memory that the thread's connections share.
const SCRATCH_BYTES: usize = 64 * 1024;
/// When this many bytes of a frame have arrived, the rest is read straight into the connection's buffer.
const DIRECT_BYTES_MIN: usize = 16 * 1024;
/// Requests up to this size cost nothing to keep: they are not begun while memory is used up, since their answers may
/// be large. Larger ones are begun all the same, because that frees their memory.
const SMALL_REQUEST_BYTES: usize = 16 * 1024;
/// Requests that are held while more of their burst arrives, and bytes of the largest of them.
const HELD_MAX: usize = 8;
const HELD_BYTES_MAX: usize = 256 * 1024;
/// How much is read at most before an answer leaves that could, or a held request is begun.
const ALONG_BYTES_MAX: usize = 512 * 1024;
/// How long an idle connection keeps its buffer.
const BUFFER_IDLE: Duration = Duration::from_secs(1);
/// How long the answers to what was begun may take when the broker stops.
pub(crate) const LAST_ANSWERS_MAX: Duration = Duration::from_secs(3);
/// How long a client may take to hear that its connection ends.
const FAREWELL_MAX: Duration = Duration::from_millis(250);

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// The address; none inside the process.
    pub(crate) address: Option<IpAddr>,
    /// The node of this cluster that it is, where it has said so on the listener of nodes.
    pub(crate) node: Option<BrokerId>,
    /// Which of this process's connections it is; 0 for what another node has passed on.
    pub(crate) connection: u64,
}

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionEnd {
    #[error("the client closed the connection")]
    Closed,
    #[error("the broker is shutting down")]
    Shutdown,
    #[error("it stood still while memory was needed, or was idle for too long")]
    Reclaimed,
    #[error("the request asks for the connection to end")]
    Asked,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameLengthError),
    #[error("a request cannot be read")]
    Decode(#[from] DecodeError),
    #[error("there is no API {key} in version {version} here")]
    Unsupported { key: i16, version: i16 },
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A request that is in work or whose answer waits for those before it.
struct Slot {
    api: ApiKey,
    began: Instant,
    bytes: usize,
    state: SlotState,
}

enum SlotState {
    /// Still being begun, on another thread: the requests after it are not begun before that is done.
    Beginning(BeginFuture),
    Waiting(ReplyFuture),
    Done(Reply),
}

impl SlotState {
    /// Up to its first wait a request runs now.
    fn begun(begun: Begun) -> Self {
        match begun {
            Begun::Done(reply) => Self::Done(reply),
            Begun::Beginning(future) => Self::Beginning(future),
            Begun::Waiting(mut future) => {
                match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    Poll::Ready(reply) => Self::Done(reply),
                    Poll::Pending => Self::Waiting(future),
                }
            }
        }
    }

    /// Goes on; `true` when the state is another one than before.
    fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::Done(_) => return false,
            Self::Beginning(future) => match future.as_mut().poll(cx) {
                Poll::Ready(begun) => *self = Self::begun(begun),
                Poll::Pending => return false,
            },
            Self::Waiting(future) => match future.as_mut().poll(cx) {
                Poll::Ready(reply) => *self = Self::Done(reply),
                Poll::Pending => return false,
            },
        }
        true
    }

    /// Bytes of an answer that cannot leave yet.
    fn reply_bytes(&self) -> usize {
        match self {
            Self::Done(Reply::Frame(frame)) => frame.memory_bytes(),
            _ => 0,
        }
    }
}

/// One connection.
pub(crate) struct Connection {
    broker: Arc<BrokerState>,
    peer: Peer,
    stream: Stream,
    buffer: BytesMut,
    /// Bytes of the buffer's memory, 0 when it has none of its own.
    allocated: usize,
    /// The largest frame that came whole: so much room is made at once for the next.
    trusted: usize,
    /// Bytes of the largest burst of requests: as much room is made for the next while memory is ample.
    burst: usize,
    in_flight_bytes: usize,
    /// Requests that are begun when all that has arrived behind them is read.
    held: VecDeque<Bytes>,
    slots: VecDeque<Slot>,
    outgoing: Outgoing,
    /// An answer was cut off on its way out.
    cut_off: bool,
    lease: Lease,
}

/// What ended a wait.
enum Event {
    Answer,
    Read(usize),
}

impl Connection {
    pub(crate) fn new(broker: Arc<BrokerState>, stream: Stream, peer: Peer) -> Self {
        let lease = broker.memory.lease();
        Self {
            broker,
            peer,
            stream,
            buffer: BytesMut::new(),
            allocated: 0,
            trusted: 0,
            burst: 0,
            in_flight_bytes: 0,
            held: VecDeque::new(),
            slots: VecDeque::new(),
            outgoing: Outgoing::default(),
            cut_off: false,
            lease,
        }
    }

    /// Serves the connection until it ends.
    pub(crate) async fn run(mut self) {
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        if !matches!(end, ConnectionEnd::Shutdown | ConnectionEnd::Reclaimed) {
            // What was sent before the end counts, also where nobody hears of it (acks=0).
            let _ended_already = self.begin_held();
        }
        if matches!(end, ConnectionEnd::Shutdown) && self.broker.is_answering() {
            // What is not answered by then was waited for long enough.
            let _ = tokio::time::timeout(LAST_ANSWERS_MAX, self.answer_what_was_begun()).await;
        }
        let reason = match &end {
            ConnectionEnd::Closed | ConnectionEnd::Shutdown | ConnectionEnd::Asked | ConnectionEnd::Io(_) => {
                None
            }
            ConnectionEnd::Reclaimed => Some("reclaimed"),
            ConnectionEnd::Frame(_) => Some("frame_too_large"),
            ConnectionEnd::Decode(_) => Some("undecodable"),
            ConnectionEnd::Unsupported { .. } => Some("unsupported"),
            ConnectionEnd::Write(_) => Some("not_reading"),
        };
        if let Some(reason) = reason {
            metrics::counter!(names::CONNECTIONS_CLOSED, "reason" => reason).increment(1);
        }
        tracing::debug!(peer = ?self.peer.address, reason = %ErrorChain(&end), "connection ended");
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, ConnectionEnd> {
        // Bytes read since the first of the requests that are held, or of the answers that are about to leave.
        let mut read_since = 0;
        loop {
            let is_held_back = self.begin_requests()?;
            self.collect_answers()?;
            if !self.held.is_empty() || !self.outgoing.is_empty() {
                let read = if is_held_back { 0 } else { self.read_along(read_since).await? };
                read_since += read;
                if read > 0 {
                    continue;
                }
                self.burst = self.burst.max(read_since.min(ALONG_BYTES_MAX));
                read_since = 0;
                self.begin_held()?;
                self.collect_answers()?;
                if !self.outgoing.is_empty() {
                    self.write().await?;
                    continue;
                }
            }
            if !is_held_back && self.has_room() && self.has_whole_request()? {
                // Requests without an answer have made room by being done.
                continue;
            }
            self.account();
            let may_read = self.has_room();
            if may_read && (is_held_back || self.is_short_of_memory()) {
                self.wait_for_memory().await?;
                continue;
            }
            if let Event::Read(read) = self.wait(may_read).await? {
                if read == 0 {
                    return Err(ConnectionEnd::Closed);
                }
                self.lease.progress();
            }
        }
    }

    /// Reads what has arrived while requests are held or small answers are about to leave, without waiting for it; 0 when
    /// it is their turn. A burst of requests is then worked on at once, and the answers leave in one call and wake the client
    /// once.
    async fn read_along(&mut self, read_since: usize) -> Result<usize, ConnectionEnd> {
        let leaves =
            !self.outgoing.is_small() || read_since >= ALONG_BYTES_MAX || self.held.len() >= HELD_MAX;
        if leaves || !self.has_room() || self.is_short_of_memory() {
            return Ok(0);
        }
        let room = self.room();
        let Self { stream, buffer, allocated, lease, .. } = self;
        let read = poll_fn(|cx| match poll_fill(stream, buffer, allocated, room, cx) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => Poll::Ready(Ok(0)),
        });
        let read = read.await?;
        if read > 0 {
            lease.progress();
        }
        self.account();
        Ok(read)
    }

    /// Bytes for which room may be made before they arrive: as much as came before. R10: what bursts bring counts only while
    /// most of the memory for requests is free.
    fn room(&self) -> usize {
        if self.broker.memory.is_ample() { self.trusted.max(self.burst) } else { self.trusted }
    }

    /// Whether another request may be begun, by what the connection holds itself. R10: answers that the client does
    /// not read, or that wait for one before them, are bounded.
    fn has_room(&self) -> bool {
        !self.is_beginning()
            && self.slots.len() + self.held.len() < self.broker.config.limits.requests_in_flight_max
            && self.reply_bytes() < REPLY_BYTES_MAX
    }

    /// Whether the last request is still being begun: those after it have to wait.
    fn is_beginning(&self) -> bool {
        matches!(self.slots.back(), Some(Slot { state: SlotState::Beginning(_), .. }))
    }

    fn reply_bytes(&self) -> usize {
        self.slots.iter().map(|slot| slot.state.reply_bytes()).sum::<usize>() + self.outgoing.memory_bytes()
    }

    /// Whether nothing more may be begun for want of memory. Followers' fetches always may: what holds the memory may be
    /// waiting for them. They are few, and as small as their partitions are many.
    fn is_short_of_memory(&self) -> bool {
        self.peer.node.is_none() && self.broker.memory.is_exhausted()
    }

    fn has_whole_request(&self) -> Result<bool, ConnectionEnd> {
        let length = frame::announced_length(&self.buffer, self.broker.config.limits.request_bytes_max)?;
        Ok(length.is_some_and(|length| self.buffer.len() - frame::LENGTH_BYTES >= length))
    }

    /// Begins every request that is there whole, as far as there is room; `true` when one waits for memory.
    fn begin_requests(&mut self) -> Result<bool, ConnectionEnd> {
        let bytes_max = self.broker.config.limits.request_bytes_max;
        while self.has_room() {
            let Some(length) = frame::announced_length(&self.buffer, bytes_max)? else { return Ok(false) };
            let is_whole = self.buffer.len() - frame::LENGTH_BYTES >= length;
            if is_whole && length <= SMALL_REQUEST_BYTES && self.is_short_of_memory() {
                return Ok(true);
            }
            let Some(frame) = frame::take_frame(&mut self.buffer, bytes_max)? else { return Ok(false) };
            self.take(frame)?;
            self.account();
        }
        Ok(false)
    }

    /// Begins a request after those that came before it, or holds it until all that has arrived behind it is read.
    fn take(&mut self, frame: Bytes) -> Result<(), ConnectionEnd> {
        let may_wait = frame.len() <= HELD_BYTES_MAX && handlers::is_produce(&frame);
        if !may_wait || self.held.len() >= HELD_MAX {
            self.begin_held()?;
        }
        if !may_wait && self.held.is_empty() && !self.is_beginning() {
            return self.begin(frame);
        }
        self.trusted = self.trusted.max(frame.len());
        self.in_flight_bytes += frame.len();
        self.held.push_back(frame);
        Ok(())
    }

    /// Begins what is held, up to the first whose beginning takes longer.
    fn begin_held(&mut self) -> Result<(), ConnectionEnd> {
        while let Some(first) = self.held.front() {
            if self.is_beginning() {
                break;
            }
            if handlers::is_produce(first) {
                let began = Instant::now();
                for (bytes, begun) in handlers::begin_burst(&self.broker, &self.peer, &mut self.held)? {
                    self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
                    self.push(ApiKey::Produce, began, bytes, begun);
                }
            } else if let Some(frame) = self.held.pop_front() {
                self.in_flight_bytes = self.in_flight_bytes.saturating_sub(frame.len());
                self.begin(frame)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, frame: Bytes) -> Result<(), ConnectionEnd> {
        let bytes = frame.len();
        self.trusted = self.trusted.max(bytes);
        let began = Instant::now();
        let (api, begun) = handlers::begin(&self.broker, &self.peer, frame)?;
        self.push(api, began, bytes, begun);
        Ok(())
    }

    /// Takes a request in work, or done, into the line of answers.
    fn push(&mut self, api: ApiKey, began: Instant, bytes: usize, begun: Begun) {
        let state = SlotState::begun(begun);
        let bytes = match state {
            SlotState::Done(_) => bytes,
            SlotState::Beginning(_) | SlotState::Waiting(_) => bytes + decoded_bytes(api, bytes),
        };
        self.in_flight_bytes += bytes;
        self.slots.push_back(Slot { api, began, bytes, state });
    }

    /// Moves the answers that are ready, and have no unready one before them, to the way out.
    fn collect_answers(&mut self) -> Result<(), ConnectionEnd> {
        while let Some(Slot { state: SlotState::Done(_), .. }) = self.slots.front() {
            let Some(slot) = self.slots.pop_front() else { return Ok(()) };
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(slot.bytes);
            self.broker.metrics.answered(slot.api, slot.began);
            match slot.state {
                SlotState::Done(Reply::Frame(frame)) => self.outgoing.push(frame),
                SlotState::Done(Reply::Nothing) | SlotState::Beginning(_) | SlotState::Waiting(_) => {}
                SlotState::Done(Reply::Close) => return Err(ConnectionEnd::Asked),
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), ConnectionEnd> {
        self.account();
        self.lease.set_activity(Activity::Writing);
        let stall = self.broker.config.limits.write_stall_max;
        let Self { broker, outgoing, stream, cut_off, lease, .. } = self;
        let written = tokio::select! {
            biased;
            written = outgoing.write_all(stream, stall, || lease.progress()) => written.map_err(ConnectionEnd::from),
            () = lease.closed() => {
                *cut_off = true;
                Err(ended_by(broker))
            }
        };
        lease.progress();
        written
    }

    /// Answers what was begun and waits for nobody else, before the broker stops: a client that does not hear whether
    /// its records are in the log sends them again, to a broker that may not remember all of them.
    async fn answer_what_was_begun(&mut self) {
        if self.cut_off {
            return;
        }
        let waits = |slot: &Slot| {
            matches!(slot.api, ApiKey::Fetch | ApiKey::JoinGroup | ApiKey::SyncGroup)
                && !matches!(slot.state, SlotState::Done(_))
        };
        // Answers leave in the order of their requests: nothing comes behind one that waits.
        let answerable = self.slots.iter().position(waits).unwrap_or(self.slots.len());
        self.slots.truncate(answerable);
        let stall = self.broker.config.limits.write_stall_max;
        loop {
            if self.collect_answers().is_err()
                || self.outgoing.write_all(&mut self.stream, stall, || {}).await.is_err()
            {
                return;
            }
            if self.slots.is_empty() {
                break;
            }
            answer_ready(&mut self.slots).await;
        }
        // What arrives now is not read any more; closing over it would reset the connection, and the answers with it.
        let farewell = async {
            self.stream.shutdown().await?;
            let mut unread = vec![0; SCRATCH_BYTES];
            while self.stream.read(&mut unread).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
    }

    /// Says how much memory the connection holds. R10: counted is what is there.
    fn account(&self) {
        let buffer = self.allocated.max(self.buffer.len());
        self.lease.set(buffer + self.in_flight_bytes + self.reply_bytes());
        self.lease.set_partial(if self.buffer.is_empty() { 0 } else { buffer });
        let activity =
            if self.slots.is_empty() && self.held.is_empty() { Activity::Reading } else { Activity::Working };
        self.lease.set_activity(activity);
    }

    /// Waits until there is memory to read into. Those that hold parts of requests and stand still go first.
    async fn wait_for_memory(&mut self) -> Result<(), ConnectionEnd> {
        if self.slots.is_empty() {
            self.lease.set_activity(Activity::Blocked);
        }
        let closed = self.broker.memory.reclaim();
        if closed > 0 {
            tracing::warn!(
                closed,
                "request memory is used up: closed the connections that stood still the longest"
            );
        }
        let broker = Arc::clone(&self.broker);
        let event = tokio::select! {
            () = broker.memory.wait() => Ok(()),
            () = tokio::time::sleep(RETRY) => Ok(()),
            () = self.lease.closed() => Err(ended_by(&self.broker)),
            () = answer_ready(&mut self.slots) => Ok(()),
        };
        self.account();
        event
    }

    /// Waits for an answer that may leave, or for bytes.
    async fn wait(&mut self, may_read: bool) -> Result<Event, ConnectionEnd> {
        // Also while requests wait for long, such as fetches at the end of a log.
        let idle = self.allocated > 0 && self.buffer.is_empty();
        if idle {
            if let Ok(event) = tokio::time::timeout(BUFFER_IDLE, self.next_event(may_read)).await {
                return event;
            }
            // Ten thousand idle connections hold no buffers.
            self.buffer = BytesMut::new();
            self.allocated = 0;
            self.trusted = 0;
            self.burst = 0;
            self.account();
        }
        self.next_event(may_read).await
    }

    async fn next_event(&mut self, may_read: bool) -> Result<Event, ConnectionEnd> {
        let room = self.room();
        let Self { broker, stream, buffer, allocated, slots, lease, in_flight_bytes, .. } = self;
        let mut closed = pin!(lease.closed());
        let mut registered = false;
        poll_fn(|cx| {
            if poll_slots(slots, cx) {
                return Poll::Ready(Ok(Event::Answer));
            }
            if closed.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(ended_by(broker)));
            }
            if !may_read {
                return Poll::Pending;
            }
            if registered && broker.memory.is_exhausted() {
                // Something has arrived for which there is no room by now.
                return Poll::Ready(Ok(Event::Answer));
            }
            registered = true;
            let before = *allocated;
            let read = poll_fill(stream, buffer, allocated, room, cx);
            if *allocated != before {
                // Counted as soon as it is taken, also when nothing comes to fill it.
                let replies: usize = slots.iter().map(|slot| slot.state.reply_bytes()).sum();
                let held = (*allocated).max(buffer.len());
                lease.set(held + *in_flight_bytes + replies);
                lease.set_partial(held);
            }
            read.map_ok(Event::Read).map_err(ConnectionEnd::from)
        })
        .await
    }
}

/// Why the broker closes a connection that did nothing wrong.
fn ended_by(broker: &BrokerState) -> ConnectionEnd {
    if broker.is_stopping() { ConnectionEnd::Shutdown } else { ConnectionEnd::Reclaimed }
}

/// What a request in work may hold decoded. Records are not copied; of anything else large the decoder bounds it.
fn decoded_bytes(api: ApiKey, frame_bytes: usize) -> usize {
    if api == ApiKey::Produce || frame_bytes <= SMALL_REQUEST_BYTES {
        return 0;
    }
    REQUEST_ARRAYS_BYTES_MAX.min(frame_bytes.saturating_mul(Decoder::MEMORY_BYTES_PER_BYTE))
}

/// Polls every request in work; whether the first one's answer is ready, or the next request can be begun.
fn poll_slots(slots: &mut VecDeque<Slot>, cx: &mut Context<'_>) -> bool {
    let mut has_begun = false;
    for slot in slots.iter_mut() {
        let was_beginning = matches!(slot.state, SlotState::Beginning(_));
        has_begun |= slot.state.poll(cx) && was_beginning;
    }
    has_begun || matches!(slots.front(), Some(Slot { state: SlotState::Done(_), .. }))
}

async fn answer_ready(slots: &mut VecDeque<Slot>) {
    poll_fn(|cx| if poll_slots(slots, cx) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Reads what is there. R10: a frame's announced length makes no room by itself; the buffer at most doubles what has
/// arrived, up to the frame's end, or takes as much as `room`, which has come before.
fn poll_fill(
    stream: &mut Stream,
    buffer: &mut BytesMut,
    allocated: &mut usize,
    room: usize,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let missing = match frame::announced_length(buffer, usize::MAX) {
        Ok(Some(length)) => (length + frame::LENGTH_BYTES).saturating_sub(buffer.len()),
        _ => 0,
    };
    // What a client with large requests sends is not worth a copy.
    let is_large = room >= DIRECT_BYTES_MIN;
    if is_large || (missing > 0 && (buffer.len() >= DIRECT_BYTES_MIN || *allocated > 0)) {
        let known = missing.min(buffer.len().max(room.saturating_sub(buffer.len())));
        let step = if is_large { known.max(room) } else { known };
        let free = buffer.capacity() - buffer.len();
        if free == 0 || (is_large && free < step.min(SCRATCH_BYTES)) {
            buffer.reserve(step);
            *allocated = buffer.capacity();
        }
        // Frames that were taken from its front still keep all of it.
        *allocated = (*allocated).max(buffer.capacity());
        return pin!(stream.read_buf(buffer)).poll(cx);
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.resize(SCRATCH_BYTES, 0);
        let mut read = ReadBuf::new(scratch);
        std::task::ready!(Pin::new(stream).poll_read(cx, &mut read))?;
        buffer.extend_from_slice(read.filled());
        if *allocated > 0 || buffer.capacity() >= DIRECT_BYTES_MIN {
            *allocated = buffer.capacity();
        }
        Poll::Ready(Ok(read.filled().len()))
    })
}

/// An error with its causes, in one line.
pub(crate) struct ErrorChain<'a>(pub(crate) &'a (dyn std::error::Error + 'a));

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
