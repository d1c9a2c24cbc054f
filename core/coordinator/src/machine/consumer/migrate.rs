//! From the classic protocol to the consumer protocol and back, while members are at work (KIP-848).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use towpath_types::TopicId;
use towpath_wire::consumer_protocol::TopicPartition;
use towpath_wire::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, DecodeError, Decoder, ErrorCode, Message,
};

use super::heartbeat::not_a_consumer_group;
use super::member::{ClassicMetadata, ConsumerMember, EPOCH_JOIN, MemberState, Owned, Partitions};
use super::records::{Key, keys_of};
use super::{ConsumerGroup, Refusal};
use crate::config::GroupConfig;
use crate::machine::group::{CONSUMER, Group, GroupState, Kind};
use crate::machine::member::{Member, MemberId, Registration};
use crate::machine::timers::TimerKind;
use crate::machine::turn::{self, Turn};
use crate::topics::Topics;

/// The newest version of what members write into JoinGroup and SyncGroup.
const PROTOCOL_VERSION_MAX: i16 = 3;

fn decode<M: Message>(bytes: &Bytes) -> Result<(i16, M), DecodeError> {
    let mut decoder = Decoder::new(bytes.clone());
    // Later versions only append fields.
    let version = decoder.get_i16()?.clamp(0, PROTOCOL_VERSION_MAX);
    Ok((version, M::decode(&mut decoder, version)?))
}

/// What a member of a classic group says for a protocol of consumers, and the version in which it does.
pub(super) fn subscription(metadata: &Bytes) -> Result<(i16, ConsumerProtocolSubscription), DecodeError> {
    decode(metadata)
}

/// Partitions by the names of their topics, as partitions by id; unknown topics are left out.
pub(super) fn by_id(partitions: &[TopicPartition], topics: &dyn Topics) -> Partitions {
    let mut by_id = Partitions::new();
    for topic in partitions {
        if let Some(known) = topics.by_name(&topic.topic) {
            by_id.entry(known.id).or_default().extend(&topic.partitions);
        }
    }
    by_id
}

/// What a member that uses the classic protocol is assigned, as SyncGroup tells it.
pub(super) fn assignment_bytes(partitions: &Partitions, version: i16, topics: &dyn Topics) -> Bytes {
    let topic = |(id, partitions): (&TopicId, &BTreeSet<i32>)| {
        let topic = topics.by_id(*id)?;
        let partitions = partitions.iter().copied().collect();
        Some(TopicPartition { topic: (*topic.name).to_owned(), partitions })
    };
    let assigned_partitions = partitions.iter().filter_map(topic).collect();
    let message = ConsumerProtocolAssignment { assigned_partitions, user_data: None };
    let version = version.clamp(0, PROTOCOL_VERSION_MAX);
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    match message.encode(&mut bytes, version) {
        Ok(()) => bytes.freeze(),
        Err(error) => {
            // Topic names are short, and so are counts: this cannot be.
            tracing::error!(%error, "an assignment cannot be written");
            Bytes::new()
        }
    }
}

impl ConsumerGroup {
    /// A classic group as a consumer group: everybody has what it had.
    fn from_classic(group: &Group, topics: &dyn Topics) -> Result<Self, Refusal> {
        let malformed = |_: DecodeError| {
            let message = format!(
                "Cannot upgrade classic group {} to consumer group because the embedded consumer protocol is malformed.",
                group.id
            );
            Refusal::new(ErrorCode::GroupIdNotFound, message)
        };
        let mut consumer = Self::default();
        consumer.set_epoch(group.generation, 0);
        for (id, member) in &group.members {
            let (_, subscription) =
                subscription(&member.chosen_metadata(group.protocol_name.as_deref())).map_err(malformed)?;
            let mut assigned = Partitions::new();
            if !member.assignment.is_empty() {
                let (_, assignment): (_, ConsumerProtocolAssignment) =
                    decode(&member.assignment).map_err(malformed)?;
                if assignment.user_data.is_some_and(|data| !data.is_empty()) {
                    let message = format!(
                        "Cannot upgrade classic group {} to consumer group because an unsupported custom assignor is \
                         in use. Please refer to the documentation or switch to a default assignor before \
                         re-attempting the upgrade.",
                        group.id
                    );
                    return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
                }
                assigned = by_id(&assignment.assigned_partitions, topics);
            }
            consumer.put_member(id, classic_member(member, subscription, &assigned, group.generation));
            consumer.put_target(id, assigned);
        }
        // The hash stays unset: whoever joins, also without a subscription, begins a rebalance. The classic group may have been
        // in the middle of one, with nobody assigned.
        consumer.set_target_epoch(group.generation, 0);
        Ok(consumer)
    }

    /// Whether the group may become a classic one when these members go: the others use the classic protocol.
    pub(super) fn can_downgrade_without(&self, leaving: &[MemberId], config: &GroupConfig) -> bool {
        let stays = |id: &MemberId| !leaving.contains(id);
        let mut staying = self.members.iter().filter(|(id, _)| stays(id)).peekable();
        let mut left = self.members.iter().filter(|(id, _)| !stays(id));
        config.consumer_migration_policy.allows_downgrade()
            && staying.peek().is_some()
            && staying.all(|(_, member)| member.is_classic())
            && left.any(|(_, member)| !member.is_classic())
            && self.members.len() - leaving.len().min(self.members.len()) <= config.members_max
    }
}

fn classic_member(
    member: &Member,
    subscription: ConsumerProtocolSubscription,
    assigned: &Partitions,
    generation: i32,
) -> ConsumerMember {
    let with_epochs = |(topic, partitions): (&TopicId, &BTreeSet<i32>)| {
        let partitions: BTreeMap<i32, i32> =
            partitions.iter().map(|partition| (*partition, generation)).collect();
        (*topic, partitions)
    };
    ConsumerMember {
        instance_id: member.instance_id.clone(),
        rack_id: subscription.rack_id,
        client: member.registration.client.clone(),
        topics: subscription.topics.into_iter().collect(),
        regex: None,
        rebalance_timeout_ms: member.registration.rebalance_timeout_ms,
        assignor: None,
        classic: Some(ClassicMetadata {
            session_timeout_ms: member.registration.session_timeout_ms,
            protocols: member.registration.protocols.clone(),
        }),
        epoch: generation,
        previous_epoch: generation,
        state: MemberState::Stable,
        assigned: assigned.iter().map(with_epochs).collect(),
        revoking: Owned::new(),
    }
}

impl Turn<'_> {
    /// The consumer group that a group of another kind is to become for somebody who joins; `None` when it is one.
    pub(super) fn convert_for(&self, epoch: i32) -> Result<Option<ConsumerGroup>, Refusal> {
        match &self.group.kind {
            Kind::Consumer(_) if self.group.state == GroupState::Dead => Err(being_deleted()),
            Kind::Consumer(_) => Ok(None),
            Kind::Share(_) => Err(not_a_consumer_group(&self.group.id)),
            Kind::Classic if epoch != EPOCH_JOIN => Err(not_a_consumer_group(&self.group.id)),
            Kind::Classic => match self.group.state {
                GroupState::Dead => Err(being_deleted()),
                GroupState::Empty => Ok(Some(ConsumerGroup::default())),
                _ => self.upgraded().map(Some),
            },
        }
    }

    fn upgraded(&self) -> Result<ConsumerGroup, Refusal> {
        let refuse = |reason: &str| {
            let message =
                format!("Cannot upgrade classic group {} to consumer group because {reason}.", self.group.id);
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        };
        if !self.shared.config.consumer_migration_policy.allows_upgrade() {
            return refuse("online upgrade is disabled");
        }
        if !self.group.is_consumer() {
            return refuse("the group does not use the consumer embedded protocol");
        }
        if self.group.members.len() > self.shared.config.members_max {
            return refuse("the group size exceeds the consumer group maximum size");
        }
        ConsumerGroup::from_classic(self.group, &*self.shared.topics)
    }

    /// Makes the group a consumer group. Who waits for a rebalance of the classic one is told to join again.
    pub(super) fn become_consumer(&mut self, consumer: ConsumerGroup) {
        let members = std::mem::take(&mut self.group.members);
        if !members.is_empty() {
            tracing::info!(group = %self.group.id, members = members.len(), "a classic group becomes a consumer group");
        }
        for (id, member) in &members {
            turn::fail_waiters(id, member, ErrorCode::RebalanceInProgress, self.out);
            self.cancel_timer(TimerKind::Heartbeat(Arc::clone(id)));
            if consumer.members.contains_key(id) {
                let timeout_ms = member.registration.session_timeout_ms;
                self.set_timer(TimerKind::Session(Arc::clone(id)), timeout_ms);
            }
        }
        for id in std::mem::take(&mut self.group.pending) {
            self.cancel_timer(TimerKind::Heartbeat(id));
        }
        self.cancel_timer(TimerKind::Join);
        self.cancel_timer(TimerKind::Sync);
        if self.group.persisted {
            self.group.store.unwritten.insert(Key::Classic);
        }
        self.group.become_kind(Kind::Consumer(Box::new(consumer)));
    }

    /// Makes the group, without the members that leave, a classic one: everybody keeps its target. With `rebalance` they
    /// are asked to join again.
    pub(super) fn become_classic(&mut self, leaving: &[MemberId], rebalance: bool) {
        let Kind::Consumer(consumer) = self.group.become_kind(Kind::Classic) else { return };
        tracing::info!(
            group = %self.group.id, members = consumer.members.len(), "a consumer group becomes a classic group"
        );
        self.group.store.unwritten.extend(keys_of(&consumer));
        self.group.store.unwritten.insert(Key::Classic);
        self.group.generation = consumer.epoch;
        self.group.persisted = true;
        for (id, member) in &consumer.members {
            self.cancel_member_timers(id);
            if let Some(classic) = member.classic.as_ref().filter(|_| !leaving.contains(id)) {
                let registration = Registration {
                    client: member.client.clone(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: classic.session_timeout_ms,
                    protocols: classic.protocols.clone(),
                };
                let mut joined = Member::new(registration, member.instance_id.clone());
                joined.is_new = false;
                self.group.add(Arc::clone(id), joined, CONSUMER);
            }
        }
        self.group.set_state(GroupState::Stable, self.now.wall_ms);
        self.group.protocol_name = self.group.select_protocol();
        self.group.subscribed = self.group.subscribed_topics();
        let topics = Arc::clone(&self.shared.topics);
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            let metadata = self
                .group
                .members
                .get(&id)
                .map(|member| member.chosen_metadata(self.group.protocol_name.as_deref()));
            let version =
                metadata.and_then(|bytes| subscription(&bytes).ok()).map_or(0, |(version, _)| version);
            let target = consumer.targets.get(&id).cloned().unwrap_or_default();
            self.group.assign(&id, assignment_bytes(&target, version, &*topics));
            self.renew_session(&id);
        }
        // The log gets the group as it is before the members are asked to change it.
        self.store(None);
        if rebalance {
            self.prepare_rebalance();
        }
    }

    /// A consumer group without members makes room for a classic one of the same name.
    pub(in crate::machine) fn replace_empty_consumer(&mut self) {
        if let Kind::Consumer(consumer) = self.group.become_kind(Kind::Classic) {
            self.group.store.unwritten.extend(keys_of(&consumer));
            self.store(None);
        }
    }
}

fn being_deleted() -> Refusal {
    Refusal::new(ErrorCode::CoordinatorNotAvailable, "The group is being deleted.")
}
