//! The leader's bookkeeping, without I/O: where its log ends, how far each follower has come, who is in sync, and what
//! is committed.

use std::collections::BTreeMap;

use towpath_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, Rule, Rules};

use crate::{Brokers, Leadership};

/// What the leader knows of a follower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Follower {
    /// Where its log ends; none before its first fetch in this leader epoch.
    log_end: Option<Offset>,
    /// Its incarnation as it said itself.
    broker_epoch: Option<BrokerEpoch>,
    log_start: Offset,
    /// When it last had everything that was there.
    caught_up_ms: i64,
    last_fetch_ms: i64,
    /// Where the leader's log ended at its last fetch.
    leader_end_at_fetch: Option<Offset>,
}

impl Follower {
    /// The state at the beginning of a leader epoch (rule 2): a member of the ISR counts as caught up, and all others
    /// have to fetch first.
    const fn new(in_sync: bool, now_ms: i64) -> Self {
        Self {
            log_end: None,
            broker_epoch: None,
            log_start: Offset::ZERO,
            caught_up_ms: if in_sync { now_ms } else { i64::MIN },
            last_fetch_ms: i64::MIN,
            leader_end_at_fetch: None,
        }
    }

    fn is_caught_up(&self, leader_end: Offset, now_ms: i64, lag_ms_max: i64) -> bool {
        self.log_end == Some(leader_end) || now_ms.saturating_sub(self.caught_up_ms) <= lag_ms_max
    }
}

/// A follower's fetch, as far as the leader's bookkeeping is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FollowerFetch {
    /// Who fetches.
    pub broker: BrokerId,
    /// Its incarnation.
    pub broker_epoch: BrokerEpoch,
    /// Where its log ends.
    pub log_end: Offset,
    /// Where its log begins.
    pub log_start: Offset,
}

/// Why a follower's fetch is refused (rule 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FollowerRefused {
    /// It is no replica as far as is known here: it may know newer metadata.
    #[error("broker {0} is no replica of the partition")]
    NoReplica(BrokerId),
    /// An earlier incarnation of it, whose log may have ended elsewhere.
    #[error("the fetch comes from an earlier incarnation of broker {0}")]
    StaleBrokerEpoch(BrokerId),
}

/// A change of the in-sync replicas that the leader asks the controller for (AlterPartition, KIP-497).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsrProposal {
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// The state that the change starts from.
    pub partition_epoch: PartitionEpoch,
    /// The new set, with the incarnations that are meant (KIP-903).
    pub isr: Vec<(BrokerId, BrokerEpoch)>,
}

/// What the controller answered to a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProposalAnswer {
    /// The change is committed; it arrives with the metadata.
    Accepted,
    /// A member may not be in sync, or the request was not tried: nothing has changed, the set is as before.
    Refused,
    /// Nobody knows whether it took effect, or this leader is out of date: the union of both sets stays in force
    /// until newer metadata arrive.
    Unknown,
    /// It did not reach a controller: it is sent again.
    Retry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pending {
    proposal: IsrProposal,
    /// The union of the committed and the proposed set.
    maximal: Vec<BrokerId>,
    /// Whether the request is out, or has to be sent (again).
    sent: bool,
}

/// What a leader is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderSetup {
    /// This broker.
    pub me: BrokerId,
    /// `replica.lag.time.max.ms`.
    pub lag_ms_max: i64,
    /// The rules in force; all of them, except where a simulation shows what breaks without one.
    pub rules: Rules,
}

/// The leader's view of its partition.
///
/// The high watermark is the smallest log end offset of the *maximal* in-sync set: the committed one and what is being
/// proposed to the controller, and those that are about to be in sync (R1, R3, rule 7). Where records count only once
/// they are durable, the leader's own share is what is flushed. It never goes back, and it stands still while fewer
/// replicas are in sync than `min.insync.replicas` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderState {
    setup: LeaderSetup,
    leadership: Leadership,
    epoch_start: Offset,
    min_isr: usize,
    counts_when_flushed: bool,
    log_end: Offset,
    flushed: Offset,
    high_watermark: Offset,
    followers: BTreeMap<BrokerId, Follower>,
    pending: Option<Pending>,
}

impl LeaderState {
    /// A leader whose log ends at `log_end`, is durable up to `flushed`, and was committed up to `committed` as far
    /// as is known.
    #[must_use]
    pub fn new(
        setup: LeaderSetup,
        leadership: Leadership,
        log_end: Offset,
        flushed: Offset,
        committed: Offset,
        now_ms: i64,
    ) -> Self {
        let mut state = Self {
            setup,
            leadership,
            epoch_start: log_end,
            min_isr: 1,
            counts_when_flushed: false,
            log_end,
            flushed: flushed.min(log_end),
            high_watermark: committed.min(log_end),
            followers: BTreeMap::new(),
            pending: None,
        };
        state.reset_followers(now_ms);
        state
    }

    /// Sets what the topic's configuration asks for: `min.insync.replicas`, and whether a record counts only once it
    /// is flushed. Nothing is committed by that yet: where a new state comes with it, both have to be known first.
    pub const fn set_limits(&mut self, min_isr: usize, counts_when_flushed: bool) {
        self.min_isr = min_isr;
        self.counts_when_flushed = counts_when_flushed;
    }

    /// As [`Self::set_limits`], with the state as it is. Returns the high watermark if that moved it.
    pub fn configure(
        &mut self,
        min_isr: usize,
        counts_when_flushed: bool,
        now_ms: i64,
        brokers: &Brokers,
    ) -> Option<Offset> {
        self.set_limits(min_isr, counts_when_flushed);
        self.advance(now_ms, brokers)
    }

    /// Takes a new state from the metadata. Older ones change nothing (R6). Returns whether a new leader epoch
    /// begins.
    pub fn lead(&mut self, leadership: Leadership, now_ms: i64) -> bool {
        if self.setup.rules.holds(Rule::Epochs) && !leadership.is_at_least(&self.leadership) {
            return false;
        }
        if leadership.partition_epoch > self.leadership.partition_epoch {
            // Whatever was asked for, this is what came of it.
            self.pending = None;
        }
        let is_new = leadership.leader_epoch > self.leadership.leader_epoch;
        self.leadership = leadership;
        if is_new {
            self.epoch_start = self.log_end;
            self.reset_followers(now_ms);
        } else {
            let replicas = &self.leadership.replicas;
            self.followers.retain(|id, _| replicas.contains(id));
            for id in self.others() {
                self.followers.entry(id).or_insert_with(|| Follower::new(false, now_ms));
            }
        }
        is_new
    }

    fn others(&self) -> Vec<BrokerId> {
        self.leadership.replicas.iter().copied().filter(|id| *id != self.setup.me).collect()
    }

    fn reset_followers(&mut self, now_ms: i64) {
        let keep = !self.setup.rules.holds(Rule::BecomeLeader);
        let before = std::mem::take(&mut self.followers);
        for id in self.others() {
            let known = before.get(&id).copied().filter(|_| keep);
            let fresh = Follower::new(self.leadership.isr.contains(&id), now_ms);
            self.followers.insert(id, known.unwrap_or(fresh));
        }
    }

    /// The log grew to `log_end`. Returns the high watermark if that moved it.
    pub fn appended(&mut self, log_end: Offset, now_ms: i64, brokers: &Brokers) -> Option<Offset> {
        self.log_end = self.log_end.max(log_end);
        self.advance(now_ms, brokers)
    }

    /// The log is durable up to `offset`. Returns the high watermark if that moved it.
    pub fn flushed(&mut self, offset: Offset, now_ms: i64, brokers: &Brokers) -> Option<Offset> {
        self.flushed = self.flushed.max(offset);
        self.advance(now_ms, brokers)
    }

    /// Checks who fetches, before anything is read for it (rule 3).
    ///
    /// # Errors
    /// [`FollowerRefused`].
    pub fn check_follower(&self, fetch: &FollowerFetch, brokers: &Brokers) -> Result<(), FollowerRefused> {
        if !self.followers.contains_key(&fetch.broker) {
            return Err(FollowerRefused::NoReplica(fetch.broker));
        }
        let known = brokers.get(fetch.broker).map(|broker| broker.epoch);
        let is_stale = known.is_some_and(|known| fetch.broker_epoch < known);
        if is_stale && self.setup.rules.holds(Rule::FollowerFetchChecks) {
            // KAFKA-15221: what was fetched before a restart says nothing of the log after it.
            return Err(FollowerRefused::StaleBrokerEpoch(fetch.broker));
        }
        Ok(())
    }

    /// A follower fetched from where its log ends: everything before that it has. Returns the high watermark if that
    /// moved it.
    ///
    /// # Errors
    /// [`FollowerRefused`].
    pub fn fetched(
        &mut self,
        fetch: &FollowerFetch,
        now_ms: i64,
        brokers: &Brokers,
    ) -> Result<Option<Offset>, FollowerRefused> {
        self.check_follower(fetch, brokers)?;
        let leader_end = self.log_end;
        let Some(follower) = self.followers.get_mut(&fetch.broker) else {
            return Err(FollowerRefused::NoReplica(fetch.broker));
        };
        if fetch.log_end >= leader_end {
            follower.caught_up_ms = follower.caught_up_ms.max(now_ms);
        } else if follower.leader_end_at_fetch.is_some_and(|end| fetch.log_end >= end) {
            // It has all that was there when it last fetched.
            follower.caught_up_ms = follower.caught_up_ms.max(follower.last_fetch_ms);
        }
        follower.log_end = Some(fetch.log_end);
        follower.log_start = fetch.log_start;
        follower.broker_epoch = Some(fetch.broker_epoch);
        follower.last_fetch_ms = now_ms;
        follower.leader_end_at_fetch = Some(leader_end);
        Ok(self.advance(now_ms, brokers))
    }

    /// Moves the high watermark as far as it may (rule 7).
    pub fn advance(&mut self, now_ms: i64, brokers: &Brokers) -> Option<Offset> {
        let rule = self.setup.rules.holds(Rule::HighWatermark);
        if rule && self.leadership.isr.len() < self.min_isr_effective() {
            return None;
        }
        let mut target = if self.counts_when_flushed { self.flushed.min(self.log_end) } else { self.log_end };
        for (id, follower) in &self.followers {
            let counts = if rule {
                self.is_in_maximal_isr(*id)
                    || (follower.is_caught_up(self.log_end, now_ms, self.setup.lag_ms_max)
                        && self.is_eligible(*id, follower, brokers))
            } else {
                self.leadership.isr.contains(id) && follower.log_end.is_some()
            };
            if counts {
                // A member that has not fetched yet in this epoch may have nothing new: the watermark waits for it.
                target = target.min(follower.log_end.unwrap_or(self.high_watermark));
            }
        }
        (target > self.high_watermark).then(|| {
            self.high_watermark = target;
            target
        })
    }

    fn is_in_maximal_isr(&self, id: BrokerId) -> bool {
        self.leadership.isr.contains(&id)
            || self.pending.as_ref().is_some_and(|pending| pending.maximal.contains(&id))
    }

    /// Whether a follower may be in the ISR as far as the brokers' states go: not fenced, not shutting down, and the
    /// incarnation that fetched is the one that is registered.
    fn is_eligible(&self, id: BrokerId, follower: &Follower, brokers: &Brokers) -> bool {
        if !self.setup.rules.holds(Rule::IsrExpansion) {
            return true;
        }
        brokers
            .get(id)
            .is_some_and(|broker| broker.is_eligible && follower.broker_epoch == Some(broker.epoch))
    }

    fn may_join(&self, id: BrokerId, follower: &Follower, brokers: &Brokers) -> bool {
        let Some(log_end) = follower.log_end else { return false };
        // Rule 8: everything committed, and everything that was there when this leader's term began.
        let has_enough = if self.setup.rules.holds(Rule::IsrExpansion) {
            log_end >= self.high_watermark && log_end >= self.epoch_start
        } else {
            log_end >= self.high_watermark
        };
        has_enough && !self.leadership.isr.contains(&id) && self.is_eligible(id, follower, brokers)
    }

    /// The change of the ISR that is due now, if one is; from here on it is pending. Only one is at a time (rule 8).
    pub fn propose(&mut self, now_ms: i64, brokers: &Brokers) -> Option<IsrProposal> {
        if let Some(pending) = &mut self.pending {
            return (!std::mem::replace(&mut pending.sent, true)).then(|| pending.proposal.clone());
        }
        let joining: Vec<BrokerId> = self
            .followers
            .iter()
            .filter(|(id, follower)| self.may_join(**id, follower, brokers))
            .map(|(id, _)| *id)
            .collect();
        let lagging: Vec<BrokerId> = self
            .followers
            .iter()
            .filter(|(id, follower)| {
                self.leadership.isr.contains(id)
                    && !follower.is_caught_up(self.log_end, now_ms, self.setup.lag_ms_max)
            })
            .map(|(id, _)| *id)
            .collect();
        let ends_recovery = self.leadership.recovering && self.leadership.isr.len() == 1;
        if joining.is_empty() && lagging.is_empty() && !ends_recovery {
            return None;
        }
        let kept = self.leadership.isr.iter().filter(|id| !lagging.contains(id)).copied();
        let isr: Vec<BrokerId> = kept.chain(joining.iter().copied()).collect();
        // KAFKA-15353: the set is made anew from the state as it is, and is never empty: the leader is in it.
        let with_epoch = |id: &BrokerId| {
            let epoch = brokers.get(*id).map_or(BrokerEpoch::new(-1), |broker| broker.epoch);
            let fetched = self.followers.get(id).and_then(|follower| follower.broker_epoch);
            (*id, fetched.unwrap_or(epoch))
        };
        let proposal = IsrProposal {
            leader_epoch: self.leadership.leader_epoch,
            partition_epoch: self.leadership.partition_epoch,
            isr: isr.iter().map(with_epoch).collect(),
        };
        let mut maximal = self.leadership.isr.clone();
        maximal.extend(joining);
        self.pending = Some(Pending { proposal: proposal.clone(), maximal, sent: true });
        Some(proposal)
    }

    /// Whether [`Self::propose`] would have something to say.
    #[must_use]
    pub fn has_proposal(&self, now_ms: i64, brokers: &Brokers) -> bool {
        match &self.pending {
            Some(pending) => !pending.sent,
            None => {
                let ends_recovery = self.leadership.recovering && self.leadership.isr.len() == 1;
                ends_recovery
                    || self.followers.iter().any(|(id, follower)| {
                        self.may_join(*id, follower, brokers)
                            || (self.leadership.isr.contains(id)
                                && !follower.is_caught_up(self.log_end, now_ms, self.setup.lag_ms_max))
                    })
            }
        }
    }

    /// What the controller answered to `proposal`. Answers to anything but what is pending change nothing.
    pub fn answered(&mut self, proposal: &IsrProposal, answer: ProposalAnswer) {
        let Some(pending) = self.pending.as_mut().filter(|pending| pending.proposal == *proposal) else {
            return;
        };
        match answer {
            ProposalAnswer::Refused => self.pending = None,
            ProposalAnswer::Retry => pending.sent = false,
            // Rule 9: until the metadata arrive both sets count.
            ProposalAnswer::Accepted | ProposalAnswer::Unknown => {
                if !self.setup.rules.holds(Rule::AlterPartitionChecks) {
                    self.pending = None;
                }
            }
        }
    }

    /// `min(min.insync.replicas, replication factor)`.
    #[must_use]
    pub fn min_isr_effective(&self) -> usize {
        self.min_isr.min(self.leadership.replicas.len())
    }

    /// Replicas in sync.
    #[must_use]
    pub fn in_sync(&self) -> usize {
        self.leadership.isr.len()
    }

    /// The committed set and what is proposed: whoever is not in it cannot become the leader's successor.
    #[must_use]
    pub fn maximal_isr(&self) -> Vec<BrokerId> {
        self.pending.as_ref().map_or_else(|| self.leadership.isr.clone(), |pending| pending.maximal.clone())
    }

    /// The state that the metadata gave.
    #[must_use]
    pub const fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The high watermark.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether a record counts only once it is flushed.
    #[must_use]
    pub const fn counts_when_flushed(&self) -> bool {
        self.counts_when_flushed
    }

    /// Where a follower's log ended when it last fetched in this leader epoch.
    #[must_use]
    pub fn follower_log_end(&self, id: BrokerId) -> Option<Offset> {
        self.followers.get(&id).and_then(|follower| follower.log_end)
    }

    /// Where a follower's log began when it last fetched in this leader epoch.
    #[must_use]
    pub fn follower_log_start(&self, id: BrokerId) -> Option<Offset> {
        self.followers.get(&id).map(|follower| follower.log_start)
    }

    /// The log start offset that all replicas in sync have passed (`DeleteRecords` waits for it).
    #[must_use]
    pub fn low_watermark(&self, own: Offset) -> Offset {
        let isr = self.followers.iter().filter(|(id, _)| self.leadership.isr.contains(id));
        isr.map(|(_, follower)| follower.log_start).fold(own, Offset::min)
    }

    /// Whether everything that was there when the leader's term began is committed. Before that, the end of the log
    /// as clients may know it cannot be told (KIP-207).
    #[must_use]
    pub fn has_committed_its_start(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
