//! The benchmark itself runs: W9 and failover are the cheapest of its workloads. Its figures are not judged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::process::Command;
use std::time::Duration;

use towpath_harness::Guarded;

/// One kill of each kind, of our own nodes only.
#[test]
fn failover_ends_each_time() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towpath-bench"));
    bench.args(["failover", "--pairs", "1", "--only", "towpath", "--json"]);
    let text = Guarded::run("towpath-bench failover", bench, Duration::from_secs(300)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 3, "{text}");
    for figure in figures {
        let samples = figure["subjects"][0]["samples"].as_array().unwrap();
        assert!(samples.len() == 1 && samples[0].as_f64().unwrap() > 0.0, "{text}");
    }
}

#[test]
fn w9_measures_both_sides() {
    let mut bench = Command::new(env!("CARGO_BIN_EXE_towpath-bench"));
    bench.args(["w9", "--quick", "--json"]);
    let text = Guarded::run("towpath-bench w9", bench, Duration::from_secs(300)).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let figures = report["figures"].as_array().unwrap();
    assert_eq!(figures.len(), 2, "{text}");
    for figure in figures {
        let subjects = figure["subjects"].as_array().unwrap();
        assert_eq!(subjects.len(), 2, "{text}");
        for subject in subjects {
            let samples = subject["samples"].as_array().unwrap();
            assert!(samples.len() == 2 && samples.iter().all(|s| s.as_f64().unwrap() > 0.0), "{text}");
        }
        assert_eq!(figure["times_better"][0]["samples"].as_array().unwrap().len(), 2, "{text}");
    }
}
