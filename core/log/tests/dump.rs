//! Apache Kafka's own `DumpLogSegments` reads what we write: batches of every codec, markers, all indexes, the producer
//! snapshot. The jars come from Maven, or from the folder named by `TOWPATH_KAFKA_LIBS`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use common::{EPOCH, append, options, partition};
use towpath_log::{
    AppendOptions, CleanOptions, Clock, Effort, FileStorage, LogConfig, LogDir, Marker, SystemClock,
    TransactionCheck,
};
use towpath_record::{BatchBuilder, BatchHeader, Compression, Header, Origin};
use towpath_types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicId};

/// The folder of Kafka's jars.
fn kafka_libs() -> PathBuf {
    match std::env::var_os("TOWPATH_KAFKA_LIBS") {
        Some(libs) => libs.into(),
        None => towpath_harness::peers::kafka_libs().expect("Maven resolves Apache Kafka"),
    }
}

fn dump(libs: &Path, arguments: &[&str], files: &[PathBuf]) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let output = Command::new("java")
        .arg("-cp")
        .arg(format!("{}/*", libs.display()))
        .arg("org.apache.kafka.tools.DumpLogSegments")
        .args(arguments)
        .arg("--files")
        .arg(names.join(","))
        .output()
        .expect("Java 17 (`java`) is needed");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn files(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == suffix))
        .collect();
    files.sort();
    files
}

/// Two segments or more, all codecs, headers, tombstones, an idempotent producer, two epochs.
fn write_log(root: &Path) -> PathBuf {
    let dir = LogDir::open(Arc::new(FileStorage), Arc::new(SystemClock), root, &options()).unwrap();
    let config = LogConfig { segment_bytes: 64 * 1024, index_interval_bytes: 1000, ..LogConfig::default() };
    let log = dir.create(&partition(), TopicId::random(), config).unwrap();
    let now = SystemClock.now_ms();
    for index in 0..200i32 {
        let mut builder = BatchBuilder::new(Compression::ALL[index as usize % 5]);
        builder.set_producer(ProducerId::new(4711), ProducerEpoch::new(2), index * 5);
        for record in 0..5 {
            let text = format!("value {index}.{record} {}", "x".repeat(200 + index as usize));
            let value = (record != 3).then_some(text.as_bytes());
            let header = [Header::new("h", Some(b"1"))];
            let timestamp = now - 100_000 + i64::from(index * 10 + record) - i64::from(index % 3) * 25;
            builder.append(timestamp, Some(format!("key{record}").as_bytes()), value, &header).unwrap();
        }
        let epoch = if index < 100 { EPOCH } else { LeaderEpoch::new(4) };
        log.append_as_leader(builder.build().unwrap(), epoch, Origin::Client).unwrap();
    }
    assert!(append(&log, common::batch(1, now, "late")).is_err(), "the older leader is fenced");
    let path = log.dir().to_owned();
    dir.close(1).unwrap();
    path
}

#[test]
fn kafkas_dump_tool_reads_our_files() {
    let libs = kafka_libs();
    let temporary = tempfile::tempdir().unwrap();
    let dir = write_log(&temporary.path().join("data"));
    let logs = files(&dir, "log");
    assert!(logs.len() >= 2);
    let text = dump(&libs, &["--deep-iteration", "--print-data-log"], &logs);
    assert_eq!(text.matches("isvalid: true").count(), 200, "{text}");
    assert!(!text.contains("isvalid: false"));
    assert_eq!(text.matches("| offset: ").count(), 1000, "every record, decompressed");
    assert!(text.contains("key: key4") && text.contains("payload: value 199.4 x"));
    assert!(text.contains("headerKeys: [h]"));
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        assert_eq!(text.matches(&format!("compresscodec: {codec} ")).count(), 40, "{codec}");
    }
    assert!(text.contains("producerId: 4711 producerEpoch: 2"));
    assert!(text.contains("partitionLeaderEpoch: 4"));
    let indexes = [files(&dir, "index"), files(&dir, "timeindex")].concat();
    assert_eq!(indexes.len(), logs.len() * 2);
    let checked = dump(&libs, &["--index-sanity-check"], &indexes);
    assert_eq!(checked.matches("passed sanity check").count(), indexes.len(), "{checked}");
    let verified = dump(&libs, &["--verify-index-only"], &indexes);
    for complaint in ["ismatch", "out of order", "Out of order", "ndexes", "not found"] {
        assert!(!verified.contains(complaint), "{verified}");
    }
    let entries = dump(&libs, &[], &indexes);
    assert!(entries.matches("offset: ").count() > 2 * indexes.len(), "{entries}");
    let snapshots = dump(&libs, &[], &files(&dir, "snapshot"));
    assert!(snapshots.contains("producerId: 4711 producerEpoch: 2"), "{snapshots}");
    assert!(snapshots.contains("lastSequence=999") || snapshots.contains("lastSequence: 999"), "{snapshots}");
}

/// Two aborted transactions, one of them compacted to its last sequence number, one committed, one open.
fn write_transactions(root: &Path) -> PathBuf {
    let dir = LogDir::open(Arc::new(FileStorage), Arc::new(SystemClock), root, &options()).unwrap();
    let config = LogConfig { compact: true, dirty_ratio_min: 0.0, ..LogConfig::default() };
    let log = dir.create(&partition(), TopicId::random(), config).unwrap();
    let write = |id: i64, sequence: i32| {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.set_producer(ProducerId::new(id), ProducerEpoch::new(0), sequence);
        builder.set_transactional(true);
        builder.append(SystemClock.now_ms(), Some(b"key"), Some(b"value"), &[]).unwrap();
        let bytes = builder.build().unwrap();
        let guard = match log.transaction_check(&BatchHeader::parse(&bytes).unwrap(), false).unwrap() {
            TransactionCheck::Append => None,
            TransactionCheck::Verify(guard) => Some(guard),
        };
        let options = AppendOptions { origin: Origin::Client, effort: Effort::Any, guard };
        log.append_as_leader_with(bytes, EPOCH, &options).unwrap();
    };
    let end = |id: i64, commit: bool| {
        let (producer_id, producer_epoch) = (ProducerId::new(id), ProducerEpoch::new(0));
        let marker = Marker { producer_id, producer_epoch, coordinator_epoch: 12, commit, tv2: false };
        log.append_marker(&marker, EPOCH).unwrap();
    };
    write(1, 0);
    write(2, 0);
    end(1, false);
    end(2, true);
    log.roll().unwrap();
    write(3, 0);
    write(4, 0);
    end(3, false);
    dir.clean(&partition(), log.log_end_offset(), &CleanOptions::default()).unwrap().unwrap();
    let path = log.dir().to_owned();
    dir.close(1).unwrap();
    path
}

#[test]
fn kafkas_dump_tool_reads_transactions() {
    let libs = kafka_libs();
    let temporary = tempfile::tempdir().unwrap();
    let dir = write_transactions(&temporary.path().join("data"));
    let text = dump(&libs, &["--deep-iteration", "--print-data-log"], &files(&dir, "log"));
    assert_eq!(text.matches("isvalid: true").count(), 7, "{text}");
    assert_eq!(text.matches("isControl: true").count(), 3, "{text}");
    assert_eq!(text.matches("endTxnMarker: ABORT coordinatorEpoch: 12").count(), 2, "{text}");
    assert_eq!(text.matches("endTxnMarker: COMMIT coordinatorEpoch: 12").count(), 1, "{text}");
    assert_eq!(text.matches("isTransactional: true").count(), 7, "{text}");
    let entries = dump(&libs, &[], &files(&dir, "txnindex"));
    for entry in [
        "producerId: 1 firstOffset: 0 lastOffset: 2 lastStableOffset: 1",
        "producerId: 3 firstOffset: 4 lastOffset: 6 lastStableOffset: 5",
    ] {
        assert!(entries.contains(entry), "{entries}");
    }
    let snapshots = dump(&libs, &[], &files(&dir, "snapshot"));
    assert!(
        snapshots.contains("producerId: 4") && snapshots.contains("currentTxnFirstOffset: OptionalLong[5]"),
        "{snapshots}"
    );
    assert!(snapshots.contains("coordinatorEpoch: 12"), "{snapshots}");
}
