//! Records that are cut into several appends where a batch of the topic cannot hold them all: tombstones of many offsets, and
//! what a large group writes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};

use towpath_wire::{ErrorCode, OffsetDeleteResponse};

use super::append::Effect;
use super::consumer::Key;
use super::group::GroupState;
use super::offsets::Place;
use super::turn::Turn;
use super::{Reply, Waiter};
use crate::record::{self, OffsetsRecord};

/// Bytes of records in one append that can be cut, at most: well below what a batch of the topic may have by default.
pub(super) const APPEND_BYTES_MAX: usize = 512 * 1024;
/// What a record takes beside key and value, and a batch beside its records, generously.
pub(crate) const RECORD_OVERHEAD: usize = 64;
const BATCH_OVERHEAD: usize = 128;

/// Bytes of records in one append, where a batch may have so many.
pub(crate) fn append_bytes(batch_bytes_max: usize) -> usize {
    batch_bytes_max.saturating_sub(BATCH_OVERHEAD).min(APPEND_BYTES_MAX)
}

/// What goes into one append, and the offsets that it takes away.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) records: Vec<OffsetsRecord>,
    pub(super) places: Vec<Place>,
}

/// Cuts records into appends of so many bytes, in their order; a larger record goes alone.
pub(super) fn parts_of(
    records: impl IntoIterator<Item = (Option<Place>, OffsetsRecord)>,
    append_bytes_max: usize,
) -> VecDeque<Part> {
    let mut parts: VecDeque<Part> = VecDeque::new();
    let mut bytes = usize::MAX;
    for (place, record) in records {
        let size = record.size_in_bytes() + RECORD_OVERHEAD;
        if bytes.saturating_add(size) > append_bytes_max {
            parts.push_back(Part::default());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.back_mut() {
            part.records.push(record);
            part.places.extend(place);
        }
    }
    parts
}

/// A group's deletion: one part is on its way at a time, the group's own records come last. Nothing is committed meanwhile,
/// since the group is dead.
#[derive(Debug)]
pub(super) struct Burial {
    pub(super) waiter: Option<Waiter>,
    pub(super) keys: BTreeSet<Key>,
    /// The offsets that go with the part that is on its way.
    pub(super) places: Vec<Place>,
    pub(super) rest: VecDeque<Part>,
}

/// A part of a deletion of offsets. All parts are sent at once, so that no later commit comes between them; the last one has
/// the answer.
#[derive(Debug)]
pub(super) struct OffsetDeletion {
    pub(super) answer: Option<(Waiter, OffsetDeleteResponse)>,
    places: Vec<Place>,
    /// What became of the parts, if one could not be written.
    failed: Arc<OnceLock<ErrorCode>>,
}

impl Turn<'_> {
    /// The tombstones of these offsets. An offset that stands in the log has a key that can be written.
    fn tombstones(&self, places: Vec<Place>) -> Vec<(Option<Place>, OffsetsRecord)> {
        let tombstone = |place: Place| {
            let record = record::offset_record(&self.offset_key(&place), None, self.now.wall_ms).ok()?;
            Some((Some(place), record))
        };
        places.into_iter().filter_map(tombstone).collect()
    }

    /// Deletes offsets; who has asked for it is answered when the log has all tombstones.
    pub(super) fn remove_offsets(
        &mut self,
        places: Vec<Place>,
        mut answer: Option<(Waiter, OffsetDeleteResponse)>,
    ) {
        let parts = parts_of(self.tombstones(places), self.shared.append_bytes_max);
        let (count, failed) = (parts.len(), Arc::default());
        for (index, Part { records, places }) in parts.into_iter().enumerate() {
            let answer = if index + 1 == count { answer.take() } else { None };
            let deletion = OffsetDeletion { answer, places, failed: Arc::clone(&failed) };
            self.append(records, Effect::DeleteOffsets(deletion));
        }
        if let Some((waiter, response)) = answer {
            // There is nothing to delete.
            self.respond(waiter, Reply::OffsetDelete(response));
        }
    }

    /// A part is in the log, or is not: those that are there have taken their offsets away.
    pub(super) fn finish_offset_deletion(&mut self, deletion: OffsetDeletion, result: Result<(), ErrorCode>) {
        let OffsetDeletion { answer, places, failed } = deletion;
        match result {
            Ok(()) => places.iter().for_each(|place| self.group.offsets.remove(place)),
            Err(error) => {
                // The first error is told.
                let _another = failed.set(error);
            }
        }
        let Some((waiter, mut response)) = answer else { return };
        if let Some(error) = failed.get() {
            response = OffsetDeleteResponse { error_code: error.code(), ..Default::default() };
        }
        self.respond(waiter, Reply::OffsetDelete(response));
    }

    /// Deletes the group, which is empty: dead until the log has the tombstones, and then forgotten.
    pub(super) fn bury(&mut self, waiter: Option<Waiter>) {
        let mut records = self.tombstones(self.group.offsets.places());
        let keys = self.buried_keys();
        // A group in the log has keys that can be written.
        let own = keys.iter().filter_map(|key| key.tombstone(&self.group.id, self.now.wall_ms).ok());
        records.extend(own.map(|record| (None, record)));
        if self.group.consumer().is_none() && self.group.share().is_none() {
            let record = record::group_record(&self.group.id, None, self.now.wall_ms).ok();
            records.extend(record.map(|record| (None, record)));
        }
        self.cancel_timer(super::timers::TimerKind::Repair);
        self.group.state = GroupState::Dead;
        let rest = parts_of(records, self.shared.append_bytes_max);
        self.bury_next(Burial { waiter, keys, places: Vec::new(), rest });
    }

    /// The records of a consumer or share group, those included that are on their way or could not be written.
    fn buried_keys(&mut self) -> BTreeSet<Key> {
        let mut keys = self.group.store.bury();
        if let Some(consumer) = self.group.consumer() {
            keys.extend(consumer.keys());
        }
        if let Some(share) = self.group.share() {
            keys.extend(share.keys());
        }
        keys
    }

    fn bury_next(&mut self, mut burial: Burial) {
        let Part { records, places } = burial.rest.pop_front().unwrap_or_default();
        burial.places = places;
        self.append(records, Effect::DeleteGroup(burial));
    }

    /// A part of a group's deletion is in the log, or could not be written. What is there is gone, also where what follows
    /// fails: the group then lives on with the rest.
    pub(super) fn finish_burial(&mut self, burial: Burial, result: Result<(), ErrorCode>) {
        if result.is_ok() {
            burial.places.iter().for_each(|place| self.group.offsets.remove(place));
            if !burial.rest.is_empty() {
                self.bury_next(burial);
                return;
            }
        }
        if let Some(waiter) = burial.waiter {
            self.respond(waiter, Reply::DeleteGroup(result.err().unwrap_or(ErrorCode::None)));
        }
        if result.is_err() {
            self.group.state = GroupState::Empty;
            if !burial.keys.is_empty() {
                // The tombstones may be there all the same.
                self.group.store.unwritten.extend(burial.keys);
                self.store(None);
            }
            return;
        }
        // Ids that were given out meant nothing but a promise: their owners begin anew.
        for id in std::mem::take(&mut self.group.pending) {
            self.cancel_timer(super::timers::TimerKind::Heartbeat(id));
        }
    }
}
