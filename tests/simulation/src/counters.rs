//! What happened in a run, counted.

use std::fmt;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened in a run. A counter that stays at zero over many seeds says that something is not tested.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds another run's.
            pub const fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Names and values.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Events.
    steps,
    /// Batches acknowledged with `acks=all`.
    acknowledged,
    /// Batches acknowledged with `acks=1`.
    acknowledged_by_leader,
    /// Repetitions that an idempotent append recognised.
    duplicates_suppressed,
    /// Produce requests that were refused.
    produce_refused,
    /// Records that became visible.
    committed,
    /// Records that consumers read from leaders.
    consumed,
    /// Records that consumers read from followers (KIP-392).
    consumed_from_followers,
    /// Group offsets acknowledged.
    offsets_committed,
    /// Coordinators that loaded their groups.
    coordinators_loaded,
    /// Elections of a leader that has everything.
    elections,
    /// Leaders elected from the eligible leader replicas (KIP-966).
    elections_from_elr,
    /// Leaders elected that may lack records.
    unclean_elections,
    /// Leaders that became so again, the preferred ones.
    preferred_elections,
    /// ISRs that grew.
    isr_expansions,
    /// ISRs that shrank.
    isr_shrinks,
    /// Changes of the ISR that the controller refused.
    isr_changes_refused,
    /// Followers that cut their log.
    truncations,
    /// Followers that began their log anew.
    restarts_of_logs,
    /// Answers to fetches that the follower dropped.
    answers_discarded,
    /// Followers' fetches that the leader refused.
    fetches_refused,
    /// Processes killed; the page cache survived.
    kills,
    /// Machines crashed; what was not synced was lost.
    crashes,
    /// Records that crashes took.
    records_lost_by_crashes,
    /// Processes that stopped in good order.
    clean_stops,
    /// Processes that were stopped for a while.
    pauses,
    /// Log directories that went offline.
    directories_offline,
    /// Brokers fenced.
    fenced,
    /// Reassignments begun.
    reassignments,
    /// Reassignments completed.
    reassignments_completed,
    /// Reassignments undone.
    reassignments_cancelled,
    /// Changes of `min.insync.replicas`.
    config_changes,
    /// Deletions of records.
    records_deleted,
    /// New active controllers.
    controllers_elected,
    /// Proposals of controllers that were deposed, or made on an old image.
    proposals_refused,
    /// Messages that were lost.
    messages_lost,
    /// Messages that came twice.
    messages_duplicated,
    /// Links that were cut, in one direction or both.
    links_cut,
    /// Jumps of a clock.
    clock_jumps,
    /// Transactions that producers were told to be committed.
    transactions_committed,
    /// Transactions that ended with an abort somewhere.
    transactions_aborted,
    /// Transactions that the coordinator aborted because they had had their time.
    transactions_timed_out,
    /// Transactional producers that were told that another one has their id, or that their epoch is over.
    producers_fenced,
    /// Writes that had to be verified with the coordinator.
    verifications,
    /// Writes that the coordinator or the log refused to let into a transaction.
    writes_refused,
    /// Markers sent.
    markers_sent,
    /// Markers sent again.
    markers_retried,
    /// Markers that a partition refused.
    markers_refused,
    /// Transaction coordinators that loaded.
    transaction_coordinators_loaded,
    /// Group offsets that counted when a transaction was committed.
    group_offsets_committed,
    /// Records that `read_committed` consumers left out, or that they saw.
    consumed_stable,
    /// Compactions that made a log smaller.
    compactions,
    /// Topics deleted.
    topics_deleted,
}

/// What every large run must have seen.
pub const REQUIRED: [&str; 48] = [
    "acknowledged",
    "acknowledged_by_leader",
    "duplicates_suppressed",
    "produce_refused",
    "committed",
    "consumed",
    "consumed_from_followers",
    "offsets_committed",
    "coordinators_loaded",
    "elections",
    "elections_from_elr",
    "unclean_elections",
    "preferred_elections",
    "isr_expansions",
    "isr_shrinks",
    "isr_changes_refused",
    "truncations",
    "restarts_of_logs",
    "answers_discarded",
    "fetches_refused",
    "kills",
    "crashes",
    "records_lost_by_crashes",
    "clean_stops",
    "pauses",
    "directories_offline",
    "reassignments_completed",
    "reassignments_cancelled",
    "config_changes",
    "records_deleted",
    "controllers_elected",
    "proposals_refused",
    "messages_duplicated",
    "clock_jumps",
    "transactions_committed",
    "transactions_aborted",
    "transactions_timed_out",
    "producers_fenced",
    "verifications",
    "writes_refused",
    "markers_sent",
    "markers_retried",
    "markers_refused",
    "transaction_coordinators_loaded",
    "group_offsets_committed",
    "consumed_stable",
    "compactions",
    "topics_deleted",
];

impl Counters {
    /// The required counters that are zero.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let list = self.list();
        let is_zero = |name: &&str| list.iter().any(|(known, value)| known == name && *value == 0);
        REQUIRED.into_iter().filter(is_zero).collect()
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (name, value) in self.list() {
            if value > 0 {
                write!(f, "{}{} {value}", if first { "" } else { ", " }, name.replace('_', " "))?;
                first = false;
            }
        }
        Ok(())
    }
}
