//! Leader and follower roles of a partition: high watermark, in-sync replicas, durability.
//!
//! - [`LeaderState`] is the pure part: appends and flushes go in, high watermarks come out. Followers will be one
//!   more input of it.
//! - [`Partition`] drives one over a [`towpath_log::Log`]: it appends, moves the high watermark, and wakes those who
//!   wait for it.
//! - [`Flusher`] flushes the partitions of a log directory whose records count only once they are durable
//!   (`flush.messages=1`); many appends share one flush.
//! - [`ReplicaManager`] holds the partitions of a broker.
#![forbid(unsafe_code)]

mod error;
mod flusher;
mod leader;
mod manager;
mod partition;
mod uncommitted;
mod waiter;

pub use error::PartitionError;
pub use flusher::Flusher;
pub use leader::{LeaderState, Leadership};
pub use manager::{ReplicaManager, ReplicaSettings, TopicReplicas};
pub use partition::{Appended, FetchPosition, FetchedPartition, Partition, Settings};
pub use towpath_log::Effort;
pub use waiter::FetchWaiter;
