//! Raft's log and vote of one member: what is read lies in memory or is read from the journal, what is written goes
//! through one thread, in order, and what arrives together shares one fsync.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::codec::{Reader, Writer};
use super::disk::{Files, StoreError};
use super::journal::{Frames, Journal, Place};
use super::types::{Entry, LogId, Types, Vote};

/// Bytes of the newest entries that are kept in memory.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of entries that one message carries, or one entry.
pub(crate) const APPEND_BYTES: usize = 1024 * 1024;
/// Operations that wait for the writer before their senders do.
const OPERATIONS_MAX: usize = 256;
const VOTE_FILE: &str = "vote";
const VOTE_MAGIC: [u8; 4] = *b"TQV1";

#[derive(Debug)]
struct Slot {
    id: LogId,
    bytes: usize,
    /// Where it lies; not before it is written.
    place: Option<Place>,
    /// The entry itself, if it is one of the newest or not written yet.
    entry: Option<Entry>,
}

/// The log as readers see it.
#[derive(Debug, Default)]
struct Index {
    base: Option<LogId>,
    slots: VecDeque<Slot>,
    vote: Option<Vote>,
    committed: Option<LogId>,
    cached_bytes: usize,
    /// Slots before this position are not cached.
    cached_from: usize,
}

impl Index {
    fn first(&self) -> u64 {
        let next = || self.base.map_or(0, |base| base.index() + 1);
        self.slots.front().map_or_else(next, |slot| slot.id.index())
    }

    fn last(&self) -> Option<LogId> {
        self.slots.back().map(|slot| slot.id).or(self.base)
    }

    fn position(&self, index: u64) -> usize {
        usize::try_from(index.saturating_sub(self.first())).unwrap_or(usize::MAX)
    }

    fn push(&mut self, entry: Entry, bytes: usize) {
        self.cached_bytes += bytes;
        self.slots.push_back(Slot { id: entry.log_id(), bytes, place: None, entry: Some(entry) });
        self.evict();
    }

    /// Lets go of the oldest entries in memory that are written.
    fn evict(&mut self) {
        while self.cached_bytes > CACHE_BYTES {
            let Some(slot) = self.slots.get_mut(self.cached_from) else { return };
            if slot.place.is_none() {
                return;
            }
            if slot.entry.take().is_some() {
                self.cached_bytes -= slot.bytes;
            }
            self.cached_from += 1;
        }
    }

    fn placed(&mut self, places: Vec<(LogId, Place)>) {
        for (id, place) in places {
            let position = self.position(id.index());
            // It may have been purged or replaced meanwhile.
            if let Some(slot) = self.slots.get_mut(position)
                && slot.id == id
            {
                slot.place = Some(place);
            }
        }
        self.evict();
    }

    fn truncate(&mut self, keep: Option<LogId>) {
        while self.slots.back().is_some_and(|slot| Some(slot.id) > keep) {
            if let Some(slot) = self.slots.pop_back()
                && slot.entry.is_some()
            {
                self.cached_bytes -= slot.bytes;
            }
        }
        self.cached_from = self.cached_from.min(self.slots.len());
    }

    fn purge(&mut self, upto: LogId) {
        while self.slots.front().is_some_and(|slot| slot.id.index() <= upto.index()) {
            if let Some(slot) = self.slots.pop_front()
                && slot.entry.is_some()
            {
                self.cached_bytes -= slot.bytes;
            }
            self.cached_from = self.cached_from.saturating_sub(1);
        }
        self.base = self.base.max(Some(upto));
    }
}

/// What the writer is asked to do.
enum Operation {
    Append { frames: Frames, done: IOFlushed<Types> },
    Truncate { keep: Option<LogId>, done: oneshot::Sender<io::Result<()>> },
    Purge { upto: LogId, done: oneshot::Sender<io::Result<()>> },
    Vote { vote: Vote, done: oneshot::Sender<io::Result<()>> },
    Committed(Option<LogId>),
    Close { done: oneshot::Sender<io::Result<()>> },
}

#[derive(Debug)]
struct Shared {
    files: Arc<Files>,
    index: Mutex<Index>,
}

/// The log store of one member. Clones are the same store.
#[derive(Debug, Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    operations: mpsc::Sender<Operation>,
}

fn corrupt(files: &Files, name: &str, problem: impl ToString) -> StoreError {
    StoreError::Corrupt { path: files.path(name), at: 0, problem: problem.to_string() }
}

fn read_vote(files: &Files) -> Result<Option<Vote>, StoreError> {
    let Some(content) = files.read(&files.path(VOTE_FILE))? else { return Ok(None) };
    let bad = |problem: &str| corrupt(files, VOTE_FILE, problem);
    let rest = content.strip_prefix(&VOTE_MAGIC).ok_or_else(|| bad("it is no vote"))?;
    let mut reader = Reader(rest);
    let crc = reader.u32().map_err(|error| bad(&error.to_string()))?;
    if crc32c::crc32c(reader.0) != crc {
        return Err(bad("its checksum is wrong"));
    }
    let vote = reader.vote().map_err(|error| bad(&error.to_string()))?;
    reader.end().map_err(|error| bad(&error.to_string()))?;
    Ok(Some(vote))
}

fn write_vote(files: &Files, vote: &Vote) -> Result<(), StoreError> {
    let mut body = Writer::default();
    body.vote(vote);
    let mut head = VOTE_MAGIC.to_vec();
    head.extend_from_slice(&crc32c::crc32c(&body.0).to_be_bytes());
    files.replace(&files.path(VOTE_FILE), [&head, &body.0])
}

impl LogStore {
    /// Opens the store. `keep_from` is the index up to which the log may go from the disk: where the older of the two
    /// snapshots ends.
    pub(crate) fn open(files: &Arc<Files>, keep_from: Arc<AtomicU64>) -> Result<Self, StoreError> {
        let (journal, found) = Journal::open(files)?;
        let vote = read_vote(files)?;
        let last_term = found.last().map_or(0, |last| last.committed_leader_id().term);
        if last_term > vote.map_or(0, |vote| vote.leader_id.term) {
            // R7: entries of a term only come after its vote. Without it this member could vote twice.
            return Err(corrupt(
                files,
                VOTE_FILE,
                format!("it is older than the log, which has term {last_term}"),
            ));
        }
        let committed = found.committed.min(found.last());
        let mut index = Index { base: found.base, vote, committed, ..Index::default() };
        for (id, place) in found.entries {
            index.slots.push_back(Slot { id, bytes: 0, place: Some(place), entry: None });
        }
        index.cached_from = index.slots.len();
        let shared = Arc::new(Shared { files: Arc::clone(files), index: Mutex::new(index) });
        let (operations, receiver) = mpsc::channel(OPERATIONS_MAX);
        let worker = Worker { shared: Arc::clone(&shared), journal, keep_from };
        std::thread::Builder::new()
            .name("quorum-log".to_owned())
            .spawn(move || worker.run(receiver))
            .map_err(|source| StoreError::Io { what: "start the writer of", path: files.path(""), source })?;
        Ok(Self { shared, operations })
    }

    /// The index of the first entry.
    pub(crate) fn first(&self) -> u64 {
        self.shared.index.lock().first()
    }

    async fn send(&self, operation: Operation) -> io::Result<()> {
        self.shared.files.check()?;
        self.operations.send(operation).await.map_err(|_| closed())
    }

    async fn wait(
        &self,
        operation: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Operation,
    ) -> io::Result<()> {
        let (done, waiting) = oneshot::channel();
        self.send(operation(done)).await?;
        waiting.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Makes everything durable; nothing can be written afterwards.
    pub(crate) async fn close(&self) -> io::Result<()> {
        self.wait(|done| Operation::Close { done }).await
    }

    /// Reads entries, at least one if there is one, and then no more than `bytes_max`.
    async fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let found: Vec<Result<Entry, Place>> = {
            let index = self.shared.index.lock();
            let (from, to) =
                (from.max(index.first()), to.min(index.last().map_or(0, |last| last.index() + 1)));
            let mut bytes = 0;
            let slots = index.slots.iter().skip(index.position(from));
            let count = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
            let slots = slots.take(count).enumerate().take_while(|(position, slot)| {
                bytes += slot.bytes.max(slot.place.as_ref().map_or(0, Place::bytes));
                *position == 0 || bytes <= bytes_max
            });
            slots
                .map(|(_, slot)| match (&slot.entry, &slot.place) {
                    (Some(entry), _) => Ok(Ok(entry.clone())),
                    (None, Some(place)) => Ok(Err(place.clone())),
                    (None, None) => Err(io::Error::other("an entry that is nowhere")),
                })
                .collect::<io::Result<_>>()?
        };
        if found.iter().all(Result::is_ok) {
            return Ok(found.into_iter().flatten().collect());
        }
        let decode =
            move || found.into_iter().map(|found| found.or_else(|place| read_entry(&place))).collect();
        tokio::task::spawn_blocking(decode).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}

fn closed() -> io::Error {
    io::Error::other("the store of the metadata quorum is closed")
}

fn read_entry(place: &Place) -> io::Result<Entry> {
    let bytes = place.read().map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
    let mut reader = Reader(&bytes);
    let entry = reader.entry().and_then(|entry| reader.end().map(|()| entry));
    entry.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(to) => *to,
            Bound::Unbounded => u64::MAX,
        };
        self.read(from, to, usize::MAX).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.index.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, APPEND_BYTES).await
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let index = self.shared.index.lock();
        Ok(LogState { last_purged_log_id: index.base, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        self.wait(|done| Operation::Vote { vote, done }).await?;
        self.shared.index.lock().vote = Some(vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.shared.index.lock().committed = committed;
        self.send(Operation::Committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.shared.index.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, done: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut frames = Frames::default();
        let mut encoded = Writer::default();
        let mut taken = Vec::new();
        for entry in entries {
            encoded.0.clear();
            encoded.entry(&entry).map_err(StoreError::from)?;
            frames.push(entry.log_id(), &encoded.0);
            taken.push((entry, encoded.0.len()));
        }
        {
            let mut index = self.shared.index.lock();
            for (entry, bytes) in taken {
                index.push(entry, bytes);
            }
        }
        if frames.is_empty() {
            done.io_completed(Ok(()));
            return Ok(());
        }
        self.send(Operation::Append { frames, done }).await
    }

    async fn truncate_after(&mut self, keep: Option<LogId>) -> Result<(), io::Error> {
        self.shared.index.lock().truncate(keep);
        self.wait(|done| Operation::Truncate { keep, done }).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.shared.index.lock().purge(upto);
        self.wait(|done| Operation::Purge { upto, done }).await
    }
}

/// Answers what comes after the end.
fn refuse(mut operations: mpsc::Receiver<Operation>) {
    operations.close();
    while let Some(operation) = operations.blocking_recv() {
        match operation {
            Operation::Append { done, .. } => done.io_completed(Err(closed())),
            Operation::Truncate { done, .. }
            | Operation::Purge { done, .. }
            | Operation::Vote { done, .. }
            | Operation::Close { done } => drop(done.send(Err(closed()))),
            Operation::Committed(_) => {}
        }
    }
}

/// The one thread that writes.
struct Worker {
    shared: Arc<Shared>,
    journal: Journal,
    keep_from: Arc<AtomicU64>,
}

impl Worker {
    fn run(mut self, mut operations: mpsc::Receiver<Operation>) {
        let mut appended = Vec::new();
        while let Some(first) = operations.blocking_recv() {
            let mut next = Some(first);
            let mut taken = 0;
            while let Some(operation) = next {
                if let Operation::Close { done } = operation {
                    self.flush(&mut appended);
                    let _ = done.send(self.journal.close().map_err(io::Error::from));
                    return refuse(operations);
                }
                self.take(operation, &mut appended);
                taken += 1;
                next = if taken < OPERATIONS_MAX { operations.try_recv().ok() } else { None };
            }
            self.flush(&mut appended);
        }
        if let Err(error) = self.journal.close() {
            tracing::error!(%error, "the metadata quorum's log was not closed");
        }
    }

    fn take(&mut self, operation: Operation, appended: &mut Vec<IOFlushed<Types>>) {
        match operation {
            Operation::Append { frames, done } => match self.journal.append(&frames) {
                Ok(places) => {
                    appended.push(done);
                    // They are read from the file only when they are in it.
                    match self.journal.write() {
                        Ok(()) => self.shared.index.lock().placed(places),
                        Err(_) => self.flush(appended),
                    }
                }
                Err(error) => done.io_completed(Err(error.into())),
            },
            Operation::Committed(committed) => {
                self.journal.committed(committed);
                // A failed write is remembered, and seen by whoever waits next.
                let _ = self.journal.write();
            }
            Operation::Truncate { keep, done } => {
                self.journal.truncate(keep);
                self.flush(appended);
                let _ = done.send(self.journal.flush().map_err(io::Error::from));
            }
            Operation::Purge { upto, done } => {
                self.flush(appended);
                let keep_from = self.keep_from.load(Ordering::Acquire);
                let _ = done.send(self.journal.purge(upto, keep_from).map_err(io::Error::from));
            }
            Operation::Vote { vote, done } => {
                // In order: an entry of the vote's term must not be there without the vote, nor the other way round.
                self.flush(appended);
                let files = &self.shared.files;
                let written = files.check().and_then(|()| write_vote(files, &vote));
                let _ = done.send(written.map_err(io::Error::from));
            }
            Operation::Close { done } => drop(done.send(Err(closed()))),
        }
    }

    /// R1: what was appended is reported only when it is durable; after a failure nothing ever is (R14).
    fn flush(&mut self, appended: &mut Vec<IOFlushed<Types>>) {
        if appended.is_empty() {
            return;
        }
        let result = self.journal.flush();
        for done in appended.drain(..) {
            done.io_completed(match &result {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::other(error.to_string())),
            });
        }
    }
}
