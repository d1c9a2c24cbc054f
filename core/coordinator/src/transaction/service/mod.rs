//! The driver: which partition a request belongs to, and the shapes of requests and answers by version.

mod markers;
mod partition;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use towpath_types::{ProducerEpoch, ProducerId, TopicName, TopicPartition};
use towpath_wire::add_partitions_to_txn::AddPartitionsToTxnTransaction;
use towpath_wire::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    DescribeTransactionsRequest, DescribeTransactionsResponse, EndTxnRequest, EndTxnResponse, ErrorCode,
    InitProducerIdRequest, InitProducerIdResponse, ListTransactionsRequest, ListTransactionsResponse,
};

use self::markers::MarkerSender;
pub use self::markers::{Coordinates, MarkerLeader, Markers, SendFailed};
pub use self::partition::TransactionPartitionStatus;
use self::partition::{Partition, Surroundings};
use self::shapes::{Checked, check_partitions, transactions};
use super::config::TransactionConfig;
use super::machine::{AddPartitions, EndTransaction, InitProducer, TransactionFilter, TransactionReply};
use super::metadata::ClientVersion;
use super::partitions::Partitions;
use crate::hash::partition_for;
use crate::log::{CoordinatorLog, CoordinatorLogError, TransactionalProducer};
use crate::service::{Clock, SystemClock};

/// The topic of committed offsets, whose partitions a transaction touches like any other.
const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Where producer ids come from: no two producers of a cluster ever get the same. The broker implements it.
#[async_trait]
pub trait ProducerIds: Send + Sync + 'static {
    /// The next one, within a bounded time.
    ///
    /// # Errors
    /// What a client is told when there is none: Kafka says `COORDINATOR_LOAD_IN_PROGRESS`, which is tried again.
    async fn next(&self) -> Result<ProducerId, ErrorCode>;
}

struct Inner {
    around: Arc<Surroundings>,
    partitions: Mutex<HashMap<i32, Arc<Partition>>>,
    is_stopped: AtomicBool,
}

/// The transaction coordinator of a broker. Cheap to clone. Everything that it serves lies in the state topic; a
/// partition is loaded when its broker begins to lead it, or when it is first asked for.
#[derive(Clone)]
pub struct TransactionCoordinator {
    inner: Arc<Inner>,
}

impl fmt::Debug for TransactionCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let loaded = self.inner.partitions.lock().len();
        f.debug_struct("TransactionCoordinator").field("partitions", &loaded).finish_non_exhaustive()
    }
}

/// A reply that comes later; none when the partition is given up.
type Later = Result<oneshot::Receiver<TransactionReply>, ErrorCode>;

async fn reply(later: Later) -> Result<TransactionReply, ErrorCode> {
    later?.await.map_err(|_| ErrorCode::NotCoordinator)
}

fn added(reply: Result<TransactionReply, ErrorCode>) -> ErrorCode {
    match reply {
        Ok(TransactionReply::Add(error)) | Err(error) => error,
        Ok(_) => ErrorCode::UnknownServerError,
    }
}

const fn producer(id: i64, epoch: i16) -> TransactionalProducer {
    TransactionalProducer { id: ProducerId::new(id), epoch: ProducerEpoch::new(epoch) }
}

impl TransactionCoordinator {
    /// A coordinator over `log`, by the system's clock.
    #[must_use]
    pub fn new(
        config: TransactionConfig,
        log: Arc<dyn CoordinatorLog>,
        ids: Arc<dyn ProducerIds>,
        markers: Arc<dyn Markers>,
    ) -> Self {
        Self::with_clock(config, log, ids, markers, Arc::new(SystemClock))
    }

    /// A coordinator by a clock of its own.
    #[must_use]
    pub fn with_clock(
        config: TransactionConfig,
        log: Arc<dyn CoordinatorLog>,
        ids: Arc<dyn ProducerIds>,
        markers: Arc<dyn Markers>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let sender = MarkerSender::new(markers);
        let around = Arc::new(Surroundings { config, log, ids, sender, clock });
        let partitions = Mutex::new(HashMap::new());
        Self { inner: Arc::new(Inner { around, partitions, is_stopped: AtomicBool::new(false) }) }
    }

    /// Begins to load every partition that this broker leads, so that what was decided is completed. Call it within a
    /// tokio runtime, once the log is there.
    pub fn start(&self) {
        for partition in 0..self.inner.around.log.partition_count().unwrap_or(0) {
            self.elected(partition);
        }
    }

    /// This broker leads `partition` from now on: loads it. Does nothing when it does not, or does already.
    pub fn elected(&self, partition: i32) {
        // Whoever asks for an id of it is told the same.
        let _not_led = self.partition(partition);
    }

    /// This broker does not lead `partition` any more: whoever waits is told to look for the new coordinator, and no more
    /// markers are sent.
    pub fn resigned(&self, partition: i32) {
        if let Some(partition) = self.inner.partitions.lock().remove(&partition) {
            partition.close();
        }
    }

    /// Stops: what is on its way to the log is written, everybody else who waits is answered. Markers that are not known
    /// to be written are sent by whoever coordinates next.
    pub async fn shutdown(&self) {
        self.inner.is_stopped.store(true, Ordering::Release);
        let partitions: Vec<_> =
            self.inner.partitions.lock().drain().map(|(_, partition)| partition).collect();
        partitions.iter().for_each(|partition| partition.close());
        for partition in partitions {
            partition.finished().await;
        }
        self.inner.around.sender.stop();
    }

    /// How each partition is doing, in order.
    #[must_use]
    pub fn status(&self) -> Vec<TransactionPartitionStatus> {
        let partitions: Vec<_> = self.inner.partitions.lock().values().cloned().collect();
        let mut statuses: Vec<_> = partitions.iter().map(|partition| partition.status()).collect();
        statuses.sort_by_key(|status| status.partition);
        statuses
    }

    /// The partition of the state topic that holds an id; `None` while there is no such topic.
    #[must_use]
    pub fn partition_of(&self, transactional_id: &str) -> Option<i32> {
        Some(partition_for(transactional_id, self.inner.around.log.partition_count()?))
    }

    /// Makes sure that the state topic is there or on its way.
    ///
    /// # Errors
    /// When it cannot be created.
    pub async fn ensure_topic(&self) -> Result<(), CoordinatorLogError> {
        if self.inner.around.log.partition_count().is_some() {
            return Ok(());
        }
        self.inner.around.log.ensure_topic().await?;
        self.start();
        Ok(())
    }

    fn partition(&self, id: i32) -> Result<Arc<Partition>, ErrorCode> {
        if self.inner.is_stopped.load(Ordering::Acquire) {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let mut partitions = self.inner.partitions.lock();
        // With the lock held: of two that ask, none goes by an older term than the other.
        let Some(term) = self.inner.around.log.term(id) else {
            if let Some(partition) = partitions.remove(&id) {
                partition.close();
            }
            return Err(ErrorCode::NotCoordinator);
        };
        if let Some(partition) = partitions.get(&id) {
            if partition.term() == term {
                return Ok(Arc::clone(partition));
            }
            partition.close();
        }
        let partition = Partition::new(id, term, Arc::clone(&self.inner.around));
        partitions.insert(id, Arc::clone(&partition));
        self.inner.around.sender.start();
        tokio::spawn(Arc::clone(&partition).run());
        Ok(partition)
    }

    fn find(&self, transactional_id: &str) -> Result<Arc<Partition>, ErrorCode> {
        self.partition(self.partition_of(transactional_id).ok_or(ErrorCode::CoordinatorNotAvailable)?)
    }

    /// Serves InitProducerId, with a transactional id and without; with one it waits until the log says who has it.
    pub async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
        version: i16,
    ) -> InitProducerIdResponse {
        let result = match self.initialize(request).await {
            // Older clients do not know this one.
            Err(ErrorCode::ProducerFenced) if version < 4 => Err(ErrorCode::InvalidProducerEpoch),
            result => result,
        };
        let (error, producer) = match result {
            Ok(producer) => (ErrorCode::None, producer),
            Err(error) => (error, producer(-1, -1)),
        };
        InitProducerIdResponse {
            error_code: error.code(),
            producer_id: producer.id.get(),
            producer_epoch: producer.epoch.get(),
            ..InitProducerIdResponse::default()
        }
    }

    async fn initialize(&self, request: InitProducerIdRequest) -> Result<TransactionalProducer, ErrorCode> {
        let expected = match (request.producer_id, request.producer_epoch) {
            (-1, -1) => None,
            (-1, _) | (_, -1) => return Err(ErrorCode::InvalidRequest),
            (id, epoch) => Some(producer(id, epoch)),
        };
        let Some(transactional_id) = request.transactional_id else {
            // As in Kafka, a producer without transactions gets a new id, also when it brings an old one (KIP-360).
            let id = self.inner.around.ids.next().await?;
            return Ok(TransactionalProducer { id, epoch: ProducerEpoch::new(0) });
        };
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        // Two-phase commit (KIP-939) is not there; this is what Kafka says where it is not enabled.
        if request.enable2_pc {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if request.keep_prepared_txn {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let partition = self.find(&transactional_id)?;
        let request = InitProducer { transactional_id, timeout_ms: request.transaction_timeout_ms, expected };
        let later =
            partition.ask(|machine, now, waiter, out| machine.init_producer_id(now, waiter, request, out));
        match reply(later).await? {
            TransactionReply::Init(result) => result,
            _ => Err(ErrorCode::UnknownServerError),
        }
    }

    /// Serves AddPartitionsToTxn: of a client up to version 3; from version 4 on of a broker, for many transactions. Waits
    /// until the log has the partitions. `check` tells of a topic and partition whether it may be added at all:
    /// `NONE`, `UNKNOWN_TOPIC_OR_PARTITION`, `TOPIC_AUTHORIZATION_FAILED`.
    pub async fn add_partitions(
        &self,
        request: AddPartitionsToTxnRequest,
        version: i16,
        check: impl Fn(&str, i32) -> ErrorCode,
    ) -> AddPartitionsToTxnResponse {
        // All are begun before the first is waited for: they share appends.
        let begun: Vec<_> = transactions(request, version)
            .into_iter()
            .map(|transaction| {
                let begun = self.begin_to_add(&transaction, version, &check);
                (transaction, begun)
            })
            .collect();
        let mut results = Vec::with_capacity(begun.len());
        for (transaction, begun) in begun {
            let errors = match begun {
                Begun::Each(errors) => errors,
                Begun::Later(later) => {
                    // Older clients do not know this one.
                    let error = match added(reply(later).await) {
                        ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
                        error => error,
                    };
                    vec![error; transaction.topics.iter().map(|topic| topic.partitions.len()).sum()]
                }
            };
            results.push(shapes::added_result(transaction, errors));
        }
        shapes::added_response(results, version)
    }

    fn begin_to_add(
        &self,
        transaction: &AddPartitionsToTxnTransaction,
        version: i16,
        check: &impl Fn(&str, i32) -> ErrorCode,
    ) -> Begun {
        let partitions = match check_partitions(transaction, check) {
            Checked::All(partitions) => partitions,
            Checked::Refused(errors) => return Begun::Each(errors),
        };
        let producer = producer(transaction.producer_id, transaction.producer_epoch);
        let found = self.find(&transaction.transactional_id);
        if transaction.verify_only {
            let verified = found.and_then(|partition| {
                partition.look(|machine, _| {
                    machine.verify_partitions(&transaction.transactional_id, producer, partitions.iter())
                })?
            });
            let count = partitions.len();
            return Begun::Each(verified.unwrap_or_else(|error| vec![error; count]));
        }
        let request = AddPartitions {
            transactional_id: transaction.transactional_id.clone(),
            producer,
            partitions: partitions.into_iter().collect(),
            version: if version > 3 { ClientVersion::V2 } else { ClientVersion::V0 },
        };
        let later = found.and_then(|partition| {
            partition.ask(|machine, now, waiter, out| machine.add_partitions(now, waiter, &request, out))
        });
        Begun::Later(later)
    }

    /// Serves AddOffsetsToTxn; waits until the log has the partition of the offsets topic that holds the group, which is
    /// `offsets_partition`; `None` while there is no such topic.
    pub async fn add_offsets(
        &self,
        request: AddOffsetsToTxnRequest,
        version: i16,
        offsets_partition: Option<i32>,
    ) -> AddOffsetsToTxnResponse {
        let error = match self.add_group(request, offsets_partition).await {
            ErrorCode::ProducerFenced if version < 2 => ErrorCode::InvalidProducerEpoch,
            error => error,
        };
        AddOffsetsToTxnResponse { error_code: error.code(), ..AddOffsetsToTxnResponse::default() }
    }

    async fn add_group(&self, request: AddOffsetsToTxnRequest, offsets_partition: Option<i32>) -> ErrorCode {
        let (Some(index), Ok(topic)) = (offsets_partition, TopicName::new(OFFSETS_TOPIC)) else {
            return ErrorCode::CoordinatorNotAvailable;
        };
        let partitions: Partitions = [TopicPartition::new(topic, index)].into_iter().collect();
        let producer = producer(request.producer_id, request.producer_epoch);
        let request = AddPartitions {
            transactional_id: request.transactional_id,
            producer,
            partitions,
            version: ClientVersion::V0,
        };
        let later = self.find(&request.transactional_id).and_then(|partition| {
            partition.ask(|machine, now, waiter, out| machine.add_partitions(now, waiter, &request, out))
        });
        added(reply(later).await)
    }

    /// Serves EndTxn; waits until the decision stands in the log, not for the markers. From version 5 on the answer says
    /// who the producer is in its next transaction.
    pub async fn end_txn(&self, request: EndTxnRequest, version: i16) -> EndTxnResponse {
        let request = EndTransaction {
            producer: producer(request.producer_id, request.producer_epoch),
            transactional_id: request.transactional_id,
            commit: request.committed,
            version: if version > 4 { ClientVersion::V2 } else { ClientVersion::V0 },
        };
        let later = self.find(&request.transactional_id).and_then(|partition| {
            partition.ask(|machine, now, waiter, out| machine.end_transaction(now, waiter, request, out))
        });
        let result = match reply(later).await {
            Ok(TransactionReply::End(result)) => result,
            Ok(_) => Err(ErrorCode::UnknownServerError),
            Err(error) => Err(error),
        };
        let (error, producer) = match result {
            Ok(producer) => (ErrorCode::None, producer),
            Err(ErrorCode::ProducerFenced) if version < 2 => {
                (ErrorCode::InvalidProducerEpoch, producer(-1, -1))
            }
            Err(error) => (error, producer(-1, -1)),
        };
        EndTxnResponse {
            error_code: error.code(),
            producer_id: if version > 4 { producer.id.get() } else { -1 },
            producer_epoch: if version > 4 { producer.epoch.get() } else { -1 },
            ..EndTxnResponse::default()
        }
    }

    /// Serves DescribeTransactions.
    #[must_use]
    pub fn describe(&self, request: &DescribeTransactionsRequest) -> DescribeTransactionsResponse {
        let describe = |id: &String| {
            let found = if id.is_empty() { Err(ErrorCode::InvalidRequest) } else { self.find(id) };
            let described = found.and_then(|partition| partition.look(|machine, _| machine.describe(id)));
            described.unwrap_or_else(|error| shapes::not_described(id, error))
        };
        DescribeTransactionsResponse {
            transaction_states: request.transactional_ids.iter().map(describe).collect(),
            ..DescribeTransactionsResponse::default()
        }
    }

    /// Serves ListTransactions: the ids of all partitions that this broker leads. While one of them loads, the list would
    /// have a hole: an error then.
    #[must_use]
    pub fn list(&self, request: &ListTransactionsRequest) -> ListTransactionsResponse {
        let failed = |error: ErrorCode| ListTransactionsResponse {
            error_code: error.code(),
            ..ListTransactionsResponse::default()
        };
        let filter = match TransactionFilter::new(request) {
            Ok(filter) => filter,
            Err(error) => return failed(error),
        };
        let mut response = ListTransactionsResponse {
            unknown_state_filters: filter.unknown_states().to_vec(),
            ..ListTransactionsResponse::default()
        };
        for id in 0..self.inner.around.log.partition_count().unwrap_or(0) {
            let listed = self
                .partition(id)
                .and_then(|partition| partition.look(|machine, now| machine.list(now, &filter)));
            match listed {
                Ok(listed) => response.transaction_states.extend(listed),
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return failed(error),
            }
        }
        response
    }
}

/// How far the addition of partitions is.
enum Begun {
    /// The answer for each.
    Each(Vec<ErrorCode>),
    /// One answer for all.
    Later(Later),
}
