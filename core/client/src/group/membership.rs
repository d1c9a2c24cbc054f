//! Membership in a classic group, whatever the group shares out: consumers share out partitions, workers tasks.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use towpath_types::{GenerationId, GroupId};
use towpath_wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use towpath_wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use towpath_wire::{ApiKey, ErrorCode};

use super::Coordinator;
use super::heartbeat::{Heartbeats, Standing};
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
    coordinator: Arc<Coordinator>,
    /// Joins wait on the coordinator for others; they must not hold up heartbeats and commits.
    joins: Coordinator,
    config: MembershipConfig,
    protocol: Protocol,
    /// Empty until the coordinator has given one.
    member_id: String,
    joined: Option<Joined>,
    rejoin: bool,
}

#[derive(Debug)]
struct Joined {
    identity: MembershipIdentity,
    heartbeats: Heartbeats,
    /// The application has been told of the rebalance.
    told: bool,
}

struct Protocol(Box<dyn GroupProtocol>);

impl std::fmt::Debug for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.protocol_type())
    }
}

impl Membership {
    /// A member that joins at the first [`Self::next`].
    #[must_use]
    pub fn new(client: &Client, config: MembershipConfig, protocol: Box<dyn GroupProtocol>) -> Self {
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client.inner), config.group_id.clone()));
        Self::with_coordinator(coordinator, config, protocol)
    }

    pub(crate) fn with_coordinator(
        coordinator: Arc<Coordinator>,
        config: MembershipConfig,
        protocol: Box<dyn GroupProtocol>,
    ) -> Self {
        Self {
            joins: Coordinator::new(Arc::clone(&coordinator.client), coordinator.group.clone()),
            coordinator,
            config,
            protocol: Protocol(protocol),
            member_id: String::new(),
            joined: None,
            rejoin: false,
        }
    }

    /// Joins, or waits for something to happen. May be dropped and called again.
    ///
    /// # Errors
    /// What does not heal by itself: an authorization, an inconsistent protocol, a fenced instance id.
    pub async fn next(&mut self) -> Result<MembershipEvent, ClientError> {
        if let Some(joined) = &mut self.joined {
            let lost = |standing: &Standing| matches!(standing, Standing::Lost(_));
            if joined.told || self.rejoin {
                // The coordinator's last word counts, also if it came while the application was finishing.
                let standing = *joined.heartbeats.standing.borrow();
                if let Standing::Lost(code) = standing {
                    return self.lost_or_fenced(code);
                }
            } else {
                let changed = |standing: &Standing| *standing == Standing::Rebalancing || lost(standing);
                let standing = joined.heartbeats.standing.wait_for(changed).await.map(|now| *now);
                return match standing {
                    Ok(Standing::Lost(code)) => self.lost_or_fenced(code),
                    Ok(_) => {
                        joined.told = true;
                        Ok(MembershipEvent::Rebalancing)
                    }
                    // The task ended without a word: it panicked.
                    Err(_) => Ok(self.lost(ErrorCode::UnknownServerError)),
                };
            }
        }
        self.join().await
    }

    /// A member that was fenced by its own instance id must not come back: that would fence the other.
    fn lost_or_fenced(&mut self, code: ErrorCode) -> Result<MembershipEvent, ClientError> {
        let event = self.lost(code);
        let error = ClientError::MembershipLost { group: self.joins.group.as_str().into(), code };
        if error.is_retriable() { Ok(event) } else { Err(error) }
    }

    fn lost(&mut self, code: ErrorCode) -> MembershipEvent {
        self.joined = None;
        self.rejoin = false;
        if code != ErrorCode::IllegalGeneration {
            self.member_id.clear();
        }
        MembershipEvent::Lost(code)
    }

    async fn join(&mut self) -> Result<MembershipEvent, ClientError> {
        let mut backoff = self.joins.client.retry_backoff();
        loop {
            let error = match self.join_once().await {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => continue,
                Err(error) => error,
            };
            match error.code() {
                Some(ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration) => {
                    let held = self.joined.is_some();
                    let code = error.code().unwrap_or(ErrorCode::UnknownMemberId);
                    let event = self.lost(code);
                    self.member_id.clear();
                    if held {
                        return Ok(event);
                    }
                }
                Some(ErrorCode::RebalanceInProgress) => continue,
                _ if error.is_retriable() => {}
                _ => {
                    self.joined = None;
                    return Err(error);
                }
            }
            tracing::debug!(group = %self.joins.group, %error, "joining again");
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// One round of JoinGroup and SyncGroup; `None` when the coordinator wants another at once.
    async fn join_once(&mut self) -> Result<Option<MembershipEvent>, ClientError> {
        let client = Arc::clone(&self.joins.client);
        let milliseconds = |ms: u64| i32::try_from(ms).unwrap_or(i32::MAX);
        let protocols = self.protocol.0.protocols();
        let request = JoinGroupRequest {
            group_id: self.joins.group.as_str().to_owned(),
            session_timeout_ms: milliseconds(self.config.session_timeout_ms),
            rebalance_timeout_ms: milliseconds(self.config.rebalance_timeout_ms),
            member_id: self.member_id.clone(),
            group_instance_id: self.config.group_instance_id.clone(),
            protocol_type: self.protocol.0.protocol_type().to_owned(),
            protocols: protocols
                .into_iter()
                .map(|(name, metadata)| JoinGroupRequestProtocol { name, metadata })
                .collect(),
            reason: None,
        };
        let longest = self.config.rebalance_timeout_ms.max(self.config.session_timeout_ms);
        let limit = client.request_timeout() + Duration::from_millis(longest);
        let (joined, broker) = self.joins.call(&request, i16::MAX, limit).await?;
        if ErrorCode::from_code(joined.error_code) == ErrorCode::MemberIdRequired {
            // KIP-394: the coordinator wants to see that its answer arrives before it counts the member.
            self.member_id = joined.member_id;
            return Ok(None);
        }
        self.joins.check(joined.error_code, None, ApiKey::JoinGroup, &broker)?;
        self.member_id.clone_from(&joined.member_id);
        let leader = joined.leader == joined.member_id;
        let protocol = joined.protocol_name.clone().unwrap_or_default();
        let mut assignments = Vec::new();
        if leader && !joined.skip_assignment {
            let members = joined.members.into_iter().map(|member| JoinedMember {
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
                metadata: member.metadata,
            });
            assignments = self.protocol.0.assign(&protocol, members.collect()).await?;
        }
        let request = SyncGroupRequest {
            group_id: self.joins.group.as_str().to_owned(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            group_instance_id: self.config.group_instance_id.clone(),
            protocol_type: Some(self.protocol.0.protocol_type().to_owned()),
            protocol_name: Some(protocol.clone()),
            assignments: assignments
                .into_iter()
                .map(|(member_id, assignment)| SyncGroupRequestAssignment { member_id, assignment })
                .collect(),
        };
        let (synced, broker) = self.joins.call(&request, i16::MAX, limit).await?;
        self.joins.check(synced.error_code, None, ApiKey::SyncGroup, &broker)?;
        let identity = MembershipIdentity {
            generation: GenerationId::new(joined.generation_id),
            member_id: Arc::from(joined.member_id),
            group_instance_id: self.config.group_instance_id.as_deref().map(Arc::from),
        };
        let heartbeats = Heartbeats::start(
            Arc::clone(&self.coordinator),
            &identity,
            Duration::from_millis(self.config.heartbeat_interval_ms),
            Duration::from_millis(self.config.session_timeout_ms),
        );
        // Only now: a join that was given up on the way is still owed.
        self.rejoin = false;
        self.joined = Some(Joined { identity: identity.clone(), heartbeats, told: false });
        Ok(Some(MembershipEvent::Joined { identity, protocol, leader, assignment: synced.assignment }))
    }

    /// Asks for a rebalance, for example because what there is to share out has changed: the next [`Self::next`] joins
    /// again. (Only the leader's join makes the others join, too.)
    pub fn request_rejoin(&mut self) {
        self.rejoin = true;
    }

    /// Who the member is at present; `None` outside of a generation.
    #[must_use]
    pub fn identity(&self) -> Option<MembershipIdentity> {
        self.joined.as_ref().map(|joined| joined.identity.clone())
    }

    /// Leaves the group at once, also as a static member.
    pub async fn leave(&mut self) {
        self.joined = None;
        if !self.member_id.is_empty() {
            let member_id = std::mem::take(&mut self.member_id);
            self.coordinator.leave(&member_id, self.config.group_instance_id.clone()).await;
        }
    }
}
