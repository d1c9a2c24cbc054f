//! The indexes of aborted transactions, whatever stops the process while they are written or made anew.

use towpath_log::{Log, OpenMode, Storage};
use towpath_types::Offset;

use super::cases::aborted;
use super::common::{EPOCH, Machine, append, batch, file, partition, small_segments};
use super::producers::{append_verified, in_transaction, marker};

/// The names of the files with this ending.
fn names(machine: &Machine, ending: &str) -> Vec<String> {
    let entries = machine.storage.list(&file("")).unwrap();
    let mut names: Vec<String> = entries.into_iter().map(|entry| entry.name).collect();
    names.retain(|name| name.ends_with(ending));
    names.sort_unstable();
    names
}

/// What a reader is told from each offset on; a read ends with its segment.
fn told(log: &Log, end: i64) -> Vec<Vec<(i64, i64)>> {
    (0..end).map(|from| aborted(log, from, end)).collect()
}

/// Transactions of a producer, every third of which is committed and the others aborted; they follow those of earlier rounds.
fn abort(log: &Log, producer: i64, rounds: std::ops::Range<i32>) {
    for round in rounds {
        append_verified(log, in_transaction(producer, 0, round, "a"), false).unwrap();
        append(log, batch(1, 1_000_000, "between")).unwrap();
        log.append_marker(&marker(producer, 0, round % 3 == 0, false), EPOCH).unwrap();
    }
}

/// The machine stops at every point of making an index anew, and never shows what was aborted.
#[test]
fn an_index_is_there_until_its_replacement_is_durable() {
    let mut was_stopped = 0;
    for operations in 0.. {
        let mut machine = Machine::seeded(small_segments(), operations);
        let log = machine.log();
        abort(&log, 1, 0..30);
        let end = log.log_end_offset().get();
        let expected = told(&log, end);
        drop(log);
        machine.dir().close(7).unwrap();
        let indexes = names(&machine, ".txnindex");
        assert!(indexes.len() > 3);
        for name in &indexes {
            machine.storage.open(&file(name), OpenMode::ReadWrite).unwrap().truncate(33).unwrap();
        }
        machine.storage.kill();
        machine.storage.stop_after(operations);
        let was_opened = machine.open().is_ok();
        if operations % 2 == 0 {
            machine.crash();
        } else {
            machine.kill();
        }
        let log = machine.log();
        assert_eq!(log.log_end_offset(), Offset::new(end), "{operations}");
        assert_eq!(told(&log, end), expected, "after {operations} operations");
        assert_eq!(names(&machine, ".tmp"), Vec::<String>::new());
        was_stopped += u32::from(!was_opened);
        if was_opened {
            break;
        }
    }
    assert!(was_stopped > 12, "{was_stopped}");
}

/// Entries of the active segment are in memory only: after a crash they come from the log, with what was open, also where
/// the log was cut meanwhile.
#[test]
fn after_a_crash_aborted_and_open_transactions_are_as_before() {
    for cut in [None, Some(1), Some(2), Some(7), Some(40)] {
        for power in [false, true] {
            let mut machine = Machine::new(small_segments());
            let log = machine.log();
            append(&log, batch(1, 1_000_000, "x")).unwrap();
            append_verified(&log, in_transaction(9, 0, 0, "open"), false).unwrap();
            abort(&log, 1, 0..25);
            // What is before this is trusted at the next start, and what comes after is not.
            log.flush().unwrap();
            let known = [(partition(), Offset::new(1))].into();
            machine.dir().checkpoint_high_watermarks(&known).unwrap();
            machine.dir().checkpoint().unwrap();
            abort(&log, 2, 0..20);
            append_verified(&log, in_transaction(8, 0, 0, "also open"), false).unwrap();
            if let Some(cut) = cut {
                // Markers go, and the transactions that they had ended are open again.
                log.truncate_to(Offset::new(log.log_end_offset().get() - cut)).unwrap();
                abort(&log, 3, 0..7);
            }
            assert!(log.segment_count() > 6);
            if power {
                log.flush().unwrap();
            }
            let end = log.log_end_offset();
            let (expected, producers) = (told(&log, end.get()), log.producers());
            let distinct: std::collections::BTreeSet<_> = expected.iter().flatten().collect();
            assert!(distinct.len() > 16, "{distinct:?}");
            drop(log);
            let log = if power { machine.crash() } else { machine.kill() };
            let context = format!("cut {cut:?}, power {power}");
            assert_eq!(log.log_end_offset(), end, "{context}");
            assert_eq!(told(&log, end.get()), expected, "{context}");
            assert_eq!(log.last_stable_offset(end), Offset::new(1), "{context}");
            let open = |summaries: &[towpath_log::ProducerSummary]| {
                let starts = summaries.iter().map(|it| (it.producer_id, it.txn_start_offset));
                starts.collect::<std::collections::BTreeMap<_, _>>()
            };
            assert_eq!(open(&log.producers()), open(&producers), "{context}");
        }
    }
}
