//! W1 and W2: producing.

use std::time::Instant;

use anyhow::Result;

use crate::admin::Admin;
use crate::broker::Broker;
use crate::cli::Arguments;
use crate::load::{ProduceLoad, produce};
use crate::machine;
use crate::meter::{Meter, Spent};
use crate::report::{Report, higher, lower, say};

/// Bytes of a batch, which is a request.
pub(super) const BATCH_BYTES: usize = 96 << 10;
/// Requests under way on a connection.
pub(super) const IN_FLIGHT: i32 = 5;

struct Spec {
    value_bytes: usize,
    records: u64,
    partitions: i32,
}

/// W1.
pub(crate) fn w1(arguments: &Arguments) -> Result<Vec<Report>> {
    let records = arguments.records(1_000_000);
    let specs = [1, 16].map(|partitions| Spec { value_bytes: 1024, records, partitions });
    let figures = [lower("broker CPU", "s/GB"), higher("throughput", "MB/s")];
    measure(arguments, &specs, &figures, |records, spent| {
        let bytes = records * 1024.0;
        vec![spent.cpu_s_per(bytes / 1e9), spent.rate(bytes / 1e6)]
    })
}

/// W2.
pub(crate) fn w2(arguments: &Arguments) -> Result<Vec<Report>> {
    let specs = [Spec { value_bytes: 100, records: arguments.records(5_000_000), partitions: 1 }];
    let figures = [lower("broker CPU", "µs/record"), higher("throughput", "k records/s")];
    measure(arguments, &specs, &figures, |records, spent| {
        vec![spent.cpu_us_per(records), spent.rate(records / 1e3)]
    })
}

fn measure(
    arguments: &Arguments,
    specs: &[Spec],
    figures: &[crate::report::Figure],
    samples: impl Fn(f64, Spent) -> Vec<f64>,
) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let brokers = Broker::start_all(arguments)?;
    let admins = brokers.iter().map(|b| Admin::connect(b.address())).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = brokers.iter().map(Broker::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut topics = 0;
    for (broker, admin) in brokers.iter().zip(&admins) {
        say(&format!("warming up {}", broker.name()));
        let begin = Instant::now();
        loop {
            for spec in specs {
                topics += 1;
                once(broker, admin, spec, topics)?;
            }
            if !broker.on_jvm() || begin.elapsed() >= arguments.warm_up() {
                break;
            }
        }
    }
    let mut reports = Vec::new();
    for spec in specs {
        let title = format!(
            "produce {} × {} B, acks=all, {} partition{}",
            spec.records,
            spec.value_bytes,
            spec.partitions,
            if spec.partitions == 1 { "" } else { "s" }
        );
        let subjects = brokers.iter().zip(&admins).collect::<Vec<_>>();
        let report = Report::measure(title, figures, &names, arguments.pairs(), |subject, _| {
            let (broker, admin) =
                subjects.get(subject).copied().ok_or_else(|| anyhow::anyhow!("no subject"))?;
            topics += 1;
            let (records, spent) = once(broker, admin, spec, topics)?;
            Ok(samples(records as f64, spent))
        })?;
        reports.push(
            report
                .note(format!(
                    "batches of {} KiB encoded beforehand, {IN_FLIGHT} requests under way on one connection; the same \
                     bytes for both; a new topic for each run, into pages that were touched before",
                    BATCH_BYTES >> 10
                ))
                .note("durability: page cache for both; broker on core 0, load on core 1; GB are of record values"),
        );
    }
    machine::unpin_load()?;
    Ok(reports)
}

/// One run into a topic of its own, which is deleted afterwards.
fn once(broker: &Broker, admin: &Admin, spec: &Spec, number: u32) -> Result<(u64, Spent)> {
    let load = ProduceLoad {
        topic: format!("produce-{number}"),
        partitions: spec.partitions,
        records: spec.records,
        value_bytes: spec.value_bytes,
        batch_bytes: BATCH_BYTES,
        in_flight: IN_FLIGHT,
    };
    admin.create_topic(&load.topic, load.partitions)?;
    machine::warm_page_cache(spec.records * (spec.value_bytes as u64 + 16))?;
    let meter = Meter::start(broker.pid()?)?;
    let records = produce(broker.address(), &load)?;
    let spent = meter.spent()?;
    admin.verify_records(&load.topic, load.partitions, records)?;
    admin.delete_topic(&load.topic)?;
    Ok((records, spent))
}
