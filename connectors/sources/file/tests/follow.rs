//! Real files that somebody else writes, rotates and cuts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use towpath_api::conformance::{self, SourceWorld};
use towpath_api::{
    Budget, ConnectorError, Poll, RawConfig, Source, SourceConnector, SourceFactory as _, SourceOffsets,
    TaskContext, TaskSpec, Value,
};
use towpath_source_file::File;

fn connector(values: serde_json::Value) -> Box<dyn SourceConnector> {
    let factory = File::default();
    factory.parse(&RawConfig::with_defaults(&factory.descriptor().options, values).unwrap()).unwrap()
}

async fn open(values: serde_json::Value, resume: &SourceOffsets) -> Result<Box<dyn Source>, ConnectorError> {
    connector(values).open(TaskSpec::default(), resume.clone(), TaskContext::new("p", 0)).await
}

fn append(path: &Path, text: &str) {
    fs::OpenOptions::new().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

/// What was read: lines, rejected lines, and how it ended.
#[derive(Default)]
struct Read {
    lines: Vec<String>,
    rejected: Vec<String>,
    bytes: Vec<Vec<u8>>,
    lanes: Vec<u64>,
}

async fn read_until(source: &mut dyn Source, offsets: &mut SourceOffsets, lines: usize) -> Read {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut read = Read::default();
    loop {
        match source.poll(Budget { bytes: 1 << 20, records: 3 }).await.unwrap() {
            Poll::Batch(batch) => {
                assert!(batch.batch.len() <= 3, "the budget is kept");
                for record in batch.batch.records() {
                    let shown = |value| match value {
                        Value::Text(text) => text.to_owned(),
                        other => format!("{other:?}"),
                    };
                    let key = record.key().map(|key| format!("{}=", shown(key.get(0)))).unwrap_or_default();
                    let row: Vec<_> = record.after().unwrap().values().map(shown).collect();
                    read.lines.push(format!("{key}{}", row.join("|")));
                    read.lanes.push(record.lane());
                }
                assert!(batch.batch.len() + batch.rejected.len() <= 3, "rejected input counts");
                read.bytes.extend(batch.rejected.iter().map(|it| it.bytes.clone()));
                read.rejected
                    .extend(batch.rejected.iter().map(|it| format!("{} {}", it.error.code(), it.position)));
                offsets.merge(batch.offsets);
            }
            Poll::Idle(moved) => {
                offsets.merge(moved);
                if read.lines.len() >= lines {
                    return read;
                }
            }
            Poll::End => return read,
        }
        assert!(Instant::now() < deadline, "{} of {lines} lines came", read.lines.len());
    }
}

#[tokio::test]
async fn once_reads_everything_and_the_unfinished_last_line() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("b.log"), "4\nlast").unwrap();
    fs::write(directory.path().join("a.log"), "1\r\n2\n3\n").unwrap();
    fs::write(directory.path().join("other.txt"), "no\n").unwrap();
    let values = json!({ "paths": [directory.path().join("*.log").to_str().unwrap()], "mode": "once" });
    let mut offsets = SourceOffsets::default();
    let read = read_until(&mut *open(values.clone(), &offsets).await.unwrap(), &mut offsets, 99).await;
    assert_eq!(read.lines, ["1", "2", "3", "4", "last"]);
    let again = read_until(&mut *open(values, &offsets).await.unwrap(), &mut offsets, 99).await;
    assert!(again.lines.is_empty(), "what was read is not read again");
}

#[tokio::test]
async fn following_survives_rotation_by_rename_and_a_restart_in_between() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, "1\n2\n");
    let values = json!({ "paths": [log.to_str().unwrap()] });
    let mut offsets = SourceOffsets::default();
    let mut source = open(values.clone(), &offsets).await.unwrap();
    assert_eq!(read_until(&mut *source, &mut offsets, 2).await.lines, ["1", "2"]);
    append(&log, "3\nunfini");
    fs::rename(&log, directory.path().join("app.log.1")).unwrap();
    append(&directory.path().join("app.log.1"), "shed\n");
    append(&log, "5\n");
    let mut lines = read_until(&mut *source, &mut offsets, 3).await.lines;
    lines.sort();
    assert_eq!(lines, ["3", "5", "unfinished"]);
    drop(source);
    // Nobody listens: more lines, and another rotation.
    append(&log, "6\n");
    fs::rename(directory.path().join("app.log.1"), directory.path().join("app.log.2")).unwrap();
    fs::rename(&log, directory.path().join("app.log.1")).unwrap();
    append(&log, "7\n");
    let mut source = open(values, &offsets).await.unwrap();
    let mut lines = read_until(&mut *source, &mut offsets, 2).await.lines;
    lines.sort();
    assert_eq!(lines, ["6", "7"]);
}

#[tokio::test]
async fn a_file_that_is_cut_begins_anew_in_another_lane() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, "one\ntwo\n");
    let mut offsets = SourceOffsets::default();
    let mut source = open(json!({ "paths": [log.to_str().unwrap()] }), &offsets).await.unwrap();
    let first = read_until(&mut *source, &mut offsets, 2).await;
    fs::write(&log, "three\n").unwrap();
    let second = read_until(&mut *source, &mut offsets, 1).await;
    assert_eq!(second.lines, ["three"]);
    assert_ne!(first.lanes[0], second.lanes[0], "byte 0 is another line now");
}

/// What logrotate does without a signal: a copy, and the file is cut while its writer goes on.
#[tokio::test]
async fn rotation_by_copying_and_truncating_mixes_no_lines() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    let mut offsets = SourceOffsets::default();
    append(&log, "first\n");
    let mut source = open(json!({ "paths": [log.to_str().unwrap()] }), &offsets).await.unwrap();
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["first"]);
    for round in 0..20 {
        let line = |number: usize| format!("round {round}, line {number}, {}", "x".repeat(number * 7 % 50));
        let rotate = || {
            fs::copy(&log, directory.path().join("app.log.1")).unwrap();
            fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
        };
        rotate();
        // Longer than what was there before, and nobody has looked in between.
        let lines: Vec<_> = (0..30).map(line).collect();
        append(&log, &(lines.join("\n") + "\nunfini"));
        let read = read_until(&mut *source, &mut offsets, 30).await;
        assert_eq!(read.lines, lines, "round {round}");
        if round % 2 == 0 {
            // What is unfinished is finished in the copy, at best.
            rotate();
            append(&log, "one more\n");
            assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["one more"]);
        } else {
            append(&log, "shed\n");
            assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["unfinished"]);
        }
        if round % 3 == 0 {
            drop(source);
            source = open(json!({ "paths": [log.to_str().unwrap()] }), &offsets).await.unwrap();
        }
    }
}

#[tokio::test]
async fn the_last_line_of_a_renamed_file_may_still_be_finished() {
    let directory = tempfile::tempdir().unwrap();
    let (log, rotated) = (directory.path().join("app.log"), directory.path().join("app.log.1"));
    let mut offsets = SourceOffsets::default();
    append(&log, "one\npar");
    let mut source = open(json!({ "paths": [log.to_str().unwrap()] }), &offsets).await.unwrap();
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["one"]);
    fs::rename(&log, &rotated).unwrap();
    append(&log, "two\n");
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["two"], "the renaming was noticed");
    // Its writer has not been told yet.
    append(&rotated, "tial\nthe end");
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["partial"]);
    // Nobody finishes this one.
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["the end"]);
    append(&rotated, "after all\n");
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["after all"]);
    fs::remove_file(&log).unwrap();
    append(&log, "another file\n");
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["another file"]);
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_rejected_with_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    fs::write(&log, b"good\n\xff\xfe bad\ngr\xc3\xbc\xc3\x9fe\ncut \xc3\n\0\n").unwrap();
    let mut offsets = SourceOffsets::default();
    let mut source =
        open(json!({ "paths": [log.to_str().unwrap()], "mode": "once" }), &offsets).await.unwrap();
    let read = read_until(&mut *source, &mut offsets, 99).await;
    assert_eq!(read.lines, ["good", "grüße", "\0"]);
    assert_eq!(read.bytes, [b"\xff\xfe bad".to_vec(), b"cut \xc3".to_vec()]);
    assert!(read.rejected.iter().all(|it| it.starts_with("FILE_NOT_UTF8")), "{:?}", read.rejected);
}

#[tokio::test]
async fn a_file_of_nothing_but_bad_lines_comes_in_bounded_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.jsonl");
    fs::write(&path, "no json, and that many times\n".repeat(20_000) + &"\n".repeat(20_000)).unwrap();
    let values = json!({ "paths": [path.to_str().unwrap()], "mode": "once", "format": "json" });
    let mut source = open(values, &SourceOffsets::default()).await.unwrap();
    let (mut polls, mut rejected) = (0, 0);
    loop {
        match source.poll(Budget { bytes: 10_000, records: 5_000 }).await.unwrap() {
            Poll::Batch(batch) => {
                let bytes: usize = batch.rejected.iter().map(|it| it.bytes.len()).sum();
                assert!(bytes <= 10_100 && batch.rejected.len() <= 5_000, "{bytes} bytes");
                rejected += batch.rejected.len();
                polls += 1;
            }
            Poll::Idle(_) => {}
            Poll::End => break,
        }
    }
    assert_eq!(rejected, 20_000);
    assert!(polls >= 50, "{polls} polls");
}

#[tokio::test]
async fn json_lines_become_rows_and_bad_ones_are_rejected() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.jsonl");
    append(&path, "{\"id\": 1, \"v\": \"a\"}\nnot json\n\n{\"v\": 2}\n{\"id\": \"z\", \"v\": null}\n");
    let values = json!({ "paths": [path.to_str().unwrap()], "mode": "once", "format": "json", "key": "id" });
    let mut offsets = SourceOffsets::default();
    let read = read_until(&mut *open(values, &offsets).await.unwrap(), &mut offsets, 99).await;
    assert_eq!(read.lines, ["Int(1)=Int(1)|a", "z=z|Null"]);
    let codes: Vec<_> = read.rejected.iter().map(|it| it.split_once(' ').unwrap().0).collect();
    assert_eq!(codes, ["FILE_NOT_JSON", "FILE_NO_KEY"]);
    assert!(read.rejected[0].ends_with("byte 20"), "{:?}", read.rejected);
}

#[tokio::test]
async fn start_at_end_counts_for_the_first_start_only() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, "old\n");
    let values = json!({ "paths": [directory.path().join("*.log").to_str().unwrap()], "start_at": "end" });
    let mut offsets = SourceOffsets::default();
    let mut source = open(values, &offsets).await.unwrap();
    append(&log, "new\n");
    append(&directory.path().join("later.log"), "all of it\n");
    let mut lines = read_until(&mut *source, &mut offsets, 2).await.lines;
    lines.sort();
    assert_eq!(lines, ["all of it", "new"]);
}

#[tokio::test]
async fn where_a_file_begins_is_known_before_its_first_line_comes() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, "old\n");
    let values = json!({ "paths": [log.to_str().unwrap()], "start_at": "end" });
    let mut offsets = SourceOffsets::default();
    let mut source = open(values.clone(), &offsets).await.unwrap();
    let end = source.upstream_end().await.unwrap().unwrap();
    assert!(read_until(&mut *source, &mut offsets, 0).await.lines.is_empty());
    assert!(source.has_passed(&offsets, &end), "there is nothing to wait for");
    drop(source);
    append(&log, "while nobody read\n");
    let mut source = open(values, &offsets).await.unwrap();
    assert_eq!(read_until(&mut *source, &mut offsets, 1).await.lines, ["while nobody read"]);
}

struct World {
    directory: tempfile::TempDir,
    written: usize,
}

#[async_trait]
impl SourceWorld for World {
    fn connector(&self) -> Box<dyn SourceConnector> {
        connector(json!({ "paths": [self.directory.path().join("*.log").to_str().unwrap()] }))
    }

    async fn produce(&mut self, count: usize) {
        for _ in 0..count {
            let path = self.directory.path().join(format!("{}.log", self.written % 3));
            append(&path, &format!("line {}\n", self.written));
            self.written += 1;
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    conformance::descriptor(File::default().descriptor()).unwrap();
    let mut world = World { directory: tempfile::tempdir().unwrap(), written: 0 };
    conformance::source(&mut world).await.unwrap();
}

#[tokio::test]
async fn idle_is_reached_at_the_last_finished_line() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, "1\n2\nunfinished");
    let mut offsets = SourceOffsets::default();
    let mut source = open(json!({ "paths": [log.to_str().unwrap()] }), &offsets).await.unwrap();
    let end = source.upstream_end().await.unwrap().unwrap();
    assert!(!source.has_passed(&offsets, &end));
    read_until(&mut *source, &mut offsets, 2).await;
    assert!(source.has_passed(&offsets, &end));
}

#[tokio::test]
async fn long_lines_missing_files_and_damaged_offsets_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("app.log");
    append(&log, &format!("ok\n{}\n", "x".repeat(5000)));
    append(&log, "behind it\n");
    let values = json!({ "paths": [log.to_str().unwrap()], "line_bytes_max": 1000 });
    let mut offsets = SourceOffsets::default();
    let mut source = open(values.clone(), &offsets).await.unwrap();
    let read = read_until(&mut *source, &mut offsets, 2).await;
    assert_eq!(read.lines, ["ok", "behind it"]);
    let told = format!("FILE_LINE_TOO_LONG {}, byte 3", log.display());
    assert_eq!(read.rejected, [told]);
    assert_eq!(read.bytes[0].len(), 5000, "as far as 64 KiB go");
    let damaged = SourceOffsets { partitions: [("file 1:2".to_owned(), json!({ "v": 1 }))].into() };
    assert_eq!(open(values, &damaged).await.map(|_| ()).unwrap_err().code(), "FILE_OFFSET");
    let nowhere = connector(json!({ "paths": ["/nonexistent/x"], "mode": "once" }));
    assert_eq!(nowhere.check(&TaskContext::new("p", 0)).await.unwrap_err()[0].code(), "FILE_NOT_FOUND");
}
