//! W9: time to ready, idle memory.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use towpath_harness::stats::usage;
use towpath_harness::{Kafka, Towpath, http, process};

use crate::broker::{Example, kafka_name, kafka_options, wait_metadata};
use crate::cli::{Arguments, Side};
use crate::machine;
use crate::report::{Report, lower};

/// How long a server idles before its memory is read.
const IDLE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(60);

/// W9.
pub(crate) fn w9(arguments: &Arguments) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let kafka_name = kafka_name();
    let mut names = Vec::new();
    if arguments.wants(Side::Towpath) {
        names.push(if arguments.broker_example { "towpath (broker alone)" } else { "towpath" });
    }
    let mut kafka = None;
    if arguments.wants(Side::Peer) {
        names.push(&kafka_name);
        // Formatting its folder is no part of the start.
        let mut formatted = Kafka::start(&kafka_options(true))?;
        formatted.stop()?;
        kafka = Some(formatted);
    }
    let figures = [lower("time to ready", "ms"), lower("idle memory (RSS)", "MB")];
    let report = Report::measure(
        "time to ready, idle memory".to_owned(),
        &figures,
        &names,
        arguments.pairs(),
        |subject, _| match kafka.as_mut().filter(|_| subject + 1 == names.len()) {
            Some(kafka) => start_kafka(kafka),
            None if arguments.broker_example => start_example(),
            None => start_towpath(),
        },
    )?;
    machine::unpin_load()?;
    Ok(vec![report.note(
        "from the start of the process to an answer to Metadata (and for towpath also 200 from /ready), in an empty data \
         folder; Apache Kafka's was formatted before, and it was started there once; memory after 5 idle seconds",
    )])
}

fn idle_megabytes(pid: u32) -> Result<f64> {
    std::thread::sleep(IDLE);
    Ok(usage(pid)?.rss_bytes as f64 / 1e6)
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e3
}

fn start_towpath() -> Result<Vec<f64>> {
    let options = process::Options { prefix: machine::server_prefix(), ..process::Options::broker() };
    let mut towpath = Towpath::prepare(options)?;
    let begin = Instant::now();
    towpath.spawn()?;
    let answered = wait_metadata(towpath.kafka_address())
        .and_then(|()| http::wait_ok(towpath.http_address(), "/ready", TIMEOUT).map(drop));
    let ready = milliseconds(begin);
    answered.with_context(|| towpath.log_tail())?;
    let memory = idle_megabytes(towpath.pid().context("towpath has ended")?)?;
    towpath.terminate(TIMEOUT)?;
    Ok(vec![ready, memory])
}

fn start_example() -> Result<Vec<f64>> {
    let mut example = Example::prepare()?;
    let begin = Instant::now();
    example.spawn()?;
    wait_metadata(example.address())?;
    let ready = milliseconds(begin);
    let memory = idle_megabytes(example.pid()?)?;
    example.stop()?;
    Ok(vec![ready, memory])
}

fn start_kafka(kafka: &mut Kafka) -> Result<Vec<f64>> {
    let begin = Instant::now();
    kafka.start_again()?;
    let ready = milliseconds(begin);
    let memory = idle_megabytes(kafka.pid().context("Apache Kafka has ended")?)?;
    kafka.stop()?;
    Ok(vec![ready, memory])
}
