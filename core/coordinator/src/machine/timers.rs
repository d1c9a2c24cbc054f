//! Deadlines: one per key, ordered by time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::member::MemberId;

/// What a deadline is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TimerKind {
    /// A member, or somebody who was given a member id, must be heard of.
    Heartbeat(MemberId),
    /// The members have had their time to join.
    Join,
    /// The members have had their time to ask for their assignment.
    Sync,
    /// A member of a consumer group must be heard of.
    Session(MemberId),
    /// A member of a consumer group must have given up what it was asked for.
    Rebalance(MemberId),
    /// A member of a consumer group that uses the classic protocol must have joined again.
    MemberJoin(MemberId),
    /// Such a member must have asked for its assignment.
    MemberSync(MemberId),
    /// What could not be written is written again.
    Repair,
}

/// A deadline's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TimerKey {
    pub(super) group: Arc<str>,
    pub(super) kind: TimerKind,
}

/// All deadlines of a machine, in monotonic milliseconds.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(i64, u64), TimerKey>,
    places: HashMap<TimerKey, (i64, u64)>,
    next: u64,
}

impl Timers {
    /// Sets the deadline of `key`, in place of any earlier one.
    pub(super) fn set(&mut self, key: TimerKey, at_ms: i64) {
        self.cancel(&key);
        let place = (at_ms, self.next);
        self.next += 1;
        self.places.insert(key.clone(), place);
        self.due.insert(place, key);
    }

    /// Sets the deadline of `key` if it has none.
    pub(super) fn set_if_absent(&mut self, key: TimerKey, at_ms: i64) {
        if !self.places.contains_key(&key) {
            self.set(key, at_ms);
        }
    }

    /// Forgets the deadline of `key`, if there is one.
    pub(super) fn cancel(&mut self, key: &TimerKey) {
        if let Some(place) = self.places.remove(key) {
            self.due.remove(&place);
        }
    }

    /// The earliest deadline.
    pub(super) fn next_ms(&self) -> Option<i64> {
        self.due.first_key_value().map(|((at_ms, _), _)| *at_ms)
    }

    /// Takes out the earliest deadline that is not after `now_ms` and was set before the `bound`-th one: what is set
    /// while deadlines are worked off waits for the next round.
    pub(super) fn pop_due(&mut self, now_ms: i64, bound: u64) -> Option<TimerKey> {
        let entry = self.due.range(..=(now_ms, u64::MAX)).find(|((_, number), _)| *number < bound)?;
        let place = *entry.0;
        let key = self.due.remove(&place)?;
        self.places.remove(&key);
        Some(key)
    }

    /// The number that the next deadline gets.
    pub(super) const fn bound(&self) -> u64 {
        self.next
    }

    pub(super) fn len(&self) -> usize {
        self.due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, kind: TimerKind) -> TimerKey {
        TimerKey { group: Arc::from(group), kind }
    }

    #[test]
    fn deadlines_come_in_order_and_once() {
        let mut timers = Timers::default();
        timers.set(key("g", TimerKind::Join), 30);
        timers.set(key("g", TimerKind::Sync), 10);
        timers.set(key("g", TimerKind::Join), 20);
        timers.set(key("h", TimerKind::Join), 20);
        assert_eq!(timers.next_ms(), Some(10));
        let bound = timers.bound();
        let mut order = Vec::new();
        while let Some(key) = timers.pop_due(25, bound) {
            timers.set(key.clone(), 25);
            order.push(key);
        }
        assert_eq!(order, [key("g", TimerKind::Sync), key("g", TimerKind::Join), key("h", TimerKind::Join)]);
        assert_eq!(timers.len(), 3, "set again, for the next round");
        timers.cancel(&key("g", TimerKind::Sync));
        timers.cancel(&key("nobody", TimerKind::Sync));
        assert_eq!(timers.len(), 2);
    }
}
