//! Groups: classic ones (membership with any protocol, and the consumer's), and those of the consumer protocol.

mod assignor;
mod consumer;
pub(crate) mod coordinator;
mod heartbeat;
mod member;
mod membership;
mod reconciled;

pub(crate) use consumer::{ConsumerGroup, describe_assignment};
pub(crate) use coordinator::Coordinator;
pub use membership::{
    GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent, MembershipIdentity,
};
pub(crate) use reconciled::{ReconciledGroup, leave};
