//! A topic's settings, as far as its logs are concerned.

use towpath_record::{Codec, TimestampType};
use towpath_types::limits;

/// The settings of one log; the fields are Kafka's topic configs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment is closed when a record is this much younger than its first.
    pub segment_ms: i64,
    /// `segment.jitter.ms`: the largest part of `segment.ms` that a segment may be short of.
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`: the largest index of a segment.
    pub segment_index_bytes: u64,
    /// `index.interval.bytes`: how far index entries are apart.
    pub index_interval_bytes: u64,
    /// `retention.ms`; `None` for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` without bound.
    pub retention_bytes: Option<u64>,
    /// Whether `cleanup.policy` contains `delete`.
    pub delete: bool,
    /// Whether `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `delete.retention.ms`: how long a tombstone outlives the first compaction that meets it.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`.
    pub compaction_lag_ms_min: i64,
    /// `max.compaction.lag.ms`.
    pub compaction_lag_ms_max: i64,
    /// `min.cleanable.dirty.ratio`.
    pub dirty_ratio_min: f64,
    /// `max.message.bytes`.
    pub message_bytes_max: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `compression.type`; `None` keeps the producer's codec.
    pub compression: Option<Codec>,
    /// `producer.id.expiration.ms`.
    pub producer_expiration_ms: i64,
    /// Bytes of recent small batches that this log keeps in memory for readers at its end.
    pub tail_bytes: usize,
    /// Batches up to this size are kept in memory; larger ones are sent from the file, which costs as little.
    pub tail_batch_bytes_max: usize,
}

impl LogConfig {
    /// When a segment is closed: a compacted log may not leave its records in the active segment, which is not
    /// compacted, for longer than `max.compaction.lag.ms` (KIP-354).
    pub(crate) const fn segment_ms_effective(&self) -> i64 {
        let is_earlier = self.compaction_lag_ms_max > 0 && self.compaction_lag_ms_max < self.segment_ms;
        if self.compact && is_earlier { self.compaction_lag_ms_max } else { self.segment_ms }
    }
}

impl Default for LogConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: Some(7 * DAY_MS),
            retention_bytes: None,
            delete: true,
            compact: false,
            delete_retention_ms: DAY_MS,
            compaction_lag_ms_min: 0,
            compaction_lag_ms_max: i64::MAX,
            dirty_ratio_min: 0.5,
            message_bytes_max: limits::MESSAGE_BYTES_MAX_DEFAULT,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 60 * 60 * 1000,
            compression: None,
            producer_expiration_ms: DAY_MS,
            tail_bytes: 256 * 1024,
            tail_batch_bytes_max: 16 * 1024,
        }
    }
}
