//! A large transaction in bounded memory. A process of its own, so that its memory is its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

#[path = "capture/support.rs"]
#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::time::Instant;

use serde_json::json;
use support::{Runner, database};

const ROWS: usize = 200_000;
/// One transaction of these rows takes far more than this on the wire.
const GROWTH_KIB_MAX: u64 = 24 * 1024;

fn resident_kib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_transaction_is_never_held_whole() {
    let db = database("volume", "CREATE TABLE t (id int PRIMARY KEY, a text, b numeric, c timestamptz)");
    let mut run = Runner::new(&db, "volume", json!({"tables": ["t"]}));
    run.keep = false;
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO t VALUES (0, '', 0, now())");
    run.catch_up().await;
    let before = resident_kib("VmRSS");
    db.sql(&format!(
        "INSERT INTO t SELECT g, repeat('x', 200), g * 1.5, now() FROM generate_series(1, {ROWS}) g"
    ));
    // The runtime is slow at first: the server has to wait, not our memory to grow.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let started = Instant::now();
    run.until("all rows", |run| run.count > ROWS).await;
    eprintln!("{:.0} rows/s", ROWS as f64 / started.elapsed().as_secs_f64());
    run.catch_up().await;
    assert_eq!(run.count, ROWS + 1);
    let growth = resident_kib("VmHWM").saturating_sub(before);
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB more at the peak");
    run.close().await;
}
