//! SyncGroup.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use towpath_wire::sync_group::SyncGroupRequestAssignment;
use towpath_wire::{ErrorCode, SyncGroupRequest, SyncGroupResponse};

use super::append::Effect;
use super::group::GroupState;
use super::member::MemberId;
use super::turn::{Turn, sync_error};
use super::{Command, GroupMachine, Now, Reply, Waiter};
use crate::record;

/// The assignment of a generation, by member.
pub(super) type Assignments = HashMap<MemberId, Bytes>;

impl GroupMachine {
    /// Takes a SyncGroup. The answer comes when the leader's assignment is in the log, or at once with an error.
    pub fn sync_group(
        &mut self,
        now: Now,
        waiter: Waiter,
        request: SyncGroupRequest,
        out: &mut Vec<Command>,
    ) {
        let known = !request.group_id.is_empty() && self.groups.contains_key(request.group_id.as_str());
        if !known {
            let empty = request.group_id.is_empty();
            let error = if empty { ErrorCode::InvalidGroupId } else { ErrorCode::UnknownMemberId };
            out.push(Command::Respond { waiter, reply: Reply::Sync(sync_error(error)) });
            return;
        }
        let group = request.group_id.clone();
        self.turn(&group, now, out, |turn| turn.sync(waiter, request));
    }
}

/// Whether a request names another protocol than the group has (a request may leave it out: versions below 5).
fn differs(request: Option<&String>, group: Option<&String>) -> bool {
    request.is_some() && group.is_some() && request != group
}

impl Turn<'_> {
    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        if self.group.state == GroupState::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.group.validate(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if differs(request.protocol_type.as_ref(), self.group.protocol_type.as_ref())
            || differs(request.protocol_name.as_ref(), self.group.protocol_name.as_ref())
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.group.state {
            GroupState::Empty => Err(ErrorCode::UnknownMemberId),
            GroupState::PreparingRebalance => Err(ErrorCode::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    fn sync(&mut self, waiter: Waiter, request: SyncGroupRequest) {
        if self.group.consumer().is_some() {
            self.sync_consumer(waiter, &request);
            return;
        }
        if let Err(error) = self.validate_sync(&request) {
            self.respond(waiter, Reply::Sync(sync_error(error)));
            return;
        }
        let id: MemberId = Arc::from(request.member_id.as_str());
        self.group.pending_sync.remove(&id);
        if self.group.state == GroupState::Stable {
            let assignment = self.group.members.get(&id).map(|member| member.assignment.clone());
            let response = self.synced_response(assignment.unwrap_or_default());
            self.respond(waiter, Reply::Sync(response));
            return;
        }
        let old = self.group.members.get_mut(&id).and_then(|member| member.awaiting_sync.replace(waiter));
        if let Some(old) = old {
            // As with JoinGroup: whoever waited before gave up.
            self.respond(old, Reply::Sync(sync_error(ErrorCode::RebalanceInProgress)));
        }
        // A leader that repeats itself does not change what is already on its way to the log.
        if self.group.is_leader(&id) && self.group.assigning != Some(self.group.generation) {
            self.store_assignment(request.assignments);
        }
    }

    fn store_assignment(&mut self, request: Vec<SyncGroupRequestAssignment>) {
        let mut assignments = Assignments::with_capacity(request.len());
        let mut bytes = 0usize;
        for SyncGroupRequestAssignment { member_id, assignment } in request {
            // For somebody who has left meanwhile there is nothing to keep.
            if let Some((id, _)) = self.group.members.get_key_value(member_id.as_str()) {
                bytes += assignment.len();
                // Not a slice of the request: that would keep the whole frame alive.
                assignments.insert(Arc::clone(id), Bytes::copy_from_slice(&assignment));
            }
        }
        // R10: bounded like everything that members say.
        if self.group.member_bytes() + bytes > self.shared.config.group_bytes_max {
            tracing::warn!(group = %self.group.id, bytes, "an assignment is too large");
            self.reject_assignment(ErrorCode::UnknownServerError);
            return;
        }
        let assigned = |id: &MemberId| assignments.get(id).cloned().unwrap_or_default();
        let value = self.group.to_value(|id, _| assigned(id));
        match record::group_record(&self.group.id, Some(&value), self.now.wall_ms) {
            Ok(record) => {
                let generation = self.group.generation;
                self.group.assigning = Some(generation);
                self.append(vec![record], Effect::Assign { generation, assignments });
            }
            Err(error) => {
                tracing::warn!(group = %self.group.id, %error, "a generation cannot be stored");
                self.reject_assignment(ErrorCode::UnknownServerError);
            }
        }
    }

    fn reject_assignment(&mut self, error: ErrorCode) {
        self.fail_syncs(error);
        self.prepare_rebalance();
    }

    /// The generation's assignment is in the log, or could not be written.
    pub(super) fn finish_assignment(
        &mut self,
        generation: i32,
        mut assignments: Assignments,
        result: Result<(), ErrorCode>,
    ) {
        if self.group.state != GroupState::CompletingRebalance || self.group.generation != generation {
            // The group has gone on meanwhile: nobody waits for this.
            return;
        }
        self.group.assigning = None;
        if let Err(error) = result {
            self.reject_assignment(error);
            return;
        }
        self.group.set_state(GroupState::Stable, self.now.wall_ms);
        let ids: Vec<MemberId> = self.group.members.keys().cloned().collect();
        for id in ids {
            let assignment = assignments.remove(&id).unwrap_or_default();
            let response = self.synced_response(assignment.clone());
            self.group.assign(&id, assignment);
            self.answer_sync(&id, &response);
        }
        if self.group.pending_sync.is_empty() {
            self.cancel_timer(super::timers::TimerKind::Sync);
        }
    }

    fn synced_response(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            error_code: ErrorCode::None.code(),
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            assignment,
            ..SyncGroupResponse::default()
        }
    }
}
