//! What a link knows over a restart: a compacted topic of the target's cluster, with one partition.
//!
//! It is written in transactions under a transactional id of its own, so that a successor shuts out who wrote before
//! (R6): what is not stored may not be sent (see [`crate::Flow`]), and so a link that was taken for dead can do no more
//! than end what it had begun.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use towpath_client::{
    Client, ClientError, ConsumerConfig, ErrorCode, IsolationLevel, NewTopic, ProducerRecord, StartAt,
    TransactionConfig, TransactionalProducer,
};
use towpath_types::{Offset, TopicName, TopicPartition};

use super::{LinkConfig, LinkError};
use crate::map::OffsetMap;

/// Values that wait to be stored (R10).
const QUEUE: usize = 4096;
/// Values of one transaction.
const BATCH_MAX: usize = 1024;
/// How long reading what is stored may stand still.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts to store what could not be stored.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// What is stored of a partition.
pub(crate) const MAP: &str = "map";
/// The other.
pub(crate) const POSITION: &str = "position";
/// What is stored of a topic: the source's topic id, 16 bytes.
pub(crate) const TOPIC: &str = "topic";

/// Whose turn it is.
pub(crate) const OWNER: &str = "owner";
/// What is stored of a cluster of origin: that there is a lane for it.
pub(crate) const LANE: &str = "lane";

/// The key of what is stored of a partition.
pub(crate) fn key(what: &str, partition: &TopicPartition) -> String {
    // No topic has a colon in its name.
    format!("{what}:{}:{}", partition.topic, partition.partition)
}

/// The partition of a key, after its first word.
pub(crate) fn parse(key: &str) -> Option<TopicPartition> {
    let (topic, partition) = key.rsplit_once(':')?;
    Some(TopicPartition::new(TopicName::new(topic).ok()?, partition.parse().ok()?))
}

/// The key of what is stored of a topic.
pub(crate) fn topic_key(topic: &TopicName) -> String {
    format!("{TOPIC}:{topic}")
}

/// The name of a link's topic. MirrorMaker 2 and Towpath leave it alone.
pub(crate) fn topic_of(link: &str) -> Result<TopicName, towpath_types::InvalidName> {
    TopicName::new(&format!("towpath-mirror.{link}.internal"))
}

/// Stores values. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    queue: mpsc::Sender<Entry>,
}

#[derive(Debug)]
struct Entry {
    key: String,
    /// Nothing to forget it.
    value: Option<Bytes>,
    done: oneshot::Sender<Result<(), ClientError>>,
}

/// What was stored, by key.
pub(crate) type Stored = BTreeMap<String, Bytes>;

impl Store {
    /// Takes over the topic of a link, and reads it. The future stores what is put, up to the last clone's end.
    pub(crate) async fn start(
        client: &Client,
        link: &str,
        topic: &TopicName,
    ) -> Result<(Self, Stored, impl Future<Output = ()> + Send + 'static + use<>), ClientError> {
        create(client, topic).await?;
        let config = TransactionConfig::new(format!("towpath-mirror.{link}.state"));
        let producer = client.transactional_producer(config).await?;
        let stored = read(client, topic).await?;
        let (queue, entries) = mpsc::channel(QUEUE);
        Ok((Self { queue }, stored, write(producer, topic.clone(), entries)))
    }

    /// Stores a value, and returns once it is durable.
    pub(crate) async fn put(&self, key: String, value: Bytes) -> Result<(), ClientError> {
        self.send(key, Some(value)).await
    }

    /// Forgets a value, and returns once that is durable.
    pub(crate) async fn forget(&self, key: String) -> Result<(), ClientError> {
        self.send(key, None).await
    }

    async fn send(&self, key: String, value: Option<Bytes>) -> Result<(), ClientError> {
        let (done, answer) = oneshot::channel();
        self.queue.send(Entry { key, value, done }).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)?
    }
}

pub(crate) async fn create(client: &Client, topic: &TopicName) -> Result<(), ClientError> {
    let new = NewTopic {
        partitions: Some(1),
        configs: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        ..NewTopic::new(topic.clone())
    };
    let created = client.admin().create_topics(&[new], false).await?.remove(topic);
    match created {
        Some(Err(ClientError::Broker { code: ErrorCode::TopicAlreadyExists, .. })) | None => Ok(()),
        Some(result) => result.map(drop),
    }
}

/// The maps that a link has stored, without disturbing it.
pub(crate) async fn maps(
    config: &LinkConfig,
    target: &Client,
) -> Result<BTreeMap<TopicPartition, OffsetMap>, LinkError> {
    let topic = topic_of(&config.name).map_err(LinkError::Link)?;
    let there =
        target.admin().describe_topics(std::slice::from_ref(&topic)).await.map_err(LinkError::Target)?;
    if there.into_values().all(|described| described.is_err()) {
        return Err(LinkError::Unborn { topic });
    }
    let prefix = format!("{MAP}:");
    let mut maps = BTreeMap::new();
    for (key, bytes) in read(target, &topic).await.map_err(LinkError::state)? {
        let Some(partition) = key.strip_prefix(&prefix).and_then(parse) else { continue };
        let map = OffsetMap::decode(&bytes).map_err(|error| LinkError::Stored { what: key, error })?;
        maps.insert(partition, map);
    }
    Ok(maps)
}

/// Reads the topic to its end: whoever wrote before is shut out, so that nothing is added any more.
pub(crate) async fn read(client: &Client, topic: &TopicName) -> Result<Stored, ClientError> {
    let mut stored = Stored::new();
    read_from(client, topic, Offset::ZERO, IsolationLevel::ReadCommitted, |key, value| {
        match value {
            Some(value) => stored.insert(key.to_owned(), Bytes::copy_from_slice(value)),
            None => stored.remove(key),
        };
    })
    .await?;
    Ok(stored)
}

/// Reads a topic of one partition to the end that it has now, which is returned.
pub(crate) async fn read_from(
    client: &Client,
    topic: &TopicName,
    from: Offset,
    isolation_level: IsolationLevel,
    mut take: impl FnMut(&str, Option<&[u8]>),
) -> Result<Offset, ClientError> {
    read_bytes(client, topic, from, isolation_level, |key, value| {
        if let Ok(key) = std::str::from_utf8(key) {
            take(key, value);
        }
    })
    .await
}

/// The same, with keys of any kind. Records without one are passed over.
pub(crate) async fn read_bytes(
    client: &Client,
    topic: &TopicName,
    from: Offset,
    isolation_level: IsolationLevel,
    mut take: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<Offset, ClientError> {
    let partition = TopicPartition::new(topic.clone(), 0);
    let consumer = client.consumer(ConsumerConfig { isolation_level, ..ConsumerConfig::default() });
    let end = consumer.end_offsets(std::slice::from_ref(&partition)).await?;
    let end = end.get(&partition).copied().unwrap_or(Offset::ZERO);
    if from >= end {
        return Ok(end);
    }
    let start = if from == Offset::ZERO { StartAt::Earliest } else { StartAt::Offset(from) };
    consumer.assign(&[(partition.clone(), start)])?;
    let mut progress = tokio::time::Instant::now();
    while consumer.position(&partition).is_none_or(|position| position < end) {
        let batches = consumer.poll(Duration::from_millis(500)).await?;
        if batches.is_empty() {
            if progress.elapsed() > PATIENCE {
                let after_ms = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
                return Err(ClientError::Timeout {
                    what: "reading what the link has stored",
                    after_ms,
                    source: None,
                });
            }
            continue;
        }
        progress = tokio::time::Instant::now();
        for record in batches.iter().flat_map(|batch| batch.records()) {
            let record = record?;
            if let Some(key) = record.key {
                take(key, record.value);
            }
        }
    }
    Ok(end)
}

/// Stores what comes: everything that waits, in one transaction.
async fn write(producer: TransactionalProducer, topic: TopicName, mut entries: mpsc::Receiver<Entry>) {
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let stored = loop {
            match commit(&producer, &topic, &batch).await {
                Ok(()) => break Ok(()),
                Err(error) if error.is_fatal() => break Err(error),
                Err(error) => {
                    tracing::warn!(%topic, %error, "what the link knows could not be stored; trying again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        };
        for entry in batch.drain(..) {
            // Whoever does not wait for it any more does not need to know.
            let _ = entry.done.send(stored.clone());
        }
        if stored.is_err() {
            return;
        }
    }
}

async fn commit(
    producer: &TransactionalProducer,
    topic: &TopicName,
    batch: &[Entry],
) -> Result<(), ClientError> {
    let transaction = producer.begin().await?;
    for entry in batch {
        let record = ProducerRecord {
            partition: Some(0),
            key: Some(entry.key.as_bytes()),
            value: entry.value.as_deref(),
            ..ProducerRecord::new(topic)
        };
        transaction.send(record).await?;
    }
    transaction.commit().await
}
