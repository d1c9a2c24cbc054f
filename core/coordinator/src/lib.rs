//! Coordination of groups and transactions: consumer groups of both protocols (classic, and KIP-848), committed offsets, also
//! those of transactions, and transactional ids, with exactly Kafka's semantics.
//!
//! - [`machine`] is the pure part: a [`GroupMachine`] holds the groups of one partition of `__consumer_offsets`.
//!   Requests, the passing of time and finished appends go in; answers and records to append come out
//!   ([`Command`]). It does no I/O, has no clock and makes no random choice of its own.
//! - [`GroupCoordinator`] is the thin driver: it maps a group to its partition, loads a partition when its broker
//!   leads it, writes what the machine wants written through [`CoordinatorLog`], and lets time pass.
//! - [`record`] is the form of a group in the offsets topic: Kafka's own, so that Kafka's tools can read it.
//!
//! An answer to a commit, and the assignment of a generation, leave only after their records are committed in the
//! offsets topic.
//!
//! Transactions are coordinated in [`transaction`], which is built in the same way.
#![forbid(unsafe_code)]

mod config;
mod hash;
mod log;
pub mod machine;
pub mod record;
mod service;
pub mod share;
mod topics;
pub mod transaction;

pub use config::{GroupConfig, MigrationPolicy};
pub use hash::{java_hash, partition_for};
pub use log::{
    CoordinatorBatch, CoordinatorLog, CoordinatorLogError, EndMarker, LoadedChunk, LoadedEntry,
    TransactionalProducer,
};
pub use machine::{
    ASSIGNORS, ClientContext, Command, GroupMachine, Now, Reply, ResolvedRegexes, SIMPLE_ASSIGNOR,
    ShareStateTopic, ShareStateView, Waiter, resolve_regexes,
};
pub use record::{BadRecord, OffsetsRecord};
pub use service::{Clock, GroupCoordinator, PartitionState, PartitionStatus};
pub use topics::{NoTopics, TopicInfo, Topics};
pub use transaction::{TransactionConfig, TransactionCoordinator, TransactionMachine};
