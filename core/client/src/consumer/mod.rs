//! The consumer: [`fetcher`] fetches ahead into [`state`], `poll` takes from it.

mod fetched;
mod fetcher;
mod records;
mod session;
mod state;
mod types;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};
use towpath_wire::ErrorCode;

pub use records::{PartitionRecords, Record, RecordsIter};
pub use types::{CommittedOffset, ConsumerEvent, OffsetAndTimestamp, StartAt, Subscription};

use crate::client::ClientInner;
use crate::group::{ConsumerGroup, Coordinator, MembershipIdentity, ReconciledGroup, leave};
use crate::metrics::ConsumerMetrics;
use crate::{ClientError, ConsumerConfig, ConsumerGroupMetadata, GroupKind, IsolationLevel};
use fetched::Reading;
use fetcher::Fetcher;
use state::{Position, State};

/// Reads partitions, assigned by hand or by a group. Fetches ahead, within `buffer_bytes`, while the application
/// works. Methods take `&self`; one task at a time should poll.
#[derive(Debug)]
pub struct Consumer {
    client: Arc<ClientInner>,
    config: Arc<ConsumerConfig>,
    shared: Arc<Shared>,
    /// Answered by the next call of `poll_event`: the application has seen the revocation.
    unanswered: Mutex<Option<oneshot::Sender<()>>>,
    /// What a call of `poll` has found out and another will return.
    mode: Mutex<Mode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Manual,
    Group,
}

/// What a consumer shares with its fetcher and its group.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Tells the fetcher that there is something to do.
    wake: Notify,
    /// Tells `poll` that there is something to return.
    pub(crate) news: Notify,
    pub(crate) closed: AtomicBool,
    pub(crate) coordinator: Option<Arc<Coordinator>>,
    events: Mutex<VecDeque<GroupEvent>>,
    pub(crate) identity: Mutex<Option<MembershipIdentity>>,
    pub(crate) last_poll: Mutex<Instant>,
    metrics: ConsumerMetrics,
}

/// What the group tells the application.
#[derive(Debug)]
pub(crate) enum GroupEvent {
    Assigned(Vec<TopicPartition>),
    /// Answered when the application may have committed.
    Revoked(Vec<TopicPartition>, oneshot::Sender<()>),
    Lost(Vec<TopicPartition>),
    Failed(ClientError),
}

impl Shared {
    /// Adds partitions that the group assigned; they start at the committed offsets.
    pub(crate) fn add(&self, partitions: &[TopicPartition]) {
        let mut state = self.state.lock();
        for partition in partitions {
            state.add(partition.clone(), StartAt::Committed, false);
        }
        drop(state);
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Stops reading partitions.
    pub(crate) fn remove(&self, partitions: &[TopicPartition]) {
        self.state.lock().remove(partitions);
        self.wake.notify_one();
    }

    /// Queues something for the application.
    pub(crate) fn tell(&self, event: GroupEvent) {
        match &event {
            GroupEvent::Assigned(partitions) => self.metrics.assigned.increment(partitions.len() as u64),
            GroupEvent::Revoked(partitions, _) => self.metrics.revoked.increment(partitions.len() as u64),
            GroupEvent::Lost(partitions) => self.metrics.lost.increment(partitions.len() as u64),
            GroupEvent::Failed(_) => {}
        }
        self.events.lock().push_back(event);
        self.news.notify_waiters();
    }
}

impl ConsumerMetrics {
    /// Counts by batch, not by record: what is polled is not looked through for it.
    fn took(&self, taken: &[PartitionRecords], buffered: usize) {
        let records: usize = taken.iter().map(PartitionRecords::len_hint).sum();
        let behind = |part: &PartitionRecords| part.high_watermark.get() - part.next_offset.get();
        self.records.increment(records as u64);
        self.buffer.set(buffered as f64);
        self.lag.set(taken.iter().map(behind).max().unwrap_or(0).max(0) as f64);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Consumer {
    pub(crate) fn new(client: Arc<ClientInner>, config: ConsumerConfig) -> Self {
        let coordinator =
            config.group_id.clone().map(|group| Arc::new(Coordinator::new(Arc::clone(&client), group)));
        let config = Arc::new(config);
        let shared = Arc::new(Shared {
            state: Mutex::new(State::new(config.auto_offset_reset, client.retry_backoff())),
            wake: Notify::new(),
            news: Notify::new(),
            closed: AtomicBool::new(false),
            coordinator,
            events: Mutex::default(),
            identity: Mutex::default(),
            last_poll: Mutex::new(Instant::now()),
            metrics: ConsumerMetrics::new(&client.config.client_id),
        });
        let fetcher = Fetcher::new(Arc::clone(&client), Arc::clone(&config), Arc::clone(&shared));
        tokio::spawn(fetcher.run());
        Self { client, config, shared, unanswered: Mutex::default(), mode: Mutex::new(Mode::Idle) }
    }

    fn end(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.shared.news.notify_waiters();
        self.unanswered.lock().take();
        // Nobody will see them; whoever waits for an answer to one goes on.
        self.shared.events.lock().clear();
    }

    /// Replaces the assignment. Partitions that stay and start at their current position keep what was fetched.
    /// Problems (unknown topics, offsets out of range) surface in [`Self::poll`].
    ///
    /// # Errors
    /// [`ClientError::Usage`] when the consumer has subscribed.
    pub fn assign(&self, partitions: &[(TopicPartition, StartAt)]) -> Result<(), ClientError> {
        self.enter(Mode::Manual)?;
        self.shared.state.lock().assign(partitions);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Joins the group and reads what it assigns to this member. May be called once.
    ///
    /// # Errors
    /// [`ClientError::Usage`] without `group_id`, after a manual assignment, or when called again.
    pub fn subscribe(&self, subscription: Subscription) -> Result<(), ClientError> {
        let Some(coordinator) = self.shared.coordinator.clone() else {
            return Err(ClientError::Usage("to subscribe, a consumer needs a group_id"));
        };
        if *self.mode.lock() == Mode::Group {
            return Err(ClientError::Usage("the consumer has subscribed already"));
        }
        self.enter(Mode::Group)?;
        let (client, config) = (Arc::clone(&self.client), Arc::clone(&self.config));
        let shared = Arc::clone(&self.shared);
        match config.group_protocol {
            GroupKind::Classic => {
                let group = ConsumerGroup::new(client, config, coordinator, shared, subscription);
                tokio::spawn(group.run());
            }
            GroupKind::Consumer => {
                let group = ReconciledGroup::new(client, config, coordinator, shared, subscription);
                tokio::spawn(group.run());
            }
        }
        Ok(())
    }

    fn enter(&self, wanted: Mode) -> Result<(), ClientError> {
        let mut mode = self.mode.lock();
        if *mode != Mode::Idle && *mode != wanted {
            return Err(ClientError::Usage("a consumer either subscribes or is assigned by hand"));
        }
        *mode = wanted;
        Ok(())
    }

    /// What is there, at once; else the first that comes within `max_wait`; else nothing. Rebalances happen without
    /// a word: use [`Self::poll_event`] to commit before partitions go.
    ///
    /// # Errors
    /// What keeps a partition from being read: [`ClientError::OffsetOutOfRange`], [`ClientError::TopicRecreated`],
    /// [`ClientError::CorruptBatch`], an authorization … It is reported again until the partition is assigned anew,
    /// sought or unassigned. What heals by itself is retried without a word.
    pub async fn poll(&self, max_wait: Duration) -> Result<Vec<PartitionRecords>, ClientError> {
        let deadline = Instant::now() + max_wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if let ConsumerEvent::Records(records) = self.poll_event(left).await? {
                return Ok(records);
            }
        }
    }

    /// As [`Self::poll`], with the rebalances of the group.
    ///
    /// # Errors
    /// As [`Self::poll`]; [`ClientError::MembershipLost`] when the group will not have this member any more.
    pub async fn poll_event(&self, max_wait: Duration) -> Result<ConsumerEvent, ClientError> {
        let deadline = Instant::now() + max_wait;
        self.unanswered.lock().take();
        *self.shared.last_poll.lock() = Instant::now();
        loop {
            if self.shared.closed.load(Ordering::Acquire) {
                return Err(ClientError::Closed);
            }
            let mut news = std::pin::pin!(self.shared.news.notified());
            // Registered before looking, so that nothing is missed in between.
            news.as_mut().enable();
            if let Some(event) = self.group_event()? {
                return Ok(event);
            }
            let records = self.take()?;
            if !records.is_empty() {
                return Ok(ConsumerEvent::Records(records));
            }
            let waited = tokio::time::timeout_at(deadline, news).await;
            *self.shared.last_poll.lock() = Instant::now();
            if waited.is_err() {
                return Ok(ConsumerEvent::Records(Vec::new()));
            }
        }
    }

    fn group_event(&self) -> Result<Option<ConsumerEvent>, ClientError> {
        let Some(event) = self.shared.events.lock().pop_front() else { return Ok(None) };
        Ok(Some(match event {
            GroupEvent::Assigned(partitions) => ConsumerEvent::Assigned(partitions),
            GroupEvent::Lost(partitions) => ConsumerEvent::Lost(partitions),
            GroupEvent::Failed(error) => return Err(error),
            // Given up on meanwhile: what is gone is gone, and what has come back since stays.
            GroupEvent::Revoked(_, answer) if answer.is_closed() => return Ok(None),
            GroupEvent::Revoked(partitions, answer) => {
                self.shared.remove(&partitions);
                *self.unanswered.lock() = Some(answer);
                ConsumerEvent::Revoked(partitions)
            }
        }))
    }

    fn take(&self) -> Result<Vec<PartitionRecords>, ClientError> {
        let reading = Reading {
            check_crcs: self.config.check_crcs,
            read_committed: self.config.isolation_level == IsolationLevel::ReadCommitted,
            bytes_max: self.config.poll_bytes_max,
        };
        let mut state = self.shared.state.lock();
        let was_full = state.buffered >= self.config.buffer_bytes;
        let records = state.take(reading);
        let buffered = state.buffered;
        let has_room = buffered < self.config.buffer_bytes;
        drop(state);
        if let Ok(records) = &records
            && !records.is_empty()
        {
            self.shared.metrics.took(records, buffered);
        }
        if was_full && has_room {
            self.shared.wake.notify_one();
        }
        records
    }

    /// Moves the position; what was fetched is dropped.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`].
    pub fn seek(&self, partition: &TopicPartition, to: StartAt) -> Result<(), ClientError> {
        if !self.shared.state.lock().seek(partition, to) {
            return Err(ClientError::NotAssigned { partition: partition.clone() });
        }
        self.shared.wake.notify_one();
        Ok(())
    }

    /// The next offset that `poll` returns; `None` until it is known (a start that must be looked up).
    #[must_use]
    pub fn position(&self, partition: &TopicPartition) -> Option<Offset> {
        match self.shared.state.lock().parts.get(partition)?.position {
            Position::At(offset) => Some(offset),
            Position::Start(_) => None,
        }
    }

    /// The assigned partitions.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.state.lock().parts.keys().cloned().collect()
    }

    /// The id of a topic that is being read; `None` until it is known, or when the cluster has none.
    #[must_use]
    pub fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        let state = self.shared.state.lock();
        state.parts.iter().find(|(partition, _)| partition.topic == *topic)?.1.topic_id
    }

    /// Stops fetching and returning these partitions; their positions stay.
    pub fn pause(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, true);
    }

    /// Goes on with paused partitions.
    pub fn resume(&self, partitions: &[TopicPartition]) {
        self.set_paused(partitions, false);
    }

    fn set_paused(&self, partitions: &[TopicPartition], paused: bool) {
        let mut state = self.shared.state.lock();
        for partition in partitions {
            if let Some(part) = state.parts.get_mut(partition) {
                part.paused = paused;
            }
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    fn coordinator(&self) -> Result<&Arc<Coordinator>, ClientError> {
        self.shared.coordinator.as_ref().ok_or(ClientError::Usage("offsets are a group's: set group_id"))
    }

    /// Commits offsets (the next ones to read) to the group, and waits for the coordinator.
    ///
    /// # Errors
    /// [`ClientError::MembershipLost`] when the partitions are others' already (R6); a broker's error per group.
    pub async fn commit(&self, offsets: &BTreeMap<TopicPartition, Offset>) -> Result<(), ClientError> {
        let offsets = {
            let state = self.shared.state.lock();
            let with_epoch = |(partition, offset): (&TopicPartition, &Offset)| {
                let part = state.parts.get(partition);
                // The epoch is that of the last record returned: true for this offset only.
                let epoch = part.filter(|part| part.position == Position::At(*offset)).map(|p| p.last_epoch);
                let leader_epoch = LeaderEpoch::new(epoch.unwrap_or(-1));
                (partition.clone(), CommittedOffset { leader_epoch, ..CommittedOffset::from(*offset) })
            };
            offsets.iter().map(with_epoch).collect()
        };
        self.commit_with_metadata(&offsets).await
    }

    /// As [`Self::commit`], with metadata and leader epochs.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_with_metadata(
        &self,
        offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), ClientError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let coordinator = self.coordinator()?;
        let mut retry = self.client.retrying("committing offsets", self.client.config.api_timeout_ms);
        loop {
            let identity = self.member()?;
            let results = coordinator.commit(identity.as_ref(), offsets).await?;
            let Some(error) = results.into_values().find_map(Result::err) else { return Ok(()) };
            match error.code() {
                // The member epoch has moved on meanwhile: the commit is still this member's (KIP-848).
                Some(ErrorCode::StaleMemberEpoch) if identity != *self.shared.identity.lock() => {}
                Some(code @ ErrorCode::StaleMemberEpoch) => {
                    // The coordinator knows a newer epoch than this member, who hears of it in a moment.
                    retry
                        .after(ClientError::MembershipLost { group: coordinator.group.as_str().into(), code })
                        .await?;
                }
                Some(
                    code @ (ErrorCode::IllegalGeneration
                    | ErrorCode::UnknownMemberId
                    | ErrorCode::FencedMemberEpoch
                    | ErrorCode::FencedInstanceId),
                ) => {
                    return Err(ClientError::MembershipLost {
                        group: coordinator.group.as_str().into(),
                        code,
                    });
                }
                _ => return Err(error),
            }
        }
    }

    /// Who commits; an error when a member is none at present.
    fn member(&self) -> Result<Option<MembershipIdentity>, ClientError> {
        let identity = self.shared.identity.lock().clone();
        if *self.mode.lock() == Mode::Group && identity.is_none() {
            let group = self.coordinator()?.group.as_str().into();
            return Err(ClientError::MembershipLost { group, code: ErrorCode::UnknownMemberId });
        }
        Ok(identity)
    }

    /// Who this consumer is in its group, for [`crate::Transaction::send_offsets`].
    ///
    /// # Errors
    /// [`ClientError::Usage`] without `group_id`, [`ClientError::MembershipLost`] when the group has gone on without
    /// this member.
    pub fn group_metadata(&self) -> Result<ConsumerGroupMetadata, ClientError> {
        let metadata = ConsumerGroupMetadata::new(self.coordinator()?.group.clone());
        Ok(match self.member()? {
            None => metadata,
            Some(identity) => ConsumerGroupMetadata {
                generation: identity.generation.get(),
                member_id: identity.member_id,
                group_instance_id: identity.group_instance_id,
                ..metadata
            },
        })
    }

    /// What the group has committed; partitions without a committed offset are left out.
    ///
    /// # Errors
    /// The coordinator's.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        self.coordinator()?.committed(Some(partitions), true).await
    }

    /// The offsets of the first records there are.
    ///
    /// # Errors
    /// When a partition does not exist, or its leader does not answer within `api_timeout_ms`.
    pub async fn beginning_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        self.edge_offsets(partitions, -2).await
    }

    /// The high watermarks, or the last stable offsets for `read_committed`.
    ///
    /// # Errors
    /// As [`Self::beginning_offsets`].
    pub async fn end_offsets(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        self.edge_offsets(partitions, -1).await
    }

    /// Where the leader's log of a partition ends. What lies between the high watermark and this is not to be seen yet,
    /// and may be at any time. `None` when the cluster cannot tell.
    ///
    /// # Errors
    /// As [`Self::beginning_offsets`].
    pub async fn log_end_offset(&self, partition: &TopicPartition) -> Result<Option<Offset>, ClientError> {
        self.client.log_end_offset(partition).await
    }

    async fn edge_offsets(
        &self,
        partitions: &[TopicPartition],
        timestamp: i64,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        let wanted: Vec<_> = partitions.iter().map(|p| (p.clone(), timestamp)).collect();
        let listed = self.client.list_offsets(&wanted, self.config.isolation_level).await;
        let offset = |(partition, result): (TopicPartition, Result<crate::ListedOffset, ClientError>)| {
            let offset = result?.offset.unwrap_or(Offset::ZERO);
            Ok((partition, offset))
        };
        listed.into_iter().map(offset).collect()
    }

    /// The first records whose timestamps (ms) are not smaller; partitions without one are left out.
    ///
    /// # Errors
    /// As [`Self::beginning_offsets`].
    pub async fn offsets_for_times(
        &self,
        times: &[(TopicPartition, i64)],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, ClientError> {
        let mut found = BTreeMap::new();
        for (partition, result) in self.client.list_offsets(times, self.config.isolation_level).await {
            let listed = result?;
            if let Some(offset) = listed.offset {
                let timestamp_ms = listed.timestamp_ms.unwrap_or(-1);
                found.insert(partition, OffsetAndTimestamp { offset, timestamp_ms });
            }
        }
        Ok(found)
    }

    /// Leaves the group (a static member stays for its session timeout) and stops fetching. Dropping a consumer
    /// leaves the group in the background.
    pub async fn close(&self) {
        self.end();
        if *self.mode.lock() == Mode::Group
            && let Some(coordinator) = &self.shared.coordinator
        {
            let Some(identity) = self.shared.identity.lock().take() else { return };
            match (self.config.group_protocol, &identity.group_instance_id) {
                (GroupKind::Consumer, instance) => {
                    leave(coordinator, &identity.member_id, instance.as_deref()).await;
                }
                (GroupKind::Classic, None) => coordinator.leave(&identity.member_id, None).await,
                (GroupKind::Classic, Some(_)) => {}
            }
        }
    }
}
