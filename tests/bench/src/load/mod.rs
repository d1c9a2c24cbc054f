//! Load generators that cost little: frames encoded beforehand, blocking sockets, nothing per record. [`Steady`] is
//! another thing: a real client that survives its broker.

mod consume;
mod frames;
mod link;
mod paced;
mod produce;
mod steady;

pub(crate) use consume::{ConsumeLoad, consume, consume_from};
pub(crate) use link::Link;
pub(crate) use paced::{PacedLoad, PacedResult, paced};
pub(crate) use produce::{ProduceLoad, fill, produce, produce_from, produce_part};
pub(crate) use steady::{Steady, settings};
