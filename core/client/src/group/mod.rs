//! Classic groups: membership with any protocol, and the consumer's.

mod membership;

pub use membership::{
    GroupProtocol, JoinedMember, Membership, MembershipConfig, MembershipEvent, MembershipIdentity,
};
