//! JoinGroup.

use std::sync::Arc;

use towpath_wire::{ErrorCode, JoinGroupRequest};

use super::append::{Effect, StaticRejoin};
use super::group::GroupState;
use super::member::{Member, MemberId, Registration};
use super::timers::TimerKind;
use super::turn::{Turn, join_error};
use super::{ClientContext, Command, GroupMachine, Now, Reply, Waiter};
use crate::record;

/// From here on a new dynamic member must join twice, the second time with its id (KIP-394): a client that gives up
/// waiting leaves no ghost behind.
const VERSION_KNOWN_MEMBER_ID: i16 = 4;
/// From here on a leader can be told to leave the assignment as it is (KIP-814).
const VERSION_SKIP_ASSIGNMENT: i16 = 9;
/// Bytes of the client id that become part of a member id, which must stay a valid Kafka string.
const MEMBER_ID_PREFIX_MAX: usize = 255;

/// A JoinGroup as the group sees it.
pub(super) struct Joining {
    pub(super) waiter: Waiter,
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) protocol_type: String,
    pub(super) registration: Registration,
    pub(super) version: i16,
}

impl Joining {
    /// An id for a new member.
    pub(super) fn new_id(&self, random: uuid::Uuid) -> String {
        let name = self.instance_id.as_deref().unwrap_or(&self.registration.client.client_id);
        format!("{}-{random}", prefix(name))
    }

    /// Whether a new member must first be given an id and join again with it (KIP-394).
    pub(super) const fn needs_known_id(&self) -> bool {
        self.instance_id.is_none() && self.version >= VERSION_KNOWN_MEMBER_ID
    }
}

fn prefix(text: &str) -> &str {
    let mut end = text.len().min(MEMBER_ID_PREFIX_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl GroupMachine {
    /// Takes a JoinGroup. The answer comes when the generation is formed, or at once with an error.
    pub fn join_group(
        &mut self,
        now: Now,
        waiter: Waiter,
        client: &ClientContext,
        request: JoinGroupRequest,
        version: i16,
        out: &mut Vec<Command>,
    ) {
        let config = &self.shared.config;
        let timeouts = config.session_timeout_ms_min..=config.session_timeout_ms_max;
        let error = if request.group_id.is_empty() {
            Some(ErrorCode::InvalidGroupId)
        } else if !timeouts.contains(&request.session_timeout_ms) {
            Some(ErrorCode::InvalidSessionTimeout)
        } else if !request.member_id.is_empty() && !self.groups.contains_key(request.group_id.as_str()) {
            // Only somebody new makes a group.
            Some(ErrorCode::UnknownMemberId)
        } else if !self.ensure_group(&request.group_id, now) {
            Some(ErrorCode::GroupMaxSizeReached)
        } else {
            None
        };
        if let Some(error) = error {
            let reply = Reply::Join(join_error(&request.member_id, error));
            out.push(Command::Respond { waiter, reply });
            return;
        }
        // Version 0 has no rebalance timeout: the session's counts.
        let rebalance_timeout_ms = match request.rebalance_timeout_ms {
            negative if negative < 0 => request.session_timeout_ms,
            timeout_ms => timeout_ms,
        };
        let registration = Registration {
            client: client.clone(),
            rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: Registration::protocols(request.protocols),
        };
        let joining = Joining {
            waiter,
            member_id: request.member_id,
            instance_id: request.group_instance_id,
            protocol_type: request.protocol_type,
            registration,
            version,
        };
        self.turn(&request.group_id, now, out, |turn| turn.join(joining));
    }
}

impl Turn<'_> {
    fn join(&mut self, joining: Joining) {
        if self.group.state == GroupState::Dead {
            let response = join_error(&joining.member_id, ErrorCode::CoordinatorNotAvailable);
            self.respond_join(joining.waiter, response);
        } else if self.group.share().is_some() {
            let response = join_error(&joining.member_id, ErrorCode::InconsistentGroupProtocol);
            self.respond_join(joining.waiter, response);
        } else if self.group.consumer().is_some_and(|consumer| !consumer.members().is_empty()) {
            self.join_consumer(joining);
        } else if self.group.consumer().is_some() {
            self.replace_empty_consumer();
            self.join(joining);
        } else if !self.has_bytes_for(&joining) {
            // What it has said before stays: nobody else's partitions are touched by what one member wants to say.
            self.respond_join(joining.waiter, join_error("", ErrorCode::GroupMaxSizeReached));
        } else if !self.has_place_for(&joining) {
            let id: MemberId = Arc::from(joining.member_id.as_str());
            self.remove_member(&id, ErrorCode::GroupMaxSizeReached);
            self.respond_join(joining.waiter, join_error("", ErrorCode::GroupMaxSizeReached));
            self.complete_join_if_all_here();
        } else if !self.group.supports(&joining.protocol_type, &joining.registration.protocols) {
            let response = join_error(&joining.member_id, ErrorCode::InconsistentGroupProtocol);
            self.respond_join(joining.waiter, response);
        } else if joining.member_id.is_empty() {
            self.join_new(joining);
        } else {
            self.join_known(joining);
        }
    }

    /// R10: whether there is room for what the member says.
    fn has_bytes_for(&self, joining: &Joining) -> bool {
        let config = &self.shared.config;
        let known = self.group.members.get(joining.member_id.as_str());
        let before = known.map_or(0, |member| member.registration.size_in_bytes());
        let added = joining.registration.size_in_bytes().saturating_sub(before);
        self.group.member_bytes() + added <= config.group_bytes_max
            && (added == 0 || added <= self.shared.room())
    }

    /// Whether the group may hold this member (R10): their number as in Kafka, where a rebalance counts those who
    /// have joined.
    fn has_place_for(&self, joining: &Joining) -> bool {
        let config = &self.shared.config;
        let id = joining.member_id.as_str();
        let known = self.group.members.get(id);
        let given_out = self.group.pending.len() - usize::from(self.group.pending.contains(id));
        match self.group.state {
            GroupState::Empty | GroupState::Dead => given_out < config.members_max,
            GroupState::PreparingRebalance => {
                // Those who have not rejoined may never: they do not take a place, but not without bound either
                // (absent static members outlive generations).
                let is_bounded =
                    known.is_some() || self.group.members.len() + given_out < 2 * config.members_max;
                known.is_some_and(|member| member.awaiting_join.is_some())
                    || is_bounded && self.group.joined() + given_out < config.members_max
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                known.is_some() || self.group.members.len() + given_out < config.members_max
            }
        }
    }

    fn join_new(&mut self, joining: Joining) {
        let id: MemberId = Arc::from(joining.new_id((self.shared.ids)()));
        if let Some(instance) = &joining.instance_id {
            match self.group.instances.get(instance).cloned() {
                Some(old) => self.replace_static(joining, &old, id),
                None => self.add_member(joining, id),
            }
        } else if joining.needs_known_id() {
            self.group.pending.insert(Arc::clone(&id));
            self.set_timer(TimerKind::Heartbeat(Arc::clone(&id)), joining.registration.session_timeout_ms);
            self.respond_join(joining.waiter, join_error(&id, ErrorCode::MemberIdRequired));
        } else {
            self.add_member(joining, id);
        }
    }

    fn add_member(&mut self, joining: Joining, id: MemberId) {
        tracing::info!(group = %self.group.id, member = %id, instance = joining.instance_id, "a member joins");
        let mut member = Member::new(joining.registration, joining.instance_id);
        member.awaiting_join = Some(joining.waiter);
        self.group.add(Arc::clone(&id), member, &joining.protocol_type);
        if let Some(initial) = &mut self.group.initial {
            initial.member_added = true;
        }
        // It has no generation to send heartbeats with: its JoinGroup itself must end some time, so that clients
        // that gave up and came again do not pile up.
        let timeout_ms = self.shared.config.new_member_join_timeout_ms;
        self.set_timer(TimerKind::Heartbeat(id), timeout_ms);
        self.rebalance_or_complete();
    }

    fn join_known(&mut self, joining: Joining) {
        let id: MemberId = Arc::from(joining.member_id.as_str());
        if self.group.pending.contains(&id) && joining.instance_id.is_none() {
            self.add_member(joining, id);
            return;
        }
        if let Err(error) = self.group.validate(&id, joining.instance_id.as_deref()) {
            self.respond_join(joining.waiter, join_error(&id, error));
            return;
        }
        let unchanged = self
            .group
            .members
            .get(&id)
            .is_some_and(|member| member.registration.protocols == joining.registration.protocols);
        let is_leader = self.group.is_leader(&id);
        match self.group.state {
            GroupState::PreparingRebalance => self.rejoin(joining, &id),
            // It did not get the answer to its JoinGroup: here it is again.
            GroupState::CompletingRebalance if unchanged => {
                let response = self.joined_response(&id, is_leader);
                self.respond_join(joining.waiter, response);
            }
            // A leader that rejoins wants to assign anew: it may have seen new partitions.
            GroupState::Stable if unchanged && !is_leader => {
                let response = self.joined_response(&id, false);
                self.respond_join(joining.waiter, response);
            }
            GroupState::CompletingRebalance | GroupState::Stable => self.rejoin(joining, &id),
            GroupState::Empty | GroupState::Dead => {
                self.respond_join(joining.waiter, join_error(&id, ErrorCode::UnknownMemberId));
            }
        }
    }

    fn rejoin(&mut self, joining: Joining, id: &MemberId) {
        self.group.update(id, joining.registration);
        self.set_join_waiter(id, joining.waiter);
        self.rebalance_or_complete();
    }

    /// Whoever waited for the same member before gave up (its connection broke): it is told to try again, so that
    /// every request has its answer.
    fn set_join_waiter(&mut self, id: &MemberId, waiter: Waiter) {
        if let Some(old) = self.group.await_join(id, Some(waiter)) {
            self.respond_join(old, join_error(id, ErrorCode::RebalanceInProgress));
        }
    }

    /// A static member is back without its member id: it takes the place of `old` (KIP-345), which is fenced (R6).
    fn replace_static(&mut self, joining: Joining, old: &MemberId, new: MemberId) {
        tracing::info!(group = %self.group.id, instance = joining.instance_id, %old, %new, "a static member is back");
        let old_leader = self.group.leader_text();
        let was_leader = self.group.is_leader(old);
        self.cancel_timer(TimerKind::Heartbeat(Arc::clone(old)));
        let awaits_sync = self.group.pending_sync.contains(old);
        let Some(mut member) = self.group.remove(old) else { return };
        super::turn::fail_waiters(old, &member, ErrorCode::FencedInstanceId, self.out);
        member.awaiting_join = None;
        member.awaiting_sync = None;
        member.is_new = false;
        member.registration.client = joining.registration.client.clone();
        let protocol_type = self.group.protocol_type.clone().unwrap_or(joining.protocol_type);
        self.group.add(Arc::clone(&new), member, &protocol_type);
        if was_leader {
            self.group.leader = Some(Arc::clone(&new));
        }
        if awaits_sync {
            self.group.pending_sync.insert(Arc::clone(&new));
        }
        self.group.update(&new, joining.registration);
        self.set_join_waiter(&new, joining.waiter);
        self.renew_session(&new);
        match self.group.state {
            GroupState::Stable if self.group.select_protocol() == self.group.protocol_name => {
                let rejoin = StaticRejoin {
                    member: new,
                    waiter: joining.waiter,
                    generation: self.group.generation,
                    can_skip_assignment: joining.version >= VERSION_SKIP_ASSIGNMENT,
                    old_leader,
                };
                self.store_static_rejoin(rejoin);
            }
            GroupState::Stable => self.rebalance_or_complete(),
            // The leader may already assign to the old id: begin again.
            GroupState::CompletingRebalance => self.prepare_rebalance(),
            _ => self.complete_join_if_all_here(),
        }
    }

    fn store_static_rejoin(&mut self, rejoin: StaticRejoin) {
        let value = self.group.to_value(|_, member| member.assignment.clone());
        match record::group_record(&self.group.id, Some(&value), self.now.wall_ms) {
            Ok(record) => {
                self.append(vec![record], Effect::StaticRejoin(rejoin));
            }
            Err(error) => {
                tracing::warn!(group = %self.group.id, %error, "a static member cannot be stored");
                self.finish_static_rejoin(&rejoin, Err(ErrorCode::UnknownServerError));
            }
        }
    }

    /// The new id of a static member is in the log: it goes on where the old one was.
    pub(super) fn finish_static_rejoin(&mut self, rejoin: &StaticRejoin, result: Result<(), ErrorCode>) {
        let awaiting = self.group.members.get(&rejoin.member).and_then(|member| member.awaiting_join);
        if awaiting != Some(rejoin.waiter) {
            return;
        }
        if let Err(error) = result {
            // The new id stays in place: whoever comes back with the instance id replaces it again.
            self.group.await_join(&rejoin.member, None);
            self.respond_join(rejoin.waiter, join_error("", error));
            self.renew_session(&rejoin.member);
            return;
        }
        if self.group.state != GroupState::Stable || self.group.generation != rejoin.generation {
            // A rebalance has begun meanwhile, and this member has joined it.
            return;
        }
        self.group.await_join(&rejoin.member, None);
        let is_leader = self.group.is_leader(&rejoin.member);
        let response = if rejoin.can_skip_assignment {
            let mut response = self.joined_response(&rejoin.member, is_leader);
            response.skip_assignment = is_leader;
            response
        } else {
            // A client that cannot be told to skip the assignment must not take itself for the leader.
            let mut response = self.joined_response(&rejoin.member, false);
            response.leader.clone_from(&rejoin.old_leader);
            response
        };
        self.respond_join(rejoin.waiter, response);
        self.renew_session(&rejoin.member);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_client_id_is_cut_between_characters() {
        assert_eq!(super::prefix("short"), "short");
        let long = "ä".repeat(200);
        assert_eq!(super::prefix(&long).len(), 254);
    }
}
