//! ShareGroupHeartbeat and ShareGroupDescribe.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_types::{TopicId, limits};
use towpath_wire::share_group_describe::{Assignment as DescribedAssignment, DescribedGroup, Member};
use towpath_wire::share_group_heartbeat::{Assignment, TopicPartitions};
use towpath_wire::{ErrorCode, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::{SIMPLE_ASSIGNOR, ShareGroup, ShareMember};
use crate::machine::consumer::{Partitions, Refusal};
use crate::machine::group::{GroupState, Kind};
use crate::machine::member::MemberId;
use crate::machine::timers::TimerKind;
use crate::machine::turn::Turn;
use crate::machine::{ClientContext, Command, GroupMachine, Now, Reply, Waiter};
use crate::topics::Topics;

/// The epoch in which a member leaves.
const EPOCH_LEAVE: i32 = -1;
/// The epoch in which a member joins.
const EPOCH_JOIN: i32 = 0;

/// The answer to a heartbeat that is refused.
pub(crate) fn share_heartbeat_error(
    error: ErrorCode,
    message: Option<String>,
) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: message,
        ..ShareGroupHeartbeatResponse::default()
    }
}

pub(super) fn not_a_share_group(group: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group} is not a share group."))
}

/// Checks a request by itself.
fn validate(request: &ShareGroupHeartbeatRequest) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    if request.member_id.trim().is_empty() {
        return invalid("MemberId can't be empty.");
    }
    if request.group_id.trim().is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(|rack| rack.trim().is_empty()) {
        return invalid("RackId can't be empty.");
    }
    // R10: what becomes the key of a record has a bound.
    if request.group_id.len() > limits::GROUP_ID_BYTES_MAX
        || request.member_id.len() > limits::MEMBER_ID_BYTES_MAX
    {
        return invalid("GroupId or MemberId is too long.");
    }
    let subscribes = request.subscribed_topic_names.as_ref().is_some_and(|names| !names.is_empty());
    if request.member_epoch == EPOCH_JOIN && !subscribes {
        return invalid("SubscribedTopicNames must be set in first request.");
    }
    if request.member_epoch < EPOCH_LEAVE {
        return invalid("MemberEpoch is invalid.");
    }
    Ok(())
}

/// What decisions are made with.
struct Context<'a> {
    topics: &'a dyn Topics,
    now: Now,
    members_max: usize,
    /// Bytes that the group may still take.
    room: usize,
    client: &'a ClientContext,
}

impl GroupMachine {
    /// Takes a ShareGroupHeartbeat. The answer comes when what it says is in the log.
    pub fn share_group_heartbeat(
        &mut self,
        now: Now,
        waiter: Waiter,
        client: &ClientContext,
        request: ShareGroupHeartbeatRequest,
        out: &mut Vec<Command>,
    ) {
        if let Err(refusal) = self.admit_to_share_group(now, &request) {
            let response = share_heartbeat_error(refusal.error, Some(refusal.message));
            out.push(Command::Respond { waiter, reply: Reply::ShareHeartbeat(response) });
            return;
        }
        let group = request.group_id.clone();
        self.turn(&group, now, out, |turn| turn.share_heartbeat(waiter, client, request));
    }

    fn admit_to_share_group(
        &mut self,
        now: Now,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<(), Refusal> {
        validate(request)?;
        if self.groups.contains_key(request.group_id.as_str()) {
            return Ok(());
        }
        if request.member_epoch != EPOCH_JOIN {
            let message = format!("Share group {} not found.", request.group_id);
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        }
        if !self.ensure_group(&request.group_id, now) {
            let message = "The coordinator has no room for another group.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Describes a share group.
    #[must_use]
    pub fn describe_share_group(&self, id: &str) -> DescribedGroup {
        let known = self.groups.get(id).filter(|group| group.state != GroupState::Dead);
        match known.map(|group| group.share()) {
            Some(Some(share)) => share.describe(id, &*self.shared.topics),
            Some(None) => not_described(id, format!("Group {id} is not a share group.")),
            None => not_described(id, format!("Group {id} not found.")),
        }
    }
}

fn not_described(id: &str, message: String) -> DescribedGroup {
    DescribedGroup {
        group_id: id.to_owned(),
        error_code: ErrorCode::GroupIdNotFound.code(),
        error_message: Some(message),
        ..DescribedGroup::default()
    }
}

impl Turn<'_> {
    fn share_heartbeat(
        &mut self,
        waiter: Waiter,
        client: &ClientContext,
        request: ShareGroupHeartbeatRequest,
    ) {
        let result = match request.member_epoch {
            EPOCH_LEAVE => self.share_leave(&request.member_id),
            _ => self.share_beat(client, request),
        };
        match result {
            Ok(response) => self.store(Some((waiter, Reply::ShareHeartbeat(response)))),
            Err(refusal) => {
                if self.group.share().is_some_and(|share| share.epoch == 0 && share.members.is_empty()) {
                    // It was made for this one.
                    self.group.kind = Kind::Classic;
                }
                let response = share_heartbeat_error(refusal.error, Some(refusal.message));
                self.respond(waiter, Reply::ShareHeartbeat(response));
            }
        }
    }

    /// Makes a group that is but a name a share group.
    fn ensure_share_group(&mut self, epoch: i32) -> Result<(), Refusal> {
        if self.group.state == GroupState::Dead {
            let message = "The group is being deleted.";
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
        if self.group.share().is_some_and(|share| share.is_held(self.now)) {
            let message = "What the group has done with is being deleted.";
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
        if self.group.share().is_some() {
            return Ok(());
        }
        if epoch == EPOCH_JOIN && self.group.is_nothing() {
            self.group.kind = Kind::Share(Box::default());
            return Ok(());
        }
        Err(not_a_share_group(&self.group.id))
    }

    fn share_beat(
        &mut self,
        client: &ClientContext,
        request: ShareGroupHeartbeatRequest,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        self.ensure_share_group(request.member_epoch)?;
        let topics = Arc::clone(&self.shared.topics);
        let config = &self.shared.config;
        let used = self.group.size_in_bytes();
        let context = Context {
            topics: &*topics,
            now: self.now,
            members_max: config.share_members_max,
            room: config.group_bytes_max.saturating_sub(used).min(self.shared.room()),
            client,
        };
        let interval_ms =
            topics.share_heartbeat_interval_ms(&self.group.id).unwrap_or(config.share_heartbeat_interval_ms);
        let id: MemberId = Arc::from(request.member_id.as_str());
        let Some(share) = self.group.share_mut() else { return Err(not_a_share_group(&self.group.id)) };
        let mut response = share.beat(&id, request, &context)?;
        response.heartbeat_interval_ms = interval_ms;
        let session_ms = self.shared.share_session_timeout_ms(&self.group.id);
        self.set_timer(TimerKind::Session(id), session_ms);
        Ok(response)
    }

    fn share_leave(&mut self, member: &str) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let id: MemberId = Arc::from(member);
        let Some(share) = self.group.share() else { return Err(not_a_share_group(&self.group.id)) };
        if !share.members.contains_key(&id) {
            return Err(unknown_member(member));
        }
        tracing::info!(group = %self.group.id, member, "a member leaves a share group");
        self.remove_share_member(&id);
        Ok(ShareGroupHeartbeatResponse {
            member_id: Some(member.to_owned()),
            member_epoch: EPOCH_LEAVE,
            ..ShareGroupHeartbeatResponse::default()
        })
    }

    fn remove_share_member(&mut self, id: &MemberId) {
        self.cancel_timer(TimerKind::Session(Arc::clone(id)));
        let topics = Arc::clone(&self.shared.topics);
        let now_ms = self.now.wall_ms;
        if let Some(share) = self.group.share_mut()
            && share.remove_member(id)
        {
            share.refresh_metadata(true, &*topics);
            // Those who stay cover what the one who has gone had.
            share.update_targets(&*topics, now_ms);
        }
    }

    /// A member has not been heard of for too long.
    pub(in crate::machine) fn on_share_session_timeout(&mut self, id: &MemberId) {
        if self.group.share().is_some_and(|share| share.members.contains_key(id)) {
            tracing::info!(group = %self.group.id, member = %id, "the session of a member of a share group has expired");
            self.remove_share_member(id);
            self.store(None);
        }
    }

    /// The sessions of a loaded group begin now.
    pub(in crate::machine) fn mind_loaded_share(&mut self) {
        let Some(share) = self.group.share() else { return };
        let session_ms = self.shared.share_session_timeout_ms(&self.group.id);
        let ids: Vec<MemberId> = share.members().cloned().collect();
        for id in ids {
            self.set_timer(TimerKind::Session(id), session_ms);
        }
    }
}

fn unknown_member(id: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownMemberId, format!("Member {id} is not a member of the group."))
}

/// R6: who comes with another epoch than the member has is fenced, but for the one before: the answer with the newer one
/// may have been lost.
fn check_epoch(member: &ShareMember, epoch: i32) -> Result<(), Refusal> {
    if epoch == EPOCH_JOIN || epoch == member.epoch || epoch == member.previous_epoch {
        return Ok(());
    }
    let message = format!(
        "The share group member has a {} member epoch ({epoch}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        if epoch > member.epoch { "greater" } else { "smaller" },
        member.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

impl ShareGroup {
    /// Takes a heartbeat; nothing has changed when it is refused.
    fn beat(
        &mut self,
        id: &MemberId,
        request: ShareGroupHeartbeatRequest,
        context: &Context<'_>,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let is_full = request.member_epoch == EPOCH_JOIN || request.subscribed_topic_names.is_some();
        let known = self.members.get(id);
        let found = match known {
            Some(member) => {
                check_epoch(member, request.member_epoch)?;
                member.clone()
            }
            None if request.member_epoch != EPOCH_JOIN => return Err(unknown_member(id)),
            None if self.members.len() >= context.members_max => {
                let max = context.members_max;
                let message = format!("The share group has reached its maximum capacity of {max} members.");
                return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
            }
            None => ShareMember { previous_epoch: -1, ..ShareMember::default() },
        };
        let is_new = known.is_none();
        let mut member = found.clone();
        member.rack_id = request.rack_id.or(member.rack_id);
        member.client = context.client.clone();
        if let Some(names) = request.subscribed_topic_names {
            member.topics = names.into_iter().collect();
        }
        self.check_room(&found, &member, is_new, context)?;
        let raise = self.epoch == 0 || is_new || member.topics != found.topics;
        if is_new {
            tracing::debug!(member = %id, "a member joins a share group");
        }
        if is_new || member != found {
            self.put_member(id, member);
        }
        if self.refresh_metadata(raise, context.topics) || self.target_epoch < self.epoch {
            self.update_targets(context.topics, context.now.wall_ms);
        }
        let has_moved = self.go_to_target(id);
        Ok(self.response(id, is_full || has_moved))
    }

    /// R10: what a member says takes room.
    fn check_room(
        &self,
        old: &ShareMember,
        new: &ShareMember,
        is_new: bool,
        context: &Context<'_>,
    ) -> Result<(), Refusal> {
        let bytes = new.metadata_bytes();
        let added = if is_new { bytes } else { bytes.saturating_sub(old.metadata_bytes()) };
        if added > 0 && (bytes > limits::GROUP_MEMBER_BYTES_MAX || added > context.room) {
            let message = "What the member subscribes to takes more room than the coordinator has.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Gives a member what the target gives it: nobody has to give up anything first. True when it has other partitions
    /// then.
    fn go_to_target(&mut self, id: &MemberId) -> bool {
        let Some(member) = self.members.get(id).filter(|member| member.epoch != self.target_epoch) else {
            return false;
        };
        let target = self.targets.get(id).cloned().unwrap_or_default();
        let has_moved = member.assigned != target;
        let next = ShareMember {
            epoch: self.target_epoch,
            previous_epoch: member.epoch,
            assigned: target,
            ..member.clone()
        };
        self.put_member(id, next);
        has_moved
    }

    fn response(&self, id: &MemberId, tells_assignment: bool) -> ShareGroupHeartbeatResponse {
        let member = self.members.get(id);
        let assignment = member
            .filter(|_| tells_assignment)
            .map(|member| Assignment { topic_partitions: to_wire(&member.assigned) });
        ShareGroupHeartbeatResponse {
            member_id: Some((**id).to_owned()),
            member_epoch: member.map_or(0, |member| member.epoch),
            assignment,
            ..ShareGroupHeartbeatResponse::default()
        }
    }

    fn describe(&self, id: &str, topics: &dyn Topics) -> DescribedGroup {
        DescribedGroup {
            group_id: id.to_owned(),
            group_state: self.state().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor_name: SIMPLE_ASSIGNOR.to_owned(),
            members: self.members.iter().map(|(id, member)| describe_member(id, member, topics)).collect(),
            ..DescribedGroup::default()
        }
    }
}

fn describe_member(id: &MemberId, member: &ShareMember, topics: &dyn Topics) -> Member {
    // Topics that are gone have no name and are left out.
    let topic = |(id, partitions): (&TopicId, &BTreeSet<i32>)| {
        let topic = topics.by_id(*id)?;
        Some(towpath_wire::share_group_describe::TopicPartitions {
            topic_id: id.get(),
            topic_name: (*topic.name).to_owned(),
            partitions: partitions.iter().copied().collect(),
        })
    };
    Member {
        member_id: (**id).to_owned(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client.client_id.clone(),
        client_host: member.client.host.clone(),
        subscribed_topic_names: member.topics.iter().cloned().collect(),
        assignment: DescribedAssignment {
            topic_partitions: member.assigned.iter().filter_map(topic).collect(),
        },
    }
}

fn to_wire(partitions: &Partitions) -> Vec<TopicPartitions> {
    let topic = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| TopicPartitions {
        topic_id: topic.get(),
        partitions: partitions.iter().copied().collect(),
    };
    partitions.iter().map(topic).collect()
}
