//! A partition that this broker holds: a log, the role that the metadata give it, and those who wait.

mod following;
mod leading;
mod reading;
mod sync;
mod transactions;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use towpath_log::{Log, LogConfig, LogError};
use towpath_types::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition};

pub use following::{Applied, FollowerAnswer};
pub use leading::Appended;
pub use reading::{FetchPosition, FetchedPartition, Isolation, Reader};
pub use waiting::Awaited;
use waiting::Waiters;

use crate::environment::Environment;
use crate::uncommitted::Uncommitted;
use crate::{FetchWaiter, FollowerState, LeaderState, Leadership, PartitionError};

/// How often it is looked whether something is due to be flushed (ms).
const LOOK_MS: i64 = 1000;

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

/// What the partition is here.
#[derive(Debug)]
enum Role {
    Leader(LeaderState),
    Follower(FollowerState),
}

impl Role {
    const fn leadership(&self) -> &Leadership {
        match self {
            Self::Leader(state) => state.leadership(),
            Self::Follower(state) => state.leadership(),
        }
    }
}

/// A partition that this broker holds.
///
/// Locks, in the order in which they may be taken: `changing_role`, `role`, then any of the others for a moment.
#[derive(Debug)]
pub struct Partition {
    log: Arc<Log>,
    environment: Arc<Environment>,
    /// Held shared while something is appended, so that the role does not change meanwhile: a deposed leader appends
    /// nothing, and what an old leader sent is not appended under a new one.
    changing_role: RwLock<()>,
    role: Mutex<Role>,
    /// Grows when the role ends or begins: an ack that waits belongs to one term of leading without a break.
    roles_taken: AtomicU64,
    high_watermark: AtomicI64,
    /// The last stable offset that those who wait for it were last told; the largest number where it was the high
    /// watermark. Changed with the role's lock held.
    told_stable: AtomicI64,
    min_insync_replicas: AtomicU64,
    flush_messages: AtomicI64,
    flush_ms: AtomicI64,
    /// Records since the last flush.
    unflushed: AtomicI64,
    /// Since when something has not been flushed, as far as `flush.ms` has noticed (ms); the largest number for nothing.
    unflushed_since: AtomicI64,
    /// Bytes above the high watermark. Changed with the role's lock held.
    uncommitted: Mutex<Uncommitted>,
    /// Whether the partition is in the flusher's queue.
    queued: AtomicBool,
    /// Whether the partition is in the queue of those that have something to say to the controller.
    in_isr_queue: AtomicBool,
    deleted: AtomicBool,
    /// The log end offset when memory was last looked at.
    end_last_seen: AtomicI64,
    moved: Notify,
    /// Consumers that wait for records.
    waiters: Mutex<Waiters>,
    /// Followers that wait for any records.
    followers_waiting: Mutex<Vec<Arc<FetchWaiter>>>,
}

impl Partition {
    /// Takes the role that the metadata give in the partition of `log`, which was committed up to `committed` as far as
    /// the checkpoint says.
    #[must_use]
    pub fn open(
        log: Arc<Log>,
        leadership: Leadership,
        committed: Offset,
        settings: &Settings,
        environment: Arc<Environment>,
    ) -> Arc<Self> {
        // What was deleted was committed, also where the checkpoint is older.
        let committed = committed.max(log.log_start_offset()).min(log.log_end_offset());
        log.high_watermark_moved(committed);
        let role = Role::Follower(FollowerState::new(
            Leadership { leader: None, ..leadership.clone() },
            environment.rules(),
        ));
        let partition = Arc::new(Self {
            high_watermark: AtomicI64::new(committed.get()),
            told_stable: AtomicI64::new(i64::MAX),
            log,
            environment,
            changing_role: RwLock::default(),
            role: Mutex::new(role),
            roles_taken: AtomicU64::new(0),
            min_insync_replicas: AtomicU64::new(1),
            flush_messages: AtomicI64::new(i64::MAX),
            flush_ms: AtomicI64::new(i64::MAX),
            unflushed: AtomicI64::new(0),
            unflushed_since: AtomicI64::new(i64::MAX),
            uncommitted: Mutex::default(),
            queued: AtomicBool::new(false),
            in_isr_queue: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
            end_last_seen: AtomicI64::new(-1),
            moved: Notify::new(),
            waiters: Mutex::default(),
            followers_waiting: Mutex::new(Vec::new()),
        });
        partition.keep_settings(settings);
        partition.update(leadership);
        partition
    }

    fn keep_settings(&self, settings: &Settings) {
        self.log.set_config(settings.log);
        self.min_insync_replicas.store(settings.min_insync_replicas as u64, Ordering::Relaxed);
        self.flush_messages.store(settings.flush_messages, Ordering::Relaxed);
        self.flush_ms.store(settings.flush_ms, Ordering::Relaxed);
    }

    /// Takes new settings; they are in force when this returns.
    pub fn configure(self: &Arc<Self>, settings: &Settings) {
        self.keep_settings(settings);
        self.configure_leader(&mut self.role.lock());
        self.flush_what_counts();
    }

    fn configure_leader(&self, role: &mut Role) {
        if let Role::Leader(state) = role {
            self.set_limits(state);
            let (now, brokers) = (self.environment.now_ms(), self.environment.brokers());
            let moved = state.advance(now, &brokers);
            self.publish(moved);
        }
    }

    /// Tells the leader what the settings ask for. Nothing is committed by that yet.
    fn set_limits(&self, state: &mut LeaderState) {
        let min_isr = usize::try_from(self.min_insync_replicas.load(Ordering::Relaxed)).unwrap_or(1);
        state.set_limits(min_isr, self.counts_when_flushed());
    }

    /// Whether a record counts only once it is flushed.
    #[must_use]
    pub fn counts_when_flushed(&self) -> bool {
        self.flush_messages.load(Ordering::Relaxed) == 1
    }

    /// What a killed process left in the page cache counts only once it is flushed.
    fn flush_what_counts(self: &Arc<Self>) {
        if self.counts_when_flushed() && self.log.recovery_point() < self.log.log_end_offset() {
            self.environment.flusher().request(Arc::clone(self));
        }
    }

    /// Takes a new state together with new settings. Neither is in force without the other at any time: an ISR that
    /// shrank while `min.insync.replicas` was raised would commit what only few have, and so would a leader that is
    /// deposed while it is lowered (rule 7).
    pub fn update_and_configure(self: &Arc<Self>, leadership: Leadership, settings: &Settings) {
        self.keep_settings(settings);
        self.update(leadership);
    }

    /// Takes a new state from the metadata: the partition leads, follows, or waits for a leader from here on.
    pub fn update(self: &Arc<Self>, leadership: Leadership) {
        let leads = leadership.leader == Some(self.environment.me());
        let changing = self.changing_role.write();
        let mut role = self.role.lock();
        match (&mut *role, leads) {
            (Role::Leader(state), true) => self.go_on_leading(state, leadership),
            (Role::Follower(state), false) => {
                state.follow(leadership);
            }
            // R6, rule 1: what is older than what is known changes nothing.
            (current, _) if !leadership.is_at_least(current.leadership()) => {
                self.configure_leader(current);
                return;
            }
            (_, true) => self.begin_to_lead(&mut role, leadership),
            (_, false) => {
                self.roles_taken.fetch_add(1, Ordering::AcqRel);
                *role = Role::Follower(FollowerState::new(leadership, self.environment.rules()));
            }
        }
        drop(role);
        drop(changing);
        self.flush_what_counts();
        self.consider_isr();
        self.wake_all();
    }

    /// This process is none of the cluster's brokers any more: it leads nothing (R6).
    pub fn resign(self: &Arc<Self>) {
        let leadership = self.role.lock().leadership().clone();
        self.update(Leadership { leader: None, ..leadership });
    }

    /// The brokers have changed: whoever was fenced or came back may change what is in sync.
    pub fn brokers_changed(self: &Arc<Self>) {
        let mut role = self.role.lock();
        if let Role::Leader(state) = &mut *role {
            let moved = state.advance(self.environment.now_ms(), &self.environment.brokers());
            self.publish(moved);
        }
        drop(role);
        self.consider_isr();
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

    /// The leader's term, as far as is known here.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.role.lock().leadership().leader_epoch
    }

    /// The leader, as far as is known here.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.role.lock().leadership().leader
    }

    /// Whether this broker leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(&*self.role.lock(), Role::Leader(_))
    }

    /// R3: readers see what is below.
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        Offset::new(self.high_watermark.load(Ordering::Acquire))
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
        compare_epochs(found, self.leader_epoch())
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
                if let Role::Leader(state) = &mut *self.role.lock() {
                    let brokers = self.environment.brokers();
                    let moved = state.flushed(durable, self.environment.now_ms(), &brokers);
                    self.publish(moved);
                }
                // Whoever waits for the disk alone.
                self.moved.notify_waiters();
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
    pub(crate) fn flush_if_old(self: &Arc<Self>) {
        let limit = self.flush_ms.load(Ordering::Relaxed);
        if limit == i64::MAX || self.log.recovery_point() >= self.log.log_end_offset() {
            self.unflushed_since.store(i64::MAX, Ordering::Relaxed);
            return;
        }
        let now = self.environment.now_ms();
        let since = self.unflushed_since.fetch_min(now, Ordering::Relaxed).min(now);
        // It is looked once a second: what would be too late by then is flushed now.
        if now.saturating_sub(since).saturating_add(LOOK_MS) >= limit {
            self.unflushed_since.store(i64::MAX, Ordering::Relaxed);
            self.environment.flusher().request(Arc::clone(self));
        }
    }

    /// Gives back the log's memory if nothing was written since the last call.
    pub(crate) fn release_if_idle(&self) {
        let end = self.log.log_end_offset().get();
        if self.end_last_seen.swap(end, Ordering::Relaxed) == end {
            self.log.release_memory();
        }
    }

    /// The partition is being deleted: nothing more is taken, and nobody waits any longer.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.wake_all();
    }
}

pub(crate) fn compare_epochs(found: LeaderEpoch, current: LeaderEpoch) -> Result<(), PartitionError> {
    if found == LeaderEpoch::NONE {
        return Ok(());
    }
    match found.cmp(&current) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(PartitionError::FencedLeaderEpoch { found, current }),
        std::cmp::Ordering::Greater => Err(PartitionError::UnknownLeaderEpoch { found, current }),
    }
}
