//! Whether the target has what the source has: both are read, record by record, and compared by the link's map.

mod compare;

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use towpath_client::{
    Client, ClientError, ConfigResource, Consumer, ConsumerConfig, IsolationLevel, Record, StartAt,
};
use towpath_types::{Offset, TopicName, TopicPartition};

pub use compare::{Difference, Range};

use crate::link::{LinkConfig, LinkError, maps};
use crate::map::OffsetMap;
pub(crate) use compare::Hashed;
use compare::{Allowed, Compare, Take};

/// How long a side may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// One partition that was compared.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// The source's topic.
    pub topic: String,
    /// Which of its partitions.
    pub partition: i32,
    /// The target's topic.
    pub target: String,
    /// The source's offset up to which was compared: what the link had stored last.
    pub through: i64,
    /// Records that both sides have, and that are equal.
    pub records: u64,
    /// Records that only one side has any more (retention, compaction), that others wrote, or whose place is not known any
    /// more: they were not compared.
    pub passed_over: u64,
    /// The hashes of what was compared, in ranges.
    pub ranges: Vec<Range>,
    /// Where the sides begin to differ.
    pub difference: Option<Difference>,
}

/// Compares everything that a link has mirrored, partition by partition, and tells each as it is done. It may run meanwhile,
/// and in another process.
///
/// # Errors
/// [`LinkError`]: a cluster does not answer, or what the link has stored cannot be read.
pub async fn verify(config: &LinkConfig, mut tell: impl FnMut(Verified)) -> Result<(), LinkError> {
    let source = Client::connect(config.source.clone()).await.map_err(LinkError::Source)?;
    let target = Client::connect(config.target.clone()).await.map_err(LinkError::Target)?;
    for (from, map) in maps(config, &target).await? {
        let to = TopicPartition::new(config.naming.target(&config.from, &from.topic)?, from.partition);
        tell(partition(config, (&source, &from), (&target, &to), map).await?);
    }
    Ok(())
}

async fn partition(
    config: &LinkConfig,
    (source, from): (&Client, &TopicPartition),
    (target, to): (&Client, &TopicPartition),
    map: OffsetMap,
) -> Result<Verified, LinkError> {
    let here = Settings::of(source, &from.topic).await.map_err(LinkError::Source)?;
    let there = Settings::of(target, &to.topic).await.map_err(LinkError::Target)?;
    let allowed = Allowed { compacted: here.compacted || there.compacted, shared: config.is_shared() };
    let stamps = !here.stamped && !there.stamped;
    let (through, begin, end) = (map.through(), map.begin(), map.target_end());
    let mut ours = Reader::new(source, from, (begin.0, through), stamps).await.map_err(LinkError::Source)?;
    let mut theirs = Reader::new(target, to, (begin.1, end), stamps).await.map_err(LinkError::Target)?;
    let mut compare = Compare::new(map, allowed, theirs.start);
    loop {
        let one = ours.peek().await.map_err(LinkError::Source)?;
        let other = theirs.peek().await.map_err(LinkError::Target)?;
        let Some(take) = compare.step(one.as_ref(), other.as_ref()) else { break };
        if take != Take::Target {
            ours.take();
        }
        if take != Take::Source {
            theirs.take();
        }
    }
    compare.close();
    Ok(Verified {
        topic: from.topic.to_string(),
        partition: from.partition,
        target: to.topic.to_string(),
        through: through.get(),
        records: compare.records,
        passed_over: compare.passed_over,
        ranges: compare.ranges,
        difference: compare.difference,
    })
}

/// What a topic's settings say of what may differ.
#[derive(Debug, Clone, Copy, Default)]
struct Settings {
    compacted: bool,
    /// Its broker says when a record was written.
    stamped: bool,
}

impl Settings {
    async fn of(client: &Client, topic: &TopicName) -> Result<Self, ClientError> {
        let resource = ConfigResource::Topic(topic.clone());
        let described = client.admin().describe_configs(&[resource]).await?;
        let entries = described.into_values().next().unwrap_or(Ok(Vec::new()))?;
        let value = |name: &str| entries.iter().find(|entry| entry.name == name)?.value.as_deref();
        Ok(Self {
            compacted: value("cleanup.policy").is_some_and(|policy| policy.contains("compact")),
            stamped: value("message.timestamp.type") == Some("LogAppendTime"),
        })
    }
}

/// Reads a stretch of a partition, as far as it is there.
pub(crate) struct Reader {
    consumer: Consumer,
    partition: TopicPartition,
    /// Where the partition begins now.
    pub(crate) earliest: Offset,
    start: Offset,
    end: Offset,
    stamps: bool,
    queue: VecDeque<Hashed>,
}

impl Reader {
    pub(crate) async fn new(
        client: &Client,
        partition: &TopicPartition,
        (from, end): (Offset, Offset),
        stamps: bool,
    ) -> Result<Self, ClientError> {
        let config =
            ConsumerConfig { isolation_level: IsolationLevel::ReadCommitted, ..ConsumerConfig::default() };
        let consumer = client.consumer(config);
        let starts = consumer.beginning_offsets(std::slice::from_ref(partition)).await?;
        let earliest = starts.get(partition).copied().unwrap_or(Offset::ZERO);
        let start = earliest.max(from);
        consumer.assign(&[(partition.clone(), StartAt::Offset(start))])?;
        Ok(Self {
            consumer,
            partition: partition.clone(),
            earliest,
            start,
            end,
            stamps,
            queue: VecDeque::new(),
        })
    }

    /// The next record, without taking it.
    pub(crate) async fn peek(&mut self) -> Result<Option<Hashed>, ClientError> {
        let mut progress = tokio::time::Instant::now();
        while self.queue.is_empty() {
            if self.consumer.position(&self.partition).is_some_and(|position| position >= self.end) {
                return Ok(None);
            }
            let batches = self.consumer.poll(Duration::from_millis(500)).await?;
            if !batches.is_empty() {
                progress = tokio::time::Instant::now();
            } else if progress.elapsed() > PATIENCE {
                let after_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
                return Err(ClientError::Timeout {
                    what: "reading what was mirrored",
                    after_ms,
                    source: None,
                });
            }
            for record in batches.iter().flat_map(|batch| batch.records()) {
                let record = record?;
                if record.offset < self.end {
                    let hash = hash(&record, self.stamps);
                    self.queue.push_back(Hashed { offset: record.offset, hash });
                }
            }
        }
        Ok(self.queue.front().copied())
    }
}

impl Reader {
    /// Takes the next record, which was looked at.
    pub(crate) fn take(&mut self) {
        self.queue.pop_front();
    }
}

/// What a record says; lengths keep its parts apart.
fn hash(record: &Record<'_>, stamps: bool) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: Option<&[u8]>| {
        let length = bytes.map_or(-1, |bytes| i64::try_from(bytes.len()).unwrap_or(i64::MAX));
        hash.update(length.to_be_bytes());
        hash.update(bytes.unwrap_or_default());
    };
    if stamps {
        part(Some(&record.timestamp_ms.to_be_bytes()));
    }
    part(record.key);
    part(record.value);
    for header in record.headers {
        part(Some(header.key));
        part(header.value);
    }
    hash.finalize().into()
}
