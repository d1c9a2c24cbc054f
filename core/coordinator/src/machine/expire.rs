//! Offsets do not live for ever: those of groups without members, and of topics that a live group has given up.

use std::sync::Arc;

use super::group::{Group, GroupState};
use super::offsets::{Committed, Place};
use super::turn::Turn;
use super::{Command, GroupMachine, Now};

/// Since when an offset is of no use to the group's members; `None` while it is.
fn idle_since_ms(group: &Group, committed: &Committed) -> Option<i64> {
    if group.consumer().is_some() {
        // Whether the topic is subscribed to has been looked at before.
        return Some(committed.commit_timestamp_ms);
    }
    if group.protocol_type.is_none() {
        // Nobody but the committer knows whether the group is in use.
        return Some(committed.commit_timestamp_ms);
    }
    match group.state {
        GroupState::Empty => Some(group.state_since_ms.unwrap_or(committed.commit_timestamp_ms)),
        // Whether the topic is subscribed to has been looked at before.
        GroupState::Stable if group.is_consumer() && group.subscribed.is_some() => {
            Some(committed.commit_timestamp_ms)
        }
        _ => None,
    }
}

impl GroupMachine {
    /// Writes tombstones for what has expired; groups that have nothing left go with their last offset.
    pub(super) fn expire_offsets(&mut self, now: Now, out: &mut Vec<Command>) {
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.turn(&id, now, out, |turn| turn.expire());
        }
    }
}

impl Turn<'_> {
    fn expire(&mut self) {
        let retention_ms = self.shared.config.offsets_retention_ms;
        let now_ms = self.now.wall_ms;
        let mut expired: Vec<Place> = Vec::new();
        let mut kept = 0usize;
        for (topic, partitions) in self.group.offsets.iter() {
            let in_use = self.group.has_members() && self.group.is_subscribed(topic);
            for (partition, committed) in partitions {
                let place = (Arc::clone(topic), *partition);
                let is_expired = match (committed.expire_timestamp_ms, idle_since_ms(self.group, committed)) {
                    (_, None) => false,
                    (Some(at_ms), Some(_)) => now_ms >= at_ms,
                    (None, Some(since_ms)) => now_ms.saturating_sub(since_ms) >= retention_ms,
                };
                // An open transaction may be about to renew it.
                if is_expired && !in_use && !self.group.offsets.is_changing(&place) {
                    expired.push(place);
                } else {
                    kept += 1;
                }
            }
        }
        // Where a share group is in its partitions does not expire.
        let is_idle = self.group.share().is_none()
            && self.group.state == GroupState::Empty
            && !self.group.has_members()
            && self.group.pending.is_empty()
            && self.group.offsets.open_transactions().next().is_none();
        if is_idle && kept == 0 && self.group.offsets.places().len() == expired.len() {
            tracing::info!(group = %self.group.id, "the group has expired");
            self.bury(None);
        } else {
            self.forget_offsets(expired);
        }
    }
}
