//! W4: end to end at a fixed rate.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::admin::Admin;
use crate::broker::Broker;
use crate::cli::Arguments;
use crate::load::{PacedLoad, PacedResult, paced};
use crate::machine;
use crate::meter::Meter;
use crate::report::{Report, lower, say};
use crate::series::percentile;

const RATE: u64 = 2_000;
const VALUE_BYTES: usize = 1024;

/// W4.
pub(crate) fn w4(arguments: &Arguments) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let brokers = Broker::start_all(arguments)?;
    let records = arguments.records(RATE * 30);
    let mut topics = 0;
    let mut run = |broker: &Broker, records: u64| {
        topics += 1;
        let admin = Admin::connect(broker.address())?;
        let topic = format!("paced-{topics}");
        admin.create_topic(&topic, 1)?;
        let load = PacedLoad { topic, records, rate: RATE, value_bytes: VALUE_BYTES };
        let meter = Meter::start(broker.pid()?)?;
        let result = paced(broker.address(), &load)?;
        let spent = meter.spent()?;
        admin.verify_records(&load.topic, 1, records)?;
        admin.delete_topic(&load.topic)?;
        anyhow::Ok((result, spent))
    };
    for broker in &brokers {
        say(&format!("warming up {}", broker.name()));
        let time = if broker.on_jvm() { arguments.warm_up() } else { Duration::from_secs(2) };
        run(broker, (RATE as f64 * time.as_secs_f64()) as u64 + 1)?;
    }
    let names: Vec<String> = brokers.iter().map(Broker::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = [
        lower("p50", "ms"),
        lower("p99", "ms"),
        lower("p99.9", "ms"),
        lower("broker CPU", "µs/record"),
        lower("sent late, p99", "ms"),
    ];
    let title = format!("end to end, {RATE}/s × {VALUE_BYTES} B for {:.0} s", records as f64 / RATE as f64);
    let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, _| {
        let (result, spent) = run(brokers.get(subject).context("no subject")?, records)?;
        let mut samples = latencies_ms(&result)?;
        samples.insert(3, spent.cpu_us_per(records as f64));
        Ok(samples)
    })?;
    machine::unpin_load()?;
    Ok(vec![report.note(
        "open loop: each record is a request of its own, timed from when it was due until the consumer's fetch brought \
         it; the first 10 % do not count. \"sent late\" is the load generator's own delay, which is part of the figures",
    )
    .note("acks=all; durability: page cache for both; broker on core 0, load on core 1")])
}

/// p50, p99 and p99.9 of what came, and p99 of how late it was sent.
fn latencies_ms(result: &PacedResult) -> Result<Vec<f64>> {
    let sorted = |all: &[u64]| {
        let mut kept = all.get(all.len() / 10..).unwrap_or_default().to_vec();
        kept.sort_unstable();
        kept
    };
    let (latencies, late) = (sorted(&result.latencies_ns), sorted(&result.late_ns));
    let picked = [(&latencies, 0.5), (&latencies, 0.99), (&latencies, 0.999), (&late, 0.99)];
    let picked: Option<Vec<f64>> =
        picked.iter().map(|(all, part)| percentile(all, *part).map(|ns| ns as f64 / 1e6)).collect();
    match picked {
        Some(picked) => Ok(picked),
        None => bail!("no record was measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tenth_does_not_count() {
        let mut latencies_ns = vec![1_000_000; 1_000];
        latencies_ns[..100].fill(9_000_000_000);
        latencies_ns[999] = 50_000_000;
        let result = PacedResult { latencies_ns, late_ns: vec![1_000; 1_000] };
        assert_eq!(latencies_ms(&result).unwrap(), [1.0, 1.0, 50.0, 0.001]);
        let none = PacedResult { latencies_ns: Vec::new(), late_ns: Vec::new() };
        assert!(latencies_ms(&none).is_err());
    }
}
