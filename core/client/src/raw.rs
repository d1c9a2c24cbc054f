//! Whole record batches in and out, without decompressing them: for mirroring.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicPartition};

use crate::client::ClientInner;
use crate::{Acks, ClientError, IsolationLevel};

/// Fetches and produces whole record batches; cheap to clone.
#[derive(Debug, Clone)]
pub struct RawClient {
    #[allow(dead_code)]
    client: Arc<ClientInner>,
}

/// What to fetch, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct RawFetch {
    /// The partitions and the offsets to begin at.
    pub partitions: Vec<(TopicPartition, Offset)>,
    /// How long the brokers wait for `bytes_min`.
    pub wait_max: Duration,
    /// Bytes for which the brokers wait.
    pub bytes_min: usize,
    /// Bytes of the whole answer of one broker (a single larger batch is returned nevertheless).
    pub bytes_max: usize,
    /// Bytes of one partition.
    pub partition_bytes_max: usize,
    /// The visibility of transactional records.
    pub isolation_level: IsolationLevel,
}

/// The batches of one partition.
#[derive(Debug, Clone)]
pub struct RawFetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The topic's id; zero when the cluster has none.
    pub topic_id: TopicId,
    /// Whole record batches, one after the other; the first may begin below the offset asked for, and the last may be
    /// cut short. See `towpath_record::batches`.
    pub batches: Bytes,
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset, if the broker tells.
    pub last_stable_offset: Option<Offset>,
    /// The first offset of the log, if the broker tells.
    pub log_start_offset: Option<Offset>,
}

/// Where a produced batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawProduced {
    /// The offset of its first record; −1 with `acks=0`.
    pub base_offset: Offset,
    /// The append time (ms), if the topic stamps appends.
    pub log_append_time_ms: Option<i64>,
    /// The leader's epoch as the client knew it.
    pub leader_epoch: LeaderEpoch,
}

impl RawClient {
    pub(crate) fn new(client: Arc<ClientInner>) -> Self {
        Self { client }
    }

    /// Fetches once from every broker that leads one of the partitions. Nothing is retried: a partition's error is
    /// beside it.
    ///
    /// # Errors
    /// When no broker could be asked at all.
    pub async fn fetch(
        &self,
        _fetch: &RawFetch,
    ) -> Result<Vec<(TopicPartition, Result<RawFetched, ClientError>)>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Appends one whole record batch to each of the partitions, as it is. Nothing is retried.
    ///
    /// # Errors
    /// When no broker could be asked at all.
    pub async fn produce(
        &self,
        _batches: Vec<(TopicPartition, Bytes)>,
        _acks: Acks,
    ) -> Result<Vec<(TopicPartition, Result<RawProduced, ClientError>)>, ClientError> {
        Err(ClientError::Closed)
    }
}
