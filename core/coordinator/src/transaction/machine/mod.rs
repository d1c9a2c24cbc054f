//! The transactional ids of one partition of the state topic, as a pure state machine.
//!
//! A request comes with a [`Waiter`], which is answered exactly once by [`TransactionCommand::Respond`]: at once, or when
//! the record of the change is committed. Records to append leave as [`TransactionCommand::Append`] in the order in
//! which they must stand in the log; [`TransactionMachine::appended`] tells what became of them, in the same order. At
//! most one change of an id is on its way: whoever wants another is told `CONCURRENT_TRANSACTIONS`.
//!
//! A record that could not be committed may stand in the log all the same. The machine goes on from the state before it;
//! the next record of the id replaces it, and until then whoever loads the log goes on from it. Either is sound, since
//! nobody was told, and no marker was sent.

mod admin;
mod append;
mod end;
mod expire;
mod init;
mod markers;
mod partitions;
mod replay;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use towpath_types::{ProducerId, TopicPartition};
use towpath_wire::ErrorCode;

pub use admin::TransactionFilter;
pub use end::EndTransaction;
pub use init::InitProducer;
pub use partitions::AddPartitions;

use self::append::Pending;
use super::config::TransactionConfig;
use super::decide::Moment;
use super::metadata::{Metadata, TransactionState};
use crate::log::{EndMarker, TransactionalProducer};
use crate::machine::{Now, Waiter};
use crate::record::OffsetsRecord;

/// Bytes that an id takes beside its name and its partitions.
const ID_OVERHEAD: usize = 256;

/// The name of something that the machine wants done and to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransactionToken(u64);

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionReply {
    /// To InitProducerId: who the producer is from now on.
    Init(Result<TransactionalProducer, ErrorCode>),
    /// To AddPartitionsToTxn and AddOffsetsToTxn.
    Add(ErrorCode),
    /// To EndTxn: who the producer is in its next transaction.
    End(Result<TransactionalProducer, ErrorCode>),
}

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum TransactionCommand {
    /// Answer a waiter; it waits no longer.
    Respond {
        /// Who.
        waiter: Waiter,
        /// What.
        reply: TransactionReply,
    },
    /// Append records to the partition, after all records of earlier commands and in one piece, and tell
    /// [`TransactionMachine::appended`].
    Append {
        /// The append's name.
        token: TransactionToken,
        /// At least one record.
        records: Vec<OffsetsRecord>,
    },
    /// Get a producer id that nobody has had, and tell [`TransactionMachine::producer_id`].
    NewProducerId {
        /// The name of what it is for.
        token: TransactionToken,
    },
    /// Have a marker appended to every one of the partitions, for as long as it takes, and tell
    /// [`TransactionMachine::marker_written`] of each.
    SendMarkers {
        /// The name of what they end.
        token: TransactionToken,
        /// Whose transaction.
        transactional_id: Arc<str>,
        /// What to append.
        marker: EndMarker,
        /// Where: at least one.
        partitions: Vec<TopicPartition>,
    },
}

/// How much there is in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionStats {
    /// Transactional ids.
    pub ids: usize,
    /// Those with an open transaction.
    pub ongoing: usize,
    /// Those whose transaction is decided, but not known to be complete.
    pub prepared: usize,
    /// Appends that are not done.
    pub appends: usize,
    /// Bytes of everything that the ids hold.
    pub bytes: usize,
}

/// Why no other change of an id is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    /// A producer id was asked for.
    ProducerId,
    /// A record is on its way to the log.
    Append,
    /// Markers are on their way.
    Markers,
    /// The completion could not be written; it is tried again.
    Retry,
}

/// A transactional id.
#[derive(Debug)]
struct Entry {
    metadata: Metadata,
    busy: Option<Busy>,
    /// Bytes that it is charged for: of what it is, or is about to be.
    bytes: usize,
}

/// A request that waits for a producer id.
#[derive(Debug)]
enum Asking {
    Init {
        waiter: Waiter,
        request: InitProducer,
    },
    End {
        waiter: Waiter,
        request: EndTransaction,
    },
    /// The abort of a transaction that has had its time.
    Abort {
        transactional_id: Arc<str>,
    },
}

impl Asking {
    const fn answer(&self, error: ErrorCode) -> Option<(Waiter, TransactionReply)> {
        match self {
            Self::Init { waiter, .. } => Some((*waiter, TransactionReply::Init(Err(error)))),
            Self::End { waiter, .. } => Some((*waiter, TransactionReply::End(Err(error)))),
            Self::Abort { .. } => None,
        }
    }

    fn transactional_id(&self) -> &str {
        match self {
            Self::Init { request, .. } => &request.transactional_id,
            Self::End { request, .. } => &request.transactional_id,
            Self::Abort { transactional_id } => transactional_id,
        }
    }
}

/// The transactional ids of one partition of the state topic.
pub struct TransactionMachine {
    config: TransactionConfig,
    coordinator_epoch: i32,
    entries: HashMap<Arc<str>, Entry>,
    appends: HashMap<TransactionToken, Pending>,
    asking: HashMap<TransactionToken, Asking>,
    marking: HashMap<TransactionToken, Arc<str>>,
    /// Completions to write again, and when (monotonic).
    retries: VecDeque<(i64, Arc<str>)>,
    next_token: u64,
    bytes: usize,
    next_abort_ms: i64,
    next_expiry_ms: i64,
}

impl fmt::Debug for TransactionMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransactionMachine").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

fn respond(waiter: Waiter, reply: TransactionReply, out: &mut Vec<TransactionCommand>) {
    out.push(TransactionCommand::Respond { waiter, reply });
}

fn size_in_bytes(transactional_id: &str, metadata: &Metadata) -> usize {
    transactional_id.len() + ID_OVERHEAD + metadata.partitions.size_in_memory()
}

impl TransactionMachine {
    /// A machine without ids. `coordinator_epoch` is the leader epoch of the partition, which goes into the markers.
    #[must_use]
    pub fn new(config: TransactionConfig, coordinator_epoch: i32) -> Self {
        Self {
            config,
            coordinator_epoch,
            entries: HashMap::new(),
            appends: HashMap::new(),
            asking: HashMap::new(),
            marking: HashMap::new(),
            retries: VecDeque::new(),
            next_token: 0,
            bytes: 0,
            next_abort_ms: i64::MAX,
            next_expiry_ms: i64::MAX,
        }
    }

    /// How much there is.
    #[must_use]
    pub fn stats(&self) -> TransactionStats {
        let mut stats = TransactionStats {
            ids: self.entries.len(),
            appends: self.appends.len(),
            bytes: self.bytes,
            ..TransactionStats::default()
        };
        for entry in self.entries.values() {
            stats.ongoing += usize::from(entry.metadata.state == TransactionState::Ongoing);
            stats.prepared += usize::from(entry.metadata.state.is_prepared());
        }
        stats
    }

    /// The state of an id, and who has it; `None` when nobody does.
    #[must_use]
    pub fn id(&self, transactional_id: &str) -> Option<(TransactionState, TransactionalProducer)> {
        let metadata = &self.entries.get(transactional_id).filter(|entry| !entry.metadata.is_new())?.metadata;
        Some((metadata.state, metadata.producer))
    }

    /// Everybody who waits for an answer.
    #[must_use]
    pub fn waiters(&self) -> Vec<Waiter> {
        let appending = self.appends.values().filter_map(Pending::waiter);
        let asking = self.asking.values().filter_map(|asking| asking.answer(ErrorCode::None));
        let mut waiters: Vec<Waiter> = appending.chain(asking.map(|(waiter, _)| waiter)).collect();
        waiters.sort_unstable();
        waiters
    }

    /// When [`TransactionMachine::tick`] is due, in monotonic milliseconds.
    #[must_use]
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let retry_ms = self.retries.front().map_or(i64::MAX, |(at_ms, _)| *at_ms);
        let next_ms = retry_ms.min(self.next_abort_ms).min(self.next_expiry_ms);
        (next_ms != i64::MAX).then_some(next_ms)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now, out: &mut Vec<TransactionCommand>) {
        self.retry_completions(now, out);
        if now.monotonic_ms >= self.next_abort_ms {
            self.next_abort_ms = now.monotonic_ms.saturating_add(self.config.abort_interval_ms.max(1));
            self.abort_timed_out(now, out);
        }
        if now.monotonic_ms >= self.next_expiry_ms {
            self.next_expiry_ms = now.monotonic_ms.saturating_add(self.config.expiration_interval_ms.max(1));
            self.expire_ids(now, out);
        }
    }

    /// Answers everybody with `error`: this broker does not coordinate the partition any more. The machine is then of no
    /// use; what is in flight comes to nothing here.
    pub fn unload(&mut self, error: ErrorCode, out: &mut Vec<TransactionCommand>) {
        for (_, pending) in self.appends.drain() {
            if let Some((waiter, reply)) = pending.answer(error) {
                respond(waiter, reply, out);
            }
        }
        for (_, asking) in self.asking.drain() {
            if let Some((waiter, reply)) = asking.answer(error) {
                respond(waiter, reply, out);
            }
        }
        self.entries.clear();
        self.marking.clear();
        self.retries.clear();
        self.bytes = 0;
        self.next_abort_ms = i64::MAX;
        self.next_expiry_ms = i64::MAX;
    }

    /// Takes a producer id, or the news that there is none. Unknown tokens mean nothing.
    pub fn producer_id(
        &mut self,
        now: Now,
        token: TransactionToken,
        result: Result<ProducerId, ErrorCode>,
        out: &mut Vec<TransactionCommand>,
    ) {
        let Some(asking) = self.asking.remove(&token) else { return };
        if let Some(entry) = self.entries.get_mut(asking.transactional_id()) {
            entry.busy = None;
        }
        match (result, asking) {
            (Err(error), asking) => {
                self.forget_if_new(asking.transactional_id());
                match asking.answer(error) {
                    Some((waiter, reply)) => respond(waiter, reply, out),
                    None => tracing::warn!(
                        transactional_id = asking.transactional_id(),
                        %error,
                        "a transaction that has had its time cannot be aborted for want of a producer id; later"
                    ),
                }
            }
            (Ok(id), Asking::Init { waiter, request }) => {
                self.initialize(now, waiter, request, Some(id), out)
            }
            (Ok(id), Asking::End { waiter, request }) => self.end(now, waiter, request, Some(id), out),
            (Ok(id), Asking::Abort { transactional_id }) => self.abort(now, &transactional_id, Some(id), out),
        }
    }

    fn token(&mut self) -> TransactionToken {
        let token = TransactionToken(self.next_token);
        self.next_token += 1;
        token
    }

    /// Asks for a producer id; the request is looked at again when it is there.
    fn ask(&mut self, asking: Asking, out: &mut Vec<TransactionCommand>) {
        let token = self.token();
        if let Some(entry) = self.entries.get_mut(asking.transactional_id()) {
            entry.busy = Some(Busy::ProducerId);
        }
        self.asking.insert(token, asking);
        out.push(TransactionCommand::NewProducerId { token });
    }

    /// Charges an id for `bytes` instead of what it was charged for.
    fn charge(&mut self, transactional_id: &str, bytes: usize) {
        if let Some(entry) = self.entries.get_mut(transactional_id) {
            self.bytes = self.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
        }
    }

    fn insert(&mut self, transactional_id: Arc<str>, metadata: Metadata, busy: Option<Busy>) {
        self.remove(&transactional_id);
        let bytes = size_in_bytes(&transactional_id, &metadata);
        self.bytes += bytes;
        self.entries.insert(transactional_id, Entry { metadata, busy, bytes });
    }

    fn remove(&mut self, transactional_id: &str) {
        if let Some(entry) = self.entries.remove(transactional_id) {
            self.bytes -= entry.bytes;
        }
    }

    /// An id that nobody was given is none.
    fn forget_if_new(&mut self, transactional_id: &str) {
        if self.entries.get(transactional_id).is_some_and(|entry| entry.metadata.is_new()) {
            self.remove(transactional_id);
        }
    }

    /// The ids that `predicate` takes and that can change, in order.
    fn idle_ids(&self, predicate: impl Fn(&Metadata) -> bool) -> Vec<Arc<str>> {
        let entries = self.entries.iter();
        let mut ids: Vec<_> = entries
            .filter(|(_, entry)| entry.busy.is_none() && predicate(&entry.metadata))
            .map(|(id, _)| Arc::clone(id))
            .collect();
        ids.sort_unstable();
        ids
    }

    const fn moment(now: Now, fresh_id: Option<ProducerId>) -> Moment {
        Moment { now_ms: now.wall_ms, fresh_id }
    }
}
