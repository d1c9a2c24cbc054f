//! The leader's bookkeeping, without I/O.

use towpath_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

/// What the metadata says of a partition that this broker leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The leader's term.
    pub leader_epoch: LeaderEpoch,
    /// The number of the partition's state.
    pub partition_epoch: PartitionEpoch,
    /// All replicas.
    pub replicas: Vec<BrokerId>,
    /// Those in sync, the leader included.
    pub isr: Vec<BrokerId>,
}

/// The leader's view of its partition: where its log ends, how much of it is durable, and what is committed.
///
/// The high watermark is the smallest log end offset of the in-sync replicas (R1, R3). Where records count only
/// once they are durable, the leader's own share is what is flushed. It never goes back, and it stands still while
/// fewer replicas are in sync than `min.insync.replicas` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderState {
    leadership: Leadership,
    epoch_start: Offset,
    min_isr: usize,
    counts_when_flushed: bool,
    log_end: Offset,
    flushed: Offset,
    high_watermark: Offset,
}

impl LeaderState {
    /// A leader whose log ends at `log_end`, is durable up to `flushed`, and was committed up to `committed` as far
    /// as is known.
    #[must_use]
    pub fn new(leadership: Leadership, log_end: Offset, flushed: Offset, committed: Offset) -> Self {
        Self {
            leadership,
            epoch_start: log_end,
            min_isr: 1,
            counts_when_flushed: false,
            log_end,
            flushed: flushed.min(log_end),
            high_watermark: committed.min(log_end),
        }
    }

    /// Sets what the topic's configuration asks for: `min.insync.replicas`, and whether a record counts only once it
    /// is flushed. Returns the high watermark if that moved it.
    pub fn configure(&mut self, min_isr: usize, counts_when_flushed: bool) -> Option<Offset> {
        self.min_isr = min_isr;
        self.counts_when_flushed = counts_when_flushed;
        self.advance()
    }

    /// Takes a new state from the metadata. Older ones change nothing (R6). Returns whether a new leader epoch
    /// begins.
    pub fn lead(&mut self, leadership: Leadership) -> bool {
        if leadership.leader_epoch < self.leadership.leader_epoch
            || leadership.partition_epoch < self.leadership.partition_epoch
        {
            return false;
        }
        let is_new = leadership.leader_epoch > self.leadership.leader_epoch;
        if is_new {
            self.epoch_start = self.log_end;
        }
        self.leadership = leadership;
        is_new
    }

    /// The log grew to `log_end`. Returns the high watermark if that moved it.
    pub fn appended(&mut self, log_end: Offset) -> Option<Offset> {
        self.log_end = self.log_end.max(log_end);
        self.advance()
    }

    /// The log is durable up to `offset`. Returns the high watermark if that moved it.
    pub fn flushed(&mut self, offset: Offset) -> Option<Offset> {
        self.flushed = self.flushed.max(offset);
        self.advance()
    }

    /// Moves the high watermark as far as it may. The other replicas of a set would bring their own log end offsets
    /// in here.
    pub fn advance(&mut self) -> Option<Offset> {
        if self.leadership.isr.len() < self.min_isr_effective() {
            return None;
        }
        let own = if self.counts_when_flushed { self.flushed.min(self.log_end) } else { self.log_end };
        (own > self.high_watermark).then(|| {
            self.high_watermark = own;
            own
        })
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

    /// Whether everything that was there when the leader's term began is committed. Before that, the end of the log
    /// as clients may know it cannot be told (KIP-207).
    #[must_use]
    pub fn has_committed_its_start(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leadership(epoch: i32, replicas: i32, isr: i32) -> Leadership {
        Leadership {
            leader_epoch: LeaderEpoch::new(epoch),
            partition_epoch: PartitionEpoch::new(epoch),
            replicas: (0..replicas).map(BrokerId::new).collect(),
            isr: (0..isr).map(BrokerId::new).collect(),
        }
    }

    fn at(offset: i64) -> Offset {
        Offset::new(offset)
    }

    #[test]
    fn an_append_is_committed_at_once_where_the_page_cache_will_do() {
        let mut state = LeaderState::new(leadership(0, 1, 1), at(0), at(0), at(0));
        assert_eq!(state.appended(at(5)), Some(at(5)));
        assert_eq!(state.appended(at(3)), None, "a slower thread's older news change nothing");
        assert_eq!(state.flushed(at(5)), None);
        assert_eq!(state.high_watermark(), at(5));
    }

    #[test]
    fn an_append_counts_after_its_flush_where_that_is_asked_for() {
        let mut state = LeaderState::new(leadership(0, 1, 1), at(0), at(0), at(0));
        assert_eq!(state.configure(1, true), None);
        assert_eq!(state.appended(at(5)), None);
        assert_eq!(state.appended(at(9)), None);
        assert_eq!(state.flushed(at(5)), Some(at(5)), "R1: only what is durable counts");
        assert_eq!(state.high_watermark(), at(5));
        assert_eq!(state.flushed(at(12)), Some(at(9)), "a flush does not reach past the log's end");
        state.appended(at(20));
        assert_eq!(state.configure(1, false), Some(at(20)), "the setting takes effect at once");
        assert_eq!(state.configure(1, true), None);
        assert_eq!(state.high_watermark(), at(20), "the high watermark never goes back");
    }

    #[test]
    fn the_high_watermark_stands_still_below_min_isr() {
        let mut state = LeaderState::new(leadership(0, 3, 1), at(0), at(0), at(0));
        state.configure(2, false);
        assert_eq!(state.appended(at(5)), None);
        assert_eq!((state.in_sync(), state.min_isr_effective()), (1, 2));
        let mut alone = LeaderState::new(leadership(0, 1, 1), at(0), at(0), at(0));
        alone.configure(2, false);
        assert_eq!(alone.min_isr_effective(), 1, "no more than there are replicas");
        assert_eq!(alone.appended(at(5)), Some(at(5)));
    }

    #[test]
    fn a_new_epoch_begins_at_the_logs_end_and_an_old_one_changes_nothing() {
        let mut state = LeaderState::new(leadership(3, 1, 1), at(10), at(4), at(2));
        state.configure(1, true);
        assert_eq!(state.high_watermark(), at(4));
        assert!(!state.has_committed_its_start());
        state.flushed(at(10));
        assert!(state.has_committed_its_start());
        state.appended(at(12));
        assert!(state.lead(leadership(4, 1, 1)));
        assert!(!state.has_committed_its_start());
        assert!(!state.lead(leadership(3, 1, 1)), "R6");
        assert_eq!(state.leadership().leader_epoch, LeaderEpoch::new(4));
        assert!(!state.lead(leadership(4, 1, 1)), "the same again is no new epoch");
    }
}
