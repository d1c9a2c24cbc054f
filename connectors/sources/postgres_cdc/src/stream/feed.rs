//! Reads the replication stream on a thread of its own, answers keepalives, and reports what is durable.
//!
//! The server's walsender sends row by row, and a reader that wakes up for each row doubles the cost on both sides. So
//! after a short read, while data is flowing, the reader sleeps up to half a millisecond. tokio's timers have a
//! resolution of a millisecond; a thread can sleep as briefly as it likes without holding anybody up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::super::lsn::Lsn;
use super::super::wire::{Connection, Duplex, Endpoint, Kind, PgError, ServerError, frame_length};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 * 1024;
/// A read below this was short: we are faster than the server.
const SHORT_READ_BYTES: usize = 64 * 1024;
/// Reads further apart than this are no flow.
const FLOW_GAP: Duration = Duration::from_millis(2);
const PAUSE_MIN: Duration = Duration::from_micros(60);
const PAUSE_MAX: Duration = Duration::from_micros(500);
/// Chunks that wait for the runtime: this bounds what is held in memory; beyond it the server has to wait (R10).
const CHUNKS_WAITING: usize = 8;
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Silence after which the server is asked for a sign of life, and after which the connection counts as lost.
const ASK_AFTER: Duration = Duration::from_secs(20);
const LOST_AFTER: Duration = Duration::from_secs(60);
/// Microseconds between 1970 and 2000, from when PostgreSQL counts.
pub(super) const PG_EPOCH_US: i64 = 946_684_800_000_000;

/// The consumer's end of the stream. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Feed {
    chunks: mpsc::Receiver<Result<Vec<u8>, PgError>>,
    used: mpsc::Sender<Vec<u8>>,
    flushed: watch::Sender<u64>,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
    received: Arc<AtomicU64>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Reader {
    chunks: mpsc::Sender<Result<Vec<u8>, PgError>>,
    used: mpsc::Receiver<Vec<u8>>,
    flushed: watch::Receiver<u64>,
    stop: CancellationToken,
    received: Arc<AtomicU64>,
    reported: u64,
    last_read: Instant,
    pause: Duration,
}

impl Feed {
    /// Connects and sends `sql`, a START_REPLICATION.
    pub(crate) async fn start(
        endpoint: Endpoint,
        name: String,
        sql: String,
        flushed: Lsn,
    ) -> Result<Self, PgError> {
        let (chunk_sender, chunks) = mpsc::channel(CHUNKS_WAITING);
        let (used, used_receiver) = mpsc::channel(CHUNKS_WAITING + 2);
        let (flushed, flushed_receiver) = watch::channel(flushed.0);
        let (started_sender, started) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        let stop = CancellationToken::new();
        let received = Arc::new(AtomicU64::new(0));
        let reader = Reader {
            chunks: chunk_sender,
            used: used_receiver,
            flushed: flushed_receiver,
            stop: stop.clone(),
            received: Arc::clone(&received),
            reported: 0,
            last_read: Instant::now(),
            pause: Duration::ZERO,
        };
        std::thread::Builder::new().name("postgres-stream".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(reader.run(&endpoint, &name, &sql, started_sender)),
                // The other side learns it from the channel that is dropped.
                Err(error) => drop(started_sender.send(Err(PgError::Io(error)))),
            }
            // Nobody may be waiting.
            let _ = ended_sender.send(());
        })?;
        let feed = Self { chunks, used, flushed, stop, ended, received };
        match started.await {
            Ok(Ok(())) => Ok(feed),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(PgError::Io(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// The next chunk of whole frames. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, PgError> {
        self.chunks.recv().await.unwrap_or_else(|| Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())))
    }

    /// The next chunk, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<Result<Vec<u8>, PgError>> {
        self.chunks.try_recv().ok()
    }

    /// Gives a chunk's memory back.
    pub(crate) fn recycle(&self, mut chunk: Vec<u8>) {
        // One that grew for a huge row is not kept.
        if chunk.capacity() <= 4 * READ_BYTES {
            chunk.clear();
            let _ = self.used.try_send(chunk);
        }
    }

    /// R4: everything before `lsn` is durable on our side; the server may forget it.
    pub(crate) fn flush(&self, lsn: Lsn) {
        self.flushed.send_if_modified(|flushed| {
            let newer = lsn.0 > *flushed;
            *flushed = lsn.0.max(*flushed);
            newer
        });
    }

    /// How far the server has sent.
    pub(crate) fn received(&self) -> Lsn {
        Lsn(self.received.load(Ordering::Relaxed))
    }

    /// Ends replication in good order, so that the slot is free at once.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        self.chunks.close();
        let _ended = tokio::time::timeout(Duration::from_secs(3), &mut self.ended).await;
    }
}

impl Reader {
    async fn run(
        mut self,
        endpoint: &Endpoint,
        name: &str,
        sql: &str,
        started: oneshot::Sender<Result<(), PgError>>,
    ) {
        let opening = async {
            let connection = Box::pin(Connection::open(endpoint, Kind::Replication, name)).await?;
            connection.start_replication(sql).await
        };
        let (mut stream, rest) = match opening.await {
            Ok(opened) => opened,
            Err(error) => {
                let _ = started.send(Err(error));
                return;
            }
        };
        if started.send(Ok(())).is_err() {
            return;
        }
        if let Err(error) = self.read(stream.as_mut(), rest).await {
            // Nobody listens any more only when the stream is given up.
            let _ = self.chunks.send(Err(error)).await;
        }
    }

    async fn read(&mut self, stream: &mut dyn Duplex, mut chunk: Vec<u8>) -> Result<(), PgError> {
        let mut ticks = interval(STATUS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unscanned = 0;
        loop {
            let scanned = self.scan(&chunk, &mut unscanned)?;
            if scanned.reply {
                self.report(stream, false).await?;
            }
            if unscanned > 0 && !self.deliver(stream, &mut chunk, &mut unscanned).await? {
                break;
            }
            if let Some(error) = scanned.error {
                return Err(error);
            }
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
            chunk.reserve(READ_BYTES);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = self.flushed.changed() => match changed {
                    Ok(()) => self.report(stream, false).await?,
                    Err(_) => break,
                },
                read = stream.read_buf(&mut chunk) => match read? {
                    0 => return Err(PgError::Io(io::ErrorKind::UnexpectedEof.into())),
                    bytes => self.adapt(bytes),
                },
                _ = ticks.tick() => {
                    let silence = self.last_read.elapsed();
                    if silence > LOST_AFTER {
                        return Err(PgError::Io(io::ErrorKind::TimedOut.into()));
                    }
                    self.report(stream, silence > ASK_AFTER).await?;
                }
            }
        }
        // CopyDone and Terminate: the server lets go of the slot at once.
        stream.write_all(b"c\0\0\0\x04X\0\0\0\x04").await?;
        Ok(stream.flush().await?)
    }

    /// How long to sleep before the next read.
    fn adapt(&mut self, bytes: usize) {
        let now = Instant::now();
        let gap = now.duration_since(self.last_read);
        self.last_read = now;
        self.pause = match bytes {
            SHORT_READ_BYTES.. => Duration::ZERO,
            // The first data after a silence is followed at once.
            _ if gap > FLOW_GAP => Duration::ZERO,
            _ => (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX),
        };
    }

    /// Looks at the frames that are complete. `at` is moved past them.
    fn scan(&self, chunk: &[u8], at: &mut usize) -> Result<Scanned, PgError> {
        let mut scanned = Scanned::default();
        while let Some(length) = frame_length(&chunk[*at..])? {
            let Some(frame) = chunk.get(*at..*at + length) else { break };
            match (frame[0], frame.get(5)) {
                (b'd', Some(b'w' | b'k')) => {
                    let keepalive = frame[5] == b'k';
                    // XLogData has its start first, keepalives the end of what was sent.
                    let from = if keepalive { 6 } else { 14 };
                    if let Some(end) = frame[from.min(frame.len())..].first_chunk::<8>() {
                        self.received.fetch_max(u64::from_be_bytes(*end), Ordering::Relaxed);
                    }
                    scanned.reply |= keepalive && frame.get(22) == Some(&1);
                }
                (b'E', _) => {
                    scanned.error = Some(PgError::Server(Box::new(ServerError::parse(&frame[5..]))));
                    return Ok(scanned);
                }
                // The server ends the stream: it is shutting down.
                (b'c', _) => {
                    scanned.error = Some(PgError::Io(io::ErrorKind::ConnectionAborted.into()));
                    return Ok(scanned);
                }
                _ => {}
            }
            *at += length;
        }
        Ok(scanned)
    }

    /// Hands the complete frames over; what is left over becomes the next chunk. While the consumer is busy, the
    /// server is told that we live. `false` when nobody wants any more.
    async fn deliver(
        &mut self,
        stream: &mut dyn Duplex,
        chunk: &mut Vec<u8>,
        complete: &mut usize,
    ) -> Result<bool, PgError> {
        let mut next = self.used.try_recv().unwrap_or_default();
        next.extend_from_slice(&chunk[*complete..]);
        chunk.truncate(*complete);
        let full = std::mem::replace(chunk, next);
        *complete = 0;
        let sender = self.chunks.clone();
        let mut waiting = std::pin::pin!(sender.reserve());
        loop {
            let flushed = tokio::select! {
                biased;
                permit = &mut waiting => {
                    let Ok(permit) = permit else { return Ok(false) };
                    permit.send(Ok(full));
                    return Ok(true);
                }
                () = self.stop.cancelled() => return Ok(false),
                changed = self.flushed.changed() => changed.is_ok(),
                () = tokio::time::sleep(STATUS_EVERY) => true,
            };
            if !flushed {
                return Ok(false);
            }
            // Waiting for the consumer is no silence of the server's.
            self.last_read = Instant::now();
            self.report(stream, false).await?;
        }
    }

    /// Sends a standby status update.
    async fn report(&mut self, stream: &mut dyn Duplex, ask: bool) -> Result<(), PgError> {
        let flushed = (*self.flushed.borrow_and_update()).max(self.reported);
        self.reported = flushed;
        let written = self.received.load(Ordering::Relaxed).max(flushed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_us = i64::try_from(now.as_micros()).unwrap_or_default() - PG_EPOCH_US;
        let mut frame = [0; 39];
        frame[0] = b'd';
        frame[1..5].copy_from_slice(&38_u32.to_be_bytes());
        frame[5] = b'r';
        frame[6..14].copy_from_slice(&written.to_be_bytes());
        frame[14..22].copy_from_slice(&flushed.to_be_bytes());
        frame[22..30].copy_from_slice(&flushed.to_be_bytes());
        frame[30..38].copy_from_slice(&now_us.to_be_bytes());
        frame[38] = u8::from(ask);
        stream.write_all(&frame).await?;
        Ok(stream.flush().await?)
    }
}

#[derive(Debug, Default)]
struct Scanned {
    reply: bool,
    error: Option<PgError>,
}
