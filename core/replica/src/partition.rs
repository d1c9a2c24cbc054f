//! A partition that this broker leads.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use towpath_log::{AppendInfo, Effort, FetchedData, Log, LogConfig, LogError, TimestampAndOffset};
use towpath_record::Origin;
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicPartition};

use crate::flusher::Flusher;
use crate::uncommitted::Uncommitted;
use crate::{FetchWaiter, LeaderState, Leadership, PartitionError};

/// A topic's settings, as far as a replica is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Those of the log.
    pub log: LogConfig,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `flush.messages`: with 1, a record counts only once it is flushed.
    pub flush_messages: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
}

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it went.
    pub info: AppendInfo,
    /// Whether it is committed already: an ack need not wait.
    pub committed: bool,
    /// Bytes that were appended.
    pub bytes: u64,
}

/// Where a fetch reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPosition {
    /// The offset to read from.
    pub offset: Offset,
    /// The leader epoch that the reader knows; -1 for none.
    pub current_leader_epoch: LeaderEpoch,
    /// The epoch of the last record that the reader has; -1 for none.
    pub last_fetched_epoch: LeaderEpoch,
    /// Bytes to return at most.
    pub bytes_max: usize,
    /// Whether the first batch is returned even if it is larger.
    pub min_one: bool,
}

/// What a fetch found.
#[derive(Debug, Clone)]
pub struct FetchedPartition {
    /// Whole batches.
    pub data: FetchedData,
    /// The high watermark.
    pub high_watermark: Offset,
    /// The last stable offset.
    pub last_stable_offset: Offset,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// The reader's log differs: the largest epoch up to its last one, and where that ends here (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// A partition that this broker leads: a log, the leader's bookkeeping, and those who wait.
#[derive(Debug)]
pub struct Partition {
    log: Arc<Log>,
    state: Mutex<LeaderState>,
    high_watermark: AtomicI64,
    flush_messages: AtomicI64,
    flush_ms: AtomicI64,
    /// Records since the last flush.
    unflushed: AtomicI64,
    /// Bytes above the high watermark. Changed with the state's lock held.
    uncommitted: Mutex<Uncommitted>,
    flusher: Arc<Flusher>,
    /// Whether the partition is in the flusher's queue.
    queued: AtomicBool,
    deleted: AtomicBool,
    /// The log end offset when memory was last looked at.
    end_last_seen: AtomicI64,
    moved: Notify,
    waiters: Mutex<Vec<Arc<FetchWaiter>>>,
}

impl Partition {
    /// Leads the partition of `log`, which was committed up to `committed` as far as the checkpoint says.
    #[must_use]
    pub fn lead(
        log: Arc<Log>,
        leadership: Leadership,
        committed: Offset,
        settings: &Settings,
        flusher: Arc<Flusher>,
    ) -> Arc<Self> {
        log.assign_epoch(leadership.leader_epoch);
        let state = LeaderState::new(leadership, log.log_end_offset(), log.recovery_point(), committed);
        let partition = Arc::new(Self {
            high_watermark: AtomicI64::new(state.high_watermark().get()),
            log,
            state: Mutex::new(state),
            flush_messages: AtomicI64::new(i64::MAX),
            flush_ms: AtomicI64::new(i64::MAX),
            unflushed: AtomicI64::new(0),
            uncommitted: Mutex::default(),
            flusher,
            queued: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            end_last_seen: AtomicI64::new(-1),
            moved: Notify::new(),
            waiters: Mutex::new(Vec::new()),
        });
        partition.configure(settings);
        partition
    }

    /// Takes new settings; they are in force when this returns.
    pub fn configure(self: &Arc<Self>, settings: &Settings) {
        self.log.set_config(settings.log);
        self.flush_messages.store(settings.flush_messages, Ordering::Relaxed);
        self.flush_ms.store(settings.flush_ms, Ordering::Relaxed);
        let mut state = self.state.lock();
        let moved = state.configure(settings.min_insync_replicas, settings.flush_messages == 1);
        let behind = state.counts_when_flushed() && state.high_watermark() < self.log.log_end_offset();
        self.publish(moved);
        drop(state);
        if behind {
            // What a killed process left in the page cache counts only once it is flushed.
            self.flusher.request(Arc::clone(self));
        }
    }

    /// Takes a new state from the metadata.
    pub fn update(&self, leadership: Leadership) {
        let mut state = self.state.lock();
        let epoch = leadership.leader_epoch;
        if state.lead(leadership) {
            self.log.assign_epoch(epoch);
        }
        let moved = state.advance();
        self.publish(moved);
        drop(state);
        self.wake_all();
    }

    /// The log below.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Which partition this is.
    #[must_use]
    pub fn id(&self) -> &TopicPartition {
        self.log.partition()
    }

    /// The topic's id.
    #[must_use]
    pub fn topic_id(&self) -> TopicId {
        self.log.topic_id()
    }

    /// The leader's term.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.state.lock().leadership().leader_epoch
    }

    /// R3: readers see what is below.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset::new(self.high_watermark.load(Ordering::Acquire))
    }

    /// What `read_committed` readers see: with no transactions open, what all see.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.high_watermark()
    }

    /// Whether the partition can be used at all.
    ///
    /// # Errors
    /// [`PartitionError::Deleted`], [`PartitionError::Offline`].
    pub fn check_online(&self) -> Result<(), PartitionError> {
        if self.deleted.load(Ordering::Acquire) {
            return Err(PartitionError::Deleted);
        }
        match self.log.offline_reason() {
            None => Ok(()),
            // R14: nothing is read from or written to a directory that failed.
            Some(reason) => Err(PartitionError::Offline(reason.to_owned())),
        }
    }

    /// Compares a client's leader epoch with ours (KIP-320); -1 skips that.
    ///
    /// # Errors
    /// [`PartitionError::FencedLeaderEpoch`], [`PartitionError::UnknownLeaderEpoch`].
    pub fn check_epoch(&self, found: LeaderEpoch) -> Result<(), PartitionError> {
        if found == LeaderEpoch::NONE {
            return Ok(());
        }
        let current = self.leader_epoch();
        match found.cmp(&current) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(PartitionError::FencedLeaderEpoch { found, current }),
            std::cmp::Ordering::Greater => Err(PartitionError::UnknownLeaderEpoch { found, current }),
        }
    }

    /// Appends one batch. With `all`, enough replicas must be in sync before anything is written.
    ///
    /// # Errors
    /// [`PartitionError`]; nothing was appended, unless the disk failed.
    pub fn append(
        self: &Arc<Self>,
        batch: Bytes,
        all: bool,
        origin: Origin,
    ) -> Result<Appended, PartitionError> {
        self.append_within(batch, all, origin, Effort::Any)
    }

    /// As [`Self::append`], but with no more work than `effort` allows.
    ///
    /// # Errors
    /// As there; and [`towpath_log::AppendError::TooMuchWork`], with nothing appended.
    pub fn append_within(
        self: &Arc<Self>,
        batch: Bytes,
        all: bool,
        origin: Origin,
        effort: Effort,
    ) -> Result<Appended, PartitionError> {
        self.check_online()?;
        let epoch = {
            let state = self.state.lock();
            let (in_sync, needed) = (state.in_sync(), state.min_isr_effective());
            if all && in_sync < needed {
                return Err(PartitionError::NotEnoughReplicas { in_sync, needed });
            }
            state.leadership().leader_epoch
        };
        let bytes = batch.len() as u64;
        let info = self.log.append_as_leader_within(batch, epoch, origin, effort)?;
        if !info.duplicate {
            let mut state = self.state.lock();
            let moved = state.appended(self.log.log_end_offset());
            self.uncommitted.lock().push(info.last_offset, bytes);
            if moved.is_none() && self.high_watermark() > info.last_offset {
                // A later append came here first and has moved the high watermark past this one as well.
                self.tell_waiters();
            }
            self.publish(moved);
            drop(state);
            self.flush_if_due(&info);
        } else if self.high_watermark() <= info.last_offset && self.state.lock().counts_when_flushed() {
            // The flush that the first attempt asked for may have failed.
            self.flusher.request(Arc::clone(self));
        }
        let bytes = if info.duplicate { 0 } else { bytes };
        Ok(Appended { info, committed: self.high_watermark() > info.last_offset, bytes })
    }

    fn flush_if_due(self: &Arc<Self>, info: &AppendInfo) {
        let limit = self.flush_messages.load(Ordering::Relaxed);
        let records = info.last_offset.get() - info.first_offset.get() + 1;
        let due =
            limit != i64::MAX && self.unflushed.fetch_add(records, Ordering::Relaxed) + records >= limit;
        if due || info.rolled {
            self.flusher.request(Arc::clone(self));
        }
    }

    /// Marks the partition as queued; false if it was.
    pub(crate) fn begin_request(&self) -> bool {
        !self.queued.swap(true, Ordering::AcqRel)
    }

    /// Makes durable what is there, and lets it count. Called by the flusher's thread. Returns whether it has to be tried
    /// again later: it failed, and the directory lives.
    pub(crate) fn flush_now(&self) -> bool {
        // From here on an append asks for a flush of its own: this one may have begun before it.
        self.queued.store(false, Ordering::Release);
        self.unflushed.store(0, Ordering::Relaxed);
        match self.log.flush() {
            Ok(durable) => {
                let mut state = self.state.lock();
                let moved = state.flushed(durable);
                self.publish(moved);
                false
            }
            Err(LogError::Closed(_)) => {
                self.wake_all();
                false
            }
            Err(error) => {
                tracing::error!(partition = %self.id(), %error, "the flush failed");
                self.wake_all();
                // R14: after a failed fsync nothing is tried again; for want of a file descriptor, everything.
                self.log.offline_reason().is_none()
            }
        }
    }

    /// Asks for a flush if `flush.ms` says so.
    pub(crate) fn flush_if_old(self: &Arc<Self>, since_last_ms: i64) {
        let behind = self.log.recovery_point() < self.log.log_end_offset();
        if behind && since_last_ms >= self.flush_ms.load(Ordering::Relaxed) {
            self.flusher.request(Arc::clone(self));
        }
    }

    /// Gives back the log's memory if nothing was written since the last call.
    pub(crate) fn release_if_idle(&self) {
        let end = self.log.log_end_offset().get();
        if self.end_last_seen.swap(end, Ordering::Relaxed) == end {
            self.log.release_memory();
        }
    }

    /// Makes a moved high watermark visible and wakes those who wait for it. The caller holds the state's lock.
    fn publish(&self, moved: Option<Offset>) {
        let Some(moved) = moved else { return };
        self.high_watermark.store(moved.get(), Ordering::Release);
        self.moved.notify_waiters();
        self.tell_waiters();
    }

    /// Tells those who wait for records what is committed now. The caller holds the state's lock.
    fn tell_waiters(&self) {
        let bytes = self.uncommitted.lock().take_below(self.high_watermark());
        for waiter in &*self.waiters.lock() {
            if bytes == 0 {
                // What was there when the partition was opened: nobody has counted it.
                waiter.wake();
            } else {
                waiter.committed(bytes);
            }
        }
    }

    fn wake_all(&self) {
        self.moved.notify_waiters();
        for waiter in &*self.waiters.lock() {
            waiter.wake();
        }
    }

    /// Resolves when everything up to and including `last` is committed.
    ///
    /// # Errors
    /// [`PartitionError`] when the directory failed or the partition is gone: whether the record is there is then
    /// unknown.
    pub fn committed(
        self: &Arc<Self>,
        last: Offset,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        let partition = Arc::clone(self);
        async move {
            loop {
                let mut moved = pin!(partition.moved.notified());
                moved.as_mut().enable();
                if partition.high_watermark() > last {
                    return Ok(());
                }
                partition.check_online()?;
                moved.await;
            }
        }
    }

    /// Adds a fetch to those that wait for records here.
    pub fn wait_for_records(&self, waiter: &Arc<FetchWaiter>) {
        self.waiters.lock().push(Arc::clone(waiter));
    }

    /// Takes a fetch out again.
    pub fn stop_waiting(&self, waiter: &Arc<FetchWaiter>) {
        let mut waiters = self.waiters.lock();
        if let Some(index) = waiters.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            waiters.swap_remove(index);
        }
        if waiters.is_empty() && waiters.capacity() > 64 {
            waiters.shrink_to(0);
        }
    }

    /// Reads whole batches below the high watermark.
    ///
    /// # Errors
    /// [`PartitionError`]: epochs, range, storage.
    pub fn fetch(&self, position: &FetchPosition) -> Result<FetchedPartition, PartitionError> {
        self.check_online()?;
        self.check_epoch(position.current_leader_epoch)?;
        let high_watermark = self.high_watermark();
        let mut fetched = FetchedPartition {
            data: FetchedData::Empty,
            high_watermark,
            last_stable_offset: high_watermark,
            log_start_offset: self.log.log_start_offset(),
            diverging: None,
        };
        if position.last_fetched_epoch >= LeaderEpoch::new(0) {
            match self.log.end_offset_for_epoch(position.last_fetched_epoch) {
                Some((epoch, end)) if end >= fetched.log_start_offset => {
                    if epoch < position.last_fetched_epoch || end < position.offset {
                        fetched.diverging = Some((epoch, end));
                        return Ok(fetched);
                    }
                }
                _ => {
                    return Err(PartitionError::OutOfRange {
                        requested: position.offset,
                        log_start: fetched.log_start_offset,
                        log_end: self.log.log_end_offset(),
                    });
                }
            }
        }
        // R3: nothing at or above the high watermark is read.
        fetched.data =
            self.log.read(position.offset, position.bytes_max, high_watermark, position.min_one)?;
        Ok(fetched)
    }

    /// The high watermark for `ListOffsets`.
    ///
    /// # Errors
    /// [`PartitionError::OffsetNotAvailable`] while a new leader has not caught up with itself (KIP-207).
    pub fn latest_offset(&self) -> Result<Offset, PartitionError> {
        self.check_online()?;
        let state = self.state.lock();
        if state.has_committed_its_start() {
            Ok(state.high_watermark())
        } else {
            Err(PartitionError::OffsetNotAvailable)
        }
    }

    /// The first committed record with a timestamp of at least `timestamp_ms`.
    ///
    /// # Errors
    /// [`PartitionError::OffsetNotAvailable`] if it is there and a new leader has not committed it yet; storage.
    pub fn lookup_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampAndOffset>, PartitionError> {
        self.check_online()?;
        self.visible(self.log.lookup_timestamp(timestamp_ms)?)
    }

    /// The first record with the largest timestamp.
    ///
    /// # Errors
    /// As [`Self::lookup_timestamp`].
    pub fn max_timestamp(&self) -> Result<Option<TimestampAndOffset>, PartitionError> {
        self.check_online()?;
        self.visible(self.log.max_timestamp()?)
    }

    fn visible(
        &self,
        found: Option<TimestampAndOffset>,
    ) -> Result<Option<TimestampAndOffset>, PartitionError> {
        let Some(found) = found else { return Ok(None) };
        if found.offset < self.high_watermark() {
            return Ok(Some(found));
        }
        self.latest_offset().map(|_| None)
    }

    /// Where the largest epoch up to `epoch` ends (`OffsetForLeaderEpoch`).
    ///
    /// # Errors
    /// [`PartitionError`]: epochs, storage.
    pub fn end_offset_for_epoch(
        &self,
        current: LeaderEpoch,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, PartitionError> {
        self.check_online()?;
        self.check_epoch(current)?;
        Ok(self.log.end_offset_for_epoch(epoch))
    }

    /// Moves the log start offset up to `offset`, or to the high watermark for `None`, and removes the segments
    /// that lie before it. Returns the log start offset.
    ///
    /// # Errors
    /// [`PartitionError::OutOfRange`] past the high watermark; storage.
    pub fn delete_records_before(&self, offset: Option<Offset>) -> Result<Offset, PartitionError> {
        self.check_online()?;
        let high_watermark = self.high_watermark();
        let offset = offset.unwrap_or(high_watermark);
        if offset > high_watermark || offset < Offset::ZERO {
            return Err(PartitionError::OutOfRange {
                requested: offset,
                log_start: self.log.log_start_offset(),
                log_end: high_watermark,
            });
        }
        let start = self.log.delete_records_before(offset)?;
        self.log.delete_old_segments(high_watermark)?;
        self.wake_all();
        Ok(start)
    }

    /// The partition is being deleted: nothing more is taken, and nobody waits any longer.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.wake_all();
    }
}
