//! The share coordinator (KIP-932): how far each share partition is, that is, which records of a partition a group has done
//! with. The leader of the partition writes it here before it answers an acknowledgement, and whoever leads next reads it.
//!
//! - [`ShareStateMachine`] is the pure part: the share partitions of one partition of `__share_group_state`.
//! - [`ShareCoordinator`] is the thin driver: it loads a partition when its broker leads it, and writes through
//!   [`CoordinatorLog`](crate::CoordinatorLog).
//! - [`record`] is the form of a share partition in the log: Kafka's own snapshots and updates.
//!
//! An update says everything that has changed since the last snapshot, so that the newest snapshot and the newest update
//! are all that is needed: the topic is compacted. (Kafka's says what has changed since the last update, and its topic is
//! cut off instead. Either reads the other's.)
//!
//! R6: a leader of an older epoch than one that has read the state, or with the state of an earlier beginning, writes
//! nothing.

mod batches;
mod machine;
pub mod record;
mod service;
mod state;

pub use machine::{
    ShareCommand, ShareReply, ShareStateConfig, ShareStateMachine, ShareToken, ShareWrite, SharedState,
};
pub use service::{ShareCoordinator, SharePartitionStatus};
pub use state::{ShareKey, StateSummary};
