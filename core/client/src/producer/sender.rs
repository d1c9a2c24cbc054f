//! The task behind a producer: carries out the accumulator's plans.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use towpath_types::{ProducerEpoch, ProducerId, TopicName};
use towpath_wire::messages::init_producer_id::InitProducerIdRequest;
use towpath_wire::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use towpath_wire::{ApiKey, ErrorCode, Request};

use super::Shared;
use super::accumulator::{NodeRequest, Plan, Readiness, Sendable};
use super::ack::BatchOutcome;
use super::queue::{Verdict, judge, judge_transactional};
use super::transaction::calls::Caller;
use super::transaction::machine::{Answer, Call, Ended};
use crate::ClientError;
use crate::backoff::Backoff;
use crate::client::{Channel, ClientInner, check, now_ms};
use crate::connection::Connection;
use crate::error::code_wants_metadata;
use crate::metadata::Cluster;
use crate::metrics::ProducerMetrics;

/// The last version that names topics; the next has their ids.
const PRODUCE_VERSION_NAMES: i16 = 12;
/// The last version before brokers add partitions to transactions by themselves (KIP-890).
const PRODUCE_VERSION_V1: i16 = 11;

/// What the sender knows of a broker.
#[derive(Debug, Default)]
struct NodeState {
    connection: Option<Connection>,
    connecting: bool,
    in_flight: usize,
    /// The connection's number.
    generation: u64,
}

/// What the sender waits for.
enum Event {
    Connected(i32, Result<Connection, ClientError>),
    Answered(i32, Vec<Sendable>, Result<Option<ProduceResponse>, ClientError>, Arc<str>),
    Refreshed(Result<Arc<Cluster>, ClientError>),
    Identity(Result<(ProducerId, ProducerEpoch), ClientError>),
    Called(Call, Answer),
}

pub(super) struct Sender {
    client: Arc<ClientInner>,
    channel: Arc<Channel>,
    shared: Arc<Shared>,
    nodes: HashMap<i32, NodeState>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    /// Connections opened so far.
    connections: u64,
    refreshing: bool,
    identifying: bool,
    /// Not before, after a failure.
    refresh_after: Option<Instant>,
    refresh_backoff: Backoff,
    identify_backoff: Backoff,
    refresh_due: Instant,
    /// What asks coordinators, for transactions.
    caller: Option<Arc<Caller>>,
    metrics: ProducerMetrics,
}

impl Sender {
    pub(super) fn new(client: Arc<ClientInner>, shared: Arc<Shared>, transaction_timeout_ms: u64) -> Self {
        let max_age = Duration::from_millis(client.config.metadata_max_age_ms);
        let channel = Arc::new(client.channel());
        let caller = shared.transactional_id.as_ref().map(|id| {
            let (client, channel) = (Arc::clone(&client), Arc::clone(&channel));
            Arc::new(Caller::new(client, channel, Arc::clone(id), transaction_timeout_ms))
        });
        Self {
            channel,
            caller,
            metrics: ProducerMetrics::new(&client.config.client_id),
            refresh_backoff: client.retry_backoff(),
            identify_backoff: client.retry_backoff(),
            client,
            shared,
            nodes: HashMap::new(),
            events: FuturesUnordered::new(),
            connections: 0,
            refreshing: false,
            identifying: false,
            refresh_after: None,
            refresh_due: Instant::now() + max_age,
        }
    }

    /// Runs until the producer is closed.
    pub(super) async fn run(mut self) {
        while !self.shared.closed.load(Ordering::Acquire) {
            let wake_at = self.step();
            tokio::select! {
                biased;
                Some(event) = self.events.next() => self.handle(event),
                () = self.shared.wake.notified() => {}
                () = sleep_until(wake_at) => {}
            }
        }
        if self.caller.is_some() {
            self.abort_at_the_end().await;
        }
        let wakers = {
            let mut accumulator = self.shared.accumulator.lock();
            let mut wakers = accumulator.fail_all(&ClientError::Closed);
            wakers.extend(accumulator.barriers.take_wakers());
            wakers
        };
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.shared.freed.notify_waiters();
        self.shared.settled.notify_waiters();
    }

    /// Nobody holds the producer any more: a transaction that it left open would keep readers waiting.
    async fn abort_at_the_end(&mut self) {
        let deadline = Instant::now() + self.client.request_timeout();
        if let Some(machine) = &mut self.shared.accumulator.lock().transaction {
            machine.abandon();
        }
        while Instant::now() < deadline {
            let wake_at = self.step();
            let ending = self.shared.accumulator.lock().transaction.as_ref().is_some_and(|m| m.is_ending());
            if !ending {
                return;
            }
            tokio::select! {
                Some(event) = self.events.next() => self.handle(event),
                () = sleep_until(min(wake_at, Some(deadline))) => {}
            }
        }
    }

    /// Sends what can be sent; says when to look again.
    fn step(&mut self) -> Option<Instant> {
        loop {
            let now = Instant::now();
            let cluster = self.client.cluster();
            let nodes = &mut self.nodes;
            for state in nodes.values_mut() {
                if state.connection.as_ref().is_some_and(|connection| !connection.is_open()) {
                    state.connection = None;
                }
            }
            let in_flight_max = self.shared.in_flight_max;
            let readiness = |node: i32| match nodes.get(&node) {
                Some(state) if state.connecting || state.in_flight >= in_flight_max => Readiness::Busy,
                Some(NodeState { connection: Some(_), generation, .. }) => Readiness::Ready(*generation),
                _ => Readiness::Unconnected,
            };
            let (mut plan, used) = {
                let mut accumulator = self.shared.accumulator.lock();
                (accumulator.plan(now, &cluster, readiness), accumulator.used())
            };
            self.metrics.buffer.set(used as f64);
            plan.wakers.drain(..).for_each(std::task::Waker::wake);
            if plan.freed {
                self.shared.freed.notify_waiters();
            }
            let sent = !plan.requests.iter().all(|request| request.batches.is_empty());
            self.carry_out(&mut plan, now);
            let call_at = self.call(now);
            if !sent {
                return min(min(plan.wake_at, call_at), self.refresh_wake(now, &plan.stale));
            }
        }
    }

    fn carry_out(&mut self, plan: &mut Plan, now: Instant) {
        for request in plan.requests.drain(..) {
            if !request.batches.is_empty() {
                self.send(request);
            }
        }
        for node in plan.connect.drain(..) {
            self.connect(node);
        }
        if plan.needs_id && !self.identifying {
            self.identify(Duration::ZERO);
        }
        if now >= self.refresh_due {
            let topics = self.shared.accumulator.lock().topic_names();
            self.refresh(topics);
        } else if !plan.stale.is_empty() && self.refresh_after.is_none_or(|at| at <= now) {
            plan.stale.sort_unstable();
            plan.stale.dedup();
            self.refresh(plan.stale.clone());
        }
    }

    fn refresh_wake(&self, now: Instant, stale: &[TopicName]) -> Option<Instant> {
        let retry = self.refresh_after.filter(|at| !stale.is_empty() && *at > now && !self.refreshing);
        min(Some(self.refresh_due), retry)
    }

    /// Asks a coordinator if something is to be asked; says when to look again.
    fn call(&mut self, now: Instant) -> Option<Instant> {
        let caller = self.caller.clone()?;
        let v2 = self.client.features().transactions_v2();
        let (call, retry_at) = {
            let mut accumulator = self.shared.accumulator.lock();
            accumulator.transaction.as_mut()?.learn(v2);
            let call = accumulator.next_call(now);
            (call, accumulator.transaction.as_ref().and_then(|machine| machine.retry_at()))
        };
        match call {
            Some((call, partitions)) => self.events.push(Box::pin(async move {
                let answer = caller.make(&call, partitions).await;
                Event::Called(call, answer)
            })),
            // It may have found that there is nothing to ask: a transaction is over without a word.
            None => self.shared.settled.notify_waiters(),
        }
        retry_at.filter(|at| *at > now)
    }

    fn connect(&mut self, node: i32) {
        self.nodes.entry(node).or_default().connecting = true;
        let channel = Arc::clone(&self.channel);
        self.events.push(Box::pin(async move { Event::Connected(node, channel.connection(node).await) }));
    }

    fn identify(&mut self, delay: Duration) {
        self.identifying = true;
        let client = Arc::clone(&self.client);
        self.events.push(Box::pin(async move {
            tokio::time::sleep(delay).await;
            Event::Identity(init_producer_id(&client).await)
        }));
    }

    fn refresh(&mut self, topics: Vec<TopicName>) {
        self.refresh_due = Instant::now() + Duration::from_millis(self.client.config.metadata_max_age_ms);
        if self.refreshing {
            return;
        }
        self.refreshing = true;
        let client = Arc::clone(&self.client);
        let auto_create = self.shared.allow_auto_create_topics;
        self.events
            .push(Box::pin(async move { Event::Refreshed(client.refresh(&topics, auto_create).await) }));
    }

    /// Builds the batches and puts the request on the wire.
    fn send(&mut self, request: NodeRequest) {
        let node = request.node;
        let mut batches = request.batches;
        let mut built = Vec::with_capacity(batches.len());
        let mut builders = Vec::new();
        let mut index = 0;
        while index < batches.len() {
            match batches[index].batch.build() {
                Ok((bytes, builder)) => {
                    built.push(bytes);
                    builders.extend(builder);
                    index += 1;
                }
                Err(error) => {
                    let failed = batches.swap_remove(index);
                    self.finish_one(failed, Verdict::Fail, error);
                }
            }
        }
        if !builders.is_empty() {
            let mut accumulator = self.shared.accumulator.lock();
            builders.into_iter().for_each(|builder| accumulator.recycle(builder));
        }
        if batches.is_empty() {
            return;
        }
        let state = self.nodes.entry(node).or_default();
        let Some(connection) = state.connection.clone() else {
            let error = ClientError::Closed;
            batches.into_iter().for_each(|batch| self.finish_one(batch, Verdict::Retry, error.clone()));
            return;
        };
        state.in_flight += 1;
        self.metrics.batches.increment(batches.len() as u64);
        self.metrics.bytes.increment(built.iter().map(|bytes| bytes.len() as u64).sum());
        let event = self.put_on_wire(node, connection, batches, built);
        self.events.push(event);
    }

    fn put_on_wire(
        &self,
        node: i32,
        connection: Connection,
        batches: Vec<Sendable>,
        built: Vec<bytes::Bytes>,
    ) -> BoxFuture<'static, Event> {
        let broker = Arc::clone(connection.broker());
        let version = match connection.version_of(ProduceRequest::KEY) {
            Ok(version) => version,
            Err(error) => return Box::pin(async move { Event::Answered(node, batches, Err(error), broker) }),
        };
        let ids = batches.iter().all(|sendable| !sendable.topic_id.is_zero());
        let version = if ids { version } else { version.min(PRODUCE_VERSION_NAMES) };
        let version = if self.adds_partitions() { version.min(PRODUCE_VERSION_V1) } else { version };
        let limit = self.client.request_timeout();
        let mut request = produce_request(&batches, built, self.shared.acks.wire(), limit);
        request.transactional_id = self.shared.transactional_id.as_ref().map(ToString::to_string);
        if request.acks == 0 {
            let written = connection.begin_oneway(&request, version);
            return Box::pin(async move {
                let result = match written {
                    Ok(written) => connection.written(written, ApiKey::Produce, limit).await.map(|()| None),
                    Err(error) => Err(error),
                };
                Event::Answered(node, batches, result, broker)
            });
        }
        let (begun, seconds) = (Instant::now(), self.metrics.seconds.clone());
        let in_flight = connection.begin(&request, version);
        Box::pin(async move {
            let result = match in_flight {
                Ok(in_flight) => in_flight.answer(limit).await.map(Some),
                Err(error) => Err(error),
            };
            seconds.record(begun.elapsed());
            Event::Answered(node, batches, result, broker)
        })
    }

    /// Whether this producer adds partitions to its transactions itself.
    fn adds_partitions(&self) -> bool {
        self.caller.is_some()
            && self.shared.accumulator.lock().transaction.as_ref().is_some_and(|machine| !machine.is_v2())
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Called(call, answer) => {
                let mut accumulator = self.shared.accumulator.lock();
                accumulator.call_answered(Instant::now(), &call, answer);
                let ended = accumulator.transaction.as_mut().and_then(|machine| machine.take_ended());
                drop(accumulator);
                match ended {
                    Some(Ended::Committed) => self.metrics.committed.increment(1),
                    Some(Ended::Aborted) => self.metrics.aborted.increment(1),
                    None => {}
                }
                self.shared.settled.notify_waiters();
            }
            Event::Connected(node, result) => {
                let state = self.nodes.entry(node).or_default();
                state.connecting = false;
                match result {
                    Ok(connection) => {
                        self.connections += 1;
                        state.generation = self.connections;
                        state.connection = Some(connection);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "producer cannot connect");
                        let mut accumulator = self.shared.accumulator.lock();
                        accumulator.set_problem(error);
                        let topics = accumulator.topic_names();
                        drop(accumulator);
                        self.refresh(topics);
                    }
                }
            }
            Event::Answered(node, batches, result, broker) => {
                if let Some(state) = self.nodes.get_mut(&node) {
                    state.in_flight = state.in_flight.saturating_sub(1);
                }
                self.answered(batches, result, &broker);
                self.shared.freed.notify_waiters();
                self.shared.settled.notify_waiters();
            }
            Event::Refreshed(result) => {
                self.refreshing = false;
                match result {
                    Ok(_) => self.refresh_backoff.reset(),
                    Err(error) => self.shared.accumulator.lock().set_problem(error),
                }
                // Also after a success: a topic without a leader is not asked for in a busy loop.
                self.refresh_after = Some(Instant::now() + self.refresh_backoff.next());
            }
            Event::Identity(result) => {
                self.identifying = false;
                match result {
                    Ok(identity) => {
                        self.identify_backoff.reset();
                        self.shared.accumulator.lock().set_identity(identity);
                    }
                    Err(error) => self.identity_failed(error),
                }
            }
        }
    }

    fn identity_failed(&mut self, error: ClientError) {
        tracing::debug!(%error, "no producer id");
        if error.is_retriable() {
            self.shared.accumulator.lock().set_problem(error);
            let delay = self.identify_backoff.next();
            self.identify(delay);
            return;
        }
        let wakers = self.shared.accumulator.lock().fail_all(&error);
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.shared.freed.notify_waiters();
    }

    fn answered(
        &mut self,
        batches: Vec<Sendable>,
        result: Result<Option<ProduceResponse>, ClientError>,
        broker: &Arc<str>,
    ) {
        let mut stale = Vec::new();
        match result {
            Ok(response) => {
                let response = response.unwrap_or_default();
                for sendable in batches {
                    let answer =
                        if self.shared.acks.wire() == 0 { Some(&ONEWAY) } else { find(&response, &sendable) };
                    let code = answer.map(|answer| ErrorCode::from_code(answer.error_code));
                    if code.is_some_and(code_wants_metadata) {
                        stale.push(sendable.topic.clone());
                    }
                    self.conclude(sendable, answer, broker);
                }
            }
            Err(error) => {
                let now_ms = now_ms();
                for sendable in batches {
                    let verdict = match error.is_retriable() {
                        true if sendable.batch.may_be_forgotten(now_ms) => Verdict::Uncertain,
                        true => Verdict::Retry,
                        false => Verdict::Fail,
                    };
                    if error.wants_metadata() {
                        stale.push(sendable.topic.clone());
                    }
                    self.finish_one(sendable, verdict, error.clone());
                }
            }
        }
        if !stale.is_empty() {
            stale.sort_unstable();
            stale.dedup();
            self.refresh(stale);
        }
    }

    fn conclude(&self, sendable: Sendable, answer: Option<&PartitionProduceResponse>, broker: &Arc<str>) {
        let Some(answer) = answer else {
            let problem = "it leaves out a partition";
            let broker = Arc::clone(broker);
            let error = ClientError::Malformed { broker, api: ApiKey::Produce, problem };
            self.finish_one(sendable, Verdict::Fail, error);
            return;
        };
        let mut accumulator = self.shared.accumulator.lock();
        let head = accumulator.is_head(sendable.queue, &sendable.batch);
        let code = ErrorCode::from_code(answer.error_code);
        let verdict = match &accumulator.transaction {
            Some(_) => judge_transactional(code, head),
            None => judge(code, accumulator.is_idempotent(), head),
        };
        let outcome = BatchOutcome {
            partition: sendable.partition,
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
        };
        let subject = format_args!("{}-{}", sendable.topic, sendable.partition);
        let error = match check(answer.error_code, words(answer), ApiKey::Produce, broker, subject) {
            Ok(()) => ClientError::Closed,
            Err(error) => error,
        };
        self.metrics.count(verdict, sendable.batch.records);
        let now = Instant::now();
        let wakers = accumulator.answered(sendable.queue, sendable.batch, verdict, outcome, error, now);
        drop(accumulator);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    fn finish_one(&self, sendable: Sendable, verdict: Verdict, error: ClientError) {
        let outcome = BatchOutcome { partition: sendable.partition, base_offset: -1, log_append_time_ms: -1 };
        self.metrics.count(verdict, sendable.batch.records);
        let wakers = self.shared.accumulator.lock().answered(
            sendable.queue,
            sendable.batch,
            verdict,
            outcome,
            error,
            Instant::now(),
        );
        wakers.into_iter().for_each(std::task::Waker::wake);
        self.shared.freed.notify_waiters();
    }
}

impl ProducerMetrics {
    fn count(&self, verdict: Verdict, records: i32) {
        match verdict {
            Verdict::Acked | Verdict::Duplicate => {
                self.records.increment(u64::try_from(records).unwrap_or(0))
            }
            Verdict::Retry | Verdict::Uncertain | Verdict::NewEpoch => self.retries.increment(1),
            Verdict::Fail | Verdict::FailNewId => {
                self.failures.increment(u64::try_from(records).unwrap_or(0));
            }
        }
    }
}

/// The answer to a request that has none.
static ONEWAY: PartitionProduceResponse = PartitionProduceResponse {
    index: 0,
    error_code: 0,
    base_offset: -1,
    log_append_time_ms: -1,
    log_start_offset: -1,
    record_errors: Vec::new(),
    error_message: None,
    current_leader: towpath_wire::messages::produce::LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 },
};

/// The broker's words: of the batch, or of the first record at fault.
fn words(answer: &PartitionProduceResponse) -> Option<String> {
    let of_record = || {
        let first = answer.record_errors.first()?;
        let message = first.batch_index_error_message.as_deref().unwrap_or("refused");
        Some(format!("record {} of the batch: {message}", first.batch_index))
    };
    of_record().or_else(|| answer.error_message.clone())
}

fn find<'a>(response: &'a ProduceResponse, sendable: &Sendable) -> Option<&'a PartitionProduceResponse> {
    let same = |topic: &&towpath_wire::messages::produce::TopicProduceResponse| {
        if topic.topic_id.is_nil() {
            topic.name == sendable.topic.as_str()
        } else {
            topic.topic_id == sendable.topic_id.get()
        }
    };
    let topics = response.responses.iter().filter(same);
    topics.flat_map(|topic| &topic.partition_responses).find(|answer| answer.index == sendable.partition)
}

fn produce_request(
    batches: &[Sendable],
    built: Vec<bytes::Bytes>,
    acks: i16,
    limit: Duration,
) -> ProduceRequest {
    let mut topic_data: Vec<TopicProduceData> = Vec::new();
    for (sendable, records) in batches.iter().zip(built) {
        let data = PartitionProduceData { index: sendable.partition, records: Some(records) };
        match topic_data.iter_mut().find(|topic| topic.name == sendable.topic.as_str()) {
            Some(topic) => topic.partition_data.push(data),
            None => topic_data.push(TopicProduceData {
                name: sendable.topic.as_str().to_owned(),
                topic_id: sendable.topic_id.get(),
                partition_data: vec![data],
            }),
        }
    }
    let timeout_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    ProduceRequest { transactional_id: None, acks, timeout_ms, topic_data }
}

async fn init_producer_id(client: &ClientInner) -> Result<(ProducerId, ProducerEpoch), ClientError> {
    // Without a transactional id: idempotence alone.
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..Default::default()
    };
    let (response, broker) = client.request_any(&request).await?;
    check(response.error_code, None, ApiKey::InitProducerId, &broker, "the producer")?;
    Ok((ProducerId::new(response.producer_id), ProducerEpoch::new(response.producer_epoch)))
}

fn min(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
