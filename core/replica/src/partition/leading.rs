//! What a leader does: appends, counts who has what, and proposes changes of the ISR.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use towpath_log::{AppendError, AppendInfo, AppendOptions, Effort, Log};
use towpath_record::Origin;
use towpath_types::{BrokerId, LeaderEpoch, Offset, Term};

use super::{Partition, Role};
use crate::leader::{FollowerFetch, IsrProposal, LeaderState, ProposalAnswer};
use crate::{FollowerRefused, Leadership, PartitionError};

/// A batch that was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Where it went.
    pub info: AppendInfo,
    /// Whether it is committed already: an ack need not wait.
    pub committed: bool,
    /// Bytes that were appended.
    pub bytes: u64,
    /// The term without a break in which it was appended.
    term: u64,
}

impl Partition {
    /// The term in which this broker leads; `None` while it does not.
    #[must_use]
    pub fn term(&self) -> Option<Term> {
        match &*self.role.lock() {
            Role::Leader(state) => Some(Term {
                leader_epoch: state.leadership().leader_epoch,
                number: self.roles_taken.load(Ordering::Acquire),
            }),
            Role::Follower(_) => None,
        }
    }

    /// This partition comes in the place of another one: a term of that one has ended, whatever its number.
    pub(crate) fn count_terms_after(&self, other: &Self) {
        self.roles_taken.fetch_add(other.roles_taken.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// Takes a newer state in which this broker goes on to lead.
    pub(super) fn go_on_leading(&self, state: &mut LeaderState, leadership: Leadership) {
        let epoch = leadership.leader_epoch;
        let (now, brokers) = (self.environment.now_ms(), self.environment.brokers());
        self.set_limits(state);
        // Whoever has just appended may not have told yet; a new term begins where the log ends.
        let before = state.appended(self.log.log_end_offset(), now, &brokers);
        if state.lead(leadership, now) {
            self.log.assign_epoch(epoch);
        }
        let moved = state.advance(now, &brokers);
        self.publish(moved.or(before));
    }

    /// Rule 2: the new term is in the epoch cache before anything else happens in it, also if nothing is ever written.
    pub(super) fn begin_to_lead(&self, role: &mut Role, leadership: Leadership) {
        self.log.assign_epoch(leadership.leader_epoch);
        self.roles_taken.fetch_add(1, Ordering::AcqRel);
        *self.uncommitted.lock() = Default::default();
        self.told_stable.store(self.stable_to_tell(), Ordering::Relaxed);
        let (end, flushed) = (self.log.log_end_offset(), self.log.recovery_point());
        let setup = self.environment.setup();
        let now = self.environment.now_ms();
        let state = LeaderState::new(setup, leadership, end, flushed, self.high_watermark(), now);
        *role = Role::Leader(state);
        self.configure_leader(role);
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
        self.append_with(batch, all, &AppendOptions { origin, effort, guard: None })
    }

    /// As [`Self::append`], also for batches of transactions: one that begins a transaction here needs a guard
    /// ([`Self::transaction_check`]).
    ///
    /// # Errors
    /// As there; [`AppendError::NotVerified`] without a guard that counts, [`AppendError::TooMuchWork`]. Nothing was
    /// appended.
    pub fn append_with(
        self: &Arc<Self>,
        batch: Bytes,
        all: bool,
        options: &AppendOptions,
    ) -> Result<Appended, PartitionError> {
        let (bytes, options) = (batch.len() as u64, self.proven(&batch, options));
        self.append_while(None, all, bytes, |log, epoch| log.append_as_leader_with(batch, epoch, &options))
    }

    /// As [`Self::append_with`], with `acks=all` and only within a term: what a coordinator decided from what it had read
    /// then is not written once somebody else may have decided otherwise (R6).
    ///
    /// # Errors
    /// As there; [`PartitionError::NotLeader`] when the term has ended.
    pub fn append_in_term(
        self: &Arc<Self>,
        term: Term,
        batch: Bytes,
        options: &AppendOptions,
    ) -> Result<Appended, PartitionError> {
        let (bytes, options) = (batch.len() as u64, self.proven(&batch, options));
        self.append_while(Some(term), true, bytes, |log, epoch| {
            log.append_as_leader_with(batch, epoch, &options)
        })
    }

    /// Appends by the leader; only within a term, if one is given.
    pub(super) fn append_while(
        self: &Arc<Self>,
        only: Option<Term>,
        all: bool,
        bytes: u64,
        append: impl FnOnce(&Log, LeaderEpoch) -> Result<AppendInfo, AppendError>,
    ) -> Result<Appended, PartitionError> {
        self.check_online()?;
        let leading = self.changing_role.read();
        let term = self.may_append(all)?;
        if only.is_some_and(|only| only.number != term.number) {
            return Err(PartitionError::NotLeader);
        }
        let info = append(&self.log, term.leader_epoch)?;
        drop(leading);
        Ok(self.settle(info, bytes, term.number))
    }

    /// Appends batches of clients in turn; those that follow each other without a doubt are written in one call. None of them
    /// may be compressed or of a transaction. `None` where each of them has to be looked at alone: nothing was appended.
    ///
    /// # Errors
    /// Those of [`Self::append`], for each batch.
    pub fn append_burst(
        self: &Arc<Self>,
        batches: &[Bytes],
        all: bool,
    ) -> Option<Vec<Result<Appended, PartitionError>>> {
        if self.check_online().is_err() || self.log.config().compression.is_some() {
            return None;
        }
        let leading = self.changing_role.read();
        let term = self.may_append(all).ok()?;
        let infos = self.log.append_burst_as_leader(batches, term.leader_epoch, Origin::Client);
        drop(leading);
        let settled = |(info, batch): (Result<_, AppendError>, &Bytes)| {
            Ok(self.settle(info?, batch.len() as u64, term.number))
        };
        Some(infos.into_iter().zip(batches).map(settled).collect())
    }

    /// The term in which this broker leads, if enough replicas are in sync where that is asked for.
    fn may_append(&self, all: bool) -> Result<Term, PartitionError> {
        let leader_epoch = match &*self.role.lock() {
            Role::Leader(state) => {
                let (in_sync, needed) = (state.in_sync(), state.min_isr_effective());
                if all && in_sync < needed {
                    return Err(PartitionError::NotEnoughReplicas { in_sync, needed });
                }
                state.leadership().leader_epoch
            }
            Role::Follower(_) => return Err(PartitionError::NotLeader),
        };
        Ok(Term { leader_epoch, number: self.roles_taken.load(Ordering::Acquire) })
    }

    /// What has to be done once the log has a batch.
    fn settle(self: &Arc<Self>, info: AppendInfo, bytes: u64, term: u64) -> Appended {
        if !info.duplicate {
            self.appended(&info, bytes);
        } else if self.high_watermark() <= info.last_offset && self.counts_when_flushed() {
            // The flush that the first attempt asked for may have failed.
            self.environment.flusher().request(Arc::clone(self));
        }
        let bytes = if info.duplicate { 0 } else { bytes };
        // In this order, as in `committed`.
        let committed =
            self.high_watermark() > info.last_offset && self.roles_taken.load(Ordering::Acquire) == term;
        Appended { info, committed, bytes, term }
    }

    fn appended(self: &Arc<Self>, info: &AppendInfo, bytes: u64) {
        let mut role = self.role.lock();
        // A role that has ended meanwhile counts nothing any more.
        if let Role::Leader(state) = &mut *role {
            let brokers = self.environment.brokers();
            let moved = state.appended(self.log.log_end_offset(), self.environment.now_ms(), &brokers);
            self.uncommitted.lock().push(info.last_offset, bytes);
            if moved.is_none() && self.high_watermark() > info.last_offset {
                // A later append came here first and has moved the high watermark past this one as well.
                self.tell_waiters();
            }
            self.publish(moved);
        }
        drop(role);
        self.tell_followers(bytes);
        self.flush_if_due(info);
    }

    pub(super) fn flush_if_due(self: &Arc<Self>, info: &AppendInfo) {
        let limit = self.flush_messages.load(Ordering::Relaxed);
        let records = info.last_offset.get() - info.first_offset.get() + 1;
        let due =
            limit != i64::MAX && self.unflushed.fetch_add(records, Ordering::Relaxed) + records >= limit;
        if due || info.rolled {
            self.environment.flusher().request(Arc::clone(self));
        }
    }

    /// Resolves when what was appended is committed.
    ///
    /// # Errors
    /// [`PartitionError`] when the directory failed, the partition is gone, or this broker has ceased to lead: whether
    /// the record is there is then unknown.
    pub fn committed(
        self: &Arc<Self>,
        appended: &Appended,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        let last = appended.info.last_offset;
        leading_until(Arc::clone(self), appended.term, move |partition| partition.high_watermark() > last)
    }

    /// Resolves when all before `end` is committed, within a term.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn committed_before(
        self: &Arc<Self>,
        term: Term,
        end: Offset,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        leading_until(Arc::clone(self), term.number, move |partition| partition.high_watermark() >= end)
    }

    /// Whether what was appended is committed by now.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn is_committed(&self, appended: &Appended) -> Result<bool, PartitionError> {
        // In this order: a watermark that another leader's records have moved acknowledges nothing.
        let committed = self.high_watermark() > appended.info.last_offset;
        if self.roles_taken.load(Ordering::Acquire) != appended.term {
            return Err(PartitionError::NotLeader);
        }
        if !committed {
            self.check_online()?;
        }
        Ok(committed)
    }

    /// Resolves when what was appended is durable here, whatever followers have of it (`acks=1` where a record counts
    /// only once it is flushed).
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn durable(
        self: &Arc<Self>,
        appended: &Appended,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        let last = appended.info.last_offset;
        leading_until(Arc::clone(self), appended.term, move |partition| partition.log.recovery_point() > last)
    }

    /// Resolves when all replicas in sync have moved their log start offset up to `offset`.
    ///
    /// # Errors
    /// As [`Self::committed`].
    pub fn deleted_before(
        self: &Arc<Self>,
        offset: Offset,
    ) -> impl Future<Output = Result<(), PartitionError>> + use<> {
        let term = self.roles_taken.load(Ordering::Acquire);
        leading_until(Arc::clone(self), term, move |partition| partition.low_watermark() >= offset)
    }

    /// A follower fetched: all before its log's end it has. Called after its fetch was found to be in order in the term
    /// `epoch`.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`], [`PartitionError::Follower`].
    pub(super) fn follower_fetched(
        self: &Arc<Self>,
        fetch: &FollowerFetch,
        epoch: LeaderEpoch,
    ) -> Result<(), PartitionError> {
        let mut role = self.role.lock();
        let Role::Leader(state) = &mut *role else { return Err(PartitionError::NotLeader) };
        // Rule 3: between the check and this the log may have been cut under another leader.
        if state.leadership().leader_epoch != epoch {
            return Err(PartitionError::NotLeader);
        }
        let before = state.follower_log_start(fetch.broker);
        let moved = state.fetched(fetch, self.environment.now_ms(), &self.environment.brokers())?;
        if before != Some(fetch.log_start) {
            self.moved.notify_waiters();
        }
        self.publish(moved);
        drop(role);
        self.consider_isr();
        Ok(())
    }

    /// Queues the partition if its leader has something to say to the controller.
    pub fn consider_isr(self: &Arc<Self>) {
        let has = match &mut *self.role.lock() {
            Role::Leader(state) => {
                let (now, brokers) = (self.environment.now_ms(), self.environment.brokers());
                // Who is no member and has been silent for too long holds nothing up any more.
                let moved = state.advance(now, &brokers);
                self.publish(moved);
                state.has_proposal(now, &brokers)
            }
            Role::Follower(_) => false,
        };
        if has && !self.in_isr_queue.swap(true, Ordering::AcqRel) {
            self.environment.isr_queue().push(Arc::clone(self));
        }
    }

    pub(crate) fn taken_from_isr_queue(&self) {
        self.in_isr_queue.store(false, Ordering::Release);
    }

    /// The change of the ISR that is due now, if one is.
    #[must_use]
    pub fn propose_isr(&self) -> Option<IsrProposal> {
        match &mut *self.role.lock() {
            Role::Leader(state) => state.propose(self.environment.now_ms(), &self.environment.brokers()),
            Role::Follower(_) => None,
        }
    }

    /// What the controller answered to a proposal.
    pub fn isr_answered(&self, proposal: &IsrProposal, answer: ProposalAnswer) {
        if let Role::Leader(state) = &mut *self.role.lock() {
            state.answered(proposal, answer);
        }
    }

    /// Replicas in sync: the committed set and what is being proposed; empty where this broker does not lead.
    #[must_use]
    pub fn maximal_isr(&self) -> Vec<BrokerId> {
        match &*self.role.lock() {
            Role::Leader(state) => state.maximal_isr(),
            Role::Follower(_) => Vec::new(),
        }
    }

    /// Where a follower's log ended when it last fetched.
    #[must_use]
    pub fn follower_log_end(&self, id: BrokerId) -> Option<Offset> {
        match &*self.role.lock() {
            Role::Leader(state) => state.follower_log_end(id),
            Role::Follower(_) => None,
        }
    }

    /// Moves the log start offset up to `offset`, or to the high watermark for `None`, and removes the segments
    /// that lie before it. Returns the log start offset.
    ///
    /// # Errors
    /// [`PartitionError::OutOfRange`] past the high watermark; [`PartitionError::NotLeader`]; storage.
    pub fn delete_records_before(&self, offset: Option<Offset>) -> Result<Offset, PartitionError> {
        self.check_online()?;
        if !self.is_leader() {
            return Err(PartitionError::NotLeader);
        }
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
        self.tell_followers(u64::MAX);
        Ok(start)
    }

    /// The smallest log start offset of the replicas in sync (`DeleteRecords` waits until it has moved).
    #[must_use]
    pub fn low_watermark(&self) -> Offset {
        let own = self.log.log_start_offset();
        match &*self.role.lock() {
            Role::Leader(state) => state.low_watermark(own),
            Role::Follower(_) => own,
        }
    }
}

/// Resolves when `is_so`, which may begin to hold whenever `moved` is notified, and this broker has led without a break.
async fn leading_until(
    partition: Arc<Partition>,
    term: u64,
    is_so: impl Fn(&Partition) -> bool,
) -> Result<(), PartitionError> {
    loop {
        let mut moved = pin!(partition.moved.notified());
        moved.as_mut().enable();
        // In this order: a watermark that another leader's records have moved acknowledges nothing.
        let is_so = is_so(&partition);
        if partition.roles_taken.load(Ordering::Acquire) != term {
            return Err(PartitionError::NotLeader);
        }
        if is_so {
            return Ok(());
        }
        partition.check_online()?;
        moved.await;
    }
}

impl From<FollowerRefused> for PartitionError {
    fn from(refused: FollowerRefused) -> Self {
        Self::Follower(refused)
    }
}
