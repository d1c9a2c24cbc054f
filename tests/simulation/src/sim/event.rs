//! What may happen, and when.

use std::cmp::Ordering;

use towpath_controller::MetadataRecord;
use towpath_types::{BrokerEpoch, BrokerId, Offset};

use super::admin::AdminCall;
use crate::net::{Call, CallAnswer, Caller, Envelope, Party};

/// What a controller was asked to decide.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    /// By a node.
    Call(Caller, Call),
    /// By time: a broker is not heard any more.
    Fence(BrokerId, BrokerEpoch),
    /// By time: partitions without a leader.
    UncleanElections,
    /// By an operator.
    Admin(AdminCall),
}

/// A decision on its way to the quorum.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(super) node: usize,
    pub(super) process: u64,
    pub(super) term: u64,
    pub(super) base: Offset,
    pub(super) records: Vec<MetadataRecord>,
    pub(super) asked: Asked,
    pub(super) answer: Option<CallAnswer>,
}

/// An event.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver(Box<Envelope>),
    NodeTick { node: usize, process: u64 },
    FetchDue { node: usize, process: u64, topic: usize },
    Flush { node: usize, process: u64 },
    Commit(Box<Proposal>),
    QuorumTick,
    Probe(usize),
    Create(usize),
    Produce(usize),
    Consume(usize),
    CommitOffset,
    Transact(usize),
    Fault,
    Administer,
    Restart(usize),
    Resume(usize),
    Crash(usize),
    Repair(usize),
}

impl Event {
    /// The node at whose process it happens, and which waits for it while that is stopped.
    pub(super) fn node(&self) -> Option<usize> {
        match self {
            Self::Deliver(envelope) => match envelope.to {
                Party::Node(node) => Some(node),
                Party::Client(_) | Party::Transactor(_) => None,
            },
            Self::NodeTick { node, .. } | Self::FetchDue { node, .. } | Self::Flush { node, .. } => {
                Some(*node)
            }
            _ => None,
        }
    }
}

/// An event with its time.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) at: i64,
    pub(super) order: u64,
    pub(super) event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    /// The earliest is the greatest: the heap gives the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
