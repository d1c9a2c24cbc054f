//! Consumer groups of KIP-848: the coordinator assigns, and each member goes to its assignment alone.
//!
//! A group is what its records say. [`ConsumerGroup`] changes only through methods that note which record has to be
//! written ([`Key`]); whatever follows from the records (who has a partition, what is subscribed to) is kept beside them.
//! The state in memory is ahead of the log while records are on their way; answers wait for them. When an append fails,
//! nothing is taken back: whoever waited is told to try again, as if its answer had been lost, and the records are
//! written again before anything else is answered. So the log can never hold what memory has given up.

mod assignor;
mod classic;
mod describe;
mod fence;
mod heartbeat;
mod member;
mod migrate;
mod offsets;
mod reconcile;
mod records;
mod regexes;
mod replay;
mod store;
mod target;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use towpath_types::TopicId;
use towpath_wire::ErrorCode;

pub use self::assignor::ASSIGNORS;
pub(crate) use self::heartbeat::heartbeat_error;
pub(in crate::machine) use self::member::{ConsumerMember, Partitions};
use self::member::{partitions_bytes, places};
pub(in crate::machine) use self::offsets::{CommitKind, CommittedPartition};
pub(in crate::machine) use self::records::Key;
pub use self::regexes::{ResolvedRegexes, resolve_regexes};
pub(in crate::machine) use self::store::Store;
use super::Now;
use super::member::MemberId;
use crate::config::GroupConfig;
use crate::topics::Topics;

const GROUP_OVERHEAD: usize = 512;
const REGEX_OVERHEAD: usize = 128;
const NAME_OVERHEAD: usize = 48;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::machine) struct Refusal {
    pub(in crate::machine) error: ErrorCode,
    pub(in crate::machine) message: String,
}

impl Refusal {
    pub(in crate::machine) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { error, message: message.into() }
    }
}

/// What decisions of a group are made with.
pub(in crate::machine) struct Context<'a> {
    pub(in crate::machine) group: &'a str,
    pub(in crate::machine) config: &'a GroupConfig,
    pub(in crate::machine) topics: &'a dyn Topics,
    pub(in crate::machine) now: Now,
    /// Bytes that the partition of the offsets topic may still take.
    pub(in crate::machine) room: usize,
}

/// The state of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerGroupState {
    /// No members; there can be offsets.
    Empty,
    /// The target assignment of the newest group epoch is not made yet.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has what the target gives it.
    Stable,
}

impl ConsumerGroupState {
    /// Kafka's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// What a regular expression was resolved to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::machine) struct ResolvedRegex {
    pub(in crate::machine) topics: BTreeSet<String>,
    /// [`Topics::epoch`] at that time.
    pub(in crate::machine) version: i64,
    pub(in crate::machine) at_ms: i64,
}

impl ResolvedRegex {
    fn size_in_bytes(&self) -> usize {
        REGEX_OVERHEAD + self.topics.iter().map(|topic| NAME_OVERHEAD + topic.len()).sum::<usize>()
    }
}

/// A consumer group.
#[derive(Debug, Default)]
pub(in crate::machine) struct ConsumerGroup {
    // What is stored.
    epoch: i32,
    metadata_hash: i64,
    members: BTreeMap<MemberId, ConsumerMember>,
    target_epoch: i32,
    target_at_ms: i64,
    targets: BTreeMap<MemberId, Partitions>,
    regexes: BTreeMap<String, ResolvedRegex>,
    /// A Kafka before 4.1 has stored what the group subscribes to; that record goes with the next change.
    has_old_metadata: bool,

    // What follows from it.
    instances: HashMap<String, MemberId>,
    holders: HashMap<(TopicId, i32), MemberId>,
    bytes: usize,

    // What is known beside it.
    /// The epoch of the topics that the metadata hash was made with.
    hashed_at: Option<i64>,
    is_resolving: bool,
    /// Records that have to be written.
    changed: BTreeSet<Key>,
}

impl ConsumerGroup {
    pub(in crate::machine) const fn members(&self) -> &BTreeMap<MemberId, ConsumerMember> {
        &self.members
    }

    pub(in crate::machine) const fn epoch(&self) -> i32 {
        self.epoch
    }

    pub(in crate::machine) fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.target_epoch {
            ConsumerGroupState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    pub(in crate::machine) const fn size_in_bytes(&self) -> usize {
        GROUP_OVERHEAD + self.bytes
    }

    fn instance(&self, instance: &str) -> Option<&MemberId> {
        self.instances.get(instance)
    }

    /// Whether somebody else has a partition, or has not given it up yet.
    fn is_held_by_others(&self, id: &MemberId, topic: TopicId, partition: i32) -> bool {
        self.holders.get(&(topic, partition)).is_some_and(|holder| holder != id)
    }

    fn subscribers_of_regex(&self, regex: &str) -> usize {
        self.members.values().filter(|member| member.regex() == Some(regex)).count()
    }

    /// Everything that members subscribe to, by name or by regular expression.
    fn subscribed_names(&self) -> BTreeSet<&str> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut regexes: BTreeSet<&str> = BTreeSet::new();
        for member in self.members.values() {
            names.extend(member.topics.iter().map(String::as_str));
            regexes.extend(member.regex());
        }
        for regex in regexes {
            if let Some(resolved) = self.regexes.get(regex) {
                names.extend(resolved.topics.iter().map(String::as_str));
            }
        }
        names
    }

    /// Whether somebody subscribes to a topic.
    pub(in crate::machine) fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| {
            let resolved = member.regex().and_then(|regex| self.regexes.get(regex));
            member.topics.contains(topic) || resolved.is_some_and(|resolved| resolved.topics.contains(topic))
        })
    }

    /// The topics that exist of those that a member subscribes to.
    fn subscribed_topics(&self, member: &ConsumerMember, topics: &dyn Topics) -> BTreeSet<TopicId> {
        let resolved = member.regex().and_then(|regex| self.regexes.get(regex));
        let by_regex = resolved.into_iter().flat_map(|resolved| &resolved.topics);
        member
            .topics
            .iter()
            .chain(by_regex)
            .filter_map(|name| topics.by_name(name))
            .map(|topic| topic.id)
            .collect()
    }

    // ---- Changes: each notes its record.

    fn set_epoch(&mut self, epoch: i32, metadata_hash: i64) {
        self.epoch = epoch;
        self.metadata_hash = metadata_hash;
        self.changed.insert(Key::Epoch);
        if self.has_old_metadata {
            self.has_old_metadata = false;
            self.changed.insert(Key::OldMetadata);
        }
    }

    fn put_member(&mut self, id: &MemberId, member: ConsumerMember) {
        let old = self.members.get(id);
        if old.is_none_or(|old| !old.has_same_metadata(&member)) {
            self.changed.insert(Key::Member(Arc::clone(id)));
        }
        if old.is_none_or(|old| !old.has_same_assignment(&member)) {
            self.changed.insert(Key::Current(Arc::clone(id)));
        }
        self.load_member(id, member);
    }

    /// As [`Self::put_member`], for what is in the log.
    fn load_member(&mut self, id: &MemberId, member: ConsumerMember) {
        self.unload_member(id);
        self.bytes += member.size_in_bytes() + 2 * id.len();
        if let Some(instance) = &member.instance_id {
            self.instances.insert(instance.clone(), Arc::clone(id));
        }
        for place in places(&member.assigned) {
            self.holders.insert(place, Arc::clone(id));
        }
        for place in places(&member.revoking) {
            // After a change that reached the log by half somebody may have it already.
            self.holders.entry(place).or_insert_with(|| Arc::clone(id));
        }
        self.members.insert(Arc::clone(id), member);
    }

    fn unload_member(&mut self, id: &MemberId) -> Option<ConsumerMember> {
        let member = self.members.remove(id)?;
        self.bytes -= member.size_in_bytes() + 2 * id.len();
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
        for place in places(&member.assigned).chain(places(&member.revoking)) {
            if self.holders.get(&place) == Some(id) {
                self.holders.remove(&place);
            }
        }
        Some(member)
    }

    /// Removes a member with all that belongs to it; a regular expression that nobody has any more goes, too.
    fn remove_member(&mut self, id: &MemberId) -> Option<ConsumerMember> {
        let member = self.unload_member(id)?;
        self.changed.insert(Key::Current(Arc::clone(id)));
        self.changed.insert(Key::Member(Arc::clone(id)));
        self.load_target(id, None);
        self.changed.insert(Key::Target(Arc::clone(id)));
        if let Some(regex) = member.regex() {
            self.forget_unused_regex(regex);
        }
        Some(member)
    }

    fn forget_unused_regex(&mut self, regex: &str) {
        if self.subscribers_of_regex(regex) == 0 && self.regexes.contains_key(regex) {
            self.load_regex(regex, None);
            self.changed.insert(Key::Regex(regex.to_owned()));
        }
    }

    fn put_target(&mut self, id: &MemberId, target: Partitions) {
        if self.targets.get(id) != Some(&target) {
            self.load_target(id, Some(target));
            self.changed.insert(Key::Target(Arc::clone(id)));
        }
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

    fn set_target_epoch(&mut self, epoch: i32, at_ms: i64) {
        self.target_epoch = epoch;
        self.target_at_ms = at_ms;
        self.changed.insert(Key::TargetEpoch);
    }

    fn put_regex(&mut self, regex: &str, resolved: ResolvedRegex) {
        self.load_regex(regex, Some(resolved));
        self.changed.insert(Key::Regex(regex.to_owned()));
    }

    fn load_regex(&mut self, regex: &str, resolved: Option<ResolvedRegex>) {
        if let Some(old) = self.regexes.remove(regex) {
            self.bytes -= old.size_in_bytes() + regex.len();
        }
        if let Some(resolved) = resolved {
            self.bytes += resolved.size_in_bytes() + regex.len();
            self.regexes.insert(regex.to_owned(), resolved);
        }
    }

    /// Every record that the group has in the log.
    pub(in crate::machine) fn keys(&self) -> BTreeSet<Key> {
        let mut keys: BTreeSet<Key> = [Key::Epoch, Key::TargetEpoch].into();
        if self.has_old_metadata {
            keys.insert(Key::OldMetadata);
        }
        for id in self.members.keys().chain(self.targets.keys()) {
            keys.insert(Key::Member(Arc::clone(id)));
            keys.insert(Key::Target(Arc::clone(id)));
            keys.insert(Key::Current(Arc::clone(id)));
        }
        keys.extend(self.regexes.keys().map(|regex| Key::Regex(regex.clone())));
        keys
    }

    // ---- What the topics mean for the group.

    /// A number that differs when something about the topics that the group subscribes to does.
    fn hash_of_topics(&self, topics: &dyn Topics) -> i64 {
        hash_of_topics(&self.subscribed_names(), topics)
    }

    /// Raises the group's epoch when asked to, or when its topics have changed. Looks at them only when they may have.
    fn refresh_metadata(&mut self, raise: bool, context: &Context<'_>) {
        if !raise && self.hashed_at == Some(context.topics.epoch()) {
            return;
        }
        let hash = self.hash_of_topics(context.topics);
        if raise || hash != self.metadata_hash {
            self.set_epoch(self.epoch.saturating_add(1), hash);
        }
        self.hashed_at = Some(context.topics.epoch());
    }
}

/// A number that differs when something about the topics with these names does; 0 when none of them exists.
pub(in crate::machine) fn hash_of_topics(names: &BTreeSet<&str>, topics: &dyn Topics) -> i64 {
    let mut hash = Hash::new();
    let mut any = false;
    for name in names {
        let Some(topic) = topics.by_name(name) else { continue };
        any = true;
        hash.text(name);
        hash.bytes(topic.id.get().as_bytes());
        hash.bytes(&topic.partitions.to_be_bytes());
        for partition in 0..topic.partitions {
            let racks = topics.racks(topic.id, partition);
            if !racks.is_empty() {
                hash.bytes(&partition.to_be_bytes());
                racks.iter().for_each(|rack| hash.text(rack));
            }
        }
    }
    if any { hash.finish() } else { 0 }
}

/// FNV-1a, with lengths between texts: stable across versions, as it is stored.
struct Hash(u64);

impl Hash {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn text(&mut self, text: &str) {
        self.bytes(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        self.bytes(text.as_bytes());
    }

    const fn finish(self) -> i64 {
        self.0.cast_signed()
    }
}
