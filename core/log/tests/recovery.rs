//! What a log does when things break.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::Path;

use common::{Machine, ROOT, append, batch, file, partition, produced, read_all, small_segments};
use proptest::prelude::*;
use towpath_log::{AppendError, LogConfig, LogError, OpenMode, Storage};
use towpath_record::Origin;
use towpath_types::{LeaderEpoch, Offset, TopicId};

fn first_log() -> std::path::PathBuf {
    file("00000000000000000000.log")
}

#[test]
fn a_truncated_tail_is_cut_at_the_last_whole_batch() {
    for cut in [1, 20, 60, 61, 90] {
        let mut machine = Machine::new(LogConfig::default());
        let log = machine.log();
        append(&log, batch(5, 1000, "kept")).unwrap();
        let kept = log.size_in_bytes();
        append(&log, batch(5, 1000, "torn")).unwrap();
        machine.storage.kill();
        let log_file = machine.storage.open(&first_log(), OpenMode::ReadWrite).unwrap();
        log_file.truncate(kept + cut).unwrap();
        drop(log_file);
        let log = machine.kill();
        assert_eq!(log.log_end_offset(), Offset::new(5), "cut {cut}");
        assert_eq!(log.size_in_bytes(), kept);
        assert_eq!(append(&log, batch(1, 1000, "next")).unwrap().first_offset, Offset::new(5));
        let log = machine.kill();
        assert_eq!(read_all(&log).len(), 6);
    }
}

#[test]
fn a_flipped_bit_after_the_recovery_point_ends_the_log_there() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for index in 0..60 {
        append(&log, batch(2, 1000, &format!("b{index}"))).unwrap();
    }
    let second = log.active_segment_base_offset();
    assert!(log.segment_count() > 3);
    machine.storage.flip_bit(&first_log(), 150, 3).unwrap();
    let log = machine.kill();
    assert!(log.log_end_offset() < second);
    assert_eq!(log.segment_count(), 1, "later segments are dropped");
    assert_eq!(log.log_end_offset(), Offset::new(2), "the bit is in the second batch");
    append(&log, batch(1, 1000, "goes on")).unwrap();
    assert_eq!(read_all(&machine.kill()).len(), 3);
}

#[test]
fn a_flipped_bit_in_what_was_read_is_seen_by_the_reader() {
    let mut machine = Machine::new(small_segments());
    append(&machine.log(), batch(2, 1000, "x")).unwrap();
    let log = machine.restart();
    machine.storage.flip_bit(&first_log(), 80, 3).unwrap();
    let bytes = log.read(Offset::ZERO, 999, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
    assert!(towpath_record::RecordBatch::parse(&bytes).unwrap().verify_crc().is_err());
}

#[test]
fn missing_and_mad_indexes_are_rebuilt() {
    for clean in [true, false] {
        let mut machine = Machine::new(small_segments());
        let log = machine.log();
        for index in 0..60 {
            append(&log, batch(2, 1000 + index, "value")).unwrap();
        }
        log.flush().unwrap();
        let bases: Vec<i64> = (0..120)
            .filter(|base| machine.storage.open(&file(&format!("{base:020}.log")), OpenMode::Read).is_ok())
            .collect();
        machine.dir().checkpoint().unwrap();
        if clean {
            machine.dir().close(1).unwrap();
        }
        machine.storage.remove_file(&file(&format!("{:020}.index", bases[0]))).unwrap();
        machine.storage.remove_file(&file(&format!("{:020}.timeindex", bases[1]))).unwrap();
        let odd =
            machine.storage.open(&file(&format!("{:020}.index", bases[2])), OpenMode::ReadWrite).unwrap();
        odd.truncate(13).unwrap();
        let mad = machine.storage.open(&file(&format!("{:020}.index", bases[3])), OpenMode::Create).unwrap();
        mad.write_at([&[0x7f; 16], &[]], 0).unwrap();
        mad.truncate(16).unwrap();
        machine.storage.open(&file("00000000000000000999.index"), OpenMode::Create).unwrap();
        let log = machine.kill();
        assert_eq!(read_all(&log).len(), 120, "clean {clean}");
        assert_eq!(log.lookup_timestamp(1030).unwrap().unwrap().offset, Offset::new(60));
        for offset in 0..120 {
            let data = log.read(Offset::new(offset), 1, Offset::new(120), true).unwrap();
            assert_eq!(common::span(data).0, offset / 2 * 2);
        }
        assert!(machine.storage.open(&file("00000000000000000999.index"), OpenMode::Read).is_err());
    }
}

#[test]
fn a_broken_producer_snapshot_is_made_up_for_by_the_log() {
    for clean in [true, false] {
        let mut machine = Machine::new(small_segments());
        for sequence in 0..30 {
            append(&machine.log(), produced(7, 3, sequence * 2, 2)).unwrap();
        }
        let end = machine.log().log_end_offset();
        machine.dir().close(1).unwrap();
        let snapshots: Vec<String> = machine
            .storage
            .list(file("x").parent().unwrap())
            .unwrap()
            .into_iter()
            .map(|entry| entry.name)
            .filter(|name| name.ends_with(".snapshot"))
            .collect();
        assert!(snapshots.len() > 2);
        for name in snapshots {
            machine.storage.flip_bit(&file(&name), 20, 1).unwrap();
        }
        if !clean {
            machine.storage.remove_file(&Path::new(ROOT).join(".kafka_cleanshutdown")).unwrap();
        }
        let log = machine.kill();
        assert_eq!(log.log_end_offset(), end);
        assert!(append(&log, produced(7, 3, 29 * 2, 2)).unwrap().duplicate, "clean {clean}");
        assert!(append(&log, produced(7, 3, 28 * 2, 2)).unwrap().duplicate);
        assert!(append(&log, produced(7, 2, 0, 2)).is_err(), "R6: the epoch is known");
        assert!(!append(&log, produced(7, 3, 30 * 2, 2)).unwrap().duplicate);
    }
}

#[test]
fn records_that_were_deleted_and_then_lost_leave_the_log_where_it_was() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for index in 0..30 {
        append(&log, batch(2, 1000, &format!("b{index}"))).unwrap();
    }
    assert_eq!(log.recovery_point(), Offset::ZERO, "nothing is flushed");
    log.delete_records_before(Offset::new(60)).unwrap();
    machine.dir().checkpoint().unwrap();
    for _ in 0..20 {
        let log = machine.crash();
        // R2: an offset that was given away is not given again, although its record is gone.
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset::new(60), Offset::new(60)));
        assert!(read_all(&log).is_empty());
    }
    assert_eq!(append(&machine.log(), batch(1, 1000, "next")).unwrap().first_offset, Offset::new(60));
}

#[test]
fn an_unreadable_epoch_checkpoint_is_rebuilt_from_the_batches() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for epoch in 0..6 {
        log.append_as_leader(batch(20, 1000, "x"), LeaderEpoch::new(epoch), towpath_record::Origin::Client)
            .unwrap();
    }
    let before = log.epoch_entries();
    machine.dir().close(1).unwrap();
    let path = file("leader-epoch-checkpoint");
    let torn = machine.storage.open(&path, OpenMode::ReadWrite).unwrap();
    torn.truncate(9).unwrap();
    assert_eq!(machine.kill().epoch_entries(), before);
}

#[test]
fn a_full_disk_takes_the_directory_offline_and_nothing_is_lost() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, batch(5, 1000, "kept")).unwrap();
    log.flush().unwrap();
    machine.storage.set_space(Some(machine.storage.used() + 70));
    let error = append(&log, batch(5, 1000, "too much")).unwrap_err();
    assert!(matches!(error, AppendError::Storage(LogError::Io { .. })), "{error}");
    assert!(machine.dir().offline_reason().is_some(), "R14");
    machine.storage.set_space(None);
    let error = append(&log, batch(1, 1000, "there is room again")).unwrap_err();
    assert!(matches!(error, AppendError::Storage(LogError::Offline { .. })), "never retried: {error}");
    assert!(log.flush().is_err());
    assert!(machine.dir().checkpoint().is_err());
    assert!(machine.dir().close(1).is_err(), "no marker of a clean shutdown");
    assert_eq!(read_all(&log).len(), 5, "what is there can still be read");
    let log = machine.kill();
    assert_eq!(read_all(&log).len(), 5);
    append(&log, batch(1, 1000, "after the restart")).unwrap();
}

#[test]
fn a_failed_fsync_is_never_retried() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, batch(5, 1000, "x")).unwrap();
    machine.storage.fail_sync_after(0);
    assert!(matches!(log.flush().unwrap_err(), LogError::Io { .. }));
    assert_eq!(log.recovery_point(), Offset::ZERO);
    assert!(matches!(log.flush().unwrap_err(), LogError::Offline { .. }), "R14");
    assert!(log.offline_reason().unwrap().contains("sync"));
    assert!(append(&log, batch(1, 1000, "x")).is_err());
    let log = machine.crash();
    append(&log, batch(1, 1000, "x")).unwrap();
}

#[test]
fn a_failed_write_leaves_no_half_batch_to_readers() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, batch(5, 1000, "x")).unwrap();
    machine.storage.fail_write_after(0);
    assert!(append(&log, batch(5, 1000, "y")).is_err());
    assert_eq!(log.log_end_offset(), Offset::new(5));
    assert_eq!(read_all(&log).len(), 5);
    assert_eq!(read_all(&machine.kill()).len(), 5);
}

#[test]
fn without_file_descriptors_nothing_is_lost_and_the_directory_lives() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    let mut sequence = 0;
    for _ in 0..3 {
        append(&log, produced(7, 0, sequence, 2)).unwrap();
        sequence += 2;
    }
    log.flush().unwrap();
    machine.storage.set_out_of_descriptors(true);
    let mut refused = 0;
    for _ in 0..40 {
        // Until a segment is full nothing has to be opened; then the batch is refused, and is not there.
        match append(&log, produced(7, 0, sequence, 2)) {
            Ok(info) => {
                assert!(!info.duplicate);
                sequence += 2;
            }
            Err(AppendError::Storage(LogError::Io { what: "open", .. })) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(refused > 10 && sequence > 6, "{refused} refused, sequence {sequence}");
    let before = log.log_end_offset();
    assert!(machine.dir().checkpoint().is_err());
    assert_eq!(machine.dir().offline_reason(), None, "the disk has done nothing wrong");
    machine.storage.set_out_of_descriptors(false);
    let info = append(&log, produced(7, 0, sequence, 2)).unwrap();
    assert_eq!((info.first_offset, info.duplicate, info.rolled), (before, false, true));
    sequence += 2;
    log.flush().unwrap();
    machine.dir().checkpoint().unwrap();
    let log = machine.crash();
    assert_eq!(log.log_end_offset().get(), i64::from(sequence), "what was flushed is there");
    assert_eq!(read_all(&log).len(), sequence as usize);
    let log = machine.restart();
    assert_eq!(read_all(&log).len(), sequence as usize);
}

#[test]
fn a_flush_without_file_descriptors_is_made_up_for_by_the_next() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, produced(7, 0, 0, 3)).unwrap();
    log.roll().unwrap();
    machine.storage.set_out_of_descriptors(true);
    assert!(log.flush().is_err());
    assert_eq!(log.recovery_point(), Offset::ZERO);
    machine.storage.set_out_of_descriptors(false);
    log.flush().unwrap();
    machine.dir().checkpoint().unwrap();
    // Index and producer snapshot of the closed segment are durable now: nothing is replayed from before it.
    let log = machine.crash();
    assert_eq!(log.log_end_offset(), Offset::new(3));
    assert!(append(&log, produced(7, 0, 0, 3)).unwrap().duplicate);
}

#[test]
fn a_directory_that_cannot_be_read_is_no_reason_to_lose_the_others() {
    let mut machine = Machine::new(small_segments());
    append(&machine.log(), batch(5, 1000, "x")).unwrap();
    machine.restart();
    machine.storage.create_dir_all(&Path::new(ROOT).join("u-0")).unwrap();
    let meta = Path::new(ROOT).join("u-0/partition.metadata");
    machine.storage.open(&meta, OpenMode::Create).unwrap().write_at([b"nonsense", &[]], 0).unwrap();
    machine.storage.kill();
    assert!(matches!(machine.open(), Err(LogError::Corrupt { .. })));
    assert_eq!(read_all(&machine.log()).len(), 5);
}

#[test]
fn a_flush_that_comes_after_the_deletion_does_nothing() {
    let machine = Machine::new(small_segments());
    let log = machine.log();
    append(&log, batch(5, 1000, "x")).unwrap();
    machine.dir().delete(&partition()).unwrap();
    assert!(matches!(log.flush(), Err(LogError::Closed(_))));
    assert_eq!(machine.dir().offline_reason(), None, "the directory has done nothing wrong");
    let new = machine.dir().create(&partition(), TopicId::random(), small_segments()).unwrap();
    append(&new, batch(2, 1000, "new")).unwrap();
    assert!(log.flush().is_err());
    new.flush().unwrap();
    machine.dir().close(1).unwrap();
}

#[test]
fn a_deletion_without_file_descriptors_leaves_the_files_to_the_next_start() {
    let mut machine = Machine::new(small_segments());
    // One at a time: whatever cannot be opened, the directory lives.
    for opens in 0..12 {
        let topic = TopicId::random();
        let log = match machine.dir().get(&partition()) {
            Some(log) => log,
            None => machine.dir().create(&partition(), topic, small_segments()).unwrap(),
        };
        append(&log, batch(5, 1000, "old")).unwrap();
        log.flush().unwrap();
        machine.dir().checkpoint().unwrap();
        machine.storage.refuse_open_after(Some(opens));
        let _remains = machine.dir().delete(&partition());
        machine.storage.refuse_open_after(None);
        assert_eq!(machine.dir().offline_reason(), None, "after {opens}");
        assert!(machine.dir().get(&partition()).is_none());
    }
    machine.dir().create(&partition(), TopicId::random(), small_segments()).unwrap();
    let log = machine.kill();
    assert_eq!(log.log_end_offset(), Offset::ZERO);
    let entries = machine.storage.list(Path::new(ROOT)).unwrap();
    assert_eq!(entries.iter().filter(|entry| entry.is_dir).count(), 1, "{entries:?}");
}

#[test]
fn a_new_topic_takes_over_nothing_from_an_old_one_of_its_name() {
    // Whether the process ends between the deletion and the checkpoints.
    for dies in [false, true] {
        let mut machine = Machine::new(small_segments());
        let log = machine.log();
        for index in 0..60 {
            append(&log, batch(2, 1000, &format!("old{index}"))).unwrap();
        }
        log.flush().unwrap();
        log.delete_records_before(Offset::new(101)).unwrap();
        machine.dir().checkpoint_high_watermarks(&[(partition(), Offset::new(120))].into()).unwrap();
        machine.dir().checkpoint().unwrap();
        let checkpoints = |machine: &Machine| -> String {
            let names = ["recovery-point", "log-start", "replication"];
            let paths = names.map(|name| Path::new(ROOT).join(format!("{name}-offset-checkpoint")));
            let read = |path: &std::path::PathBuf| {
                let file = machine.storage.open(path, OpenMode::Read).unwrap();
                let mut content = vec![0; file.bytes().unwrap() as usize];
                file.read_at(&mut content, 0).unwrap();
                String::from_utf8(content).unwrap()
            };
            paths.iter().map(read).collect()
        };
        assert_eq!(checkpoints(&machine).matches("t 0 ").count(), 3);
        if dies {
            machine.storage.remove_dir_all(file("x").parent().unwrap()).unwrap();
            machine.storage.kill();
            machine.open().unwrap();
        } else {
            machine.dir().delete(&partition()).unwrap();
        }
        assert_eq!(checkpoints(&machine).matches("t 0 ").count(), 0, "dies {dies}");
        let log = machine.dir().create(&partition(), TopicId::random(), small_segments()).unwrap();
        for index in 0..3 {
            append(&log, batch(2, 1000, &format!("new{index}"))).unwrap();
        }
        log.flush().unwrap();
        let log = machine.kill();
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset::ZERO, Offset::new(6)));
        assert_eq!(read_all(&log).len(), 6);
    }
}

#[test]
fn checkpoints_that_could_not_be_written_are_written_before_the_name_is_given_again() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    for index in 0..60 {
        append(&log, batch(2, 1000, &format!("old{index}"))).unwrap();
    }
    log.delete_records_before(Offset::new(101)).unwrap();
    machine.dir().checkpoint().unwrap();
    machine.storage.set_out_of_descriptors(true);
    assert!(machine.dir().delete(&partition()).is_err());
    assert!(machine.dir().create(&partition(), TopicId::random(), small_segments()).is_err());
    machine.storage.set_out_of_descriptors(false);
    let log = machine.dir().create(&partition(), TopicId::random(), small_segments()).unwrap();
    append(&log, batch(2, 1000, "new")).unwrap();
    assert_eq!(read_all(&machine.kill()).len(), 2);
}

#[test]
fn clean_shutdowns_leave_one_producer_snapshot_and_not_one_each() {
    let mut machine = Machine::new(LogConfig::default());
    for sequence in 0..5 {
        append(&machine.log(), produced(7, 0, sequence, 1)).unwrap();
        machine.restart();
    }
    let entries = machine.storage.list(file("x").parent().unwrap()).unwrap();
    let names: Vec<&str> =
        entries.iter().map(|entry| entry.name.as_str()).filter(|name| name.ends_with(".snapshot")).collect();
    assert_eq!(names, ["00000000000000000005.snapshot"]);
    assert!(append(&machine.log(), produced(7, 0, 4, 1)).unwrap().duplicate);
}

/// What the property test does to a log.
#[derive(Debug, Clone)]
enum Step {
    Append {
        count: usize,
        producer: bool,
    },
    Flush,
    Roll,
    Checkpoint,
    Truncate(i64),
    Restart,
    Crash,
    /// Power is lost in the middle of what follows.
    CrashAfter(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1usize..6, any::<bool>()).prop_map(|(count, producer)| Step::Append { count, producer }),
        4 => Just(Step::Flush),
        2 => Just(Step::Roll),
        2 => Just(Step::Checkpoint),
        1 => (0i64..12).prop_map(Step::Truncate),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
        2 => (0u64..12).prop_map(Step::CrashAfter),
    ]
}

/// The log as it should be.
#[derive(Default)]
struct Model {
    values: Vec<String>,
    flushed: usize,
    serial: usize,
    sequence: i32,
    epoch: i32,
}

impl Model {
    /// After a crash: everything flushed is there, and what else is there is a beginning of what was appended.
    fn check_after_crash(&mut self, machine: &Machine, context: &str) {
        let log = machine.log();
        let found: Vec<String> = read_all(&log).into_iter().filter_map(|(_, value)| value).collect();
        assert!(found.len() >= self.flushed, "{context}: {} flushed, {} found", self.flushed, found.len());
        assert_eq!(found.len() as i64, log.log_end_offset().get());
        assert_eq!(found[..], self.values[..found.len()], "{context}");
        self.values.truncate(found.len());
        self.flushed = self.flushed.max(log.recovery_point().get() as usize);
        // A new leader epoch and a new producer after every crash, as a broker has.
        self.epoch += 1;
        self.sequence = 0;
    }

    fn apply(&mut self, machine: &mut Machine, step: &Step) -> Result<(), ()> {
        let log = machine.log();
        match step {
            Step::Append { count, producer } => {
                let label = format!("s{}", self.serial);
                self.serial += 1;
                let bytes = if *producer {
                    let id = 100 + i64::from(self.epoch);
                    let bytes = produced(id, 0, self.sequence, *count);
                    self.values.extend(std::iter::repeat_n("v".to_owned(), *count));
                    bytes
                } else {
                    self.values.extend((0..*count).map(|index| format!("{label}.{index}")));
                    batch(*count, 1000 + self.serial as i64, &label)
                };
                let epoch = LeaderEpoch::new(self.epoch);
                log.append_as_leader(bytes, epoch, towpath_record::Origin::Client).map_err(drop)?;
                if *producer {
                    self.sequence += *count as i32;
                }
            }
            Step::Flush => {
                let flushed = log.flush().map_err(drop)?;
                assert_eq!(flushed.get() as usize, self.values.len());
                self.flushed = self.values.len();
            }
            Step::Roll => log.roll().map_err(drop)?,
            Step::Checkpoint => machine.dir().checkpoint().map_err(drop)?,
            Step::Truncate(back) => {
                // To a batch boundary, as followers do.
                let target = (log.log_end_offset().get() - back).max(0);
                let data = log.read(Offset::new(target), 1, log.log_end_offset(), true).unwrap();
                let target = if data.is_empty() { target } else { common::span(data).0 };
                // Until it has returned, either is possible, but nothing below the target may go.
                self.flushed = self.flushed.min(target as usize);
                log.truncate_to(Offset::new(target)).map_err(drop)?;
                self.values.truncate(target as usize);
                self.epoch += 1;
                self.sequence = 0;
            }
            Step::Restart => {
                machine.dir().close(1).map_err(drop)?;
                let log = machine.kill();
                assert_eq!(log.log_end_offset().get() as usize, self.values.len());
                self.flushed = self.values.len();
            }
            Step::Crash => {
                machine.crash();
                self.check_after_crash(machine, "crash");
            }
            Step::CrashAfter(operations) => machine.storage.stop_after(*operations),
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default() })]

    /// No flushed record is ever lost, the log stays readable, offsets have no gap and no repetition.
    #[test]
    fn crashes_lose_nothing_that_was_flushed(
        seed in any::<u64>(),
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let config = LogConfig { segment_bytes: 600, index_interval_bytes: 100, ..LogConfig::default() };
        let mut machine = Machine::seeded(config, seed);
        let mut model = Model::default();
        for step in &steps {
            if model.apply(&mut machine, step).is_err() {
                machine.crash();
                model.check_after_crash(&machine, &format!("crash in the middle of {step:?}"));
            }
        }
        machine.crash();
        model.check_after_crash(&machine, "last crash");
        let log = machine.restart();
        prop_assert_eq!(log.log_end_offset().get() as usize, model.values.len());
        prop_assert_eq!(read_all(&log).len(), model.values.len());
    }
}

/// After a truncation recovery does not look at segments that lie before the recovery point on disk: whose records they
/// are has to be known without it.
#[test]
fn epochs_of_segments_that_recovery_trusts_are_not_forgotten() {
    for seed in 0..40 {
        let mut machine = Machine::seeded(small_segments(), seed);
        let log = machine.log();
        for _ in 0..40 {
            append(&log, batch(1, 1000, "old")).unwrap();
        }
        log.flush().unwrap();
        machine.dir().checkpoint().unwrap();
        log.truncate_to(Offset::new(5)).unwrap();
        for _ in 0..35 {
            log.append_as_leader(batch(1, 1000, "new"), LeaderEpoch::new(1), Origin::Client).unwrap();
        }
        let log = machine.crash();
        assert!(log.log_end_offset() > Offset::new(5), "what was rolled is durable");
        for offset in 0..log.log_end_offset().get() {
            let epoch = LeaderEpoch::new(i32::from(offset >= 5));
            assert_eq!(log.epoch_at(Offset::new(offset)), Some(epoch), "seed {seed}, offset {offset}");
        }
    }
}

#[test]
fn epochs_of_deleted_records_are_not_those_of_what_follows() {
    let mut machine = Machine::new(small_segments());
    let log = machine.log();
    log.append_as_leader(batch(2, 1, "a"), LeaderEpoch::new(5), Origin::Client).unwrap();
    log.delete_records_before(Offset::new(2)).unwrap();
    machine.dir().checkpoint().unwrap();
    // The leader of an unclean election has records of an older epoch there.
    let leader = Machine::seeded(small_segments(), 2);
    for label in ["a", "b"] {
        leader.log().append_as_leader(batch(2, 1, label), LeaderEpoch::new(3), Origin::Client).unwrap();
    }
    log.truncate_to(Offset::new(2)).unwrap();
    let data = leader.log().read(Offset::new(2), 500, Offset::new(4), true).unwrap().into_bytes().unwrap();
    log.append_as_follower(&data, LeaderEpoch::new(7)).unwrap();
    log.truncate_to(Offset::new(4)).unwrap();
    let log = machine.kill();
    assert_eq!(log.epoch_at(Offset::new(2)), Some(LeaderEpoch::new(3)));
    assert_eq!(log.latest_epoch(), LeaderEpoch::new(3));
}
