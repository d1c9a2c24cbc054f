//! Logs that are written and rotated, through a topic into files, under kill -9.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use towpath_crash::{Fire, deliver};
use towpath_harness::process::Options;
use towpath_harness::{TempDir, Towpath};

/// Writes numbered lines, some of them in two pieces, and rotates by renaming, until told to stop. Returns how many.
fn write_logs(directory: &Path, stop: &AtomicBool) -> u64 {
    let log = directory.join("app.log");
    let open = || File::options().create(true).append(true).open(&log).unwrap();
    let mut file = open();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..20 {
            let line = format!("{{\"n\": {number}, \"text\": \"{}\"}}\n", "x".repeat(number as usize % 300));
            let (first, second) = line.as_bytes().split_at(if number % 7 == 0 { line.len() / 2 } else { 0 });
            file.write_all(first).unwrap();
            if number % 70 == 0 {
                std::thread::sleep(Duration::from_millis(3));
            }
            file.write_all(second).unwrap();
            number += 1;
            if number % 499 == 0 {
                // The file that is open goes on being written for a moment, as with logrotate.
                fs::rename(&log, directory.join(format!("app.log.{number:08}"))).unwrap();
                file.write_all(format!("{{\"n\": {number}, \"text\": \"late\"}}\n").as_bytes()).unwrap();
                number += 1;
                file = open();
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    number
}

fn finished(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> =
        all.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')).collect();
    all.sort();
    all
}

#[test]
fn every_line_arrives_once_through_rotations_and_kills() {
    let folder = TempDir::new("logs").unwrap();
    let (logs, out) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&logs).unwrap();
    let yaml = format!(
        "pipelines:\n  logs:\n    source: {{ type: file, paths: [\"{}/app.log*\"], format: json }}\n    topic: logs\n\
         \x20 files:\n    topics: [logs]\n    sink: {{ type: file, path: \"{}\", roll_bytes: 30000 }}\n",
        logs.display(),
        out.display()
    );
    let mut towpath = Towpath::start(Options::yaml(yaml)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (logs, stop) = (logs.clone(), Arc::clone(&stop));
        std::thread::spawn(move || write_logs(&logs, &stop))
    };
    let mut fire = Fire::new().unwrap();
    for _ in 0..8 {
        fire.strike(&mut towpath, Duration::from_millis(100)..Duration::from_millis(1500)).unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.join().unwrap();
    deliver(&mut towpath, Duration::from_secs(120)).unwrap();
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut covered = 0;
    for path in finished(&out) {
        let name = path.file_name().unwrap().to_str().unwrap();
        // `logs-0-FIRST-LAST.jsonl`: nothing is left open, and the names cover every offset once.
        let offsets = name.strip_prefix("logs-0-").and_then(|rest| rest.strip_suffix(".jsonl"));
        let offsets = offsets.and_then(|offsets| offsets.split_once('-'));
        let Some((first, last)) = offsets else { panic!("{name} is no finished file (seed {})", fire.seed) };
        assert_eq!(first.parse::<u64>().unwrap(), covered, "{name} (seed {})", fire.seed);
        covered = last.parse::<u64>().unwrap() + 1;
        for line in fs::read_to_string(&path).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            *seen.entry(row["n"].as_u64().unwrap()).or_default() += 1;
        }
    }
    let twice: Vec<_> = seen.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "more than once: {twice:?} (seed {})", fire.seed);
    let missing: Vec<_> = (0..written).filter(|n| !seen.contains_key(n)).take(5).collect();
    assert!(missing.is_empty(), "missing of {written}: {missing:?} (seed {})", fire.seed);
    assert_eq!((seen.len() as u64, covered), (written, written), "seed {}", fire.seed);
}
