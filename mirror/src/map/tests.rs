#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn run(source: i64, target: i64, count: u64) -> Run {
    Run { source: Offset::new(source), target: Offset::new(target), count }
}

/// A copy as it happened: the source's records (with gaps), those that were copied and where to.
struct Story {
    map: OffsetMap,
    copied: BTreeMap<i64, i64>,
    source_end: i64,
}

fn story(rng: &mut impl Rng, runs: usize) -> Story {
    let begin = (rng.random_range(0..50), rng.random_range(0..50));
    let mut map = OffsetMap::new(Offset::new(begin.0), Offset::new(begin.1));
    let mut copied = BTreeMap::new();
    let (mut source, mut target) = begin;
    for _ in 0..runs {
        // Left out, or removed; written by others.
        source += if rng.random_bool(0.6) { rng.random_range(0..4) } else { 0 };
        target += if rng.random_bool(0.3) { rng.random_range(0..4) } else { 0 };
        if rng.random_bool(0.1) {
            map.reach(Offset::new(source));
        }
        let count = rng.random_range(1..6_i64);
        map.push(run(source, target, count as u64)).unwrap();
        copied.extend((0..count).map(|at| (source + at, target + at)));
        source += count;
        target += count;
    }
    Story { map, copied, source_end: source }
}

/// Both sides only grow, so that the nearest record on each side tells of all. R9: nothing that was not processed is below the translated
/// offset; and no more of what was processed is at or after it than the map says, which is nothing for a map that
/// has all its runs.
fn check(story: &Story, step: usize) {
    for position in (0..story.source_end + 5).step_by(step) {
        let translated = story.map.translate(Offset::new(position)).get();
        let skipped = story.copied.range(position..).next().filter(|(_, target)| **target < translated);
        assert!(skipped.is_none(), "{position} → {translated} skips {skipped:?} of {:?}", story.map);
        let again = story.copied.range(..position).rev().take_while(|(_, target)| **target >= translated);
        let (again, most) = (again.count() as u64, story.map.twice_at_most(Offset::new(position)));
        assert!(
            again <= most,
            "{position} → {translated} repeats {again}, and not {most}, of {:?}",
            story.map
        );
        if !story.map.thinned && position <= story.map.through().get() {
            assert_eq!(most, 0, "{position} of {:?}", story.map);
        }
    }
}

#[test]
fn translated_offsets_skip_nothing_and_repeat_nothing() {
    for seed in 0..3_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let runs = rng.random_range(0..30);
        let story = story(&mut rng, runs);
        check(&story, 1);
        let before: Vec<_> = (0..story.source_end + 5).map(|p| story.map.translate(Offset::new(p))).collect();
        assert!(before.is_sorted(), "a group that goes on never goes back");
        for (source, target) in &story.copied {
            assert_eq!(story.map.source_of(Offset::new(*target)), Some(Offset::new(*source)));
        }
    }
}

#[test]
fn a_map_that_was_thinned_out_skips_nothing_either() {
    let mut rng = StdRng::seed_from_u64(7);
    let story = story(&mut rng, 3 * RUNS_MAX);
    assert!(story.map.runs().count() <= RUNS_MAX);
    assert!(story.map.thinned);
    check(&story, 3);
    let newest = story.copied.keys().nth_back(100).unwrap();
    assert_eq!(story.map.twice_at_most(Offset::new(*newest)), 0, "what is new is exact");
}

#[test]
fn consecutive_records_are_one_run() {
    let mut map = OffsetMap::new(Offset::new(10), Offset::new(100));
    for at in 0..1000 {
        map.push(run(10 + at, 100 + at, 1)).unwrap();
    }
    assert_eq!(map.runs().copied().collect::<Vec<_>>(), [run(10, 100, 1000)]);
    assert_eq!((map.through(), map.target_end()), (Offset::new(1010), Offset::new(1100)));
}

#[test]
fn a_run_that_goes_back_is_refused() {
    let mut map = OffsetMap::new(Offset::new(10), Offset::new(100));
    map.push(run(10, 100, 5)).unwrap();
    for wrong in [run(14, 105, 1), run(15, 104, 1), run(15, 105, 0)] {
        let before = map.clone();
        assert_eq!(map.push(wrong), Err(OutOfOrder { run: wrong }));
        assert_eq!(map, before);
    }
    map.reach(Offset::new(20));
    assert!(map.push(run(19, 105, 1)).is_err(), "it was said to be left out");
}

#[test]
fn a_group_before_the_copy_begins_where_the_copy_does() {
    let map = OffsetMap::new(Offset::new(10), Offset::new(100));
    assert_eq!(map.translate(Offset::new(3)), Offset::new(100));
    assert_eq!(map.translate(Offset::new(30)), Offset::new(100));
    assert_eq!((map.twice_at_most(Offset::new(3)), map.twice_at_most(Offset::new(30))), (0, 20));
}

#[test]
fn what_is_stored_is_read_again() {
    for seed in 0..2_000 {
        let mut rng = StdRng::seed_from_u64(seed);
        let runs = rng.random_range(0..60);
        let map = story(&mut rng, runs).map;
        assert_eq!(OffsetMap::decode(&map.encode()), Ok(map));
    }
}

#[test]
fn damaged_bytes_are_refused_or_are_a_map() {
    let mut rng = StdRng::seed_from_u64(11);
    let whole = story(&mut rng, 40).map.encode();
    for cut in 0..whole.len() {
        assert!(OffsetMap::decode(&whole[..cut]).is_err());
    }
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        if let Ok(map) = OffsetMap::decode(&bytes) {
            let _ = map.translate(Offset::new(rng.random_range(0..1000)));
        }
    }
    assert_eq!(OffsetMap::decode(&[9, 0]), Err(crate::DecodeError::Version(9)));
}
