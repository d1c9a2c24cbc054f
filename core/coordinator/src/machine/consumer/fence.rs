//! How members leave: by saying so, or because their time is over.

use std::sync::Arc;

use towpath_wire::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, ErrorCode};

use super::heartbeat::{not_a_consumer_group, unknown_member};
use super::member::{EPOCH_AWAY, MemberState, Owned};
use super::{ConsumerGroup, Context, Refusal};
use crate::machine::member::MemberId;
use crate::machine::timers::TimerKind;
use crate::machine::turn::Turn;

impl Turn<'_> {
    /// A member leaves for good, or, a static one, for a while.
    pub(super) fn consumer_leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let Some(consumer) = self.group.consumer_mut() else {
            return Err(not_a_consumer_group(&self.group.id));
        };
        let id = consumer.leaving(&request.member_id, request.instance_id.as_deref())?;
        if request.member_epoch == EPOCH_AWAY && request.instance_id.is_some() {
            consumer.go_away(&id);
        } else {
            tracing::info!(group = %self.group.id, member = %id, "a member leaves");
            self.fence_members(std::slice::from_ref(&id));
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// Removes members; the group becomes a classic one when the last with the consumer protocol goes. The caller stores.
    pub(super) fn fence_members(&mut self, ids: &[MemberId]) {
        let can_downgrade = self
            .group
            .consumer()
            .is_some_and(|consumer| consumer.can_downgrade_without(ids, &self.shared.config));
        if can_downgrade {
            self.become_classic(ids, true);
            return;
        }
        for id in ids {
            self.cancel_member_timers(id);
        }
        let context = Context {
            group: &Arc::clone(&self.group.id),
            config: &self.shared.config,
            topics: &*Arc::clone(&self.shared.topics),
            now: self.now,
            room: 0,
        };
        if let Some(consumer) = self.group.consumer_mut() {
            for id in ids {
                consumer.remove_member(id);
            }
            consumer.refresh_metadata(true, &context);
        }
    }

    /// The sessions of a loaded group begin now.
    pub(in crate::machine) fn mind_loaded_consumer(&mut self) {
        let Some(consumer) = self.group.consumer() else { return };
        let session_ms = self.shared.session_timeout_ms(&self.group.id);
        let deadlines: Vec<_> = consumer
            .members()
            .iter()
            .map(|(id, member)| {
                let classic_ms = member.classic.as_ref().map(|classic| classic.session_timeout_ms);
                let revokes = member.state == MemberState::UnrevokedPartitions && !member.is_classic();
                let rebalance_ms = revokes.then_some(member.rebalance_timeout_ms);
                (Arc::clone(id), classic_ms.unwrap_or(session_ms), rebalance_ms)
            })
            .collect();
        for (id, session_ms, rebalance_ms) in deadlines {
            self.set_timer(TimerKind::Session(Arc::clone(&id)), session_ms);
            if let Some(rebalance_ms) = rebalance_ms {
                self.set_timer(TimerKind::Rebalance(id), rebalance_ms);
            }
        }
    }

    pub(super) fn cancel_member_timers(&mut self, id: &MemberId) {
        for kind in [TimerKind::Session, TimerKind::Rebalance, TimerKind::MemberJoin, TimerKind::MemberSync] {
            self.cancel_timer(kind(Arc::clone(id)));
        }
    }

    /// A member of a consumer group has let a deadline pass.
    pub(in crate::machine) fn on_member_timeout(&mut self, kind: &TimerKind) {
        let (id, reason) = match kind {
            TimerKind::Session(id) => (id, "its session has expired"),
            TimerKind::Rebalance(id) => (id, "it did not give up its partitions in time"),
            TimerKind::MemberJoin(id) => (id, "it did not rejoin in time"),
            TimerKind::MemberSync(id) => (id, "it did not ask for its assignment in time"),
            _ => return,
        };
        let member = self.group.consumer().and_then(|consumer| consumer.members().get(id));
        let Some(member) = member else { return };
        let revokes = member.state == MemberState::UnrevokedPartitions && member.epoch != EPOCH_AWAY;
        if matches!(kind, TimerKind::Rebalance(_)) && !revokes {
            return;
        }
        tracing::info!(group = %self.group.id, member = %id, reason, "a member is fenced");
        self.fence_members(std::slice::from_ref(id));
        self.store(None);
    }
}

impl ConsumerGroup {
    /// Whom a request to leave means.
    fn leaving(&self, id: &str, instance: Option<&str>) -> Result<MemberId, Refusal> {
        let Some(instance) = instance else {
            let known = self.members.get_key_value(id).map(|(id, _)| Arc::clone(id));
            return known.ok_or_else(|| unknown_member(id));
        };
        match self.instance(instance) {
            None => {
                let message = format!("Instance id {instance} is unknown.");
                Err(Refusal::new(ErrorCode::UnknownMemberId, message))
            }
            Some(owner) if **owner != *id => {
                let message =
                    format!("Static member {id} with instance id {instance} was fenced by member {owner}.");
                Err(Refusal::new(ErrorCode::FencedInstanceId, message))
            }
            Some(owner) => Ok(Arc::clone(owner)),
        }
    }

    /// A static member is away: what it has stays its own until it comes back, or its session ends.
    fn go_away(&mut self, id: &MemberId) {
        if let Some(member) = self.members.get(id) {
            let mut away = member.clone();
            away.epoch = EPOCH_AWAY;
            away.revoking = Owned::new();
            self.put_member(id, away);
        }
    }
}
