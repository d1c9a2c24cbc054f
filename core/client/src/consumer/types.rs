//! What goes into and comes out of a consumer.

use std::time::Duration;

use towpath_types::{LeaderEpoch, Offset, TopicName, TopicPartition};

use super::PartitionRecords;

/// Where reading a partition begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At this offset.
    Offset(Offset),
    /// At the first record there is.
    Earliest,
    /// At the end.
    Latest,
    /// At the first record whose timestamp (ms) is not smaller; at the end if there is none.
    Timestamp(i64),
    /// At the first record whose timestamp is not older than this; at the end if there is none.
    Ago(Duration),
    /// Where the group committed; without such an offset as `auto_offset_reset` says.
    Committed,
}

impl From<Offset> for StartAt {
    fn from(offset: Offset) -> Self {
        Self::Offset(offset)
    }
}

/// Which topics a group member wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subscription {
    /// These topics.
    Topics(Vec<TopicName>),
    /// All topics whose name matches one of these patterns, also ones created later; `*` stands for any characters,
    /// `?` for one. Internal topics do not match.
    Patterns(Vec<String>),
    /// All topics whose whole name matches this regular expression, also ones created later. In the consumer protocol
    /// the coordinator matches (RE2's syntax); in the classic one the client does (the syntax of the crate `regex`,
    /// which is nearly the same).
    Regex(String),
}

/// What [`super::Consumer::poll_event`] reports.
#[derive(Debug, Clone)]
pub enum ConsumerEvent {
    /// Records, or nothing when the time is up.
    Records(Vec<PartitionRecords>),
    /// These partitions are about to go to other members. Commit now what was processed; the next call of
    /// `poll_event` lets them go.
    Revoked(Vec<TopicPartition>),
    /// These partitions were added; reading begins at the committed offsets.
    Assigned(Vec<TopicPartition>),
    /// These partitions belong to other members already (the session expired, or this member was fenced): nothing
    /// can be committed for them any more.
    Lost(Vec<TopicPartition>),
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: Offset,
    /// The leader epoch of the last record read; [`LeaderEpoch::NONE`] if unknown.
    pub leader_epoch: LeaderEpoch,
    /// What the committer wrote beside it.
    pub metadata: String,
}

impl From<Offset> for CommittedOffset {
    fn from(offset: Offset) -> Self {
        Self { offset, leader_epoch: LeaderEpoch::NONE, metadata: String::new() }
    }
}

/// The answer to a lookup by timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// The record's offset.
    pub offset: Offset,
    /// The record's timestamp (ms).
    pub timestamp_ms: i64,
}
