//! Look-alike integers and names as types, and every bound in one place.
//!
//! Depends on nothing internal. An [`Offset`] cannot be passed where a [`LeaderEpoch`] is meant; conversion from
//! and to the raw integer happens where bytes are read and written, and nowhere else.
#![forbid(unsafe_code)]

mod filter;
mod ids;
pub mod limits;
mod names;
mod rules;

pub use filter::{Filter, FilterError};
pub use ids::{
    BrokerEpoch, BrokerId, GenerationId, LeaderEpoch, Offset, PartitionEpoch, ProducerEpoch, ProducerId,
    Term, TopicId,
};
pub use names::{GroupId, InvalidName, TopicName, TopicPartition};
pub use rules::{Rule, Rules};
