//! Reading: for consumers, below the high watermark; for followers, to the log's end.

use std::sync::Arc;

use towpath_log::{AbortedTransaction, FetchedData, TimestampAndOffset};
use towpath_types::{LeaderEpoch, Offset, Rule};

use super::{Partition, Role, compare_epochs};
use crate::PartitionError;
use crate::leader::FollowerFetch;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A consumer that reads from the leader only.
    Consumer,
    /// A consumer that may read from any replica (KIP-392).
    AnyReplica,
    /// A follower: the fetch says where its log ends.
    Follower(FollowerFetch),
}

/// What a consumer may see of transactions (`isolation.level`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Everything below the high watermark.
    #[default]
    ReadUncommitted,
    /// What is below the last stable offset, and which of it is aborted.
    ReadCommitted,
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
    /// What it may see of transactions; followers see all.
    pub isolation: Isolation,
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
    /// Where the log ended when it was read.
    pub log_end_offset: Offset,
    /// The aborted transactions that overlap what is returned, for `read_committed` consumers.
    pub aborted: Option<Vec<AbortedTransaction>>,
    /// The reader's log differs: the largest epoch up to its last one, and where that ends here (KIP-595).
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

impl Partition {
    /// Reads whole batches: for a consumer below the high watermark, for a follower up to the log's end. A follower's
    /// fetch is noted: everything before its offset it has.
    ///
    /// # Errors
    /// [`PartitionError`]: role, epochs, range, storage.
    pub fn fetch(
        self: &Arc<Self>,
        reader: Reader,
        position: &FetchPosition,
    ) -> Result<FetchedPartition, PartitionError> {
        self.check_online()?;
        let term = self.check_reader(reader, position)?;
        let mut fetched = self.look();
        let committed_only =
            position.isolation == Isolation::ReadCommitted && !matches!(reader, Reader::Follower(_));
        fetched.aborted = committed_only.then(Vec::new);
        if position.last_fetched_epoch >= LeaderEpoch::new(0) && self.checks_divergence(reader) {
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
        let (offset, bytes_max, min_one) = (position.offset, position.bytes_max, position.min_one);
        // R3: a consumer reads nothing at or above the high watermark, or the last stable offset.
        if committed_only {
            let upper = fetched.last_stable_offset;
            let (data, aborted) = self.log.read_committed(offset, bytes_max, upper, min_one)?;
            fetched.data = data;
            fetched.aborted = Some(aborted);
        } else {
            let upper = match reader {
                Reader::Follower(_) => fetched.log_end_offset,
                _ => fetched.high_watermark,
            };
            fetched.data = self.log.read(offset, bytes_max, upper, min_one)?;
        }
        if let Reader::Follower(fetch) = reader {
            self.follower_fetched(&fetch, term)?;
            // What this very fetch has committed.
            fetched.high_watermark = self.high_watermark();
        }
        Ok(fetched)
    }

    fn look(&self) -> FetchedPartition {
        let high_watermark = self.high_watermark();
        FetchedPartition {
            data: FetchedData::Empty,
            high_watermark,
            last_stable_offset: self.stable_below(high_watermark),
            log_start_offset: self.log.log_start_offset(),
            log_end_offset: self.log.log_end_offset(),
            aborted: None,
            diverging: None,
        }
    }

    /// Rule 4, for followers; consumers ask for the check by naming an epoch.
    fn checks_divergence(&self, reader: Reader) -> bool {
        !matches!(reader, Reader::Follower(_)) || self.environment.rules().holds(Rule::Divergence)
    }

    /// Whether the reader may read here and now; the term in which it may.
    fn check_reader(&self, reader: Reader, position: &FetchPosition) -> Result<LeaderEpoch, PartitionError> {
        let role = self.role.lock();
        let term = role.leadership().leader_epoch;
        match (&*role, reader) {
            (Role::Follower(_), Reader::Consumer | Reader::Follower(_)) => {
                // The epoch first: whoever is behind learns that (KIP-320).
                compare_epochs(position.current_leader_epoch, term)?;
                return Err(PartitionError::NotLeader);
            }
            (Role::Leader(state), Reader::Follower(fetch)) => {
                if self.environment.rules().holds(Rule::FollowerFetchChecks) {
                    compare_epochs(position.current_leader_epoch, term)?;
                }
                state.check_follower(&fetch, &self.environment.brokers())?;
            }
            _ => compare_epochs(position.current_leader_epoch, term)?,
        }
        Ok(term)
    }

    /// The end of what a consumer may see, for `ListOffsets`: the high watermark, or the last stable offset.
    ///
    /// # Errors
    /// [`PartitionError::OffsetNotAvailable`] while a new leader has not caught up with itself (KIP-207);
    /// [`PartitionError::NotLeader`].
    pub fn latest_offset(&self, isolation: Isolation) -> Result<Offset, PartitionError> {
        self.check_online()?;
        match &*self.role.lock() {
            Role::Leader(state) if state.has_committed_its_start() => {
                Ok(self.end_of_visible(isolation, state.high_watermark()))
            }
            Role::Leader(_) => Err(PartitionError::OffsetNotAvailable),
            Role::Follower(_) => Err(PartitionError::NotLeader),
        }
    }

    fn end_of_visible(&self, isolation: Isolation, high_watermark: Offset) -> Offset {
        match isolation {
            Isolation::ReadUncommitted => high_watermark,
            Isolation::ReadCommitted => self.stable_below(high_watermark),
        }
    }

    /// The end of the log, for followers.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`].
    pub fn leader_log_end(&self) -> Result<Offset, PartitionError> {
        self.check_online()?;
        if self.is_leader() { Ok(self.log.log_end_offset()) } else { Err(PartitionError::NotLeader) }
    }

    /// The beginning of the log.
    ///
    /// # Errors
    /// [`PartitionError::NotLeader`].
    pub fn earliest_offset(&self) -> Result<Offset, PartitionError> {
        self.check_online()?;
        if self.is_leader() { Ok(self.log.log_start_offset()) } else { Err(PartitionError::NotLeader) }
    }

    /// The first record with a timestamp of at least `timestamp_ms`, if a consumer may see it.
    ///
    /// # Errors
    /// [`PartitionError::OffsetNotAvailable`] if it is there and a new leader has not committed it yet; role; storage.
    pub fn lookup_timestamp(
        &self,
        timestamp_ms: i64,
        isolation: Isolation,
    ) -> Result<Option<TimestampAndOffset>, PartitionError> {
        self.earliest_offset()?;
        self.visible(self.log.lookup_timestamp(timestamp_ms)?, isolation)
    }

    /// The first record with the largest timestamp, if a consumer may see it.
    ///
    /// # Errors
    /// As [`Self::lookup_timestamp`].
    pub fn max_timestamp(&self, isolation: Isolation) -> Result<Option<TimestampAndOffset>, PartitionError> {
        self.earliest_offset()?;
        self.visible(self.log.max_timestamp()?, isolation)
    }

    fn visible(
        &self,
        found: Option<TimestampAndOffset>,
        isolation: Isolation,
    ) -> Result<Option<TimestampAndOffset>, PartitionError> {
        let Some(found) = found else { return Ok(None) };
        if found.offset < self.end_of_visible(isolation, self.high_watermark()) {
            return Ok(Some(found));
        }
        self.latest_offset(isolation).map(|_| None)
    }

    /// Where the largest epoch up to `epoch` ends (`OffsetForLeaderEpoch`).
    ///
    /// # Errors
    /// [`PartitionError`]: role, epochs, storage.
    pub fn end_offset_for_epoch(
        &self,
        current: LeaderEpoch,
        epoch: LeaderEpoch,
    ) -> Result<Option<(LeaderEpoch, Offset)>, PartitionError> {
        self.check_online()?;
        self.check_epoch(current)?;
        if !self.is_leader() {
            return Err(PartitionError::NotLeader);
        }
        Ok(self.log.end_offset_for_epoch(epoch))
    }
}
