//! The transaction coordinator: who writes under a transactional id, what a transaction has touched, and how it ended
//! (KIP-98, KIP-360, KIP-588, KIP-890), with exactly the semantics of Kafka 4.3.
//!
//! - [`TransactionMachine`] is the pure part: the transactional ids of one partition of `__transaction_state`.
//! - [`TransactionCoordinator`] is the thin driver: it loads a partition when its broker leads it, writes what the
//!   machine wants written through [`CoordinatorLog`](crate::CoordinatorLog), asks for producer ids
//!   ([`ProducerIds`]), and has markers written by the leaders of the partitions that a transaction touched
//!   ([`Markers`]).
//! - [`record`] is the form of a transactional id in the log: Kafka's own.
//!
//! The decision stands in the log (`PrepareCommit`, `PrepareAbort`) before anybody is told of it and before the first
//! marker is sent; that all markers are written (`CompleteCommit`, `CompleteAbort`) stands there before the id can be
//! used again. Whoever loads a decision without its completion sends the markers again.

mod config;
mod decide;
mod machine;
mod metadata;
mod partitions;
pub mod record;
mod service;

pub use config::TransactionConfig;
pub use machine::{
    AddPartitions, EndTransaction, InitProducer, TransactionCommand, TransactionFilter, TransactionMachine,
    TransactionReply, TransactionStats, TransactionToken,
};
pub use metadata::{ClientVersion, TransactionState};
pub use partitions::Partitions;
pub use record::BadTransactionRecord;
pub use service::{
    Coordinates, MarkerLeader, Markers, ProducerIds, SendFailed, TransactionCoordinator,
    TransactionPartitionStatus,
};
