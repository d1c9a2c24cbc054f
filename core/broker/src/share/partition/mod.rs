//! What the members of a group have of one partition, as a pure state machine: which records are with whom, which are done
//! with, and where the first one stands that is not.
//!
//! Every record from the start offset to the last one that was ever given out has a slot. A record is in one state:
//! available, acquired by one member until its lock ends, acknowledged, or archived (rejected, given out too often, or gone
//! from the log). What changes is *dirty* until it is written to the share coordinator; one write is on its way at a time,
//! and whoever has acknowledged is answered when the write that says so is committed. The start offset moves with a
//! committed write, and only forward.
//!
//! When a write fails for good the machine is of no use: whoever goes on reads what is stored.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use towpath_coordinator::share::SharedState;
use towpath_wire::ErrorCode;
use towpath_wire::share_group_records::StateBatch;

/// Records that one share partition may have in mind, whatever was stored of it (R10).
const SLOTS_MAX: i64 = 1_000_000;

const AVAILABLE: i8 = 0;
const ACKNOWLEDGED: i8 = 2;
const ARCHIVED: i8 = 4;

/// What an acknowledgement says of a record, by Kafka's numbers.
const GAP: i8 = 0;
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

/// What a group's partitions go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareSettings {
    /// `share.record.lock.duration.ms`.
    pub(crate) lock_ms: i64,
    /// `share.delivery.count.limit`.
    pub(crate) deliveries_max: i16,
    /// `share.partition.max.record.locks`.
    pub(crate) locks_max: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Available,
    Acquired { member: Arc<str>, until_ms: i64 },
    Acknowledged,
    Archived,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    state: State,
    /// How often it was given out.
    deliveries: i16,
    /// What the coordinator knows is something else.
    is_dirty: bool,
}

impl Slot {
    const NEW: Self = Self { state: State::Available, deliveries: 0, is_dirty: false };

    const fn is_done(&self) -> bool {
        matches!(self.state, State::Acknowledged | State::Archived)
    }

    /// As it is stored. Nobody is asked before a record is given out: that shows when it comes back.
    const fn stored(&self) -> (i8, i16) {
        match self.state {
            State::Available => (AVAILABLE, self.deliveries),
            State::Acquired { .. } => (AVAILABLE, self.deliveries - 1),
            State::Acknowledged => (ACKNOWLEDGED, self.deliveries),
            State::Archived => (ARCHIVED, self.deliveries),
        }
    }

    fn archive(&mut self) {
        self.state = State::Archived;
        self.is_dirty = true;
    }

    /// It comes back: for the next one, unless it was given out often enough.
    fn release(&mut self, settings: &ShareSettings) {
        self.state =
            if self.deliveries >= settings.deliveries_max { State::Archived } else { State::Available };
        self.is_dirty = true;
    }

    fn is_with(&self, by: &str) -> bool {
        matches!(&self.state, State::Acquired { member, .. } if **member == *by)
    }
}

/// A stretch of the log as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: i64,
    pub(crate) last: i64,
    /// Whether there are records for members in it; the others are control records and those of aborted transactions.
    pub(crate) is_data: bool,
}

/// Who wants records, and how many.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) member: Arc<str>,
    pub(crate) records_max: usize,
    /// Whether not one more than that may be given; otherwise the last batch is given whole.
    pub(crate) is_strict: bool,
    /// Records of one entry in the answer, more or less.
    pub(crate) batch_size: usize,
}

/// Records that were given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) deliveries: i16,
}

/// What a member says of the records from `first` to `last`: the same of all, or of each by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) types: Vec<i8>,
}

/// Somebody who waits until what was acknowledged is stored. The caller chooses the numbers, each once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AckToken(pub(crate) u64);

/// What is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) start_offset: i64,
    /// How many from there on are done with.
    pub(crate) done: i32,
    pub(crate) batches: Vec<StateBatch>,
}

#[derive(Debug)]
struct InFlight {
    start_offset: i64,
    waiting: Vec<AckToken>,
}

/// One partition, as a group's members have it.
#[derive(Debug)]
pub(crate) struct SharePartitionMachine {
    settings: ShareSettings,
    start: i64,
    slots: VecDeque<Slot>,
    /// When locks end: stretches by time. What was acknowledged or renewed meanwhile is passed over.
    locks: BTreeMap<i64, Vec<(i64, i64)>>,
    /// Stretches in it.
    lock_ranges: usize,
    /// Something has to be written.
    is_dirty: bool,
    in_flight: Option<InFlight>,
    waiting: Vec<AckToken>,
}

impl SharePartitionMachine {
    /// A partition as it is stored.
    ///
    /// # Errors
    /// When what is stored cannot be (R7).
    pub(crate) fn load(stored: &SharedState, settings: ShareSettings) -> Result<Self, &'static str> {
        let start = stored.summary.start_offset;
        if !(0..=i64::MAX - SLOTS_MAX).contains(&start) {
            return Err("it begins where no records can be");
        }
        let mut slots = VecDeque::new();
        for batch in stored.batches.iter().filter(|batch| batch.last_offset >= start) {
            let end = batch.last_offset - start + 1;
            if end > SLOTS_MAX {
                return Err("it spans more records than can be");
            }
            let state = match batch.delivery_state {
                AVAILABLE => State::Available,
                ACKNOWLEDGED => State::Acknowledged,
                ARCHIVED => State::Archived,
                _ => return Err("it has a record in a state that is not known"),
            };
            let slot = Slot { state, deliveries: batch.delivery_count, is_dirty: false };
            let first = usize::try_from(batch.first_offset.max(start) - start).unwrap_or(usize::MAX);
            let end = usize::try_from(end).unwrap_or(0);
            if slots.len() < end {
                slots.resize(end, Slot::NEW);
            }
            slots.iter_mut().take(end).skip(first).for_each(|place| *place = slot.clone());
        }
        Ok(Self {
            settings,
            start,
            slots,
            locks: BTreeMap::new(),
            lock_ranges: 0,
            is_dirty: false,
            in_flight: None,
            waiting: Vec::new(),
        })
    }

    /// The group goes by these settings now.
    pub(crate) const fn configure(&mut self, settings: ShareSettings) {
        self.settings = settings;
    }

    /// All before it are done with, as far as it is stored.
    #[cfg(test)]
    pub(crate) const fn start(&self) -> i64 {
        self.start
    }

    fn end(&self) -> i64 {
        self.start + i64::try_from(self.slots.len()).unwrap_or(i64::MAX)
    }

    fn slot_mut(&mut self, offset: i64) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    fn slot(&self, offset: i64) -> Option<&Slot> {
        self.slots.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    /// Where to read for somebody who wants records; none while as many are out as may be.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        let available = (self.start..).zip(&self.slots).find(|(_, slot)| slot.state == State::Available);
        match available {
            Some((offset, _)) => Some(offset),
            None if self.slots.len() < self.settings.locks_max => Some(self.end()),
            None => None,
        }
    }

    /// Whether there is nothing that this machine knows and the coordinator does not.
    pub(crate) fn is_idle(&self) -> bool {
        let is_out = |slot: &Slot| matches!(slot.state, State::Acquired { .. });
        !self.is_dirty && self.in_flight.is_none() && !self.slots.iter().any(is_out)
    }

    /// When [`Self::tick`] is due.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.locks.first_key_value().map(|(at_ms, _)| *at_ms)
    }

    /// Ends the locks whose time has come. True when records are available that were not.
    pub(crate) fn tick(&mut self, now_ms: i64) -> bool {
        let mut has_released = false;
        while let Some(entry) = self.locks.first_entry().filter(|entry| *entry.key() <= now_ms) {
            let ended = entry.remove();
            self.lock_ranges -= ended.len();
            for (first, last) in ended {
                for offset in first.max(self.start)..=last {
                    let settings = self.settings;
                    let Some(slot) = self.slot_mut(offset) else { break };
                    let is_over =
                        matches!(slot.state, State::Acquired { until_ms, .. } if until_ms <= now_ms);
                    if is_over {
                        slot.release(&settings);
                        has_released = true;
                    }
                }
            }
        }
        self.is_dirty |= has_released;
        has_released
    }

    /// The log begins at `offset` now: what was before it is gone.
    pub(crate) fn log_starts_at(&mut self, offset: i64) {
        if offset <= self.start {
            return;
        }
        for _ in self.start..offset.min(self.end()) {
            self.slots.pop_front();
        }
        self.start = offset;
        self.is_dirty = true;
    }

    /// Gives records out that were read from `from` on: those that are available, in order.
    pub(crate) fn acquire(&mut self, now_ms: i64, from: i64, runs: &[Run], wish: &Wish) -> Vec<Acquired> {
        let mut given: Vec<Acquired> = Vec::new();
        let mut taken = 0usize;
        let mut next = from.max(self.start);
        let until_ms = now_ms.saturating_add(self.settings.lock_ms);
        for run in runs {
            let (first, last) = (run.first.max(next), run.last);
            if first > last {
                continue;
            }
            // Between two batches there is nothing (any more).
            if (taken >= wish.records_max) || !self.mark_gone(next, first - 1) {
                break;
            }
            if !run.is_data {
                if !self.mark_gone(first, last) {
                    break;
                }
                next = last + 1;
                continue;
            }
            let mut begins = true;
            for offset in first..=last {
                if wish.is_strict && taken >= wish.records_max || !self.make_place(offset) {
                    self.lock(&given, until_ms);
                    return given;
                }
                if let Some(deliveries) = self.give(offset, &wish.member, until_ms) {
                    taken += 1;
                    note(&mut given, offset, deliveries, begins, wish.batch_size);
                    begins = false;
                }
            }
            next = last + 1;
        }
        self.lock(&given, until_ms);
        given
    }

    /// Notes when the locks of records that were given out end.
    fn lock(&mut self, given: &[Acquired], until_ms: i64) {
        given.iter().for_each(|it| self.note_lock(until_ms, it.first, it.last));
        self.trim_locks();
    }

    /// Makes sure that an offset within or right behind the window has a slot; false when the window is as long as it may
    /// be.
    fn make_place(&mut self, offset: i64) -> bool {
        if offset < self.end() {
            return true;
        }
        if self.slots.len() >= self.settings.locks_max {
            return false;
        }
        self.slots.push_back(Slot::NEW);
        true
    }

    fn give(&mut self, offset: i64, member: &Arc<str>, until_ms: i64) -> Option<i16> {
        let deliveries_max = self.settings.deliveries_max;
        let slot = self.slot_mut(offset).filter(|slot| slot.state == State::Available)?;
        if slot.deliveries >= deliveries_max {
            // The limit was lowered meanwhile.
            slot.archive();
            self.is_dirty = true;
            return None;
        }
        slot.deliveries += 1;
        slot.state = State::Acquired { member: Arc::clone(member), until_ms };
        Some(slot.deliveries)
    }

    /// Records that are not there, or not for members. False when that has to wait until the window is shorter.
    fn mark_gone(&mut self, first: i64, last: i64) -> bool {
        let end = self.end();
        for offset in first..=last.min(end - 1) {
            if let Some(slot) = self.slot_mut(offset).filter(|slot| slot.state == State::Available) {
                slot.archive();
                self.is_dirty = true;
            }
        }
        if last < end {
            return true;
        }
        if self.slots.is_empty() {
            // As if the log began there.
            self.start = last + 1;
            self.is_dirty = true;
            return true;
        }
        let more = usize::try_from(last - end + 1).unwrap_or(usize::MAX);
        if self.slots.len().saturating_add(more) > self.settings.locks_max {
            return false;
        }
        let gone = Slot { state: State::Archived, deliveries: 0, is_dirty: true };
        self.slots.resize(self.slots.len() + more, gone);
        self.is_dirty = true;
        true
    }

    /// Takes what a member says of records that it has; all of it or nothing. True when it has to wait until that is
    /// stored; it is named by [`Self::written`] then.
    ///
    /// # Errors
    /// `INVALID_REQUEST`; `INVALID_RECORD_STATE` when the member does not have one of the records (any more).
    pub(crate) fn acknowledge(
        &mut self,
        now_ms: i64,
        member: &str,
        said: &[Acknowledgement],
        token: AckToken,
    ) -> Result<bool, ErrorCode> {
        self.tick(now_ms);
        // R10: of each record once, and in order.
        if !said.is_sorted_by(|said, next| said.last < next.first) {
            return Err(ErrorCode::InvalidRequest);
        }
        said.iter().try_for_each(|said| self.check(member, said))?;
        let mut has_changed = false;
        for said in said {
            for offset in said.first.max(self.start)..=said.last {
                has_changed |= self.take(now_ms, member, offset, said.of(offset));
            }
        }
        self.trim_locks();
        if has_changed {
            self.is_dirty = true;
            self.waiting.push(token);
        }
        Ok(has_changed)
    }

    /// Whether a member may say that; what was done with before does not matter.
    fn check(&self, member: &str, said: &Acknowledgement) -> Result<(), ErrorCode> {
        if said.last < said.first || said.first < 0 || !said.has_types() {
            return Err(ErrorCode::InvalidRequest);
        }
        if said.last >= self.end() {
            // It was never given to anybody.
            return Err(ErrorCode::InvalidRequest);
        }
        let mut offsets = said.first.max(self.start)..=said.last;
        let is_with = |offset| self.slot(offset).is_some_and(|slot| slot.is_with(member));
        if offsets.all(is_with) { Ok(()) } else { Err(ErrorCode::InvalidRecordState) }
    }

    /// True when that has to be stored.
    fn take(&mut self, now_ms: i64, member: &str, offset: i64, kind: i8) -> bool {
        let settings = self.settings;
        // One that is named twice was taken before.
        let Some(slot) = self.slot_mut(offset).filter(|slot| slot.is_with(member)) else { return false };
        match kind {
            ACCEPT => {
                slot.state = State::Acknowledged;
                slot.is_dirty = true;
            }
            RELEASE => slot.release(&settings),
            RENEW => {
                let until_ms = now_ms.saturating_add(settings.lock_ms);
                if let State::Acquired { until_ms: until, .. } = &mut slot.state {
                    *until = until_ms;
                }
                self.note_lock(until_ms, offset, offset);
                return false;
            }
            _ => slot.archive(),
        }
        true
    }

    fn note_lock(&mut self, until_ms: i64, first: i64, last: i64) {
        let locks = self.locks.entry(until_ms).or_default();
        match locks.last_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ => {
                locks.push((first, last));
                self.lock_ranges += 1;
            }
        }
    }

    /// R10: whoever renews locks again and again leaves stretches behind that end nothing.
    fn trim_locks(&mut self) {
        if self.lock_ranges <= 2 * self.slots.len() {
            return;
        }
        let until = |slot: &Slot| match slot.state {
            State::Acquired { until_ms, .. } => Some(until_ms),
            _ => None,
        };
        let slots = (self.start..).zip(&self.slots);
        let held: Vec<(i64, i64)> = slots.filter_map(|(offset, slot)| Some((until(slot)?, offset))).collect();
        self.locks.clear();
        self.lock_ranges = 0;
        held.into_iter().for_each(|(until_ms, offset)| self.note_lock(until_ms, offset, offset));
    }

    /// A member is gone: what it has comes back. True when there was something.
    pub(crate) fn release_member(&mut self, member: &str) -> bool {
        let settings = self.settings;
        let mut has_released = false;
        for slot in self.slots.iter_mut().filter(|slot| slot.is_with(member)) {
            slot.release(&settings);
            has_released = true;
        }
        self.is_dirty |= has_released;
        has_released
    }

    /// What is to be stored next; none while a write is on its way, or when there is nothing.
    pub(crate) fn take_write(&mut self) -> Option<Write> {
        if self.in_flight.is_some() || !self.is_dirty {
            return None;
        }
        self.is_dirty = false;
        let done_first = self.slots.iter().take_while(|slot| slot.is_done()).count();
        let start_offset = self.start + i64::try_from(done_first).unwrap_or(0);
        let mut batches: Vec<StateBatch> = Vec::new();
        let mut done = 0;
        for (offset, slot) in (self.start..).zip(&mut self.slots) {
            let is_dirty = std::mem::take(&mut slot.is_dirty);
            if offset < start_offset {
                continue;
            }
            done += i32::from(slot.is_done());
            if !is_dirty {
                continue;
            }
            let (delivery_state, delivery_count) = slot.stored();
            match batches.last_mut() {
                Some(last)
                    if last.last_offset + 1 == offset
                        && (last.delivery_state, last.delivery_count) == (delivery_state, delivery_count) =>
                {
                    last.last_offset = offset;
                }
                _ => batches.push(StateBatch {
                    first_offset: offset,
                    last_offset: offset,
                    delivery_state,
                    delivery_count,
                }),
            }
        }
        self.in_flight = Some(InFlight { start_offset, waiting: std::mem::take(&mut self.waiting) });
        Some(Write { start_offset, done, batches })
    }

    /// The write that was on its way is committed. Returns who waited for it.
    pub(crate) fn written(&mut self) -> Vec<AckToken> {
        let Some(in_flight) = self.in_flight.take() else { return Vec::new() };
        while self.start < in_flight.start_offset {
            self.slots.pop_front();
            self.start += 1;
        }
        in_flight.waiting
    }
}

impl Acknowledgement {
    fn has_types(&self) -> bool {
        let records = usize::try_from(self.last - self.first).unwrap_or(usize::MAX).saturating_add(1);
        let is_known = |kind: &i8| matches!(*kind, GAP | ACCEPT | RELEASE | REJECT | RENEW);
        (self.types.len() == 1 || self.types.len() == records) && self.types.iter().all(is_known)
    }

    /// Whether it renews a lock.
    pub(crate) fn renews(&self) -> bool {
        self.types.contains(&RENEW)
    }

    fn of(&self, offset: i64) -> i8 {
        let at = usize::try_from(offset - self.first).unwrap_or(0);
        self.types.get(at).or_else(|| self.types.first()).copied().unwrap_or(GAP)
    }
}

/// Notes a record that was given out, beside the one before it if that is alike. A batch of the log is not torn apart for
/// the size of an entry.
fn note(given: &mut Vec<Acquired>, offset: i64, deliveries: i16, begins: bool, batch_size: usize) {
    match given.last_mut() {
        Some(last)
            if last.last + 1 == offset
                && last.deliveries == deliveries
                && !(begins && usize::try_from(last.last - last.first + 1).unwrap_or(0) >= batch_size) =>
        {
            last.last = offset;
        }
        _ => given.push(Acquired { first: offset, last: offset, deliveries }),
    }
}
