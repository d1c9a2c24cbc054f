//! The machine against a simple model, over a log that fails now and then, from seeds.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn key(partition: i32) -> ShareKey {
    ShareKey { group: "g".into(), topic: TopicId::new(uuid::Uuid::from_u128(7)), partition }
}

fn batch(first_offset: i64, last_offset: i64, delivery_state: i8, delivery_count: i16) -> StateBatch {
    StateBatch { first_offset, last_offset, delivery_state, delivery_count }
}

fn write_of(leader_epoch: i32, start_offset: i64, batches: Vec<StateBatch>) -> ShareWrite {
    ShareWrite { state_epoch: 0, leader_epoch, start_offset, delivery_complete_count: 0, batches }
}

/// A machine, its log, and what came of everything.
struct World {
    machine: ShareStateMachine,
    log: Vec<OffsetsRecord>,
    queue: VecDeque<(ShareToken, Vec<OffsetsRecord>)>,
    replies: BTreeMap<u64, ShareReply>,
    next: u64,
}

impl World {
    fn new(updates_per_snapshot: u32) -> Self {
        let config = ShareStateConfig { updates_per_snapshot, ..ShareStateConfig::default() };
        Self {
            machine: ShareStateMachine::new(config),
            log: Vec::new(),
            queue: VecDeque::new(),
            replies: BTreeMap::new(),
            next: 0,
        }
    }

    fn act(&mut self, act: impl FnOnce(&mut ShareStateMachine, Waiter, &mut Vec<ShareCommand>)) -> u64 {
        let waiter = self.next;
        self.next += 1;
        let mut out = Vec::new();
        act(&mut self.machine, Waiter(waiter), &mut out);
        self.take(out);
        waiter
    }

    fn take(&mut self, out: Vec<ShareCommand>) {
        for command in out {
            match command {
                ShareCommand::Respond { waiter, reply } => {
                    assert!(self.replies.insert(waiter.0, reply).is_none(), "answered twice");
                }
                ShareCommand::Append { token, records } => self.queue.push_back((token, records)),
            }
        }
    }

    /// The next append is done: written and told, written and told to have failed, or neither.
    fn append(&mut self, is_written: bool, is_told: bool) {
        let Some((token, records)) = self.queue.pop_front() else { return };
        let fails = !records.is_empty() && !is_told;
        if is_written {
            self.log.extend(records);
        }
        let mut out = Vec::new();
        let result = if fails { Err(ErrorCode::CoordinatorNotAvailable) } else { Ok(()) };
        self.machine.appended(token, result, &mut out);
        self.take(out);
    }

    fn settle(&mut self) {
        while !self.queue.is_empty() {
            self.append(true, true);
        }
    }

    /// What a coordinator has that loads the log as it is, compacted.
    fn reloaded(&self) -> ShareStateMachine {
        let mut newest: BTreeMap<&Bytes, usize> = BTreeMap::new();
        for (at, record) in self.log.iter().enumerate() {
            newest.insert(&record.key, at);
        }
        let mut whole = ShareStateMachine::new(ShareStateConfig::default());
        let mut compacted = ShareStateMachine::new(ShareStateConfig::default());
        for (at, record) in self.log.iter().enumerate() {
            whole.replay(Some(&record.key), record.value.as_ref()).unwrap();
            if newest[&record.key] == at {
                compacted.replay(Some(&record.key), record.value.as_ref()).unwrap();
            }
        }
        for (key, entry) in &whole.entries {
            let other = &compacted.entries[key].state;
            assert_eq!((&other.summary, &other.batches), (&entry.state.summary, &entry.state.batches));
        }
        assert_eq!(whole.len(), compacted.len());
        whole
    }
}

fn records_of(state: &ShareState) -> BTreeMap<i64, (i8, i16)> {
    let said = |batch: &StateBatch| {
        let said = (batch.delivery_state, batch.delivery_count);
        (batch.first_offset..=batch.last_offset).map(move |offset| (offset, said))
    };
    state.batches.iter().flat_map(said).collect()
}

#[test]
fn a_state_is_begun_written_and_read() {
    let mut world = World::new(500);
    let first = world.act(|m, w, out| m.initialize(1, w, key(0), (0, -1), out));
    let second = world.act(|m, w, out| m.read(1, w, key(0), 3, out));
    assert!(world.replies.is_empty(), "nothing is told before it is committed");
    world.settle();
    assert_eq!(world.replies[&first], Ok(None));
    let read = world.replies[&second].clone().unwrap().unwrap();
    assert_eq!((read.summary.state_epoch, read.summary.start_offset), (0, -1));
    let old = world.act(|m, w, out| m.write(1, w, key(0), &write_of(2, 0, vec![]), out));
    assert_eq!(world.replies[&old], Err(ErrorCode::FencedLeaderEpoch));
    let wrong = ShareWrite { state_epoch: 1, ..write_of(3, 0, vec![]) };
    let wrong = world.act(|m, w, out| m.write(1, w, key(0), &wrong, out));
    assert_eq!(world.replies[&wrong], Err(ErrorCode::FencedStateEpoch));
    let written = write_of(3, 5, vec![batch(5, 6, 0, 1), batch(7, 9, 2, 1)]);
    let fine = world.act(|m, w, out| m.write(1, w, key(0), &written, out));
    let again = world.act(|m, w, out| m.initialize(1, w, key(0), (0, -1), out));
    world.settle();
    assert_eq!((&world.replies[&fine], &world.replies[&again]), (&Ok(None), &Ok(None)));
    assert_eq!(world.machine.summary(&key(0)).unwrap().start_offset, 5);
    let anew = world.act(|m, w, out| m.initialize(1, w, key(0), (1, 2), out));
    world.settle();
    assert_eq!(world.replies[&anew], Ok(None));
    let loaded = world.reloaded();
    let summary = loaded.summary(&key(0)).unwrap();
    assert_eq!((summary.state_epoch, summary.start_offset, summary.leader_epoch), (1, 2, 3));
    let unknown = world.act(|m, w, out| m.write(1, w, key(9), &write_of(3, 0, vec![]), out));
    assert_eq!(world.replies[&unknown], Err(ErrorCode::InvalidRequest));
    let unread = world.act(|m, w, out| m.read(1, w, key(9), 1, out));
    assert_eq!(world.replies[&unread].clone().unwrap().unwrap().summary.state_epoch, -1);
}

#[test]
fn deleted_states_are_gone_after_loading() {
    let mut world = World::new(2);
    for partition in 0..3 {
        world.act(|m, w, out| m.initialize(1, w, key(partition), (0, 0), out));
        let written = write_of(0, 1, vec![batch(2, 3, 2, 1)]);
        world.act(|m, w, out| m.write(1, w, key(partition), &written, out));
    }
    world.act(|m, w, out| m.delete(1, w, key(1), out));
    world.settle();
    assert_eq!(world.reloaded().len(), 2);
    let mut out = Vec::new();
    world.machine.topics_deleted(1, &|_| true, &mut out);
    world.take(out);
    world.settle();
    assert!(world.reloaded().is_empty() && world.machine.is_empty());
    assert_eq!(world.machine.bytes, 0);
}

#[test]
fn states_of_unknown_topics_are_forgotten_when_they_are_old() {
    let mut world = World::new(2);
    world.act(|m, w, out| m.initialize(1_000, w, key(0), (0, 0), out));
    world.act(|m, w, out| m.initialize(2_000, w, key(1), (0, 0), out));
    world.settle();
    let unknown = world.machine.topics();
    assert_eq!(unknown.len(), 1);
    for (now_ms, topics, left) in [
        (UNKNOWN_TOPIC_MS, &unknown, 2),
        (UNKNOWN_TOPIC_MS + 1_000, &BTreeSet::new(), 2),
        (UNKNOWN_TOPIC_MS + 1_000, &unknown, 1),
        (UNKNOWN_TOPIC_MS + 2_000, &unknown, 0),
    ] {
        let mut out = Vec::new();
        world.machine.topics_unknown(now_ms, topics, &mut out);
        world.take(out);
        world.settle();
        assert_eq!((world.machine.len(), world.reloaded().len()), (left, left));
    }
}

#[test]
fn states_that_have_no_room_may_shrink_and_change_but_not_grow() {
    let mut world = World::new(500);
    world.machine.config.bytes_max = 2_000;
    world.act(|m, w, out| m.initialize(1, w, key(0), (0, 0), out));
    world.settle();
    let many = |kind| (0..60).map(|at| batch(2 * at, 2 * at, kind, 1)).collect::<Vec<_>>();
    let say = |world: &mut World, written: ShareWrite| {
        let waiter = world.act(|m, w, out| m.write(1, w, key(0), &written, out));
        world.settle();
        world.replies[&waiter].clone()
    };
    assert_eq!(say(&mut world, write_of(0, 0, many(0))), Ok(None));
    assert!(world.machine.bytes >= 2_000);
    let no_room = Err(ErrorCode::CoordinatorNotAvailable);
    assert_eq!(say(&mut world, write_of(0, 0, vec![batch(200, 200, 0, 1)])), no_room);
    assert_eq!(say(&mut world, write_of(0, 0, many(2))), Ok(None));
    assert_eq!(say(&mut world, write_of(0, 119, vec![batch(200, 200, 2, 1)])), Ok(None));
    assert_eq!(say(&mut world, write_of(0, 119, vec![])), Ok(None));
}

/// Whatever fails: what was answered as written is there after loading, as the log is then.
#[test]
fn nothing_that_was_answered_is_lost() {
    for seed in 0..2_000 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut world = World::new(random.random_range(1..6));
        world.act(|m, w, out| m.initialize(1, w, key(0), (0, 0), out));
        world.settle();
        let (mut start, mut epoch) = (0, 0);
        // What every write said, by its waiter.
        let mut said: BTreeMap<u64, (i64, Vec<StateBatch>)> = BTreeMap::new();
        for _ in 0..random.random_range(1..40) {
            match random.random_range(0..10) {
                0..5 => {
                    start += random.random_range(0..2);
                    let first = start + random.random_range(0..6);
                    let last = first + random.random_range(0..4);
                    let what =
                        batch(first, last, [0, 2, 4][random.random_range(0..3)], random.random_range(1..5));
                    let written = write_of(epoch, start, vec![what.clone()]);
                    let waiter = world.act(|m, w, out| m.write(1, w, key(0), &written, out));
                    said.insert(waiter, (start, vec![what]));
                }
                5 => {
                    epoch += random.random_range(0..2);
                    world.act(|m, w, out| m.read(1, w, key(0), epoch, out));
                }
                6 => world.append(random.random_bool(0.5), false),
                _ => world.append(true, true),
            }
            // Dies here: the newest write that was answered, and all before it, are there.
            let loaded = world.reloaded();
            let state = &loaded.entries[&key(0)].state;
            let known: Vec<u64> =
                world.replies.iter().filter(|(_, reply)| **reply == Ok(None)).map(|(w, _)| *w).collect();
            let Some(newest) = known.iter().filter(|waiter| said.contains_key(waiter)).max() else {
                continue;
            };
            assert!(state.summary.start_offset >= said[newest].0, "seed {seed}");
            let records = records_of(state);
            for batch in &said[newest].1 {
                for offset in batch.first_offset.max(state.summary.start_offset)..=batch.last_offset {
                    // A later write may have said something else of it.
                    let later = said.range(newest + 1..).any(|(_, (_, later))| {
                        later.iter().any(|it| (it.first_offset..=it.last_offset).contains(&offset))
                    });
                    let expected = (batch.delivery_state, batch.delivery_count);
                    assert!(later || records.get(&offset) == Some(&expected), "seed {seed} offset {offset}");
                }
            }
        }
        world.settle();
        let end = world.act(|m, w, out| m.read(1, w, key(0), epoch, out));
        world.settle();
        let read = world.replies[&end].clone().unwrap().unwrap();
        let loaded = world.reloaded();
        let state = &loaded.entries[&key(0)].state;
        assert_eq!((read.summary, &read.batches), (state.summary, &state.batches), "seed {seed}");
    }
}
