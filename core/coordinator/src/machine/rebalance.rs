//! From one generation to the next.

use std::sync::Arc;

use bytes::Bytes;
use towpath_wire::{ErrorCode, JoinGroupResponse, SyncGroupResponse};

use super::Reply;
use super::append::Effect;
use super::group::{GroupState, InitialDelay};
use super::member::MemberId;
use super::timers::TimerKind;
use super::turn::{Turn, sync_error};
use crate::record;

/// The least time between two looks at a group that cannot complete since nobody has joined.
const RETRY_MS_MIN: i32 = 100;

impl Turn<'_> {
    /// Somebody came, went or changed: begin a rebalance, or see whether the one that is going on is complete.
    pub(super) fn rebalance_or_complete(&mut self) {
        if self.group.is_in(&[GroupState::Stable, GroupState::CompletingRebalance, GroupState::Empty]) {
            self.prepare_rebalance();
        } else {
            self.complete_join_if_all_here();
        }
    }

    /// Asks everybody to join again.
    pub(super) fn prepare_rebalance(&mut self) {
        if self.group.state == GroupState::CompletingRebalance {
            self.fail_syncs(ErrorCode::RebalanceInProgress);
        }
        self.group.pending_sync.clear();
        self.group.assigning = None;
        self.cancel_timer(TimerKind::Sync);
        let is_first = self.group.state == GroupState::Empty;
        self.group.set_state(GroupState::PreparingRebalance, self.now.wall_ms);
        if !is_first {
            self.complete_join_or_wait();
            return;
        }
        let delay_ms = self.shared.config.initial_rebalance_delay_ms.max(0);
        if delay_ms == 0 {
            self.complete_join();
            return;
        }
        let remaining_ms = self.group.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
        self.group.initial = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
        self.set_timer(TimerKind::Join, delay_ms);
    }

    fn complete_join_or_wait(&mut self) {
        if self.group.has_everybody_joined() {
            self.complete_join();
        } else {
            let timeout_ms = self.group.rebalance_timeout_ms();
            self.set_timer(TimerKind::Join, timeout_ms);
        }
    }

    /// Completes the rebalance that is going on when nobody is missing; the first one of an empty group waits for
    /// its delay in any case.
    pub(super) fn complete_join_if_all_here(&mut self) {
        let waits = self.group.state == GroupState::PreparingRebalance && self.group.initial.is_none();
        if waits && self.group.has_everybody_joined() {
            self.complete_join();
        }
    }

    pub(super) fn on_join_timeout(&mut self) {
        if self.group.state != GroupState::PreparingRebalance {
            return;
        }
        if let Some(initial) = self.group.initial
            && initial.member_added
            && initial.remaining_ms > 0
        {
            let delay_ms = self.shared.config.initial_rebalance_delay_ms.min(initial.remaining_ms);
            let remaining_ms = initial.remaining_ms.saturating_sub(initial.delay_ms).max(0);
            self.group.initial = Some(InitialDelay { delay_ms, remaining_ms, member_added: false });
            self.set_timer(TimerKind::Join, delay_ms);
            return;
        }
        self.complete_join();
    }

    /// Forms the next generation of those who have joined. Dynamic members who have not are out; static ones stay
    /// until their session ends.
    fn complete_join(&mut self) {
        self.cancel_timer(TimerKind::Join);
        self.group.initial = None;
        let missing: Vec<MemberId> = self
            .group
            .members
            .iter()
            .filter(|(_, member)| member.awaiting_join.is_none() && !member.is_static())
            .map(|(id, _)| Arc::clone(id))
            .collect();
        for id in &missing {
            tracing::info!(group = %self.group.id, member = %id, "a member did not rejoin in time");
            self.remove_member(id, ErrorCode::UnknownMemberId);
        }
        if !self.group.elect_joined_leader() && !self.group.members.is_empty() {
            // Only static members that are away: they are waited for until their sessions end.
            let retry_ms = self.group.rebalance_timeout_ms().max(RETRY_MS_MIN);
            self.set_timer(TimerKind::Join, retry_ms);
            return;
        }
        self.group.next_generation(self.now.wall_ms);
        if self.group.state == GroupState::Empty {
            self.store_emptied();
        } else {
            self.tell_generation();
        }
    }

    fn store_emptied(&mut self) {
        tracing::info!(group = %self.group.id, generation = self.group.generation, "the group is empty");
        let value = self.group.to_value(|_, _| Bytes::new());
        match record::group_record(&self.group.id, Some(&value), self.now.wall_ms) {
            Ok(record) => {
                self.append(vec![record], Effect::Emptied);
            }
            // Nothing is lost: the log keeps the last generation, whose members time out when it is loaded.
            Err(error) => tracing::warn!(group = %self.group.id, %error, "an empty group cannot be stored"),
        }
    }

    fn tell_generation(&mut self) {
        tracing::info!(
            group = %self.group.id, generation = self.group.generation, members = self.group.members.len(),
            protocol = self.group.protocol_name.as_deref(), "a generation has formed"
        );
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            if let Some(waiter) = self.group.await_join(&id, None) {
                let response = self.joined_response(&id, self.group.is_leader(&id));
                self.respond_join(waiter, response);
            }
            self.renew_session(&id);
            if let Some(member) = self.group.members.get_mut(&id) {
                member.is_new = false;
            }
            self.group.pending_sync.insert(id);
        }
        let timeout_ms = self.group.rebalance_timeout_ms();
        self.set_timer(TimerKind::Sync, timeout_ms);
    }

    /// What a member of the present generation is told.
    pub(super) fn joined_response(&self, id: &str, with_members: bool) -> JoinGroupResponse {
        JoinGroupResponse {
            error_code: ErrorCode::None.code(),
            generation_id: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            leader: self.group.leader_text(),
            member_id: id.to_owned(),
            members: if with_members { self.group.member_list() } else { Vec::new() },
            ..JoinGroupResponse::default()
        }
    }

    pub(super) fn on_sync_timeout(&mut self) {
        let late = std::mem::take(&mut self.group.pending_sync);
        if late.is_empty() || !self.group.is_in(&[GroupState::CompletingRebalance, GroupState::Stable]) {
            return;
        }
        for id in &late {
            tracing::info!(group = %self.group.id, member = %id, "a member did not ask for its assignment");
            self.remove_member(id, ErrorCode::UnknownMemberId);
        }
        self.prepare_rebalance();
    }

    /// Answers everybody who waits for an assignment that will not come.
    pub(super) fn fail_syncs(&mut self, error: ErrorCode) {
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            self.group.assign(&id, Bytes::new());
            self.answer_sync(&id, &sync_error(error));
        }
    }

    /// Answers a member that waits for its assignment; its session begins anew, since nobody minded it meanwhile.
    pub(super) fn answer_sync(&mut self, id: &MemberId, response: &SyncGroupResponse) {
        let waiter = self.group.members.get_mut(id).and_then(|member| member.awaiting_sync.take());
        if let Some(waiter) = waiter {
            self.respond(waiter, Reply::Sync(response.clone()));
            self.renew_session(id);
        }
    }
}
