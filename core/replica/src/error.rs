//! Why a partition could not do what it was asked.

use towpath_log::{AppendError, LogError, ReadError};
use towpath_types::{LeaderEpoch, Offset};

use crate::FollowerRefused;

/// Why a partition could not do what it was asked; each variant names the protocol's error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionError {
    /// `NOT_LEADER_OR_FOLLOWER`.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// `FENCED_LEADER_EPOCH` (R6): the client's epoch is older.
    #[error("the client's leader epoch {found} is older than {current}")]
    FencedLeaderEpoch {
        /// The client's.
        found: LeaderEpoch,
        /// The partition's.
        current: LeaderEpoch,
    },
    /// `UNKNOWN_LEADER_EPOCH`: the client's epoch is newer.
    #[error("the client's leader epoch {found} is newer than {current}")]
    UnknownLeaderEpoch {
        /// The client's.
        found: LeaderEpoch,
        /// The partition's.
        current: LeaderEpoch,
    },
    /// `NOT_ENOUGH_REPLICAS`: nothing was appended.
    #[error("{in_sync} replica(s) are in sync, {needed} are needed")]
    NotEnoughReplicas {
        /// Replicas in sync.
        in_sync: usize,
        /// Replicas needed.
        needed: usize,
    },
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
    /// `OFFSET_NOT_AVAILABLE`: a new leader has not committed the records of its predecessors yet.
    #[error("the high watermark has not reached the leader epoch's start yet")]
    OffsetNotAvailable,
    /// `UNKNOWN_LEADER_EPOCH` or `NOT_LEADER_OR_FOLLOWER`: a fetch of a follower that is none here.
    #[error(transparent)]
    Follower(FollowerRefused),
    /// The batch was refused.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// `KAFKA_STORAGE_ERROR`.
    #[error(transparent)]
    Storage(#[from] LogError),
    /// `KAFKA_STORAGE_ERROR`: the log directory failed (R14).
    #[error("the log directory is offline: {0}")]
    Offline(String),
    /// `UNKNOWN_TOPIC_OR_PARTITION`: the partition was deleted meanwhile.
    #[error("the partition was deleted")]
    Deleted,
}

impl From<ReadError> for PartitionError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::OutOfRange { requested, log_start, log_end } => {
                Self::OutOfRange { requested, log_start, log_end }
            }
            ReadError::Storage(error) => Self::Storage(error),
            other => Self::Offline(other.to_string()),
        }
    }
}
