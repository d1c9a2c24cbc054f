//! One rule each.

use towpath_log::{AppendError, AppendOptions, Effort, LogConfig, Marker, TransactionCheck};
use towpath_record::{BatchHeader, Origin};
use towpath_types::{Offset, ProducerEpoch, ProducerId};

use super::common::{EPOCH, Machine, append, batch, produced, small_segments};
use super::producers::{append_verified, batch_of, in_transaction, marker};

fn at(offset: i64) -> Offset {
    Offset::new(offset)
}

pub(crate) fn aborted(log: &towpath_log::Log, from: i64, bound: i64) -> Vec<(i64, i64)> {
    let (_, aborted) = log.read_committed(at(from), 1 << 20, at(bound), true).unwrap();
    aborted.iter().map(|aborted| (aborted.producer_id.get(), aborted.first_offset.get())).collect()
}

#[test]
fn a_batch_begins_a_transaction_only_with_the_guard_of_this_very_one() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    let bytes = in_transaction(7, 0, 0, "a");
    let header = BatchHeader::parse(&bytes).unwrap();
    let with = |guard| AppendOptions { origin: Origin::Client, effort: Effort::Any, guard };
    let append_with = |guard| log.append_as_leader_with(bytes.clone(), EPOCH, &with(guard));
    assert!(matches!(append_with(None), Err(AppendError::NotVerified { .. })));
    let TransactionCheck::Verify(first) = log.transaction_check(&header, false).unwrap() else { panic!() };
    assert_eq!(log.transaction_check(&header, false).unwrap(), TransactionCheck::Verify(first));
    // The coordinator aborts before the append: what it said before does not count any more.
    log.append_marker(&marker(7, 0, false, false), EPOCH).unwrap();
    assert!(matches!(append_with(Some(first)), Err(AppendError::NotVerified { .. })));
    let TransactionCheck::Verify(second) = log.transaction_check(&header, false).unwrap() else { panic!() };
    assert_ne!(first, second);
    assert!(matches!(append_with(Some(first)), Err(AppendError::NotVerified { .. })));
    assert!(!append_with(Some(second)).unwrap().duplicate);
    // From here on it is open: nobody asks, and what is sent twice is known.
    assert_eq!(log.transaction_check(&header, false).unwrap(), TransactionCheck::Append);
    assert!(append_with(None).unwrap().duplicate);
    append_verified(&log, in_transaction(7, 0, 1, "b"), false).unwrap();
    // Of another epoch it is not.
    let newer = BatchHeader::parse(&in_transaction(7, 1, 0, "c")).unwrap();
    assert!(matches!(log.transaction_check(&newer, false).unwrap(), TransactionCheck::Verify(_)));
    let newer = in_transaction(7, 1, 0, "c");
    assert!(matches!(
        log.append_as_leader_with(newer, EPOCH, &with(Some(second))),
        Err(AppendError::NotVerified { .. })
    ));
}

#[test]
fn guards_expire_and_do_not_outlast_a_truncation() {
    let machine = Machine::new(LogConfig { producer_expiration_ms: 1000, ..LogConfig::default() });
    let log = machine.log();
    append(&log, batch(3, 1_000_000, "x")).unwrap();
    let check = |id| log.transaction_check_of(ProducerId::new(id), ProducerEpoch::new(0), 0, false).unwrap();
    let before = check(1);
    machine.clock.advance(999);
    log.expire_producers();
    assert_eq!(check(1), before);
    machine.clock.advance(1);
    log.expire_producers();
    let after = check(1);
    assert_ne!(after, before);
    log.truncate_to(at(0)).unwrap();
    assert_ne!(check(1), after);
}

#[test]
fn outside_of_an_open_transaction_its_producer_writes_nothing() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    append_verified(&log, in_transaction(7, 0, 0, "a"), false).unwrap();
    assert!(matches!(append(&log, produced(7, 0, 1, 1)), Err(AppendError::InvalidTxnState { .. })));
    log.append_marker(&marker(7, 0, true, false), EPOCH).unwrap();
    append(&log, produced(7, 0, 1, 1)).unwrap();
}

#[test]
fn an_unknown_producer_begins_anywhere_except_where_every_transaction_has_its_epoch() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    append_verified(&log, in_transaction(1, 0, 50, "a"), false).unwrap();
    let late = append_verified(&log, in_transaction(2, 0, 50, "a"), true);
    assert!(matches!(late, Err(AppendError::OutOfOrderSequence { .. })));
    // Of two that wait for the same answer, the later one does not come first.
    let check = |sequence| {
        let bytes = in_transaction(3, 0, sequence, "a");
        match log.transaction_check(&BatchHeader::parse(&bytes).unwrap(), false).unwrap() {
            TransactionCheck::Verify(guard) => (bytes, guard),
            TransactionCheck::Append => panic!(),
        }
    };
    let (first, _) = check(10);
    let (second, guard) = check(11);
    let with = AppendOptions { origin: Origin::Client, effort: Effort::Any, guard: Some(guard) };
    let refused = log.append_as_leader_with(second.clone(), EPOCH, &with);
    assert!(matches!(refused, Err(AppendError::OutOfOrderSequence { .. })));
    log.append_as_leader_with(first, EPOCH, &with).unwrap();
    log.append_as_leader_with(second, EPOCH, &with).unwrap();
}

#[test]
fn epochs_of_markers_and_of_coordinators() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    let append = |marker: Marker| log.append_marker(&marker, EPOCH);
    append_verified(&log, in_transaction(1, 3, 0, "a"), true).unwrap();
    assert!(matches!(append(marker(1, 2, true, false)), Err(AppendError::InvalidProducerEpoch { .. })));
    // The transaction is open: its own epoch is none that ends it.
    assert!(matches!(append(marker(1, 3, true, true)), Err(AppendError::InvalidProducerEpoch { .. })));
    append(marker(1, 4, true, true)).unwrap();
    let end = log.log_end_offset();
    // Sent again it is appended again, and ends nothing.
    assert_eq!(append(marker(1, 4, true, true)).unwrap().first_offset, end);
    assert!(matches!(append(marker(1, 3, true, true)), Err(AppendError::InvalidProducerEpoch { .. })));
    let old = Marker { coordinator_epoch: 0, ..marker(1, 4, true, false) };
    assert!(matches!(
        append(old),
        Err(AppendError::TransactionCoordinatorFenced { found: 0, current: 1, .. })
    ));
    // The next transaction of the new epoch begins with 0.
    let late = append_verified(&log, in_transaction(1, 4, 1, "b"), true);
    assert!(matches!(late, Err(AppendError::OutOfOrderSequence { .. })));
    append_verified(&log, in_transaction(1, 4, 0, "b"), true).unwrap();
    // Older clients keep their epoch, and their sequence goes on.
    append_verified(&log, in_transaction(2, 0, 0, "a"), false).unwrap();
    append(marker(2, 0, false, false)).unwrap();
    append_verified(&log, in_transaction(2, 0, 1, "b"), false).unwrap();
    // A producer that has only ever had markers fences older epochs.
    append(marker(9, 5, false, false)).unwrap();
    let fenced = append_verified(&log, in_transaction(9, 4, 0, "a"), false);
    assert!(matches!(fenced, Err(AppendError::InvalidProducerEpoch { .. })));
    let summary = log.producers().into_iter().find(|producer| producer.producer_id.get() == 1).unwrap();
    assert_eq!((summary.coordinator_epoch, summary.last_sequence), (1, 0));
    assert_eq!(summary.txn_start_offset, Some(end.next()));
}

#[test]
fn offsets_that_a_coordinator_writes_need_no_sequence_but_a_guard() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    let bytes = batch_of(5, 0, -1, true, &[("group", Some("offset"))], 1_000_000);
    let header = BatchHeader::parse(&bytes).unwrap();
    let options = |guard| AppendOptions { origin: Origin::Coordinator, effort: Effort::Any, guard };
    let refused = log.append_as_leader_with(bytes.clone(), EPOCH, &options(None));
    assert!(matches!(refused, Err(AppendError::NotVerified { .. })));
    let TransactionCheck::Verify(guard) = log.transaction_check(&header, true).unwrap() else { panic!() };
    log.append_as_leader_with(bytes.clone(), EPOCH, &options(Some(guard))).unwrap();
    assert!(!log.append_as_leader_with(bytes.clone(), EPOCH, &options(None)).unwrap().duplicate);
    let from_client = log.append_as_leader(bytes, EPOCH, Origin::Client);
    assert!(matches!(from_client, Err(AppendError::Invalid(_))));
}

#[test]
fn the_last_stable_offset_waits_for_the_marker_to_be_below_the_high_watermark() {
    let machine = Machine::new(LogConfig::default());
    let log = machine.log();
    append(&log, batch(5, 1_000_000, "x")).unwrap();
    append_verified(&log, in_transaction(1, 0, 0, "a"), false).unwrap();
    append_verified(&log, in_transaction(2, 0, 0, "b"), false).unwrap();
    let stable = |high_watermark| log.last_stable_offset(at(high_watermark)).get();
    assert_eq!((stable(4), stable(7)), (4, 5));
    log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    log.append_marker(&marker(2, 0, true, false), EPOCH).unwrap();
    assert_eq!((stable(7), stable(8), stable(9)), (5, 6, 9));
    log.high_watermark_moved(at(9));
    assert_eq!(stable(9), 9);
    assert_eq!(aborted(&log, 0, 9), [(1, 5)]);
    assert_eq!(aborted(&log, 7, 9), [(1, 5)], "its marker is not behind the reader yet");
    assert_eq!(aborted(&log, 8, 9), []);
    // A log start within an open transaction does not hide what is decided after it.
    append_verified(&log, in_transaction(3, 0, 0, "c"), false).unwrap();
    append(&log, batch(3, 1_000_000, "y")).unwrap();
    log.delete_records_before(at(11)).unwrap();
    assert_eq!(stable(13), 11);
}

#[test]
fn a_transaction_over_many_segments_is_found_from_each_of_them() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append_verified(&log, in_transaction(1, 0, 0, "first"), false).unwrap();
    for index in 0..60 {
        append_verified(&log, in_transaction(2, 0, index * 2, "other"), false).unwrap();
        append_verified(&log, in_transaction(1, 0, index + 1, "long"), false).unwrap();
        append_verified(&log, in_transaction(2, 0, index * 2 + 1, "other"), false).unwrap();
        log.append_marker(&marker(2, 0, index % 2 == 0, false), EPOCH).unwrap();
    }
    let last = log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap().last_offset.get();
    append(&log, batch(3, 1_000_000, "after")).unwrap();
    assert!(log.segment_count() > 10);
    let look = |log: &towpath_log::Log| {
        for from in [0, 1, 50, 100, last - 1, last] {
            let (data, found) = log.read_committed(at(from), 200, log.log_end_offset(), true).unwrap();
            assert!(!data.is_empty());
            assert!(found.iter().any(|found| found.producer_id.get() == 1 && found.first_offset.get() == 0));
            // Not all that ever was, only what is near.
            assert!(found.len() < 12, "{} from {from}", found.len());
        }
        let (_, found) = log.read_committed(at(last + 1), 200, log.log_end_offset(), true).unwrap();
        assert!(found.is_empty());
    };
    look(&log);
    log.release_memory();
    look(&log);
    drop(log);
    look(&machine.restart());
    look(&machine.kill());
}

#[test]
fn a_transaction_that_lost_its_marker_is_open_again() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, batch(1, 1_000_000, "x")).unwrap();
    append_verified(&log, in_transaction(1, 0, 0, "a"), false).unwrap();
    for _ in 0..30 {
        append(&log, batch(1, 1_000_000, "between")).unwrap();
    }
    let marker_at = log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap().first_offset;
    append(&log, batch(1, 1_000_000, "y")).unwrap();
    let end = log.log_end_offset();
    log.high_watermark_moved(end);
    assert_eq!(log.last_stable_offset(end), end);
    log.truncate_to(marker_at).unwrap();
    assert_eq!(log.last_stable_offset(marker_at), at(1));
    assert_eq!(aborted(&log, 0, marker_at.get()), []);
    drop(log);
    let log = machine.restart();
    assert_eq!(log.last_stable_offset(marker_at), at(1));
    // This time it is committed.
    append_verified(&log, in_transaction(1, 0, 1, "a"), false).unwrap();
    log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
    assert_eq!(aborted(&log, 0, log.log_end_offset().get()), []);
    log.truncate_fully_and_start_at(at(100)).unwrap();
    assert_eq!(log.last_stable_offset(at(100)), at(100));
    assert!(log.producers().is_empty());
}

#[test]
fn after_a_restart_a_marker_counts_only_once_it_is_below_the_high_watermark() {
    for clean in [true, false] {
        let mut machine = Machine::new(LogConfig::default());
        let log = machine.log();
        append(&log, batch(4, 1_000_000, "x")).unwrap();
        append_verified(&log, in_transaction(1, 0, 0, "a"), false).unwrap();
        append_verified(&log, in_transaction(2, 0, 0, "b"), false).unwrap();
        log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
        log.append_marker(&marker(2, 0, false, false), EPOCH).unwrap();
        let known = [(super::common::partition(), at(7))].into();
        machine.dir().checkpoint_high_watermarks(&known).unwrap();
        drop(log);
        let log = if clean { machine.restart() } else { machine.kill() };
        assert_eq!(log.last_stable_offset(at(7)), at(5), "the second marker is not replicated");
        assert_eq!(log.last_stable_offset(at(8)), at(8));
        assert_eq!(aborted(&log, 0, 8), [(2, 5)]);
    }
}

#[test]
fn open_transactions_are_never_forgotten() {
    let machine = Machine::new(LogConfig { producer_expiration_ms: 10, ..LogConfig::default() });
    let log = machine.log();
    append_verified(&log, in_transaction(1, 0, 0, "a"), false).unwrap();
    append(&log, produced(2, 0, 0, 1)).unwrap();
    log.expire_producers();
    machine.clock.advance(1000);
    log.expire_producers();
    let known: Vec<i64> = log.producers().iter().map(|producer| producer.producer_id.get()).collect();
    assert_eq!(known, [1]);
    assert_eq!(log.last_stable_offset(at(2)), at(0));
}

#[test]
fn a_snapshot_from_before_the_log_opens_nothing() {
    let mut machine = Machine::new(LogConfig { retention_ms: Some(1000), ..small_segments() });
    append_verified(&machine.log(), in_transaction(1, 0, 0, "a"), false).unwrap();
    let log = machine.restart();
    log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
    for _ in 0..40 {
        append(&log, batch(1, 1_000_000, "old")).unwrap();
    }
    log.roll().unwrap();
    machine.clock.advance(2000);
    append(&log, batch(1, 1_002_000, "new")).unwrap();
    log.delete_old_segments(log.log_end_offset()).unwrap();
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    assert!(start > at(2));
    drop(log);
    let names = towpath_log::Storage::list(&machine.storage, &super::common::file("")).unwrap();
    let snapshots: Vec<&str> =
        names.iter().map(|entry| entry.name.as_str()).filter(|name| name.ends_with(".snapshot")).collect();
    assert!(snapshots.contains(&"00000000000000000001.snapshot"), "{snapshots:?}");
    for name in snapshots.iter().filter(|name| !name.starts_with("00000000000000000001.")) {
        towpath_log::Storage::remove_file(&machine.storage, &super::common::file(name)).unwrap();
    }
    let log = machine.kill();
    assert_eq!(log.last_stable_offset(end), end);
}

#[test]
fn an_index_that_makes_no_sense_is_made_anew() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for round in 0..20 {
        append_verified(&log, in_transaction(1, 0, round, "a"), false).unwrap();
        append(&log, batch(1, 1_000_000, "between")).unwrap();
        log.append_marker(&marker(1, 0, false, false), EPOCH).unwrap();
    }
    let end = log.log_end_offset().get();
    let expected = aborted(&log, 0, end);
    drop(log);
    machine.dir().close(7).unwrap();
    let names = towpath_log::Storage::list(&machine.storage, &super::common::file("")).unwrap();
    let mut spoiled = 0;
    for name in names.iter().filter(|entry| entry.name.ends_with(".txnindex")) {
        let path = super::common::file(&name.name);
        let file =
            towpath_log::Storage::open(&machine.storage, &path, towpath_log::OpenMode::ReadWrite).unwrap();
        match spoiled % 3 {
            0 => file.truncate(33).unwrap(),
            1 => file.write_at([&[0xff; 34], &[]], 0).unwrap(),
            _ => file.write_at([&[9], &[]], 1).unwrap(),
        }
        spoiled += 1;
    }
    assert!(spoiled > 2);
    machine.storage.kill();
    machine.open().unwrap();
    assert_eq!(aborted(&machine.log(), 0, end), expected);
}

#[test]
fn a_marker_fits_where_no_record_does() {
    let machine = Machine::new(LogConfig { message_bytes_max: 10, ..LogConfig::default() });
    let log = machine.log();
    assert!(append(&log, batch(1, 1_000_000, "x")).is_err());
    log.append_marker(&marker(1, 0, true, false), EPOCH).unwrap();
}
