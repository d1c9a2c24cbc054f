//! A classic group: its members, its generation and its offsets. Only what needs neither time nor answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use towpath_wire::join_group::JoinGroupResponseMember;
use towpath_wire::offset_records::MemberMetadata;
use towpath_wire::{ConsumerProtocolSubscription, Decoder, ErrorCode, GroupMetadataValue, Message};

use super::consumer::{ConsumerGroup, Store};
use super::member::{Member, MemberId, Protocol, Registration};
use super::offsets::Offsets;
use super::share::ShareGroup;

/// The protocol type of consumers; of other types (`connect`) the coordinator does not know the metadata.
pub(super) const CONSUMER: &str = "consumer";

/// The state of a classic group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupState {
    /// No members; there can be offsets.
    Empty,
    /// Members join the coming generation.
    PreparingRebalance,
    /// The generation is formed and waits for the leader's assignment.
    CompletingRebalance,
    /// The assignment is stored and told.
    Stable,
    /// Being deleted.
    Dead,
}

impl GroupState {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// What kind of group a group is.
#[derive(Debug, Default)]
pub(super) enum Kind {
    /// A leader assigns, and all rebalance together; also a group that is but a name for its offsets.
    #[default]
    Classic,
    /// The coordinator assigns (KIP-848). What belongs to a classic group is then empty.
    Consumer(Box<ConsumerGroup>),
    /// Members share partitions (KIP-932). It has no offsets.
    Share(Box<ShareGroup>),
}

/// How far the first rebalance of an empty group has waited for more members.
#[derive(Debug, Clone, Copy)]
pub(super) struct InitialDelay {
    pub(super) delay_ms: i32,
    pub(super) remaining_ms: i32,
    /// Somebody joined during the last delay: it pays to wait once more.
    pub(super) member_added: bool,
}

/// A group: its offsets, and its members of the one or the other kind.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: Arc<str>,
    pub(super) kind: Kind,
    pub(super) state: GroupState,
    pub(super) generation: i32,
    pub(super) protocol_type: Option<String>,
    pub(super) protocol_name: Option<String>,
    pub(super) leader: Option<MemberId>,
    pub(super) members: BTreeMap<MemberId, Member>,
    pub(super) instances: HashMap<String, MemberId>,
    /// Ids that were given out and not yet joined with (KIP-394).
    pub(super) pending: BTreeSet<MemberId>,
    /// Members that have not asked for the assignment of this generation.
    pub(super) pending_sync: BTreeSet<MemberId>,
    /// Set while the first rebalance of an empty group waits.
    pub(super) initial: Option<InitialDelay>,
    /// The generation whose assignment is on its way to the log.
    pub(super) assigning: Option<i32>,
    /// The topics that the members of a consumer group subscribe to; `None` when that is not known.
    pub(super) subscribed: Option<BTreeSet<String>>,
    /// When the state last changed: milliseconds since 1970 UTC, `None` in records of old Kafkas.
    pub(super) state_since_ms: Option<i64>,
    /// The group is in the log.
    pub(super) persisted: bool,
    pub(super) offsets: Offsets,
    /// Appends that are not done: what follows from them needs the group.
    pub(super) appends: usize,
    /// What is written of a consumer group, or of what is left of one.
    pub(super) store: Store,
    /// How many members support a protocol.
    supporters: HashMap<String, usize>,
    joined: usize,
    member_bytes: usize,
}

impl Group {
    pub(super) fn new(id: Arc<str>, now_ms: i64) -> Self {
        Self {
            id,
            kind: Kind::Classic,
            state: GroupState::Empty,
            generation: 0,
            protocol_type: None,
            protocol_name: None,
            leader: None,
            members: BTreeMap::new(),
            instances: HashMap::new(),
            pending: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            initial: None,
            assigning: None,
            subscribed: None,
            state_since_ms: Some(now_ms),
            persisted: false,
            offsets: Offsets::default(),
            appends: 0,
            store: Store::default(),
            supporters: HashMap::new(),
            joined: 0,
            member_bytes: 0,
        }
    }

    /// The consumer group that this group is, if it is one.
    pub(super) fn consumer(&self) -> Option<&ConsumerGroup> {
        match &self.kind {
            Kind::Consumer(consumer) => Some(consumer),
            Kind::Classic | Kind::Share(_) => None,
        }
    }

    pub(super) fn consumer_mut(&mut self) -> Option<&mut ConsumerGroup> {
        match &mut self.kind {
            Kind::Consumer(consumer) => Some(consumer),
            Kind::Classic | Kind::Share(_) => None,
        }
    }

    /// The share group that this group is, if it is one.
    pub(super) fn share(&self) -> Option<&ShareGroup> {
        match &self.kind {
            Kind::Share(share) => Some(share),
            Kind::Classic | Kind::Consumer(_) => None,
        }
    }

    pub(super) fn share_mut(&mut self) -> Option<&mut ShareGroup> {
        match &mut self.kind {
            Kind::Share(share) => Some(share),
            Kind::Classic | Kind::Consumer(_) => None,
        }
    }

    /// Makes the group one of another kind, without members; what it was is returned. Offsets stay, and so does what is on
    /// its way to the log. Whoever waits in the members, and their deadlines, are the caller's.
    pub(super) fn become_kind(&mut self, kind: Kind) -> Kind {
        let id = Arc::clone(&self.id);
        let old = std::mem::replace(self, Self::new(id, 0));
        self.state_since_ms = old.state_since_ms;
        self.offsets = old.offsets;
        self.appends = old.appends;
        self.store = old.store;
        self.kind = kind;
        old.kind
    }

    pub(super) fn is_in(&self, states: &[GroupState]) -> bool {
        states.contains(&self.state)
    }

    pub(super) const fn set_state(&mut self, state: GroupState, now_ms: i64) {
        self.state = state;
        self.state_since_ms = Some(now_ms);
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn leader_text(&self) -> String {
        self.leader.as_deref().unwrap_or_default().to_owned()
    }

    /// Whether everybody who is known has joined.
    pub(super) fn has_everybody_joined(&self) -> bool {
        self.joined == self.members.len() && self.pending.is_empty()
    }

    pub(super) const fn joined(&self) -> usize {
        self.joined
    }

    pub(super) const fn member_bytes(&self) -> usize {
        self.member_bytes
    }

    pub(super) fn size_in_bytes(&self) -> usize {
        let pending: usize = self.pending.iter().map(|id| id.len() + 64).sum();
        let consumer = self.consumer().map_or(0, ConsumerGroup::size_in_bytes);
        let share = self.share().map_or(0, ShareGroup::size_in_bytes);
        512 + self.id.len() + self.member_bytes + pending + consumer + share + self.offsets.size_in_bytes()
    }

    /// How long members have to join: the longest that one of them asks for.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.registration.rebalance_timeout_ms).max().unwrap_or(0).max(0)
    }

    fn support(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            *self.supporters.entry(protocol.name.clone()).or_default() += 1;
        }
    }

    fn unsupport(&mut self, protocols: &[Protocol]) {
        for protocol in protocols {
            if let Some(count) = self.supporters.get_mut(&protocol.name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(&protocol.name);
                }
            }
        }
    }

    /// Whether somebody with these protocols can be a member beside the present ones.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let supported = |protocol: &Protocol| {
            self.supporters.get(&protocol.name).is_some_and(|count| *count == self.members.len())
        };
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(supported)
    }

    /// Adds a member that is not one yet.
    pub(super) fn add(&mut self, id: MemberId, member: Member, protocol_type: &str) {
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), Arc::clone(&id));
        }
        self.support(&member.registration.protocols);
        self.joined += usize::from(member.awaiting_join.is_some());
        self.member_bytes += member.size_in_bytes();
        self.pending.remove(&id);
        if self.leader.is_none() {
            self.leader = Some(Arc::clone(&id));
        }
        self.members.insert(id, member);
    }

    /// Removes a member, or an id that was given out. Whoever waits in the returned member needs an answer.
    #[must_use]
    pub(super) fn remove(&mut self, id: &str) -> Option<Member> {
        self.pending.remove(id);
        self.pending_sync.remove(id);
        let member = self.members.remove(id)?;
        self.unsupport(&member.registration.protocols);
        self.joined -= usize::from(member.awaiting_join.is_some());
        self.member_bytes -= member.size_in_bytes();
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|owner| **owner == *id)
        {
            self.instances.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Renews what a member says about itself.
    pub(super) fn update(&mut self, id: &str, registration: Registration) {
        let Some(member) = self.members.get_mut(id) else { return };
        self.member_bytes -= member.size_in_bytes();
        let old = std::mem::replace(&mut member.registration, registration);
        self.member_bytes += member.size_in_bytes();
        let new = member.registration.protocols.clone();
        self.unsupport(&old.protocols);
        self.support(&new);
    }

    /// Sets who waits for the member's JoinGroup; returns who waited before.
    pub(super) fn await_join(&mut self, id: &str, waiter: Option<super::Waiter>) -> Option<super::Waiter> {
        let member = self.members.get_mut(id)?;
        let before = std::mem::replace(&mut member.awaiting_join, waiter);
        self.joined += usize::from(waiter.is_some());
        self.joined -= usize::from(before.is_some());
        before
    }

    /// Sets a member's assignment.
    pub(super) fn assign(&mut self, id: &str, assignment: bytes::Bytes) {
        if let Some(member) = self.members.get_mut(id) {
            self.member_bytes += assignment.len();
            self.member_bytes -= member.assignment.len();
            member.assignment = assignment;
        }
    }

    /// Checks who speaks: the member must be known, and the newest with its instance id (KIP-345).
    pub(super) fn validate(&self, member: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(owner) if **owner != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// Makes sure that the leader has joined; false when nobody has.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let has_joined =
            |id: &MemberId| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if !self.leader.as_ref().is_some_and(has_joined) {
            let joined = self.members.iter().find(|(_, member)| member.awaiting_join.is_some());
            match joined {
                Some((id, _)) => self.leader = Some(Arc::clone(id)),
                None => return false,
            }
        }
        true
    }

    /// The protocol of the coming generation: each member votes for the first of its own that all support. Of those
    /// with as many votes the one that the leader prefers wins.
    pub(super) fn select_protocol(&self) -> Option<String> {
        let candidate = |protocol: &&Protocol| {
            self.supporters.get(&protocol.name).is_some_and(|count| *count == self.members.len())
        };
        let mut votes: HashMap<&str, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some(protocol) = member.registration.protocols.iter().find(candidate) {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let most = *votes.values().max()?;
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        let preferred = leader.and_then(|leader| {
            let protocols = leader.registration.protocols.iter().map(|protocol| protocol.name.as_str());
            protocols.into_iter().find(|name| votes.get(name) == Some(&most))
        });
        let any = || votes.iter().filter(|(_, count)| **count == most).map(|(name, _)| *name).min();
        preferred.or_else(any).map(str::to_owned)
    }

    /// Begins the next generation with the members that are there.
    pub(super) fn next_generation(&mut self, now_ms: i64) {
        // Wraps like Kafka's would, but to 0: negative generations mean "none".
        self.generation = self.generation.checked_add(1).unwrap_or(0);
        self.pending_sync.clear();
        self.assigning = None;
        let state = if self.members.is_empty() {
            self.protocol_name = None;
            GroupState::Empty
        } else {
            self.protocol_name = self.select_protocol();
            GroupState::CompletingRebalance
        };
        self.subscribed = self.subscribed_topics();
        self.set_state(state, now_ms);
    }

    /// What the members subscribe to, by their metadata for the chosen protocol.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            let mut decoder = Decoder::new(member.metadata(self.protocol_name.as_deref()));
            // Later versions only append fields: the topics stand where version 0 has them.
            decoder.get_i16().ok()?;
            topics.extend(ConsumerProtocolSubscription::decode(&mut decoder, 0).ok()?.topics);
        }
        Some(topics)
    }

    /// Whether somebody consumes `topic` with this group; when that is not known, yes (of a consumer group).
    pub(super) fn is_subscribed(&self, topic: &str) -> bool {
        if let Some(consumer) = self.consumer() {
            return consumer.is_subscribed(topic);
        }
        self.subscribed.as_ref().map_or_else(|| self.is_consumer(), |topics| topics.contains(topic))
    }

    /// Whether there are, or may be, members.
    pub(super) fn has_members(&self) -> bool {
        if let Some(share) = self.share() {
            return share.has_members();
        }
        match self.consumer() {
            Some(consumer) => !consumer.members().is_empty(),
            None => self.state != GroupState::Empty,
        }
    }

    /// Whether it is a classic group of consumers.
    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// The members as the leader is told about them.
    pub(super) fn member_list(&self) -> Vec<JoinGroupResponseMember> {
        let name = self.protocol_name.as_deref();
        let entry = |(id, member): (&MemberId, &Member)| JoinGroupResponseMember {
            member_id: (**id).to_owned(),
            group_instance_id: member.instance_id.clone(),
            metadata: member.metadata(name),
        };
        self.members.iter().map(entry).collect()
    }

    /// The group as a record, with the assignment of each member.
    pub(super) fn to_value(
        &self,
        assignment: impl Fn(&MemberId, &Member) -> bytes::Bytes,
    ) -> GroupMetadataValue {
        let name = self.protocol_name.as_deref();
        let entry = |(id, member): (&MemberId, &Member)| MemberMetadata {
            member_id: (**id).to_owned(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.registration.client.client_id.clone(),
            client_host: member.registration.client.host.clone(),
            rebalance_timeout: member.registration.rebalance_timeout_ms,
            session_timeout: member.registration.session_timeout_ms,
            subscription: member.metadata(name),
            assignment: assignment(id, member),
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            current_state_timestamp: self.state_since_ms.unwrap_or(-1),
            members: self.members.iter().map(entry).collect(),
        }
    }

    /// Whether nothing would be lost if the group were forgotten.
    pub(super) fn is_nothing(&self) -> bool {
        self.state == GroupState::Empty
            && self.consumer().is_none()
            && self.share().is_none()
            && !self.persisted
            && self.store.is_idle()
            && self.members.is_empty()
            && self.pending.is_empty()
            && self.offsets.is_empty()
            && self.appends == 0
    }
}
