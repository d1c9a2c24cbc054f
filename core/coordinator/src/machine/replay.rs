//! Loading: what the log says becomes the groups.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use towpath_types::ProducerId;
use towpath_wire::{GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};

use super::group::{Group, GroupState};
use super::member::{Member, Protocol, Registration};
use super::offsets::{Committed, Offsets};
use super::{ClientContext, Command, GroupMachine, Now};
use crate::log::{LoadedEntry, TransactionalProducer};
use crate::record::{self, BadRecord, Entry};

impl GroupMachine {
    /// Takes what stands in the log, in its order; the newest record of each key wins, a tombstone takes away. What
    /// belongs to a transaction waits for its end.
    ///
    /// # Errors
    /// [`BadRecord`]: loading must stop (R7).
    pub fn replay(&mut self, entry: &LoadedEntry) -> Result<(), BadRecord> {
        let (offset, key, value, producer) = match entry {
            LoadedEntry::Record { offset, key, value, producer } => (offset, key, value, producer),
            LoadedEntry::Marker { producer, commit, .. } => {
                self.replay_marker(producer.id, *commit);
                return Ok(());
            }
        };
        let stamp = u64::try_from(offset.get()).unwrap_or(0);
        self.shared.stamp = self.shared.stamp.max(stamp);
        match record::decode(key.as_ref(), value.as_ref())? {
            Entry::Offset(key, value) => self.replay_offset(&key, value, stamp, *producer),
            Entry::Group(key, Some(value)) => self.replay_group(&key.group, value)?,
            Entry::Group(key, None) => self.replay_group_tombstone(&key.group),
            Entry::Consumer(entry) => self.replay_consumer(entry)?,
            Entry::Share(entry) => self.replay_share(entry)?,
        }
        Ok(())
    }

    fn replay_marker(&mut self, producer: ProducerId, commit: bool) {
        for id in self.shared.transactions.remove(&producer).unwrap_or_default() {
            if let Some(mut group) = self.take_group(&id) {
                group.offsets.end_transaction(producer, commit);
                self.put_back(group);
            }
        }
    }

    /// Everything is replayed: sessions begin now.
    pub fn loaded(&mut self, now: Now, out: &mut Vec<Command>) {
        self.next_expiry_ms = now
            .monotonic_ms
            .saturating_add(self.shared.config.offsets_retention_check_interval_ms.max(1_000));
        let ids: Vec<_> = self.groups.keys().cloned().collect();
        for id in ids {
            self.turn(&id, now, out, |turn| {
                turn.group.subscribed = turn.group.subscribed_topics();
                let members: Vec<_> = turn.group.members.keys().cloned().collect();
                members.iter().for_each(|member| turn.renew_session(member));
                if members.len() > turn.shared.config.members_max {
                    // The limit was lowered: those who rejoin first stay.
                    turn.prepare_rebalance();
                }
                turn.mind_loaded_consumer();
                turn.mind_loaded_share();
            });
        }
    }

    /// Puts a changed or new group back, and keeps the books.
    pub(super) fn put_back(&mut self, group: Group) {
        if group.is_nothing() {
            return;
        }
        self.shared.bytes.add(group.size_in_bytes());
        self.groups.insert(Arc::clone(&group.id), group);
    }

    pub(super) fn take_group(&mut self, id: &str) -> Option<Group> {
        let group = self.groups.remove(id)?;
        self.shared.bytes.take(group.size_in_bytes());
        Some(group)
    }

    fn replay_offset(
        &mut self,
        key: &OffsetCommitKey,
        value: Option<OffsetCommitValue>,
        stamp: u64,
        producer: Option<TransactionalProducer>,
    ) {
        let found = self.take_group(&key.group);
        let mut group = found.unwrap_or_else(|| {
            let since_ms = value.as_ref().map_or(0, |value| value.commit_timestamp);
            Group::new(Arc::from(key.group.as_str()), since_ms)
        });
        let place = (group.offsets.topic_name(&key.topic), key.partition);
        match (value, producer) {
            (Some(value), None) => group.offsets.put(place, Committed::from_value(value, stamp)),
            (Some(value), Some(producer)) => {
                self.shared.note_transaction(producer.id, &group.id);
                group.offsets.put_pending(producer.id, place, Committed::from_value(value, stamp));
            }
            (None, _) => group.offsets.remove(&place),
        }
        self.put_back(group);
    }

    fn replay_group(&mut self, id: &str, value: GroupMetadataValue) -> Result<(), BadRecord> {
        let old = self.take_group(id);
        if old.as_ref().is_some_and(|old| old.consumer().is_some() || old.share().is_some()) {
            tracing::warn!(
                group = id,
                "a classic group takes the place of a consumer group that was not deleted"
            );
        }
        let offsets = old.map_or_else(Offsets::default, |group| group.offsets);
        let mut group = Group::new(Arc::from(id), 0);
        group.offsets = offsets;
        group.persisted = true;
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|text| !text.is_empty());
        group.protocol_name.clone_from(&value.protocol);
        group.state_since_ms = Some(value.current_state_timestamp).filter(|since_ms| *since_ms >= 0);
        if !value.members.is_empty() {
            group.state = GroupState::Stable;
        }
        let mut seen = HashSet::with_capacity(value.members.len());
        for stored in value.members {
            let Some(protocol) = value.protocol.clone() else {
                return Err(BadRecord::Impossible("has members but no protocol"));
            };
            if !seen.insert(stored.member_id.clone()) {
                return Err(BadRecord::Impossible("has a member twice"));
            }
            if stored
                .group_instance_id
                .as_ref()
                .is_some_and(|instance| group.instances.contains_key(instance))
            {
                return Err(BadRecord::Impossible("has an instance id twice"));
            }
            let rebalance_timeout_ms =
                if stored.rebalance_timeout < 0 { stored.session_timeout } else { stored.rebalance_timeout };
            let registration = Registration {
                client: ClientContext { client_id: stored.client_id, host: stored.client_host },
                rebalance_timeout_ms,
                session_timeout_ms: stored.session_timeout,
                // Copied: a slice would keep the whole chunk of the log alive.
                protocols: vec![Protocol {
                    name: protocol,
                    metadata: Bytes::copy_from_slice(&stored.subscription),
                }],
            };
            let mut member = Member::new(registration, stored.group_instance_id);
            member.is_new = false;
            member.assignment = Bytes::copy_from_slice(&stored.assignment);
            group.add(Arc::from(stored.member_id), member, &value.protocol_type);
        }
        let leader = value.leader.and_then(|leader| group.members.get_key_value(leader.as_str()));
        if let Some((leader, _)) = leader {
            group.leader = Some(Arc::clone(leader));
        }
        self.put_back(group);
        Ok(())
    }

    fn replay_group_tombstone(&mut self, id: &str) {
        if self.groups.get(id).is_some_and(|group| group.consumer().is_some() || group.share().is_some()) {
            // It went when the consumer or share group came.
            return;
        }
        if let Some(old) = self.take_group(id) {
            let mut group = Group::new(old.id, 0);
            group.offsets = old.offsets;
            self.put_back(group);
        }
    }
}
