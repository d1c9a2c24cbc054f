//! What a checker found.

use std::collections::BTreeMap;
use std::fmt;

/// A way in which a history can be wrong. Most names are those of Jepsen's analysis of Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Acknowledged, below the end of its partition, and not there (R1).
    Lost,
    /// Acknowledged, and past the end of its partition when all was over (R1).
    Unseen,
    /// Polled by somebody, and not there when all was over (R3).
    Vanished,
    /// Two values at one offset (R2).
    InconsistentOffset,
    /// One value at two offsets.
    Duplicate,
    /// A value that nobody sent, or whose send had definitely failed.
    Phantom,
    /// An idempotent producer's records in another order than they were sent in.
    Reordered,
    /// A record before one that had been acknowledged before it was sent.
    RealtimeOrder,
    /// Leader epochs that fall along the log, or that two readers see differently.
    EpochOrder,
    /// A consumer's next record was before its position, or it had no position there.
    PollOrder,
    /// A consumer's next record was past its position (R2).
    PollSkip,
    /// A reader was told that an offset it had reached does not exist.
    OutOfRange,
    /// No member of the group ever polled a record that is there.
    GroupSkip,
    /// A member committed an offset with records before it that no member had polled.
    CommitAhead,
    /// A member began before an offset whose commit had been acknowledged.
    CommitLost,
    /// After all faults were healed, a producer had nothing acknowledged, or ended with unanswered records.
    NoProgress,
    /// A client ended by itself.
    ClientEnded,
    /// The history has no end, so nothing can be said of losses.
    NoEnd,
    /// A reader of what is committed saw a record of a transaction that was aborted (G1a).
    AbortedRead,
    /// It saw one before its commit was asked for, or its own.
    DirtyRead,
    /// Some of a transaction's records are there and some are not.
    Torn,
    /// Transactions that each read what the other one wrote (G1c).
    CircularRead,
    /// A producer committed after another one had taken its transactional id (R6).
    Zombie,
    /// A transaction that never ends: readers of what is committed wait for it for ever.
    Hanging,
    /// A transfer that gives more than it takes, or less.
    Unbalanced,
    /// A request that no committed transaction answered.
    RequestLost,
    /// A request that two committed transactions answered.
    RequestTwice,
}

const SAMPLES: usize = 8;

/// What was found, and how much there was to find it in.
#[derive(Clone, Debug, Default)]
pub struct Report {
    findings: BTreeMap<Kind, (u64, Vec<String>)>,
    /// Counts of what the history holds.
    pub counts: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(crate) fn add(&mut self, kind: Kind, text: impl FnOnce() -> String) {
        let (count, samples) = self.findings.entry(kind).or_default();
        *count += 1;
        if samples.len() < SAMPLES {
            samples.push(text());
        }
    }

    pub(crate) fn count(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// What was found.
    pub fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.findings.keys().copied()
    }

    /// How often something was found.
    #[must_use]
    pub fn found(&self, kind: Kind) -> u64 {
        self.findings.get(&kind).map_or(0, |(count, _)| *count)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.counts {
            writeln!(f, "{count:10}  {what}")?;
        }
        for (kind, (count, samples)) in &self.findings {
            writeln!(f, "FOUND {kind:?}: {count}")?;
            for sample in samples {
                writeln!(f, "    {sample}")?;
            }
        }
        if self.is_clean() {
            writeln!(f, "nothing is wrong")?;
        }
        Ok(())
    }
}
