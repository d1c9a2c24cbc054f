//! W1 on three nodes: producing with three replicas.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::produce::{BATCH_BYTES, IN_FLIGHT};
use crate::cli::Arguments;
use crate::load::{ProduceLoad, produce_part};
use crate::machine;
use crate::meter::{Meters, Spent};
use crate::nodes::Nodes;
use crate::report::{Report, higher, lower, say};

const VALUE_BYTES: usize = 1024;
const REPLICAS: usize = 3;
/// How often the ISR is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One run.
struct Run {
    records: u64,
    spent: Spent,
    least_isr: usize,
    looks: u32,
}

/// W1 with `--nodes 3`.
pub(crate) fn w1(arguments: &Arguments) -> Result<Vec<Report>> {
    let records = arguments.records(1_000_000);
    let clusters = Nodes::start_all(arguments)?;
    let setup = clusters.first().map(Nodes::setup).unwrap_or_default();
    let names: Vec<String> = clusters.iter().map(Nodes::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut topics = 0;
    let mut load = |partitions: i32| {
        topics += 1;
        ProduceLoad {
            topic: format!("replicated-{topics}"),
            partitions,
            records,
            value_bytes: VALUE_BYTES,
            batch_bytes: BATCH_BYTES,
            in_flight: IN_FLIGHT,
        }
    };
    for nodes in &clusters {
        say(&format!("warming up {}", nodes.name()));
        let begin = Instant::now();
        loop {
            once(nodes, &load(1))?;
            once(nodes, &load(16))?;
            if !nodes.on_jvm() || begin.elapsed() >= arguments.warm_up() {
                break;
            }
        }
    }
    let figures = [lower("CPU of the three nodes", "s/GB"), higher("throughput", "MB/s")];
    let mut reports = Vec::new();
    for partitions in [1, 16] {
        let title = format!(
            "produce {records} × {VALUE_BYTES} B, acks=all, {partitions} partition{}, 3 replicas, min.insync.replicas 2",
            if partitions == 1 { "" } else { "s" }
        );
        let seen = vec![Cell::new((REPLICAS, 0)); clusters.len()];
        let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, _| {
            let run = once(clusters.get(subject).context("no subject")?, &load(partitions))?;
            if let Some(seen) = seen.get(subject) {
                let (least, looks) = seen.get();
                seen.set((least.min(run.least_isr), looks + run.looks));
            }
            let bytes = run.records as f64 * VALUE_BYTES as f64;
            Ok(vec![run.spent.cpu_s_per(bytes / 1e9), run.spent.rate(bytes / 1e6)])
        })?;
        let isr: Vec<String> = names
            .iter()
            .zip(&seen)
            .map(|(name, seen)| format!("{name} {} in {} looks", seen.get().0, seen.get().1))
            .collect();
        reports.push(
            report
                .note(setup.clone())
                .note(format!(
                    "batches of {} KiB encoded beforehand, {IN_FLIGHT} requests under way on one connection to each \
                     leader; a new topic for each run; no consumers; CPU of leaders and followers together",
                    BATCH_BYTES >> 10
                ))
                .note(format!("fewest replicas in sync (looked at every {LOOK:?}): {}", isr.join(", ")))
                .note("durability: three page caches for both; GB are of record values, counted once"),
        );
    }
    Ok(reports)
}

/// One run into a topic of its own, which is deleted afterwards.
fn once(nodes: &Nodes, load: &ProduceLoad) -> Result<Run> {
    let admin = nodes.admin()?;
    admin.create_replicated(&load.topic, load.partitions)?;
    let leaders = nodes.leaders(&load.topic)?;
    machine::warm_page_cache(REPLICAS as u64 * load.records * (load.value_bytes as u64 + 16))?;
    let meters = Meters::start(&nodes.pids()?)?;
    let done = AtomicBool::new(false);
    let (records, spent, (least_isr, looks)) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch(nodes, &load.topic, &done));
        let mut writers = Vec::new();
        for (leader, partitions) in &leaders {
            let address = nodes.address(*leader)?;
            writers.push(scope.spawn(move || produce_part(address, load, partitions)));
        }
        let mut records: Result<u64> = Ok(0);
        for writer in writers {
            let part = writer.join().map_err(|_| anyhow!("a writer panicked")).flatten();
            records = records.and_then(|sum| Ok(sum + part?));
        }
        let spent = meters.spent();
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().map_err(|_| anyhow!("the watch panicked")).flatten();
        anyhow::Ok((records?, spent?, seen?))
    })
    .with_context(|| nodes.log_tails())?;
    admin.verify_records(&load.topic, load.partitions, records)?;
    if nodes.leaders(&load.topic)? != leaders {
        bail!("leaders of {} moved", load.topic);
    }
    admin.delete_topic(&load.topic)?;
    Ok(Run { records, spent, least_isr, looks })
}

/// Looks at the ISR until it is over: its smallest size, and how often it was looked at.
fn watch(nodes: &Nodes, topic: &str, done: &AtomicBool) -> Result<(usize, u32)> {
    let mut seen = (REPLICAS, 0);
    while !done.load(Ordering::Relaxed) {
        seen = (seen.0.min(nodes.least_isr(topic)?), seen.1 + 1);
        std::thread::sleep(LOOK);
    }
    Ok(seen)
}
