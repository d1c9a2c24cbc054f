//! A pipeline as the runtime runs it: plain data that a configuration has been turned into, all of it validated.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use towpath_types::{InvalidName, TopicName};

use super::config::{ConfigProblems, RawConfig};
use super::names::{DEAD_LETTER_SUFFIX, TopicPattern, TopicTemplate, encode_part};
use super::sink::SinkConnector;
use super::source::SourceConnector;
use super::transform::{Transform, TransformFactory};

/// A pipeline: a source and a topic, topics and a sink, or all three (source → topic → sink, which runs as two
/// halves with the topic between them).
#[derive(Debug, Clone)]
pub struct PipelineSpec {
    /// Its name, unique in a configuration and stable across restarts: stored offsets belong to it.
    pub name: String,
    /// The identity of the configuration (SHA-256 over its normal form): workers tell by it whether they run the
    /// same.
    pub content_hash: [u8; 32],
    /// What brings records in.
    pub source: Option<SourceSpec>,
    /// What changes them, in order. Where there is a source, on the way into the topic; otherwise on the way out.
    pub transforms: Vec<TransformSpec>,
    /// Where a source's records go.
    pub topic: Option<TopicTemplate>,
    /// What a sink reads; empty in a pipeline with a source, whose sink reads what [`PipelineSpec::topic`] makes.
    pub topics: Vec<TopicPattern>,
    /// What carries records out.
    pub sink: Option<SinkSpec>,
    /// How records are written and read.
    pub format: FormatSpec,
    /// Where records go that cannot be processed.
    pub dead_letter: DeadLetterSpec,
    /// Whether a delete is followed by a record with a null value, so that compaction forgets the key.
    pub tombstones: bool,
    /// How topics are created that do not exist yet.
    pub new_topics: NewTopicSpec,
    /// How record batches are compressed on their way into the topic.
    pub compression: Compression,
    /// How a failed task is restarted.
    pub retry: RetrySpec,
    /// Whether the tasks start paused.
    pub paused: bool,
}

impl PipelineSpec {
    /// A pipeline called `name` with nothing in it and the defaults everywhere.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            content_hash: [0; 32],
            source: None,
            transforms: Vec::new(),
            topic: None,
            topics: Vec::new(),
            sink: None,
            format: FormatSpec::default(),
            dead_letter: DeadLetterSpec::default(),
            tombstones: true,
            new_topics: NewTopicSpec::default(),
            compression: Compression::default(),
            retry: RetrySpec::default(),
            paused: false,
        }
    }

    /// What the sink reads: `topics`, or whatever `topic` can render.
    #[must_use]
    pub fn sink_topics(&self) -> Vec<TopicPattern> {
        if self.topics.is_empty() {
            self.topic.iter().map(TopicTemplate::pattern).collect()
        } else {
            self.topics.clone()
        }
    }

    /// The dead-letter topic: the one given, or `<pipeline>.dead-letter`.
    ///
    /// # Errors
    /// When the pipeline's name is too long for a topic's.
    pub fn dead_letter_topic(&self) -> Result<TopicName, InvalidName> {
        match &self.dead_letter.topic {
            Some(topic) => Ok(topic.clone()),
            None => TopicName::new(&format!("{}{DEAD_LETTER_SUFFIX}", encode_part(&self.name))),
        }
    }

    /// The consumer group under which the sink half's positions are committed: `towpath.<pipeline>`.
    #[must_use]
    pub fn group(&self) -> String {
        format!("towpath.{}", self.name)
    }
}

/// A configured source.
#[derive(Clone)]
pub struct SourceSpec {
    /// `type:` in the YAML.
    pub kind: String,
    /// The connector.
    pub connector: Arc<dyn SourceConnector>,
    /// How many tasks it may split its work into.
    pub tasks_max: NonZeroU32,
}

impl fmt::Debug for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceSpec({}, {} tasks)", self.kind, self.tasks_max)
    }
}

/// A configured sink.
#[derive(Clone)]
pub struct SinkSpec {
    /// `type:` in the YAML.
    pub kind: String,
    /// The connector.
    pub connector: Arc<dyn SinkConnector>,
    /// How many tasks its partitions may be split over.
    pub tasks_max: NonZeroU32,
    /// How long accepted records may wait for a flush.
    pub flush_interval: Duration,
    /// Bytes accepted after which a flush is due.
    pub flush_bytes: usize,
}

impl SinkSpec {
    /// A sink of type `kind` with one task and the defaults.
    #[must_use]
    pub fn new(kind: impl Into<String>, connector: Arc<dyn SinkConnector>) -> Self {
        Self {
            kind: kind.into(),
            connector,
            tasks_max: NonZeroU32::MIN,
            flush_interval: Duration::from_secs(1),
            flush_bytes: 16 * 1024 * 1024,
        }
    }
}

impl fmt::Debug for SinkSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SinkSpec({}, {} tasks)", self.kind, self.tasks_max)
    }
}

/// A configured transform: every task builds its own instance.
#[derive(Clone)]
pub struct TransformSpec {
    /// `type:` in the YAML.
    pub kind: String,
    /// What builds it.
    pub factory: Arc<dyn TransformFactory>,
    /// Its options, which [`TransformFactory::parse`] has already accepted once.
    pub config: RawConfig,
}

impl TransformSpec {
    /// A new instance.
    ///
    /// # Errors
    /// None, if the options were validated before.
    pub fn build(&self) -> Result<Box<dyn Transform>, ConfigProblems> {
        self.factory.parse(&self.config)
    }
}

impl fmt::Debug for TransformSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TransformSpec({}, {:?})", self.kind, self.config)
    }
}

/// How keys and values are written and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FormatSpec {
    /// Keys.
    pub key: FormatKind,
    /// Values.
    pub value: FormatKind,
}

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatKind {
    /// JSON.
    Json(JsonSchemas),
    /// The bytes of a bare row, verbatim.
    Raw,
}

impl Default for FormatKind {
    fn default() -> Self {
        Self::Json(JsonSchemas::Id)
    }
}

/// Where the schema of a JSON record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JsonSchemas {
    /// In the schemas topic, under the id in the header `towpath.schema`.
    #[default]
    Id,
    /// In the record: Connect's `{"schema":…,"payload":…}`.
    Inline,
    /// Nowhere: readers infer it.
    None,
}

/// A codec of record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// Gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What becomes of records that cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterSpec {
    /// Whether they go to the dead-letter topic; otherwise the task fails at the record.
    pub enabled: bool,
    /// The topic, if not `<pipeline>.dead-letter`.
    pub topic: Option<TopicName>,
}

impl Default for DeadLetterSpec {
    fn default() -> Self {
        Self { enabled: true, topic: None }
    }
}

/// How a pipeline's topics are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopicSpec {
    /// Partitions. More than one gives up the order between records of different keys.
    pub partitions: i32,
    /// Replicas; `None` is the cluster's default.
    pub replication_factor: Option<i16>,
    /// Topic configs. Unless it is set here, `retention.ms` is −1: changes are not forgotten silently.
    pub configs: BTreeMap<String, String>,
}

impl Default for NewTopicSpec {
    fn default() -> Self {
        Self { partitions: 1, replication_factor: None, configs: BTreeMap::new() }
    }
}

/// When a failed task is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetrySpec {
    /// The first wait; it doubles with every failure that follows without progress, with jitter.
    pub delay_min: Duration,
    /// The longest wait.
    pub delay_max: Duration,
    /// How often a task that needs an operator looks whether somebody has acted.
    pub probe: Duration,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(200),
            delay_max: Duration::from_secs(30),
            probe: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_knows_its_topics() {
        let mut spec = PipelineSpec::new("shop");
        spec.topic = Some(TopicTemplate::parse("shop.{schema}.{table}").unwrap());
        assert_eq!(spec.sink_topics()[0].as_str(), "shop.*.*");
        assert_eq!(spec.dead_letter_topic().unwrap().as_str(), "shop.dead-letter");
        assert_eq!(spec.group(), "towpath.shop");
        spec.topics = vec![TopicPattern::parse("other").unwrap()];
        assert_eq!(spec.sink_topics()[0].as_str(), "other");
        assert!(PipelineSpec::new("x".repeat(300)).dead_letter_topic().is_err());
    }
}
