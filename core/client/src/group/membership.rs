//! Membership in a classic group, whatever the group shares out: consumers share out partitions, workers tasks.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use towpath_types::{GenerationId, GroupId};
use towpath_wire::ErrorCode;

use crate::{Client, ClientError};

/// Who joins which group.
#[derive(Debug, Clone)]
pub struct MembershipConfig {
    /// The group.
    pub group_id: GroupId,
    /// Makes the member static (KIP-345).
    pub group_instance_id: Option<String>,
    /// Milliseconds without a heartbeat after which the group goes on without this member.
    pub session_timeout_ms: u64,
    /// Milliseconds that a rebalance waits for this member to join again.
    pub rebalance_timeout_ms: u64,
    /// Milliseconds between heartbeats.
    pub heartbeat_interval_ms: u64,
}

impl MembershipConfig {
    /// Kafka's defaults for a group.
    #[must_use]
    pub const fn new(group_id: GroupId) -> Self {
        Self {
            group_id,
            group_instance_id: None,
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            heartbeat_interval_ms: 3_000,
        }
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone)]
pub struct JoinedMember {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// The id that a static member gave itself.
    pub group_instance_id: Option<String>,
    /// What it wrote into its join.
    pub metadata: Bytes,
}

/// What the members of a group say to each other.
#[async_trait]
pub trait GroupProtocol: Send + 'static {
    /// The kind of group, e.g. `consumer`.
    fn protocol_type(&self) -> &str;

    /// The protocols that this member supports, the most liked first, each with its metadata for the next join.
    fn protocols(&mut self) -> Vec<(String, Bytes)>;

    /// Shares out as the leader: one assignment per member id. Called again in every generation.
    ///
    /// # Errors
    /// Retriable ones make the member join again, others end the membership.
    async fn assign(
        &mut self,
        protocol: &str,
        members: Vec<JoinedMember>,
    ) -> Result<Vec<(String, Bytes)>, ClientError>;
}

/// What happened to the membership.
#[derive(Debug, Clone)]
pub enum MembershipEvent {
    /// A new generation, with this member's share.
    Joined {
        /// Who the member is in it.
        identity: MembershipIdentity,
        /// The chosen protocol.
        protocol: String,
        /// Whether this member leads the group.
        leader: bool,
        /// This member's share, as the leader wrote it.
        assignment: Bytes,
    },
    /// The group rebalances: finish what must be finished; the next call of [`Membership::next`] joins again.
    Rebalancing,
    /// The group has gone on without this member (R6): what it had belongs to others. The next call of
    /// [`Membership::next`] joins as a new member.
    Lost(ErrorCode),
}

/// Who a member is in a generation; what commits are fenced with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipIdentity {
    /// The generation.
    pub generation: GenerationId,
    /// The id that the coordinator gave the member.
    pub member_id: Arc<str>,
    /// The id that a static member gave itself.
    pub group_instance_id: Option<Arc<str>>,
}

/// A member of a group. Heartbeats are sent in the background from one [`Self::next`] to the next.
#[derive(Debug)]
pub struct Membership {
    #[allow(dead_code)]
    client: Client,
}

impl Membership {
    /// A member that joins at the first [`Self::next`].
    #[must_use]
    pub fn new(client: &Client, _config: MembershipConfig, _protocol: Box<dyn GroupProtocol>) -> Self {
        Self { client: client.clone() }
    }

    /// Joins, or waits for something to happen. May be dropped and called again.
    ///
    /// # Errors
    /// What does not heal by itself: an authorization, an inconsistent protocol, a fenced instance id.
    pub async fn next(&mut self) -> Result<MembershipEvent, ClientError> {
        Err(ClientError::Closed)
    }

    /// Asks for a rebalance, for example because what there is to share out has changed.
    pub fn request_rejoin(&mut self) {}

    /// Who the member is at present; `None` outside of a generation.
    #[must_use]
    pub fn identity(&self) -> Option<MembershipIdentity> {
        None
    }

    /// Leaves the group at once (a static member stays for its session timeout).
    pub async fn leave(&mut self) {}
}
