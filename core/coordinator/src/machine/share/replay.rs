//! Loading share groups: what their records say becomes the groups.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ShareGroup, ShareMember, records};
use crate::machine::GroupMachine;
use crate::machine::consumer::Partitions;
use crate::machine::group::{Group, GroupState, Kind};
use crate::machine::member::MemberId;
use crate::record::{BadRecord, ShareEntry};

/// The epoch of a member that is leaving.
const EPOCH_LEAVE: i32 = -1;

impl ShareEntry {
    fn group(&self) -> &str {
        match self {
            Self::Epoch(key, _) => &key.group_id,
            Self::Member(key, _) => &key.group_id,
            Self::TargetEpoch(key, _) => &key.group_id,
            Self::Target(key, _) => &key.group_id,
            Self::Current(key, _) => &key.group_id,
            Self::State(key, _) => &key.group_id,
        }
    }

    const fn is_tombstone(&self) -> bool {
        match self {
            Self::Epoch(_, value) => value.is_none(),
            Self::Member(_, value) => value.is_none(),
            Self::TargetEpoch(_, value) => value.is_none(),
            Self::Target(_, value) => value.is_none(),
            Self::Current(_, value) => value.is_none(),
            Self::State(_, value) => value.is_none(),
        }
    }
}

impl GroupMachine {
    pub(in crate::machine) fn replay_share(&mut self, entry: ShareEntry) -> Result<(), BadRecord> {
        let id = entry.group().to_owned();
        let found = self.take_group(&id);
        if entry.is_tombstone() && found.as_ref().is_none_or(|group| group.share().is_none()) {
            // Of a group that is gone.
            found.into_iter().for_each(|group| self.put_back(group));
            return Ok(());
        }
        let mut group = found.unwrap_or_else(|| Group::new(Arc::from(id.as_str()), 0));
        if group.share().is_none() {
            if !group.members.is_empty() || group.persisted || group.consumer().is_some() {
                return Err(BadRecord::Impossible("is a share group and one of another kind"));
            }
            group.kind = Kind::Share(Box::default());
        }
        if let ShareEntry::Epoch(_, None) = entry {
            group.kind = Kind::Classic;
            group.state = GroupState::Empty;
        } else if let Some(share) = group.share_mut() {
            share.load(entry);
        }
        self.put_back(group);
        Ok(())
    }
}

impl ShareGroup {
    fn load(&mut self, entry: ShareEntry) {
        match entry {
            ShareEntry::Epoch(_, value) => {
                if let Some(value) = value {
                    self.epoch = value.epoch;
                    self.metadata_hash = value.metadata_hash;
                }
            }
            ShareEntry::Member(key, Some(value)) => {
                self.alter(&key.member_id, |member| records::load_metadata(member, value));
            }
            ShareEntry::Member(key, None) => {
                self.unload_member(&MemberId::from(key.member_id));
            }
            ShareEntry::TargetEpoch(_, value) => {
                self.target_epoch = value.as_ref().map_or(-1, |value| value.assignment_epoch);
                self.target_at_ms = value.map_or(0, |value| value.assignment_timestamp);
            }
            ShareEntry::Target(key, value) => {
                self.load_target(&MemberId::from(key.member_id), value.map(records::load_target));
            }
            ShareEntry::Current(key, Some(value)) => {
                self.alter(&key.member_id, |member| records::load_current(member, value));
            }
            ShareEntry::Current(key, None) => {
                if self.members.contains_key(key.member_id.as_str()) {
                    self.alter(&key.member_id, |member| {
                        member.epoch = EPOCH_LEAVE;
                        member.previous_epoch = EPOCH_LEAVE;
                        member.assigned = Partitions::new();
                    });
                }
            }
            ShareEntry::State(_, value) => {
                self.load_state_topics(value.map_or_else(BTreeMap::new, records::load_state));
            }
        }
    }

    fn alter(&mut self, id: &str, change: impl FnOnce(&mut ShareMember)) {
        let id = MemberId::from(id);
        let mut member = self.members.get(&id).cloned().unwrap_or_default();
        change(&mut member);
        self.load_member(&id, member);
    }
}
