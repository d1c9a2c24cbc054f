//! What the coordinator needs of the offsets topic. The broker implements it.

use async_trait::async_trait;
use bytes::Bytes;
use towpath_types::Offset;
use towpath_wire::ErrorCode;

use crate::record::OffsetsRecord;

/// Why the offsets topic could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OffsetsLogError {
    /// This broker does not lead the partition (any more).
    #[error("this broker does not lead partition {partition} of the offsets topic")]
    NotLeader {
        /// The partition.
        partition: i32,
    },
    /// The topic does not exist, or has no such partition.
    #[error("the offsets topic has no partition {partition}")]
    UnknownPartition {
        /// The partition.
        partition: i32,
    },
    /// The records do not fit into a batch that the topic allows.
    #[error("{bytes} bytes of records are more than a batch of the offsets topic may have")]
    TooLarge {
        /// Bytes of the records.
        bytes: usize,
    },
    /// Fewer replicas are in sync than the topic asks for.
    #[error("too few replicas of the offsets topic are in sync")]
    NotEnoughReplicas,
    /// The append was not committed in time; it may be committed yet.
    #[error("the append to the offsets topic was not committed in time")]
    TimedOut,
    /// A batch in the log cannot be read; nothing after it is used (R7).
    #[error("the offsets topic cannot be read at offset {offset}: {reason}")]
    Corrupt {
        /// Where.
        offset: i64,
        /// Why.
        reason: String,
    },
    /// The disk, or what lies before it.
    #[error("the offsets topic cannot be reached")]
    Storage(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl OffsetsLogError {
    /// What a client is told, as Kafka's `CoordinatorOperationExceptionHelper` does.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self {
            Self::UnknownPartition { .. } | Self::NotEnoughReplicas | Self::TimedOut => {
                ErrorCode::CoordinatorNotAvailable
            }
            Self::NotLeader { .. } | Self::Storage(_) => ErrorCode::NotCoordinator,
            Self::TooLarge { .. } | Self::Corrupt { .. } => ErrorCode::UnknownServerError,
        }
    }
}

/// A record as it stands in the offsets topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// Where it stands.
    pub offset: Offset,
    /// The key; every record of the topic has one.
    pub key: Option<Bytes>,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

/// A stretch of a partition of the offsets topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedChunk {
    /// Records in offset order; control records are left out.
    pub records: Vec<StoredRecord>,
    /// Where to read on.
    pub next_offset: Offset,
    /// Whether this reaches the end of the log, as it was when the read began.
    pub at_end: bool,
}

/// The offsets topic, `__consumer_offsets`.
#[async_trait]
pub trait OffsetsLog: Send + Sync + 'static {
    /// How many partitions the topic has; `None` while there is no such topic.
    fn partition_count(&self) -> Option<i32>;

    /// Makes sure that the topic is there or on its way: compacted, with the configured number of partitions. It
    /// may still be missing right after this returns; clients are told to try again.
    ///
    /// # Errors
    /// When it cannot be created.
    async fn ensure_topic(&self) -> Result<(), OffsetsLogError>;

    /// Whether this broker leads `partition`, and thus coordinates its groups.
    fn is_leader(&self, partition: i32) -> bool;

    /// Appends `records` to `partition` as one batch, and returns once they are committed as the topic's policy
    /// asks (in sync, and flushed where that is asked for). The coordinator has at most one append of a partition
    /// in flight and collects what comes meanwhile, so that many commits share one fsync.
    ///
    /// # Errors
    /// Within a bounded time, when the records are not committed. The future is never dropped half way.
    async fn append(&self, partition: i32, records: &[OffsetsRecord]) -> Result<(), OffsetsLogError>;

    /// Reads `partition` from `from` on (the log's start when that is later), up to the log end and about
    /// `bytes_max` bytes, but at least one record if there is one.
    ///
    /// # Errors
    /// When the partition cannot be read; a corrupt batch is an error, never a gap (R7).
    async fn read(
        &self,
        partition: i32,
        from: Offset,
        bytes_max: usize,
    ) -> Result<LoadedChunk, OffsetsLogError>;
}
