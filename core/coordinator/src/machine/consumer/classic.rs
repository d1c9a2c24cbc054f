//! Members of a consumer group that use the classic protocol: JoinGroup tells what they are, SyncGroup what they have, and
//! a heartbeat when to join again.

use std::sync::Arc;

use towpath_wire::join_group::JoinGroupResponseMember;
use towpath_wire::leave_group::MemberIdentity;
use towpath_wire::{
    ErrorCode, HeartbeatRequest, JoinGroupResponse, LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use super::heartbeat::Found;
use super::member::{ClassicMetadata, ConsumerMember, MemberState, Partitions, without_epochs};
use super::migrate::{assignment_bytes, by_id, subscription};
use super::{ConsumerGroup, Context};
use crate::machine::group::CONSUMER;
use crate::machine::join::Joining;
use crate::machine::leave::outcome;
use crate::machine::member::MemberId;
use crate::machine::timers::TimerKind;
use crate::machine::turn::{Turn, join_error, sync_error};
use crate::machine::{Reply, Waiter};

/// What a JoinGroup made of a member.
struct Joined {
    replaced: Option<MemberId>,
    /// The group has nobody left who uses the consumer protocol.
    downgrades: bool,
    subscription_changed: bool,
    to_resolve: Vec<String>,
}

impl Turn<'_> {
    /// Takes a JoinGroup to a consumer group that has members.
    pub(in crate::machine) fn join_consumer(&mut self, joining: Joining) {
        let (waiter, given_id) = (joining.waiter, joining.member_id.clone());
        if let Err(error) = self.try_join_consumer(joining) {
            let response = join_error(&given_id, error);
            self.respond_join(waiter, response);
        }
    }

    fn try_join_consumer(&mut self, mut joining: Joining) -> Result<(), ErrorCode> {
        let is_unknown = joining.member_id.is_empty();
        if is_unknown {
            joining.member_id = joining.new_id((self.shared.ids)());
        }
        let id: MemberId = Arc::from(joining.member_id.as_str());
        let context = Context {
            group: &Arc::clone(&self.group.id),
            config: &self.shared.config,
            topics: &*Arc::clone(&self.shared.topics),
            now: self.now,
            room: self.shared.room(),
        };
        let Some(consumer) = self.group.consumer_mut() else {
            return Err(ErrorCode::CoordinatorNotAvailable);
        };
        consumer.check_size(&id, &context).map_err(|refusal| refusal.error)?;
        if !consumer.supports_classic(&joining) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        if is_unknown && joining.needs_known_id() {
            let response = join_error(&id, ErrorCode::MemberIdRequired);
            self.respond_join(joining.waiter, response);
            return Ok(());
        }
        let (waiter, session_ms, rebalance_ms) = (
            joining.waiter,
            joining.registration.session_timeout_ms,
            joining.registration.rebalance_timeout_ms,
        );
        let joined = consumer.join_classic(&id, joining, is_unknown, &context)?;
        let response = consumer.joined_response(&id);
        if let Some(replaced) = &joined.replaced {
            self.cancel_member_timers(replaced);
        }
        self.cancel_member_timers(&id);
        if joined.downgrades {
            self.become_classic(&[], joined.subscription_changed);
        } else {
            self.set_timer(TimerKind::Session(Arc::clone(&id)), session_ms);
            self.set_timer(TimerKind::MemberSync(id), rebalance_ms);
        }
        self.ask_to_resolve(joined.to_resolve);
        self.store(Some((waiter, Reply::Join(response))));
        Ok(())
    }

    /// Takes a SyncGroup of a member of a consumer group.
    pub(in crate::machine) fn sync_consumer(&mut self, waiter: Waiter, request: &SyncGroupRequest) {
        match self.try_sync_consumer(request) {
            Ok(response) => self.store(Some((waiter, Reply::Sync(response)))),
            Err(error) => self.respond(waiter, Reply::Sync(sync_error(error))),
        }
    }

    fn try_sync_consumer(&mut self, request: &SyncGroupRequest) -> Result<SyncGroupResponse, ErrorCode> {
        let Some(consumer) = self.group.consumer() else { return Err(ErrorCode::UnknownMemberId) };
        let instance = request.group_instance_id.as_deref();
        let (id, member, classic) = consumer.classic_member(&request.member_id, instance)?;
        if request.generation_id != member.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let protocol = classic.protocols.first().map(|protocol| protocol.name.as_str());
        let differs = |asked: &Option<String>, actual: Option<&str>| {
            asked.as_deref().is_some_and(|asked| Some(asked) != actual)
        };
        if differs(&request.protocol_type, Some(CONSUMER)) || differs(&request.protocol_name, protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let (session_ms, rebalance_ms) = (classic.session_timeout_ms, member.rebalance_timeout_ms);
        // Who is giving up partitions has joined already, and will be asked again when that is done.
        if consumer.epoch() > member.epoch && member.state != MemberState::UnrevokedPartitions {
            self.set_timer_if_absent(TimerKind::MemberJoin(id), rebalance_ms);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let metadata =
            classic.protocols.first().map(|protocol| protocol.metadata.clone()).unwrap_or_default();
        let version = subscription(&metadata).map_or(0, |(version, _)| version);
        let assigned = without_epochs(&member.assigned);
        let response = SyncGroupResponse {
            error_code: ErrorCode::None.code(),
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: assignment_bytes(&assigned, version, &*self.shared.topics),
            ..SyncGroupResponse::default()
        };
        self.cancel_timer(TimerKind::MemberSync(Arc::clone(&id)));
        self.set_timer(TimerKind::Session(id), session_ms);
        Ok(response)
    }

    /// Takes a Heartbeat of a member of a consumer group.
    pub(in crate::machine) fn heartbeat_consumer(&mut self, request: &HeartbeatRequest) -> ErrorCode {
        let Some(consumer) = self.group.consumer() else { return ErrorCode::UnknownMemberId };
        let found = consumer.classic_member(&request.member_id, request.group_instance_id.as_deref());
        let (id, member, classic) = match found {
            Ok(found) => found,
            Err(error) => return error,
        };
        if request.generation_id != member.epoch {
            return ErrorCode::IllegalGeneration;
        }
        let (session_ms, rebalance_ms) = (classic.session_timeout_ms, member.rebalance_timeout_ms);
        let must_rejoin = member.epoch < consumer.epoch()
            || member.state == MemberState::UnrevokedPartitions
            || member.state == MemberState::UnreleasedPartitions && !consumer.waits_for_others(&id, member);
        self.set_timer(TimerKind::Session(Arc::clone(&id)), session_ms);
        if !must_rejoin {
            return ErrorCode::None;
        }
        self.set_timer_if_absent(TimerKind::MemberJoin(id), rebalance_ms);
        ErrorCode::RebalanceInProgress
    }

    /// Takes a LeaveGroup of members of a consumer group that use the classic protocol.
    pub(in crate::machine) fn leave_consumer(&mut self, members: &[MemberIdentity]) -> LeaveGroupResponse {
        let mut response = LeaveGroupResponse::default();
        let mut leaving: Vec<MemberId> = Vec::new();
        for member in members {
            let Some(consumer) = self.group.consumer() else { break };
            let by_administrator = member.member_id.is_empty();
            let instance = member.group_instance_id.as_deref();
            let owner =
                instance.and_then(|instance| consumer.instance(instance)).map(|owner| (**owner).to_owned());
            let id = owner.filter(|_| by_administrator).unwrap_or_else(|| member.member_id.clone());
            let found = consumer.classic_member(&id, instance).map(|(id, _, _)| id);
            let error = match found {
                Ok(id) if leaving.contains(&id) => ErrorCode::UnknownMemberId,
                Ok(id) => {
                    tracing::info!(
                        group = %self.group.id, member = %id, reason = member.reason.as_deref(), "a member leaves"
                    );
                    leaving.push(id);
                    ErrorCode::None
                }
                Err(error) => error,
            };
            response.members.push(outcome(member, error));
        }
        if !leaving.is_empty() {
            self.fence_members(&leaving);
            self.store(None);
        }
        response
    }
}

impl ConsumerGroup {
    /// Whether somebody who joins with the classic protocol has a protocol in common with the others who do.
    fn supports_classic(&self, joining: &Joining) -> bool {
        let classic = || self.members.values().filter_map(|member| member.classic.as_ref());
        joining.protocol_type == CONSUMER
            && joining.registration.protocols.iter().any(|protocol| {
                classic().all(|other| other.protocols.iter().any(|known| known.name == protocol.name))
            })
    }

    /// A member that uses the classic protocol, and is the newest with its instance id.
    fn classic_member(
        &self,
        id: &str,
        instance: Option<&str>,
    ) -> Result<(MemberId, &ConsumerMember, &ClassicMetadata), ErrorCode> {
        if let Some(instance) = instance {
            let owner = self.instance(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if **owner != *id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        let (id, member) = self.members.get_key_value(id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        Ok((Arc::clone(id), member, classic))
    }

    fn join_classic(
        &mut self,
        id: &MemberId,
        joining: Joining,
        is_unknown: bool,
        context: &Context<'_>,
    ) -> Result<Joined, ErrorCode> {
        let found = match &joining.instance_id {
            Some(instance) => self
                .find_static(id, instance, is_unknown, true, &|_| Ok(()))
                .map_err(|refusal| refusal.error)?,
            None => match self.members.get(id) {
                Some(member) => Found { member: member.clone(), is_new: false, replaces: None },
                None => Found { member: ConsumerMember::default(), is_new: true, replaces: None },
            },
        };
        let owner = joining.instance_id.as_ref().and_then(|instance| self.instance(instance)).cloned();
        let downgrades = owner.is_some_and(|owner| self.downgrades_with(&owner, context));
        let protocols = joining.registration.protocols;
        let Some(first) = protocols.first() else { return Err(ErrorCode::InconsistentGroupProtocol) };
        let (_, says) = subscription(&first.metadata).map_err(|_| ErrorCode::InconsistentGroupProtocol)?;
        let mut member = found.member.clone();
        member.instance_id = joining.instance_id.or(member.instance_id);
        member.rack_id = says.rack_id.or(member.rack_id);
        member.rebalance_timeout_ms = joining.registration.rebalance_timeout_ms;
        member.topics = says.topics.into_iter().collect();
        member.regex = None;
        member.client = joining.registration.client;
        let session_timeout_ms = joining.registration.session_timeout_ms;
        member.classic = Some(ClassicMetadata { session_timeout_ms, protocols });
        let old = (!found.is_new).then_some(&found.member);
        self.check_room(old, &member, context).map_err(|refusal| refusal.error)?;
        let owned: Partitions = by_id(&says.owned_partitions, context.topics);
        let subscription_changed =
            member.topics != found.member.topics || member.regex() != found.member.regex();
        let replaced = found.replaces.clone();
        self.admit_member(id, &found, member);
        self.refresh_metadata(subscription_changed, context);
        let to_resolve = self.regexes_to_resolve(false, context);
        if !downgrades && self.epoch > self.target_epoch {
            self.update_targets(context);
        }
        if !downgrades || !subscription_changed {
            self.reconcile(id, Some(&owned), subscription_changed, context)
                .map_err(|refusal| refusal.error)?;
        }
        Ok(Joined { replaced, downgrades, subscription_changed, to_resolve })
    }

    /// Whether the group may become a classic one when the member with an instance id now uses the classic protocol.
    fn downgrades_with(&self, owner: &MemberId, context: &Context<'_>) -> bool {
        let others_are_classic = self.members.iter().all(|(id, member)| member.is_classic() != (id == owner));
        others_are_classic
            && context.config.consumer_migration_policy.allows_downgrade()
            && self.members.len() <= context.config.members_max
    }

    fn joined_response(&self, id: &MemberId) -> JoinGroupResponse {
        let member = self.members.get(id);
        let classic = member.and_then(|member| member.classic.as_ref());
        let protocol = classic.and_then(|classic| classic.protocols.first());
        JoinGroupResponse {
            error_code: ErrorCode::None.code(),
            generation_id: member.map_or(-1, |member| member.epoch),
            protocol_type: Some(CONSUMER.to_owned()),
            protocol_name: protocol.map(|protocol| protocol.name.clone()),
            member_id: (**id).to_owned(),
            // Nobody leads: the coordinator assigns.
            members: Vec::<JoinGroupResponseMember>::new(),
            ..JoinGroupResponse::default()
        }
    }
}
