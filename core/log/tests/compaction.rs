//! Compaction keeps the newest record of each key, at its offset, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use common::{Machine, ROOT, append, batch, options, partition, read_all, small_segments};
use parking_lot::Mutex;
use towpath_log::sim::{SimClock, SimStorage};
use towpath_log::{
    CleanOptions, CleanStats, DirEntry, Log, LogConfig, LogDir, LogError, OpenMode, Storage, StorageFile,
    StorageLock,
};
use towpath_record::{BatchBuilder, Compression, Origin, batches};
use towpath_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicId};

type Entry = (i64, String, Option<String>);

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        dirty_ratio_min: 0.0,
        delete_retention_ms: 1000,
        segment_bytes: 1000,
        ..small_segments()
    }
}

fn keyed(records: &[(&str, Option<&str>)], compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(compression);
    for (key, value) in records {
        builder.append(1_000_000, Some(key.as_bytes()), value.map(str::as_bytes), &[]).unwrap();
    }
    builder.build().unwrap()
}

fn entries(log: &Log) -> Vec<Entry> {
    let mut all: Vec<Entry> = Vec::new();
    let mut next = log.log_start_offset();
    while next < log.log_end_offset() {
        let bytes = log.read(next, 800, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
        assert!(!bytes.is_empty(), "a gap is skipped, not an end: at {next}");
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in &batch.records().unwrap() {
                let record = record.unwrap();
                let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
                assert!(record.offset >= next);
                all.push((record.offset.get(), text(record.key.unwrap()), record.value.map(text)));
            }
            next = batch.next_offset();
        }
    }
    all
}

fn newest(entries: &[Entry]) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for (_, key, value) in entries {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
    map
}

fn clean(machine: &Machine, options: CleanOptions) -> Option<CleanStats> {
    machine.dir().clean(&partition(), machine.log().log_end_offset(), &options).unwrap()
}

/// Forty batches over ten keys, some deleted on the way, in every codec.
fn fill(log: &Log) -> Vec<Entry> {
    for index in 0..80usize {
        let keys: Vec<String> = (0..3).map(|offset| format!("k{}", (index * 7 + offset * 3) % 10)).collect();
        let values: Vec<String> = (0..3).map(|offset| format!("v{index}.{offset}")).collect();
        let records: Vec<(&str, Option<&str>)> =
            (0..3).map(|at| (keys[at].as_str(), (index % 5 != at).then_some(values[at].as_str()))).collect();
        append(log, keyed(&records, Compression::ALL[index % 5])).unwrap();
    }
    entries(log)
}

#[test]
fn the_newest_record_of_each_key_stays_at_its_offset() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    let before = fill(&log);
    let active = log.active_segment_base_offset();
    let stats = clean(&machine, CleanOptions::default()).unwrap();
    assert_eq!(stats.clean_to, active);
    assert!(stats.bytes_after < stats.bytes_before / 2);
    let check = |log: &Log| {
        let after = entries(log);
        assert_eq!(newest(&after), newest(&before));
        assert!(after.iter().all(|entry| before.contains(entry)), "nothing moves, nothing changes");
        let closed = after.iter().filter(|entry| entry.0 < active.get());
        let mut keys: Vec<&String> = closed.map(|(_, key, _)| key).collect();
        keys.sort();
        assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "one record a key in what was compacted");
    };
    check(&log);
    assert!(clean(&machine, CleanOptions::default()).is_none(), "nothing new, nothing to do");
    check(&machine.restart());
    check(&machine.crash());
    assert!(clean(&machine, CleanOptions::default()).is_none(), "the checkpoint remembers");
}

#[test]
fn tombstones_outlive_the_first_compaction_by_the_retention() {
    let machine = Machine::new(config());
    let log = machine.log();
    append(&log, keyed(&[("a", Some("1")), ("b", Some("1"))], Compression::None)).unwrap();
    append(&log, keyed(&[("a", None)], Compression::None)).unwrap();
    let more = |label: &str| {
        log.roll().unwrap();
        append(&log, keyed(&[("c", Some(label))], Compression::None)).unwrap();
        log.roll().unwrap();
        append(&log, keyed(&[("d", Some(label))], Compression::None)).unwrap();
    };
    more("1");
    clean(&machine, CleanOptions::default()).unwrap();
    let tombstone = (2, "a".to_owned(), None);
    assert!(entries(&log).contains(&tombstone));
    assert!(!entries(&log).iter().any(|entry| entry.0 == 0), "what it deletes is gone");
    machine.clock.advance(999);
    more("2");
    clean(&machine, CleanOptions::default()).unwrap();
    assert!(entries(&log).contains(&tombstone), "one millisecond early");
    machine.clock.advance(1);
    more("3");
    clean(&machine, CleanOptions::default()).unwrap();
    assert!(!entries(&log).contains(&tombstone));
    assert_eq!(newest(&entries(&log))["b"], "1");
}

#[test]
fn keys_that_do_not_fit_wait_for_the_next_compaction() {
    let machine = Machine::new(config());
    let log = machine.log();
    let before = fill(&log);
    let mut rounds = 0;
    let mut last = Offset::ZERO;
    while let Some(stats) = clean(&machine, CleanOptions { map_bytes_max: 200 }) {
        assert!(stats.clean_to > last, "every round gets further");
        last = stats.clean_to;
        rounds += 1;
        assert_eq!(newest(&entries(&log)), newest(&before));
    }
    assert!(rounds > 3);
    assert_eq!(last, log.active_segment_base_offset());
}

#[test]
fn nothing_at_or_above_the_high_watermark_or_too_young_is_touched() {
    let machine = Machine::new(config());
    let log = machine.log();
    let before = fill(&log);
    let run = |high_watermark: i64| {
        machine.dir().clean(&partition(), Offset::new(high_watermark), &CleanOptions::default()).unwrap()
    };
    assert!(run(3).is_none());
    log.set_config(LogConfig { compaction_lag_ms_min: 10, ..config() });
    assert!(run(log.log_end_offset().get()).is_none(), "the records are of this very moment");
    machine.clock.advance(10);
    assert!(run(log.log_end_offset().get()).is_some());
    assert_eq!(newest(&entries(&log)), newest(&before));
    log.set_config(LogConfig { compact: false, ..config() });
    assert!(run(log.log_end_offset().get()).is_none());
}

#[test]
fn a_producer_keeps_its_last_sequence() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    let produced = |sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.set_producer(ProducerId::new(5), ProducerEpoch::new(0), sequence);
        builder.append(1_000_000, Some(b"a"), Some(b"from the producer"), &[]).unwrap();
        builder.build().unwrap()
    };
    append(&log, produced(0)).unwrap();
    append(&log, produced(1)).unwrap();
    append(&log, keyed(&[("a", Some("newer"))], Compression::None)).unwrap();
    log.roll().unwrap();
    append(&log, keyed(&[("z", Some("1"))], Compression::None)).unwrap();
    let stats = clean(&machine, CleanOptions::default()).unwrap();
    assert_eq!(stats.records_kept, 1);
    let bytes = log.read(Offset::ZERO, 1 << 20, log.log_end_offset(), true).unwrap().into_bytes().unwrap();
    let first = batches(&bytes).next().unwrap().unwrap();
    assert_eq!((first.base_offset.get(), first.base_sequence, first.record_count), (1, 1, 0));
    // Even if no snapshot is left, the sequence is known from the empty batch.
    for name in ["00000000000000000003.snapshot", "00000000000000000000.snapshot"] {
        let _ = towpath_log::Storage::remove_file(&machine.storage, &common::file(name));
    }
    let log = machine.kill();
    assert!(append(&log, produced(1)).unwrap().duplicate);
    assert!(!append(&log, produced(2)).unwrap().duplicate);
}

#[test]
fn readers_that_are_under_way_can_finish() {
    let machine = Machine::new(config());
    let log = machine.log();
    let before = fill(&log);
    log.release_memory();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    assert_eq!(newest(&entries(&log)), newest(&before));
                }
            });
        }
        for bytes in [300, 500, 1000, 100_000] {
            while clean(&machine, CleanOptions { map_bytes_max: bytes }).is_some() {}
            log.roll().unwrap();
        }
    });
}

/// A disk on which the first compaction stops before it writes anything, says so, and waits.
#[derive(Debug)]
struct Gate {
    storage: SimStorage,
    compaction: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Storage for Gate {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        if path.extension().is_some_and(|extension| extension == "cleaned") {
            let gate = self.compaction.lock().take();
            if let Some((reached, go_on)) = gate {
                reached.send(()).unwrap();
                go_on.recv().unwrap();
            }
        }
        self.storage.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.storage.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage.remove_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.storage.list(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.storage.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.storage.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn StorageLock>> {
        self.storage.lock(path)
    }
}

#[test]
fn a_compaction_does_nothing_to_a_new_topic_of_the_same_name() {
    let storage = SimStorage::new(1);
    let (reached, is_reached) = channel();
    let (let_go, go_on) = channel();
    let gate = Gate { storage: storage.clone(), compaction: Mutex::new(Some((reached, go_on))) };
    let clock = Arc::new(SimClock::new(1_000_000));
    let dir = LogDir::open(Arc::new(gate), clock, Path::new(ROOT), &options()).unwrap();
    dir.open_all(|_, _| config()).unwrap();
    let log = dir.create(&partition(), TopicId::random(), config()).unwrap();
    fill(&log);
    let expected = std::thread::scope(|scope| {
        let compaction =
            scope.spawn(|| dir.clean(&partition(), log.log_end_offset(), &CleanOptions::default()));
        is_reached.recv_timeout(Duration::from_secs(30)).unwrap();
        let recreation = scope.spawn(|| {
            dir.delete(&partition()).unwrap();
            let new = dir.create(&partition(), TopicId::random(), config()).unwrap();
            append(&new, batch(3, 1_000_000, "new")).unwrap();
            new.flush().unwrap();
            read_all(&new)
        });
        while dir.get(&partition()).is_some_and(|current| Arc::ptr_eq(&current, &log)) {
            std::thread::yield_now();
        }
        // The deletion waits for the compaction; where it does not, the new topic is there by now.
        std::thread::sleep(Duration::from_millis(100));
        let_go.send(()).unwrap();
        let result = compaction.join().unwrap();
        assert!(matches!(result, Err(LogError::Closed(_))), "{result:?}");
        recreation.join().unwrap()
    });
    assert_eq!(dir.offline_reason(), None);
    assert_eq!(expected.len(), 3);
    assert_eq!(read_all(&dir.get(&partition()).unwrap()), expected);
    dir.checkpoint().unwrap();
    storage.kill();
    let clock = Arc::new(SimClock::new(1_000_000));
    let dir = LogDir::open(Arc::new(storage), clock, Path::new(ROOT), &options()).unwrap();
    let (logs, failed) = dir.open_all(|_, _| config()).unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(read_all(&logs[0]), expected);
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new() {
    let mut finished = false;
    for seed in 0..3 {
        for operations in 0..400 {
            let mut machine = Machine::seeded(config(), seed * 1000 + operations);
            let log = machine.log();
            let before = fill(&log);
            log.flush().unwrap();
            machine.dir().checkpoint().unwrap();
            machine.storage.stop_after(operations);
            let end = log.log_end_offset();
            let result = machine.dir().clean(&partition(), end, &CleanOptions { map_bytes_max: 450 });
            let log = if operations % 2 == 0 { machine.crash() } else { machine.kill() };
            let after = entries(&log);
            assert_eq!(newest(&after), newest(&before), "after {operations} operations");
            assert!(after.iter().all(|entry| before.contains(entry)));
            assert_eq!(log.log_end_offset(), end);
            while clean(&machine, CleanOptions::default()).is_some() {}
            assert_eq!(newest(&entries(&log)), newest(&before));
            if result.is_ok() {
                assert!(operations > 10);
                finished = true;
                break;
            }
        }
    }
    assert!(finished, "some run came to its end");
}

#[test]
fn a_log_that_is_cut_in_a_gap_ends_where_its_batches_do() {
    for key in ["k", "other"] {
        let mut machine = Machine::new(config());
        let log = machine.log();
        let record = |key| keyed(&[(key, Some("v"))], Compression::None);
        append(&log, record(key)).unwrap();
        for _ in 1..4 {
            append(&log, record("k")).unwrap();
        }
        log.roll().unwrap();
        append(&log, record("k")).unwrap();
        let stats = clean(&machine, CleanOptions::default()).unwrap();
        assert_eq!(stats.clean_to, Offset::new(4));
        // An unclean election: what was compacted away in favour of later records is missing now.
        log.truncate_to(Offset::new(3)).unwrap();
        let end = log.log_end_offset();
        let expected = entries(&log);
        assert_eq!(end, Offset::new(i64::from(key == "other")));
        assert_eq!(log.recovery_point(), end);
        let check = |log: &Log| {
            assert_eq!((log.log_end_offset(), entries(log)), (end, expected.clone()), "{key}");
        };
        check(&machine.kill());
        check(&machine.crash());
        check(&machine.restart());
        // What is written there again is compacted again.
        let log = machine.log();
        for _ in 0..4 {
            append(&log, record("k")).unwrap();
        }
        log.roll().unwrap();
        let before = newest(&entries(&log));
        let stats = clean(&machine, CleanOptions::default()).unwrap();
        assert_eq!((stats.records_read, newest(&entries(&log))), (4 + end.get() as u64, before));
    }
}

#[test]
fn a_log_without_records_before_its_start_is_cut_there() {
    let mut machine = Machine::new(config());
    let log = machine.log();
    for _ in 0..4 {
        append(&log, keyed(&[("k", Some("v"))], Compression::None)).unwrap();
    }
    log.roll().unwrap();
    clean(&machine, CleanOptions::default()).unwrap();
    log.delete_records_before(Offset::new(1)).unwrap();
    log.truncate_to(Offset::new(2)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset::new(1), Offset::new(1)));
    machine.dir().checkpoint().unwrap();
    let log = machine.crash();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (Offset::new(1), Offset::new(1)));
}

#[test]
fn whoever_copies_what_is_left_knows_every_leader_epoch() {
    let machine = Machine::new(config());
    let log = machine.log();
    let value = "v".repeat(200);
    for epoch in [0, 1, 4, 5, 9] {
        for _ in 0..3 {
            let batch = keyed(&[("k", Some(&value))], Compression::None);
            log.append_as_leader(batch, LeaderEpoch::new(epoch), Origin::Client).unwrap();
        }
    }
    let stats = clean(&machine, CleanOptions::default()).unwrap();
    assert_eq!(stats.records_kept, 1, "{stats:?}");
    let follower = Machine::seeded(config(), 2);
    let copy = follower.log();
    while copy.log_end_offset() < log.log_end_offset() {
        let data = log.read(copy.log_end_offset(), 500, log.log_end_offset(), true).unwrap();
        copy.append_as_follower(&data.into_bytes().unwrap(), LeaderEpoch::new(9)).unwrap();
    }
    assert_eq!(copy.epoch_entries(), log.epoch_entries());
    assert_eq!(copy.end_offset_for_epoch(LeaderEpoch::new(4)), Some((LeaderEpoch::new(4), Offset::new(9))));
}
