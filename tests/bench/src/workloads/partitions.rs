//! One broker with very many partitions: memory when idle, time to ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use towpath_harness::stats::usage;
use towpath_harness::{Kafka, Towpath, kafka, ports, process};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use super::produce::{BATCH_BYTES, IN_FLIGHT};
use crate::admin::Admin;
use crate::broker::{kafka_name, kafka_options, wait_metadata};
use crate::cli::{Arguments, Side};
use crate::load::{Link, ProduceLoad, produce};
use crate::meter::Meter;
use crate::report::{Report, Skipped, lower, say};

const TOPICS: i32 = 10;
const PARTITIONS: i32 = 1_000;
const VALUE_BYTES: usize = 1024;
const IDLE: Duration = Duration::from_secs(60);
const IDLE_QUICK: Duration = Duration::from_secs(5);
/// What takes longer is an error, and leaves Apache Kafka out.
const TIMEOUT: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(10);
/// The last version with the fields that are needed.
const LIST_OFFSETS_VERSION: i16 = 5;
/// The timestamp that stands for the end of the log (KIP-79).
const LATEST: i64 = -1;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Single,
    ClusterOfOne,
    Kafka,
}

impl Subject {
    fn name(self) -> String {
        match self {
            Self::Single => "towpath".to_owned(),
            Self::ClusterOfOne => "towpath (a cluster of one)".to_owned(),
            Self::Kafka => kafka_name(),
        }
    }
}

/// The workload.
pub(crate) fn partitions(arguments: &Arguments) -> Result<Vec<Report>> {
    let records = arguments.records(10_000_000);
    let idle = if arguments.quick { IDLE_QUICK } else { IDLE };
    check_space(records)?;
    let all = [
        (Side::Towpath, Subject::Single),
        (Side::Towpath, Subject::ClusterOfOne),
        (Side::Peer, Subject::Kafka),
    ];
    let subjects: Vec<Subject> =
        all.into_iter().filter(|(side, _)| arguments.wants(*side)).map(|(_, subject)| subject).collect();
    if subjects.is_empty() {
        bail!("this workload has no floor");
    }
    let names: Vec<String> = subjects.iter().map(|subject| subject.name()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let gb = records as f64 * VALUE_BYTES as f64 / 1e9;
    let figures = [
        lower("creation", "s"),
        lower("idle memory (RSS)", "MB"),
        lower("idle CPU", "ms/s"),
        lower("clean stop", "s"),
        lower("ready after it", "s"),
        lower("and every partition answers", "s"),
        lower("ready after kill -9 with the log", "s"),
        lower("and every partition answers then", "s"),
    ];
    let title = format!("{} partitions, {gb:.1} GB of log before the kill", TOPICS * PARTITIONS);
    let report = Report::measure(title, &figures, &names, arguments.pairs_or(1), |subject, _| {
        let subject = *subjects.get(subject).context("no subject")?;
        let result = once(subject, records, idle);
        match subject {
            // What it cannot do here is no reason to lose our own figures.
            Subject::Kafka => result.map_err(|error| Skipped(format!("{error:#}")).into()),
            _ => result,
        }
    })?;
    Ok(vec![
        report
            .note(format!(
                "one broker, on all cores, with its defaults (Apache Kafka: 1 GB of heap, G1); {TOPICS} topics of \
                 {PARTITIONS} partitions without replicas; memory and CPU after creation and {idle:?} of idling"
            ))
            .note(
                "ready: from the start of the process to an answer to Metadata (and for towpath also 200 from /ready); \
                 then until ListOffsets gives the end of every partition without an error",
            )
            .note(format!(
                "records of {VALUE_BYTES} B in batches of {} KiB, spread over all partitions; the log is in the page \
                 cache as far as that holds it; after the kill every partition must have all its records",
                BATCH_BYTES >> 10
            )),
    ])
}

/// One subject's data are there at a time; twice their size leaves room for what else is on the disk.
fn check_space(records: u64) -> Result<()> {
    let wanted = 2 * records * VALUE_BYTES as u64 + (1 << 30);
    let disk = rustix::fs::statvfs(std::env::temp_dir()).context("cannot look at the disk")?;
    let free = disk.f_bavail * disk.f_frsize;
    if free < wanted {
        bail!(
            "{} has {} MB free, {} MB are needed",
            std::env::temp_dir().display(),
            free >> 20,
            wanted >> 20
        );
    }
    Ok(())
}

fn topic(number: i32) -> String {
    format!("many-{number}")
}

fn once(subject: Subject, records: u64, idle: Duration) -> Result<Vec<f64>> {
    let mut broker = Broker::start(subject)?;
    let result = steps(&mut broker, records, idle);
    result.with_context(|| broker.log_tail())
}

fn steps(broker: &mut Broker, records: u64, idle: Duration) -> Result<Vec<f64>> {
    let begin = Instant::now();
    {
        let admin = Admin::connect(broker.address())?;
        for number in 0..TOPICS {
            admin.create_topic(&topic(number), PARTITIONS)?;
            if begin.elapsed() > TIMEOUT {
                bail!("{} topics of {TOPICS} were created within {TIMEOUT:?}", number + 1);
            }
        }
    }
    let mut figures = vec![begin.elapsed().as_secs_f64()];
    let meter = Meter::start(broker.pid()?)?;
    std::thread::sleep(idle);
    let spent = meter.spent()?;
    figures.push(usage(broker.pid()?)?.rss_bytes as f64 / 1e6);
    figures.push(spent.cpu.as_secs_f64() * 1e3 / spent.wall.as_secs_f64());
    let begin = Instant::now();
    broker.stop()?;
    figures.push(begin.elapsed().as_secs_f64());
    figures.extend(broker.start_again()?);
    say("writing the log");
    for number in 0..TOPICS {
        write(broker, &topic(number), records.div_ceil(u64::try_from(TOPICS)?))?;
    }
    let ends = ends(broker.address())?;
    broker.kill9()?;
    figures.extend(broker.start_again()?);
    if self::ends(broker.address())? != ends {
        bail!("other ends of partitions than before the kill");
    }
    broker.stop()?;
    Ok(figures)
}

fn write(broker: &Broker, topic: &str, records: u64) -> Result<()> {
    let load = ProduceLoad {
        topic: topic.to_owned(),
        partitions: PARTITIONS,
        records,
        value_bytes: VALUE_BYTES,
        // Not more than a partition's share, so that a short run is as large as it should be.
        batch_bytes: BATCH_BYTES.min(usize::try_from(records)? * VALUE_BYTES / usize::try_from(PARTITIONS)?),
        in_flight: IN_FLIGHT,
    };
    produce(broker.address(), &load).with_context(|| format!("cannot write to {topic}")).map(drop)
}

/// The end of every partition.
fn ends(address: SocketAddr) -> Result<Vec<i64>> {
    let mut link = Link::connect(address, 256 << 10)?;
    let mut ends = Vec::new();
    for number in 0..TOPICS {
        let partition = |partition_index| ListOffsetsPartition {
            partition_index,
            current_leader_epoch: -1,
            timestamp: LATEST,
        };
        let partitions = (0..PARTITIONS).map(partition).collect();
        let topics = vec![ListOffsetsTopic { name: topic(number), partitions }];
        let request = ListOffsetsRequest { replica_id: -1, isolation_level: 0, topics, timeout_ms: 0 };
        let response = link.ask(&request, LIST_OFFSETS_VERSION)?;
        let mut answers: Vec<_> = response.topics.into_iter().flat_map(|topic| topic.partitions).collect();
        answers.sort_unstable_by_key(|answer| answer.partition_index);
        if answers.len() != usize::try_from(PARTITIONS)? {
            bail!("{} of {PARTITIONS} partitions are in the answer", answers.len());
        }
        for answer in answers {
            if answer.error_code != 0 || answer.offset < 0 {
                bail!("{}-{}: error {}", topic(number), answer.partition_index, answer.error_code);
            }
            ends.push(answer.offset);
        }
    }
    Ok(ends)
}

/// A single broker that can be stopped and started.
enum Broker {
    Towpath(Box<Towpath>),
    Kafka(Box<Kafka>),
}

impl Broker {
    fn start(subject: Subject) -> Result<Self> {
        say(&format!("starting {}", subject.name()));
        let mut options = process::Options { runs: process::Runs::Broker, ..process::Options::broker() };
        match subject {
            Subject::Kafka => {
                let options = kafka::Options { timeout: TIMEOUT, ..kafka_options(false) };
                return Ok(Self::Kafka(Box::new(Kafka::start(&options)?)));
            }
            Subject::Single => {}
            Subject::ClusterOfOne => {
                let controller = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()?));
                options.node_yaml =
                    format!("  id: 1\n  roles: [broker, controller]\n  controller: {controller}\n");
                options.yaml = format!("cluster:\n  name: bench\n  controllers: [\"1@{controller}\"]\n");
            }
        }
        let mut broker = Self::Towpath(Box::new(Towpath::prepare(options)?));
        broker.wait_ready()?;
        Ok(broker)
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Towpath(towpath) => towpath.kafka_address(),
            Self::Kafka(kafka) => kafka.address(),
        }
    }

    fn pid(&self) -> Result<u32> {
        match self {
            Self::Towpath(towpath) => towpath.pid(),
            Self::Kafka(kafka) => kafka.pid(),
        }
        .context("the broker does not run")
    }

    fn stop(&mut self) -> Result<()> {
        match self {
            Self::Towpath(towpath) => {
                let status = towpath.terminate(TIMEOUT)?;
                if !status.success() {
                    bail!("towpath ended with {status}");
                }
                Ok(())
            }
            Self::Kafka(kafka) => kafka.stop(),
        }
    }

    fn kill9(&mut self) -> Result<()> {
        match self {
            Self::Towpath(towpath) => towpath.kill9(),
            Self::Kafka(kafka) => kafka.kill9(),
        }
    }

    /// Starts it, and waits until it says that it is ready.
    fn wait_ready(&mut self) -> Result<()> {
        match self {
            Self::Towpath(towpath) => {
                towpath.spawn()?;
                towpath.wait_ready(TIMEOUT)?;
                wait_metadata(towpath.kafka_address())
            }
            Self::Kafka(kafka) => kafka.start_again(),
        }
    }

    /// Starts it: seconds until it is ready, and until every partition answers.
    fn start_again(&mut self) -> Result<[f64; 2]> {
        let begin = Instant::now();
        self.wait_ready()?;
        let ready = begin.elapsed().as_secs_f64();
        while let Err(error) = ends(self.address()) {
            if begin.elapsed() >= TIMEOUT {
                return Err(error.context(format!("not every partition answered within {TIMEOUT:?}")));
            }
            std::thread::sleep(LOOK);
        }
        Ok([ready, begin.elapsed().as_secs_f64()])
    }

    fn log_tail(&self) -> String {
        match self {
            Self::Towpath(towpath) => towpath.log_tail(),
            Self::Kafka(kafka) => kafka.log_tail(),
        }
    }
}
