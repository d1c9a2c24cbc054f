#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::VecDeque;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

use super::*;

const LANES: u8 = 3;

/// Where a batch of the source ends, its lane (none for those that are left out), and its runs of records.
type Batch = (i64, Option<u8>, Vec<(Offset, u32)>);

/// The source, the target and the topic of positions, with everything that may go wrong between them.
struct World {
    rng: StdRng,
    source: Vec<Batch>,
    target: Target,
    map: OffsetMap,
    position: Position,
    epoch: i16,
    lost: u64,
}

/// A partition as a broker keeps it for idempotent producers.
#[derive(Default)]
struct Target {
    /// Each record: whose it is, the source's offset that the sender meant.
    log: Vec<Option<i64>>,
    batches: Vec<Seen>,
}

enum Answer {
    At(Offset),
    Duplicate,
    Refused,
}

impl Target {
    fn append(&mut self, lane: Lane, base_sequence: i32, offsets: &[(Offset, u32)]) -> Answer {
        let mine: Vec<&Seen> = self
            .batches
            .iter()
            .filter(|seen| seen.producer_id == lane.producer_id && seen.epoch == lane.epoch)
            .collect();
        let count: u32 = offsets.iter().map(|(_, count)| count).sum();
        if let Some(same) = mine.iter().rev().take(5).find(|seen| seen.base_sequence == base_sequence) {
            assert_eq!(same.count, count);
            return Answer::At(same.base_offset);
        }
        if mine.iter().any(|seen| seen.base_sequence == base_sequence) {
            return Answer::Duplicate;
        }
        // Of whom nothing is known, anything is taken, as by Kafka.
        let next = mine.last().map(|seen| seen.base_sequence + seen.count as i32);
        if next.is_some_and(|next| base_sequence != next) {
            return Answer::Refused;
        }
        let base_offset = Offset::new(self.log.len() as i64);
        for (source, count) in offsets {
            self.log.extend((0..*count).map(|at| Some(source.get() + i64::from(at))));
        }
        self.batches.push(Seen {
            producer_id: lane.producer_id,
            epoch: lane.epoch,
            base_sequence,
            count,
            base_offset,
        });
        Answer::At(base_offset)
    }
}

fn pieces(world: &World, from: i64, most: usize) -> Vec<(Piece, Option<u8>)> {
    let wanted = world.source.iter().filter(|(end, ..)| *end > from).take(most);
    let piece = |(end, lane, offsets): &Batch| {
        let copy = lane.map(|_| Copy { bytes: Bytes::from(vec![0; 10]), offsets: offsets.clone() });
        let producer_id = ProducerId::new(lane.map_or(-1, i64::from));
        (Piece { next_offset: Offset::new(*end), producer_id, copy }, *lane)
    };
    wanted.map(piece).collect()
}

impl World {
    fn new(seed: u64, batches: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut source = Vec::new();
        let mut at = rng.random_range(0..20_i64);
        let begin = Offset::new(at);
        let lanes = rng.random_range(1..=LANES);
        let mut lane = 0;
        for _ in 0..batches {
            if rng.random_bool(0.2) {
                lane = rng.random_range(0..lanes);
            }
            if rng.random_bool(0.15) {
                at += rng.random_range(1..3);
                source.push((at, None, Vec::new()));
                continue;
            }
            let mut offsets = Vec::new();
            for _ in 0..rng.random_range(1..4) {
                // Compaction leaves gaps.
                at += i64::from(rng.random_bool(0.1));
                let count = rng.random_range(1..4);
                match offsets
                    .last_mut()
                    .filter(|(first, n): &&mut (Offset, u32)| first.get() + i64::from(*n) == at)
                {
                    Some((_, n)) => *n += count,
                    None => offsets.push((Offset::new(at), count)),
                }
                at += i64::from(count);
            }
            source.push((at, Some(lane), offsets));
        }
        let mut target = Target::default();
        target.log.resize(rng.random_range(0..5), None);
        let map = OffsetMap::new(begin, Offset::new(target.log.len() as i64));
        Self { rng, source, target, map, position: Position::default(), epoch: 0, lost: 0 }
    }

    fn end(&self) -> i64 {
        self.source.last().map_or(0, |(end, ..)| *end)
    }

    /// One life of a link: from what is stored to a crash, or to the end of the source.
    fn live(&mut self, crash_after: Option<usize>) {
        let from = self.map.target_end();
        let seen: Vec<Seen> =
            self.target.batches.iter().copied().filter(|it| it.base_offset >= from).collect();
        let end = Offset::new(self.target.log.len() as i64);
        let recovered = recover(self.map.clone(), &self.position, seen, end, true).unwrap();
        self.lost += recovered.lost;
        self.epoch += 1;
        let lanes = (0..LANES).map(|lane| Lane {
            producer_id: ProducerId::new(100 + i64::from(lane)),
            epoch: ProducerEpoch::new(self.epoch),
        });
        let mut flow = Flow::new(lanes.collect(), recovered.map);
        let mut storing: Option<Command> = None;
        let mut sent: VecDeque<Outgoing> = VecDeque::new();
        let mut steps = 0;
        while flow.map().through().get() < self.end() || storing.is_some() {
            steps += 1;
            assert!(steps < 100_000, "it does not come to an end");
            if crash_after.is_some_and(|crash| steps > crash) {
                // What was sent may still arrive, in order, up to some point.
                let arrives = self.rng.random_range(0..=sent.len());
                for outgoing in sent.drain(..arrives) {
                    self.deliver(&outgoing);
                }
                if self.rng.random_bool(0.5) {
                    self.keep(storing);
                }
                return;
            }
            match self.rng.random_range(0..10) {
                0..=2 if flow.bytes() < 200 => {
                    let most = self.rng.random_range(1..6);
                    let taken = pieces(self, flow.fetch_from().get(), most);
                    let lanes: Vec<Option<u8>> = taken.iter().map(|(_, lane)| *lane).collect();
                    let ends: Vec<Offset> = taken.iter().map(|(piece, _)| piece.next_offset).collect();
                    flow.fetched(taken.into_iter().map(|(piece, _)| piece), |piece| {
                        lanes[ends.iter().position(|end| *end == piece.next_offset).unwrap()]
                    });
                }
                3 => self.target.log.extend([None; 2]),
                4 if self.rng.random_bool(0.1) => flow.want_map(),
                5 | 6 => {
                    if let Some(stored) = storing.take() {
                        let number = match &stored {
                            Command::StoreMap(number, _) | Command::StorePosition(number, _) => *number,
                            Command::Send(_) => unreachable!(),
                        };
                        self.keep(Some(stored));
                        flow.stored(number);
                    }
                }
                7 | 8 => {
                    let Some(outgoing) = sent.pop_front() else { continue };
                    self.answer(&mut flow, &outgoing);
                }
                _ => match flow.next_command() {
                    Some(Command::Send(outgoing)) => sent.push_back(outgoing),
                    Some(command) => {
                        assert!(storing.is_none());
                        storing = Some(command);
                    }
                    None => {}
                },
            }
            assert!(sent.len() <= IN_FLIGHT_MAX);
        }
        assert!(flow.is_idle() && flow.bytes() == 0);
        self.map = flow.map().clone();
    }

    fn keep(&mut self, command: Option<Command>) {
        match command {
            Some(Command::StoreMap(_, map)) => self.map = OffsetMap::decode(&map.encode()).unwrap(),
            Some(Command::StorePosition(_, position)) => {
                self.position = Position::decode(&position.encode()).unwrap();
            }
            _ => {}
        }
    }

    /// The records that the sender means, found by what is stored: what is not, may not be sent.
    fn deliver(&mut self, outgoing: &Outgoing) -> Answer {
        let known = |lane: &Lane| *lane == outgoing.lane;
        let lane =
            self.position.lanes.iter().position(known).expect("a lane is stored before it is used") as u8;
        let sequence = outgoing.base_sequence as u64;
        let run = self.position.runs.iter().rfind(|run| run.lane == lane && run.sequence <= sequence);
        let run = run.expect("a run is stored before its first record is sent");
        let first = run.source.get() + (sequence - run.sequence) as i64;
        let batch =
            self.source.iter().find(|(_, _, offsets)| offsets.first().is_some_and(|it| it.0.get() == first));
        let (_, of, offsets) = batch.unwrap_or_else(|| panic!("no batch begins at {first}")).clone();
        assert_eq!(of, Some(lane), "each origin has its lane");
        self.target.append(outgoing.lane, outgoing.base_sequence, &offsets)
    }

    fn answer(&mut self, flow: &mut Flow, outgoing: &Outgoing) {
        if self.rng.random_bool(0.1) {
            // It never came there.
            flow.failed(outgoing.ticket).unwrap();
            return;
        }
        let answer = self.deliver(outgoing);
        let lost = self.rng.random_bool(0.05);
        match answer {
            _ if lost => flow.failed(outgoing.ticket).unwrap(),
            Answer::At(base) => drop(flow.acked(outgoing.ticket, Some(base)).unwrap()),
            Answer::Duplicate => drop(flow.acked(outgoing.ticket, None).unwrap()),
            Answer::Refused => flow.failed(outgoing.ticket).unwrap(),
        }
    }

    /// Every record once and in order, and the map says which is which.
    fn check(&self) {
        let wanted: Vec<i64> = self
            .source
            .iter()
            .flat_map(|(.., offsets)| offsets)
            .flat_map(|(first, count)| first.get()..first.get() + i64::from(*count))
            .collect();
        let copied: Vec<i64> = self.target.log.iter().copied().flatten().collect();
        assert_eq!(copied, wanted);
        for (target, source) in self.target.log.iter().enumerate() {
            if let Some(source) = source {
                let translated = self.map.translate(Offset::new(*source)).get();
                assert!(
                    translated <= target as i64,
                    "R9: {source} is at {target}, and not skipped by {translated}"
                );
                if let Some(known) = self.map.source_of(Offset::new(target as i64)) {
                    assert_eq!(known.get(), *source);
                }
            }
        }
    }
}

#[test]
fn each_record_is_copied_once_and_in_order_whatever_fails() {
    for seed in 0..1_500 {
        let mut world = World::new(seed, 60);
        for _ in 0..world.rng.random_range(0..6) {
            let crash = world.rng.random_range(1..150);
            world.live(Some(crash));
        }
        world.live(None);
        world.check();
        assert_eq!(world.lost, 0);
    }
}

#[test]
fn what_the_target_has_lost_is_copied_again() {
    let mut lost = 0;
    for seed in 0..400 {
        let mut world = World::new(seed, 60);
        let crash = world.rng.random_range(50..400);
        world.live(Some(crash));
        // An unclean election: the log ends with some batch of before.
        let keep = world.rng.random_range(0..=world.target.batches.len());
        if let Some(first_gone) = world.target.batches.get(keep).copied() {
            world.target.batches.truncate(keep);
            world.target.log.truncate(first_gone.base_offset.get() as usize);
        }
        if world.map.begin().1.get() > world.target.log.len() as i64 {
            continue;
        }
        world.live(None);
        world.check();
        lost += world.lost;
    }
    assert!(lost > 100, "{lost}");
}

#[test]
fn runs_are_forgotten_once_the_map_has_them() {
    let mut world = World::new(3, 4_000);
    world.source.retain(|(_, lane, _)| lane.is_some());
    world.live(None);
    assert!(world.position.runs.len() < 2 * RUNS_SINCE_MAP_MAX, "{}", world.position.runs.len());
    world.check();
}

#[test]
fn an_answer_to_nothing_is_an_error() {
    let mut flow = Flow::new(Vec::new(), OffsetMap::new(Offset::ZERO, Offset::ZERO));
    assert_eq!(flow.acked(1, None), Err(FlowError::Ticket(1)));
    assert_eq!(flow.failed(1), Err(FlowError::Ticket(1)));
}

#[test]
fn records_of_the_link_that_no_position_knows_are_an_error() {
    let lane = Lane { producer_id: ProducerId::new(7), epoch: ProducerEpoch::new(1) };
    let position = Position { lanes: vec![lane], runs: Vec::new() };
    let seen = Seen {
        producer_id: lane.producer_id,
        epoch: lane.epoch,
        base_sequence: 0,
        count: 3,
        base_offset: Offset::new(5),
    };
    let map = OffsetMap::new(Offset::ZERO, Offset::ZERO);
    let found = recover(map.clone(), &position, [seen], Offset::new(8), true);
    assert_eq!(found, Err(RecoverError::Unknown { seen }));
    let other = Seen { producer_id: ProducerId::new(8), ..seen };
    assert_eq!(recover(map.clone(), &position, [other], Offset::new(8), true).unwrap().map, map);
}

#[test]
fn what_is_missing_between_others_is_told() {
    let lane = Lane { producer_id: ProducerId::new(7), epoch: ProducerEpoch::new(1) };
    let runs = [(0, 0, 100), (1, 0, 110), (0, 10, 120)];
    let runs = runs.map(|(lane, sequence, source)| Begun { lane, sequence, source: Offset::new(source) });
    let position = Position { lanes: vec![lane], runs: runs.to_vec() };
    let seen = |base_sequence, count, base_offset| Seen {
        producer_id: lane.producer_id,
        epoch: lane.epoch,
        base_sequence,
        count,
        base_offset: Offset::new(base_offset),
    };
    let found = |through: i64, all: &[Seen], whole| {
        let map = OffsetMap::new(Offset::new(through), Offset::new(50));
        recover(map, &position, all.to_vec(), Offset::new(100), whole).map(|it| it.map.through().get())
    };
    assert_eq!(found(100, &[seen(0, 10, 50), seen(10, 5, 60)], true), Ok(125));
    assert_eq!(found(104, &[seen(4, 6, 50), seen(10, 5, 60)], true), Ok(125));
    // What the map has up to between two runs is not looked for.
    assert_eq!(found(115, &[seen(10, 5, 60)], true), Ok(125));
    let gap = |seen, missing| Err(RecoverError::Gap { seen, missing });
    assert_eq!(found(100, &[seen(3, 7, 50)], true), gap(seen(3, 7, 50), 3));
    assert_eq!(found(104, &[seen(4, 4, 50), seen(10, 5, 60)], true), gap(seen(10, 5, 60), 2));
    assert_eq!(found(115, &[seen(12, 3, 60)], true), gap(seen(12, 3, 60), 2));
    // What the target has removed is not missing.
    assert_eq!(found(100, &[seen(10, 5, 60)], false), Ok(125));
}

#[test]
fn sequence_numbers_wrap() {
    let lane = Lane { producer_id: ProducerId::new(7), epoch: ProducerEpoch::new(1) };
    let before = (1_u64 << 31) - 2;
    let runs = vec![
        Begun { lane: 0, sequence: before - 10, source: Offset::new(1_000) },
        Begun { lane: 0, sequence: before + 5, source: Offset::new(2_000) },
    ];
    let position = Position { lanes: vec![lane], runs };
    let seen = |sequence: u64, count, base_offset| Seen {
        producer_id: lane.producer_id,
        epoch: lane.epoch,
        base_sequence: (sequence & 0x7fff_ffff) as i32,
        count,
        base_offset: Offset::new(base_offset),
    };
    let map = OffsetMap::new(Offset::new(1_010), Offset::new(50));
    let found =
        recover(map, &position, [seen(before, 3, 50), seen(before + 3, 4, 60)], Offset::new(64), true)
            .unwrap();
    let runs: Vec<Run> = found.map.runs().copied().collect();
    let run = |source, target, count| Run { source: Offset::new(source), target: Offset::new(target), count };
    assert_eq!(runs, [run(1_010, 50, 3), run(1_013, 60, 2), run(2_000, 62, 2)]);
    assert_eq!(found.map.through(), Offset::new(2_002));
}

#[test]
fn a_damaged_position_is_refused_or_is_one() {
    let mut rng = StdRng::seed_from_u64(5);
    let lane = |id| Lane { producer_id: ProducerId::new(id), epoch: ProducerEpoch::new(3) };
    let runs = (0..50).map(|at| Begun {
        lane: (at % 2) as u8,
        sequence: at * 7,
        source: Offset::new(at as i64 * 9),
    });
    let whole = Position { lanes: vec![lane(5), lane(6)], runs: runs.collect() };
    let bytes = whole.encode();
    assert_eq!(Position::decode(&bytes), Ok(whole));
    for cut in 0..bytes.len() {
        assert!(Position::decode(&bytes[..cut]).is_err());
    }
    for _ in 0..20_000 {
        let mut damaged = bytes.clone();
        let at = rng.random_range(0..damaged.len());
        damaged[at] = rng.random();
        let _ = Position::decode(&damaged);
    }
}
