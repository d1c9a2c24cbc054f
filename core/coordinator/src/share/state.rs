//! The state of one share partition.

use std::fmt;
use std::sync::Arc;

use towpath_types::TopicId;
use towpath_wire::share_group_records::{ShareSnapshotValue, ShareUpdateValue, StateBatch};

use super::batches::combine;

/// Bytes that a share partition takes beside its batches.
const OVERHEAD: usize = 256;

/// A share partition: a group, and a partition whose records its members share.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareKey {
    /// The group.
    pub group: Arc<str>,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: i32,
}

/// As Kafka names it to find its coordinator: `group:topic id:partition`.
impl fmt::Display for ShareKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.group, self.topic, self.partition)
    }
}

/// What is told of a share partition without its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateSummary {
    /// Which beginning of the share partition this is.
    pub state_epoch: i32,
    /// The newest leader that has read or written it.
    pub leader_epoch: i32,
    /// All before it are done with; -1 while that is not known.
    pub start_offset: i64,
    /// How many from the start offset on are done with; -1 where that is not known.
    pub delivery_complete_count: i32,
}

/// The state of a share partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ShareState {
    pub(super) snapshot_epoch: i32,
    pub(super) summary: StateSummary,
    pub(super) created_ms: i64,
    pub(super) written_ms: i64,
    pub(super) batches: Vec<StateBatch>,
    /// What has changed since the last snapshot.
    pub(super) since: Vec<StateBatch>,
    /// Updates since the last snapshot.
    pub(super) updates: u32,
}

impl ShareState {
    pub(super) const fn new(state_epoch: i32, start_offset: i64, now_ms: i64) -> Self {
        Self {
            snapshot_epoch: 0,
            summary: StateSummary {
                state_epoch,
                leader_epoch: -1,
                start_offset,
                // Where it begins nothing is done with.
                delivery_complete_count: if start_offset < 0 { -1 } else { 0 },
            },
            created_ms: now_ms,
            written_ms: now_ms,
            batches: Vec::new(),
            since: Vec::new(),
            updates: 0,
        }
    }

    pub(super) const fn size_in_bytes(&self) -> usize {
        OVERHEAD + (self.batches.len() + self.since.len()) * size_of::<StateBatch>()
    }

    /// Whether there is more to remember after a change.
    pub(super) fn grows_with(&self, start_offset: i64, batches: &[StateBatch]) -> bool {
        let start = self.summary.start_offset.max(start_offset);
        combine(&self.batches, batches, start).len() > self.batches.len()
    }

    /// Takes over what has changed.
    pub(super) fn change(&mut self, start_offset: i64, batches: &[StateBatch]) {
        // -1 says nothing of it, and it goes forward only.
        let start = self.summary.start_offset.max(start_offset);
        self.summary.start_offset = start;
        self.batches = combine(&self.batches, batches, start);
        self.since = combine(&self.since, batches, start);
    }

    /// The state as a snapshot, and from here on this one is the last.
    pub(super) fn snapshot(&mut self) -> ShareSnapshotValue {
        self.snapshot_epoch = self.snapshot_epoch.wrapping_add(1).max(0);
        self.since = Vec::new();
        self.updates = 0;
        ShareSnapshotValue {
            snapshot_epoch: self.snapshot_epoch,
            state_epoch: self.summary.state_epoch,
            leader_epoch: self.summary.leader_epoch,
            start_offset: self.summary.start_offset,
            delivery_complete_count: self.summary.delivery_complete_count,
            create_timestamp: self.created_ms,
            write_timestamp: self.written_ms,
            state_batches: self.batches.clone(),
        }
    }

    /// What has changed since the last snapshot.
    pub(super) fn update(&mut self) -> ShareUpdateValue {
        self.updates += 1;
        ShareUpdateValue {
            snapshot_epoch: self.snapshot_epoch,
            leader_epoch: self.summary.leader_epoch,
            start_offset: self.summary.start_offset,
            delivery_complete_count: self.summary.delivery_complete_count,
            state_batches: self.since.clone(),
        }
    }

    pub(super) fn from_snapshot(value: ShareSnapshotValue) -> Self {
        Self {
            snapshot_epoch: value.snapshot_epoch,
            summary: StateSummary {
                state_epoch: value.state_epoch,
                leader_epoch: value.leader_epoch,
                start_offset: value.start_offset,
                delivery_complete_count: value.delivery_complete_count,
            },
            created_ms: value.create_timestamp,
            written_ms: value.write_timestamp,
            batches: combine(&[], &value.state_batches, value.start_offset.max(0)),
            since: Vec::new(),
            updates: 0,
        }
    }

    /// Takes over an update that stands in the log. One of another snapshot than the last says nothing any more.
    pub(super) fn replay(&mut self, value: &ShareUpdateValue) {
        if value.snapshot_epoch != self.snapshot_epoch {
            return;
        }
        self.summary.leader_epoch = self.summary.leader_epoch.max(value.leader_epoch);
        self.summary.delivery_complete_count = value.delivery_complete_count;
        self.change(value.start_offset, &value.state_batches);
        self.updates += 1;
    }
}
