//! What a run found.

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{invariant}: {detail}")]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// How it was seen.
    pub detail: String,
}

impl Violation {
    /// A violation.
    pub fn new(invariant: &'static str, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// The result of a step.
pub type Checked<T = ()> = Result<T, Violation>;

pub(crate) const ACKNOWLEDGED: &str = "no acknowledged record is lost";
pub(crate) const LEADER_COMPLETENESS: &str = "a clean leader has all that is committed";
pub(crate) const CANDIDATES: &str = "every member of ISR and ELR has all that is committed";
pub(crate) const LOG_MATCHING: &str = "logs with the same offset and epoch are the same up to there";
pub(crate) const ONE_LEADER: &str = "one leader to a leader epoch";
pub(crate) const SUPERSET: &str = "the leader's maximal ISR holds the controller's";
pub(crate) const MONOTONE: &str = "high watermarks do not go back";
pub(crate) const VISIBLE: &str = "nothing above the high watermark is visible (R3)";
pub(crate) const OFFSETS: &str = "offsets are assigned once and in order (R2)";
pub(crate) const IDEMPOTENCE: &str = "no duplicate and no reorder of an idempotent producer";
pub(crate) const EPOCHS: &str = "metadata epochs are monotone";
pub(crate) const METADATA: &str = "the metadata agree with themselves";
pub(crate) const REASSIGNMENT: &str = "a reassignment drops old replicas when all new ones are in sync";
pub(crate) const BELIEF: &str = "a leader counts only what its follower has";
pub(crate) const RANGE: &str = "a follower out of range goes into the leader's range";
pub(crate) const RECOVERY: &str = "what was durable is there after a restart (R1)";
pub(crate) const STABLE: &str = "read_committed readers see what is decided, and all of it (R3)";
pub(crate) const ATOMIC: &str = "a transaction is committed in all its partitions or in none";
pub(crate) const ASKED: &str = "what its producer has not committed never becomes visible (R6)";
pub(crate) const COMMITTED: &str = "an acknowledged commit is not lost";
pub(crate) const HANGING: &str = "no transaction stays open for ever";
pub(crate) const GROUP_OFFSETS: &str = "a group's offsets move with the committed transactions";
pub(crate) const COMPACTION: &str = "compaction keeps the newest record of each key";
pub(crate) const GROUPS: &str = "acknowledged group offsets are not lost";
/// Nothing wrong was seen, but the healed cluster does not come to rest.
pub const LIVENESS: &str = "a healed cluster comes to rest with everything in sync";
/// Not the cluster's fault.
pub const INTERNAL: &str = "the simulation itself is sound";
/// No violation: chance kept a script from what it is about.
pub(crate) const MISSED: &str = "a script comes to its point";
