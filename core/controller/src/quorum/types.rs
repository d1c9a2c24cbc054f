//! What Raft is about here: nodes, entries, answers.

use std::fmt;
use std::sync::Arc;

use openraft::vote::RaftLeaderId;
use towpath_types::{BrokerId, Offset};
use uuid::Uuid;

use crate::MetadataRecord;

openraft::declare_raft_types!(
    /// The types of the metadata quorum. At most one leader in a term, as the leader epochs of the protocol ask for.
    pub(crate) Types:
        D = Change,
        R = Outcome,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        AsyncRuntime = openraft_rt_tokio::TokioRuntime,
);

pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Change, u64, Member>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;
pub(crate) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, bytes::Bytes>;

/// What the members of the quorum know of each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// The host and port of its peer listener.
    pub(crate) address: String,
    /// The identity of its data directory: a member whose directory is another one has lost what it promised.
    pub(crate) directory: Uuid,
}

/// The records of one decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The offset of the first record: where the image was when the decision was made.
    pub(crate) base: i64,
    pub(crate) records: Arc<Vec<MetadataRecord>>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records at {}", self.records.len(), self.base)
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It took effect.
    Applied,
    /// The image was not any more where the decision found it: the entry has no effect on any node.
    Conflict {
        /// Where it was.
        next_offset: Offset,
    },
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// The node number of a broker id, which is never negative.
pub(crate) fn node_id(id: BrokerId) -> u64 {
    u64::try_from(id.get()).unwrap_or(0)
}

/// The broker id of a node number, all of which come from broker ids.
pub(crate) fn broker_id(id: u64) -> BrokerId {
    BrokerId::new(i32::try_from(id).unwrap_or(i32::MAX))
}
