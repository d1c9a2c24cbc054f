//! Whole record batches in and out, without decompressing them: for mirroring.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::sync::oneshot;
use towpath_record::edit;
use towpath_types::{LeaderEpoch, Offset, ProducerId, TopicId, TopicPartition};
use towpath_wire::ApiKey;
use towpath_wire::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use towpath_wire::messages::produce::{
    PartitionProduceData, ProduceRequest, TopicProduceData, TopicProduceResponse,
};

use crate::client::{Channel, ClientInner, check};
use crate::connection::{Connection, InFlight};
use crate::producer::{Fence, Fenced};
use crate::{Acks, ClientError, IsolationLevel};

/// Fetches and produces whole record batches; cheap to clone.
#[derive(Debug, Clone)]
pub struct RawClient {
    client: Arc<ClientInner>,
    channel: Arc<Channel>,
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
    /// For [`IsolationLevel::ReadCommitted`]: what is among the batches and was aborted. Transactional batches of such
    /// a producer do not count from the offset on, until its next ABORT marker.
    pub aborted: Vec<AbortedTransaction>,
}

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// The producer.
    pub producer_id: ProducerId,
    /// The offset of its first record.
    pub first_offset: Offset,
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

/// What is asked of one broker.
type Fetches = Vec<(TopicPartition, Offset, i32, TopicId)>;
type FetchResults = Vec<(TopicPartition, Result<RawFetched, ClientError>)>;
type ProduceResults = Vec<(TopicPartition, Result<RawProduced, ClientError>)>;

/// A batch for one broker, with the leader epoch and the topic's id.
type Produces = Vec<(TopicPartition, Bytes, i32, TopicId)>;

/// The last versions that name topics; the next have their ids.
const FETCH_VERSION_NAMES: i16 = 12;
const PRODUCE_VERSION_NAMES: i16 = 12;

impl RawClient {
    pub(crate) fn new(client: Arc<ClientInner>) -> Self {
        Self { channel: Arc::new(client.channel()), client }
    }

    /// Fetches once from every broker that leads one of the partitions. Nothing is retried: a partition's error is
    /// beside it, and after one that says that leaders moved, the next call asks for the new ones. A clone of the
    /// client shares its connections: for fetches that wait, take another `RawClient`.
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn fetch(&self, fetch: &RawFetch) -> Result<FetchResults, ClientError> {
        let mut results = FetchResults::new();
        let mut by_node: HashMap<i32, Fetches> = HashMap::new();
        for (partition, offset) in &fetch.partitions {
            match self.client.leader(partition).await {
                Ok((node, epoch, topic)) => {
                    by_node.entry(node).or_default().push((partition.clone(), *offset, epoch, topic.id));
                }
                Err(error) => results.push((partition.clone(), Err(error))),
            }
        }
        let asked = by_node.into_iter().map(|(node, partitions)| async move {
            let answer = self.fetch_from(node, &partitions, fetch).await;
            answer.unwrap_or_else(|error| {
                partitions.into_iter().map(|(partition, ..)| (partition, Err(error.clone()))).collect()
            })
        });
        results.extend(join_all(asked).await.into_iter().flatten());
        self.refresh_stale(results.iter().filter_map(|(p, r)| Some((p, r.as_ref().err()?)))).await;
        Ok(results)
    }

    /// Learns the leaders of partitions anew whose errors say that they moved.
    async fn refresh_stale<'a>(&self, failed: impl Iterator<Item = (&'a TopicPartition, &'a ClientError)>) {
        let stale: BTreeSet<_> =
            failed.filter(|(_, error)| error.wants_metadata()).map(|(p, _)| p.topic.clone()).collect();
        if !stale.is_empty() {
            let stale: Vec<_> = stale.into_iter().collect();
            // A failure here shows in the caller's next attempt.
            let _ = self.client.refresh(&stale, false).await;
        }
    }

    async fn fetch_from(
        &self,
        node: i32,
        partitions: &Fetches,
        fetch: &RawFetch,
    ) -> Result<FetchResults, ClientError> {
        let connection = self.channel.connection(node).await?;
        let version = connection.version_of(ApiKey::Fetch)?;
        let ids = partitions.iter().all(|(.., id)| !id.is_zero());
        let version = if ids { version } else { version.min(FETCH_VERSION_NAMES) };
        let small = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
        let mut topics: Vec<FetchTopic> = Vec::new();
        for (partition, offset, epoch, id) in partitions {
            let entry = FetchPartition {
                partition: partition.partition,
                current_leader_epoch: *epoch,
                fetch_offset: offset.get(),
                partition_max_bytes: small(fetch.partition_bytes_max),
                ..Default::default()
            };
            match topics.last_mut().filter(|topic| topic.topic == partition.topic.as_str()) {
                Some(topic) => topic.partitions.push(entry),
                None => topics.push(FetchTopic {
                    topic: partition.topic.as_str().to_owned(),
                    topic_id: id.get(),
                    partitions: vec![entry],
                }),
            }
        }
        let request = FetchRequest {
            max_wait_ms: i32::try_from(fetch.wait_max.as_millis()).unwrap_or(i32::MAX),
            min_bytes: small(fetch.bytes_min),
            max_bytes: small(fetch.bytes_max),
            isolation_level: fetch.isolation_level.wire(),
            topics,
            ..Default::default()
        };
        let limit = self.client.request_timeout() + fetch.wait_max;
        let response = connection.request_at(&request, version, limit).await?;
        let broker = connection.broker();
        check(response.error_code, None, ApiKey::Fetch, broker, "the fetch")?;
        let mut answers: HashMap<(uuid::Uuid, String, i32), PartitionData> = HashMap::new();
        for topic in response.responses {
            for data in topic.partitions {
                answers.insert((topic.topic_id, topic.topic.clone(), data.partition_index), data);
            }
        }
        let result = |(partition, _, _, id): &(TopicPartition, Offset, i32, TopicId)| {
            let key = if version > FETCH_VERSION_NAMES {
                (id.get(), String::new(), partition.partition)
            } else {
                (uuid::Uuid::nil(), partition.topic.as_str().to_owned(), partition.partition)
            };
            let fetched = match answers.remove(&key) {
                Some(data) => raw_fetched(partition, *id, data, broker),
                None => Err(left_out(ApiKey::Fetch, broker)),
            };
            (partition.clone(), fetched)
        };
        Ok(partitions.iter().map(result).collect())
    }

    /// Appends one whole record batch to each of the partitions, as it is. Nothing is retried; after an error that
    /// says that leaders moved, the next call asks for the new ones. The caller bounds how many calls wait at a time (R10).
    ///
    /// # Errors
    /// None of its own at present: every partition has its result.
    pub async fn produce(
        &self,
        batches: Vec<(TopicPartition, Bytes)>,
        acks: Acks,
    ) -> Result<ProduceResults, ClientError> {
        let mut results = ProduceResults::new();
        let mut by_node: HashMap<i32, Produces> = HashMap::new();
        for (partition, batch) in batches {
            match self.client.leader(&partition).await {
                Ok((node, epoch, topic)) => {
                    by_node.entry(node).or_default().push((partition, batch, epoch, topic.id));
                }
                Err(error) => results.push((partition, Err(error))),
            }
        }
        let asked = by_node.into_iter().map(|(node, batches)| async move {
            match self.begin_to(node, batches, acks).await {
                Ok(pending) => pending.answer().await,
                Err(failed) => failed,
            }
        });
        results.extend(join_all(asked).await.into_iter().flatten());
        self.refresh_stale(results.iter().filter_map(|(p, r)| Some((p, r.as_ref().err()?)))).await;
        Ok(results)
    }

    /// As [`Self::produce`] with `acks=all`, for callers that have several requests on their way: once it returns, the
    /// requests are on their connections, in the order of the calls, and [`PendingProduce::answer`] waits for what became
    /// of them. What could not be sent is the second part. The caller bounds what is on its way.
    pub async fn begin_produce(
        &self,
        batches: Vec<(TopicPartition, Bytes)>,
    ) -> (Vec<PendingProduce>, Vec<(TopicPartition, ClientError)>) {
        let (mut pending, mut failed) = (Vec::new(), Vec::new());
        let mut by_node: HashMap<i32, Produces> = HashMap::new();
        for (partition, batch) in batches {
            match self.client.leader(&partition).await {
                Ok((node, epoch, topic)) => {
                    by_node.entry(node).or_default().push((partition, batch, epoch, topic.id));
                }
                Err(error) => failed.push((partition, error)),
            }
        }
        for (node, batches) in by_node {
            match self.begin_to(node, batches, Acks::All).await {
                Ok(begun) => pending.push(begun),
                Err(results) => failed.extend(results.into_iter().filter_map(|(p, r)| Some((p, r.err()?)))),
            }
        }
        (pending, failed)
    }

    /// Looks for the leaders of partitions again whose errors say that they moved.
    pub async fn refresh_after<'a>(
        &self,
        failed: impl Iterator<Item = (&'a TopicPartition, &'a ClientError)>,
    ) {
        self.refresh_stale(failed).await;
    }

    /// Takes over a transactional id: what the one before had open is aborted. [`Fence::shut_out`] keeps that one from
    /// partitions. The identity may then write idempotent batches outside of transactions.
    ///
    /// # Errors
    /// What the coordinator says; [`ClientError::Timeout`] if it does not come to an end within the delivery timeout.
    pub async fn take_over(&self, transactional_id: &str) -> Result<Fence, ClientError> {
        Fence::take_over(Arc::clone(&self.client), Arc::clone(&self.channel), transactional_id).await
    }

    /// [`Self::take_over`] and [`Fence::shut_out`] in one.
    ///
    /// # Errors
    /// As those two.
    pub async fn fence(
        &self,
        transactional_id: &str,
        partitions: &[TopicPartition],
    ) -> Result<Fenced, ClientError> {
        let fence = self.take_over(transactional_id).await?;
        fence.shut_out(partitions).await?;
        Ok(fence.identity())
    }

    /// Sends the batches of one node; if they cannot be sent, each has the error.
    async fn begin_to(
        &self,
        node: i32,
        batches: Produces,
        acks: Acks,
    ) -> Result<PendingProduce, ProduceResults> {
        let begun = async {
            let connection = self.channel.connection(node).await?;
            let version = connection.version_of(ApiKey::Produce)?;
            let ids = batches.iter().all(|(.., id)| !id.is_zero());
            let version = if ids { version } else { version.min(PRODUCE_VERSION_NAMES) };
            let limit = self.client.request_timeout();
            let request = produce_request(&batches, acks, limit);
            let sent = match acks {
                Acks::None => Sent::Oneway(connection.begin_oneway(&request, version)?),
                _ => Sent::Request(connection.begin(&request, version)?),
            };
            Ok((connection, version, limit, sent))
        };
        match begun.await {
            Ok((connection, version, limit, sent)) => {
                let batches = batches.into_iter().map(|(p, _, epoch, id)| (p, epoch, id)).collect();
                Ok(PendingProduce { connection, version, limit, sent, batches })
            }
            Err(error) => {
                let error: ClientError = error;
                Err(batches.into_iter().map(|(partition, ..)| (partition, Err(error.clone()))).collect())
            }
        }
    }
}

fn produce_request(batches: &Produces, acks: Acks, limit: Duration) -> ProduceRequest {
    let mut topic_data: Vec<TopicProduceData> = Vec::new();
    for (partition, batch, _, id) in batches {
        let records = Some(from_zero(batch.clone()));
        let data = PartitionProduceData { index: partition.partition, records };
        match topic_data.iter_mut().find(|topic| topic.name == partition.topic.as_str()) {
            Some(topic) => topic.partition_data.push(data),
            None => topic_data.push(TopicProduceData {
                name: partition.topic.as_str().to_owned(),
                topic_id: id.get(),
                partition_data: vec![data],
            }),
        }
    }
    let timeout_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    ProduceRequest { transactional_id: None, acks: acks.wire(), timeout_ms, topic_data }
}

/// A request that was sent.
#[derive(Debug)]
enum Sent {
    Request(InFlight<ProduceRequest>),
    /// Told when it is written: it has no answer.
    Oneway(oneshot::Receiver<()>),
}

/// Batches on their way to one broker.
#[derive(Debug)]
pub struct PendingProduce {
    connection: Connection,
    version: i16,
    limit: Duration,
    sent: Sent,
    batches: Vec<(TopicPartition, i32, TopicId)>,
}

impl PendingProduce {
    /// The partitions that have a batch in it.
    pub fn partitions(&self) -> impl Iterator<Item = &TopicPartition> {
        self.batches.iter().map(|(partition, ..)| partition)
    }

    /// Waits for what became of each batch. Nothing is retried: a batch whose answer is lost may be there or not.
    pub async fn answer(self) -> ProduceResults {
        let Self { connection, version, limit, sent, batches } = self;
        let produced = |base, append_time: i64, epoch| RawProduced {
            base_offset: Offset::new(base),
            log_append_time_ms: (append_time >= 0).then_some(append_time),
            leader_epoch: LeaderEpoch::new(epoch),
        };
        let response = match sent {
            Sent::Oneway(written) => {
                let written = connection.written(written, ApiKey::Produce, limit).await;
                let result = |epoch| written.clone().map(|()| produced(-1, -1, epoch));
                return batches.into_iter().map(|(p, epoch, _)| (p, result(epoch))).collect();
            }
            Sent::Request(request) => match request.answer(limit).await {
                Ok(response) => response,
                Err(error) => {
                    return batches.into_iter().map(|(p, ..)| (p, Err(error.clone()))).collect();
                }
            },
        };
        let broker = connection.broker();
        let result = |(partition, epoch, id): (TopicPartition, i32, TopicId)| {
            let same = |topic: &&TopicProduceResponse| match version > PRODUCE_VERSION_NAMES {
                true => topic.topic_id == id.get(),
                false => topic.name == partition.topic.as_str(),
            };
            let mut answers =
                response.responses.iter().filter(same).flat_map(|topic| &topic.partition_responses);
            let result = match answers.find(|answer| answer.index == partition.partition) {
                None => Err(left_out(ApiKey::Produce, broker)),
                Some(answer) => {
                    let message = answer.error_message.clone();
                    check(answer.error_code, message, ApiKey::Produce, broker, &partition)
                        .map(|()| produced(answer.base_offset, answer.log_append_time_ms, epoch))
                }
            };
            (partition, result)
        };
        batches.into_iter().map(result).collect()
    }
}

/// The batch with offsets from 0 on, as Kafka wants those of clients: it refuses compressed ones that were fetched from
/// elsewhere in a log. What cannot be a batch is left for the broker to refuse.
fn from_zero(batch: Bytes) -> Bytes {
    if batch.first_chunk::<8>().is_none_or(|base| *base == [0; 8]) {
        return batch;
    }
    let mut changed = BytesMut::from(&batch[..]);
    match edit::assign(&mut changed, Offset::ZERO, LeaderEpoch::NONE) {
        Ok(()) => changed.freeze(),
        Err(_) => batch,
    }
}

fn raw_fetched(
    partition: &TopicPartition,
    topic_id: TopicId,
    data: PartitionData,
    broker: &Arc<str>,
) -> Result<RawFetched, ClientError> {
    check(data.error_code, None, ApiKey::Fetch, broker, partition)?;
    let known = |offset: i64| (offset >= 0).then(|| Offset::new(offset));
    let aborted = data.aborted_transactions.unwrap_or_default().into_iter().map(|it| AbortedTransaction {
        producer_id: ProducerId::new(it.producer_id),
        first_offset: Offset::new(it.first_offset),
    });
    Ok(RawFetched {
        partition: partition.clone(),
        topic_id,
        batches: data.records.unwrap_or_default(),
        high_watermark: Offset::new(data.high_watermark),
        last_stable_offset: known(data.last_stable_offset),
        log_start_offset: known(data.log_start_offset),
        aborted: aborted.collect(),
    })
}

fn left_out(api: ApiKey, broker: &Arc<str>) -> ClientError {
    ClientError::Malformed { broker: Arc::clone(broker), api, problem: "it leaves out a partition" }
}
