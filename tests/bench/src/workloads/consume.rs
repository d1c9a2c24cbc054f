//! W3: consuming, from the page cache and from the disk.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::cli::Arguments;
use crate::load::{ConsumeLoad, ProduceLoad, consume, produce};
use crate::machine;
use crate::meter::Meter;
use crate::report::{Report, higher, lower, say};

const TOPIC: &str = "consume";
const VALUE_BYTES: usize = 1024;

/// W3.
pub(crate) fn w3(arguments: &Arguments) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let brokers = Broker::start_all(arguments)?;
    let mut loads = Vec::new();
    for broker in &brokers {
        loads.push(fill(broker, arguments.records(3_000_000))?);
        say(&format!("warming up {}", broker.name()));
    }
    for (broker, load) in brokers.iter().zip(&loads) {
        let begin = Instant::now();
        loop {
            consume(broker.address(), load)?;
            if !broker.on_jvm() || begin.elapsed() >= arguments.warm_up() {
                break;
            }
        }
    }
    let names: Vec<String> = brokers.iter().map(Broker::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = [lower("broker CPU", "s/GB"), higher("throughput", "MB/s")];
    let mut reports = Vec::new();
    for (state, how) in [
        ("hot", "all segments in the page cache: read once before each run"),
        (
            "cold",
            "before each run the segments were flushed and dropped from the page cache (fdatasync, POSIX_FADV_DONTNEED, \
                  checked with fincore)",
        ),
    ] {
        let title = format!("consume {:.1} GB of {VALUE_BYTES} B records, {state}", gigabytes(&loads));
        let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, _| {
            let broker = brokers.get(subject).context("no subject")?;
            let load = loads.get(subject).context("no subject")?;
            if state == "hot" {
                machine::load_segments(&broker.data_dir())?;
            } else {
                machine::evict_segments(&broker.data_dir())?;
            }
            let meter = Meter::start(broker.pid()?)?;
            let bytes = consume(broker.address(), load)? as f64;
            let spent = meter.spent()?;
            Ok(vec![spent.cpu_s_per(bytes / 1e9), spent.rate(bytes / 1e6)])
        })?;
        reports.push(report.note(how).note(
            "one partition, fetches of 1 MiB (a consumer's default), one under way; every batch's offsets are checked; \
             broker on core 0, load on core 1",
        ));
    }
    machine::unpin_load()?;
    Ok(reports)
}

fn gigabytes(loads: &[ConsumeLoad]) -> f64 {
    loads.first().map_or(0.0, |load| load.records as f64 * VALUE_BYTES as f64 / 1e9)
}

fn fill(broker: &Broker, records: u64) -> Result<ConsumeLoad> {
    let admin = Admin::connect(broker.address())?;
    admin.create_topic(TOPIC, 1)?;
    let load = ProduceLoad {
        topic: TOPIC.to_owned(),
        partitions: 1,
        records,
        value_bytes: VALUE_BYTES,
        batch_bytes: 96 << 10,
        in_flight: 5,
    };
    let records = produce(broker.address(), &load)?;
    admin.verify_records(TOPIC, 1, records)?;
    Ok(ConsumeLoad { topic: TOPIC.to_owned(), records })
}
