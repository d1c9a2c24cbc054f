//! LeaveGroup.

use std::sync::Arc;

use towpath_wire::leave_group::{MemberIdentity, MemberResponse};
use towpath_wire::{ErrorCode, LeaveGroupRequest, LeaveGroupResponse};

use super::group::GroupState;
use super::member::MemberId;
use super::turn::Turn;
use super::{Command, GroupMachine, Now};

pub(super) fn outcome(member: &MemberIdentity, error: ErrorCode) -> MemberResponse {
    MemberResponse {
        member_id: member.member_id.clone(),
        group_instance_id: member.group_instance_id.clone(),
        error_code: error.code(),
    }
}

impl GroupMachine {
    /// Takes a LeaveGroup in the form of version 3 and later: any number of members, by member id or, for
    /// administrators, by instance id alone.
    pub fn leave_group(
        &mut self,
        now: Now,
        request: &LeaveGroupRequest,
        out: &mut Vec<Command>,
    ) -> LeaveGroupResponse {
        if request.group_id.is_empty() {
            let error_code = ErrorCode::InvalidGroupId.code();
            return LeaveGroupResponse { error_code, ..LeaveGroupResponse::default() };
        }
        self.turn(&request.group_id, now, out, |turn| turn.leave(&request.members)).unwrap_or_else(|| {
            let unknown = |member| outcome(member, ErrorCode::UnknownMemberId);
            LeaveGroupResponse {
                members: request.members.iter().map(unknown).collect(),
                ..LeaveGroupResponse::default()
            }
        })
    }
}

impl Turn<'_> {
    fn leave(&mut self, members: &[MemberIdentity]) -> LeaveGroupResponse {
        let mut response = LeaveGroupResponse::default();
        if self.group.state == GroupState::Dead {
            response.error_code = ErrorCode::CoordinatorNotAvailable.code();
            return response;
        }
        if self.group.consumer().is_some() {
            return self.leave_consumer(members);
        }
        let mut anybody = false;
        for member in members {
            let error = match self.leaving(member) {
                Ok(id) => {
                    tracing::info!(
                        group = %self.group.id, member = %id, reason = member.reason.as_deref(), "a member leaves"
                    );
                    self.remove_member(&id, ErrorCode::UnknownMemberId);
                    anybody = true;
                    ErrorCode::None
                }
                Err(error) => error,
            };
            response.members.push(outcome(member, error));
        }
        if anybody {
            match self.group.state {
                GroupState::Stable | GroupState::CompletingRebalance => self.prepare_rebalance(),
                _ => self.complete_join_if_all_here(),
            }
        }
        response
    }

    /// Whom a request means.
    fn leaving(&self, member: &MemberIdentity) -> Result<MemberId, ErrorCode> {
        let id = member.member_id.as_str();
        if id.is_empty() {
            let owner =
                member.group_instance_id.as_ref().and_then(|instance| self.group.instances.get(instance));
            return owner.cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        if !self.group.pending.contains(id) {
            self.group.validate(id, member.group_instance_id.as_deref())?;
        }
        Ok(Arc::from(id))
    }
}
