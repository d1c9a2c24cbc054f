//! The consumer.

mod records;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use towpath_types::{Offset, TopicId, TopicName, TopicPartition};

pub use records::{PartitionRecords, Record, RecordsIter};
pub use types::{CommittedOffset, ConsumerEvent, OffsetAndTimestamp, StartAt, Subscription};

use crate::client::ClientInner;
use crate::{ClientError, ConsumerConfig};

/// Reads partitions, assigned by hand or by a group. Fetches ahead, within `buffer_bytes`, while the application
/// works. Methods take `&self`; one task at a time should poll.
#[derive(Debug)]
pub struct Consumer {
    #[allow(dead_code)]
    client: Arc<ClientInner>,
}

impl Consumer {
    pub(crate) fn new(client: Arc<ClientInner>, _config: ConsumerConfig) -> Self {
        Self { client }
    }

    /// Replaces the assignment. Partitions that stay and start at their current position keep what was fetched.
    /// Problems (unknown topics, offsets out of range) surface in [`Self::poll`].
    ///
    /// # Errors
    /// [`ClientError::Usage`] when the consumer has subscribed.
    pub fn assign(&self, _partitions: &[(TopicPartition, StartAt)]) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// Joins the group and reads what it assigns to this member.
    ///
    /// # Errors
    /// [`ClientError::Usage`] without `group_id`, or after a manual assignment.
    pub fn subscribe(&self, _subscription: Subscription) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// What is there, at once; else the first that comes within `max_wait`; else nothing. Rebalances happen without
    /// a word: use [`Self::poll_event`] to commit before partitions go.
    ///
    /// # Errors
    /// What keeps a partition from being read: [`ClientError::OffsetOutOfRange`], [`ClientError::TopicRecreated`],
    /// [`ClientError::CorruptBatch`], an authorization … It is reported again until the partition is assigned anew,
    /// sought or unassigned. What heals by itself is retried without a word.
    pub async fn poll(&self, _max_wait: Duration) -> Result<Vec<PartitionRecords>, ClientError> {
        Err(ClientError::Closed)
    }

    /// As [`Self::poll`], with the rebalances of the group.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub async fn poll_event(&self, _max_wait: Duration) -> Result<ConsumerEvent, ClientError> {
        Err(ClientError::Closed)
    }

    /// Moves the position; what was fetched is dropped.
    ///
    /// # Errors
    /// [`ClientError::NotAssigned`].
    pub fn seek(&self, _partition: &TopicPartition, _to: StartAt) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// The next offset that `poll` returns; `None` until it is known (a start that must be looked up).
    #[must_use]
    pub fn position(&self, _partition: &TopicPartition) -> Option<Offset> {
        None
    }

    /// The assigned partitions.
    #[must_use]
    pub fn assignment(&self) -> Vec<TopicPartition> {
        Vec::new()
    }

    /// The id of a topic that is being read; `None` until it is known.
    #[must_use]
    pub fn topic_id(&self, _topic: &TopicName) -> Option<TopicId> {
        None
    }

    /// Stops fetching and returning these partitions; their positions stay.
    pub fn pause(&self, _partitions: &[TopicPartition]) {}

    /// Goes on with paused partitions.
    pub fn resume(&self, _partitions: &[TopicPartition]) {}

    /// Commits offsets (the next ones to read) to the group, and waits for the coordinator.
    ///
    /// # Errors
    /// [`ClientError::MembershipLost`] when the partitions are others' already (R6); a broker's error per group.
    pub async fn commit(&self, _offsets: &BTreeMap<TopicPartition, Offset>) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// As [`Self::commit`], with metadata and leader epochs.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn commit_with_metadata(
        &self,
        _offsets: &BTreeMap<TopicPartition, CommittedOffset>,
    ) -> Result<(), ClientError> {
        Err(ClientError::Closed)
    }

    /// What the group has committed; partitions without a committed offset are left out.
    ///
    /// # Errors
    /// The coordinator's.
    pub async fn committed(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, CommittedOffset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The offsets of the first records there are.
    ///
    /// # Errors
    /// When a partition does not exist, or its leader does not answer within `api_timeout_ms`.
    pub async fn beginning_offsets(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The high watermarks, or the last stable offsets for `read_committed`.
    ///
    /// # Errors
    /// As [`Self::beginning_offsets`].
    pub async fn end_offsets(
        &self,
        _partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        Err(ClientError::Closed)
    }

    /// The first records whose timestamps (ms) are not smaller; partitions without one are left out.
    ///
    /// # Errors
    /// As [`Self::beginning_offsets`].
    pub async fn offsets_for_times(
        &self,
        _times: &[(TopicPartition, i64)],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndTimestamp>, ClientError> {
        Err(ClientError::Closed)
    }

    /// Leaves the group (a static member stays for its session timeout) and stops fetching. Dropping a consumer
    /// without this leaves the group to the session timeout.
    pub async fn close(&self) {}
}
