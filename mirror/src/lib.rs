//! Copies topics between clusters that speak Kafka's protocol, as an ordinary client of both.
//!
//! - [`Filter`] and [`Naming`]: which topics, and what they are called at the target.
//! - [`Translator`]: from the batches of a fetch to those that are sent, without decompressing what need not be.
//! - [`Flow`]: one partition's way, as a pure machine; [`recover`] is how it begins after a crash.
//! - [`verify`]: whether the target has what the source has.
//! - [`OffsetMap`]: which offsets of the source are which of the target's, and where groups go on (R9).
#![forbid(unsafe_code)]

mod bytes;
mod flow;
mod link;
mod map;
mod mm2;
mod naming;
mod translate;
mod verify;

pub use bytes::DecodeError;
pub use flow::{
    Begun, Command, Flow, FlowError, IN_FLIGHT_MAX, Lane, Outgoing, Position, RecoverError, Recovered, Seen,
    recover,
};
pub use link::{
    Begin, Change, GroupStatus, Link, LinkConfig, LinkError, LinkState, LinkStatus, Mode, PartitionStatus,
    Planned, Sync, plan,
};
pub use map::{OffsetMap, OutOfOrder, RUNS_MAX, Run};
pub use naming::{HEARTBEATS, NameError, Naming, is_internal};
pub use towpath_types::{Filter, FilterError};
pub use translate::{Copy, Piece, TranslateError, Translator};
pub use verify::{Difference, Range, Verified, verify};
