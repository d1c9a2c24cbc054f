//! A burst of batches leaves the log as the same batches one by one do.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod common;

use bytes::Bytes;
use common::{EPOCH, Machine, append, batch, produced, small_segments};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use towpath_log::{AppendError, AppendInfo, FetchedData, Log, LogConfig};
use towpath_record::Origin;
use towpath_types::{LeaderEpoch, Offset};

/// Batches of a few producers: in order, again, out of order, of another epoch, without a producer, broken.
fn draw(random: &mut ChaCha8Rng, next: &mut [(i16, i32); 3]) -> Bytes {
    let count = random.random_range(1..4);
    let producer = random.random_range(0..3);
    let (epoch, sequence) = &mut next[producer];
    let id = producer as i64 + 1;
    match random.random_range(0..20) {
        0 => produced(id, *epoch, (*sequence - 1).max(0), 1),
        1 => produced(id, *epoch, *sequence + 1, count),
        2 => {
            (*epoch, *sequence) = (*epoch + 1, count as i32);
            produced(id, *epoch, 0, count)
        }
        3 => batch(count, 1_000_000 + random.random_range(0..50_000), "none"),
        4 => {
            let whole = produced(id, *epoch, *sequence, count);
            let mut broken = whole.to_vec();
            *broken.last_mut().unwrap() ^= 1;
            broken.into()
        }
        _ => {
            let first = *sequence;
            *sequence += count as i32;
            produced(id, *epoch, first, count)
        }
    }
}

fn told(result: &Result<AppendInfo, AppendError>) -> String {
    match result {
        Ok(info) => {
            format!("{} {} {} {}", info.first_offset, info.last_offset, info.log_start_offset, info.duplicate)
        }
        Err(error) => error.to_string(),
    }
}

fn bytes(log: &Log) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = log.log_start_offset();
    let end = log.log_end_offset();
    while at < end {
        let data: FetchedData = log.read(at, 1 << 20, end, true).unwrap();
        let data = data.into_bytes().unwrap();
        let last = towpath_record::batches(&data).map(|it| it.unwrap().next_offset()).last().unwrap();
        all.extend_from_slice(&data);
        at = last;
    }
    all
}

#[test]
fn the_log_is_the_same_as_with_single_appends() {
    let (mut taken, mut refused, mut repeated) = (0, 0, 0);
    for seed in 0..if cfg!(debug_assertions) { 300 } else { 3_000 } {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let config = LogConfig { segment_ms: 20_000, ..small_segments() };
        let mut machines = [Machine::new(config), Machine::new(config)];
        let mut next = [(0, 0); 3];
        for _ in 0..random.random_range(1..8) {
            let burst: Vec<Bytes> =
                (0..random.random_range(1..12)).map(|_| draw(&mut random, &mut next)).collect();
            let [one, other] = &machines;
            let together: Vec<_> = one.log().append_burst_as_leader(&burst, EPOCH, Origin::Client);
            let alone: Vec<_> = burst.iter().map(|batch| append(&other.log(), batch.clone())).collect();
            let told = |results: &[_]| results.iter().map(told).collect::<Vec<_>>();
            assert_eq!(told(&together), told(&alone), "seed {seed}");
            for result in &together {
                match result {
                    Ok(info) if info.duplicate => repeated += 1,
                    Ok(_) => taken += 1,
                    Err(_) => refused += 1,
                }
            }
            if random.random_bool(0.1) {
                machines.iter_mut().for_each(|machine| drop(machine.kill()));
            }
            let logs = [0, 1].map(|index| machines[index].log());
            let [one, other] = &logs;
            assert_eq!(bytes(one), bytes(other), "seed {seed}");
            assert_eq!(one.producers(), other.producers(), "seed {seed}");
        }
        // What was written together is found again after any end.
        let before = bytes(&machines[0].log());
        let again = if random.random_bool(0.5) { machines[0].kill() } else { machines[0].restart() };
        assert_eq!(bytes(&again), before, "seed {seed}");
    }
    assert!(taken > 1000 && refused > 100 && repeated > 10, "{taken} {refused} {repeated}");
}

#[test]
fn a_leader_of_an_older_epoch_writes_nothing() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    log.append_as_leader(produced(1, 0, 0, 1), LeaderEpoch::new(3), Origin::Client).unwrap();
    let burst = [produced(1, 0, 1, 1), produced(1, 0, 2, 1)];
    let results = log.append_burst_as_leader(&burst, LeaderEpoch::new(2), Origin::Client);
    assert!(results.iter().all(|it| matches!(it, Err(AppendError::FencedLeaderEpoch { .. }))), "{results:?}");
    assert_eq!(log.log_end_offset(), Offset::new(1));
    // The first of a newer one begins it.
    let results = log.append_burst_as_leader(&burst, LeaderEpoch::new(4), Origin::Client);
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(log.epoch_entries().last().unwrap().start_offset, Offset::new(1));
}

#[test]
fn a_full_disk_refuses_all_of_it() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    append(&log, produced(1, 0, 0, 1)).unwrap();
    machine.storage.set_space(Some(machine.storage.used() + 100));
    let burst = [produced(1, 0, 1, 1), produced(1, 0, 2, 1), produced(1, 0, 3, 1)];
    let results = log.append_burst_as_leader(&burst, EPOCH, Origin::Client);
    assert!(results.iter().all(|it| matches!(it, Err(AppendError::Storage(_)))), "{results:?}");
    assert_eq!(log.log_end_offset(), Offset::new(1));
}
