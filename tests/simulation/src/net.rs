//! Messages between nodes and from clients, and the links that they take.

use bytes::Bytes;
use towpath_controller::decide::{AlterPartition, Registration};
use towpath_coordinator::EndMarker;
use towpath_coordinator::transaction::{TransactionReply, TransactionToken};
use towpath_replica::{FetchPlan, FollowerAnswer, ProposalAnswer};
use towpath_types::{BrokerEpoch, Offset, Term, TopicPartition};
use towpath_wire::ErrorCode;

use crate::transactions::{Asking, TransactionCall, TransactionalWrite};

/// A producer.
pub(crate) type ClientId = usize;

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// A node.
    Node(usize),
    /// A producer.
    Client(ClientId),
    /// A transactional producer.
    Transactor(usize),
}

/// Which process of which node waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) node: usize,
    pub(crate) process: u64,
}

/// Which marker, and who waits for it to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MarkerKey {
    pub(crate) caller: Caller,
    pub(crate) term: Term,
    pub(crate) token: TransactionToken,
    pub(crate) partition: TopicPartition,
    pub(crate) attempt: u64,
}

/// What the controller is asked.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Register(Box<Registration>),
    Heartbeat { epoch: BrokerEpoch, next: Offset, want_fence: bool, want_shutdown: bool },
    Alter { number: u64, request: Box<AlterPartition> },
}

/// What the controller answers.
#[derive(Debug, Clone)]
pub(crate) enum CallAnswer {
    Registered(Result<BrokerEpoch, ErrorCode>),
    Heartbeat(Result<bool, ErrorCode>),
    Altered { number: u64, answers: Vec<ProposalAnswer> },
}

/// What a leader answers to a fetch.
#[derive(Debug, Clone)]
pub(crate) enum FetchOutcome {
    /// An answer for the follower's machine.
    Answer(FollowerAnswer),
    /// `OFFSET_OUT_OF_RANGE`.
    OutOfRange,
    /// Another error.
    Refused,
}

/// A message.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Fetch {
        caller: Caller,
        topic: usize,
        epoch: BrokerEpoch,
        plan: FetchPlan,
        bytes: usize,
    },
    Fetched {
        caller: Caller,
        topic: usize,
        plan: FetchPlan,
        outcome: FetchOutcome,
    },
    /// ListOffsets, for the start and the end of the leader's log.
    Range {
        caller: Caller,
        topic: usize,
        plan: FetchPlan,
    },
    Ask {
        caller: Caller,
        call: Call,
    },
    Answered {
        caller: Caller,
        answer: CallAnswer,
    },
    Produce {
        client: ClientId,
        number: u64,
        topic: usize,
        batch: Bytes,
        ids: Vec<u64>,
        all: bool,
    },
    Produced {
        number: u64,
        result: Result<(), Refusal>,
    },
    /// To the transaction coordinator.
    Coordinate {
        asking: Asking,
        id: String,
        call: TransactionCall,
    },
    /// The transaction coordinator's answer.
    Coordinated {
        number: u64,
        reply: TransactionReply,
    },
    /// The transaction coordinator's answer to a partition's leader.
    Verified {
        caller: Caller,
        number: u64,
        code: ErrorCode,
    },
    /// Into a partition, within a transaction.
    Write(Box<TransactionalWrite>),
    /// WriteTxnMarkers, for one partition.
    Marker {
        key: MarkerKey,
        marker: EndMarker,
    },
    Marked {
        key: MarkerKey,
        is_written: bool,
    },
}

/// Why a produce request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The client looks for the leader and tries again.
    Retriable,
    /// The sequence number does not fit: the client begins with another producer id.
    OutOfOrder,
    /// The transaction has to be aborted.
    Abortable,
}

/// A message on its way.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) to: Party,
    pub(crate) message: Message,
    /// The partition that it is about, and which it was when it was sent.
    pub(crate) about: Option<(usize, u64)>,
}

impl Message {
    /// The partition that it is about by its topic's id.
    pub(crate) const fn slot(&self) -> Option<usize> {
        match self {
            Self::Fetch { topic, .. }
            | Self::Fetched { topic, .. }
            | Self::Range { topic, .. }
            | Self::Produce { topic, .. } => Some(*topic),
            _ => None,
        }
    }
}

/// Which links are cut: `[from][to]`, each with the time at which it heals.
#[derive(Debug, Clone)]
pub(crate) struct Links(Vec<Vec<i64>>);

impl Links {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(vec![vec![0; nodes]; nodes])
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, until: i64) {
        self.0[from][to] = self.0[from][to].max(until);
    }

    pub(crate) fn is_open(&self, from: usize, to: usize, now: i64) -> bool {
        from == to || self.0[from][to] <= now
    }

    /// Whether two nodes hear each other.
    pub(crate) fn connects(&self, a: usize, b: usize, now: i64) -> bool {
        self.is_open(a, b, now) && self.is_open(b, a, now)
    }

    pub(crate) fn heal_node(&mut self, node: usize) {
        self.0[node].fill(0);
        self.0.iter_mut().for_each(|row| row[node] = 0);
    }

    pub(crate) fn heal_between(&mut self, a: usize, b: usize) {
        self.0[a][b] = 0;
        self.0[b][a] = 0;
    }

    pub(crate) fn heal(&mut self) {
        self.0.iter_mut().for_each(|row| row.fill(0));
    }
}
