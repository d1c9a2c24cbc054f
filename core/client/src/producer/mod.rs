//! The producer: [`accumulator`] turns records into batches, [`sender`] sends them.

mod accumulator;
mod ack;
mod barrier;
mod fence;
mod queue;
mod sender;
mod transaction;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::time::Instant;
use towpath_record::{Header, record_bytes};
use towpath_types::{TopicName, TopicPartition};

pub use ack::{Ack, ProducerRecord, RecordMetadata};
pub use fence::{Fence, Fenced};
pub use transaction::{ConsumerGroupMetadata, Ended, Transaction, TransactionalProducer};

use crate::client::{ClientInner, now_ms};
use crate::{Acks, ClientError, ProducerConfig};
use accumulator::{Accumulator, Appended, NewRecord, Settings};
use barrier::BarrierId;
use transaction::machine::Machine;

/// Requests in flight above which an idempotent producer could not tell duplicates any more: brokers remember the
/// last five batches of a producer.
const IN_FLIGHT_MAX_IDEMPOTENT: usize = 5;

/// Sends records in batches. Cheap to clone; all clones share one buffer. What is still buffered when the last clone
/// is dropped is not sent: see [`Self::flush`].
#[derive(Debug, Clone)]
pub struct Producer {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    client: Arc<ClientInner>,
    config: ProducerConfig,
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}

/// What the producer and its sender share.
#[derive(Debug)]
pub(crate) struct Shared {
    accumulator: Mutex<Accumulator>,
    /// Tells the sender that there is something to do.
    wake: Notify,
    /// Tells `send` that memory became free.
    freed: Notify,
    /// Tells those who wait for a coordinator that it answered.
    settled: Notify,
    closed: AtomicBool,
    transactional_id: Option<Arc<str>>,
    acks: Acks,
    in_flight_max: usize,
    allow_auto_create_topics: bool,
}

impl Producer {
    pub(crate) fn new(client: Arc<ClientInner>, config: ProducerConfig) -> Self {
        Self::start(client, config, None)
    }

    /// With a machine and the milliseconds that a transaction may take: of transactions.
    fn start(client: Arc<ClientInner>, config: ProducerConfig, transactions: Option<(Machine, u64)>) -> Self {
        let idempotent = config.enable_idempotence && config.acks == Acks::All;
        let most = if idempotent { IN_FLIGHT_MAX_IDEMPOTENT } else { usize::MAX };
        let in_flight_max = config.in_flight_max.clamp(1, most);
        let settings = Settings {
            batch_bytes: config.batch_bytes.max(1),
            linger: Duration::from_millis(config.linger_ms),
            buffer_memory: config.buffer_memory,
            delivery_timeout: (config.delivery_timeout_ms != u64::MAX)
                .then(|| Duration::from_millis(config.delivery_timeout_ms)),
            codec: config.compression,
            idempotent,
            // Without sequence numbers, order survives a retry only when nothing else is in flight.
            in_flight_per_partition: if idempotent || config.acks == Acks::None { in_flight_max } else { 1 },
            stop_after_failure: config.stop_after_failure,
            keeps_identity: config.identity.is_some(),
            backoff: client.retry_backoff(),
        };
        let (machine, timeout_ms) = transactions.unzip();
        let transactional_id = machine.as_ref().map(|machine| Arc::clone(machine.id()));
        let mut accumulator = Accumulator::new(settings);
        if let Some(Fenced { producer_id, epoch }) = config.identity {
            accumulator.set_identity((producer_id, epoch));
        }
        if let Some(machine) = machine {
            accumulator = accumulator.with_transactions(machine);
        }
        let shared = Arc::new(Shared {
            accumulator: Mutex::new(accumulator),
            wake: Notify::new(),
            freed: Notify::new(),
            settled: Notify::new(),
            closed: AtomicBool::new(false),
            transactional_id,
            acks: config.acks,
            in_flight_max,
            allow_auto_create_topics: config.allow_auto_create_topics,
        });
        let sender = sender::Sender::new(Arc::clone(&client), Arc::clone(&shared), timeout_ms.unwrap_or(0));
        tokio::spawn(sender.run());
        Self { handle: Arc::new(Handle { client, config, shared }) }
    }

    /// Copies a record into the open batch of its partition. Waits while `buffer_memory` is full, and for the topic's
    /// metadata the first time; otherwise it returns at once. Errors of the batch surface at the next
    /// [`Self::barrier`].
    ///
    /// # Errors
    /// [`ClientError::RecordTooLarge`], an unknown topic or partition, or [`ClientError::Closed`].
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<(), ClientError> {
        self.append(record, false).await.map(drop)
    }

    /// As [`Self::send`]; the ack tells where the record is once the brokers have it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with_ack(&self, record: ProducerRecord<'_>) -> Result<Ack, ClientError> {
        self.append(record, true).await?.ok_or(ClientError::Closed)
    }

    async fn append(&self, record: ProducerRecord<'_>, ack: bool) -> Result<Option<Ack>, ClientError> {
        let headers: SmallVec<[Header<'_>; 8]> =
            record.headers.iter().map(|(key, value)| Header::new(key, *value)).collect();
        let bytes = record_bytes(record.key, record.value, &headers);
        let handle = &*self.handle;
        if bytes > handle.config.record_bytes_max {
            return Err(ClientError::RecordTooLarge { bytes, max: handle.config.record_bytes_max });
        }
        let new = NewRecord {
            topic: record.topic,
            partition: record.partition,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(now_ms),
            key: record.key,
            value: record.value,
            headers: &headers,
            bytes,
            want_ack: ack,
        };
        match handle.shared.append(&new) {
            Appended::Done { ack, .. } => Ok(ack),
            other => handle.append_slowly(&new, other).await,
        }
    }

    /// Resolves when every record sent before this call is acknowledged, or with the first error among them; an error
    /// is reported to every barrier whose records it may concern, and none is lost when a barrier is dropped. Batches
    /// still wait for `linger_ms`.
    pub fn barrier(&self) -> impl Future<Output = Result<(), ClientError>> + Send + 'static {
        let shared = Arc::clone(&self.handle.shared);
        let id = shared.accumulator.lock().begin_barrier();
        Barrier { shared, id }
    }

    /// Closes the open batches now and waits as [`Self::barrier`] does.
    ///
    /// # Errors
    /// The first error among the records sent before this call.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let barrier = {
            self.handle.shared.accumulator.lock().flush();
            self.barrier()
        };
        self.handle.shared.wake.notify_one();
        barrier.await
    }

    /// Bytes of records that are not acknowledged yet.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.handle.shared.accumulator.lock().used()
    }

    /// The number of a topic's partitions, asked for if it is not known.
    ///
    /// # Errors
    /// When the topic is not there within `max_block_ms`.
    pub async fn partition_count(&self, topic: &TopicName) -> Result<i32, ClientError> {
        let Handle { client, config, .. } = &*self.handle;
        let meta = client.topic(topic, config.allow_auto_create_topics, config.max_block_ms).await?;
        Ok(i32::try_from(meta.partitions.len()).unwrap_or(i32::MAX))
    }
}

impl Shared {
    /// One attempt; wakes the sender if it has something new to look at.
    fn append(&self, record: &NewRecord<'_>) -> Appended {
        if self.closed.load(Ordering::Relaxed) {
            return Appended::Failed(ClientError::Closed);
        }
        let appended = self.accumulator.lock().append(record, Instant::now);
        if matches!(appended, Appended::Done { wake: true, .. }) {
            self.wake.notify_one();
        }
        appended
    }
}

impl Handle {
    /// Waits for what a record lacks: metadata, or memory.
    async fn append_slowly(
        &self,
        record: &NewRecord<'_>,
        mut outcome: Appended,
    ) -> Result<Option<Ack>, ClientError> {
        let config = &self.config;
        let mut refreshed = false;
        loop {
            match outcome {
                Appended::Done { ack, .. } => return Ok(ack),
                Appended::Failed(error) => return Err(error),
                Appended::UnknownTopic => {
                    let create = config.allow_auto_create_topics;
                    let meta = self.client.topic(record.topic, create, config.max_block_ms).await?;
                    self.shared.accumulator.lock().learn(&meta);
                }
                Appended::UnknownPartition(count) => {
                    if refreshed {
                        let index = record.partition.unwrap_or(-1);
                        let partition = TopicPartition::new(record.topic.clone(), index);
                        return Err(ClientError::UnknownPartition { partition, count });
                    }
                    refreshed = true;
                    let names = std::slice::from_ref(record.topic);
                    let cluster = self.client.refresh(names, config.allow_auto_create_topics).await?;
                    if let Some(meta) = cluster.topics.get(record.topic) {
                        self.shared.accumulator.lock().learn(meta);
                    }
                }
                Appended::Full => {
                    let mut freed = std::pin::pin!(self.shared.freed.notified());
                    // Registered before the second look, so that no wake-up is missed in between.
                    freed.as_mut().enable();
                    self.shared.wake.notify_one();
                    outcome = self.shared.append(record);
                    if matches!(outcome, Appended::Full) {
                        freed.await;
                    } else {
                        continue;
                    }
                }
            }
            outcome = self.shared.append(record);
        }
    }
}

/// See [`Producer::barrier`].
struct Barrier {
    shared: Arc<Shared>,
    id: BarrierId,
}

impl Drop for Barrier {
    fn drop(&mut self) {
        self.shared.accumulator.lock().barriers.abandon(self.id);
    }
}

impl Future for Barrier {
    type Output = Result<(), ClientError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut accumulator = self.shared.accumulator.lock();
        if let Some(result) = accumulator.barriers.poll(self.id, context.waker()) {
            return Poll::Ready(result);
        }
        // Looked at after the waker is known: whoever closes wakes those that are.
        if self.shared.closed.load(Ordering::Acquire) {
            return Poll::Ready(Err(ClientError::Closed));
        }
        Poll::Pending
    }
}
