//! Records into batches, batches into requests; pure: time, metadata and answers come from outside.

use std::task::Waker;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;
use towpath_record::{BatchBuilder, Codec, Header};
use towpath_types::{ProducerEpoch, ProducerId, TopicId, TopicName, TopicPartition};

use super::ack::{Ack, BatchOutcome, DoneGuard};
use super::barrier::{Barriers, Generations};
use super::queue::{Batch, Content, PartitionQueue, Verdict};
use super::transaction::machine::{Answer, Call, Machine};
use crate::ClientError;
use crate::backoff::Backoff;
use crate::metadata::{Cluster, TopicMeta};
use crate::partitioner::{Sticky, partition_for_key};

/// Builders kept for reuse.
const BUILDERS_MAX: usize = 16;

/// Bytes of batches in one produce request (a single larger batch travels alone).
const REQUEST_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) batch_bytes: usize,
    pub(super) linger: Duration,
    pub(super) buffer_memory: usize,
    /// `None` retries for ever.
    pub(super) delivery_timeout: Option<Duration>,
    pub(super) codec: Codec,
    pub(super) idempotent: bool,
    /// Batches of one partition in flight.
    pub(super) in_flight_per_partition: usize,
    /// Nothing of a partition follows a batch that failed.
    pub(super) stop_after_failure: bool,
    /// Its identity was given to it, and is the only one that it may have (R6).
    pub(super) keeps_identity: bool,
    pub(super) backoff: Backoff,
}

/// One record on its way in.
#[derive(Debug)]
pub(super) struct NewRecord<'a> {
    pub(super) topic: &'a TopicName,
    pub(super) partition: Option<i32>,
    pub(super) timestamp_ms: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    pub(super) headers: &'a [Header<'a>],
    /// An upper bound of its bytes in the batch.
    pub(super) bytes: usize,
    pub(super) want_ack: bool,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Appended {
    /// It is in a batch; `wake` says whether the sender has something new to look at.
    Done { ack: Option<Ack>, wake: bool },
    /// `buffer_memory` is used up: wait until some is free.
    Full,
    /// The topic's partitions are not known.
    UnknownTopic,
    /// There are only that many partitions.
    UnknownPartition(usize),
    /// The batch refused it.
    Failed(ClientError),
}

#[derive(Debug)]
struct TopicSlots {
    /// The queue of each partition.
    queues: Vec<usize>,
    /// Partitions with a leader, in order; all when none has one.
    available: Vec<i32>,
    sticky: Sticky,
    version: u64,
    /// Partitions that there are now: fewer than queues when the topic was created again.
    count: usize,
}

/// What to send to one broker.
#[derive(Debug)]
pub(super) struct NodeRequest {
    pub(super) node: i32,
    pub(super) batches: Vec<Sendable>,
    bytes: usize,
}

/// One batch to send.
#[derive(Debug)]
pub(super) struct Sendable {
    pub(super) queue: usize,
    pub(super) topic: TopicName,
    pub(super) topic_id: TopicId,
    pub(super) partition: i32,
    pub(super) batch: Batch,
}

/// Whether a broker takes a request now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Readiness {
    /// On the connection with this number; every new one has another.
    Ready(u64),
    /// It has as many requests as it may, or a connection is being opened.
    Busy,
    /// There is no connection.
    Unconnected,
}

/// What the sender has to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) requests: Vec<NodeRequest>,
    /// Brokers to connect to.
    pub(super) connect: Vec<i32>,
    /// Topics whose leaders are not known.
    pub(super) stale: Vec<TopicName>,
    /// When to look again, even if nothing happens.
    pub(super) wake_at: Option<Instant>,
    /// Whether a new producer id is needed first.
    pub(super) needs_id: bool,
    /// To be woken outside of the lock.
    pub(super) wakers: Vec<Waker>,
    /// Whether buffer memory became free.
    pub(super) freed: bool,
}

#[derive(Debug)]
pub(super) struct Accumulator {
    settings: Settings,
    topics: HashMap<TopicName, TopicSlots>,
    /// The snapshot that `topics` follows.
    cluster_version: u64,
    queues: Vec<PartitionQueue>,
    /// Queues with open or closed batches.
    active: Vec<usize>,
    used: usize,
    /// Somebody waits for memory: nothing lingers.
    exhausted: bool,
    next_batch: u64,
    /// Batches below this id do not linger.
    flush_below: u64,
    pub(super) barriers: Barriers,
    builders: Vec<BatchBuilder>,
    /// Whether the sender will look again by itself within the linger time.
    sender_has_timer: bool,
    identity: Option<(ProducerId, ProducerEpoch)>,
    /// The last problem that kept batches from being sent, for the message when they time out.
    problem: Option<ClientError>,
    /// A transactional producer's state.
    pub(super) transaction: Option<Box<Machine>>,
}

impl Accumulator {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            topics: HashMap::new(),
            cluster_version: 0,
            queues: Vec::new(),
            active: Vec::new(),
            used: 0,
            exhausted: false,
            next_batch: 0,
            flush_below: 0,
            barriers: Barriers::default(),
            builders: Vec::new(),
            sender_has_timer: false,
            identity: None,
            problem: None,
            transaction: None,
        }
    }

    /// Every record belongs to a transaction from now on.
    pub(super) fn with_transactions(mut self, machine: Machine) -> Self {
        self.transaction = Some(Box::new(machine));
        self
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn topic_names(&self) -> Vec<TopicName> {
        self.topics.keys().cloned().collect()
    }

    pub(super) fn set_identity(&mut self, identity: (ProducerId, ProducerEpoch)) {
        self.identity = Some(identity);
    }

    pub(super) fn set_problem(&mut self, problem: ClientError) {
        self.problem = Some(problem);
    }

    /// Learns a topic's partitions.
    pub(super) fn learn(&mut self, meta: &TopicMeta) {
        let slots = self.topics.entry(meta.name.clone()).or_insert_with(|| TopicSlots {
            queues: Vec::new(),
            available: Vec::new(),
            sticky: Sticky::default(),
            version: 0,
            count: 0,
        });
        if slots.version == meta.version {
            return;
        }
        slots.version = meta.version;
        slots.count = meta.partitions.len();
        while slots.queues.len() < meta.partitions.len() {
            slots.queues.push(self.queues.len());
            let index = slots.queues.len() as i32 - 1;
            self.queues.push(PartitionQueue::new(meta.name.clone(), index, self.settings.backoff.clone()));
        }
        let led = |(index, partition): (usize, &crate::metadata::PartitionMeta)| {
            (partition.leader >= 0).then_some(index as i32)
        };
        slots.available = meta.partitions.iter().enumerate().filter_map(led).collect();
        if slots.available.is_empty() {
            slots.available = (0..meta.partitions.len() as i32).collect();
        }
    }

    /// Copies a record into the open batch of its partition.
    pub(super) fn append(&mut self, record: &NewRecord<'_>, now: impl FnOnce() -> Instant) -> Appended {
        if let Some(transaction) = &self.transaction
            && let Err(error) = transaction.writable()
        {
            return Appended::Failed(error);
        }
        let Some(slots) = self.topics.get_mut(record.topic) else { return Appended::UnknownTopic };
        if self.used + record.bytes > self.settings.buffer_memory && self.used > 0 {
            self.exhausted = true;
            return Appended::Full;
        }
        let partition = match (record.partition, record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_for_key(key, slots.count as i32),
            (None, None) => slots.sticky.next(record.bytes, self.settings.batch_bytes, &slots.available),
        };
        let index = usize::try_from(partition).ok().filter(|index| *index < slots.count);
        let Some(&at) = index.and_then(|index| slots.queues.get(index)) else {
            return Appended::UnknownPartition(slots.count);
        };
        self.append_to(at, record, now)
    }

    fn append_to(&mut self, at: usize, record: &NewRecord<'_>, now: impl FnOnce() -> Instant) -> Appended {
        let mut wake = false;
        let queue = &mut self.queues[at];
        if let Some(error) = &queue.broken {
            return Appended::Failed(error.clone());
        }
        if let Some(open) = &queue.open
            && open.bytes + record.bytes > self.settings.batch_bytes
        {
            queue.close();
            wake = true;
        }
        if queue.open.is_none() {
            if let Some(transaction) = &mut self.transaction {
                transaction.touch(at);
            }
            let batch = self.open_batch(now());
            let queue = &mut self.queues[at];
            queue.open = Some(batch);
            if !queue.listed {
                queue.listed = true;
                self.active.push(at);
            }
            wake |= !self.sender_has_timer;
            self.sender_has_timer = true;
        }
        let generation = self.barriers.generation();
        let queue = &mut self.queues[at];
        let Some(open) = &mut queue.open else { return Appended::UnknownTopic };
        let Content::Open(builder) = &mut open.content else { return Appended::UnknownTopic };
        let index = match builder.append(record.timestamp_ms, record.key, record.value, record.headers) {
            Ok(index) => index,
            Err(error) => return Appended::Failed(error.into()),
        };
        let bytes = builder.size_in_bytes();
        self.used += bytes - open.bytes;
        open.bytes = bytes;
        open.records += 1;
        open.timestamp_ms = open.timestamp_ms.max(record.timestamp_ms);
        open.generations.last = generation;
        let ack = record.want_ack.then(|| Ack {
            done: open.done.get_or_insert_with(DoneGuard::default).share(),
            index,
            timestamp_ms: record.timestamp_ms,
        });
        if bytes >= self.settings.batch_bytes {
            queue.close();
            wake = true;
        }
        Appended::Done { ack, wake }
    }

    fn open_batch(&mut self, now: Instant) -> Batch {
        let id = self.next_batch;
        self.next_batch += 1;
        self.barriers.batch_opened(id);
        let generation = self.barriers.generation();
        let mut builder = self.builders.pop().unwrap_or_else(|| BatchBuilder::new(self.settings.codec));
        builder.set_transactional(self.transaction.is_some());
        Batch {
            id,
            generations: Generations { first: generation, last: generation },
            content: Content::Open(builder),
            records: 0,
            timestamp_ms: i64::MIN,
            bytes: 0,
            opened: now,
            done: None,
            sequence: None,
            ordinal: None,
            last_error: None,
        }
    }

    /// Takes back a builder.
    pub(super) fn recycle(&mut self, builder: BatchBuilder) {
        if self.builders.len() < BUILDERS_MAX {
            self.builders.push(builder);
        }
    }

    /// Ends the generation of records for a barrier.
    pub(super) fn begin_barrier(&mut self) -> super::barrier::BarrierId {
        self.barriers.begin(self.next_batch)
    }

    /// Open batches wait no longer.
    pub(super) fn flush(&mut self) {
        self.flush_below = self.next_batch;
    }

    /// Decides what to send now.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        cluster: &Cluster,
        readiness: impl Fn(i32) -> Readiness,
    ) -> Plan {
        if self.cluster_version != cluster.version {
            self.cluster_version = cluster.version;
            for (name, meta) in &cluster.topics {
                if self.topics.contains_key(name) {
                    self.learn(meta);
                }
            }
        }
        let mut plan = Plan::default();
        if let Some(error) = self.transaction.as_ref().and_then(|transaction| transaction.dropped()) {
            self.drop_unsent(&error, &mut plan);
        }
        let active = std::mem::take(&mut self.active);
        // Rotated, so that no partition is always last when a request is full.
        let turn = usize::try_from(self.next_batch).unwrap_or(0) % active.len().max(1);
        for at in active[turn..].iter().chain(&active[..turn]).copied() {
            self.expire(at, now, &mut plan);
            self.plan_queue(at, now, cluster, &readiness, &mut plan);
            let queue = &mut self.queues[at];
            queue.listed = queue.has_work();
            if queue.listed {
                self.active.push(at);
            }
        }
        self.sender_has_timer = self.active.iter().any(|at| self.queues[*at].open.is_some());
        plan
    }

    fn plan_queue(
        &mut self,
        at: usize,
        now: Instant,
        cluster: &Cluster,
        readiness: &impl Fn(i32) -> Readiness,
        plan: &mut Plan,
    ) {
        let queue = &mut self.queues[at];
        if let Some(open) = &queue.open {
            let due = open.opened + self.settings.linger;
            if due <= now || open.id < self.flush_below || self.exhausted {
                queue.close();
            } else {
                wake_at(plan, due);
            }
        }
        // Brokers that keep transactions themselves take no batch of a new epoch before its first.
        let v2 = self.transaction.as_ref().is_some_and(|transaction| transaction.is_v2());
        let first_goes_alone = self.settings.idempotent && !v2;
        if !queue.may_send(now, self.settings.in_flight_per_partition, first_goes_alone) {
            if let Some(at) = queue.retry_at.filter(|at| *at > now) {
                wake_at(plan, at);
            }
            return;
        }
        if self.transaction.as_ref().is_some_and(|transaction| !transaction.permits(at)) {
            return;
        }
        let topic = cluster.topics.get(&queue.topic);
        let leader = topic.and_then(|topic| topic.partition(queue.index)).map(|partition| partition.leader);
        let (Some(topic), Some(node @ 0..)) = (topic, leader) else {
            plan.stale.push(queue.topic.clone());
            return;
        };
        let connection = match readiness(node) {
            Readiness::Busy => return,
            Readiness::Unconnected => {
                if !plan.connect.contains(&node) {
                    plan.connect.push(node);
                }
                return;
            }
            Readiness::Ready(connection) => connection,
        };
        if !queue.may_send_on(connection) {
            return;
        }
        if queue.settle() {
            self.identity = None;
        }
        if self.settings.idempotent && self.identity.is_none() && queue.identity().is_none() {
            plan.needs_id = true;
            return;
        }
        let size = queue.closed.front().map_or(0, |batch| batch.bytes);
        let request = match plan.requests.iter_mut().position(|request| request.node == node) {
            Some(index) => &mut plan.requests[index],
            None => {
                plan.requests.push(NodeRequest { node, batches: Vec::new(), bytes: 0 });
                let last = plan.requests.len() - 1;
                &mut plan.requests[last]
            }
        };
        if !request.batches.is_empty() && request.bytes + size > REQUEST_BYTES_MAX {
            return;
        }
        let identity = if self.settings.idempotent { queue.identity().or(self.identity) } else { None };
        if let Some(batch) = queue.take(identity, connection) {
            request.bytes += size;
            let (topic_id, partition) = (topic.id, queue.index);
            request.batches.push(Sendable {
                queue: at,
                topic: queue.topic.clone(),
                topic_id,
                partition,
                batch,
            });
        }
    }

    /// Fails what has waited longer than the delivery timeout.
    fn expire(&mut self, at: usize, now: Instant, plan: &mut Plan) {
        let Some(limit) = self.settings.delivery_timeout else { return };
        loop {
            let queue = &mut self.queues[at];
            let oldest = queue.closed.front().or(queue.open.as_ref());
            let Some(due) = oldest.and_then(|batch| batch.opened.checked_add(limit)) else { return };
            if due > now {
                wake_at(plan, due);
                return;
            }
            queue.close();
            let Some(batch) = queue.closed.pop_front() else { return };
            let sent = batch.ordinal.is_some();
            let error = ClientError::DeliveryTimeout {
                partition: queue.partition(),
                records: batch.records,
                after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                source: batch.last_error.clone().or_else(|| self.problem.clone()).map(Box::new),
            };
            if let Some(transaction) = &mut self.transaction {
                transaction.batch_failed(&error, sent);
            }
            plan.wakers.extend(self.fail(at, batch, error));
            plan.freed = true;
        }
    }

    /// Ends a batch that will never be in the log, and where nothing may follow it, what waits behind it. What is in
    /// flight behind it has sequences that the broker refuses without it.
    fn fail(&mut self, at: usize, batch: Batch, error: ClientError) -> Vec<Waker> {
        let mut wakers = self.finish(at, batch, Err(error.clone()));
        if self.settings.stop_after_failure {
            let queue = &mut self.queues[at];
            let error = queue.broken.get_or_insert(error).clone();
            queue.close();
            while let Some(batch) = self.queues[at].closed.pop_front() {
                wakers.extend(self.finish(at, batch, Err(error.clone())));
            }
        }
        wakers
    }

    /// Ends a batch; the wakers are to be woken outside of the lock.
    fn finish(
        &mut self,
        at: usize,
        mut batch: Batch,
        outcome: Result<BatchOutcome, ClientError>,
    ) -> Vec<Waker> {
        self.queues[at].finished(batch.id, outcome.is_ok().then(Instant::now));
        self.used = self.used.saturating_sub(batch.bytes);
        self.exhausted = false;
        let failure = outcome.as_ref().err().map(|error| (batch.generations, error.clone()));
        if let Some(done) = batch.done.take() {
            done.complete(outcome);
        }
        if let Content::Open(mut builder) = batch.content {
            builder.reset();
            self.recycle(builder);
        }
        self.barriers.batch_finished(batch.id, failure)
    }

    /// Takes the answer about a batch that was sent. `error` says what was wrong unless the verdict is good.
    pub(super) fn answered(
        &mut self,
        at: usize,
        mut batch: Batch,
        verdict: Verdict,
        outcome: BatchOutcome,
        error: ClientError,
        now: Instant,
    ) -> Vec<Waker> {
        match verdict {
            Verdict::Acked => self.finish(at, batch, Ok(outcome)),
            Verdict::Duplicate => self.finish(at, batch, Ok(BatchOutcome { base_offset: -1, ..outcome })),
            // A broker that was stopped and started remembers the last batch of a producer alone, as Kafka's snapshots
            // do: it may have this one, and says the same as if it had not.
            Verdict::NewEpoch | Verdict::Uncertain if self.settings.stop_after_failure => {
                self.fail(at, batch, error)
            }
            // An epoch that was not asked for might be the successor's.
            Verdict::NewEpoch if self.settings.keeps_identity => self.fail(at, batch, error),
            Verdict::Retry | Verdict::NewEpoch | Verdict::Uncertain => {
                let queue = &mut self.queues[at];
                if let Some(broken) = queue.broken.clone() {
                    return self.finish(at, batch, Err(broken));
                }
                batch.last_error = Some(error);
                queue.put_back(batch, now, verdict == Verdict::NewEpoch);
                if !queue.listed {
                    queue.listed = true;
                    self.active.push(at);
                }
                Vec::new()
            }
            Verdict::Fail | Verdict::FailNewId => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.batch_failed(&error, true);
                }
                if verdict == Verdict::FailNewId && !self.settings.keeps_identity {
                    self.identity = None;
                    self.queues[at].forget_identity();
                }
                self.fail(at, batch, error)
            }
        }
    }

    /// Fails what waits to be sent: its transaction is aborted.
    fn drop_unsent(&mut self, error: &ClientError, plan: &mut Plan) {
        for at in std::mem::take(&mut self.active) {
            self.queues[at].listed = false;
            self.queues[at].close();
            while let Some(batch) = self.queues[at].closed.pop_front() {
                if let (Some(transaction), true) = (&mut self.transaction, batch.ordinal.is_some()) {
                    // It was sent, and came back: whether it is in the log is not known.
                    transaction.batch_dropped();
                }
                plan.wakers.extend(self.finish(at, batch, Err(error.clone())));
                plan.freed = true;
            }
        }
    }

    /// What is to be asked of a coordinator now, with the names of the partitions that it is about.
    pub(super) fn next_call(&mut self, now: Instant) -> Option<(Call, Vec<(usize, TopicPartition)>)> {
        let idle = self.barriers.is_idle();
        let call = self.transaction.as_mut()?.next(now, idle)?;
        let partitions = match &call {
            Call::AddPartitions { queues, .. } => {
                queues.iter().filter_map(|at| Some((*at, self.queues.get(*at)?.partition()))).collect()
            }
            _ => Vec::new(),
        };
        Some((call, partitions))
    }

    /// Takes the answer to a call.
    pub(super) fn call_answered(&mut self, now: Instant, call: &Call, answer: Answer) {
        let Some(transaction) = &mut self.transaction else { return };
        if transaction.answered(now, call, answer) {
            self.identity = transaction.identity();
            self.queues.iter_mut().for_each(PartitionQueue::forget_identity);
        }
    }

    /// Whether no earlier batch of the partition is unacknowledged.
    pub(super) fn is_head(&self, at: usize, batch: &Batch) -> bool {
        self.queues[at].is_head(batch.id)
    }

    pub(super) fn is_idempotent(&self) -> bool {
        self.settings.idempotent
    }

    /// Fails everything that is not in flight.
    pub(super) fn fail_all(&mut self, error: &ClientError) -> Vec<Waker> {
        let mut wakers = Vec::new();
        for at in std::mem::take(&mut self.active) {
            self.queues[at].listed = false;
            self.queues[at].close();
            if self.settings.stop_after_failure {
                self.queues[at].broken.get_or_insert_with(|| error.clone());
            }
            while let Some(batch) = self.queues[at].closed.pop_front() {
                wakers.extend(self.finish(at, batch, Err(error.clone())));
            }
        }
        wakers
    }
}

fn wake_at(plan: &mut Plan, at: Instant) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |known| known.min(at)));
}

#[cfg(test)]
mod tests;
