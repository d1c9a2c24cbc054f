//! What can go wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use towpath_record::ValidateError;
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

use crate::disk::is_out_of_descriptors;

/// The disk or what is on it failed. To a client this is `KAFKA_STORAGE_ERROR`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// R14: a write or fsync failed before; the directory takes no more work.
    #[error("the log directory {dir} is offline: {reason}")]
    Offline {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        reason: String,
    },
    /// An operation on a file failed.
    #[error("cannot {what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's complaint.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} is corrupt: {problem}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another process works in the directory.
    #[error(
        "the data directory {0} is in use by another process; stop it, or give this one another directory"
    )]
    Locked(PathBuf),
    /// The directory belongs to another node or cluster.
    #[error("the data directory {dir} belongs to {key} {found}, not {expected}")]
    Identity {
        /// The directory.
        dir: PathBuf,
        /// Which property differs.
        key: &'static str,
        /// What the directory says.
        found: String,
        /// What this node is.
        expected: String,
    },
    /// The partition is not in the directory, or is there already.
    #[error("{0}")]
    Partition(String),
    /// The log was closed or deleted.
    #[error("the log of {0} is closed")]
    Closed(String),
    /// A compaction gave way to a truncation of the same log; nothing is lost, it begins anew another time.
    #[error("the compaction of {0} was interrupted by a truncation")]
    Interrupted(String),
}

impl LogError {
    pub(crate) fn corrupt(path: &Path, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), problem: problem.into() }
    }

    /// Whether there was no file descriptor left: nothing is wrong with the disk.
    pub(crate) fn is_out_of_descriptors(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_out_of_descriptors(source))
    }

    /// Whether the file was not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Why a batch was not appended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch itself is refused; the inner error names the protocol's code.
    #[error(transparent)]
    Invalid(#[from] ValidateError),
    /// `RECORD_LIST_TOO_LARGE`: the batch is larger than a segment may be.
    #[error("the record batch has {bytes} bytes, more than the {max} of a segment")]
    LargerThanSegment {
        /// The batch's size.
        bytes: usize,
        /// `segment.bytes`.
        max: usize,
    },
    /// `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    #[error("producer {producer_id} sent sequence {found} after {last}")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// The batch's first sequence number.
        found: i32,
        /// The last one in the log.
        last: i32,
    },
    /// `INVALID_PRODUCER_EPOCH` (R6).
    #[error("producer {producer_id} is fenced: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The batch's epoch.
        found: ProducerEpoch,
        /// The log's.
        current: ProducerEpoch,
    },
    /// `INVALID_TXN_STATE`: a record outside of transactions from a producer that has one open here.
    #[error("producer {producer_id} has a transaction open, but the batch is in none")]
    InvalidTxnState {
        /// The producer.
        producer_id: ProducerId,
    },
    /// `INVALID_TXN_STATE`: the batch would begin a transaction that was not verified with its coordinator, or that was
    /// ended since (KIP-890). Sent again, it is verified anew.
    #[error("the batch of producer {producer_id} is in no transaction that is open or verified")]
    NotVerified {
        /// The producer.
        producer_id: ProducerId,
    },
    /// `TRANSACTION_COORDINATOR_FENCED` (R6): a marker of a coordinator that another one has succeeded.
    #[error("a marker for producer {producer_id} comes from coordinator epoch {found}, older than {current}")]
    TransactionCoordinatorFenced {
        /// The producer.
        producer_id: ProducerId,
        /// The marker's coordinator epoch.
        found: i32,
        /// The newest that is in the log.
        current: i32,
    },
    /// R10: so many producers have a transaction open that no other is taken up. To a client this is temporary.
    #[error(
        "{open} producers have a transaction open in this partition, which is the most that it can remember"
    )]
    TooManyTransactions {
        /// How many.
        open: usize,
    },
    /// `NOT_LEADER_OR_FOLLOWER` (R6): the appender's leader epoch is older than the log's.
    #[error("leader epoch {found} is older than the log's {current}")]
    FencedLeaderEpoch {
        /// The appender's epoch.
        found: LeaderEpoch,
        /// The log's newest.
        current: LeaderEpoch,
    },
    /// A follower's batch does not begin where the log ends (§3.5 of KIP-101's rules).
    #[error("the fetched batch begins at {found}, but the log ends at {expected}")]
    UnexpectedOffset {
        /// The batch's base offset.
        found: Offset,
        /// The log end offset.
        expected: Offset,
    },
    /// The batch is more work than the caller allowed: it has to be appended elsewhere. The log is as it was.
    #[error("the append is more work than was allowed")]
    TooMuchWork,
    /// The partition has used up its 2⁶³ offsets.
    #[error("no offsets are left")]
    OffsetsExhausted,
    /// `KAFKA_STORAGE_ERROR`.
    #[error(transparent)]
    Storage(#[from] LogError),
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// `OFFSET_OUT_OF_RANGE`.
    #[error("offset {requested} is not within {log_start}..={log_end}")]
    OutOfRange {
        /// The offset asked for.
        requested: Offset,
        /// The log start offset.
        log_start: Offset,
        /// The log end offset.
        log_end: Offset,
    },
    /// `KAFKA_STORAGE_ERROR`.
    #[error(transparent)]
    Storage(#[from] LogError),
}
