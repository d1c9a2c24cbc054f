//! The share consumer (KIP-932): members of a group share the records of partitions, and acknowledge each of them.
//!
//! [`membership`] keeps the member in its group ([`member`] decides), [`driver`] keeps sessions with the leaders ([`state`]
//! decides, [`lease`] knows what was given out), `poll` takes from it.

mod config;
mod driver;
mod fetched;
mod lease;
mod member;
mod membership;
mod records;
mod state;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

pub use config::{Acknowledgement, AcknowledgementMode, AcquireMode, ShareConsumerConfig};
pub use records::{ShareRecord, ShareRecords, ShareRecordsIter};

use crate::ClientError;
use crate::admin::PerItem;
use crate::client::ClientInner;
use crate::group::Coordinator;
use crate::metrics::ShareMetrics;
use driver::Driver;
use fetched::Reading;
use membership::ShareGroup;
use state::{Place, Settings, State};

/// Reads topics together with the other members of a share group: each record is with one of them at a time, until it is
/// acknowledged, given back, or its lock ends. Records are asked for while a poll waits, not ahead of it: their locks do
/// not run while nobody looks. Methods take `&self`; one task at a time should poll.
#[derive(Debug)]
pub struct ShareConsumer {
    client: Arc<ClientInner>,
    config: Arc<ShareConsumerConfig>,
    shared: Arc<Shared>,
    subscription: watch::Sender<Vec<TopicName>>,
    has_subscribed: AtomicBool,
}

/// What a share consumer shares with its tasks.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Tells the driver that there is something to do.
    wake: Notify,
    /// Tells polls and commits that something has come.
    news: Notify,
    closed: AtomicBool,
    /// Sessions have ended.
    ended: watch::Sender<bool>,
    /// It has left its group.
    left: watch::Sender<bool>,
    /// Why there is no membership (any more).
    refused: Mutex<Option<ClientError>>,
    /// The member gives itself an id, for all of its life (KIP-1082).
    member_id: Arc<str>,
    last_poll: Mutex<Instant>,
    metrics: ShareMetrics,
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn last_poll(&self) -> Instant {
        *self.last_poll.lock()
    }

    fn assign(&self, places: Vec<(Place, Arc<TopicPartition>)>) {
        self.state.lock().assign(places);
        self.wake.notify_one();
    }

    fn refused(&self, error: ClientError) {
        *self.refused.lock() = Some(error);
        self.news.notify_waiters();
    }

    fn ended(&self) {
        self.ended.send_replace(true);
        self.news.notify_waiters();
    }

    async fn until_closed(&self) {
        while !self.is_closed() {
            // Closing notifies; the pause bounds a notification that came in between.
            let _ = tokio::time::timeout(Duration::from_millis(250), self.news.notified()).await;
        }
    }

    async fn until_idle_for(&self, limit: Duration) {
        loop {
            let due = self.last_poll() + limit;
            if due <= Instant::now() && self.state.lock().waiting == 0 {
                return;
            }
            tokio::time::sleep_until(due.max(Instant::now() + Duration::from_millis(50))).await;
        }
    }
}

/// A poll that waits: as long as there is one, records are asked for.
struct Waiting<'a> {
    shared: &'a Shared,
    is_over: bool,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.state.lock().waiting += 1;
        shared.wake.notify_one();
        Self { shared, is_over: false }
    }

    /// What there is, and whether the application holds all that it may. The wait ends with the look that finds
    /// something, so that nothing more is fetched in between.
    fn take(&mut self) -> Result<(Vec<ShareRecords>, bool), ClientError> {
        *self.shared.last_poll.lock() = Instant::now();
        let mut state = self.shared.state.lock();
        let taken = state.take(Instant::now());
        if !self.is_over && !taken.as_ref().is_ok_and(|(records, _)| records.is_empty()) {
            self.is_over = true;
            state.waiting -= 1;
        }
        let (is_full, buffered, held) = (state.is_full(), state.buffered(), state.held());
        drop(state);
        let metrics = &self.shared.metrics;
        metrics.buffer.set(buffered as f64);
        metrics.held.set(held as f64);
        // Gaps that were found, and what was broken, are said at once.
        self.shared.wake.notify_one();
        let (records, count) = taken?;
        metrics.records.increment(count as u64);
        Ok((records, is_full))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.shared.last_poll.lock() = Instant::now();
        if !self.is_over {
            self.shared.state.lock().waiting -= 1;
        }
    }
}

impl Drop for ShareConsumer {
    fn drop(&mut self) {
        self.end();
    }
}

impl ShareConsumer {
    pub(crate) fn new(client: Arc<ClientInner>, config: ShareConsumerConfig) -> Self {
        let settings = Settings {
            is_implicit: config.acknowledgement_mode == AcknowledgementMode::Implicit,
            is_strict: config.acquire_mode == AcquireMode::RecordLimit,
            records_max: config.max_poll_records.max(1),
            held_max: config.unacknowledged_records_max.max(1),
            buffer_bytes: config.buffer_bytes.max(1),
            fetch_bytes_max: config.fetch_bytes_max.max(1),
            patience: Duration::from_millis(client.config.api_timeout_ms),
            reading: Reading { check_crcs: config.check_crcs, bytes_max: config.poll_bytes_max },
            backoff: client.retry_backoff(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(settings)),
            wake: Notify::new(),
            news: Notify::new(),
            closed: AtomicBool::new(false),
            ended: watch::Sender::new(false),
            left: watch::Sender::new(false),
            refused: Mutex::default(),
            member_id: Arc::from(uuid::Uuid::new_v4().to_string()),
            last_poll: Mutex::new(Instant::now()),
            metrics: ShareMetrics::new(&client.config.client_id),
        });
        let config = Arc::new(config);
        let driver = Driver::new(Arc::clone(&client), Arc::clone(&config), Arc::clone(&shared));
        tokio::spawn(driver.run());
        let (subscription, has_subscribed) = (watch::Sender::new(Vec::new()), AtomicBool::new(false));
        Self { client, config, shared, subscription, has_subscribed }
    }

    fn end(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.shared.news.notify_waiters();
    }

    /// Joins the group and reads from these topics, or from others than before; without any it leaves the group. Topics
    /// that do not exist are read from when they do.
    ///
    /// # Errors
    /// [`ClientError::Closed`]. What the group has against it surfaces in [`Self::poll`].
    pub fn subscribe(&self, topics: &[TopicName]) -> Result<(), ClientError> {
        if self.shared.is_closed() {
            return Err(ClientError::Closed);
        }
        self.subscription.send_replace(topics.to_vec());
        if !topics.is_empty() && !self.has_subscribed.swap(true, Ordering::AcqRel) {
            *self.shared.last_poll.lock() = Instant::now();
            let (client, config) = (Arc::clone(&self.client), Arc::clone(&self.config));
            let coordinator = Coordinator::new(Arc::clone(&client), config.group_id.clone());
            let subscription = self.subscription.subscribe();
            let shared = Arc::clone(&self.shared);
            let group = ShareGroup::new(client, config, Arc::new(coordinator), shared, subscription);
            tokio::spawn(async move {
                let shared = group.run().await;
                shared.left.send_replace(true);
            });
        }
        Ok(())
    }

    /// The topics that it has subscribed to.
    #[must_use]
    pub fn subscription(&self) -> Vec<TopicName> {
        self.subscription.borrow().clone()
    }

    /// The partitions that the group lets it read from at present; others may read from them, too.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.state.lock().assignment()
    }

    /// Records, as soon as there are any within `max_wait`; else nothing. What was said of earlier records is sent on the
    /// way, and in [`AcknowledgementMode::Implicit`] all that the last poll returned is accepted with it;
    /// [`Self::commit`] tells what became of that.
    ///
    /// # Errors
    /// What keeps partitions from being read: [`ClientError::CorruptBatch`] (its records are given back), an
    /// authorization …; the group's refusal; [`ClientError::Usage`] before [`Self::subscribe`], or when more records than
    /// `unacknowledged_records_max` are not acknowledged. What heals by itself is retried without a word.
    pub async fn poll(&self, max_wait: Duration) -> Result<Vec<ShareRecords>, ClientError> {
        let deadline = Instant::now() + max_wait;
        if !self.has_subscribed.load(Ordering::Acquire) {
            return Err(ClientError::Usage("a share consumer subscribes before it polls"));
        }
        self.speak();
        let mut waiting = Waiting::new(&self.shared);
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            // Registered before looking, so that nothing is missed in between.
            news.as_mut().enable();
            self.check()?;
            let (records, is_full) = waiting.take()?;
            if !records.is_empty() {
                return Ok(records);
            }
            if is_full {
                return Err(ClientError::Usage(
                    "more records than `unacknowledged_records_max` are not acknowledged",
                ));
            }
            if tokio::time::timeout_at(deadline, news).await.is_err() {
                self.shared.state.lock().is_asked = true;
                self.shared.wake.notify_one();
                return Ok(Vec::new());
            }
        }
    }

    fn check(&self) -> Result<(), ClientError> {
        if self.shared.is_closed() {
            return Err(ClientError::Closed);
        }
        self.shared.refused.lock().clone().map_or(Ok(()), Err)
    }

    /// What was said is to be sent.
    fn speak(&self) {
        *self.shared.last_poll.lock() = Instant::now();
        let accepted = self.shared.state.lock().speak();
        self.shared.metrics.acknowledged(Acknowledgement::Accept, accepted as u64);
        self.shared.wake.notify_one();
    }

    /// Says what becomes of a record that a poll has returned; the next poll or commit sends it. What was said before of
    /// the same record, and is not sent yet, no longer counts.
    ///
    /// # Errors
    /// [`ClientError::NotAcquired`] when this consumer does not have the record (any more), [`ClientError::Usage`] in
    /// [`AcknowledgementMode::Implicit`].
    pub fn acknowledge(
        &self,
        partition: &TopicPartition,
        offset: Offset,
        what: Acknowledgement,
    ) -> Result<(), ClientError> {
        self.say(partition, None, &[offset], what)
    }

    /// As [`Self::acknowledge`], of all these records.
    ///
    /// # Errors
    /// As [`Self::acknowledge`], of the first record that cannot be acknowledged; the others are. A malformed record's.
    pub fn acknowledge_all(&self, records: &ShareRecords, what: Acknowledgement) -> Result<(), ClientError> {
        let offsets = records.records().map(|record| Ok(record?.offset));
        let offsets: Vec<Offset> = offsets.collect::<Result<_, ClientError>>()?;
        self.say(&records.partition, Some(records.topic_id), &offsets, what)
    }

    fn say(
        &self,
        partition: &TopicPartition,
        topic: Option<TopicId>,
        offsets: &[Offset],
        what: Acknowledgement,
    ) -> Result<(), ClientError> {
        if self.config.acknowledgement_mode == AcknowledgementMode::Implicit {
            return Err(ClientError::Usage(
                "records are acknowledged one by one with `acknowledgement_mode` explicit only",
            ));
        }
        let mut state = self.shared.state.lock();
        let (mut said, mut result) = (0, Ok(()));
        for offset in offsets {
            match state.say(partition, topic, *offset, what) {
                Ok(()) => said += 1,
                Err(error) => result = result.and(Err(error)),
            }
        }
        drop(state);
        self.shared.metrics.acknowledged(what, said);
        result
    }

    /// Sends what was said (in [`AcknowledgementMode::Implicit`], accepts all that the last poll returned) and waits until
    /// it is stored. Tells, by partition, what became of everything that was said since the last commit, also of what
    /// went with polls; of a partition with several failures the first one. Of a failure nobody knows more than that its
    /// records may be given out again.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when it is not done within `api_timeout_ms`: the next commit tells what became of it.
    pub async fn commit(&self) -> Result<PerItem<TopicPartition, ()>, ClientError> {
        if self.shared.is_closed() {
            return Err(ClientError::Closed);
        }
        self.speak();
        let limit_ms = self.client.config.api_timeout_ms;
        let deadline = Instant::now().checked_add(Duration::from_millis(limit_ms));
        loop {
            let mut news = std::pin::pin!(self.shared.news.notified());
            news.as_mut().enable();
            {
                let mut state = self.shared.state.lock();
                if !state.is_unsettled() {
                    return Ok(state.results());
                }
            }
            let far = Instant::now() + Duration::from_secs(3600);
            let waited = tokio::time::timeout_at(deadline.unwrap_or(far), news).await;
            if waited.is_err() && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let what = "committing acknowledgements";
                return Err(ClientError::Timeout { what, after_ms: limit_ms, source: None });
            }
        }
    }

    /// Sends what was said, gives back everything else, and leaves the group; what became of what was said, as
    /// [`Self::commit`] tells it. (In [`AcknowledgementMode::Implicit`], what the last poll returned is given back: commit
    /// first, if it was processed.) Dropping a consumer does the same in the background.
    pub async fn close(&self) -> PerItem<TopicPartition, ()> {
        self.end();
        // Both give up by themselves after a request's time.
        let _ = self.shared.ended.subscribe().wait_for(|ended| *ended).await;
        if self.has_subscribed.load(Ordering::Acquire) {
            let _ = self.shared.left.subscribe().wait_for(|left| *left).await;
        }
        self.shared.state.lock().results()
    }
}
