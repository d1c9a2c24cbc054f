//! One member of a consumer group.

use std::collections::{BTreeMap, BTreeSet};

use towpath_types::TopicId;

use crate::machine::ClientContext;
use crate::machine::member::Protocol;

/// Partitions by topic.
pub(in crate::machine) type Partitions = BTreeMap<TopicId, BTreeSet<i32>>;

/// Partitions by topic, each with the epoch in which the member got it (KIP-1251).
pub(in crate::machine) type Owned = BTreeMap<TopicId, BTreeMap<i32, i32>>;

/// The epoch of a static member that is away for a while.
pub(in crate::machine) const EPOCH_AWAY: i32 = -2;
/// The epoch in which a member leaves.
pub(in crate::machine) const EPOCH_LEAVE: i32 = -1;
/// The epoch in which a member joins.
pub(in crate::machine) const EPOCH_JOIN: i32 = 0;

/// Bytes that a member takes beside what it says.
const MEMBER_OVERHEAD: usize = 384;
const NAME_OVERHEAD: usize = 48;
const TOPIC_OVERHEAD: usize = 64;
const PARTITION_OVERHEAD: usize = 16;

/// How far a member is with its assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::machine) enum MemberState {
    /// It has what the target of its epoch gives it.
    Stable,
    /// It must give up partitions before it can go on.
    UnrevokedPartitions,
    /// It waits for partitions that others have not given up.
    UnreleasedPartitions,
    /// A newer version wrote a state that this one does not know.
    Unknown,
}

impl MemberState {
    pub(in crate::machine) const fn code(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }

    pub(in crate::machine) const fn from_code(code: i8) -> Self {
        match code {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }
}

/// What a member said that joined with the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::machine) struct ClassicMetadata {
    pub(in crate::machine) session_timeout_ms: i32,
    /// By preference; at least one.
    pub(in crate::machine) protocols: Vec<Protocol>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::machine) struct ConsumerMember {
    pub(in crate::machine) instance_id: Option<String>,
    pub(in crate::machine) rack_id: Option<String>,
    pub(in crate::machine) client: ClientContext,
    pub(in crate::machine) topics: BTreeSet<String>,
    /// `None` and the empty one mean the same: the member subscribes to no regular expression.
    pub(in crate::machine) regex: Option<String>,
    pub(in crate::machine) rebalance_timeout_ms: i32,
    pub(in crate::machine) assignor: Option<String>,
    pub(in crate::machine) classic: Option<ClassicMetadata>,
    pub(in crate::machine) epoch: i32,
    /// The epoch before: a member that did not get an answer comes with it.
    pub(in crate::machine) previous_epoch: i32,
    pub(in crate::machine) state: MemberState,
    pub(in crate::machine) assigned: Owned,
    pub(in crate::machine) revoking: Owned,
}

impl Default for ConsumerMember {
    fn default() -> Self {
        Self {
            instance_id: None,
            rack_id: None,
            client: ClientContext::default(),
            topics: BTreeSet::new(),
            regex: None,
            rebalance_timeout_ms: -1,
            assignor: None,
            classic: None,
            epoch: EPOCH_JOIN,
            previous_epoch: -1,
            state: MemberState::Stable,
            assigned: Owned::new(),
            revoking: Owned::new(),
        }
    }
}

impl ConsumerMember {
    pub(in crate::machine) const fn is_classic(&self) -> bool {
        self.classic.is_some()
    }

    /// The regular expression, if the member has one.
    pub(in crate::machine) fn regex(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }

    /// Whether there is nothing to do towards the target of this epoch.
    pub(in crate::machine) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == target_epoch
    }

    pub(in crate::machine) const fn update_epoch(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = epoch;
    }

    /// What it says about itself, as stored in its first record, is the same.
    pub(in crate::machine) fn has_same_metadata(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id
            && self.rack_id == other.rack_id
            && self.client == other.client
            && self.topics == other.topics
            && self.regex == other.regex
            && self.rebalance_timeout_ms == other.rebalance_timeout_ms
            && self.assignor == other.assignor
            && self.classic == other.classic
    }

    /// What its second record says is the same.
    pub(in crate::machine) fn has_same_assignment(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.previous_epoch == other.previous_epoch
            && self.state == other.state
            && self.assigned == other.assigned
            && self.revoking == other.revoking
    }

    /// The epoch in which the member got a partition that it has, or has to give up; `None` when it has not.
    pub(in crate::machine) fn assignment_epoch(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let of = |owned: &Owned| owned.get(&topic).and_then(|partitions| partitions.get(&partition)).copied();
        of(&self.assigned).or_else(|| of(&self.revoking))
    }

    /// Every partition that nobody else may have.
    pub(in crate::machine) fn held(&self) -> impl Iterator<Item = (TopicId, i32)> {
        let places = |owned: &'_ Owned| {
            let places = owned
                .iter()
                .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)));
            places.collect::<Vec<_>>()
        };
        places(&self.assigned).into_iter().chain(places(&self.revoking))
    }

    /// Bytes of what the member says.
    pub(in crate::machine) fn metadata_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let classic = self.classic.as_ref().map_or(0, |classic| {
            let bytes = |protocol: &Protocol| NAME_OVERHEAD + protocol.name.len() + protocol.metadata.len();
            classic.protocols.iter().map(bytes).sum()
        });
        MEMBER_OVERHEAD
            + text(&self.instance_id)
            + text(&self.rack_id)
            + text(&self.regex)
            + text(&self.assignor)
            + self.client.client_id.len()
            + self.client.host.len()
            + self.topics.iter().map(|topic| NAME_OVERHEAD + topic.len()).sum::<usize>()
            + classic
    }

    pub(in crate::machine) fn size_in_bytes(&self) -> usize {
        self.metadata_bytes() + owned_bytes(&self.assigned) + owned_bytes(&self.revoking)
    }
}

fn owned_bytes(owned: &Owned) -> usize {
    // Each is held once more in the group's list of owners.
    owned.values().map(|partitions| TOPIC_OVERHEAD + 3 * PARTITION_OVERHEAD * partitions.len()).sum()
}

/// Bytes of a target.
pub(in crate::machine) fn partitions_bytes(partitions: &Partitions) -> usize {
    partitions.values().map(|partitions| TOPIC_OVERHEAD + PARTITION_OVERHEAD * partitions.len()).sum()
}

/// The same without epochs.
pub(in crate::machine) fn without_epochs(owned: &Owned) -> Partitions {
    owned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}
