//! One group's turn to act: the group, what all groups share, the time, and where commands go.

use std::sync::Arc;

use towpath_wire::{ErrorCode, HeartbeatRequest, JoinGroupResponse, SyncGroupResponse};

use super::group::{Group, GroupState};
use super::member::{Member, MemberId};
use super::timers::{TimerKey, TimerKind};
use super::{Command, Now, Reply, Shared, Waiter};

/// One group acting.
pub(super) struct Turn<'a> {
    pub(super) group: &'a mut Group,
    pub(super) shared: &'a mut Shared,
    pub(super) now: Now,
    pub(super) out: &'a mut Vec<Command>,
    /// Bytes of the group's offsets when the turn began: the books are kept when it ends.
    pub(super) offsets_before: usize,
}

/// The answer to a JoinGroup that failed.
pub(crate) fn join_error(member: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: error.code(),
        generation_id: -1,
        protocol_name: None,
        member_id: member.to_owned(),
        ..JoinGroupResponse::default()
    }
}

/// The answer to a SyncGroup that failed.
pub(crate) fn sync_error(error: ErrorCode) -> SyncGroupResponse {
    SyncGroupResponse { error_code: error.code(), ..SyncGroupResponse::default() }
}

/// Answers whoever waits in a member that is no more.
pub(super) fn fail_waiters(id: &str, member: &Member, error: ErrorCode, out: &mut Vec<Command>) {
    if let Some(waiter) = member.awaiting_join {
        out.push(Command::Respond { waiter, reply: Reply::Join(join_error(id, error)) });
    }
    if let Some(waiter) = member.awaiting_sync {
        out.push(Command::Respond { waiter, reply: Reply::Sync(sync_error(error)) });
    }
}

impl Turn<'_> {
    pub(super) fn respond(&mut self, waiter: Waiter, reply: Reply) {
        self.out.push(Command::Respond { waiter, reply });
    }

    pub(super) fn respond_join(&mut self, waiter: Waiter, response: JoinGroupResponse) {
        self.respond(waiter, Reply::Join(response));
    }

    pub(super) fn key(&self, kind: TimerKind) -> TimerKey {
        TimerKey { group: Arc::clone(&self.group.id), kind }
    }

    pub(super) fn set_timer(&mut self, kind: TimerKind, delay_ms: i32) {
        let at_ms = self.now.monotonic_ms.saturating_add(i64::from(delay_ms.max(0)));
        self.shared.timers.set(self.key(kind), at_ms);
    }

    pub(super) fn set_timer_if_absent(&mut self, kind: TimerKind, delay_ms: i32) {
        let at_ms = self.now.monotonic_ms.saturating_add(i64::from(delay_ms.max(0)));
        self.shared.timers.set_if_absent(self.key(kind), at_ms);
    }

    pub(super) fn cancel_timer(&mut self, kind: TimerKind) {
        let key = self.key(kind);
        self.shared.timers.cancel(&key);
    }

    /// A member has been heard of, or is waited for no longer: its session begins anew.
    pub(super) fn renew_session(&mut self, id: &MemberId) {
        if let Some(member) = self.group.members.get(id) {
            let timeout_ms = member.registration.session_timeout_ms;
            self.set_timer(TimerKind::Heartbeat(Arc::clone(id)), timeout_ms);
        }
    }

    /// Removes a member or a pending one; whoever waits for it is told `error`.
    pub(super) fn remove_member(&mut self, id: &MemberId, error: ErrorCode) {
        self.cancel_timer(TimerKind::Heartbeat(Arc::clone(id)));
        if let Some(member) = self.group.remove(id) {
            // As Kafka: without a member id, so that a client that still lives joins as a new member.
            fail_waiters("", &member, error, self.out);
        }
    }

    pub(super) fn on_timer(&mut self, kind: &TimerKind) {
        match kind {
            TimerKind::Heartbeat(member) => self.on_session_timeout(member),
            TimerKind::Join => self.on_join_timeout(),
            TimerKind::Sync => self.on_sync_timeout(),
            TimerKind::Repair => self.on_repair(),
            TimerKind::Session(member) if self.group.share().is_some() => {
                self.on_share_session_timeout(member);
            }
            TimerKind::Session(_)
            | TimerKind::Rebalance(_)
            | TimerKind::MemberJoin(_)
            | TimerKind::MemberSync(_) => self.on_member_timeout(kind),
        }
    }

    fn on_session_timeout(&mut self, id: &MemberId) {
        if self.group.pending.contains(id) {
            tracing::debug!(group = %self.group.id, member = %id, "a member never joined with the id it was given");
            self.remove_member(id, ErrorCode::UnknownMemberId);
            self.complete_join_if_all_here();
            return;
        }
        let Some(member) = self.group.members.get(id) else { return };
        if member.has_satisfied_heartbeat() {
            return;
        }
        tracing::info!(group = %self.group.id, member = %id, "a member's session has expired");
        self.remove_member(id, ErrorCode::UnknownMemberId);
        match self.group.state {
            GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(),
            _ => self.complete_join_if_all_here(),
        }
    }

    pub(super) fn heartbeat(&mut self, request: &HeartbeatRequest) -> ErrorCode {
        if self.group.state == GroupState::Dead {
            return ErrorCode::CoordinatorNotAvailable;
        }
        if self.group.consumer().is_some() {
            return self.heartbeat_consumer(request);
        }
        if let Err(error) = self.group.validate(&request.member_id, request.group_instance_id.as_deref()) {
            return error;
        }
        if request.generation_id != self.group.generation {
            return ErrorCode::IllegalGeneration;
        }
        let id: MemberId = Arc::from(request.member_id.as_str());
        match self.group.state {
            GroupState::Empty | GroupState::Dead => ErrorCode::UnknownMemberId,
            GroupState::PreparingRebalance => {
                self.renew_session(&id);
                ErrorCode::RebalanceInProgress
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.renew_session(&id);
                ErrorCode::None
            }
        }
    }
}
