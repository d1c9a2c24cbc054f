//! Markers on their way to the leaders of the partitions that transactions touched: in batches per leader, one request to
//! each at a time, again and again until every partition has its marker or is no more, or somebody else coordinates.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{self, JoinError, JoinSet};
use tokio::time::Instant;
use towpath_types::{BrokerId, LeaderEpoch, TopicName, TopicPartition};
use towpath_wire::write_txn_markers::{WritableTxnMarker, WritableTxnMarkerTopic};
use towpath_wire::{ErrorCode, WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use super::partition::Partition;
use crate::log::EndMarker;
use crate::transaction::machine::TransactionToken;
use crate::transaction::metadata::ClientVersion;

/// Partitions that one request is about, at most.
const REQUEST_PARTITIONS: usize = 5_000;
/// How long a marker waits that was not written, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a leader may take to answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Who can append a marker to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerLeader {
    /// This broker.
    Broker(BrokerId),
    /// Nobody, at the moment: the partition has no leader, or none that can be reached.
    Unknown,
    /// Nobody for good: the topic is deleted. Its transaction ends without it.
    Gone,
}

/// A partition of the state topic that this broker leads, and the leader epoch in which it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coordinates {
    /// The partition.
    pub partition: i32,
    /// The leader epoch.
    pub leader_epoch: LeaderEpoch,
}

/// A request that did not come back.
#[derive(Debug, thiserror::Error)]
#[error("the markers did not reach broker {broker}")]
pub struct SendFailed {
    /// Where it was to go.
    pub broker: BrokerId,
    /// Why it did not.
    #[source]
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// The way to the leaders of other partitions. The broker implements it.
#[async_trait]
pub trait Markers: Send + Sync + 'static {
    /// Who leads a partition, by the metadata that this broker has. [`MarkerLeader::Gone`] only when they are as new as the
    /// election by which this broker `coordinates`. All that a coordinator finds in its log was added before that, on the
    /// word of metadata that had the partition, and what it adds itself it adds on the word of its own: so what newer ones do
    /// not have was deleted.
    fn leader(&self, partition: &TopicPartition, coordinates: Coordinates) -> MarkerLeader;

    /// Lets `broker` (this one, or another) serve WriteTxnMarkers, once, within a bounded time. It answers when the
    /// markers are committed (`acks=all`).
    ///
    /// # Errors
    /// When there is no answer; the markers may be written all the same.
    async fn send(
        &self,
        broker: BrokerId,
        request: WriteTxnMarkersRequest,
    ) -> Result<WriteTxnMarkersResponse, SendFailed>;
}

/// The markers of one transaction.
pub(super) struct MarkerJob {
    pub(super) coordinator: Arc<Partition>,
    pub(super) token: TransactionToken,
    pub(super) marker: EndMarker,
    pub(super) partitions: Vec<TopicPartition>,
}

/// A marker for one partition.
struct Item {
    coordinator: Arc<Partition>,
    token: TransactionToken,
    marker: EndMarker,
    partition: TopicPartition,
    attempts: u32,
}

/// What came back of a request.
type Sent = Result<WriteTxnMarkersResponse, SendFailed>;

/// Takes markers from all partitions of the state topic that this broker leads.
pub(super) struct MarkerSender {
    markers: Arc<dyn Markers>,
    inbox: Mutex<Vec<MarkerJob>>,
    wake: Notify,
    is_started: AtomicBool,
    is_stopped: AtomicBool,
}

impl MarkerSender {
    pub(super) fn new(markers: Arc<dyn Markers>) -> Arc<Self> {
        Arc::new(Self {
            markers,
            inbox: Mutex::default(),
            wake: Notify::new(),
            is_started: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
        })
    }

    /// Begins to send, if it has not. Call it within a tokio runtime.
    pub(super) fn start(self: &Arc<Self>) {
        if !self.is_started.swap(true, Ordering::AcqRel) {
            tokio::spawn(Arc::clone(self).run());
        }
    }

    pub(super) fn send(&self, job: MarkerJob) {
        if self.is_stopped.load(Ordering::Acquire) {
            return;
        }
        self.inbox.lock().push(job);
        self.wake.notify_one();
    }

    /// Lets go of everything: the next coordinator sends what is not known to be written.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.inbox.lock().clear();
        self.wake.notify_one();
    }

    async fn run(self: Arc<Self>) {
        let mut delivery = Delivery::new(Arc::clone(&self.markers));
        while !self.is_stopped.load(Ordering::Acquire) {
            for job in std::mem::take(&mut *self.inbox.lock()) {
                delivery.take(job);
            }
            delivery.advance();
            let next = delivery.next_retry();
            tokio::select! {
                () = self.wake.notified() => {}
                Some(sent) = delivery.in_flight.join_next_with_id(), if !delivery.in_flight.is_empty() => {
                    delivery.came_back(sent);
                }
                () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }
}

/// What is on its way.
struct Delivery {
    markers: Arc<dyn Markers>,
    queues: HashMap<BrokerId, VecDeque<Item>>,
    in_flight: JoinSet<Sent>,
    /// What each request is about; at most one for each broker.
    requests: HashMap<task::Id, (BrokerId, Vec<Item>)>,
    delayed: BTreeMap<(Instant, u64), Item>,
    next_delay: u64,
}

fn delay(attempts: u32) -> Duration {
    RETRY_MIN.saturating_mul(1u32.checked_shl(attempts.min(16)).unwrap_or(u32::MAX)).min(RETRY_MAX)
}

impl Delivery {
    fn new(markers: Arc<dyn Markers>) -> Self {
        Self {
            markers,
            queues: HashMap::new(),
            in_flight: JoinSet::new(),
            requests: HashMap::new(),
            delayed: BTreeMap::new(),
            next_delay: 0,
        }
    }

    fn take(&mut self, job: MarkerJob) {
        let MarkerJob { coordinator, token, marker, partitions } = job;
        for partition in partitions {
            self.route(Item { coordinator: Arc::clone(&coordinator), token, marker, partition, attempts: 0 });
        }
    }

    /// Finds out where a marker goes to.
    fn route(&mut self, item: Item) {
        if item.coordinator.is_closed() {
            // Somebody else coordinates, and sends what is to be sent.
            return;
        }
        match self.markers.leader(&item.partition, item.coordinator.coordinates()) {
            MarkerLeader::Broker(broker) => self.queues.entry(broker).or_default().push_back(item),
            MarkerLeader::Unknown => self.retry(vec![item]),
            MarkerLeader::Gone => {
                tracing::info!(partition = %item.partition, "a transaction ends without a partition that is gone");
                item.coordinator.marker_written(item.token, &item.partition);
            }
        }
    }

    /// Tries again later.
    fn retry(&mut self, items: Vec<Item>) {
        for mut item in items {
            let at = Instant::now() + delay(item.attempts);
            item.attempts = item.attempts.saturating_add(1);
            let number = self.next_delay;
            self.next_delay += 1;
            self.delayed.insert((at, number), item);
        }
    }

    fn next_retry(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Sends what can be sent.
    fn advance(&mut self) {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry()
            && entry.key().0 <= now
        {
            let item = entry.remove();
            self.route(item);
        }
        let waiting: Vec<BrokerId> = self.queues.keys().copied().collect();
        for broker in waiting {
            if !self.requests.values().any(|(busy, _)| *busy == broker) {
                self.send_to(broker);
            }
        }
    }

    fn send_to(&mut self, broker: BrokerId) {
        let Some(queue) = self.queues.get_mut(&broker) else { return };
        let mut items = Vec::new();
        while items.len() < REQUEST_PARTITIONS
            && let Some(item) = queue.pop_front()
        {
            if !item.coordinator.is_closed() {
                items.push(item);
            }
        }
        if queue.is_empty() {
            self.queues.remove(&broker);
        }
        if items.is_empty() {
            return;
        }
        let (markers, request) = (Arc::clone(&self.markers), request(&items));
        let task = self.in_flight.spawn(async move {
            match tokio::time::timeout(SEND_TIMEOUT, markers.send(broker, request)).await {
                Ok(result) => result,
                Err(elapsed) => Err(SendFailed { broker, cause: elapsed.into() }),
            }
        });
        self.requests.insert(task.id(), (broker, items));
    }

    /// A request has come back.
    fn came_back(&mut self, sent: Result<(task::Id, Sent), JoinError>) {
        let (id, sent) = match sent {
            Ok((id, sent)) => (id, sent.map_err(|error| error.cause.to_string())),
            Err(error) => (error.id(), Err(error.to_string())),
        };
        let Some((broker, items)) = self.requests.remove(&id) else { return };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(%broker, error, markers = items.len(), "markers are sent again");
                return self.retry(items);
            }
        };
        let answers = answers(&response);
        let mut refused = Vec::new();
        let mut reason = None;
        for item in items {
            let place =
                (item.marker.producer.id.get(), item.partition.topic.as_str(), item.partition.partition);
            match answers.get(&place) {
                Some(ErrorCode::None) => item.coordinator.marker_written(item.token, &item.partition),
                // Such a partition cannot have taken records of a transaction.
                Some(ErrorCode::UnsupportedForMessageFormat | ErrorCode::UnsupportedVersion) => {
                    item.coordinator.marker_written(item.token, &item.partition);
                }
                // Also when it says that the coordinator or the producer is fenced (R6): then this partition is closed any
                // moment, and what waits is let go of.
                error => {
                    reason = error.copied().or(reason);
                    refused.push(item);
                }
            }
        }
        if let Some(item) = refused.first() {
            let (partition, markers) = (&item.partition, refused.len());
            tracing::debug!(%broker, %partition, ?reason, markers, "markers are sent again");
        }
        self.retry(refused);
    }
}

/// A marker, and where it goes: by topic.
type Addressed<'a> = (EndMarker, BTreeMap<&'a TopicName, Vec<i32>>);

/// The request that has the markers of `items`.
fn request(items: &[Item]) -> WriteTxnMarkersRequest {
    let mut transactions: BTreeMap<(i32, TransactionToken), Addressed<'_>> = BTreeMap::new();
    for item in items {
        let key = (item.coordinator.id(), item.token);
        let marker = || EndMarker { coordinator_epoch: item.coordinator.coordinator_epoch(), ..item.marker };
        let (_, topics) = transactions.entry(key).or_insert_with(|| (marker(), BTreeMap::new()));
        topics.entry(&item.partition.topic).or_default().push(item.partition.partition);
    }
    let marker = |(marker, topics): Addressed<'_>| {
        let version = if marker.bumps_epoch { ClientVersion::V2 } else { ClientVersion::V0 };
        let topic = |(name, partition_indexes): (&TopicName, _)| WritableTxnMarkerTopic {
            name: name.as_str().to_owned(),
            partition_indexes,
        };
        WritableTxnMarker {
            producer_id: marker.producer.id.get(),
            producer_epoch: marker.producer.epoch.get(),
            transaction_result: marker.commit,
            topics: topics.into_iter().map(topic).collect(),
            coordinator_epoch: marker.coordinator_epoch,
            transaction_version: i8::try_from(version.level()).unwrap_or(i8::MAX),
        }
    };
    WriteTxnMarkersRequest { markers: transactions.into_values().map(marker).collect() }
}

/// What was said of each producer's marker in each partition.
fn answers(response: &WriteTxnMarkersResponse) -> HashMap<(i64, &str, i32), ErrorCode> {
    let mut answers = HashMap::new();
    for marker in &response.markers {
        for topic in &marker.topics {
            for partition in &topic.partitions {
                let place = (marker.producer_id, topic.name.as_str(), partition.partition_index);
                answers.insert(place, ErrorCode::from_code(partition.error_code));
            }
        }
    }
    answers
}
