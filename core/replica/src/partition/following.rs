//! What a follower does: fetches from its leader, cuts off where the histories part, appends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use towpath_log::{AppendInfo, Log};
use towpath_record::batches;
use towpath_types::{LeaderEpoch, Offset};

use super::{Partition, Role};
use crate::PartitionError;
use crate::follower::{FetchPlan, History, LeaderAnswer, Step};

impl History for Log {
    fn log_start(&self) -> Offset {
        self.log_start_offset()
    }

    fn log_end(&self) -> Offset {
        self.log_end_offset()
    }

    fn latest_epoch(&self) -> LeaderEpoch {
        Self::latest_epoch(self)
    }

    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.end_offset_for_epoch(epoch)
    }
}

/// The leader's answer to a fetch of one partition.
#[derive(Debug, Clone)]
pub struct FollowerAnswer {
    /// What kind of answer it is.
    pub answer: LeaderAnswer,
    /// Whole batches; the last one may be cut.
    pub records: Bytes,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start offset.
    pub log_start: Offset,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// Nothing new, or nothing any more.
    Nothing,
    /// So many bytes were appended.
    Appended(u64),
    /// The log was cut to this end, or begun anew here.
    Cut(Offset),
}

impl Partition {
    /// The next fetch from the leader; none where this broker leads, or while there is no leader.
    ///
    /// Where a record counts only once it is flushed, all before the plan's offset has to be flushed first: the leader
    /// takes it for safe.
    #[must_use]
    pub fn plan_fetch(&self) -> Option<FetchPlan> {
        match &*self.role.lock() {
            Role::Leader(_) => None,
            Role::Follower(state) => state.plan(&*self.log),
        }
    }

    /// Takes the answer to a fetch that [`Self::plan_fetch`] gave.
    ///
    /// # Errors
    /// [`PartitionError`]: storage, or records that do not fit (the fetch is made again).
    pub fn apply_fetched(
        self: &Arc<Self>,
        plan: &FetchPlan,
        answer: &FollowerAnswer,
    ) -> Result<Applied, PartitionError> {
        self.check_online()?;
        // Held until it is appended: neither another leader's epoch nor a truncation comes between.
        let following = self.changing_role.read();
        let step = match &*self.role.lock() {
            Role::Leader(_) => Step::Discard,
            Role::Follower(state) => state.answered(plan, answer.answer, &*self.log),
        };
        match step {
            Step::Discard => Ok(Applied::Nothing),
            Step::Append { epoch_max } => {
                let info = self.append_fetched(answer, epoch_max)?;
                self.follow_watermarks(answer)?;
                drop(following);
                if let Some(info) = &info {
                    self.flush_if_due(info);
                }
                Ok(info.map_or(Applied::Nothing, |_| Applied::Appended(answer.records.len() as u64)))
            }
            Step::Truncate { to } => {
                tracing::info!(partition = %self.id(), from = %self.log.log_end_offset(), %to, "truncating");
                self.log.truncate_to(to)?;
                // A cut within a batch, which DeleteRecords may ask for, takes all of it.
                let end = to.min(self.log.log_end_offset());
                self.lower_watermark(end);
                Ok(Applied::Cut(end))
            }
            Step::Restart { at } => {
                tracing::warn!(partition = %self.id(), %at, "beginning anew: the leader does not have what would follow");
                self.log.truncate_fully_and_start_at(at)?;
                self.high_watermark.store(at.get(), Ordering::Release);
                Ok(Applied::Cut(at))
            }
        }
    }

    /// Appends what came. The first batch may begin before the log's end, where DeleteRecords has moved the leader's log
    /// start into the middle of it: batches are whole. The log then begins anew where the batch does, as in Kafka; all
    /// that it had is deleted at the leader, if it had anything. What is before the log start is not shown all the same.
    fn append_fetched(
        &self,
        answer: &FollowerAnswer,
        epoch_max: LeaderEpoch,
    ) -> Result<Option<AppendInfo>, PartitionError> {
        let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
        if (start == end || answer.log_start >= end)
            && let Some(Ok(first)) = batches(&answer.records).next()
            && first.base_offset < end
            && first.last_offset() >= end
        {
            self.log.truncate_fully_and_start_at(first.base_offset)?;
            let info = self.log.append_as_follower(&answer.records, epoch_max)?;
            self.log.delete_records_before(end)?;
            return Ok(info);
        }
        Ok(self.log.append_as_follower(&answer.records, epoch_max)?)
    }

    /// Rule 7: a follower's high watermark is the leader's, as far as its own log reaches. It never goes back: what was
    /// committed stays so, also when a new leader does not know it yet.
    fn follow_watermarks(&self, answer: &FollowerAnswer) -> Result<(), PartitionError> {
        let target = answer.high_watermark.min(self.log.log_end_offset());
        let before = self.high_watermark.fetch_max(target.get(), Ordering::AcqRel);
        self.log.high_watermark_moved(self.high_watermark());
        let start = answer.log_start.min(self.high_watermark());
        if start > self.log.log_start_offset() {
            self.log.delete_records_before(start)?;
        }
        if before < target.get() {
            // Consumers read here too (KIP-392).
            self.wake_all();
        }
        Ok(())
    }

    /// Only an unclean election brings a truncation below the high watermark.
    fn lower_watermark(&self, end: Offset) {
        let before = self.high_watermark.fetch_min(end.get(), Ordering::AcqRel);
        if before > end.get() {
            tracing::warn!(
                partition = %self.id(),
                from = before,
                to = %end,
                "records that were committed are gone: an unclean election"
            );
        }
    }

    /// Makes durable what was fetched, where that is what counts. Called before the next fetch.
    ///
    /// # Errors
    /// [`PartitionError::Storage`].
    pub fn flush_fetched(&self) -> Result<(), PartitionError> {
        if self.counts_when_flushed() && self.log.recovery_point() < self.log.log_end_offset() {
            self.log.flush()?;
            self.unflushed.store(0, Ordering::Relaxed);
        }
        Ok(())
    }
}
