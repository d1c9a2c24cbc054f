//! The supervisor: runs pipelines as ordinary clients of any Kafka-protocol cluster.
//!
//! - A source task polls its source, transforms, routes and formats the records, and writes them; when they and the
//!   source's offsets are durable, and not before, the source hears of it (R4). A restarted task reads the tail of
//!   its target partitions and drops what the source replays: no duplicates after a crash, without transactions.
//! - A sink task reads from where its sink says, or the group's committed offsets; records that nobody can take are
//!   durable in the dead-letter topic before the position passes them (R5).
//! - What fails is tried again, or not, as its error's kind says; that is decided here and nowhere else.
//! - The status is the truth (R8): RUNNING means that progress was seen, or that there is provably nothing to do.
//! - Several supervisors share their tasks as a Kafka group ([`WorkerConfig`]).
#![forbid(unsafe_code)]

mod backoff;
mod dead_letter;
mod dedup;
mod env;
mod error;
pub mod metrics;
mod offsets;
mod predecessor;
mod reader;
mod reset;
mod runner;
mod schemas;
mod sink_assignment;
mod sink_reader;
mod sink_task;
mod source_flow;
mod source_task;
mod source_writer;
mod status;
mod supervisor;
mod topics;
mod until_idle;
mod worker;

pub use error::SupervisorError;
pub use status::{Direction, PipelineStatus, TaskError, TaskState, TaskStatus};
pub use supervisor::{Supervisor, SupervisorConfig};
pub use until_idle::{IdleFailure, IdleProgress};
pub use worker::WorkerConfig;
