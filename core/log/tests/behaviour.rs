//! What a log does while nothing breaks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{
    EPOCH, Machine, ROOT, append, batch, file, options, partition, produced, read_all, read_from,
    small_segments, span,
};
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{
    AppendError, Clock, FetchedData, FileStorage, LogConfig, LogDir, LogDirOptions, LogError, ReadError,
    Storage, SystemClock,
};
use towpath_record::{
    BatchBuilder, Codec, Compression, Origin, RecordBatch, TimestampType, ValidateError, batches,
};
use towpath_types::{LeaderEpoch, Offset, TopicId, TopicName, TopicPartition};

#[test]
fn a_read_begins_with_the_batch_that_contains_the_offset() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    let mut starts = Vec::new();
    for index in 0..60 {
        let count = 1 + index % 7;
        let info = append(&log, batch(count, 1000, &format!("b{index}"))).unwrap();
        starts.push((info.first_offset.get(), info.last_offset.get()));
    }
    assert!(log.segment_count() > 5);
    let check = |log: &towpath_log::Log| {
        for (first, last) in &starts {
            for offset in *first..=*last {
                let data = log.read(Offset::new(offset), 1, log.log_end_offset(), true).unwrap();
                assert_eq!(span(data), (*first, *last), "the first batch whatever its size");
                let data = log.read(Offset::new(offset), 1, log.log_end_offset(), false).unwrap();
                assert!(data.is_empty());
                let data = log.read(Offset::new(offset), 500, log.log_end_offset(), true).unwrap();
                assert!(data.len() <= 500);
                assert_eq!(span(data).0, *first);
                // Nothing at or above the bound, and no part of a batch that crosses it.
                let data = log.read(Offset::new(offset), 1 << 20, Offset::new(offset + 1), true).unwrap();
                assert_eq!(data.is_empty(), offset < *last);
            }
        }
        assert!(log.read(log.log_end_offset(), 100, log.log_end_offset(), true).unwrap().is_empty());
        assert!(matches!(
            log.read(log.log_end_offset().next(), 100, Offset::new(i64::MAX), true),
            Err(ReadError::OutOfRange { .. })
        ));
    };
    check(&log);
    let in_memory = log.read(Offset::new(starts[59].0), 500, log.log_end_offset(), true).unwrap();
    assert!(matches!(in_memory, FetchedData::Memory(_)), "the tail comes from memory");
    log.release_memory();
    check(&log);
    let log = machine.restart();
    check(&log);
    assert_eq!(read_all(&log).len(), starts.last().unwrap().1 as usize + 1);
}

#[test]
fn readers_go_on_beside_a_writer() {
    let machine = Machine::new(LogConfig { segment_bytes: 10_000, ..small_segments() });
    let log = machine.log();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 0..3000 {
                append(&log, batch(1 + index % 3, 1000, "x")).unwrap();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut next = Offset::ZERO;
                while next < Offset::new(5000) {
                    let bytes =
                        log.read(next, 4000, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
                    for batch in batches(&bytes) {
                        let batch = batch.unwrap();
                        assert_eq!(batch.base_offset, next, "no gap, no repetition");
                        batch.verify_crc().unwrap();
                        next = batch.next_offset();
                    }
                }
            });
        }
        writer.join().unwrap();
    });
}

#[test]
fn retention_by_size_and_time_never_reaches_the_high_watermark() {
    let machine = Machine::new(LogConfig { retention_ms: None, ..small_segments() });
    let log = machine.log();
    for index in 0..100 {
        append(&log, batch(2, 1000 + index, "some value")).unwrap();
    }
    let end = log.log_end_offset();
    let before = log.size_in_bytes();
    assert_eq!(log.delete_old_segments(end).unwrap(), 0, "no bound, nothing goes");
    log.set_config(LogConfig { retention_bytes: Some(0), ..*log.config() });
    assert_eq!(log.delete_old_segments(Offset::new(5)).unwrap(), 0, "not below the high watermark");
    log.set_config(LogConfig { retention_bytes: Some(before / 2), ..*log.config() });
    let removed = log.delete_old_segments(end).unwrap();
    assert!(removed > 0);
    assert!(log.size_in_bytes() >= before / 2, "whole segments, and not one too many");
    assert!(log.size_in_bytes() < before / 2 + 1000);
    assert!(log.log_start_offset() > Offset::ZERO);
    assert!(matches!(log.read(Offset::ZERO, 1, end, true), Err(ReadError::OutOfRange { .. })));
    assert_eq!(read_all(&log).len() as i64, end.get() - log.log_start_offset().get());
    // By time: everything is old, so that an empty active segment is all that remains.
    log.set_config(LogConfig { retention_bytes: None, retention_ms: Some(10_000), ..*log.config() });
    assert!(log.delete_old_segments(end).unwrap() > 0);
    assert_eq!((log.log_start_offset(), log.log_end_offset(), log.size_in_bytes()), (end, end, 0));
    let info = append(&log, batch(1, 1_000_000, "young")).unwrap();
    assert_eq!(info.first_offset, end, "offsets go on");
    assert_eq!(log.delete_old_segments(log.log_end_offset()).unwrap(), 0);
}

#[test]
fn a_timestamp_in_the_future_keeps_its_segment_and_those_after_it() {
    let machine = Machine::new(LogConfig {
        retention_ms: Some(1000),
        timestamp_after_max_ms: i64::MAX,
        ..small_segments()
    });
    let log = machine.log();
    append(&log, batch(1, 1_000_000 + 5_000, "future")).unwrap();
    log.roll().unwrap();
    append(&log, batch(1, 1000, "old")).unwrap();
    log.roll().unwrap();
    assert_eq!(log.delete_old_segments(log.log_end_offset()).unwrap(), 0);
    machine.clock.advance(6_001);
    assert_eq!(log.delete_old_segments(log.log_end_offset()).unwrap(), 2);
}

#[test]
fn deleted_records_stay_deleted() {
    let mut machine = Machine::new(LogConfig { retention_ms: None, ..small_segments() });
    let log = machine.log();
    for _ in 0..50 {
        append(&log, batch(3, 1000, "some longer value")).unwrap();
    }
    assert_eq!(log.delete_records_before(Offset::new(70)).unwrap(), Offset::new(70));
    assert_eq!(log.delete_records_before(Offset::new(40)).unwrap(), Offset::new(70), "it only grows");
    assert_eq!(read_all(&log)[0].0, 70);
    machine.dir().checkpoint().unwrap();
    let log = machine.kill();
    assert_eq!(log.log_start_offset(), Offset::new(70));
    assert!(log.delete_old_segments(log.log_end_offset()).unwrap() > 0);
    assert_eq!(read_all(&log)[0].0, 70);
}

#[test]
fn repeated_batches_of_a_producer_are_recognised() {
    let mut machine = Machine::new(LogConfig::default());
    let log = machine.log();
    let first = append(&log, produced(9, 0, 0, 3)).unwrap();
    for sequence in 1..=5 {
        append(&log, produced(9, 0, sequence * 3, 3)).unwrap();
    }
    let again = append(&log, produced(9, 0, 3, 3)).unwrap();
    assert!(again.duplicate);
    assert_eq!((again.first_offset.get(), again.last_offset.get()), (3, 5), "the original offsets");
    assert_eq!(log.log_end_offset(), Offset::new(18));
    // The first batch is the sixth last: no longer known, so it is out of order.
    assert_eq!(first.first_offset, Offset::ZERO);
    let out_of_order = |result: Result<_, AppendError>| {
        assert!(matches!(result, Err(AppendError::OutOfOrderSequence { .. })), "{result:?}");
    };
    out_of_order(append(&log, produced(9, 0, 0, 3)));
    out_of_order(append(&log, produced(9, 0, 19, 1)));
    out_of_order(append(&log, produced(9, 1, 1, 1)));
    append(&log, produced(9, 1, 0, 1)).unwrap();
    assert!(matches!(append(&log, produced(9, 0, 18, 1)), Err(AppendError::InvalidProducerEpoch { .. })));
    // Another producer's state is its own, and an unknown one may begin anywhere.
    append(&log, produced(10, 0, i32::MAX - 1, 2)).unwrap();
    out_of_order(append(&log, produced(10, 0, i32::MAX, 1)));
    let wrapped = append(&log, produced(10, 0, 0, 2)).unwrap();
    assert!(!wrapped.duplicate, "sequences wrap from MAX to 0");
    let end = log.log_end_offset();
    for restarted in [true, false] {
        let log = if restarted { machine.restart() } else { machine.kill() };
        let again = append(&log, produced(10, 0, 0, 2)).unwrap();
        assert_eq!((again.duplicate, again.first_offset), (true, wrapped.first_offset));
        assert_eq!(log.log_end_offset(), end);
        out_of_order(append(&log, produced(10, 0, 7, 1)));
    }
    let log = machine.log();
    // Whatever the records' timestamps say, a day passes by our clock.
    machine.clock.advance(2 * 24 * 60 * 60 * 1000);
    for hours in [0, 23] {
        machine.clock.advance(hours * 60 * 60 * 1000);
        log.expire_producers();
        assert_eq!(log.producers().len(), 2);
    }
    machine.clock.advance(2 * 60 * 60 * 1000);
    log.expire_producers();
    assert!(log.producers().is_empty());
}

#[test]
fn all_that_a_producer_had_in_flight_is_recognised_after_a_restart() {
    // Twice: all in one segment, and over several.
    for config in [LogConfig::default(), LogConfig { segment_bytes: 250, ..LogConfig::default() }] {
        let mut machine = Machine::new(config);
        for sequence in 0..8 {
            append(&machine.log(), produced(9, 0, sequence * 3, 3)).unwrap();
            append(&machine.log(), produced(10 + i64::from(sequence), 0, 0, 1)).unwrap();
        }
        let end = machine.log().log_end_offset();
        for restarted in [true, false, true] {
            let log = if restarted { machine.restart() } else { machine.kill() };
            for sequence in 3..8 {
                let again = append(&log, produced(9, 0, sequence * 3, 3)).unwrap();
                let first = i64::from(sequence) * 4;
                assert_eq!(
                    (again.duplicate, again.first_offset.get()),
                    (true, first),
                    "restarted {restarted}"
                );
            }
            assert!(append(&log, produced(9, 0, 2 * 3, 3)).is_err(), "the sixth last is not");
            assert_eq!(log.log_end_offset(), end);
            append(&log, produced(99, 0, 0, 1)).unwrap();
            log.truncate_to(end).unwrap();
        }
    }
}

#[test]
fn a_batch_that_wraps_inside_is_recognised_again() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    append(&log, produced(1, 0, i32::MAX - 1, 4)).unwrap();
    assert!(append(&log, produced(1, 0, i32::MAX - 1, 4)).unwrap().duplicate);
    assert!(!append(&log, produced(1, 0, 2, 1)).unwrap().duplicate, "MAX-1, MAX, 0, 1, then 2");
}

#[test]
fn lookups_by_timestamp() {
    let mut machine = Machine::new(LogConfig { timestamp_after_max_ms: i64::MAX, ..small_segments() });
    let log = machine.log();
    assert_eq!(log.lookup_timestamp(0).unwrap(), None);
    assert_eq!(log.max_timestamp().unwrap(), None);
    // Timestamps rise by 10 a batch, with one outlier far ahead; inside a batch the records differ.
    for index in 0..80i64 {
        let mut builder =
            BatchBuilder::new(if index % 2 == 0 { Compression::Lz4 } else { Compression::None });
        let base = if index == 40 { 5000 } else { index * 10 };
        for record in 0..3 {
            builder.append(base + record, None, Some(&[b'x'; 30]), &[]).unwrap();
        }
        append(&log, builder.build().unwrap()).unwrap();
    }
    let check = |log: &towpath_log::Log| {
        let lookup = |timestamp: i64| {
            log.lookup_timestamp(timestamp).unwrap().map(|found| (found.timestamp, found.offset.get()))
        };
        assert_eq!(lookup(-5), Some((0, 0)));
        assert_eq!(lookup(11), Some((11, 4)), "inside a batch");
        assert_eq!(lookup(13), Some((20, 6)), "between two batches");
        assert_eq!(lookup(390), Some((390, 117)));
        assert_eq!(lookup(395), Some((5000, 120)), "the first in offset order, not in time");
        assert_eq!(lookup(5001), Some((5001, 121)));
        assert_eq!(lookup(5003), None);
        let max = log.max_timestamp().unwrap().unwrap();
        assert_eq!((max.timestamp, max.offset.get()), (5002, 122));
        assert_eq!(max.leader_epoch, Some(EPOCH));
    };
    check(&log);
    check(&machine.restart());
    check(&machine.kill());
}

#[test]
fn the_brokers_clock_and_the_topics_codec() {
    let machine =
        Machine::new(LogConfig { timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() });
    let log = machine.log();
    let info = append(&log, batch(3, 17, "a")).unwrap();
    assert_eq!(info.log_append_time_ms, Some(1_000_000));
    let read = |from: Offset| {
        let bytes = log.read(from, 1 << 20, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
        RecordBatch::parse(&bytes).unwrap()
    };
    let stored = read(Offset::ZERO);
    stored.verify_crc().unwrap();
    assert_eq!(stored.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!(stored.records().unwrap().iter().next().unwrap().unwrap().timestamp, 1_000_000);
    log.set_config(LogConfig {
        compression: Some(Codec::from(Compression::Zstd)),
        message_bytes_max: 200,
        ..LogConfig::default()
    });
    append(&log, batch(3, 17, "b")).unwrap();
    let stored = read(Offset::new(3));
    stored.verify_crc().unwrap();
    assert_eq!(stored.compression().unwrap(), Compression::Zstd);
    assert_eq!(stored.records().unwrap().iter().last().unwrap().unwrap().offset, Offset::new(5));
    assert!(matches!(
        append(&log, batch(30, 17, "b")),
        Err(AppendError::Invalid(ValidateError::TooLarge { .. }))
    ));
    log.set_config(LogConfig { segment_bytes: 100, ..LogConfig::default() });
    assert!(matches!(append(&log, batch(30, 17, "b")), Err(AppendError::LargerThanSegment { .. })));
    assert_eq!(log.log_end_offset(), Offset::new(6), "a refused batch leaves nothing behind");
}

#[test]
fn a_wrong_claim_about_timestamps_is_corrected() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append(500, None, None, &[]).unwrap();
    builder.set_max_timestamp(999_999);
    append(&log, builder.build().unwrap()).unwrap();
    let bytes = log.read(Offset::ZERO, 999, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
    let stored = RecordBatch::parse(&bytes).unwrap();
    stored.verify_crc().unwrap();
    assert_eq!(stored.max_timestamp, 500);
}

#[test]
fn segments_roll_by_the_time_of_their_records() {
    let machine = Machine::new(LogConfig { segment_ms: 100, ..LogConfig::default() });
    let log = machine.log();
    assert!(!append(&log, batch(1, 1000, "a")).unwrap().rolled);
    assert!(!append(&log, batch(1, 1100, "b")).unwrap().rolled);
    assert!(append(&log, batch(1, 1101, "c")).unwrap().rolled);
    assert_eq!(log.active_segment_base_offset(), Offset::new(2));
}

#[test]
fn a_compacted_log_rolls_in_time_for_its_compaction() {
    let rolls = |compact: bool, lag_ms: i64| {
        let config = LogConfig { compact, compaction_lag_ms_max: lag_ms, ..LogConfig::default() };
        let log = Machine::new(config).log();
        append(&log, batch(1, 1_000_000, "a")).unwrap();
        append(&log, batch(1, 1_000_000 + 60_000, "b")).unwrap();
        append(&log, batch(1, 1_000_000 + 60_001, "c")).unwrap();
        log.segment_count()
    };
    assert_eq!((rolls(true, 60_000), rolls(true, 60_001)), (2, 1));
    assert_eq!((rolls(false, 60_000), rolls(true, 0)), (1, 1));
}

#[test]
fn segments_roll_when_an_index_is_full_or_an_offset_is_too_far_away() {
    let config = LogConfig { index_interval_bytes: 0, segment_index_bytes: 32, ..LogConfig::default() };
    let machine = Machine::new(config);
    let log = machine.log();
    // The first batch has no entry; with four entries of eight bytes the index is full.
    let rolled: Vec<bool> =
        (0..7).map(|index| append(&log, batch(1, 1000 + index, "x")).unwrap().rolled).collect();
    assert_eq!(
        rolled,
        [false, false, false, true, false, false, true],
        "the time index holds two entries of twelve"
    );

    // What a leader compacted away leaves a gap that no relative offset can bridge.
    let leader = Machine::new(LogConfig::default());
    let follower = Machine::new(LogConfig::default());
    let far = i64::from(i32::MAX) + 10;
    let (source, target) = (leader.log(), follower.log());
    append(&source, batch(2, 1000, "near")).unwrap();
    let near = source.read(Offset::ZERO, 1 << 20, Offset::new(2), true).unwrap().into_bytes().unwrap();
    source.truncate_fully_and_start_at(Offset::new(far)).unwrap();
    append(&source, batch(2, 1000, "far")).unwrap();
    let beyond =
        source.read(Offset::new(far), 1 << 20, Offset::new(far + 2), true).unwrap().into_bytes().unwrap();
    target.append_as_follower(&near, EPOCH).unwrap();
    assert!(target.append_as_follower(&beyond, EPOCH).unwrap().unwrap().rolled);
    assert_eq!(target.active_segment_base_offset(), Offset::new(far));
    assert_eq!(
        read_all(&target).into_iter().map(|(offset, _)| offset).collect::<Vec<_>>(),
        [0, 1, far, far + 1]
    );
}

/// Of an epoch whose first records were compacted away a follower knows only later ones. If it led, a replica with records of
/// an older epoch in their place would keep those.
#[test]
fn an_epoch_that_begins_after_a_gap_begins_where_the_log_ended() {
    let (leader, follower) = (Machine::new(LogConfig::default()), Machine::new(LogConfig::default()));
    let (source, target) = (leader.log(), follower.log());
    let next = LeaderEpoch::new(EPOCH.get() + 1);
    append(&source, batch(1, 1000, "old")).unwrap();
    let old = source.read(Offset::ZERO, 1 << 20, Offset::new(1), true).unwrap().into_bytes().unwrap();
    source.truncate_fully_and_start_at(Offset::new(5)).unwrap();
    source.append_as_leader(batch(1, 1000, "new"), next, Origin::Client).unwrap();
    let new = source.read(Offset::new(5), 1 << 20, Offset::new(6), true).unwrap().into_bytes().unwrap();
    target.append_as_follower(&old, EPOCH).unwrap();
    target.append_as_follower(&new, next).unwrap();
    assert_eq!(target.end_offset_for_epoch(EPOCH), Some((EPOCH, Offset::new(1))));
    assert_eq!(target.end_offset_for_epoch(next), Some((next, Offset::new(6))));
}

#[test]
fn a_log_that_is_only_compacted_keeps_its_age_and_obeys_deletions() {
    let config = LogConfig { compact: true, delete: false, retention_ms: Some(1), ..small_segments() };
    let machine = Machine::new(config);
    let log = machine.log();
    for index in 0..60 {
        append(&log, batch(2, 1000, &format!("b{index}"))).unwrap();
    }
    machine.clock.advance(1_000_000);
    assert_eq!(log.delete_old_segments(log.log_end_offset()).unwrap(), 0, "age is no reason");
    log.delete_records_before(log.active_segment_base_offset()).unwrap();
    assert!(log.delete_old_segments(log.log_end_offset()).unwrap() > 3);
    assert_eq!(log.segment_count(), 1);
}

#[test]
fn segments_of_records_without_timestamps_roll_by_the_brokers_clock() {
    let mut machine = Machine::new(LogConfig { segment_ms: 100, ..LogConfig::default() });
    let log = machine.log();
    assert!(!append(&log, batch(1, -1, "a")).unwrap().rolled);
    machine.clock.advance(100);
    assert!(!append(&log, batch(1, -1, "b")).unwrap().rolled);
    machine.clock.advance(1);
    assert!(append(&log, batch(1, -1, "c")).unwrap().rolled);
    assert_eq!(log.active_segment_base_offset(), Offset::new(2));
    // As in Kafka, the age of such a segment begins anew with the process.
    machine.clock.advance(90);
    let log = machine.restart();
    machine.clock.advance(90);
    assert!(!append(&log, batch(1, -1, "d")).unwrap().rolled);
    machine.clock.advance(20);
    assert!(append(&log, batch(1, -1, "e")).unwrap().rolled);
}

#[test]
fn the_jitter_makes_segments_roll_earlier_and_not_all_at_once() {
    let mut seen = std::collections::BTreeSet::new();
    let config = LogConfig { segment_ms: 1000, segment_jitter_ms: 900, ..LogConfig::default() };
    let machine = Machine::new(config);
    let log = machine.log();
    let mut now = 10_000;
    for _ in 0..20 {
        let first = now;
        while !append(&log, batch(1, now, "x")).unwrap().rolled {
            now += 10;
        }
        // Right after a roll: the batch that caused it is the first of the next segment.
        let age = now - first;
        assert!((100..=1010).contains(&age), "rolled after {age} ms");
        seen.insert(age);
    }
    assert!(seen.len() > 5, "{seen:?}");
}

#[test]
fn leader_epochs_and_truncation() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    let at = |epoch: i32, label: &str| {
        log.append_as_leader(batch(5, 1000, label), LeaderEpoch::new(epoch), Origin::Client)
    };
    for index in 0..30 {
        at(1 + index / 10, &format!("e{index}")).unwrap();
    }
    assert!(matches!(at(2, "late"), Err(AppendError::FencedLeaderEpoch { .. })), "R6");
    let end = |log: &towpath_log::Log, epoch: i32| {
        log.end_offset_for_epoch(LeaderEpoch::new(epoch)).map(|(epoch, end)| (epoch.get(), end.get()))
    };
    assert_eq!(end(&log, 1), Some((1, 50)));
    assert_eq!(end(&log, 3), Some((3, 150)));
    assert_eq!(end(&log, 4), None);
    log.assign_epoch(LeaderEpoch::new(5));
    assert_eq!(end(&log, 3), Some((3, 150)));
    assert_eq!(end(&log, 5), Some((5, 150)));
    let kept = read_all(&log)[..75].to_vec();
    log.flush().unwrap();
    log.truncate_to(Offset::new(75)).unwrap();
    assert_eq!(log.log_end_offset(), Offset::new(75));
    assert_eq!(log.latest_epoch(), LeaderEpoch::new(2));
    assert_eq!(end(&log, 2), Some((2, 75)));
    assert_eq!(read_all(&log), kept);
    let log = machine.crash();
    assert_eq!(log.log_end_offset(), Offset::new(75), "a truncation is durable");
    assert_eq!(read_all(&log), kept);
    assert_eq!(end(&log, 3), None);
    // The other history takes its place.
    log.append_as_leader(batch(5, 1000, "other"), LeaderEpoch::new(7), Origin::Client).unwrap();
    let log = machine.kill();
    assert_eq!(end(&log, 2), Some((2, 75)));
    assert_eq!(log.latest_epoch(), LeaderEpoch::new(7));
    log.truncate_fully_and_start_at(Offset::new(500)).unwrap();
    assert_eq!((log.log_start_offset().get(), log.log_end_offset().get()), (500, 500));
    assert_eq!(log.latest_epoch(), LeaderEpoch::NONE);
    let log = machine.restart();
    assert_eq!((log.log_start_offset().get(), log.log_end_offset().get()), (500, 500));
}

/// A term in which nothing was written is no part of any other leader's history: a follower that keeps it would name it
/// in every fetch, and be told to cut off nothing, for ever.
/// Batches are whole: what is before the cut and in the same batch goes as well, and the log does not pretend to have it.
#[test]
fn a_truncation_within_a_batch_takes_all_of_it() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for count in [2, 3, 1] {
        append(&log, batch(count, 1000, "b")).unwrap();
    }
    log.flush().unwrap();
    log.truncate_to(Offset::new(3)).unwrap();
    assert_eq!((log.log_end_offset(), log.recovery_point()), (Offset::new(2), Offset::new(2)));
    assert_eq!(read_all(&log).len(), 2);
    append(&log, batch(1, 1000, "c")).unwrap();
    let log = machine.kill();
    assert_eq!(read_all(&log).iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_truncation_to_the_end_forgets_epochs_without_records() {
    for target in [5, 9] {
        let mut machine = Machine::new(LogConfig::default());
        let log = machine.log();
        log.append_as_leader(batch(5, 1000, "x"), LeaderEpoch::new(1), Origin::Client).unwrap();
        log.assign_epoch(LeaderEpoch::new(3));
        log.flush().unwrap();
        assert_eq!(log.latest_epoch(), LeaderEpoch::new(3));
        log.truncate_to(Offset::new(target)).unwrap();
        assert_eq!(log.log_end_offset(), Offset::new(5), "nothing else is lost");
        assert_eq!(log.latest_epoch(), LeaderEpoch::new(1));
        assert_eq!(log.end_offset_for_epoch(LeaderEpoch::new(3)), None);
        let log = machine.crash();
        assert_eq!((log.latest_epoch(), log.log_end_offset()), (LeaderEpoch::new(1), Offset::new(5)));
    }
    let machine = Machine::new(LogConfig::default());
    machine.log().assign_epoch(LeaderEpoch::new(2));
    machine.log().truncate_to(Offset::ZERO).unwrap();
    assert_eq!(machine.log().latest_epoch(), LeaderEpoch::NONE, "in an empty log, too");
}

#[test]
fn a_follower_takes_the_leaders_batches_as_they_are() {
    let leader = Machine::new(small_segments());
    let follower = Machine::new(LogConfig::default());
    let (from, to) = (leader.log(), follower.log());
    for index in 0..20 {
        from.append_as_leader(batch(3, 1000, "x"), LeaderEpoch::new(index / 5), Origin::Client).unwrap();
    }
    while to.log_end_offset() < from.log_end_offset() {
        let data = from.read(to.log_end_offset(), 600, from.log_end_offset(), true).unwrap();
        to.append_as_follower(&data.into_bytes().unwrap(), LeaderEpoch::new(9)).unwrap().unwrap();
    }
    assert_eq!(read_all(&to), read_all(&from));
    assert_eq!(to.epoch_entries(), from.epoch_entries());
    let again = from.read(Offset::new(57), 600, from.log_end_offset(), true).unwrap().into_bytes().unwrap();
    assert!(matches!(
        to.append_as_follower(&again, LeaderEpoch::new(9)),
        Err(AppendError::UnexpectedOffset { .. })
    ));
    from.append_as_leader(batch(1, 1000, "new"), LeaderEpoch::new(8), Origin::Client).unwrap();
    let newer = from.read(to.log_end_offset(), 600, from.log_end_offset(), true).unwrap();
    let newer = newer.into_bytes().unwrap();
    assert!(to.append_as_follower(&newer, LeaderEpoch::new(7)).unwrap().is_none(), "KAFKA-18723");
    let mut damaged = newer.to_vec();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert!(matches!(
        to.append_as_follower(&damaged.into(), LeaderEpoch::new(8)),
        Err(AppendError::Invalid(ValidateError::Corrupt(_)))
    ));
}

#[test]
fn one_directory_one_process_one_identity() {
    let temporary = tempfile::tempdir().unwrap();
    let path = temporary.path().join("data");
    let open =
        |options: &LogDirOptions| LogDir::open(Arc::new(FileStorage), Arc::new(SystemClock), &path, options);
    let dir = open(&options()).unwrap();
    let id = dir.directory_id();
    let error = open(&options()).unwrap_err();
    assert!(matches!(error, LogError::Locked(_)), "{error}");
    let topic_id = TopicId::random();
    let log = dir.create(&partition(), topic_id, LogConfig::default()).unwrap();
    assert!(dir.create(&partition(), topic_id, LogConfig::default()).is_err());
    append(&log, batch(10, SystemClock.now_ms(), "real")).unwrap();
    assert_eq!(log.flush().unwrap(), Offset::new(10));
    let held = log.read(Offset::ZERO, 1 << 20, Offset::new(10), true).unwrap();
    log.release_memory();
    let slice = log.read(Offset::ZERO, 1 << 20, Offset::new(10), true).unwrap();
    let FetchedData::File(slice) = slice else { panic!("{slice:?}") };
    assert!(slice.sendfile_source().is_some());
    assert_eq!(slice.read().unwrap(), held.into_bytes().unwrap());
    dir.close(3).unwrap();
    drop((dir, log));
    let mut other = options();
    other.identity.node_id = 2;
    assert!(matches!(open(&other).unwrap_err(), LogError::Identity { key: "node.id", .. }));
    let dir = open(&options()).unwrap();
    assert!(dir.was_clean());
    assert_eq!(dir.directory_id(), id);
    let (logs, failed) = dir.open_all(|_, _| LogConfig::default()).unwrap();
    assert!(failed.is_empty());
    assert_eq!(logs[0].topic_id(), topic_id);
    assert_eq!(read_all(&logs[0]).len(), 10);
    dir.delete(&partition()).unwrap();
    assert_eq!(slice.read().unwrap().len(), slice.length, "a reader can finish");
    assert!(dir.get(&partition()).is_none());
    assert!(!path.join("t-0").exists());
    assert!(append(&logs[0], batch(1, 0, "late")).is_err());
    drop((dir, logs));
    let dir = open(&options()).unwrap();
    assert!(!dir.was_clean(), "the marker counts once");
    assert!(dir.open_all(|_, _| LogConfig::default()).unwrap().0.is_empty());
}

#[test]
fn high_watermarks_and_files_are_kafkas() {
    let mut machine = Machine::new(small_segments());
    append(&machine.log(), batch(20, 1000, "x")).unwrap();
    append(&machine.log(), batch(20, 1000, "x")).unwrap();
    machine.dir().checkpoint_high_watermarks(&[(partition(), Offset::new(12))].into()).unwrap();
    let log = machine.restart();
    assert_eq!(machine.dir().high_watermarks()[&partition()], Offset::new(12));
    assert_eq!(read_from(&log, Offset::new(30)).len(), 10);
    let mut names: Vec<String> = machine
        .storage
        .list(file("x").parent().unwrap())
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "00000000000000000000.index",
            "00000000000000000000.log",
            "00000000000000000000.timeindex",
            "00000000000000000040.snapshot",
            "leader-epoch-checkpoint",
            "partition.metadata",
        ]
    );
}

#[test]
fn many_partitions_come_back_each_with_its_own() {
    let storage = SimStorage::new(3);
    let open = || {
        let clock = Arc::new(SimClock::new(1_000_000));
        let dir = LogDir::open(Arc::new(storage.clone()), clock, Path::new(ROOT), &options()).unwrap();
        let (logs, failed) = dir.open_all(|_, _| small_segments()).unwrap();
        assert!(failed.is_empty(), "{failed:?}");
        (dir, logs.len())
    };
    let id = |index: i32| TopicPartition::new(TopicName::new("t").unwrap(), index);
    let (mut dir, _) = open();
    for index in 0..200 {
        dir.create(&id(index), TopicId::random(), small_segments()).unwrap();
    }
    for round in 1..=3 {
        for index in 0..200 {
            append(&dir.get(&id(index)).unwrap(), batch(1, 1000, &format!("p{index}"))).unwrap();
        }
        let clean = round != 2;
        if clean {
            dir.close(1).unwrap();
        }
        storage.kill();
        let (opened, count) = open();
        dir = opened;
        assert_eq!((count, dir.was_clean()), (200, clean));
        for index in 0..200 {
            let values = read_all(&dir.get(&id(index)).unwrap());
            assert_eq!(values.len(), round, "partition {index}");
            let expected = format!("p{index}.0");
            assert!(values.iter().all(|(_, value)| value.as_ref() == Some(&expected)), "{values:?}");
        }
    }
}
