//! Who may commit and fetch offsets of a consumer group.

use towpath_types::TopicId;
use towpath_wire::ErrorCode;

use super::ConsumerGroup;
use super::member::ConsumerMember;
use crate::topics::Topics;

/// From here on members of consumer groups commit; older clients cannot know the errors.
const VERSION_MEMBER_EPOCH: i16 = 9;

/// A partition that is committed.
#[derive(Debug, Clone, Copy)]
pub(in crate::machine) struct CommittedPartition<'a> {
    pub(in crate::machine) topic: &'a str,
    /// Zero when the request does not say.
    pub(in crate::machine) topic_id: TopicId,
    pub(in crate::machine) partition: i32,
}

/// How a commit came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum CommitKind {
    /// By OffsetCommit of this version.
    Plain(i16),
    /// By TxnOffsetCommit.
    Transactional,
}

impl ConsumerGroup {
    /// R6: a member commits with its epoch, or with an older one as long as it has had the partition since then (KIP-1251).
    pub(in crate::machine) fn check_commit<'a>(
        &self,
        member_id: &str,
        epoch: i32,
        kind: CommitKind,
        partitions: impl IntoIterator<Item = CommittedPartition<'a>>,
        topics: &dyn Topics,
    ) -> Result<(), ErrorCode> {
        if epoch < 0 && self.members.is_empty() {
            // An administrator, or somebody who assigns partitions to itself.
            return Ok(());
        }
        if matches!(kind, CommitKind::Transactional) && epoch < 0 && member_id.is_empty() {
            // As in Kafka: a producer that says nothing of a member commits for itself; its transaction fences it.
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if member.is_classic() {
            return if epoch == member.epoch { Ok(()) } else { Err(ErrorCode::IllegalGeneration) };
        }
        if matches!(kind, CommitKind::Plain(version) if version < VERSION_MEMBER_EPOCH) {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.epoch {
            return Ok(());
        }
        if epoch > member.epoch {
            return Err(ErrorCode::StaleMemberEpoch);
        }
        let all_had = partitions.into_iter().all(|partition| has_had(member, epoch, partition, topics));
        if all_had { Ok(()) } else { Err(ErrorCode::StaleMemberEpoch) }
    }

    /// A member fetches with its epoch; who names no member may always fetch.
    pub(in crate::machine) fn check_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), ErrorCode> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if epoch == member.epoch {
            Ok(())
        } else if member.is_classic() {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }
}

fn has_had(member: &ConsumerMember, epoch: i32, place: CommittedPartition<'_>, topics: &dyn Topics) -> bool {
    let id = if place.topic_id.is_zero() {
        topics.by_name(place.topic).map(|topic| topic.id)
    } else {
        Some(place.topic_id)
    };
    let since = id.and_then(|id| member.assignment_epoch(id, place.partition));
    since.is_some_and(|since| epoch >= since)
}
