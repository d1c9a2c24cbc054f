//! Records on their way to the log, and what happens when they are there.

use std::sync::Arc;

use towpath_wire::{ErrorCode, OffsetCommitResponse, OffsetDeleteResponse};

use super::group::GroupState;
use super::offsets::{Committed, Place};
use super::sync::Assignments;
use super::turn::Turn;
use super::{Command, GroupMachine, Now, Reply, Waiter};
use crate::record::OffsetsRecord;

/// An append's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppendToken(pub(super) u64);

/// A static member that came back and waits for its new id to be stored.
#[derive(Debug)]
pub(super) struct StaticRejoin {
    pub(super) member: super::member::MemberId,
    pub(super) waiter: Waiter,
    pub(super) generation: i32,
    pub(super) can_skip_assignment: bool,
    /// The leader before the member took its new id.
    pub(super) old_leader: String,
}

/// What follows when an append is done.
#[derive(Debug)]
pub(super) enum Effect {
    /// The group's last member has gone.
    Emptied,
    /// A static member has a new id.
    StaticRejoin(StaticRejoin),
    /// The leader's assignment.
    Assign { generation: i32, assignments: Assignments },
    /// Offsets are committed.
    Commit { waiter: Waiter, response: OffsetCommitResponse, offsets: Vec<(Place, Committed)> },
    /// Offsets are deleted, by request or because they expired.
    DeleteOffsets { answer: Option<(Waiter, OffsetDeleteResponse)>, places: Vec<Place> },
    /// The group is deleted, by request or because its last offset expired.
    DeleteGroup { waiter: Option<Waiter> },
}

/// An append that is not done.
#[derive(Debug)]
pub(super) struct Pending {
    group: Arc<str>,
    effect: Effect,
}

/// Puts `error` wherever the answer says that all is well.
fn fail_commit(mut response: OffsetCommitResponse, error: ErrorCode) -> OffsetCommitResponse {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == ErrorCode::None.code()) {
        partition.error_code = error.code();
    }
    response
}

impl Pending {
    /// Who waits for nothing but the append; members wait as members, in the group.
    pub(super) const fn waiter(&self) -> Option<Waiter> {
        match &self.effect {
            Effect::Commit { waiter, .. } => Some(*waiter),
            Effect::DeleteOffsets { answer: Some((waiter, _)), .. } => Some(*waiter),
            Effect::DeleteGroup { waiter } => *waiter,
            Effect::Emptied
            | Effect::StaticRejoin(_)
            | Effect::Assign { .. }
            | Effect::DeleteOffsets { answer: None, .. } => None,
        }
    }

    /// The answer when nobody will tell what became of the append. Members who wait are answered as members.
    pub(super) fn into_failure(self, error: ErrorCode) -> Option<Command> {
        let (waiter, reply) = match self.effect {
            Effect::Commit { waiter, response, .. } => (waiter, Reply::Commit(fail_commit(response, error))),
            Effect::DeleteOffsets { answer: Some((waiter, _)), .. } => {
                let error_code = error.code();
                (waiter, Reply::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() }))
            }
            Effect::DeleteGroup { waiter: Some(waiter) } => (waiter, Reply::DeleteGroup(error)),
            _ => return None,
        };
        Some(Command::Respond { waiter, reply })
    }
}

impl GroupMachine {
    /// Tells that an append is committed in the log, or that it failed. Unknown tokens (of before an unload) mean
    /// nothing.
    pub fn appended(
        &mut self,
        now: Now,
        token: AppendToken,
        result: Result<(), ErrorCode>,
        out: &mut Vec<Command>,
    ) {
        let Some(Pending { group, effect }) = self.shared.appends.remove(&token) else { return };
        let is_deletion = matches!(effect, Effect::DeleteGroup { .. }) && result.is_ok();
        self.turn(&group, now, out, |turn| {
            turn.group.appends = turn.group.appends.saturating_sub(1);
            turn.finish(effect, result);
        });
        if is_deletion && let Some(gone) = self.groups.remove(&group) {
            self.shared.bytes -= gone.size_in_bytes();
        }
    }
}

impl Turn<'_> {
    /// Sends records to the log.
    pub(super) fn append(&mut self, records: Vec<OffsetsRecord>, effect: Effect) {
        if matches!(effect, Effect::Emptied | Effect::StaticRejoin(_) | Effect::Assign { .. }) {
            // From here on the log may know the group: it is not forgotten without a tombstone.
            self.group.persisted = true;
        }
        let token = AppendToken(self.shared.next_append);
        self.shared.next_append += 1;
        self.group.appends += 1;
        self.shared.appends.insert(token, Pending { group: Arc::clone(&self.group.id), effect });
        self.out.push(Command::Append { token, records });
    }

    fn finish(&mut self, effect: Effect, result: Result<(), ErrorCode>) {
        match effect {
            Effect::Emptied => {
                if let Err(error) = result {
                    // The generation before stays the newest in the log; its members time out when it is loaded.
                    tracing::warn!(group = %self.group.id, %error, "an empty group could not be stored");
                }
            }
            Effect::StaticRejoin(rejoin) => self.finish_static_rejoin(&rejoin, result),
            Effect::Assign { generation, assignments } => {
                self.finish_assignment(generation, assignments, result);
            }
            Effect::Commit { waiter, response, offsets } => {
                self.finish_commit(waiter, response, offsets, result);
            }
            Effect::DeleteOffsets { answer, places } => {
                if result.is_ok() {
                    places.iter().for_each(|place| self.group.offsets.remove(place));
                }
                if let Some((waiter, mut response)) = answer {
                    if let Err(error) = result {
                        response = OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
                    }
                    self.respond(waiter, Reply::OffsetDelete(response));
                }
            }
            Effect::DeleteGroup { waiter } => self.finish_group_deletion(waiter, result),
        }
    }

    fn finish_commit(
        &mut self,
        waiter: Waiter,
        response: OffsetCommitResponse,
        offsets: Vec<(Place, Committed)>,
        result: Result<(), ErrorCode>,
    ) {
        for (place, committed) in offsets {
            self.group.offsets.end(&place);
            if result.is_ok() {
                self.group.offsets.put(place, committed);
            }
        }
        let response = match result {
            Ok(()) => response,
            Err(error) => fail_commit(response, error),
        };
        self.respond(waiter, Reply::Commit(response));
    }

    fn finish_group_deletion(&mut self, waiter: Option<Waiter>, result: Result<(), ErrorCode>) {
        if let Some(waiter) = waiter {
            self.respond(waiter, Reply::DeleteGroup(result.err().unwrap_or(ErrorCode::None)));
        }
        if result.is_err() {
            self.group.state = GroupState::Empty;
            return;
        }
        // Ids that were given out meant nothing but a promise: their owners begin anew.
        for id in std::mem::take(&mut self.group.pending) {
            self.cancel_timer(super::timers::TimerKind::Heartbeat(id));
        }
    }
}
