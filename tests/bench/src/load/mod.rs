//! Load generators that cost little: frames encoded beforehand, blocking sockets, nothing per record.

mod consume;
mod frames;
mod link;
mod paced;
mod produce;

pub(crate) use consume::{ConsumeLoad, consume};
pub(crate) use paced::{PacedLoad, PacedResult, paced};
pub(crate) use produce::{ProduceLoad, produce};
