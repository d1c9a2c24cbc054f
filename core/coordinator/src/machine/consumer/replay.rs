//! Loading consumer groups: what their records say becomes the groups.

use std::sync::Arc;

use super::member::{ConsumerMember, EPOCH_LEAVE, Owned};
use super::{ConsumerGroup, records};
use crate::machine::GroupMachine;
use crate::machine::group::{Group, GroupState, Kind};
use crate::machine::member::MemberId;
use crate::record::{BadRecord, ConsumerEntry};

impl ConsumerEntry {
    fn group(&self) -> &str {
        match self {
            Self::Epoch(key, _) => &key.group_id,
            Self::OldMetadata(key, _) => &key.group_id,
            Self::Member(key, _) => &key.group_id,
            Self::TargetEpoch(key, _) => &key.group_id,
            Self::Target(key, _) => &key.group_id,
            Self::Current(key, _) => &key.group_id,
            Self::Regex(key, _) => &key.group_id,
        }
    }

    const fn is_tombstone(&self) -> bool {
        match self {
            Self::Epoch(_, value) => value.is_none(),
            Self::OldMetadata(_, value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::Regex(_, value) => value.is_none(),
        }
    }
}

impl GroupMachine {
    pub(in crate::machine) fn replay_consumer(&mut self, entry: ConsumerEntry) -> Result<(), BadRecord> {
        let id = entry.group().to_owned();
        let found = self.take_group(&id);
        if entry.is_tombstone() && found.as_ref().is_none_or(|group| group.consumer().is_none()) {
            // Of a group that is gone, or has become a classic one.
            found.into_iter().for_each(|group| self.put_back(group));
            return Ok(());
        }
        let mut group = found.unwrap_or_else(|| Group::new(Arc::from(id.as_str()), 0));
        if group.consumer().is_none() {
            if !group.members.is_empty() || group.persisted || group.share().is_some() {
                return Err(BadRecord::Impossible("is a classic and a consumer group"));
            }
            // A name for offsets, or nothing yet.
            group.kind = Kind::Consumer(Box::default());
        }
        if let ConsumerEntry::Epoch(_, None) = entry {
            group.kind = Kind::Classic;
            group.state = GroupState::Empty;
        } else if let Some(consumer) = group.consumer_mut() {
            consumer.load(entry);
        }
        self.put_back(group);
        Ok(())
    }
}

impl ConsumerGroup {
    fn load(&mut self, entry: ConsumerEntry) {
        match entry {
            ConsumerEntry::Epoch(_, value) => {
                if let Some(value) = value {
                    self.epoch = value.epoch;
                    self.metadata_hash = value.metadata_hash;
                }
            }
            ConsumerEntry::OldMetadata(_, value) => self.has_old_metadata = value.is_some(),
            ConsumerEntry::Member(key, Some(value)) => {
                self.alter(&key.member_id, |member| records::load_metadata(member, value));
            }
            ConsumerEntry::Member(key, None) => {
                self.unload_member(&MemberId::from(key.member_id));
            }
            ConsumerEntry::TargetEpoch(_, value) => {
                self.target_epoch = value.as_ref().map_or(-1, |value| value.assignment_epoch);
                self.target_at_ms = value.map_or(0, |value| value.assignment_timestamp);
            }
            ConsumerEntry::Target(key, value) => {
                self.load_target(&MemberId::from(key.member_id), value.map(records::load_target));
            }
            ConsumerEntry::Current(key, Some(value)) => {
                self.alter(&key.member_id, |member| records::load_current(member, value));
            }
            ConsumerEntry::Current(key, None) => {
                if self.members.contains_key(key.member_id.as_str()) {
                    self.alter(&key.member_id, |member| {
                        member.epoch = EPOCH_LEAVE;
                        member.previous_epoch = EPOCH_LEAVE;
                        member.assigned = Owned::new();
                        member.revoking = Owned::new();
                    });
                }
            }
            ConsumerEntry::Regex(key, value) => {
                self.load_regex(&key.regular_expression, value.map(records::load_regex));
            }
        }
    }

    fn alter(&mut self, id: &str, change: impl FnOnce(&mut ConsumerMember)) {
        let id = MemberId::from(id);
        let mut member = self.members.get(&id).cloned().unwrap_or_default();
        change(&mut member);
        self.load_member(&id, member);
    }
}
