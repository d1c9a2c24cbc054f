//! Records on their way to the log, and what happens when they are there.

use std::sync::Arc;

use towpath_types::ProducerId;
use towpath_wire::{ErrorCode, OffsetCommitResponse, OffsetDeleteResponse, TxnOffsetCommitResponse};

use super::offsets::{Committed, Place};
use super::sync::Assignments;
use super::tombstones::{Burial, OffsetDeletion};
use super::turn::Turn;
use super::{Command, GroupMachine, Now, Reply, Waiter};
use crate::log::{EndMarker, TransactionalProducer};
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
    /// Offsets of a transaction are in the log; they count when it is committed.
    TransactionalCommit {
        waiter: Waiter,
        producer: ProducerId,
        response: TxnOffsetCommitResponse,
        offsets: Vec<(Place, Committed)>,
    },
    /// Offsets are deleted, by request or because they expired.
    DeleteOffsets(OffsetDeletion),
    /// The group is deleted, by request or because its last offset expired.
    DeleteGroup(Burial),
    /// What a consumer group has become.
    Store,
}

/// An append that is not done.
#[derive(Debug)]
pub(super) enum Pending {
    /// Something of a group.
    Group { group: Arc<str>, effect: Effect },
    /// The end of a transaction, which may have offsets in any number of groups.
    Marker { waiters: Vec<Waiter>, marker: EndMarker },
}

/// Puts `error` wherever the answer says that all is well.
fn fail_commit(mut response: OffsetCommitResponse, error: ErrorCode) -> OffsetCommitResponse {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == ErrorCode::None.code()) {
        partition.error_code = error.code();
    }
    response
}

/// As [`fail_commit`].
fn fail_transactional(mut response: TxnOffsetCommitResponse, error: ErrorCode) -> TxnOffsetCommitResponse {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == ErrorCode::None.code()) {
        partition.error_code = error.code();
    }
    response
}

impl Pending {
    /// Who waits for nothing but the append; members wait as members, in the group.
    pub(super) fn waiters(&self) -> Vec<Waiter> {
        let effect = match self {
            Self::Marker { waiters, .. } => return waiters.clone(),
            Self::Group { effect, .. } => effect,
        };
        match effect {
            Effect::Commit { waiter, .. } | Effect::TransactionalCommit { waiter, .. } => vec![*waiter],
            Effect::DeleteOffsets(deletion) => deletion.answer.iter().map(|(waiter, _)| *waiter).collect(),
            Effect::DeleteGroup(burial) => burial.waiter.iter().copied().collect(),
            Effect::Emptied | Effect::StaticRejoin(_) | Effect::Assign { .. } | Effect::Store => Vec::new(),
        }
    }

    /// The answers when nobody will tell what became of the append. Members who wait are answered as members.
    pub(super) fn into_failure(self, error: ErrorCode) -> Vec<Command> {
        let effect = match self {
            Self::Marker { waiters, .. } => {
                let told = |waiter| Command::Respond { waiter, reply: Reply::EndTransaction(error) };
                return waiters.into_iter().map(told).collect();
            }
            Self::Group { effect, .. } => effect,
        };
        let (waiter, reply) = match effect {
            Effect::Commit { waiter, response, .. } => (waiter, Reply::Commit(fail_commit(response, error))),
            Effect::TransactionalCommit { waiter, response, .. } => {
                (waiter, Reply::TransactionalCommit(fail_transactional(response, error)))
            }
            Effect::DeleteOffsets(OffsetDeletion { answer: Some((waiter, _)), .. }) => {
                let error_code = error.code();
                (waiter, Reply::OffsetDelete(OffsetDeleteResponse { error_code, ..Default::default() }))
            }
            Effect::DeleteGroup(Burial { waiter: Some(waiter), .. }) => (waiter, Reply::DeleteGroup(error)),
            _ => return Vec::new(),
        };
        vec![Command::Respond { waiter, reply }]
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
        let (group, effect) = match self.shared.appends.remove(&token) {
            Some(Pending::Group { group, effect }) => (group, effect),
            Some(Pending::Marker { waiters, marker }) => {
                if result.is_ok() {
                    self.end_transaction_of(now, marker.producer.id, marker.commit, out);
                }
                let reply = Reply::EndTransaction(result.err().unwrap_or(ErrorCode::None));
                out.extend(
                    waiters.into_iter().map(|waiter| Command::Respond { waiter, reply: reply.clone() }),
                );
                return;
            }
            None => return,
        };
        let is_deletion =
            matches!(&effect, Effect::DeleteGroup(burial) if burial.rest.is_empty()) && result.is_ok();
        self.turn(&group, now, out, |turn| {
            turn.group.appends = turn.group.appends.saturating_sub(1);
            turn.finish(effect, result);
        });
        if is_deletion && let Some(gone) = self.groups.remove(&group) {
            self.shared.bytes.take(gone.size_in_bytes());
            self.shared.forget_transactions(&gone);
        }
    }
}

impl Turn<'_> {
    /// Sends records to the log.
    pub(super) fn append(&mut self, records: Vec<OffsetsRecord>, effect: Effect) {
        self.append_as(records, effect, None);
    }

    /// Sends records to the log, within a producer's transaction if there is one.
    pub(super) fn append_as(
        &mut self,
        records: Vec<OffsetsRecord>,
        effect: Effect,
        producer: Option<TransactionalProducer>,
    ) {
        if matches!(effect, Effect::Emptied | Effect::StaticRejoin(_) | Effect::Assign { .. }) {
            // From here on the log may know the group: it is not forgotten without a tombstone.
            self.group.persisted = true;
        }
        let token = self.shared.next_token();
        self.group.appends += 1;
        let pending = Pending::Group { group: Arc::clone(&self.group.id), effect };
        self.shared.appends.insert(token, pending);
        self.out.push(Command::Append { token, records, producer });
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
            Effect::TransactionalCommit { waiter, producer, response, offsets } => {
                for (place, committed) in offsets {
                    self.group.offsets.end(&place, &committed, true);
                    if result.is_ok() {
                        self.put_pending(producer, place, committed);
                    }
                }
                let response = match result {
                    Ok(()) => response,
                    Err(error) => fail_transactional(response, error),
                };
                self.respond(waiter, Reply::TransactionalCommit(response));
            }
            Effect::Store => self.finish_store(result),
            Effect::DeleteOffsets(deletion) => self.finish_offset_deletion(deletion, result),
            Effect::DeleteGroup(burial) => self.finish_burial(burial, result),
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
            self.group.offsets.end(&place, &committed, false);
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
}
