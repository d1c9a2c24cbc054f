//! Share groups (KIP-932): members share partitions, and the coordinator tells each which to fetch from. What becomes of
//! single records is not decided here, but by the leader of each partition.
//!
//! A group is what its records say, as a consumer group is: it changes only through methods that note which record has to
//! be written, and answers wait for the log.

mod assignor;
mod heartbeat;
mod offsets;
mod records;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use towpath_types::TopicId;

pub use self::assignor::SIMPLE_ASSIGNOR;
pub(crate) use self::heartbeat::share_heartbeat_error;
pub use self::offsets::{ShareStateTopic, ShareStateView};
pub(in crate::machine) use self::records::{ShareKey, record_of};
use super::consumer::{Key, Partitions, hash_of_topics};
use super::member::MemberId;
use super::{ClientContext, Now};
use crate::topics::Topics;

const GROUP_OVERHEAD: usize = 384;
const MEMBER_OVERHEAD: usize = 256;
const NAME_OVERHEAD: usize = 48;
const TOPIC_OVERHEAD: usize = 96;
const PARTITION_BYTES: usize = 16;

/// A member of a share group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::machine) struct ShareMember {
    rack_id: Option<String>,
    client: ClientContext,
    topics: BTreeSet<String>,
    epoch: i32,
    /// The epoch before: a member that did not get an answer comes with it.
    previous_epoch: i32,
    assigned: Partitions,
}

fn partitions_bytes(partitions: &Partitions) -> usize {
    partitions.values().map(|indexes| TOPIC_OVERHEAD + indexes.len() * PARTITION_BYTES).sum()
}

impl ShareMember {
    /// Bytes of what it says about itself.
    fn metadata_bytes(&self) -> usize {
        MEMBER_OVERHEAD
            + self.rack_id.as_ref().map_or(0, String::len)
            + self.client.client_id.len()
            + self.client.host.len()
            + self.topics.iter().map(|topic| NAME_OVERHEAD + topic.len()).sum::<usize>()
    }

    fn size_in_bytes(&self) -> usize {
        self.metadata_bytes() + partitions_bytes(&self.assigned)
    }

    fn has_same_metadata(&self, other: &Self) -> bool {
        self.rack_id == other.rack_id && self.client == other.client && self.topics == other.topics
    }

    fn has_same_assignment(&self, other: &Self) -> bool {
        self.epoch == other.epoch
            && self.previous_epoch == other.previous_epoch
            && self.assigned == other.assigned
    }
}

/// A topic whose records the group has been given, or is being given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::machine) struct StateTopic {
    name: String,
    partitions: BTreeSet<i32>,
}

/// A share group.
#[derive(Debug, Default)]
pub(in crate::machine) struct ShareGroup {
    // What is stored.
    epoch: i32,
    metadata_hash: i64,
    members: BTreeMap<MemberId, ShareMember>,
    target_epoch: i32,
    target_at_ms: i64,
    targets: BTreeMap<MemberId, Partitions>,
    /// The topics whose share partitions may have a state.
    state_topics: BTreeMap<TopicId, StateTopic>,

    // What is known beside it.
    bytes: usize,
    /// The epoch of the topics that the metadata hash was made with.
    hashed_at: Option<i64>,
    /// Until when nobody may join, by the clock that only goes forward: its states are being deleted.
    held_until_ms: i64,
    /// Records that have to be written.
    pub(in crate::machine) changed: BTreeSet<Key>,
}

impl ShareGroup {
    pub(in crate::machine) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    const fn is_held(&self, now: Now) -> bool {
        now.monotonic_ms < self.held_until_ms
    }

    pub(in crate::machine) fn members(&self) -> impl Iterator<Item = &MemberId> {
        self.members.keys()
    }

    /// Kafka's name of the group's state.
    pub(in crate::machine) fn state(&self) -> &'static str {
        if self.members.is_empty() { "Empty" } else { "Stable" }
    }

    pub(in crate::machine) const fn size_in_bytes(&self) -> usize {
        GROUP_OVERHEAD + self.bytes
    }

    fn change(&mut self, key: ShareKey) {
        self.changed.insert(Key::Share(key));
    }

    fn set_epoch(&mut self, epoch: i32, metadata_hash: i64) {
        self.epoch = epoch;
        self.metadata_hash = metadata_hash;
        self.change(ShareKey::Epoch);
    }

    fn put_member(&mut self, id: &MemberId, member: ShareMember) {
        let old = self.members.get(id);
        let has_new_metadata = old.is_none_or(|old| !old.has_same_metadata(&member));
        let has_new_assignment = old.is_none_or(|old| !old.has_same_assignment(&member));
        if has_new_metadata {
            self.change(ShareKey::Member(Arc::clone(id)));
        }
        if has_new_assignment {
            self.change(ShareKey::Current(Arc::clone(id)));
        }
        self.load_member(id, member);
    }

    fn load_member(&mut self, id: &MemberId, member: ShareMember) {
        self.unload_member(id);
        self.bytes += member.size_in_bytes() + id.len();
        self.members.insert(Arc::clone(id), member);
    }

    fn unload_member(&mut self, id: &MemberId) -> Option<ShareMember> {
        let member = self.members.remove(id)?;
        self.bytes -= member.size_in_bytes() + id.len();
        Some(member)
    }

    fn remove_member(&mut self, id: &MemberId) -> bool {
        if self.unload_member(id).is_none() {
            return false;
        }
        self.load_target(id, None);
        self.change(ShareKey::Current(Arc::clone(id)));
        self.change(ShareKey::Member(Arc::clone(id)));
        self.change(ShareKey::Target(Arc::clone(id)));
        true
    }

    fn load_target(&mut self, id: &MemberId, target: Option<Partitions>) {
        if let Some(old) = self.targets.remove(id) {
            self.bytes -= partitions_bytes(&old) + id.len();
        }
        if let Some(target) = target {
            self.bytes += partitions_bytes(&target) + id.len();
            self.targets.insert(Arc::clone(id), target);
        }
    }

    fn load_state_topics(&mut self, topics: BTreeMap<TopicId, StateTopic>) {
        let bytes = |topics: &BTreeMap<TopicId, StateTopic>| -> usize {
            let topic = |topic: &StateTopic| {
                TOPIC_OVERHEAD + topic.name.len() + topic.partitions.len() * PARTITION_BYTES
            };
            topics.values().map(topic).sum()
        };
        self.bytes -= bytes(&self.state_topics);
        self.bytes += bytes(&topics);
        self.state_topics = topics;
    }

    /// Every record that the group has in the log.
    pub(in crate::machine) fn keys(&self) -> BTreeSet<Key> {
        let mut keys =
            BTreeSet::from([ShareKey::Epoch, ShareKey::TargetEpoch, ShareKey::State].map(Key::Share));
        for id in self.members.keys().chain(self.targets.keys()) {
            keys.insert(Key::Share(ShareKey::Member(Arc::clone(id))));
            keys.insert(Key::Share(ShareKey::Target(Arc::clone(id))));
            keys.insert(Key::Share(ShareKey::Current(Arc::clone(id))));
        }
        keys.extend(self.changed.iter().cloned());
        keys
    }

    /// Raises the group's epoch when asked to, or when its topics have changed; true when it was raised.
    fn refresh_metadata(&mut self, raise: bool, topics: &dyn Topics) -> bool {
        if !raise && self.hashed_at == Some(topics.epoch()) {
            return false;
        }
        let names: BTreeSet<&str> =
            self.members.values().flat_map(|member| &member.topics).map(String::as_str).collect();
        let hash = hash_of_topics(&names, topics);
        self.hashed_at = Some(topics.epoch());
        if !raise && hash == self.metadata_hash {
            return false;
        }
        self.set_epoch(self.epoch.saturating_add(1), hash);
        true
    }

    /// Makes the target of the group's epoch.
    fn update_targets(&mut self, topics: &dyn Topics, now_ms: i64) {
        let wishes = self.members.iter().map(|(id, member)| (Arc::clone(id), &member.topics));
        let mut targets = assignor::assign(wishes, topics);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        for id in ids {
            let target = targets.remove(&id).unwrap_or_default();
            let old = self.targets.get(&id);
            if old != Some(&target) && !(old.is_none() && target.is_empty()) {
                self.load_target(&id, Some(target));
                self.change(ShareKey::Target(id));
            }
        }
        self.target_epoch = self.epoch;
        self.target_at_ms = now_ms;
        self.change(ShareKey::TargetEpoch);
        self.note_state_topics(topics);
    }

    /// Notes the topics whose partitions somebody is given, and forgets those that are gone.
    fn note_state_topics(&mut self, topics: &dyn Topics) {
        let mut noted = self.state_topics.clone();
        noted.retain(|id, _| topics.by_id(*id).is_some());
        for (id, partitions) in self.targets.values().flatten() {
            let Some(topic) = topics.by_id(*id) else { continue };
            let entry = noted.entry(*id).or_insert_with(|| StateTopic {
                name: (*topic.name).to_owned(),
                partitions: BTreeSet::new(),
            });
            entry.partitions.extend(partitions);
        }
        if noted != self.state_topics {
            self.load_state_topics(noted);
            self.change(ShareKey::State);
        }
    }
}
