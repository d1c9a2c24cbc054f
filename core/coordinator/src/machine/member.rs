//! One member of a classic group.

use std::sync::Arc;

use bytes::Bytes;
use towpath_wire::join_group::JoinGroupRequestProtocol;

use super::{ClientContext, Waiter};

/// A member's id, as the coordinator made it.
pub(super) type MemberId = Arc<str>;

/// Bytes that a member takes beside what it sent.
const MEMBER_OVERHEAD: usize = 256;
const PROTOCOL_OVERHEAD: usize = 64;

/// A way to assign partitions that a member supports, with what it says about itself for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Protocol {
    pub(super) name: String,
    pub(super) metadata: Bytes,
}

/// What a JoinGroup says about a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registration {
    pub(super) client: ClientContext,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// By preference; no name twice.
    pub(super) protocols: Vec<Protocol>,
}

impl Registration {
    /// The protocols of a request. A name that comes twice counts once: it is one vote.
    pub(super) fn protocols(request: Vec<JoinGroupRequestProtocol>) -> Vec<Protocol> {
        let mut protocols: Vec<Protocol> = Vec::with_capacity(request.len());
        let mut seen = std::collections::HashSet::with_capacity(request.len());
        for JoinGroupRequestProtocol { name, metadata } in request {
            if seen.insert(name.clone()) {
                // Not a slice of the request: that would keep the whole frame alive.
                protocols.push(Protocol { name, metadata: Bytes::copy_from_slice(&metadata) });
            }
        }
        protocols
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        let protocol =
            |protocol: &Protocol| PROTOCOL_OVERHEAD + protocol.name.len() + protocol.metadata.len();
        let client = self.client.client_id.len() + self.client.host.len();
        MEMBER_OVERHEAD + client + self.protocols.iter().map(protocol).sum::<usize>()
    }
}

/// A member.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) instance_id: Option<String>,
    pub(super) registration: Registration,
    pub(super) assignment: Bytes,
    /// Who waits for the answer to JoinGroup: the member has joined the coming generation.
    pub(super) awaiting_join: Option<Waiter>,
    /// Who waits for the answer to SyncGroup.
    pub(super) awaiting_sync: Option<Waiter>,
    /// Has not been in a generation yet: it cannot send heartbeats, so its JoinGroup times out.
    pub(super) is_new: bool,
}

impl Member {
    pub(super) const fn new(registration: Registration, instance_id: Option<String>) -> Self {
        Self {
            instance_id,
            registration,
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        }
    }

    pub(super) const fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// What the member says about itself for the protocol called `name`.
    pub(super) fn metadata(&self, name: Option<&str>) -> Bytes {
        let protocols = &self.registration.protocols;
        let found = protocols.iter().find(|protocol| Some(protocol.name.as_str()) == name);
        found.map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// As [`Self::metadata`]; when no protocol is chosen yet, for the one that the member prefers.
    pub(super) fn chosen_metadata(&self, name: Option<&str>) -> Bytes {
        let protocols = &self.registration.protocols;
        let found = protocols.iter().find(|protocol| Some(protocol.name.as_str()) == name);
        found.or(protocols.first()).map(|protocol| protocol.metadata.clone()).unwrap_or_default()
    }

    /// Whether the member need not be heard of now: it waits for us.
    pub(super) const fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        self.registration.size_in_bytes()
            + self.assignment.len()
            + self.instance_id.as_ref().map_or(0, String::len)
    }
}
