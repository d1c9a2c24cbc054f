//! What a coordinator needs of its topic. The broker implements it.

use async_trait::async_trait;
use bytes::Bytes;
use towpath_types::{Offset, ProducerEpoch, ProducerId, Term, TopicId};
use towpath_wire::ErrorCode;

use crate::record::OffsetsRecord;

/// Why a coordinator's topic could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CoordinatorLogError {
    /// This broker does not lead the partition (any more), or not in this term.
    #[error("this broker does not lead partition {partition} of the coordinator's topic")]
    NotLeader {
        /// The partition.
        partition: i32,
    },
    /// The topic does not exist, or has no such partition.
    #[error("the coordinator's topic has no partition {partition}")]
    UnknownPartition {
        /// The partition.
        partition: i32,
    },
    /// The records do not fit into a batch that the topic allows.
    #[error("{bytes} bytes of records are more than a batch of the coordinator's topic may have")]
    TooLarge {
        /// Bytes of the records.
        bytes: usize,
    },
    /// Fewer replicas are in sync than the topic asks for.
    #[error("too few replicas of the coordinator's topic are in sync")]
    NotEnoughReplicas,
    /// The append was not committed in time; it may be committed yet.
    #[error("the append to the coordinator's topic was not committed in time")]
    TimedOut,
    /// The log refuses a part of a transaction: an older producer or coordinator has been fenced, or the transaction was not
    /// verified (R6).
    #[error("the coordinator's topic refuses a part of a transaction: {code}")]
    Refused {
        /// What the producer is told.
        code: ErrorCode,
    },
    /// A batch in the log cannot be read; nothing after it is used (R7).
    #[error("the coordinator's topic cannot be read at offset {offset}: {reason}")]
    Corrupt {
        /// Where.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// The disk, or what lies before it.
    #[error("the coordinator's topic cannot be reached")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CoordinatorLogError {
    /// What a client is told, as Kafka's `CoordinatorOperationExceptionHelper` does.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } | Self::NotEnoughReplicas | Self::TimedOut => {
                ErrorCode::CoordinatorNotAvailable
            }
            Self::NotLeader { .. } | Self::Storage(_) => ErrorCode::NotCoordinator,
            Self::Refused { code } => *code,
            Self::TooLarge { .. } | Self::Corrupt { .. } => ErrorCode::UnknownServerError,
        }
    }
}

/// Whose transaction a batch belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionalProducer {
    /// The producer.
    pub id: ProducerId,
    /// Its epoch.
    pub epoch: ProducerEpoch,
}

/// The end of a producer's transaction, as its coordinator decided it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndMarker {
    /// Whose transaction.
    pub producer: TransactionalProducer,
    /// The leader epoch of the transaction coordinator; an older one than a partition has seen is refused.
    pub coordinator_epoch: i32,
    /// Whether it was committed.
    pub commit: bool,
    /// Whether the coordinator raises the producer's epoch with every transaction (`transaction.version` 2, KIP-890).
    pub bumps_epoch: bool,
}

/// What is appended in one piece.
#[derive(Debug, Clone, Copy)]
pub enum CoordinatorBatch<'a> {
    /// Records, within a transaction if there is a producer.
    Records {
        /// At least one.
        records: &'a [OffsetsRecord],
        /// Whose transaction they belong to.
        producer: Option<TransactionalProducer>,
    },
    /// The end of a transaction.
    Marker(EndMarker),
}

/// What stands in a coordinator's topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedEntry {
    /// A record.
    Record {
        /// Where it stands.
        offset: Offset,
        /// The key; every record of the topic has one.
        key: Option<Bytes>,
        /// The value; `None` is a tombstone.
        value: Option<Bytes>,
        /// Whose transaction it belongs to; it counts when that is committed.
        producer: Option<TransactionalProducer>,
    },
    /// The end of a transaction.
    Marker {
        /// Where it stands.
        offset: Offset,
        /// Whose.
        producer: TransactionalProducer,
        /// Whether it was committed.
        commit: bool,
    },
}

/// A stretch of a partition of a coordinator's topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedChunk {
    /// What stands there, in offset order.
    pub entries: Vec<LoadedEntry>,
    /// Where to read on.
    pub next_offset: Offset,
    /// Whether this reaches the end of the log, as it was when the read began.
    pub at_end: bool,
}

/// The topic in which a coordinator keeps what it knows: `__consumer_offsets`, `__transaction_state`. Whoever leads a
/// partition of it coordinates what belongs there.
///
/// All that is read and written belongs to one [`Term`]: R6, what a coordinator decided is not written once somebody else
/// may have decided otherwise.
#[async_trait]
pub trait CoordinatorLog: Send + Sync + 'static {
    /// How many partitions the topic has; `None` while there is no such topic.
    fn partition_count(&self) -> Option<i32>;

    /// Makes sure that the topic is there or on its way: compacted, with the configured number of partitions. It
    /// may still be missing right after this returns; clients are told to try again.
    ///
    /// # Errors
    /// When it cannot be created.
    async fn ensure_topic(&self) -> Result<(), CoordinatorLogError>;

    /// Bytes that a batch of `partition` may have, as the topic is configured now (`max.message.bytes`, `segment.bytes`).
    fn batch_bytes_max(&self, partition: i32) -> usize;

    /// The term in which this broker leads `partition`; `None` while it does not.
    fn term(&self, partition: i32) -> Option<Term>;

    /// Appends a batch to `partition`, and returns once it is committed as the topic's policy asks (in sync, and
    /// flushed where that is asked for). The coordinator has at most one append of a partition in flight and collects
    /// what comes meanwhile, so that many commits share one fsync.
    ///
    /// # Errors
    /// Within a bounded time, when the batch is not committed; [`CoordinatorLogError::NotLeader`] when the term has
    /// ended. The future is never dropped half way.
    async fn append(
        &self,
        partition: i32,
        term: Term,
        batch: CoordinatorBatch<'_>,
    ) -> Result<(), CoordinatorLogError>;

    /// Reads `partition` from `from` on (the log's start when that is later), up to the log end and about
    /// `bytes_max` bytes, but at least one record if there is one.
    ///
    /// # Errors
    /// When the partition cannot be read; a corrupt batch is an error, never a gap (R7).
    async fn read(
        &self,
        partition: i32,
        term: Term,
        from: Offset,
        bytes_max: usize,
    ) -> Result<LoadedChunk, CoordinatorLogError>;

    /// Whether the cluster has a topic, as far as is known here.
    fn has_topic(&self, _topic: TopicId) -> bool {
        true
    }

    /// Returns once all before `end` is committed: what a new leader has of the last one's writes may be cut off yet if
    /// this one dies (R3).
    ///
    /// # Errors
    /// [`CoordinatorLogError::NotLeader`] when the term has ended; the disk.
    async fn committed(&self, partition: i32, term: Term, end: Offset) -> Result<(), CoordinatorLogError>;
}
