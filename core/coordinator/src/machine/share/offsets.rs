//! What the group knows of its share partitions' states, for those who look at them, set them and delete them. The states
//! themselves lie with the share coordinator.

use std::collections::BTreeSet;

use towpath_types::{TopicId, limits};
use towpath_wire::ErrorCode;

use super::heartbeat::not_a_share_group;
use super::{ShareKey, StateTopic};
use crate::machine::consumer::Refusal;
use crate::machine::group::{Group, GroupState, Kind};
use crate::machine::turn::Turn;
use crate::machine::{Command, GroupMachine, Now, Reply, Waiter};

/// Milliseconds for which nobody may join a group whose states are being deleted; whoever deletes them may be gone.
const HOLD_MS: i64 = 60_000;

/// A topic whose share partitions may have a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStateTopic {
    /// The id.
    pub id: TopicId,
    /// The name.
    pub name: String,
    /// The partitions.
    pub partitions: BTreeSet<i32>,
}

/// What a share group knows of its share partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStateView {
    /// Whether it has members.
    pub has_members: bool,
    /// Its epoch.
    pub epoch: i32,
    /// The topics whose share partitions may have a state, by their ids.
    pub topics: Vec<ShareStateTopic>,
}

fn not_found(group: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group} not found."))
}

fn not_empty(group: &str) -> Refusal {
    Refusal::new(ErrorCode::NonEmptyGroup, format!("Group {group} is not empty."))
}

impl GroupMachine {
    /// What a share group knows of its share partitions.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND` when there is no such share group, with the reason.
    pub fn share_state(&self, id: &str) -> Result<ShareStateView, (ErrorCode, String)> {
        let told = |refusal: Refusal| (refusal.error, refusal.message);
        let known = self.groups.get(id).filter(|group| group.state != GroupState::Dead);
        let group = known.ok_or_else(|| told(not_found(id)))?;
        let share = group.share().ok_or_else(|| told(not_a_share_group(id)))?;
        let topics = share.state_topics.iter().map(|(id, topic)| ShareStateTopic {
            id: *id,
            name: topic.name.clone(),
            partitions: topic.partitions.clone(),
        });
        Ok(ShareStateView { has_members: share.has_members(), epoch: share.epoch, topics: topics.collect() })
    }

    /// Lets nobody join a share group without members for a minute, so that its states can be deleted: what it knows of
    /// them.
    ///
    /// # Errors
    /// `GROUP_ID_NOT_FOUND` when there is no such share group, `NON_EMPTY_GROUP`; with the reason.
    pub fn hold_share_group(&mut self, now: Now, id: &str) -> Result<ShareStateView, (ErrorCode, String)> {
        let view = self.share_state(id)?;
        if view.has_members {
            let refusal = not_empty(id);
            return Err((refusal.error, refusal.message));
        }
        self.set_hold(id, now.monotonic_ms.saturating_add(HOLD_MS));
        Ok(view)
    }

    /// The states of a share group are no longer being deleted.
    pub fn release_share_group(&mut self, id: &str) {
        self.set_hold(id, 0);
    }

    fn set_hold(&mut self, id: &str, until_ms: i64) {
        if let Some(share) = self.groups.get_mut(id).and_then(Group::share_mut) {
            share.held_until_ms = until_ms;
        }
    }

    /// Raises the epoch of a share group without members, so that states may be set anew under it, and notes the topics. A
    /// group that is not there is made, as Kafka does. The answer, the new epoch, comes when it is in the log.
    pub fn alter_share_state(
        &mut self,
        now: Now,
        waiter: Waiter,
        id: &str,
        topics: Vec<ShareStateTopic>,
        out: &mut Vec<Command>,
    ) {
        let is_valid = !id.is_empty() && id.len() <= limits::GROUP_ID_BYTES_MAX;
        let has_group = is_valid && self.ensure_group(id, now);
        if has_group {
            self.turn(id, now, out, |turn| turn.alter_share_state(waiter, topics));
        } else {
            let refusal = if is_valid {
                let message = "The coordinator has no room for another group.";
                Refusal::new(ErrorCode::GroupMaxSizeReached, message)
            } else {
                Refusal::new(ErrorCode::InvalidGroupId, "The group id is not valid.")
            };
            let reply = Reply::ShareState(Err((refusal.error, refusal.message)));
            out.push(Command::Respond { waiter, reply });
        }
    }

    /// Forgets topics whose states are deleted, in a group without members. The answer comes when that is in the log.
    pub fn forget_share_topics(
        &mut self,
        now: Now,
        waiter: Waiter,
        id: &str,
        topics: &[TopicId],
        out: &mut Vec<Command>,
    ) {
        if self.turn(id, now, out, |turn| turn.forget_share_topics(waiter, topics)).is_none() {
            let refusal = not_found(id);
            let reply = Reply::ShareState(Err((refusal.error, refusal.message)));
            out.push(Command::Respond { waiter, reply });
        }
    }
}

impl Turn<'_> {
    fn alter_share_state(&mut self, waiter: Waiter, topics: Vec<ShareStateTopic>) {
        let reply = match self.try_alter_share_state(topics) {
            Ok(epoch) => Ok(epoch),
            Err(refusal) => {
                self.respond(waiter, Reply::ShareState(Err((refusal.error, refusal.message))));
                return;
            }
        };
        self.store(Some((waiter, Reply::ShareState(reply))));
    }

    fn try_alter_share_state(&mut self, topics: Vec<ShareStateTopic>) -> Result<i32, Refusal> {
        let (id, now) = (std::sync::Arc::clone(&self.group.id), self.now);
        if self.group.state == GroupState::Dead {
            return Err(not_found(&id));
        }
        if self.group.is_nothing() {
            self.group.kind = Kind::Share(Box::default());
        }
        let Some(share) = self.group.share_mut() else { return Err(not_a_share_group(&id)) };
        if share.has_members() {
            return Err(not_empty(&id));
        }
        if share.is_held(now) {
            let message = "What the group has done with is being deleted.";
            return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
        }
        let mut noted = share.state_topics.clone();
        for topic in topics {
            let entry = noted
                .entry(topic.id)
                .or_insert_with(|| StateTopic { name: topic.name, partitions: BTreeSet::new() });
            entry.partitions.extend(topic.partitions);
        }
        if noted != share.state_topics {
            share.load_state_topics(noted);
            share.change(ShareKey::State);
        }
        share.set_epoch(share.epoch.saturating_add(1), share.metadata_hash);
        Ok(share.epoch)
    }

    fn forget_share_topics(&mut self, waiter: Waiter, topics: &[TopicId]) {
        match self.try_forget_share_topics(topics) {
            Ok(epoch) => self.store(Some((waiter, Reply::ShareState(Ok(epoch))))),
            Err(refusal) => {
                self.respond(waiter, Reply::ShareState(Err((refusal.error, refusal.message))));
            }
        }
    }

    fn try_forget_share_topics(&mut self, topics: &[TopicId]) -> Result<i32, Refusal> {
        let id = std::sync::Arc::clone(&self.group.id);
        if self.group.state == GroupState::Dead {
            return Err(not_found(&id));
        }
        let Some(share) = self.group.share_mut() else { return Err(not_a_share_group(&id)) };
        if share.has_members() {
            // They may have states of these topics again.
            return Err(not_empty(&id));
        }
        let mut noted = share.state_topics.clone();
        noted.retain(|id, _| !topics.contains(id));
        if noted != share.state_topics {
            share.load_state_topics(noted);
            share.change(ShareKey::State);
        }
        Ok(share.epoch)
    }
}
