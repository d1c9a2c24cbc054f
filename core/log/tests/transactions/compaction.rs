//! Compaction leaves the newest committed record of each key, nothing that was aborted, and every marker that a reader
//! may still need.

use std::collections::BTreeMap;
use std::sync::Arc;

use towpath_log::{CleanOptions, CleanStats, Log, LogConfig};
use towpath_record::{RecordBatch, batches};
use towpath_types::Offset;

use super::common::{EPOCH, Machine, append, partition, small_segments};
use super::model::{committed, consumed};
use super::producers::{append_verified, batch_of, marker};
use super::seeds::{Random, World};

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        dirty_ratio_min: 0.0,
        delete_retention_ms: 1000,
        segment_bytes: 100_000,
        ..small_segments()
    }
}

fn newest(records: &[(i64, String, String)]) -> BTreeMap<String, (i64, String)> {
    records.iter().map(|(offset, key, value)| (key.clone(), (*offset, value.clone()))).collect()
}

fn clean(machine: &Machine) -> Option<CleanStats> {
    let end = machine.log().log_end_offset();
    machine.dir().clean(&partition(), end, &CleanOptions::default()).unwrap()
}

fn stored(log: &Log) -> Vec<RecordBatch> {
    let mut all = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.log_end_offset() {
        let bytes = log.read(next, 1 << 20, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
        all.extend(batches(&bytes).map(Result::unwrap));
        next = all.last().unwrap().next_offset();
    }
    all
}

/// Where control batches are, and how many records each has.
fn markers(log: &Log) -> Vec<(i64, i32)> {
    let control = stored(log).into_iter().filter(|batch| batch.is_control());
    control.map(|batch| (batch.base_offset.get(), batch.record_count)).collect()
}

fn record(key: &str, value: &str) -> bytes::Bytes {
    batch_of(-1, -1, -1, false, &[(key, Some(value))], 1_000_000)
}

fn transactional(id: i64, sequence: i32, key: &str, value: &str) -> bytes::Bytes {
    batch_of(id, 0, sequence, true, &[(key, Some(value))], 1_000_000)
}

/// Closes the segment and puts something into the next, so that there is something dirty.
fn next_segment(log: &Log, value: &str) {
    append(log, record("filler", value)).unwrap();
    log.roll().unwrap();
    append(log, record("other", value)).unwrap();
}

#[test]
fn aborted_records_go_and_what_they_would_have_replaced_stays() {
    let machine = Machine::new(config());
    let log = machine.log();
    append(&log, record("a", "committed")).unwrap();
    append_verified(&log, transactional(1, 0, "a", "aborted"), false).unwrap();
    append_verified(&log, transactional(2, 0, "b", "in a transaction"), false).unwrap();
    log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    log.append_marker(&marker(2, 0, true, false), EPOCH).unwrap();
    append_verified(&log, transactional(1, 1, "c", "later"), false).unwrap();
    log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
    next_segment(&log, "1");
    clean(&machine).unwrap();
    let end = log.log_end_offset().get();
    let keys = newest(&consumed(&log, 0, end, 1000));
    assert_eq!(keys["a"], (0, "committed".to_owned()));
    assert_eq!(keys["b"].1, "in a transaction");
    let offsets: Vec<i64> = stored(&log).iter().map(|batch| batch.base_offset.get()).collect();
    assert!(!offsets.contains(&1), "the aborted record is gone: {offsets:?}");
}

#[test]
fn a_marker_outlives_its_records_by_the_delete_retention() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    append_verified(&log, transactional(1, 0, "a", "aborted"), false).unwrap();
    log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    append_verified(&log, transactional(2, 0, "a", "old"), false).unwrap();
    log.append_marker(&marker(2, 0, true, false), EPOCH).unwrap();
    append(&log, record("a", "new")).unwrap();
    // Both producers have written something since, elsewhere: their last sequence numbers are not here.
    log.roll().unwrap();
    append_verified(&log, transactional(1, 1, "x", "1"), false).unwrap();
    append_verified(&log, transactional(2, 1, "x", "2"), false).unwrap();
    log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
    log.append_marker(&marker(2, 0, true, false), EPOCH).unwrap();
    let first = |log: &Log| -> Vec<(i64, i32)> {
        markers(log).into_iter().filter(|(offset, _)| *offset < 5).collect()
    };
    next_segment(&log, "1");
    clean(&machine).unwrap();
    assert_eq!(first(&log), [(1, 1), (3, 1)], "their records were there until now");
    let first_pass: Vec<Option<i64>> = stored(&log)
        .iter()
        .filter(|batch| batch.is_control())
        .map(|batch| batch.delete_horizon_ms())
        .collect();
    assert_eq!(first_pass[..2], [None; 2], "and nobody has said how much longer they stay");
    next_segment(&log, "2");
    clean(&machine).unwrap();
    let stamped: Vec<Option<i64>> = stored(&log)
        .iter()
        .filter(|batch| batch.is_control())
        .map(|batch| batch.delete_horizon_ms())
        .collect();
    assert_eq!(stamped[..2], [Some(1_001_000); 2]);
    machine.clock.advance(999);
    next_segment(&log, "3");
    clean(&machine).unwrap();
    assert_eq!(first(&log).len(), 2, "one millisecond early");
    machine.clock.advance(1);
    next_segment(&log, "4");
    clean(&machine).unwrap();
    assert_eq!(first(&log), []);
    // No entry is left for them either, and nothing is missed.
    let (_, aborted) = log.read_committed(Offset::ZERO, 1 << 20, log.log_end_offset(), true).unwrap();
    assert_eq!(aborted, []);
    drop(log);
    let log = machine.restart();
    assert_eq!(newest(&consumed(&log, 0, log.log_end_offset().get(), 500))["a"].1, "new");
}

#[test]
fn producers_keep_their_last_sequence_or_their_epoch() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    // The last batch of producer 1 is an aborted one: it stays, empty, with its marker, and so does the entry.
    append_verified(&log, transactional(1, 4, "a", "aborted"), false).unwrap();
    log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    // Producer 2 has only ever had a marker.
    log.append_marker(&marker(2, 7, false, false), EPOCH).unwrap();
    append(&log, record("z", "1")).unwrap();
    for round in 0..4 {
        next_segment(&log, &round.to_string());
        clean(&machine).unwrap();
        machine.clock.advance(1000);
    }
    let all = stored(&log);
    assert_eq!((all[0].base_offset.get(), all[0].record_count, all[0].base_sequence), (0, 0, 4));
    assert_eq!(markers(&log)[..2], [(1, 1), (2, 0)]);
    let (_, aborted) = log.read_committed(Offset::ZERO, 1 << 20, log.log_end_offset(), true).unwrap();
    assert_eq!(aborted.len(), 1);
    drop(log);
    // Also where no snapshot is left.
    let names = towpath_log::Storage::list(&machine.storage, &super::common::file("")).unwrap();
    for name in names.iter().filter(|entry| entry.name.ends_with(".snapshot")) {
        towpath_log::Storage::remove_file(&machine.storage, &super::common::file(&name.name)).unwrap();
    }
    let log = machine.kill();
    let next = batch_of(1, 0, 5, false, &[("a", Some("b"))], 1_000_000);
    assert!(append(&log, batch_of(1, 0, 6, false, &[("a", Some("b"))], 1_000_000)).is_err());
    append(&log, next).unwrap();
    let fenced = batch_of(2, 6, 0, false, &[("a", Some("b"))], 1_000_000);
    assert!(append(&log, fenced).is_err());
}

#[test]
fn nothing_at_or_after_the_first_undecided_record_is_touched() {
    let machine = Machine::new(config());
    let log = machine.log();
    append(&log, record("a", "1")).unwrap();
    append(&log, record("a", "2")).unwrap();
    log.roll().unwrap();
    append_verified(&log, transactional(1, 0, "a", "open"), false).unwrap();
    append(&log, record("a", "3")).unwrap();
    next_segment(&log, "1");
    let stats = clean(&machine).unwrap();
    assert_eq!(stats.clean_to, Offset::new(2));
    assert_eq!(stored(&log).iter().map(|batch| batch.base_offset.get()).collect::<Vec<_>>()[..2], [1, 2]);
    log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    let end = log.log_end_offset();
    // The marker itself is not below the high watermark yet.
    let run = |bound| machine.dir().clean(&partition(), bound, &CleanOptions::default()).unwrap();
    assert!(run(Offset::new(end.get() - 1)).is_none());
    assert!(run(end).is_some());
}

#[test]
fn a_truncation_lowers_the_offset_up_to_which_a_log_is_compacted() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    let fill = |log: &Log, label: &str| {
        for index in 0..10 {
            append(log, record("k", &format!("{label}{index}"))).unwrap();
        }
        log.roll().unwrap();
        append(log, record("other", label)).unwrap();
    };
    fill(&log, "a");
    assert_eq!(clean(&machine).unwrap().clean_to, Offset::new(10));
    // An unclean election.
    log.truncate_to(Offset::new(2)).unwrap();
    drop(log);
    let log = machine.crash();
    fill(&log, "b");
    assert!(log.log_end_offset() > Offset::new(10));
    let stats = clean(&machine).unwrap();
    assert_eq!(stats.records_kept, 1, "the new ones are compacted among themselves");
}

#[test]
fn a_truncation_does_not_wait_for_a_compaction() {
    let machine = Machine::new(LogConfig { segment_bytes: 4000, ..config() });
    let log = machine.log();
    for index in 0..3000 {
        append(&log, record(&format!("k{index}"), "v")).unwrap();
    }
    log.roll().unwrap();
    append(&log, record("last", "v")).unwrap();
    let end = log.log_end_offset();
    let interrupted = std::thread::scope(|scope| {
        let compaction = scope.spawn(|| {
            (0..1000).find_map(|_| {
                log.set_config(LogConfig { dirty_ratio_min: -1.0, ..log.config().as_ref().to_owned() });
                match machine.dir().clean(&partition(), end, &CleanOptions::default()) {
                    Ok(None) => Some(true),
                    Ok(Some(_)) => None,
                    Err(error) => panic!("{error}"),
                }
            })
        });
        while !compaction.is_finished() {
            // It lowers nothing that is there: the log ends here.
            let target = Offset::new(log.log_end_offset().get() - 1);
            log.truncate_to(target).unwrap();
            append(&log, record("last", "v")).unwrap();
        }
        compaction.join().unwrap()
    });
    assert_eq!(interrupted, Some(true), "it was given up");
    let names = towpath_log::Storage::list(&machine.storage, &super::common::file("")).unwrap();
    assert!(names.iter().all(|entry| !entry.name.ends_with(".cleaned")), "{names:?}");
    assert_eq!(log.log_end_offset(), end);
}

/// The last batch of a producer is an aborted one: it stays empty, and has to keep its marker and its entry. Without them it
/// would seem to be open as soon as the state is read from the log.
#[test]
fn a_crash_at_any_moment_leaves_no_transaction_without_its_end() {
    let mut finished = false;
    for operations in 0..400 {
        if finished {
            return;
        }
        let mut machine = Machine::seeded(config(), operations);
        let log = machine.log();
        append_verified(&log, transactional(1, 4, "a", "aborted"), false).unwrap();
        log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
        next_segment(&log, "1");
        next_segment(&log, "2");
        log.flush().unwrap();
        machine.dir().checkpoint().unwrap();
        let end = log.log_end_offset();
        machine.storage.stop_after(operations);
        let result = machine.dir().clean(&partition(), end, &CleanOptions::default());
        drop(log);
        if operations % 2 == 0 {
            machine.crash()
        } else {
            machine.kill()
        };
        for round in 0..4 {
            next_segment(&machine.log(), &round.to_string());
            clean(&machine);
            machine.clock.advance(1000);
        }
        let names = towpath_log::Storage::list(&machine.storage, &super::common::file("")).unwrap();
        for name in names.iter().filter(|entry| entry.name.ends_with(".snapshot")) {
            towpath_log::Storage::remove_file(&machine.storage, &super::common::file(&name.name)).unwrap();
        }
        let log = machine.kill();
        let end = log.log_end_offset();
        assert_eq!(log.last_stable_offset(end), end, "after {operations} operations");
        assert_eq!(markers(&log), [(1, 1)], "after {operations} operations");
        finished = result.is_ok() && operations > 10;
    }
    panic!("no compaction came to its end");
}

/// A reader that has an old segment in its hands is told what was aborted in it.
#[test]
fn readers_beside_a_compaction_see_nothing_that_was_aborted() {
    let machine = Machine::new(LogConfig { segment_bytes: 1000, tail_bytes: 0, ..config() });
    let log = machine.log();
    for index in 0..150 {
        append_verified(&log, transactional(1, index * 2, &format!("k{}", index % 7), "aborted"), false)
            .unwrap();
        append(&log, record(&format!("k{}", index % 5), "fine")).unwrap();
        append_verified(&log, transactional(1, index * 2 + 1, "x", "aborted"), false).unwrap();
        log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    }
    log.roll().unwrap();
    append(&log, record("last", "fine")).unwrap();
    log.release_memory();
    let end = log.log_end_offset().get();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let seen = consumed(&log, 0, end, 600);
                    assert!(seen.iter().all(|(_, _, value)| value == "fine"));
                }
            });
        }
        for bytes in [150, 200, 300, 500, 100_000] {
            let options = CleanOptions { map_bytes_max: bytes };
            machine.dir().clean(&partition(), Offset::new(end), &options).unwrap();
        }
    });
}

/// After anything, a reader that has gone on sees what a reader of the whole log would see.
fn check_newest(world: &World, log: &Arc<Log>) {
    let high_watermark = Offset::new(world.high_watermark);
    let stable = log.last_stable_offset(high_watermark).get();
    let seen = consumed(log, log.log_start_offset().get(), stable, 400);
    let all = committed(&world.items, i64::MIN, stable);
    assert!(seen.iter().all(|record| all.contains(record)), "only committed records");
    assert_eq!(newest(&seen), newest(&all), "up to {stable}");
}

#[test]
fn compactions_and_crashes_lose_nothing_that_was_committed() {
    let (mut cleaned, mut finished) = (0, 0);
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let config = LogConfig {
            segment_bytes: 600 + random.below(1500),
            delete_retention_ms: 20,
            tail_bytes: 0,
            ..config()
        };
        let mut world = World::new(seed, config);
        for _ in 0..25 {
            for _ in 0..8 {
                world.write().unwrap();
            }
            world.advance();
            // Were the high watermark an older one after a crash, less would be visible than was compacted.
            world.checkpoint();
            world.machine.clock.advance(random.below(15) as i64);
            let end = Offset::new(world.high_watermark);
            let stop = random.below(2) == 0;
            if stop {
                world.machine.storage.stop_after(random.below(120));
            }
            let options = CleanOptions { map_bytes_max: 100 + random.below(800) as usize };
            match world.machine.dir().clean(&partition(), end, &options) {
                Ok(stats) => cleaned += usize::from(stats.is_some()),
                Err(error) => assert!(stop, "{error}"),
            }
            if stop {
                world.come_back_from_a_stop();
                finished += 1;
            }
            check_newest(&world, &world.log());
            if random.below(4) == 0 {
                world.come_back();
                check_newest(&world, &world.log());
            }
        }
    }
    assert!(cleaned > 200 && finished > 200, "{cleaned} {finished}");
}
