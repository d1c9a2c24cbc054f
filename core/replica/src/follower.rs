//! The follower's decisions, without I/O: from where it fetches, and what it does with the answer (KIP-101, KIP-279,
//! KIP-595).

use towpath_types::{BrokerId, LeaderEpoch, Offset, Rule, Rules};

use crate::Leadership;

/// A follower's own log as far as its decisions need it.
pub trait History {
    /// Its first offset.
    fn log_start(&self) -> Offset;
    /// The offset of its next record.
    fn log_end(&self) -> Offset;
    /// The newest leader epoch that it knows, or [`LeaderEpoch::NONE`].
    fn latest_epoch(&self) -> LeaderEpoch;
    /// The largest epoch up to `epoch`, and where it ends; none if the log knows of none.
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;
}

/// A fetch that a follower makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPlan {
    /// From whom.
    pub leader: BrokerId,
    /// In which term of it.
    pub leader_epoch: LeaderEpoch,
    /// From where: the end of the follower's log.
    pub offset: Offset,
    /// The epoch of the follower's last record.
    pub last_fetched_epoch: LeaderEpoch,
    /// Where the follower's log begins.
    pub log_start: Offset,
}

/// What the leader answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaderAnswer {
    /// Records, perhaps none.
    Records,
    /// The logs part: the leader's largest epoch up to the follower's last one, and where it ends (rule 4).
    Diverging {
        /// That epoch.
        epoch: LeaderEpoch,
        /// Its end at the leader.
        end: Offset,
    },
    /// `OFFSET_OUT_OF_RANGE`, and what the leader has, asked for since.
    OutOfRange {
        /// The leader's first offset.
        start: Offset,
        /// The end of the leader's log.
        end: Offset,
    },
}

/// What the follower does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Appends the records, of epochs up to this one (KAFKA-18723), and takes over high watermark and log start.
    Append {
        /// No batch of a newer epoch.
        epoch_max: LeaderEpoch,
    },
    /// Cuts its log to this end and fetches again. The answer's high watermark is not taken over.
    Truncate {
        /// The new end.
        to: Offset,
    },
    /// Drops everything and begins anew here.
    Restart {
        /// The new beginning.
        at: Offset,
    },
    /// Does nothing: the answer belongs to a fetch that it would not make any more.
    Discard,
}

/// A follower of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerState {
    rules: Rules,
    leadership: Leadership,
}

impl FollowerState {
    /// A follower of the leader that the metadata name.
    #[must_use]
    pub const fn new(leadership: Leadership, rules: Rules) -> Self {
        Self { rules, leadership }
    }

    /// Takes a new state from the metadata. Older ones change nothing (R6). Returns whether it was taken.
    pub fn follow(&mut self, leadership: Leadership) -> bool {
        if self.rules.holds(Rule::Epochs) && !leadership.is_at_least(&self.leadership) {
            return false;
        }
        self.leadership = leadership;
        true
    }

    /// The state that the metadata gave.
    #[must_use]
    pub const fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The next fetch; none while there is no leader.
    #[must_use]
    pub fn plan(&self, log: &impl History) -> Option<FetchPlan> {
        Some(FetchPlan {
            leader: self.leadership.leader?,
            leader_epoch: self.leadership.leader_epoch,
            offset: log.log_end(),
            last_fetched_epoch: log.latest_epoch(),
            log_start: log.log_start(),
        })
    }

    /// What to do with the answer to `plan`.
    #[must_use]
    pub fn answered(&self, plan: &FetchPlan, answer: LeaderAnswer, log: &impl History) -> Step {
        let truncates = self.rules.holds(Rule::FollowerTruncation);
        // Rule 5: between the fetch and its answer the log was cut, or another leader was elected.
        if truncates && (plan.leader_epoch != self.leadership.leader_epoch || plan.offset != log.log_end()) {
            return Step::Discard;
        }
        match answer {
            LeaderAnswer::Records if truncates => Step::Append { epoch_max: plan.leader_epoch },
            LeaderAnswer::Records => Step::Append { epoch_max: LeaderEpoch::new(i32::MAX) },
            LeaderAnswer::Diverging { epoch, end } => {
                let to = if truncates { common_end(epoch, end, log) } else { end.min(log.log_end()) };
                if to < log.log_start() {
                    Step::Restart { at: log.log_start() }
                } else {
                    Step::Truncate { to }
                }
            }
            LeaderAnswer::OutOfRange { start, end } => self.back_into_range(start, end, log),
        }
    }

    /// Rule 6: the follower is past the leader's end (after an unclean election only), or before its beginning.
    fn back_into_range(&self, start: Offset, end: Offset, log: &impl History) -> Step {
        if !self.rules.holds(Rule::OutOfRange) {
            return Step::Restart { at: start.max(log.log_end()) };
        }
        if end < log.log_end() {
            return if end < log.log_start() {
                Step::Restart { at: end }
            } else {
                Step::Truncate { to: end }
            };
        }
        if start > log.log_end() { Step::Restart { at: start } } else { Step::Discard }
    }
}

/// Where the two logs part at the latest: the leader's end of `epoch`, and the follower's own end of its largest epoch up
/// to that. Where these epochs differ, the next fetch finds out more (KIP-279).
fn common_end(epoch: LeaderEpoch, end: Offset, log: &impl History) -> Offset {
    let own = log.end_of_epoch(epoch);
    match own {
        Some((own_epoch, own_end)) if own_epoch == epoch => end.min(own_end).min(log.log_end()),
        Some((_, own_end)) => own_end.min(log.log_end()),
        // Nothing here is as old as that: everything goes.
        None => end.min(log.log_start()),
    }
}

#[cfg(test)]
#[path = "follower_tests.rs"]
mod tests;
