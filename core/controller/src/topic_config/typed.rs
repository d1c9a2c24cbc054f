//! The configurations of one topic as typed values.

use std::collections::BTreeMap;

use towpath_record::{Codec, Compression, TimestampType};

use super::{ConfigProblem, ThrottledReplicas, check, key, list, unknown};

/// What becomes of old segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// The newest record of every key is kept.
    pub compact: bool,
    /// Old segments are dropped.
    pub delete: bool,
}

/// The codec in which batches are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// What the producer chose.
    Producer,
    /// This one, whatever the producer chose.
    Codec(Codec),
}

/// The configurations of one topic, defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy`.
    pub cleanup_policy: CleanupPolicy,
    /// `compression.type` with its level.
    pub compression: TopicCompression,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `flush.messages`.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `follower.replication.throttled.replicas`.
    pub follower_throttled: ThrottledReplicas,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `leader.replication.throttled.replicas`.
    pub leader_throttled: ThrottledReplicas,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `retention.bytes`; -1 for no limit.
    pub retention_bytes: i64,
    /// `retention.ms`; -1 for no limit.
    pub retention_ms: i64,
    /// `segment.bytes`.
    pub segment_bytes: i32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: i32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

/// Looks values up: the topic's, else the broker's, else the declared default.
struct Values<'a> {
    topic: &'a BTreeMap<String, String>,
    broker: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn get(&self, name: &'static str) -> Result<&str, ConfigProblem> {
        let key = key(name).ok_or_else(|| unknown(name))?;
        match self.topic.get(name).or_else(|| self.broker.get(name)) {
            Some(value) => {
                check(name, value)?;
                Ok(value.trim())
            }
            None => Ok(key.default),
        }
    }

    fn replicas(&self, name: &'static str) -> Result<ThrottledReplicas, ConfigProblem> {
        Ok(ThrottledReplicas::read(self.get(name)?).unwrap_or_default())
    }

    fn number<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, ConfigProblem> {
        let value = self.get(name)?;
        value.parse().map_err(|_| ConfigProblem::Value {
            name,
            value: value.to_owned(),
            problem: "it must be a number".to_owned(),
        })
    }
}

impl TopicConfig {
    /// The configurations of a topic with these overrides, on a broker with these defaults (both by the names of
    /// the topic configurations).
    ///
    /// # Errors
    /// [`ConfigProblem`] for a value that is not valid; unknown names are left to [`check`].
    pub fn resolve(
        topic: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigProblem> {
        let values = Values { topic, broker };
        let policy = values.get("cleanup.policy")?;
        let min_compaction_lag_ms: i64 = values.number("min.compaction.lag.ms")?;
        let max_compaction_lag_ms: i64 = values.number("max.compaction.lag.ms")?;
        if min_compaction_lag_ms > max_compaction_lag_ms {
            return Err(ConfigProblem::Value {
                name: "min.compaction.lag.ms",
                value: min_compaction_lag_ms.to_string(),
                problem: format!("it must not be more than max.compaction.lag.ms ({max_compaction_lag_ms})"),
            });
        }
        Ok(Self {
            cleanup_policy: CleanupPolicy {
                compact: list(policy).any(|policy| policy == "compact"),
                delete: list(policy).any(|policy| policy == "delete"),
            },
            compression: compression(&values)?,
            delete_retention_ms: values.number("delete.retention.ms")?,
            file_delete_delay_ms: values.number("file.delete.delay.ms")?,
            flush_messages: values.number("flush.messages")?,
            flush_ms: values.number("flush.ms")?,
            follower_throttled: values.replicas("follower.replication.throttled.replicas")?,
            index_interval_bytes: values.number("index.interval.bytes")?,
            leader_throttled: values.replicas("leader.replication.throttled.replicas")?,
            max_compaction_lag_ms,
            max_message_bytes: values.number("max.message.bytes")?,
            timestamp_after_max_ms: values.number("message.timestamp.after.max.ms")?,
            timestamp_before_max_ms: values.number("message.timestamp.before.max.ms")?,
            timestamp_type: match values.get("message.timestamp.type")? {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_cleanable_dirty_ratio: values.number("min.cleanable.dirty.ratio")?,
            min_compaction_lag_ms,
            min_insync_replicas: values.number("min.insync.replicas")?,
            retention_bytes: values.number("retention.bytes")?,
            retention_ms: values.number("retention.ms")?,
            segment_bytes: values.number("segment.bytes")?,
            segment_index_bytes: values.number("segment.index.bytes")?,
            segment_jitter_ms: values.number("segment.jitter.ms")?,
            segment_ms: values.number("segment.ms")?,
            unclean_leader_election: values
                .get("unclean.leader.election.enable")?
                .eq_ignore_ascii_case("true"),
        })
    }
}

fn compression(values: &Values<'_>) -> Result<TopicCompression, ConfigProblem> {
    let name = values.get("compression.type")?;
    let Some(compression) = Compression::from_name(name) else { return Ok(TopicCompression::Producer) };
    let level = match compression {
        Compression::Gzip => match values.number("compression.gzip.level")? {
            -1 => None,
            level => Some(level),
        },
        Compression::Lz4 => Some(values.number("compression.lz4.level")?),
        Compression::Zstd => Some(values.number("compression.zstd.level")?),
        Compression::None | Compression::Snappy => None,
    };
    Ok(TopicCompression::Codec(Codec { compression, level }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_topic_wins_over_the_broker_and_the_broker_over_the_default() {
        let (topic, broker) =
            (map(&[("retention.ms", " 5 ")]), map(&[("retention.ms", "7"), ("segment.ms", "9")]));
        let config = TopicConfig::resolve(&topic, &broker).unwrap();
        assert_eq!((config.retention_ms, config.segment_ms, config.retention_bytes), (5, 9, -1));
    }

    #[test]
    fn texts_become_types() {
        let topic = map(&[
            ("cleanup.policy", "compact,delete"),
            ("compression.type", "gzip"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        let config = TopicConfig::resolve(&topic, &BTreeMap::new()).unwrap();
        assert_eq!(config.cleanup_policy, CleanupPolicy { compact: true, delete: true });
        assert_eq!(config.compression, TopicCompression::Codec(Compression::Gzip.into()));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert!(TopicConfig::resolve(&map(&[("retention.ms", "x")]), &BTreeMap::new()).is_err());
        let lags = map(&[("min.compaction.lag.ms", "7"), ("max.compaction.lag.ms", "6")]);
        assert!(TopicConfig::resolve(&lags, &BTreeMap::new()).is_err());
    }
}
