//! Copying the rows that exist: what has to be copied, by whom, and how a broken copy goes on.
//!
//! A table is copied in chunks of blocks (`ctid` ranges) by several connections that share one exported snapshot. Each
//! chunk is a short transaction of its own, so that no lock outlives it. After a crash the slot is still there, its
//! snapshot is not; what is left is then read under a later snapshot, never from zero:
//! - *Tables with a key*: chunks that are missing are read as they are now, and of chunks that were copied already
//!   those rows that are newer than the first snapshot (they may have moved there from a missing chunk). Rows can be
//!   newer than the stream's start; the stream replays all changes since, and whoever applies them by key ends up
//!   right. Such rows travel in lanes of their own, since their positions say nothing about earlier ones.
//! - *Insert-only tables*: of the missing chunks, the rows that the first snapshot saw, at their old positions in
//!   their old lanes, from the last row on that was stored: each comes once.
//! - *Tables without a key*, and whatever was rewritten meanwhile: a truncate record, then the whole table under the
//!   new snapshot, and the stream's changes count from that snapshot's consistent point on.

mod copy;
mod parse;
mod plan;
mod run;

pub(crate) use plan::{Plan, Prepare, Prepared, prepare};
pub(crate) use run::{Copied, Progressed, Reached, Run};
