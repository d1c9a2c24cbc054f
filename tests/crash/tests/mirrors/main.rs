//! Mirrors between real clusters, of which nodes and mirrors are killed, stopped and taken over at random moments:
//! afterwards both sides have the same records, in order, once.
//!
//! `TOWPATH_SEED` repeats a run's moments, and `TOWPATH_MIRROR_SECONDS` makes it longer.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]
#![allow(clippy::print_stderr, reason = "what struck when is told with a failure")]

mod mirror;
mod side;
mod traffic;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use towpath_harness::cluster::Peer;
use towpath_types::TopicPartition;

use mirror::Mirrors;
use side::Side;
use traffic::{Group, Values, Writer};

/// How long everything may take that needs nothing but time.
const PATIENCE: Duration = Duration::from_secs(180);

/// One trial at a time: on two cores, two of them would measure each other.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The dice and how long faults strike.
fn plan(seconds: u64) -> (StdRng, Duration) {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let seed = variable("TOWPATH_SEED").map_or_else(rand::random, |text| text.parse().unwrap());
    let seconds = variable("TOWPATH_MIRROR_SECONDS").map_or(seconds, |text| text.parse().unwrap());
    eprintln!("TOWPATH_SEED={seed}");
    (StdRng::seed_from_u64(seed), Duration::from_secs(seconds))
}

/// Strikes whatever there is, one after the other.
fn strike(sides: &mut [&mut Side], mirrors: &mut Mirrors, dice: &mut StdRng, length: Duration) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(dice.random_range(200..2_500)));
        match dice.random_range(0..sides.len() + 2) {
            at if at < sides.len() => sides[at].strike(dice),
            at if at == sides.len() => mirrors.kill(dice),
            _ => mirrors.take_over(dice),
        }
    }
}

/// Waits until a side has as many records as it is to have.
fn wait_for(side: &Side, count: usize, mirrors: &Mirrors) -> Values {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let values = side.values();
        let found: usize = values.values().map(Vec::len).sum();
        if found >= count {
            return values;
        }
        assert!(
            Instant::now() < deadline,
            "{} has {found} records of {count}\n{}",
            side.alias(),
            mirrors.told()
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn count(values: &Values) -> usize {
    values.values().map(Vec::len).sum()
}

/// Everything that was acknowledged is there.
fn has_all(values: &Values, acknowledged: &BTreeMap<TopicPartition, Vec<String>>) {
    for (partition, expected) in acknowledged {
        let mut found = values[partition].iter();
        for value in expected {
            assert!(
                found.any(|it| it == value),
                "{value} was acknowledged and is not in {partition}, or not in order"
            );
        }
    }
}

#[test]
fn the_target_has_what_the_source_has_whatever_is_killed() {
    let _alone = alone();
    let (mut dice, length) = plan(40);
    let mut us = Side::nodes("us", Peer::Towpath);
    let mut eu = Side::nodes("eu", Peer::Towpath);
    us.create_topic();
    let mut mirrors = Mirrors::start(&us, &eu, "us-to-eu: { from: us, to: eu, MIRROR, groups: [\"*\"] }");
    let writer = Writer::start(&us, "us");
    let group = Group::join(&us);
    strike(&mut [&mut us, &mut eu], &mut mirrors, &mut dice, length);
    let acknowledged = writer.stop();
    let processed = group.leave();
    us.whole();
    eu.whole();
    let source = us.values();
    has_all(&source, &acknowledged);
    assert!(count(&source) > 500, "only {} records were written", count(&source));
    let target = wait_for(&eu, count(&source), &mirrors);
    assert_eq!(source, target);

    // The group goes on at the target: nothing is left out (R9), and no more comes twice than its status had said.
    let twice_at_most = mirrors.wait_in_step(&us, &eu);
    let group = Group::join(&eu);
    group.wait_until_it_has_read_to_the_end(&target, PATIENCE);
    let again = group.leave();
    let mut twice = 0;
    for (partition, values) in &source {
        let (here, there) = (&processed[partition], &again[partition]);
        twice += here.len() + there.len() - values.len();
        let missing: Vec<_> = values.iter().filter(|it| !here.contains(it) && !there.contains(it)).collect();
        assert!(missing.is_empty(), "nobody has processed {missing:?} of {partition}");
    }
    assert!(
        twice <= twice_at_most,
        "{twice} records were processed twice, and {twice_at_most} were to be expected"
    );
}

/// What of one side is not at the other; not all of it if it is much.
fn missing(of: &Values, at: &Values) -> Vec<String> {
    let of = of.iter().flat_map(|(partition, list)| list.iter().map(move |value| (partition, value)));
    let missing = of.filter(|(partition, value)| !at[*partition].contains(value));
    missing.map(|(partition, value)| format!("{}: {value}", partition.partition)).take(100).collect()
}

/// Both have their own records and the other's, each origin's in its order, and each once.
fn both_have_everything(us: &Side, eu: &Side, mirrors: &Mirrors) {
    let own = |values: &Values, origin: &str| -> Values {
        let of = |list: &Vec<String>| list.iter().filter(|it| it.starts_with(origin)).cloned().collect();
        values.iter().map(|(partition, list)| (partition.clone(), of(list))).collect()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (here, there) = (us.values(), eu.values());
        let expected = count(&own(&here, "us")) + count(&own(&there, "eu"));
        if count(&here) < expected || count(&there) < expected {
            let told = || {
                let (at_us, at_eu) = (missing(&own(&there, "eu"), &here), missing(&own(&here, "us"), &there));
                format!("us has not {at_us:?}\neu has not {at_eu:?}\n{}", mirrors.told())
            };
            assert!(Instant::now() < deadline, "{}", told());
            std::thread::sleep(Duration::from_millis(300));
            continue;
        }
        assert_eq!(own(&here, "us"), own(&there, "us"));
        assert_eq!(own(&there, "eu"), own(&here, "eu"));
        assert_eq!((count(&here), count(&there)), (expected, expected));
        return;
    }
}

#[test]
fn both_sides_have_everything_once_whatever_is_killed_and_one_of_them_is_kafka() {
    let _alone = alone();
    let (mut dice, length) = plan(40);
    let mut us = Side::nodes("us", Peer::Towpath);
    let mut eu = Side::kafka("eu");
    us.create_topic();
    let both = "us-to-eu: { from: us, to: eu, MIRROR, mode: active_active }\n  eu-to-us: { from: eu, to: us, MIRROR, mode: \
                active_active }";
    let mut mirrors = Mirrors::start(&us, &eu, both);
    eu.wait_for_topic(PATIENCE);
    let writers = [Writer::start(&us, "us"), Writer::start(&eu, "eu")];
    strike(&mut [&mut us, &mut eu], &mut mirrors, &mut dice, length);
    let acknowledged = writers.map(Writer::stop);
    us.whole();
    eu.whole();
    both_have_everything(&us, &eu, &mirrors);
    for (side, acknowledged) in [&us, &eu].into_iter().zip(&acknowledged) {
        has_all(&side.values(), acknowledged);
    }
    // What goes round would come again and again.
    std::thread::sleep(Duration::from_secs(2));
    both_have_everything(&us, &eu, &mirrors);
}
