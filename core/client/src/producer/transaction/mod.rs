//! Transactions: [`machine`] decides, [`calls`] asks the coordinators, the producer's sender drives both.

pub(super) mod calls;
pub(super) mod machine;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use towpath_types::{GroupId, ProducerEpoch, ProducerId, TopicName, TopicPartition};

pub use machine::Ended;

use super::{Ack, Producer, ProducerRecord};
use crate::client::ClientInner;
use crate::consumer::CommittedOffset;
use crate::{Acks, ClientError, TransactionConfig};
use machine::Machine;

/// Who commits offsets with a transaction: a group, and its member in a generation (or member epoch), so that one who
/// has left the group changes nothing (KIP-447). [`crate::Consumer::group_metadata`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerGroupMetadata {
    /// The group.
    pub group_id: GroupId,
    /// The generation, or the member epoch of the consumer protocol; −1 for a consumer that is no member.
    pub generation: i32,
    /// The member's id; empty for a consumer that is no member.
    pub member_id: Arc<str>,
    /// The id that a static member gave itself.
    pub group_instance_id: Option<Arc<str>>,
}

impl ConsumerGroupMetadata {
    /// For a consumer that reads an assignment of its own: the transactional id alone fences.
    #[must_use]
    pub fn new(group_id: GroupId) -> Self {
        Self { group_id, generation: -1, member_id: Arc::from(""), group_instance_id: None }
    }
}

/// A producer of transactions: [`crate::Client::transactional_producer`] makes it, [`Self::begin`] begins one.
///
/// Whoever reads with [`crate::IsolationLevel::ReadCommitted`] sees the records of a transaction all or not at all,
/// and the offsets that it commits count exactly when its records do.
///
/// ```no_run
/// use towpath_client::{Client, ClientError, ProducerRecord, TransactionConfig};
/// use towpath_types::TopicName;
///
/// # async fn example(client: Client) -> Result<(), ClientError> {
/// let producer = client.transactional_producer(TransactionConfig::new("orders-1")).await?;
/// let (orders, totals) = (TopicName::new("orders")?, TopicName::new("totals")?);
/// let transaction = producer.begin().await?;
/// transaction.send(ProducerRecord { value: Some(b"1 apple"), ..ProducerRecord::new(&orders) }).await?;
/// transaction.send(ProducerRecord { value: Some(b"1"), ..ProducerRecord::new(&totals) }).await?;
/// match transaction.commit().await {
///     Ok(()) => {}
///     // Nobody will see any of it: do it again in the next transaction.
///     Err(error) if error.is_abortable() => {}
///     // Another process has this transactional id now.
///     Err(error) if error.is_fatal() => return Err(error),
///     // No answer in time: how it ended is to be asked for.
///     Err(_) => println!("{:?}", producer.settle().await?),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TransactionalProducer {
    producer: Producer,
    max_block: Duration,
    transactional_id: Arc<str>,
}

/// An open transaction. Records can be sent from several tasks at a time. Dropped without [`Self::commit`], it is
/// aborted in the background.
#[derive(Debug)]
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction {
    producer: Producer,
    max_block: Duration,
    number: u64,
}

impl TransactionalProducer {
    pub(crate) async fn start(
        client: Arc<ClientInner>,
        config: TransactionConfig,
    ) -> Result<Self, ClientError> {
        let mut settings = config.producer;
        if config.transactional_id.is_empty() {
            return Err(ClientError::Usage("transactional_id is empty"));
        }
        if settings.acks != Acks::All || !settings.enable_idempotence {
            return Err(ClientError::Usage("transactions need acks=all and idempotence"));
        }
        settings.stop_after_failure = false;
        let max_block = Duration::from_millis(settings.max_block_ms);
        let transactional_id: Arc<str> = Arc::from(config.transactional_id);
        let machine = Machine::new(Arc::clone(&transactional_id), client.retry_backoff());
        let producer = Producer::start(client, settings, Some((machine, config.transaction_timeout_ms)));
        let this = Self { producer, max_block, transactional_id };
        this.wait("initializing transactions", |machine| machine.settled()).await?;
        Ok(this)
    }

    /// Begins a transaction, once nothing is left of the one before.
    ///
    /// # Errors
    /// [`ClientError::Usage`] while a [`Transaction`] of this producer is alive, [`ClientError::Timeout`] when the end
    /// of the one before is not answered within `max_block_ms`, or what ended this producer
    /// ([`ClientError::is_fatal`]).
    pub async fn begin(&self) -> Result<Transaction, ClientError> {
        let number = self.wait("beginning a transaction", Machine::begin).await?;
        let producer = self.producer.clone();
        // What failed in the last transaction was told there.
        producer.handle.shared.accumulator.lock().barriers.forget_failures();
        Ok(Transaction { producer, max_block: self.max_block, number })
    }

    /// Waits until nothing is left of the last transaction, and tells how it ended (`None` before the first). This is
    /// how to learn the outcome of a commit that was not answered in time.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub async fn settle(&self) -> Result<Option<Ended>, ClientError> {
        self.wait("ending a transaction", |machine| machine.settled()).await
    }

    /// The transactional id.
    #[must_use]
    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// The producer id and the epoch at present.
    #[must_use]
    pub fn identity(&self) -> Option<(ProducerId, ProducerEpoch)> {
        self.producer.with_transaction(|machine| machine.identity()).flatten()
    }

    /// The number of a topic's partitions, asked for if it is not known.
    ///
    /// # Errors
    /// When the topic is not there within `max_block_ms`.
    pub async fn partition_count(&self, topic: &TopicName) -> Result<i32, ClientError> {
        self.producer.partition_count(topic).await
    }

    async fn wait<T>(
        &self,
        what: &'static str,
        look: impl FnMut(&mut Machine) -> Option<Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        self.producer.wait_for(what, self.max_block, look).await
    }
}

impl Transaction {
    /// As [`Producer::send`], into this transaction.
    ///
    /// # Errors
    /// As [`Producer::send`]; [`ClientError::TransactionAborted`] once something of the transaction failed.
    pub async fn send(&self, record: ProducerRecord<'_>) -> Result<(), ClientError> {
        self.producer.send(record).await
    }

    /// As [`Producer::send_with_ack`], into this transaction.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_with_ack(&self, record: ProducerRecord<'_>) -> Result<Ack, ClientError> {
        self.producer.send_with_ack(record).await
    }

    /// As [`Producer::barrier`]: resolves when everything that was sent before is written (not: visible).
    pub fn barrier(&self) -> impl Future<Output = Result<(), ClientError>> + Send + 'static {
        self.producer.barrier()
    }

    /// As [`Producer::flush`]. A commit does so by itself.
    ///
    /// # Errors
    /// The first error among the records sent before this call.
    pub async fn flush(&self) -> Result<(), ClientError> {
        self.producer.flush().await
    }

    /// Makes offsets (the next ones to read) of a group part of the transaction: they are committed exactly when the
    /// transaction is. The group's coordinator checks that the member is still one (KIP-447).
    ///
    /// # Errors
    /// [`ClientError::TransactionAborted`], for example when the group has gone on without this member.
    pub async fn send_offsets(
        &self,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let (offsets, group) = (offsets.clone(), Arc::new(group.clone()));
        let job = self.producer.with_transaction(|machine| machine.add_offsets(group, offsets));
        let job = job.unwrap_or(Err(ClientError::Closed))?;
        self.producer.wake();
        let taken = |machine: &mut Machine| machine.offsets_taken(self.number, job);
        self.producer.wait_for("committing offsets with a transaction", self.max_block, taken).await
    }

    /// Writes what is still on its way, and commits.
    ///
    /// # Errors
    /// [`ClientError::TransactionAborted`] when something of the transaction failed: it is aborted, and the producer
    /// goes on. [`ClientError::Timeout`] when the coordinator does not answer within `max_block_ms`: the commit goes on
    /// by itself, and [`TransactionalProducer::settle`] tells how it ended. Others are fatal.
    pub async fn commit(self) -> Result<(), ClientError> {
        self.end(true);
        let number = self.number;
        let outcome = |machine: &mut Machine| {
            machine.commit_failed(number).map(Err).or_else(|| machine.outcome(number))
        };
        self.producer.wait_for("committing a transaction", self.max_block, outcome).await.map(drop)
    }

    /// Drops what is not sent yet, and aborts.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when the coordinator does not answer within `max_block_ms` (the abort goes on by
    /// itself); others are fatal.
    pub async fn abort(self) -> Result<(), ClientError> {
        self.end(false);
        let number = self.number;
        let outcome = |machine: &mut Machine| machine.outcome(number);
        self.producer.wait_for("aborting a transaction", self.max_block, outcome).await.map(drop)
    }

    fn end(&self, commit: bool) {
        self.producer.end_transaction(self.number, commit);
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // Nothing to do for one that was ended already.
        self.end(false);
    }
}

impl Producer {
    fn with_transaction<T>(&self, act: impl FnOnce(&mut Machine) -> T) -> Option<T> {
        let mut accumulator = self.handle.shared.accumulator.lock();
        accumulator.transaction.as_deref_mut().map(act)
    }

    fn wake(&self) {
        self.handle.shared.wake.notify_one();
    }

    fn end_transaction(&self, number: u64, commit: bool) {
        let mut accumulator = self.handle.shared.accumulator.lock();
        if let Some(machine) = accumulator.transaction.as_deref_mut() {
            machine.end(number, commit);
        }
        // What is open is sent at once, or dropped.
        accumulator.flush();
        drop(accumulator);
        self.wake();
    }

    /// Waits until the machine has something to say.
    async fn wait_for<T>(
        &self,
        what: &'static str,
        within: Duration,
        mut look: impl FnMut(&mut Machine) -> Option<Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let shared = &self.handle.shared;
        let deadline = Instant::now().checked_add(within);
        loop {
            let mut news = std::pin::pin!(shared.settled.notified());
            // Registered before looking, so that nothing is missed in between.
            news.as_mut().enable();
            let problem = {
                let mut accumulator = shared.accumulator.lock();
                let machine = accumulator.transaction.as_deref_mut().ok_or(ClientError::Closed)?;
                if let Some(result) = look(machine) {
                    return result;
                }
                machine.problem().cloned().map(Box::new)
            };
            if shared.closed.load(std::sync::atomic::Ordering::Acquire) {
                return Err(ClientError::Closed);
            }
            let waited = match deadline {
                Some(deadline) => timeout_at(deadline, news).await.is_ok(),
                None => {
                    news.await;
                    true
                }
            };
            if !waited {
                let after_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                return Err(ClientError::Timeout { what, after_ms, source: problem });
            }
        }
    }
}
