//! The share partitions of one partition of `__share_group_state`, as a pure state machine.
//!
//! What is in memory is ahead of the log while records are on their way; every answer waits for those of its share
//! partition. When an append fails, its record may be there or not: the share partition is then *unsure*. What is written
//! of it are snapshots of everything then, and until one of them is committed nothing of it is told.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use towpath_types::{TopicId, limits};
use towpath_wire::ErrorCode;
use towpath_wire::share_group_records::StateBatch;

use super::batches::are_sound;
use super::record::{self, StateEntry, key_of};
use super::state::{ShareKey, ShareState, StateSummary};
use crate::machine::Waiter;
use crate::record::{BadRecord, OffsetsRecord};

/// A share partition of a topic that is not known is forgotten when it was begun so many milliseconds ago: by then every
/// broker has heard of the topic's beginning, and it can only have ended.
const UNKNOWN_TOPIC_MS: i64 = 10 * 60 * 1_000;

/// The settings of the share coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareStateConfig {
    /// `share.coordinator.snapshot.update.records.per.snapshot`: updates between two snapshots.
    pub updates_per_snapshot: u32,
    /// Share partitions of one partition of the state topic.
    pub states_max: usize,
    /// Bytes that they may take.
    pub bytes_max: usize,
}

impl Default for ShareStateConfig {
    fn default() -> Self {
        Self {
            updates_per_snapshot: 500,
            states_max: limits::SHARE_STATES_MAX,
            bytes_max: limits::GROUP_PARTITION_BYTES_MAX,
        }
    }
}

/// A share partition's state, as its leader reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedState {
    /// Everything but the batches.
    pub summary: StateSummary,
    /// Records from the start offset on that are not as at first, in order.
    pub batches: Vec<StateBatch>,
}

/// What a leader writes.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareWrite {
    /// The beginning that the leader has read.
    pub state_epoch: i32,
    /// The leader's epoch.
    pub leader_epoch: i32,
    /// All before it are done with; -1 when that has not changed.
    pub start_offset: i64,
    /// How many from there on are done with; -1 where that is not known.
    pub delivery_complete_count: i32,
    /// What has changed.
    pub batches: Vec<StateBatch>,
}

/// An answer: the state to one who reads, nothing to others; or why not.
pub type ShareReply = Result<Option<SharedState>, ErrorCode>;

/// An append's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareToken(u64);

/// What the machine wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum ShareCommand {
    /// Answer a waiter; it waits no longer.
    Respond {
        /// Who.
        waiter: Waiter,
        /// What.
        reply: ShareReply,
    },
    /// Append records after all of earlier commands, and tell [`ShareStateMachine::appended`]. Without records it is only
    /// told that all before it are done.
    Append {
        /// The append's name.
        token: ShareToken,
        /// What to append.
        records: Vec<OffsetsRecord>,
    },
}

#[derive(Debug)]
struct Entry {
    state: ShareState,
    /// The log may lack what is in memory, until a snapshot with this token or a later one is committed.
    unsure: Option<ShareToken>,
    /// The newest snapshot that is on its way. An update says what has changed since one that is committed.
    sent: Option<ShareToken>,
}

impl Entry {
    const fn new(state: ShareState) -> Self {
        Self { state, unsure: None, sent: None }
    }
}

/// An append that is not done.
#[derive(Debug)]
struct Pending {
    key: ShareKey,
    waiter: Option<Waiter>,
    reads: bool,
    change: Change,
}

/// The share partitions of one partition of the state topic.
#[derive(Debug)]
pub struct ShareStateMachine {
    config: ShareStateConfig,
    entries: HashMap<ShareKey, Entry>,
    bytes: usize,
    pending: HashMap<ShareToken, Pending>,
    next_token: u64,
}

impl ShareStateMachine {
    /// A machine without share partitions.
    #[must_use]
    pub fn new(config: ShareStateConfig) -> Self {
        Self { config, entries: HashMap::new(), bytes: 0, pending: HashMap::new(), next_token: 0 }
    }

    /// How many share partitions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes what stands in the log, in its order.
    ///
    /// # Errors
    /// [`BadRecord`]: loading must stop (R7).
    pub fn replay(&mut self, key: Option<&Bytes>, value: Option<&Bytes>) -> Result<(), BadRecord> {
        match record::decode(key, value)? {
            StateEntry::Snapshot(key, value) => {
                let key = key_of(&key.group_id, key.topic_id, key.partition);
                self.remove(&key);
                if let Some(value) = value {
                    self.insert(key, Entry::new(ShareState::from_snapshot(value)));
                }
            }
            StateEntry::Update(key, Some(value)) => {
                let key = key_of(&key.group_id, key.topic_id, key.partition);
                // The snapshot may have been taken away since, and then the share partition was.
                if let Some(mut entry) = self.remove(&key) {
                    entry.state.replay(&value);
                    self.insert(key, entry);
                }
            }
            StateEntry::Update(_, None) => {}
        }
        Ok(())
    }

    fn remove(&mut self, key: &ShareKey) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.bytes -= entry.state.size_in_bytes() + key.group.len();
        Some(entry)
    }

    fn insert(&mut self, key: ShareKey, entry: Entry) {
        self.bytes += entry.state.size_in_bytes() + key.group.len();
        self.entries.insert(key, entry);
    }

    /// Begins a share partition, or begins it anew if it is older.
    pub fn initialize(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        key: ShareKey,
        (state_epoch, start_offset): (i32, i64),
        out: &mut Vec<ShareCommand>,
    ) {
        let known = self.entries.get(&key).map(|entry| entry.state.summary);
        let leader_epoch = match known {
            Some(known) if known.state_epoch > state_epoch => {
                return respond(out, waiter, Err(ErrorCode::FencedStateEpoch));
            }
            Some(known) if known.state_epoch == state_epoch => {
                // It was begun before; what is known of it stays.
                return self.append(now_ms, Some(waiter), key, Change::None, out);
            }
            Some(known) => known.leader_epoch,
            None => -1,
        };
        if known.is_none() && !self.has_room() {
            tracing::warn!(%key, states = self.entries.len(), "no room for another share partition");
            return respond(out, waiter, Err(ErrorCode::CoordinatorNotAvailable));
        }
        let before = self.remove(&key);
        let mut entry = Entry::new(ShareState::new(state_epoch, start_offset, now_ms));
        entry.state.summary.leader_epoch = leader_epoch;
        entry.state.snapshot_epoch = -1;
        if let Some(before) = before {
            entry.state.snapshot_epoch = before.state.snapshot_epoch;
            (entry.unsure, entry.sent) = (before.unsure, before.sent);
        }
        self.insert(key.clone(), entry);
        self.append(now_ms, Some(waiter), key, Change::Snapshot, out);
    }

    /// R10.
    fn has_room(&self) -> bool {
        self.entries.len() < self.config.states_max && self.bytes < self.config.bytes_max
    }

    /// Takes what a leader writes.
    pub fn write(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        key: ShareKey,
        write: &ShareWrite,
        out: &mut Vec<ShareCommand>,
    ) {
        if let Err(error) = self.check_write(&key, write) {
            return respond(out, waiter, Err(error));
        }
        if let Some(mut entry) = self.remove(&key) {
            let summary = &mut entry.state.summary;
            summary.leader_epoch = write.leader_epoch;
            summary.delivery_complete_count = write.delivery_complete_count;
            entry.state.written_ms = now_ms;
            entry.state.change(write.start_offset, &write.batches);
            self.insert(key.clone(), entry);
        }
        self.append(now_ms, Some(waiter), key, Change::Update, out);
    }

    fn check_write(&self, key: &ShareKey, write: &ShareWrite) -> Result<(), ErrorCode> {
        let Some(entry) = self.entries.get(key) else { return Err(ErrorCode::InvalidRequest) };
        let known = entry.state.summary;
        // R6.
        if known.leader_epoch > write.leader_epoch {
            return Err(ErrorCode::FencedLeaderEpoch);
        }
        if known.state_epoch != write.state_epoch {
            return Err(ErrorCode::FencedStateEpoch);
        }
        let batches = entry.state.batches.len() + write.batches.len();
        if !are_sound(&write.batches) || batches > limits::SHARE_STATE_BATCHES_MAX {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.bytes >= self.config.bytes_max && entry.state.grows_with(write.start_offset, &write.batches) {
            // R10: what is done with makes room.
            tracing::warn!(%key, bytes = self.bytes, "no room for more of a share partition");
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        Ok(())
    }

    /// What is on its way now may not be all of it.
    fn set_unsure(&mut self, key: &ShareKey) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.unsure = Some(ShareToken(self.next_token));
        }
    }

    /// Reads a state for a leader; leaders of older epochs write nothing from here on. One that was never begun has the
    /// start offset -1 and the state epoch -1.
    pub fn read(
        &mut self,
        now_ms: i64,
        waiter: Waiter,
        key: ShareKey,
        leader_epoch: i32,
        out: &mut Vec<ShareCommand>,
    ) {
        let Some(entry) = self.entries.get_mut(&key) else {
            let summary = StateSummary {
                state_epoch: -1,
                leader_epoch: -1,
                start_offset: -1,
                delivery_complete_count: -1,
            };
            return respond(out, waiter, Ok(Some(SharedState { summary, batches: Vec::new() })));
        };
        let known = &mut entry.state.summary.leader_epoch;
        if *known > leader_epoch {
            return respond(out, waiter, Err(ErrorCode::FencedLeaderEpoch));
        }
        let change = if *known < leader_epoch {
            *known = leader_epoch;
            Change::Update
        } else if entry.unsure.is_some() {
            Change::Snapshot
        } else {
            Change::None
        };
        self.append_as(now_ms, Some(waiter), key, change, true, out);
    }

    /// Forgets a share partition; one that is not there is forgotten already.
    pub fn delete(&mut self, now_ms: i64, waiter: Waiter, key: ShareKey, out: &mut Vec<ShareCommand>) {
        self.remove(&key);
        self.append(now_ms, Some(waiter), key, Change::Tombstones, out);
    }

    /// Forgets the share partitions of topics that are gone.
    pub fn topics_deleted(
        &mut self,
        now_ms: i64,
        is_gone: &dyn Fn(TopicId) -> bool,
        out: &mut Vec<ShareCommand>,
    ) {
        self.forget(now_ms, &|key, _| is_gone(key.topic), out);
    }

    /// Forgets the share partitions of topics that nobody knows, if they were begun longer ago than this broker's
    /// metadata may be behind.
    pub fn topics_unknown(&mut self, now_ms: i64, unknown: &BTreeSet<TopicId>, out: &mut Vec<ShareCommand>) {
        let before_ms = now_ms.saturating_sub(UNKNOWN_TOPIC_MS);
        self.forget(now_ms, &|key, state| unknown.contains(&key.topic) && state.created_ms <= before_ms, out);
    }

    fn forget(
        &mut self,
        now_ms: i64,
        is_gone: &dyn Fn(&ShareKey, &ShareState) -> bool,
        out: &mut Vec<ShareCommand>,
    ) {
        let gone = self.entries.iter().filter(|(key, entry)| is_gone(key, &entry.state));
        let gone: Vec<ShareKey> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.remove(&key);
            self.append(now_ms, None, key, Change::Tombstones, out);
        }
    }

    /// The topics whose share partitions there are.
    #[must_use]
    pub fn topics(&self) -> BTreeSet<TopicId> {
        self.entries.keys().map(|key| key.topic).collect()
    }

    /// What is told of a share partition without its batches; `None` when it was never begun.
    #[must_use]
    pub fn summary(&self, key: &ShareKey) -> Option<StateSummary> {
        self.entries.get(key).map(|entry| entry.state.summary)
    }

    fn append(
        &mut self,
        now_ms: i64,
        waiter: Option<Waiter>,
        key: ShareKey,
        change: Change,
        out: &mut Vec<ShareCommand>,
    ) {
        self.append_as(now_ms, waiter, key, change, false, out);
    }

    fn append_as(
        &mut self,
        now_ms: i64,
        waiter: Option<Waiter>,
        key: ShareKey,
        change: Change,
        reads: bool,
        out: &mut Vec<ShareCommand>,
    ) {
        let (records, change) = match self.records(&key, change, now_ms) {
            Ok(written) => written,
            Err(error) => {
                tracing::error!(%key, %error, "a share partition cannot be stored");
                self.set_unsure(&key);
                if let Some(waiter) = waiter {
                    respond(out, waiter, Err(ErrorCode::InvalidRequest));
                }
                return;
            }
        };
        let token = ShareToken(self.next_token);
        self.next_token += 1;
        if let Some(entry) = self.entries.get_mut(&key).filter(|_| change == Change::Snapshot) {
            entry.sent = Some(token);
        }
        self.pending.insert(token, Pending { key, waiter, reads, change });
        out.push(ShareCommand::Append { token, records });
    }

    fn records(
        &mut self,
        key: &ShareKey,
        change: Change,
        now_ms: i64,
    ) -> Result<(Vec<OffsetsRecord>, Change), towpath_wire::EncodeError> {
        if change == Change::Tombstones {
            let update = record::update_record(key, None, now_ms)?;
            return Ok((vec![update, record::snapshot_record(key, None, now_ms)?], change));
        }
        let Some(entry) = self.entries.get_mut(key).filter(|_| change != Change::None) else {
            return Ok((Vec::new(), Change::None));
        };
        let before = entry.state.size_in_bytes();
        // An update that says more than the whole state saves nothing.
        let is_due = entry.state.updates >= self.config.updates_per_snapshot
            || entry.state.since.len() > entry.state.batches.len() + 64;
        let is_due = is_due || entry.unsure.is_some() || entry.sent.is_some();
        let (record, change) = if change == Change::Snapshot || is_due {
            let snapshot = entry.state.snapshot();
            (record::snapshot_record(key, Some(&snapshot), now_ms), Change::Snapshot)
        } else {
            (record::update_record(key, Some(&entry.state.update()), now_ms), Change::Update)
        };
        self.bytes = self.bytes + entry.state.size_in_bytes() - before;
        Ok((vec![record?], change))
    }

    /// Tells that an append is committed in the log, or that it failed.
    pub fn appended(
        &mut self,
        token: ShareToken,
        result: Result<(), ErrorCode>,
        out: &mut Vec<ShareCommand>,
    ) {
        let Some(pending) = self.pending.remove(&token) else { return };
        if let Some(entry) = self.entries.get_mut(&pending.key) {
            entry.sent = entry.sent.filter(|sent| *sent != token);
        }
        match self.entries.get_mut(&pending.key) {
            Some(_) if result.is_err() && pending.change != Change::None => self.set_unsure(&pending.key),
            Some(entry) if pending.change == Change::Snapshot => {
                entry.unsure = entry.unsure.filter(|since| token < *since);
            }
            _ => {}
        }
        let Some(waiter) = pending.waiter else { return };
        let entry = self.entries.get(&pending.key);
        let reply = match (result, entry) {
            (Err(error), _) => Err(error),
            // What came before it has failed meanwhile: it is not known what the log says.
            (Ok(()), Some(entry)) if entry.unsure.is_some() => Err(ErrorCode::CoordinatorNotAvailable),
            (Ok(()), Some(entry)) if pending.reads => {
                let batches = entry.state.batches.clone();
                Ok(Some(SharedState { summary: entry.state.summary, batches }))
            }
            // Deleted meanwhile: it is asked for again.
            (Ok(()), None) if pending.reads => Err(ErrorCode::CoordinatorNotAvailable),
            (Ok(()), _) => Ok(None),
        };
        respond(out, waiter, reply);
    }

    /// Answers everybody with `error`: this broker does not coordinate the partition any more.
    pub fn unload(&mut self, error: ErrorCode, out: &mut Vec<ShareCommand>) {
        for (_, pending) in self.pending.drain() {
            if let Some(waiter) = pending.waiter {
                respond(out, waiter, Err(error));
            }
        }
        self.entries.clear();
        self.bytes = 0;
    }
}

/// What is written of a share partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing.
    None,
    /// What has changed, or everything when that is due.
    Update,
    /// Everything.
    Snapshot,
    /// That it is no more.
    Tombstones,
}

fn respond(out: &mut Vec<ShareCommand>, waiter: Waiter, reply: ShareReply) {
    out.push(ShareCommand::Respond { waiter, reply });
}

#[cfg(test)]
mod tests;
