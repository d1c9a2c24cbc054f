//! The machine against a simple model, from seeds.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use towpath_coordinator::share::StateSummary;

use super::*;

const SETTINGS: ShareSettings = ShareSettings { lock_ms: 100, deliveries_max: 3, locks_max: 20 };

fn stored(start_offset: i64, batches: Vec<StateBatch>) -> SharedState {
    let summary = StateSummary { state_epoch: 0, leader_epoch: 0, start_offset, delivery_complete_count: 0 };
    SharedState { summary, batches }
}

fn machine() -> SharePartitionMachine {
    SharePartitionMachine::load(&stored(0, vec![]), SETTINGS).unwrap()
}

fn wish(member: &str, records_max: usize) -> Wish {
    Wish { member: member.into(), records_max, is_strict: true, batch_size: 100 }
}

fn data(first: i64, last: i64) -> Run {
    Run { first, last, is_data: true }
}

fn say(first: i64, last: i64, kind: i8) -> Acknowledgement {
    Acknowledgement { first, last, types: vec![kind] }
}

fn acquired(first: i64, last: i64, deliveries: i16) -> Acquired {
    Acquired { first, last, deliveries }
}

#[test]
fn records_go_out_once_and_come_back_when_the_lock_ends() {
    let mut machine = machine();
    assert_eq!(machine.acquire(0, 0, &[data(0, 4)], &wish("a", 3)), [acquired(0, 2, 1)]);
    assert_eq!(machine.acquire(0, 0, &[data(0, 4)], &wish("b", 9)), [acquired(3, 4, 1)]);
    assert_eq!(machine.acquire(0, 0, &[data(0, 4)], &wish("b", 9)), []);
    assert_eq!(machine.next_offset(), Some(5));
    assert_eq!(machine.acknowledge(50, "a", &[say(0, 0, ACCEPT)], AckToken(1)), Ok(true));
    assert_eq!(machine.acknowledge(50, "a", &[say(1, 1, RENEW)], AckToken(2)), Ok(false));
    assert_eq!(machine.next_deadline_ms(), Some(100));
    assert!(machine.tick(100));
    assert_eq!(machine.next_offset(), Some(2), "the one was acknowledged, the other renewed");
    assert_eq!(machine.acquire(110, 2, &[data(0, 4)], &wish("b", 9)), [acquired(2, 4, 2)]);
    assert_eq!(
        machine.acknowledge(110, "a", &[say(2, 2, ACCEPT)], AckToken(3)),
        Err(ErrorCode::InvalidRecordState)
    );
    assert!(machine.tick(150));
    assert_eq!(machine.next_offset(), Some(1));
}

#[test]
fn an_acknowledgement_is_answered_when_its_write_is_committed() {
    let mut machine = machine();
    machine.acquire(0, 0, &[data(0, 9)], &wish("a", 10));
    let all = Acknowledgement { first: 0, last: 3, types: vec![ACCEPT, RELEASE, REJECT, GAP] };
    assert_eq!(machine.acknowledge(1, "a", &[all], AckToken(1)), Ok(true));
    let write = machine.take_write().unwrap();
    assert_eq!((write.start_offset, write.done), (1, 2));
    let said: Vec<_> =
        write.batches.iter().map(|it| (it.first_offset, it.last_offset, it.delivery_state)).collect();
    assert_eq!(said, [(1, 1, AVAILABLE), (2, 3, ARCHIVED)]);
    assert_eq!(machine.acknowledge(1, "a", &[say(4, 5, ACCEPT)], AckToken(2)), Ok(true));
    assert_eq!(machine.take_write(), None, "one at a time");
    assert_eq!(machine.start(), 0);
    assert_eq!(machine.written(), [AckToken(1)]);
    assert_eq!(machine.start(), 1);
    // What is done with is not wrong to acknowledge again, and says nothing.
    assert_eq!(machine.acknowledge(1, "a", &[say(0, 0, ACCEPT)], AckToken(3)), Ok(false));
    assert!(machine.take_write().is_some());
    assert_eq!(machine.written(), [AckToken(2)]);
    for wrong in [say(5, 4, ACCEPT), say(6, 7, 5), Acknowledgement { first: 6, last: 8, types: vec![1, 1] }] {
        assert_eq!(machine.acknowledge(1, "a", &[wrong], AckToken(4)), Err(ErrorCode::InvalidRequest));
    }
    let beyond = machine.acknowledge(1, "a", &[say(9, i64::MAX - 1, ACCEPT)], AckToken(4));
    assert_eq!(beyond, Err(ErrorCode::InvalidRequest));
}

#[test]
fn a_record_is_archived_when_it_was_given_out_often_enough() {
    let mut machine = machine();
    for round in 1..=3 {
        assert_eq!(machine.acquire(0, 0, &[data(0, 0)], &wish("a", 1)), [acquired(0, 0, round)]);
        assert!(machine.release_member("a"));
        assert!(!machine.release_member("a"));
    }
    assert_eq!(machine.acquire(0, 0, &[data(0, 0)], &wish("a", 1)), []);
    assert_eq!(machine.take_write().unwrap().start_offset, 1);
    machine.written();
    assert!(machine.is_idle());
}

#[test]
fn no_more_records_are_out_than_may_be() {
    let mut machine = machine();
    assert_eq!(machine.acquire(0, 0, &[data(0, 99)], &wish("a", 50)), [acquired(0, 19, 1)]);
    assert_eq!(machine.next_offset(), None);
    machine.acknowledge(0, "a", &[say(0, 4, ACCEPT)], AckToken(1)).unwrap();
    machine.take_write().unwrap();
    machine.written();
    assert_eq!(machine.next_offset(), Some(20));
    assert_eq!(machine.acquire(0, 20, &[data(0, 99)], &wish("b", 50)), [acquired(20, 24, 1)]);
}

#[test]
fn what_is_not_for_members_is_passed_over() {
    let mut machine = machine();
    let control = Run { first: 3, last: 3, is_data: false };
    let runs = [data(0, 2), control, data(6, 7), data(10, 10)];
    let wish = Wish { is_strict: false, batch_size: 2, ..wish("a", 4) };
    assert_eq!(machine.acquire(0, 0, &runs, &wish), [acquired(0, 2, 1), acquired(6, 7, 1)]);
    machine.acknowledge(0, "a", &[say(0, 2, ACCEPT)], AckToken(1)).unwrap();
    assert_eq!(machine.take_write().unwrap().start_offset, 6);
    machine.written();
    // The beginning of the log has moved; and a hole that is longer than the window.
    machine.log_starts_at(8);
    assert_eq!(machine.next_offset(), Some(8));
    let far = [data(5_000, 5_001)];
    assert_eq!(machine.acquire(0, 8, &far, &wish), [acquired(5_000, 5_001, 1)]);
    assert_eq!(machine.take_write().unwrap().start_offset, 5_000);
}

#[test]
fn what_cannot_be_is_not_loaded() {
    let batch = |first_offset, last_offset, delivery_state| StateBatch {
        first_offset,
        last_offset,
        delivery_state,
        delivery_count: 1,
    };
    let load = |batches| SharePartitionMachine::load(&stored(10, batches), SETTINGS).map(|_| ());
    assert!(load(vec![batch(0, 12, 0)]).is_ok());
    assert!(load(vec![batch(11, 12, 1)]).is_err());
    assert!(load(vec![batch(10, 5_000_000, 2)]).is_err());
    for start in [-1, i64::MAX - 1] {
        assert!(SharePartitionMachine::load(&stored(start, vec![]), SETTINGS).is_err(), "{start}");
    }
}

#[test]
fn what_is_said_of_records_is_said_once_and_in_order() {
    let mut machine = machine();
    machine.acquire(0, 0, &[data(0, 9)], &wish("a", 10));
    for said in [[say(0, 3, RENEW), say(3, 5, RENEW)], [say(4, 5, ACCEPT), say(0, 1, ACCEPT)]] {
        assert_eq!(machine.acknowledge(1, "a", &said, AckToken(1)), Err(ErrorCode::InvalidRequest));
    }
    assert_eq!(machine.acknowledge(1, "a", &[say(0, 3, ACCEPT), say(4, 5, ACCEPT)], AckToken(1)), Ok(true));
}

#[test]
fn locks_that_are_renewed_again_and_again_take_no_more_room() {
    let mut machine = machine();
    machine.acquire(0, 0, &[data(0, 9)], &wish("a", 10));
    for now in 1..90 {
        let every_other: Vec<_> = (0..5).map(|number| say(2 * number, 2 * number, RENEW)).collect();
        assert_eq!(machine.acknowledge(now, "a", &every_other, AckToken(1)), Ok(false));
        assert!(machine.lock_ranges <= 20, "{}", machine.lock_ranges);
        assert_eq!(machine.lock_ranges, machine.locks.values().map(Vec::len).sum::<usize>());
    }
    assert!(machine.tick(100));
    assert_eq!(machine.next_offset(), Some(1), "those that were not renewed");
    assert!(!machine.tick(188));
    assert!(machine.tick(189));
    assert_eq!((machine.next_offset(), machine.lock_ranges), (Some(0), 0));
    assert_eq!(machine.next_deadline_ms(), None);
}

/// What is known of everything, by the tests alone.
#[derive(Default)]
struct Model {
    /// Who has a record, and until when.
    held: BTreeMap<i64, (String, i64)>,
    accepted: BTreeSet<i64>,
    /// As the coordinator has it.
    start: i64,
    stored: BTreeMap<i64, (i8, i16)>,
    answered: BTreeSet<u64>,
    seed: u64,
}

impl Model {
    fn batches(&self) -> Vec<StateBatch> {
        let batch = |(offset, (delivery_state, delivery_count)): (&i64, &(i8, i16))| StateBatch {
            first_offset: *offset,
            last_offset: *offset,
            delivery_state: *delivery_state,
            delivery_count: *delivery_count,
        };
        self.stored.range(self.start..).map(batch).collect()
    }

    fn take(&mut self, write: &Write) {
        assert!(write.start_offset >= self.start, "the start offset goes forward");
        self.start = write.start_offset;
        for batch in &write.batches {
            for offset in batch.first_offset..=batch.last_offset {
                self.stored.insert(offset, (batch.delivery_state, batch.delivery_count));
            }
        }
        self.stored = self.stored.split_off(&self.start);
        let done = self.stored.values().filter(|(state, _)| *state != AVAILABLE).count();
        assert_eq!(usize::try_from(write.done).unwrap(), done);
    }

    fn give(&mut self, given: &[Acquired], member: &str, until_ms: i64) {
        for given in given {
            assert!(given.deliveries <= SETTINGS.deliveries_max);
            for offset in given.first..=given.last {
                let before = self.held.insert(offset, (member.to_owned(), until_ms));
                assert!(before.is_none(), "seed {}: {offset} is with two", self.seed);
                assert!(!self.accepted.contains(&offset), "seed {}: {offset} after its end", self.seed);
            }
        }
    }

    /// The machine dies, and another one goes on with what is stored.
    fn revived(&mut self) -> SharePartitionMachine {
        let machine = SharePartitionMachine::load(&stored(self.start, self.batches()), SETTINGS).unwrap();
        assert_eq!(machine.start(), self.start);
        self.held.clear();
        let (start, known) = (self.start, &self.stored);
        self.accepted.retain(|offset| {
            *offset < start || known.get(offset).is_some_and(|(state, _)| *state == ACKNOWLEDGED)
        });
        machine
    }

    fn is_stored_done(&self, offset: i64) -> bool {
        offset < self.start || self.stored.get(&offset).is_some_and(|(state, _)| *state != AVAILABLE)
    }
}

/// Acts at random, and dies now and then: another machine goes on with what is stored.
#[test]
fn no_record_is_with_two_and_nothing_that_was_answered_is_lost() {
    for seed in 0..3_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut machine = machine();
        let mut model = Model { seed, ..Model::default() };
        let mut pending: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        let mut flight: Option<Write> = None;
        let (mut now, mut token, mut log_end) = (0, 0, 0);
        for _ in 0..random.random_range(1..150) {
            now += random.random_range(0..30);
            log_end += random.random_range(0..4);
            let member = ["a", "b", "c"][random.random_range(0..3)];
            match random.random_range(0..12) {
                0..4 => {
                    machine.tick(now);
                    model.held.retain(|_, (_, until)| *until > now);
                    let Some(from) = machine.next_offset().filter(|from| *from < log_end) else { continue };
                    let wish = Wish { is_strict: random.random(), ..wish(member, random.random_range(1..8)) };
                    let given = machine.acquire(now, from, &[data(from, log_end - 1)], &wish);
                    model.give(&given, member, now + 100);
                }
                4..7 => {
                    model.held.retain(|_, (_, until)| *until > now);
                    let own: Vec<i64> =
                        model.held.iter().filter(|(_, (who, _))| who == member).map(|(at, _)| *at).collect();
                    let Some(offset) = own.first().copied() else { continue };
                    let kind = [ACCEPT, ACCEPT, RELEASE, REJECT, RENEW][random.random_range(0..5)];
                    token += 1;
                    let waits =
                        machine.acknowledge(now, member, &[say(offset, offset, kind)], AckToken(token));
                    assert_eq!(waits, Ok(kind != RENEW), "seed {seed}: {offset}");
                    if kind == RENEW {
                        model.held.insert(offset, (member.to_owned(), now + 100));
                        continue;
                    }
                    model.held.remove(&offset);
                    if kind == ACCEPT {
                        assert!(model.accepted.insert(offset), "seed {seed}: accepted twice");
                    }
                    pending.insert(token, if kind == RELEASE { Vec::new() } else { vec![offset] });
                }
                7 => {
                    machine.release_member(member);
                    model.held.retain(|_, (who, _)| who != member);
                }
                8 | 9 => flight = machine.take_write().or(flight),
                10 => {
                    let Some(write) = flight.take() else { continue };
                    model.take(&write);
                    for AckToken(token) in machine.written() {
                        assert!(model.answered.insert(token), "seed {seed}: answered twice");
                        for offset in pending.remove(&token).unwrap() {
                            assert!(model.is_stored_done(offset), "seed {seed}: {offset} is not stored");
                        }
                    }
                }
                _ if random.random_bool(0.2) => {
                    // A write that is on its way arrives, or does not.
                    if let Some(write) = flight.take().filter(|_| random.random()) {
                        model.take(&write);
                    }
                    machine = model.revived();
                    pending.clear();
                }
                _ => {}
            }
        }
    }
}
