//! A transactional id: who writes under it, and how far its transaction is.

use std::sync::Arc;

use towpath_types::{ProducerEpoch, ProducerId};

use super::partitions::Partitions;
use crate::log::TransactionalProducer;

/// "Never": the start of a transaction that has not begun.
const NEVER_MS: i64 = -1;
/// The timeout that stands for none (KIP-939; Kafka aborts no transaction that has it).
const NO_TIMEOUT_MS: i32 = i32::MAX;

/// How far a transaction is. The states `Dead` and `PrepareEpochFence` of Kafka are never stored and have no place here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionState {
    /// A producer has the id; no transaction has begun since.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// It is decided: commit. Markers are on their way.
    PrepareCommit,
    /// It is decided: abort. Markers are on their way.
    PrepareAbort,
    /// The last transaction was committed, and all its markers are written.
    CompleteCommit,
    /// The last transaction was aborted, and all its markers are written.
    CompleteAbort,
}

impl TransactionState {
    const ALL: [Self; 6] = [
        Self::Empty,
        Self::Ongoing,
        Self::PrepareCommit,
        Self::PrepareAbort,
        Self::CompleteCommit,
        Self::CompleteAbort,
    ];

    /// The state's number in a record.
    #[must_use]
    pub const fn id(self) -> i8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    /// The state with a number; `None` for those that are never stored, and for what is no state.
    #[must_use]
    pub fn from_id(id: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.id() == id)
    }

    /// Kafka's name of the state.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The state with Kafka's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether it is decided how the transaction ends, while its markers are not known to be written.
    #[must_use]
    pub const fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// The `transaction.version` that whoever changed the state last goes by: 0 up to EndTxn 4 and AddPartitionsToTxn 3, 2
/// from then on (KIP-890).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientVersion(i16);

impl ClientVersion {
    /// The producer adds partitions itself, and keeps its epoch from one transaction to the next.
    pub const V0: Self = Self(0);
    /// Partition leaders add partitions, and every end of a transaction raises the producer's epoch.
    pub const V2: Self = Self(2);

    /// The version with a feature level, if there is one.
    #[must_use]
    pub const fn from_level(level: i16) -> Option<Self> {
        if level >= 0 && level <= 2 { Some(Self(level)) } else { None }
    }

    /// The feature level.
    #[must_use]
    pub const fn level(self) -> i16 {
        self.0
    }

    /// Whether every end of a transaction raises the producer's epoch.
    #[must_use]
    pub const fn bumps_epoch(self) -> bool {
        self.0 >= 2
    }
}

/// What is known of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) producer: TransactionalProducer,
    /// The producer id before the last change of state.
    pub(super) previous_id: ProducerId,
    /// The producer id that the producer goes on with when the transaction is complete, where its epochs are used up.
    pub(super) next_id: ProducerId,
    /// The epoch before the last one, as far as whoever has it may ask again (KIP-360). Not stored.
    pub(super) last_epoch: ProducerEpoch,
    pub(super) timeout_ms: i32,
    pub(super) state: TransactionState,
    /// What the transaction has touched. Once it is prepared: what has no marker yet.
    pub(super) partitions: Arc<Partitions>,
    /// Wall clock; -1 while there was no transaction.
    pub(super) started_ms: i64,
    /// Wall clock.
    pub(super) updated_ms: i64,
    pub(super) version: ClientVersion,
}

impl Metadata {
    /// An id that nobody has had: its first producer gets epoch 0.
    pub(super) fn new(id: ProducerId, timeout_ms: i32, now_ms: i64) -> Self {
        Self {
            producer: TransactionalProducer { id, epoch: ProducerEpoch::NONE },
            previous_id: ProducerId::NONE,
            next_id: ProducerId::NONE,
            last_epoch: ProducerEpoch::NONE,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: Arc::default(),
            started_ms: NEVER_MS,
            updated_ms: now_ms,
            version: ClientVersion::V0,
        }
    }

    /// Whether no producer has been told that it has the id.
    pub(super) fn is_new(&self) -> bool {
        self.producer.epoch == ProducerEpoch::NONE
    }

    /// Whether the epochs of the producer id are used up. A client never gets the very last one, so that it can always
    /// be fenced.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.producer.epoch.get() >= i16::MAX - 1
    }

    /// Whether the open transaction has had its time.
    pub(super) const fn is_timed_out(&self, now_ms: i64) -> bool {
        matches!(self.state, TransactionState::Ongoing)
            && self.timeout_ms != NO_TIMEOUT_MS
            && self.started_ms.saturating_add(self.timeout_ms as i64) < now_ms
    }

    /// Whether nobody has used the id for `expiration_ms`, and nothing is open.
    pub(super) const fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        let is_idle = matches!(
            self.state,
            TransactionState::Empty | TransactionState::CompleteCommit | TransactionState::CompleteAbort
        );
        is_idle && self.updated_ms <= now_ms.saturating_sub(expiration_ms)
    }

    /// A changed copy, which remembers the producer id of now.
    fn changed(&self, state: TransactionState, now_ms: i64) -> Self {
        Self { previous_id: self.producer.id, state, updated_ms: now_ms, ..self.clone() }
    }

    /// A producer has the id, with `epoch`.
    pub(super) fn initialized(
        &self,
        producer: TransactionalProducer,
        last_epoch: ProducerEpoch,
        timeout_ms: i32,
        now_ms: i64,
    ) -> Self {
        Self {
            producer,
            last_epoch,
            timeout_ms,
            partitions: Arc::default(),
            started_ms: NEVER_MS,
            ..self.changed(TransactionState::Empty, now_ms)
        }
    }

    /// The transaction touches `added`, too; it begins if there is none.
    pub(super) fn with_partitions(&self, added: &Partitions, version: ClientVersion, now_ms: i64) -> Self {
        let mut next = self.changed(TransactionState::Ongoing, now_ms);
        if self.state != TransactionState::Ongoing {
            next.started_ms = now_ms;
        }
        next.version = version;
        Arc::make_mut(&mut next.partitions).extend(added);
        next
    }

    /// It is decided how the transaction ends. `next_id` is there when the producer's epochs are used up.
    pub(super) fn prepared(
        &self,
        commit: bool,
        version: ClientVersion,
        next_id: Option<ProducerId>,
        now_ms: i64,
    ) -> Self {
        let state = if commit { TransactionState::PrepareCommit } else { TransactionState::PrepareAbort };
        let mut next = self.changed(state, now_ms);
        if version.bumps_epoch() {
            next.last_epoch = self.producer.epoch;
            next.producer.epoch = ProducerEpoch::new(self.producer.epoch.get().saturating_add(1));
        }
        if self.state != TransactionState::Ongoing {
            // Nothing was begun, and yet it ends (KIP-890): a start is needed all the same.
            next.started_ms = now_ms;
        }
        next.next_id = next_id.unwrap_or(ProducerId::NONE);
        next.version = version;
        next
    }

    /// All markers of a prepared transaction are written.
    pub(super) fn completed(&self, now_ms: i64) -> Self {
        let state = if self.state == TransactionState::PrepareCommit {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        };
        let mut next = self.changed(state, now_ms);
        if self.version.bumps_epoch() && self.next_id != ProducerId::NONE {
            next.producer = TransactionalProducer { id: self.next_id, epoch: ProducerEpoch::new(0) };
        }
        next.next_id = ProducerId::NONE;
        next.partitions = Arc::default();
        next
    }
}
