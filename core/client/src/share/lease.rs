//! What a member has of one partition: ranges of records with a lock each, and what was said of every record; pure.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Acknowledgement;

/// What an acknowledgement says of an offset without a record.
const GAP: i8 = 0;
const RELEASE: i8 = Acknowledgement::Release.wire();
const RENEW: i8 = Acknowledgement::Renew.wire();
/// Given back without a word of the application; it travels as [`RELEASE`].
const GIVE_BACK: i8 = 5;

/// How one offset stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    /// It was acquired, and the application has not been given it (yet).
    Waiting,
    /// The application has it.
    Held,
    /// The application has said what becomes of it; the next poll or commit sends that.
    Said(i8),
    /// To be sent.
    Due(i8),
    /// Sent, and not answered.
    Sent(i8),
    /// With this member no longer.
    Done,
}

/// Records that were acquired together.
#[derive(Debug)]
struct Lease {
    /// The leader that gave them out.
    node: i32,
    /// When the lock has certainly ended.
    until: Instant,
    /// When what failed for a while is no longer sent again.
    retry_until: Option<Instant>,
    /// Some of its locks are being renewed.
    renewing: bool,
    slots: Vec<Slot>,
}

impl Lease {
    fn has(&self, is: impl Fn(Slot) -> bool) -> bool {
        self.slots.iter().any(|slot| is(*slot))
    }
}

const fn is_unsettled(slot: Slot) -> bool {
    matches!(slot, Slot::Due(_) | Slot::Sent(_))
}

/// Whether the application has said what becomes of it, and nobody has confirmed that.
const fn is_spoken(slot: Slot) -> bool {
    match slot {
        Slot::Said(_) => true,
        Slot::Due(kind) | Slot::Sent(kind) => kind != GAP && kind != GIVE_BACK,
        _ => false,
    }
}

const fn is_held(slot: Slot) -> bool {
    matches!(slot, Slot::Held | Slot::Said(_))
}

/// Consecutive offsets and what is said of each, or one word for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) types: Vec<i8>,
}

impl Batch {
    fn shorten(&mut self) {
        if let Some((first, rest)) = self.types.split_first()
            && rest.iter().all(|kind| kind == first)
        {
            self.types.truncate(1);
        }
    }
}

/// What is sent of a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) batches: Vec<Batch>,
    /// Locks are renewed with it.
    pub(super) renews: bool,
    /// The application has said some of it.
    pub(super) is_said: bool,
}

/// What became of what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is stored; renewed locks last for so long from now.
    Stored(Duration),
    /// It may be sent again, until then at most.
    Retry(Instant),
    /// It counts for nothing.
    Failed,
}

/// What was lost with leases that ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// The first offset.
    pub(super) first: Option<i64>,
    /// Records that the application had said nothing of.
    pub(super) held: usize,
    /// Records of which it had said something that nobody has confirmed.
    pub(super) spoken: usize,
}

/// All of one partition, by first offset; they do not overlap.
#[derive(Debug, Default)]
pub(super) struct Leases(BTreeMap<i64, Lease>);

impl Leases {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Records were given out. What the member had of them before is past.
    pub(super) fn acquire(&mut self, node: i32, first: i64, last: i64, until: Instant) {
        let Ok(count) = usize::try_from(last - first + 1) else { return };
        self.cut(first, last);
        let slots = vec![Slot::Waiting; count];
        let lease = Lease { node, until, retry_until: None, renewing: false, slots };
        self.0.insert(first, lease);
    }

    fn cut(&mut self, first: i64, last: i64) {
        let begins: Vec<i64> = self.0.range(..=last).rev().map(|(begin, _)| *begin).collect();
        for begin in begins {
            let Some(mut lease) = self.0.remove(&begin) else { continue };
            let len = i64::try_from(lease.slots.len()).unwrap_or(i64::MAX);
            if begin + len <= first {
                self.0.insert(begin, lease);
                break;
            }
            let behind = usize::try_from(last + 1 - begin).unwrap_or(0).min(lease.slots.len());
            let rest = lease.slots.split_off(behind);
            if !rest.is_empty() {
                let Lease { node, until, retry_until, renewing, .. } = lease;
                self.0.insert(last + 1, Lease { node, until, retry_until, renewing, slots: rest });
            }
            lease.slots.truncate(usize::try_from(first - begin).unwrap_or(0));
            if !lease.slots.is_empty() {
                self.0.insert(begin, lease);
            }
        }
    }

    fn slot(&mut self, offset: i64) -> Option<&mut Slot> {
        let (first, lease) = self.0.range_mut(..=offset).next_back()?;
        lease.slots.get_mut(usize::try_from(offset - first).ok()?)
    }

    /// The application is given a record; `false` when it is not (any more) this member's to give.
    pub(super) fn hold(&mut self, offset: i64) -> bool {
        match self.slot(offset) {
            Some(slot @ Slot::Waiting) => {
                *slot = Slot::Held;
                true
            }
            _ => false,
        }
    }

    /// All of these that the application was not given: they are gaps, or are given back.
    pub(super) fn settle_waiting(&mut self, first: i64, last: i64, exist: bool) {
        let kind = if exist { GIVE_BACK } else { GAP };
        for (begin, lease) in self.0.range_mut(..=last) {
            for (offset, slot) in (*begin..).zip(&mut lease.slots) {
                if *slot == Slot::Waiting && (first..=last).contains(&offset) {
                    *slot = Slot::Due(kind);
                }
            }
        }
    }

    /// Gives back all that the application was not given.
    pub(super) fn release_waiting(&mut self) {
        self.settle_waiting(i64::MIN, i64::MAX, true);
    }

    /// The application says what becomes of a record; `false` when it does not have it.
    pub(super) fn say(&mut self, offset: i64, what: Acknowledgement) -> bool {
        match self.slot(offset) {
            Some(slot @ (Slot::Held | Slot::Said(_) | Slot::Sent(RENEW))) => {
                *slot = Slot::Said(what.wire());
                true
            }
            Some(slot @ Slot::Due(RENEW)) => {
                *slot = Slot::Due(what.wire());
                true
            }
            _ => false,
        }
    }

    /// Accepts all that the application has said nothing of.
    pub(super) fn accept_held(&mut self) -> usize {
        let mut count = 0;
        for slot in self.0.values_mut().flat_map(|lease| &mut lease.slots) {
            if *slot == Slot::Held {
                *slot = Slot::Said(Acknowledgement::Accept.wire());
                count += 1;
            }
        }
        count
    }

    /// What was said is to be sent.
    pub(super) fn make_due(&mut self) {
        for slot in self.0.values_mut().flat_map(|lease| &mut lease.slots) {
            if let Slot::Said(kind) = *slot {
                *slot = Slot::Due(kind);
            }
        }
    }

    /// Whether something is to be sent to a broker.
    #[cfg(test)]
    fn has_due(&self, node: i32) -> bool {
        self.0.values().any(|lease| lease.node == node && lease.has(|slot| matches!(slot, Slot::Due(_))))
    }

    /// Whether a broker has given out anything of it.
    pub(super) fn is_of(&self, node: i32) -> bool {
        self.0.values().any(|lease| lease.node == node)
    }

    /// Locks of a broker are not renewed; whether that was asked for.
    pub(super) fn refuse_renewals(&mut self, node: i32) -> bool {
        let mut refused = false;
        for slot in self.0.values_mut().filter(|it| it.node == node).flat_map(|it| &mut it.slots) {
            if *slot == Slot::Due(RENEW) {
                *slot = Slot::Held;
                refused = true;
            }
        }
        refused
    }

    /// What is to be sent to a broker, in order; it counts as sent.
    pub(super) fn send(&mut self, node: i32) -> Sending {
        let mut batches: Vec<Batch> = Vec::new();
        let (mut renews, mut is_said) = (false, false);
        for (first, lease) in self.0.iter_mut().filter(|(_, lease)| lease.node == node) {
            let mut open: Option<Batch> = None;
            for (offset, slot) in (*first..).zip(&mut lease.slots) {
                let Slot::Due(kind) = *slot else {
                    batches.extend(open.take());
                    continue;
                };
                *slot = Slot::Sent(kind);
                renews |= kind == RENEW;
                lease.renewing |= kind == RENEW;
                is_said |= kind != GAP && kind != GIVE_BACK;
                let batch = open.get_or_insert(Batch { first: offset, last: offset, types: Vec::new() });
                batch.last = offset;
                batch.types.push(if kind == GIVE_BACK { RELEASE } else { kind });
            }
            batches.extend(open);
        }
        batches.iter_mut().for_each(Batch::shorten);
        Sending { batches, renews, is_said }
    }

    /// What was sent to a broker is answered. The answer counts for all of it.
    pub(super) fn answered(&mut self, node: i32, now: Instant, answer: Answer) -> Answer {
        let mut outcome = answer;
        if let Answer::Retry(until) = answer {
            for lease in self.0.values_mut().filter(|lease| lease.node == node) {
                if lease.has(|slot| matches!(slot, Slot::Sent(_)))
                    && *lease.retry_until.get_or_insert(until) <= now
                {
                    outcome = Answer::Failed;
                }
            }
        }
        for lease in self.0.values_mut().filter(|lease| lease.node == node) {
            for slot in &mut lease.slots {
                let Slot::Sent(kind) = *slot else { continue };
                *slot = match outcome {
                    Answer::Retry(_) => Slot::Due(kind),
                    // It stays with the member for as long as the lock lasts.
                    _ if kind == RENEW => Slot::Held,
                    Answer::Stored(_) | Answer::Failed => Slot::Done,
                };
            }
            if !matches!(outcome, Answer::Retry(_)) {
                lease.retry_until = None;
                let renewed = std::mem::take(&mut lease.renewing);
                if let (true, Answer::Stored(lock)) = (renewed, outcome) {
                    lease.until = lease.until.max(now + lock);
                }
            }
        }
        self.prune();
        outcome
    }

    fn prune(&mut self) {
        self.0.retain(|_, lease| lease.has(|slot| slot != Slot::Done));
    }

    /// Forgets what was of a broker.
    pub(super) fn lose_node(&mut self, node: i32) -> Lost {
        self.lose(|lease| lease.node == node)
    }

    /// Forgets locks that have ended; those whose acknowledgements are on their way are the broker's to judge.
    pub(super) fn expire(&mut self, now: Instant) -> Lost {
        self.lose(|lease| lease.until <= now && !lease.has(is_unsettled))
    }

    fn lose(&mut self, is_lost: impl Fn(&Lease) -> bool) -> Lost {
        let mut lost = Lost::default();
        self.0.retain(|first, lease| {
            if !is_lost(lease) {
                return true;
            }
            lost.first = lost.first.or(Some(*first));
            lost.held += lease.slots.iter().filter(|slot| **slot == Slot::Held).count();
            lost.spoken += lease.slots.iter().filter(|slot| is_spoken(**slot)).count();
            false
        });
        lost
    }

    /// When the first lock ends.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.0.values().filter(|lease| !lease.has(is_unsettled)).map(|lease| lease.until).min()
    }

    /// Records that the application has.
    pub(super) fn held(&self) -> usize {
        self.0.values().flat_map(|lease| &lease.slots).filter(|slot| is_held(**slot)).count()
    }

    /// Whether acknowledgements are to be sent, or not answered.
    pub(super) fn is_unsettled(&self) -> bool {
        self.0.values().any(|lease| lease.has(is_unsettled))
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};

    use super::*;

    const LOCK: Duration = Duration::from_secs(30);

    fn leases(ranges: &[(i64, i64)], now: Instant) -> Leases {
        let mut leases = Leases::default();
        for (first, last) in ranges {
            leases.acquire(1, *first, *last, now + LOCK);
        }
        leases
    }

    fn batch(first: i64, last: i64, types: &[i8]) -> Batch {
        Batch { first, last, types: types.to_vec() }
    }

    #[test]
    fn what_is_said_is_sent_in_order_and_once() {
        let now = Instant::now();
        let mut leases = leases(&[(10, 14), (20, 20)], now);
        for offset in [10, 11, 13, 14, 20] {
            assert!(leases.hold(offset));
        }
        leases.settle_waiting(10, 14, false);
        assert!(leases.say(10, Acknowledgement::Accept) && leases.say(11, Acknowledgement::Reject));
        assert!(leases.say(20, Acknowledgement::Release));
        assert!(!leases.say(12, Acknowledgement::Accept), "there is no such record");
        assert!(leases.has_due(1), "the gap");
        leases.make_due();
        let sent = leases.send(1);
        assert_eq!(sent.batches, [batch(10, 12, &[1, 3, 0]), batch(20, 20, &[2])]);
        assert!(!sent.renews && sent.is_said && leases.is_unsettled() && !leases.has_due(1));
        assert!(!leases.say(10, Acknowledgement::Accept), "on its way");
        assert_eq!(leases.answered(1, now, Answer::Stored(LOCK)), Answer::Stored(LOCK));
        assert_eq!(leases.held(), 2);
        assert_eq!(leases.accept_held(), 2);
        leases.make_due();
        assert_eq!(leases.send(1).batches, [batch(13, 14, &[1])]);
        leases.answered(1, now, Answer::Failed);
        assert!(leases.is_empty());
    }

    #[test]
    fn a_renewed_record_stays_and_its_lock_begins_anew() {
        let now = Instant::now();
        let mut leases = leases(&[(0, 1)], now);
        assert!(leases.hold(0) && leases.hold(1));
        assert!(leases.say(0, Acknowledgement::Renew) && leases.say(1, Acknowledgement::Accept));
        leases.make_due();
        let sent = leases.send(1);
        assert_eq!((sent.batches, sent.renews), (vec![batch(0, 1, &[4, 1])], true));
        // Said while it is on its way: not lost with the answer.
        assert!(leases.say(0, Acknowledgement::Accept));
        let later = now + Duration::from_secs(20);
        leases.answered(1, later, Answer::Stored(LOCK));
        assert_eq!(leases.held(), 1);
        assert_eq!(leases.expire(now + Duration::from_secs(40)), Lost::default());
        leases.make_due();
        let sent = leases.send(1);
        assert_eq!((sent.batches, sent.renews), (vec![batch(0, 0, &[1])], false));
        leases.answered(1, later, Answer::Stored(LOCK));
        assert!(leases.is_empty());
    }

    #[test]
    fn what_fails_for_a_while_is_sent_again_until_the_time_is_up() {
        let now = Instant::now();
        let mut leases = leases(&[(0, 0)], now);
        leases.hold(0);
        leases.accept_held();
        leases.make_due();
        leases.send(1);
        let until = now + Duration::from_secs(5);
        assert_eq!(leases.answered(1, now, Answer::Retry(until)), Answer::Retry(until));
        assert!(leases.has_due(1));
        leases.send(1);
        let much_later = until + Duration::from_secs(60);
        assert_eq!(leases.answered(1, until, Answer::Retry(much_later)), Answer::Failed);
        assert!(leases.is_empty());
    }

    #[test]
    fn ends_of_locks_and_of_sessions_are_told() {
        let now = Instant::now();
        let mut leases = leases(&[(0, 3)], now);
        leases.acquire(2, 10, 11, now + 2 * LOCK);
        for offset in [0, 1, 10, 11] {
            leases.hold(offset);
        }
        leases.say(10, Acknowledgement::Accept);
        leases.make_due();
        assert_eq!(leases.expires_at(), Some(now + LOCK));
        assert_eq!(leases.expire(now + LOCK), Lost { first: Some(0), held: 2, spoken: 0 });
        assert_eq!(leases.lose_node(1), Lost::default());
        assert_eq!(leases.lose_node(2), Lost { first: Some(10), held: 1, spoken: 1 });
        assert!(leases.is_empty());
    }

    #[test]
    fn what_is_acquired_again_replaces_what_was() {
        let now = Instant::now();
        let mut leases = leases(&[(0, 9), (20, 29)], now);
        leases.acquire(2, 5, 22, now + LOCK);
        leases.acquire(2, 3, 3, now + LOCK);
        let spans: Vec<_> = leases.0.iter().map(|(at, it)| (*at, it.slots.len(), it.node)).collect();
        assert_eq!(spans, [(0, 3, 1), (3, 1, 2), (4, 1, 1), (5, 18, 2), (23, 7, 1)]);
    }

    /// Whatever is acquired, said, sent and answered: every record is in one lease, and what is sent is in order, without
    /// overlap, and what was said last.
    #[test]
    fn records_are_sent_once_with_what_was_said_of_them() {
        for seed in 0..500 {
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let now = Instant::now();
            let mut leases = Leases::default();
            let mut said: BTreeMap<i64, i8> = BTreeMap::new();
            let mut next = 0;
            for _ in 0..200 {
                match rng.random_range(0..5) {
                    0 => {
                        let first = next + rng.random_range(0..3);
                        next = first + rng.random_range(1..6);
                        leases.acquire(1, first, next - 1, now + LOCK);
                        (first..next).for_each(|offset| assert!(leases.hold(offset)));
                    }
                    1 | 2 if next > 0 => {
                        let offset = rng.random_range(0..next);
                        let what =
                            [Acknowledgement::Accept, Acknowledgement::Release, Acknowledgement::Reject]
                                [rng.random_range(0..3)];
                        if leases.say(offset, what) {
                            said.insert(offset, what.wire());
                        }
                    }
                    3 => {
                        leases.make_due();
                        let sent = leases.send(1).batches;
                        let mut end = -1;
                        for batch in sent {
                            assert!(batch.first > end, "seed {seed}");
                            end = batch.last;
                            for (at, offset) in (batch.first..=batch.last).enumerate() {
                                let kind = batch.types.get(at).or(batch.types.first()).copied();
                                assert_eq!(said.get(&offset).copied(), kind, "seed {seed}");
                            }
                        }
                    }
                    _ => {
                        let answers = [Answer::Stored(LOCK), Answer::Retry(now + LOCK), Answer::Failed];
                        leases.answered(1, now, answers[rng.random_range(0..3)]);
                    }
                }
            }
            let mut end = -1;
            for (first, lease) in &leases.0 {
                assert!(*first > end, "seed {seed}");
                end = first + lease.slots.len() as i64 - 1;
            }
        }
    }
}
