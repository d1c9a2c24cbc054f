//! ConsumerGroupHeartbeat.

use std::collections::BTreeSet;
use std::sync::Arc;

use towpath_types::{TopicId, limits};
use towpath_wire::consumer_group_heartbeat::{Assignment, TopicPartitions};
use towpath_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ErrorCode};

use super::member::{
    ConsumerMember, EPOCH_AWAY, EPOCH_JOIN, EPOCH_LEAVE, MemberState, Owned, Partitions, without_epochs,
};
use super::{ASSIGNORS, ConsumerGroup, Context, Refusal, reconcile};
use crate::machine::member::MemberId;
use crate::machine::timers::TimerKind;
use crate::machine::turn::Turn;
use crate::machine::{ClientContext, Command, GroupMachine, Now, Reply, Waiter};

/// From here on members choose their ids themselves (KIP-1082).
const VERSION_MEMBER_CHOOSES_ID: i16 = 1;

/// The answer to a heartbeat that is refused.
pub(crate) fn heartbeat_error(error: ErrorCode, message: Option<String>) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: message,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}

/// A heartbeat as the group sees it.
pub(super) struct Beat {
    pub(super) member_id: MemberId,
    pub(super) epoch: i32,
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client: ClientContext,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) topics: Option<BTreeSet<String>>,
    pub(super) regex: Option<String>,
    pub(super) assignor: Option<String>,
    pub(super) owned: Option<Partitions>,
}

/// What follows from a heartbeat or a join.
pub(super) struct Beaten {
    /// Partitions are to be given up, and a rebalance timeout runs for it from now on.
    pub(super) revokes_anew: bool,
    /// The member that had the instance id before.
    pub(super) replaced: Option<MemberId>,
    /// What the member may use, when it has to be told.
    pub(super) assignment: Option<Partitions>,
    /// Regular expressions that have to be resolved.
    pub(super) to_resolve: Vec<String>,
}

impl GroupMachine {
    /// Takes a ConsumerGroupHeartbeat. The answer comes when what it says is in the log.
    pub fn consumer_group_heartbeat(
        &mut self,
        now: Now,
        waiter: Waiter,
        client: &ClientContext,
        request: ConsumerGroupHeartbeatRequest,
        version: i16,
        out: &mut Vec<Command>,
    ) {
        if let Err(refusal) = self.admit(now, &request, version) {
            let response = heartbeat_error(refusal.error, Some(refusal.message));
            out.push(Command::Respond { waiter, reply: Reply::ConsumerHeartbeat(response) });
            return;
        }
        let group = request.group_id.clone();
        self.turn(&group, now, out, |turn| turn.consumer_heartbeat(waiter, client, request));
    }

    /// What can be said without looking at the group; one is made for somebody who joins.
    fn admit(
        &mut self,
        now: Now,
        request: &ConsumerGroupHeartbeatRequest,
        version: i16,
    ) -> Result<(), Refusal> {
        validate(request, version)?;
        if self.groups.contains_key(request.group_id.as_str()) {
            return Ok(());
        }
        if request.member_epoch != EPOCH_JOIN {
            let message = format!("Group {} not found.", request.group_id);
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        }
        if !self.ensure_group(&request.group_id, now) {
            let message = "The coordinator has no room for another group.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }
}

/// Checks a request by itself.
fn validate(request: &ConsumerGroupHeartbeatRequest, version: i16) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let epoch = request.member_epoch;
    let is_given_id = version < VERSION_MEMBER_CHOOSES_ID && epoch == EPOCH_JOIN;
    if request.group_id.is_empty() {
        return invalid("GroupId can't be empty.");
    }
    if request.member_id.is_empty() && !is_given_id {
        return invalid("MemberId can't be empty.");
    }
    if request.instance_id.as_deref() == Some("") {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref() == Some("") {
        return invalid("RackId can't be empty.");
    }
    // R10: what becomes the key of a record has a bound.
    if request.group_id.len() > limits::GROUP_ID_BYTES_MAX
        || request.member_id.len() > limits::MEMBER_ID_BYTES_MAX
    {
        return invalid("GroupId or MemberId is too long.");
    }
    if epoch == EPOCH_JOIN {
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if !request.topic_partitions.as_ref().is_some_and(Vec::is_empty) {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    } else if epoch == EPOCH_AWAY && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if epoch < EPOCH_AWAY {
        return invalid(&format!("MemberEpoch is {epoch}, but must be greater than or equal to -2."));
    }
    if let Some(assignor) = &request.server_assignor
        && !ASSIGNORS.contains(&assignor.as_str())
    {
        let message = format!(
            "ServerAssignor {assignor} is not supported. Supported assignors: {}.",
            ASSIGNORS.join(", ")
        );
        return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

fn owned_of(request: &[TopicPartitions]) -> Partitions {
    let mut owned = Partitions::new();
    for topic in request {
        owned.entry(TopicId::new(topic.topic_id)).or_default().extend(&topic.partitions);
    }
    owned
}

/// A full request tells everything anew, as after an error: it is answered with the assignment.
fn is_full(request: &ConsumerGroupHeartbeatRequest) -> bool {
    request.member_epoch == EPOCH_JOIN
        || request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some() || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some()
}

impl Turn<'_> {
    fn consumer_heartbeat(
        &mut self,
        waiter: Waiter,
        client: &ClientContext,
        mut request: ConsumerGroupHeartbeatRequest,
    ) {
        if request.member_id.is_empty() {
            request.member_id = (self.shared.ids)().to_string();
        }
        let result = match request.member_epoch {
            EPOCH_LEAVE | EPOCH_AWAY => self.consumer_leave(&request),
            _ => self.consumer_beat(client, request),
        };
        match result {
            Ok(response) => self.store(Some((waiter, Reply::ConsumerHeartbeat(response)))),
            Err(refusal) => {
                let response = heartbeat_error(refusal.error, Some(refusal.message));
                self.respond(waiter, Reply::ConsumerHeartbeat(response));
            }
        }
    }

    fn consumer_beat(
        &mut self,
        client: &ClientContext,
        request: ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let full = is_full(&request);
        let id: MemberId = Arc::from(request.member_id.as_str());
        let beat = Beat {
            member_id: Arc::clone(&id),
            epoch: request.member_epoch,
            instance_id: request.instance_id,
            rack_id: request.rack_id,
            client: client.clone(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            topics: request.subscribed_topic_names.map(|names| names.into_iter().collect()),
            regex: request.subscribed_topic_regex,
            assignor: request.server_assignor,
            owned: request.topic_partitions.as_deref().map(owned_of),
        };
        // A group of the classic protocol becomes a consumer group only if the heartbeat is accepted.
        let mut converted = self.convert_for(beat.epoch)?;
        let context = Context {
            group: &Arc::clone(&self.group.id),
            config: &self.shared.config,
            topics: &*Arc::clone(&self.shared.topics),
            now: self.now,
            room: self.shared.room(),
        };
        let consumer = match (&mut converted, self.group.consumer_mut()) {
            (Some(converted), _) => converted,
            (None, Some(consumer)) => consumer,
            (None, None) => return Err(not_a_consumer_group(&self.group.id)),
        };
        let beaten = consumer.beat(beat, &context)?;
        let response = consumer.beat_response(&id, full, beaten.assignment.clone(), &context);
        if let Some(converted) = converted {
            self.become_consumer(converted);
        }
        if let Some(replaced) = &beaten.replaced {
            self.cancel_member_timers(replaced);
        }
        self.mind_consumer(&id, beaten.revokes_anew);
        self.ask_to_resolve(beaten.to_resolve);
        Ok(response)
    }

    /// Sets the deadlines of a member that uses the consumer protocol and was just heard of.
    fn mind_consumer(&mut self, id: &MemberId, revokes_anew: bool) {
        let session_ms = self.shared.session_timeout_ms(&self.group.id);
        self.set_timer(TimerKind::Session(Arc::clone(id)), session_ms);
        // It may have been a member with the classic protocol.
        self.cancel_timer(TimerKind::MemberJoin(Arc::clone(id)));
        self.cancel_timer(TimerKind::MemberSync(Arc::clone(id)));
        let member = self.group.consumer().and_then(|consumer| consumer.members().get(id));
        let Some(member) = member else { return };
        let (state, timeout_ms) = (member.state, member.rebalance_timeout_ms);
        if state != MemberState::UnrevokedPartitions {
            self.cancel_timer(TimerKind::Rebalance(Arc::clone(id)));
        } else if revokes_anew {
            self.set_timer(TimerKind::Rebalance(Arc::clone(id)), timeout_ms);
        }
    }
}

pub(super) fn not_a_consumer_group(group: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group} is not a consumer group."))
}

fn is_subset(owned: &Partitions, assigned: &Owned) -> bool {
    owned.iter().all(|(topic, partitions)| {
        partitions.is_empty()
            || assigned
                .get(topic)
                .is_some_and(|assigned| partitions.iter().all(|partition| assigned.contains_key(partition)))
    })
}

/// R6: who comes with another epoch than the member has is fenced. The epoch before is accepted of somebody who has
/// nothing but what it was given: the answer with the newer one may have been lost.
fn check_epoch(member: &ConsumerMember, epoch: i32, owned: Option<&Partitions>) -> Result<(), Refusal> {
    if epoch == EPOCH_JOIN || epoch == member.epoch {
        return Ok(());
    }
    let is_retry = epoch < member.epoch
        && epoch == member.previous_epoch
        && owned.is_some_and(|owned| is_subset(owned, &member.assigned));
    if is_retry {
        return Ok(());
    }
    let message = format!(
        "The consumer group member has a {} member epoch ({epoch}) than the one known by the group coordinator ({}). \
         The member must abandon all its partitions and rejoin.",
        if epoch > member.epoch { "greater" } else { "smaller" },
        member.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

/// A member that is about to change, and whom it replaces.
pub(super) struct Found {
    pub(super) member: ConsumerMember,
    pub(super) is_new: bool,
    pub(super) replaces: Option<MemberId>,
}

impl ConsumerGroup {
    /// The member that a heartbeat comes from; a new one for somebody who joins.
    fn find(&self, beat: &Beat) -> Result<Found, Refusal> {
        let joins = beat.epoch == EPOCH_JOIN;
        if let Some(instance) = &beat.instance_id {
            return self.find_static(&beat.member_id, instance, joins, false, &|member| {
                check_epoch(member, beat.epoch, beat.owned.as_ref())
            });
        }
        match self.members.get(&beat.member_id) {
            Some(member) => {
                check_epoch(member, beat.epoch, beat.owned.as_ref())?;
                Ok(Found { member: member.clone(), is_new: false, replaces: None })
            }
            None if joins => Ok(Found { member: ConsumerMember::default(), is_new: true, replaces: None }),
            None => Err(unknown_member(&beat.member_id)),
        }
    }

    /// The static member with an instance id. Somebody who joins takes the place of one that has left for a while, or
    /// that used the other protocol.
    pub(super) fn find_static(
        &self,
        id: &MemberId,
        instance: &str,
        joins: bool,
        is_classic: bool,
        check: &dyn Fn(&ConsumerMember) -> Result<(), Refusal>,
    ) -> Result<Found, Refusal> {
        let owner = self.instance(instance);
        let existing = owner.and_then(|owner| self.members.get_key_value(owner));
        let Some((owner, member)) = existing else {
            if joins {
                return Ok(Found { member: ConsumerMember::default(), is_new: true, replaces: None });
            }
            let message = format!("Instance id {instance} is unknown.");
            return Err(Refusal::new(ErrorCode::UnknownMemberId, message));
        };
        if owner == id {
            check(member)?;
            return Ok(Found { member: member.clone(), is_new: false, replaces: None });
        }
        if !joins {
            let message =
                format!("Static member {id} with instance id {instance} was fenced by member {owner}.");
            return Err(Refusal::new(ErrorCode::FencedInstanceId, message));
        }
        if !is_classic && !member.is_classic() && member.epoch != EPOCH_AWAY {
            let message = format!(
                "Static member {id} with instance id {instance} cannot join the group because the instance id is \
                 owned by {owner} member."
            );
            return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
        }
        let member = ConsumerMember { epoch: EPOCH_JOIN, previous_epoch: EPOCH_JOIN, ..member.clone() };
        Ok(Found { member, is_new: true, replaces: Some(Arc::clone(owner)) })
    }

    pub(super) fn check_size(&self, id: &MemberId, context: &Context<'_>) -> Result<(), Refusal> {
        let max = context.config.members_max;
        if self.members.len() >= max && !self.members.contains_key(id) {
            let message = format!("The consumer group has reached its maximum capacity of {max} members.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// R10: what a member says takes room.
    pub(super) fn check_room(
        &self,
        old: Option<&ConsumerMember>,
        new: &ConsumerMember,
        context: &Context<'_>,
    ) -> Result<(), Refusal> {
        let bytes = new.metadata_bytes();
        let added = bytes.saturating_sub(old.map_or(0, ConsumerMember::metadata_bytes));
        if added > 0
            && (bytes > limits::GROUP_MEMBER_BYTES_MAX
                || self.size_in_bytes() + added > context.config.group_bytes_max
                || added > context.room)
        {
            let message = "What the member subscribes to takes more room than the coordinator has.";
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        Ok(())
    }

    /// Takes a heartbeat; nothing has changed when it is refused.
    fn beat(&mut self, beat: Beat, context: &Context<'_>) -> Result<Beaten, Refusal> {
        self.check_size(&beat.member_id, context)?;
        let found = self.find(&beat)?;
        let mut member = found.member.clone();
        member.instance_id = beat.instance_id.or(member.instance_id);
        member.rack_id = beat.rack_id.or(member.rack_id);
        if beat.rebalance_timeout_ms != -1 {
            member.rebalance_timeout_ms = beat.rebalance_timeout_ms;
        }
        member.assignor = beat.assignor.or(member.assignor);
        if let Some(topics) = beat.topics {
            member.topics = topics;
        }
        member.regex = beat.regex.or(member.regex);
        member.client = beat.client;
        member.classic = None;
        let old = (!found.is_new).then_some(&found.member);
        self.check_room(old, &member, context)?;
        let regex = self.check_regex(&found.member, &member)?;
        let id = beat.member_id;
        if found.is_new {
            tracing::debug!(member = %id, instance = member.instance_id, "a member joins a consumer group");
        }
        let names_changed = member.topics != found.member.topics;
        let replaced = found.replaces.clone();
        // Most heartbeats say nothing new.
        if found.is_new || member != found.member {
            self.admit_member(&id, &found, member);
        }
        let raise = self.epoch == 0 || names_changed || regex.is_resolved;
        self.refresh_metadata(raise, context);
        let to_resolve = self.regexes_to_resolve(regex.is_new, context);
        if self.epoch > self.target_epoch {
            self.update_targets(context);
        }
        let subscription_changed = names_changed || regex.has_changed;
        let revokes_anew = self.reconcile(&id, beat.owned.as_ref(), subscription_changed, context)?;
        let changed = self.members.get(&id).filter(|member| member.assigned != found.member.assigned);
        let assignment = changed.and_then(|member| {
            let (now, before) = (without_epochs(&member.assigned), without_epochs(&found.member.assigned));
            (now != before).then_some(now)
        });
        Ok(Beaten { revokes_anew, replaced, assignment, to_resolve })
    }

    /// Puts a member in its place: new, changed, or instead of the one that had its instance id.
    pub(super) fn admit_member(&mut self, id: &MemberId, found: &Found, member: ConsumerMember) {
        if let Some(old) = &found.replaces {
            let target = self.targets.get(old).cloned();
            self.remove_member(old);
            if let Some(target) = target {
                self.put_target(id, target);
            }
        }
        let old_regex = found.member.regex().map(str::to_owned);
        self.put_member(id, member);
        if let Some(regex) = old_regex {
            self.forget_unused_regex(&regex);
        }
    }

    /// Takes a member a step towards the target. True when it has to give up partitions from now on.
    pub(super) fn reconcile(
        &mut self,
        id: &MemberId,
        owned: Option<&Partitions>,
        subscription_changed: bool,
        context: &Context<'_>,
    ) -> Result<bool, Refusal> {
        let Some(member) = self.members.get(id) else { return Ok(false) };
        if !subscription_changed && member.is_reconciled_to(self.target_epoch) {
            return Ok(false);
        }
        let subscribed = self.subscribed_topics(member, context.topics);
        let nothing = Partitions::new();
        let goal = reconcile::Goal {
            target_epoch: self.target_epoch,
            target: self.targets.get(id).unwrap_or(&nothing),
            subscribed: &subscribed,
            owned,
            subscription_changed,
            is_held: &|topic, partition| self.is_held_by_others(id, topic, partition),
        };
        let next = reconcile::next(member, &goal).map_err(|reconcile::Fenced| {
            let message = "The consumer group member is in a unknown state. \
                           The member must abandon all its partitions and rejoin.";
            Refusal::new(ErrorCode::FencedMemberEpoch, message)
        })?;
        let Some(next) = next.filter(|next| next != member) else { return Ok(false) };
        tracing::debug!(
            member = %id, epoch = next.epoch, state = ?next.state, "a member has a new assignment"
        );
        let revokes = next.state == MemberState::UnrevokedPartitions;
        self.put_member(id, next);
        Ok(revokes)
    }

    fn beat_response(
        &self,
        id: &MemberId,
        full: bool,
        changed: Option<Partitions>,
        context: &Context<'_>,
    ) -> ConsumerGroupHeartbeatResponse {
        let member = self.members.get(id);
        let all = member.filter(|_| full).map(|member| without_epochs(&member.assigned));
        ConsumerGroupHeartbeatResponse {
            member_id: Some((**id).to_owned()),
            member_epoch: member.map_or(0, |member| member.epoch),
            heartbeat_interval_ms: context
                .topics
                .heartbeat_interval_ms(context.group)
                .unwrap_or(context.config.consumer_heartbeat_interval_ms),
            assignment: all
                .or(changed)
                .map(|partitions| Assignment { topic_partitions: to_wire(partitions) }),
            ..ConsumerGroupHeartbeatResponse::default()
        }
    }
}

pub(super) fn unknown_member(id: &str) -> Refusal {
    Refusal::new(ErrorCode::UnknownMemberId, format!("Member {id} is not a member of the group."))
}

fn to_wire(partitions: Partitions) -> Vec<TopicPartitions> {
    let topic = |(topic, partitions): (TopicId, BTreeSet<i32>)| TopicPartitions {
        topic_id: topic.get(),
        partitions: partitions.into_iter().collect(),
    };
    partitions.into_iter().map(topic).collect()
}
