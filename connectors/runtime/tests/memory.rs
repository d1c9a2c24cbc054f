//! A sink that is slower than its source holds up nothing and takes no more memory (R10). A binary of its own: it looks
//! at the memory of its process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

#[path = "runtime/world/mod.rs"]
mod world;

use std::sync::atomic::Ordering;

use towpath_runtime::TaskState;
use world::{Cluster, Target, Upstream, capture, deliver, eventually, settle, state};

/// Resident bytes that are not of files.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_sink_takes_no_more_memory() {
    const RECORDS: i64 = 3000;
    const BYTES: usize = 100_000;
    let cluster = Cluster::start().await;
    let (upstream, target) = (Upstream::new(), Target::exactly_once());
    upstream.big.lock().extend((0..RECORDS).map(|id| (id, BYTES)));
    target.hangs.store(true, Ordering::Relaxed);
    let supervisor = cluster.supervise(vec![capture("shop", &upstream), deliver("warehouse", &target)]);
    let before = resident();
    upstream.happen(&["orders"], RECORDS as usize);
    let mut most = 0;
    eventually("the source is through, whatever the sink does", || {
        most = most.max(resident());
        upstream.forgotten.load(Ordering::SeqCst) == RECORDS as u64
    })
    .await;
    let total = RECORDS as u64 * BYTES as u64;
    let grown = most.saturating_sub(before);
    eprintln!("{grown} bytes more while {total} went by");
    assert!(grown < 200 << 20, "{grown} bytes more");
    assert_eq!(state(&supervisor, "shop"), TaskState::Running);
    assert_eq!(target.len(), 0);
    target.hangs.store(false, Ordering::Relaxed);
    settle(&supervisor).await;
    let most = most.max(resident());
    assert!(most.saturating_sub(before) < 200 << 20, "{most} bytes");
    supervisor.stop().await;
    assert!(target.ids("shop.orders") == upstream.ids("orders"));
}
