//! Leader and follower roles of a partition: high watermark, in-sync replicas, durability.
//!
//! - [`LeaderState`] is the leader's pure part: appends, flushes and followers' fetches go in, high watermarks and
//!   proposals for the ISR come out. [`FollowerState`] is the follower's: from where it fetches, and whether it appends,
//!   cuts off or begins anew.
//! - [`Partition`] drives one of them over a [`towpath_log::Log`]: it appends, moves the high watermark, and wakes those
//!   who wait for it.
//! - [`Flusher`] flushes the partitions of a log directory whose records count only once they are durable
//!   (`flush.messages=1`); many appends share one flush.
//! - [`ReplicaManager`] holds the partitions of a broker; [`Environment`] is what all of them share.
#![forbid(unsafe_code)]

mod dirs;
mod environment;
mod error;
mod flusher;
mod follower;
mod leader;
mod manager;
mod moving;
mod partition;
mod settle;
mod state;
#[cfg(test)]
mod testing;
mod uncommitted;
mod waiter;

pub use dirs::{LogDirs, UnusableDir};
pub use environment::{Environment, IsrQueue, MonotonicClock, ProcessClock};
pub use error::PartitionError;
pub use flusher::Flusher;
pub use follower::{FetchPlan, FollowerState, History, LeaderAnswer, Step};
pub use leader::{FollowerFetch, FollowerRefused, IsrProposal, LeaderSetup, LeaderState, ProposalAnswer};
pub use manager::{ReplicaManager, ReplicaSettings, TopicReplicas};
pub use moving::{MoveStep, ReplicaMove};
pub use partition::{
    Appended, Applied, Awaited, FetchPosition, FetchedPartition, FollowerAnswer, Isolation, Partition,
    Reader, Settings,
};
pub use state::{BrokerView, Brokers, Leadership};
pub use towpath_log::{
    AbortedTransaction, AppendOptions, Effort, Marker, ProducerSummary, TransactionCheck, VerificationGuard,
};
pub use waiter::FetchWaiter;
