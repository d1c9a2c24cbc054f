//! Classic groups: membership with any protocol, and the consumer's.

mod assignor;
mod consumer;
pub(crate) mod coordinator;
mod heartbeat;
mod membership;

pub(crate) use consumer::{ConsumerGroup, describe_assignment};
pub(crate) use coordinator::Coordinator;
pub use membership::{
    GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent, MembershipIdentity,
};
