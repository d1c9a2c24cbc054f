//! One partition on disk, in Kafka's own file format.
//!
//! A [`LogDir`] is one data directory (`log.dirs` holds one or several): it holds the lock, the checkpoints and the
//! marker of a clean shutdown, and opens every partition in it. A [`Log`] is one partition: segments with their
//! indexes, producer state, leader-epoch cache, retention and compaction. All methods are synchronous and short; a
//! `Log` takes one writer at a time while readers go on, and what readers get is a list of bytes or a piece of a
//! file that the broker hands to `sendfile`. I/O goes through [`Storage`] and [`Clock`], so that the same code runs
//! on [`sim::SimStorage`], which loses what was not synced.
#![forbid(unsafe_code)]

mod checkpoint;
mod clean;
mod compacted;
mod config;
mod dir;
mod disk;
mod epoch;
mod error;
mod file_storage;
mod index;
mod log;
mod producer;
mod room;
mod scan;
mod segment;
pub mod sim;
mod storage;
mod tail;
mod txn_index;
mod unstable;
mod workers;

pub use clean::{CleanOptions, CleanStats};
pub use config::LogConfig;
pub use dir::{DirIdentity, FutureKey, LogDir, LogDirOptions, OpenedLogs, Replaces};
pub use epoch::EpochEntry;
pub use error::{AppendError, LogError, ReadError};
pub use file_storage::FileStorage;
pub use log::{AppendInfo, AppendOptions, Effort, FetchedData, FileSlice, Log, Marker, TimestampAndOffset};
pub use producer::{ProducerSummary, TransactionCheck, VerificationGuard};
pub use storage::{Clock, DirEntry, OpenMode, Storage, StorageFile, StorageLock, SystemClock};
pub use txn_index::AbortedTransaction;
