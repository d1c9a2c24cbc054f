//! Produce: appends record batches.

mod burst;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use towpath_coordinator::TransactionalProducer;
use towpath_log::{AppendError, AppendOptions, TransactionCheck, VerificationGuard};
use towpath_record::{BatchHeader, Compression, InvalidRecord, Origin, ValidateError};
use towpath_replica::{Appended, Effort, Partition, PartitionError, TopicReplicas};
use towpath_types::{Offset, TopicId, TopicPartition};
use towpath_wire::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceData,
    PartitionProduceResponse, TopicProduceData, TopicProduceResponse,
};
use towpath_wire::{ApiKey, Decoder, ErrorCode, Message, ProduceRequest, ProduceResponse};

use super::{Begun, CurrentLeader, Reply, RequestContext, partition_error_code};
use crate::connection::ConnectionEnd;
use crate::metrics::BrokerMetrics;
use crate::state::BrokerState;
use crate::transactions::{Question, verify};

pub(crate) use burst::begin_burst;

/// The client id under which Kafka's tools may write to internal topics.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// From here on an answer can say who leads (KIP-951).
const VERSION_LEADER: i16 = 10;
/// From here on a producer understands TRANSACTION_ABORTABLE (KIP-890).
const VERSION_ABORTABLE: i16 = 11;
/// From here on a producer raises its epoch with every transaction and does not add partitions itself (KIP-890).
const VERSION_BUMP: i16 = 12;

/// An append that is not acknowledged yet.
struct Uncommitted {
    partition: Arc<Partition>,
    appended: Appended,
    /// Whether this broker's own disk is enough (`acks=1`).
    here: bool,
    /// Where its response is.
    at: (usize, usize),
}

/// Why one partition's batch was refused.
struct Refusal {
    code: ErrorCode,
    message: Option<String>,
    records: Vec<InvalidRecord>,
    /// Its transaction was not verified, or not any more.
    is_unverified: bool,
    /// Where the log begins, of a batch that reached it.
    log_start: Option<Offset>,
}

/// Why one partition's batch was not appended.
enum Refused {
    /// It is more work than the thread may do.
    TooMuchWork,
    For(Refusal),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None, records: Vec::new(), is_unverified: false, log_start: None }
    }
}

impl From<PartitionError> for Refusal {
    fn from(error: PartitionError) -> Self {
        let code = partition_error_code(&error);
        let message = Some(error.to_string());
        let is_unverified = matches!(error, PartitionError::Append(AppendError::NotVerified { .. }));
        let records = match error {
            PartitionError::Append(AppendError::Invalid(
                ValidateError::InvalidRecords(records) | ValidateError::InvalidTimestamps(records),
            )) => records,
            _ => Vec::new(),
        };
        Self { code, message, records, is_unverified, log_start: None }
    }
}

/// Appends everything at once; what has to wait for durability waits afterwards, while the connection's next requests
/// are appended. What is much work (large compressed batches, the topic's own compression) is done on another thread,
/// and the connection's next requests then wait for it: the order of its batches is the producer's.
pub(super) fn begin(
    broker: &Arc<BrokerState>,
    cx: RequestContext,
    mut body: Decoder,
) -> Result<Begun, ConnectionEnd> {
    let request = ProduceRequest::decode(&mut body, cx.version)?;
    Ok(begin_work(Work::new(Arc::clone(broker), cx, request)))
}

fn begin_work(work: Work) -> Begun {
    match work.question() {
        Some((question, guards)) => Begun::Beginning(Box::pin(verified(work, question, guards))),
        None => append_all(work),
    }
}

/// KIP-890: what would begin a transaction here is appended only once its coordinator knows of it.
async fn verified(
    mut work: Work,
    question: Question,
    guards: HashMap<TopicPartition, VerificationGuard>,
) -> Begun {
    let answers = verify(&work.broker, &question).await;
    work.verified = answers
        .into_iter()
        .filter_map(|(partition, code)| {
            let guard = *guards.get(&partition)?;
            let answer = if code == ErrorCode::None { Ok(guard) } else { Err(work.told(code)) };
            Some((partition, answer))
        })
        .collect();
    append_all(work)
}

fn append_all(mut work: Work) -> Begun {
    if work.run(Effort::Small) {
        return work.finish();
    }
    let broker = Arc::clone(&work.broker);
    Begun::Beginning(Box::pin(async move {
        // R10: each of these may hold a batch decompressed, or the tables of a codec.
        let place = Arc::clone(&broker.heavy_work).acquire_owned().await;
        let task = tokio::task::spawn_blocking(move || {
            work.run(Effort::Any);
            // Not sooner, also when the connection has ended meanwhile.
            drop(place);
            work
        });
        match task.await {
            Ok(work) => work.finish(),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Begun::Done(Reply::Close),
        }
    }))
}

/// The topic whose batches are being appended, and those of them that are left.
struct Topic {
    replicas: Arc<TopicReplicas>,
    left: std::vec::IntoIter<PartitionProduceData>,
}

/// A request on its way into the logs.
struct Work {
    broker: Arc<BrokerState>,
    cx: RequestContext,
    acks: i16,
    timeout: Duration,
    /// What is wrong with the whole request.
    refusal: Option<ErrorCode>,
    transactional_id: Option<String>,
    /// What the coordinator said of batches that begin a transaction here.
    verified: HashMap<TopicPartition, Result<VerificationGuard, ErrorCode>>,
    topics: std::vec::IntoIter<TopicProduceData>,
    topic: Option<Topic>,
    /// The batch that was too much work.
    held_back: Option<PartitionProduceData>,
    /// The last one is that of `topic`.
    responses: Vec<TopicProduceResponse>,
    uncommitted: Vec<Uncommitted>,
}

impl Work {
    fn new(broker: Arc<BrokerState>, cx: RequestContext, request: ProduceRequest) -> Self {
        let refusal = if !(-1..=1).contains(&request.acks) {
            Some(ErrorCode::InvalidRequiredAcks)
        } else {
            transactional_refusal(&request)
        };
        Self {
            broker,
            cx,
            acks: request.acks,
            timeout: Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
            refusal,
            transactional_id: request.transactional_id,
            verified: HashMap::new(),
            responses: Vec::with_capacity(request.topic_data.len()),
            topics: request.topic_data.into_iter(),
            topic: None,
            held_back: None,
            uncommitted: Vec::new(),
        }
    }

    /// What the transaction coordinator has to be asked before anything is appended, and the guards for what it affirms.
    fn question(&self) -> Option<(Question, HashMap<TopicPartition, VerificationGuard>)> {
        let transactional_id = self.transactional_id.as_ref().filter(|_| self.refusal.is_none())?;
        let tv2 = self.cx.version >= VERSION_BUMP;
        let (mut guards, mut partitions, mut producer) = (HashMap::new(), Vec::new(), None);
        for topic in self.topics.as_slice() {
            // What cannot be found or read is told when it is appended.
            let Ok(replicas) = self.find(topic) else { continue };
            for data in &topic.partition_data {
                let Some(header) = data.records.as_ref().and_then(|it| BatchHeader::parse(it).ok()) else {
                    continue;
                };
                let Ok(Some(partition)) = replicas.partition(data.index) else { continue };
                if let Ok(TransactionCheck::Verify(guard)) = partition.transaction_check(&header, tv2) {
                    producer =
                        Some(TransactionalProducer { id: header.producer_id, epoch: header.producer_epoch });
                    let at = TopicPartition::new(replicas.name().clone(), data.index);
                    guards.insert(at.clone(), guard);
                    partitions.push(at);
                }
            }
        }
        let question = Question {
            transactional_id: transactional_id.clone(),
            producer: producer?,
            verify_only: !tv2,
            partitions,
        };
        Some((question, guards))
    }

    /// What the producer is told of a coordinator's refusal, as Kafka does.
    fn told(&self, code: ErrorCode) -> ErrorCode {
        match code {
            ErrorCode::NetworkException
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            // Another partition of the same request was refused: the next request is without it.
            | ErrorCode::OperationNotAttempted => ErrorCode::NotEnoughReplicas,
            ErrorCode::ConcurrentTransactions if self.cx.version < VERSION_BUMP => {
                ErrorCode::NotEnoughReplicas
            }
            ErrorCode::TransactionAbortable if self.cx.version < VERSION_ABORTABLE => {
                ErrorCode::InvalidTxnState
            }
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            code => code,
        }
    }

    /// A batch whose proof was taken back by the marker of the transaction before: sent again, it is verified anew, and the
    /// coordinator says how it stands. Clients try again what they are told here.
    fn ask_again(&self, refused: Refused) -> Refused {
        match refused {
            Refused::For(refusal) if refusal.is_unverified => {
                Refused::For(Refusal { code: self.told(ErrorCode::ConcurrentTransactions), ..refusal })
            }
            refused => refused,
        }
    }

    /// Appends what is left; false when the next batch is more work than `effort`.
    fn run(&mut self, effort: Effort) -> bool {
        loop {
            let next = self.held_back.take().or_else(|| self.topic.as_mut()?.left.next());
            match (next, &self.topic) {
                (Some(data), Some(topic)) => {
                    let replicas = Arc::clone(&topic.replicas);
                    match self.append(&replicas, &data, effort) {
                        Some(response) => self.respond(response),
                        None => {
                            self.held_back = Some(data);
                            return false;
                        }
                    }
                }
                _ => match self.topics.next() {
                    Some(topic) => self.open(topic),
                    None => return true,
                },
            }
        }
    }

    fn respond(&mut self, response: PartitionProduceResponse) {
        if let Some(topic) = self.responses.last_mut() {
            topic.partition_responses.push(response);
        }
    }

    /// Looks the next topic up.
    fn open(&mut self, topic: TopicProduceData) {
        let found = match self.refusal {
            Some(code) => Err(code),
            None => self.find(&topic),
        };
        let response = TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses: Vec::with_capacity(topic.partition_data.len()),
        };
        self.responses.push(response);
        match found {
            Ok(replicas) => self.topic = Some(Topic { replicas, left: topic.partition_data.into_iter() }),
            Err(code) => {
                self.topic = None;
                topic.partition_data.iter().for_each(|data| self.respond(refused(data.index, code.into())));
            }
        }
    }

    fn find(&self, topic: &TopicProduceData) -> Result<Arc<TopicReplicas>, ErrorCode> {
        let (replicas, unknown) = if self.cx.version >= 13 {
            let id = TopicId::new(topic.topic_id);
            (self.broker.replicas.topic_by_id(id), ErrorCode::UnknownTopicId)
        } else {
            (self.broker.replicas.topic(&topic.name), ErrorCode::UnknownTopicOrPartition)
        };
        let replicas = replicas.ok_or(unknown)?;
        let name = replicas.name().as_str();
        let is_admin = self.cx.client_id.as_deref() == Some(ADMIN_CLIENT_ID);
        if name.starts_with("__") && is_internal(&self.broker, name) && !is_admin {
            return Err(ErrorCode::InvalidTopicException);
        }
        Ok(replicas)
    }

    /// Appends one batch; `None` when that is more work than `effort`.
    fn append(
        &mut self,
        topic: &TopicReplicas,
        data: &PartitionProduceData,
        effort: Effort,
    ) -> Option<PartitionProduceResponse> {
        let appended = match topic.partition(data.index) {
            Ok(Some(partition)) => {
                let verified = self.verified.get(partition.id()).copied().transpose();
                let appended = verified.map_err(|code| Refused::For(code.into())).and_then(|guard| {
                    let options = AppendOptions { origin: Origin::Client, effort, guard };
                    append(&partition, self.cx.version, self.acks, data.records.clone(), &options)
                        .map_err(|refused| self.ask_again(refused))
                });
                match appended {
                    Err(Refused::TooMuchWork) => return None,
                    Err(Refused::For(refusal)) => Err(refusal),
                    Ok(appended) => Ok((partition, appended)),
                }
            }
            Ok(None) => Err(ErrorCode::UnknownTopicOrPartition.into()),
            Err(error) => Err(error.into()),
        };
        Some(self.told_of(data.index, appended))
    }

    /// The response for one partition.
    fn told_of(
        &mut self,
        index: i32,
        appended: Result<(Arc<Partition>, Appended), Refusal>,
    ) -> PartitionProduceResponse {
        match appended {
            Ok((partition, appended)) => {
                // With acks=1 the leader's own log is enough, as far as it need not be flushed first.
                let waits = self.acks == -1 || (self.acks == 1 && partition.counts_when_flushed());
                if !appended.committed && waits {
                    let topic = self.responses.len().saturating_sub(1);
                    let at =
                        (topic, self.responses.last().map_or(0, |topic| topic.partition_responses.len()));
                    self.uncommitted.push(Uncommitted { partition, appended, here: self.acks == 1, at });
                }
                self.broker.metrics.bytes_in.increment(appended.bytes);
                let records = appended.info.last_offset.get() - appended.info.first_offset.get() + 1;
                self.broker.metrics.records_in.increment(u64::try_from(records).unwrap_or(0));
                succeeded(index, &appended)
            }
            Err(refusal) => refused(index, refusal),
        }
    }

    /// Everything is appended: the answer, or the wait for it.
    fn finish(self) -> Begun {
        let Self { broker, cx, acks, timeout, responses, uncommitted, .. } = self;
        let mut response = ProduceResponse { responses, ..ProduceResponse::default() };
        if acks == 0 {
            let partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
            let failed = partitions.into_iter().any(|partition| partition.error_code != 0);
            // Without an answer, the end of the connection is the only way to say that something is wrong.
            return Begun::Done(if failed { Reply::Close } else { Reply::Nothing });
        }
        if uncommitted.is_empty() {
            tell_leaders(&broker, cx.version, &mut response);
            return Begun::Done(cx.reply(ApiKey::Produce, &response));
        }
        Begun::Waiting(Box::pin(async move {
            wait(&mut response, uncommitted, timeout).await;
            tell_leaders(&broker, cx.version, &mut response);
            cx.reply(ApiKey::Produce, &response)
        }))
    }
}

/// Whoever asks the wrong broker is told the right one (KIP-951).
fn tell_leaders(broker: &BrokerState, version: i16, response: &mut ProduceResponse) {
    if version < VERSION_LEADER {
        return;
    }
    let mut image = None;
    for topic in &mut response.responses {
        for partition in &mut topic.partition_responses {
            if partition.error_code != ErrorCode::NotLeaderOrFollower.code() {
                continue;
            }
            let image = image.get_or_insert_with(|| broker.image());
            let id = TopicId::new(topic.topic_id);
            let known = image.topic_by_id(id).or_else(|| image.topic(&topic.name));
            let Some(leader) = known.and_then(|topic| CurrentLeader::find(image, topic, partition.index))
            else {
                continue;
            };
            partition.current_leader =
                LeaderIdAndEpoch { leader_id: leader.id.get(), leader_epoch: leader.epoch.get() };
            if !response.node_endpoints.iter().any(|endpoint| endpoint.node_id == leader.id.get()) {
                response.node_endpoints.push(NodeEndpoint {
                    node_id: leader.id.get(),
                    host: leader.host,
                    port: leader.port,
                    rack: leader.rack,
                });
            }
        }
    }
}

/// What is wrong with the transactions of a request. One belongs to one producer, and says its transactional id.
fn transactional_refusal(request: &ProduceRequest) -> Option<ErrorCode> {
    let batches = request.topic_data.iter().flat_map(|topic| &topic.partition_data);
    let headers = batches.filter_map(|data| BatchHeader::parse(data.records.as_ref()?).ok());
    let mut producer = None;
    for header in headers.filter(BatchHeader::is_transactional) {
        if request.transactional_id.is_none() {
            return Some(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        let this = (header.producer_id, header.producer_epoch);
        if *producer.get_or_insert(this) != this {
            return Some(ErrorCode::InvalidProducerIdMapping);
        }
    }
    None
}

fn is_internal(broker: &BrokerState, name: &str) -> bool {
    broker.image().topic(name).is_some_and(|topic| topic.is_internal())
}

fn append(
    partition: &Arc<Partition>,
    version: i16,
    acks: i16,
    records: Option<Bytes>,
    options: &AppendOptions,
) -> Result<Appended, Refused> {
    let invalid = |message: &str| {
        Refused::For(Refusal {
            code: ErrorCode::InvalidRecord,
            message: Some(message.to_owned()),
            records: Vec::new(),
            is_unverified: false,
            log_start: None,
        })
    };
    let records = records.filter(|records| !records.is_empty()).ok_or_else(|| {
        invalid("a partition takes exactly one record batch per request, and there is none")
    })?;
    let mut is_one = false;
    match BatchHeader::parse(&records) {
        Ok(header) => {
            is_one = header.size_in_bytes() == records.len();
            if version < 7 && header.compression().is_ok_and(|codec| codec == Compression::Zstd) {
                return Err(Refused::For(ErrorCode::UnsupportedCompressionType.into()));
            }
        }
        Err(error @ towpath_record::BatchError::Magic(_)) => return Err(invalid(&error.to_string())),
        // The log says what is wrong.
        Err(_) => {}
    }
    partition.append_with(records, acks == -1, options).map_err(|error| match error {
        PartitionError::Append(AppendError::TooMuchWork) => Refused::TooMuchWork,
        error => Refused::For(refusal_of(partition, error, is_one)),
    })
}

/// What is told of a batch that was refused; `is_one` when nothing comes behind it.
fn refusal_of(partition: &Partition, error: PartitionError, is_one: bool) -> Refusal {
    let log_start = (is_one && tells_log_start(&error)).then(|| partition.log().log_start_offset());
    Refusal { log_start, ..error.into() }
}

/// Whether Kafka says beside this error where the log begins.
const fn tells_log_start(error: &PartitionError) -> bool {
    let PartitionError::Append(error) = error else { return false };
    match error {
        AppendError::Invalid(error) => matches!(
            error,
            ValidateError::InvalidBatch(_)
                | ValidateError::InvalidRecords(_)
                | ValidateError::InvalidTimestamps(_)
        ),
        AppendError::OutOfOrderSequence { .. }
        | AppendError::InvalidProducerEpoch { .. }
        | AppendError::InvalidTxnState { .. }
        | AppendError::NotVerified { .. } => true,
        _ => false,
    }
}

fn succeeded(index: i32, appended: &Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: ErrorCode::None.code(),
        base_offset: appended.info.first_offset.get(),
        log_append_time_ms: appended.info.log_append_time_ms.unwrap_or(-1),
        log_start_offset: appended.info.log_start_offset.get(),
        ..PartitionProduceResponse::default()
    }
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    BrokerMetrics::error(ApiKey::Produce, refusal.code);
    let record_errors = refusal
        .records
        .into_iter()
        .map(|record| BatchIndexAndErrorMessage {
            batch_index: record.index,
            batch_index_error_message: Some(record.problem.to_owned()),
        })
        .collect();
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: refusal.log_start.map_or(-1, Offset::get),
        record_errors,
        error_message: refusal.message,
        current_leader: LeaderIdAndEpoch::default(),
    }
}

impl Uncommitted {
    async fn acknowledged(&self) -> Result<(), PartitionError> {
        if self.here {
            self.partition.durable(&self.appended).await
        } else {
            self.partition.committed(&self.appended).await
        }
    }
}

/// Waits until everything is committed; what is not in time is said to be so. The waits go on side by side: one
/// flush may end several of them.
async fn wait(response: &mut ProduceResponse, uncommitted: Vec<Uncommitted>, timeout: Duration) {
    let deadline = tokio::time::Instant::now() + timeout;
    for append in uncommitted {
        let refusal: Refusal = match tokio::time::timeout_at(deadline, append.acknowledged()).await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.into(),
            Err(_) => ErrorCode::RequestTimedOut.into(),
        };
        let (topic, index) = append.at;
        let slot =
            response.responses.get_mut(topic).and_then(|topic| topic.partition_responses.get_mut(index));
        if let Some(slot) = slot {
            *slot = refused(slot.index, refusal);
        }
    }
}
