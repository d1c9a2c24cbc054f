//! W5: mirroring from one broker to another.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use towpath_harness::Towpath;
use towpath_harness::process::{Options, Runs};

use super::produce::{BATCH_BYTES, IN_FLIGHT};
use crate::admin::Admin;
use crate::cli::{Arguments, Side};
use crate::load::{ProduceLoad, produce};
use crate::machine;
use crate::meter::Meter;
use crate::report::{Report, higher, lower, say};
use towpath_harness::mirror_maker::{self, MirrorMaker};

const PARTITIONS: i32 = 4;
const VALUE_BYTES: usize = 1024;
/// How long nothing may come.
const STALL: Duration = Duration::from_secs(120);

/// A mirror from the one broker to the other.
enum Mirror {
    Ours(Box<Towpath>),
    Theirs(Box<MirrorMaker>),
}

impl Mirror {
    fn name(&self) -> String {
        match self {
            Self::Ours(_) => "towpath".to_owned(),
            Self::Theirs(_) => mirror_maker::name(),
        }
    }

    /// Topics that begin so are its own.
    fn prefix(&self) -> &'static str {
        match self {
            Self::Ours(_) => "ours-",
            Self::Theirs(_) => "theirs-",
        }
    }

    fn pid(&mut self) -> Result<u32> {
        match self {
            Self::Ours(towpath) => towpath.pid().context("the mirror does not run"),
            Self::Theirs(maker) => {
                maker.check()?;
                Ok(maker.pid())
            }
        }
    }
}

/// Both brokers, and everything that mirrors between them.
struct Stage {
    from: Towpath,
    /// Kept, so that it runs.
    _to: Towpath,
    source: Admin,
    target: Admin,
    mirrors: Vec<Mirror>,
    topics: u32,
}

fn ours(from: SocketAddr, to: SocketAddr) -> Result<Mirror> {
    let yaml = format!(
        "clusters:\n  us: {{ bootstrap_servers: [\"{from}\"] }}\n  eu: {{ bootstrap_servers: [\"{to}\"] }}\nmirrors:\n  \
         us-to-eu: {{ from: us, to: eu, topics: [\"ours-*\"], refresh: 1s }}\n"
    );
    let options = Options { runs: Runs::Mirrors, ..Options::yaml(yaml).without_broker() };
    Ok(Mirror::Ours(Box::new(Towpath::start(options)?)))
}

/// W5.
pub(crate) fn w5(arguments: &Arguments) -> Result<Vec<Report>> {
    machine::pin_load()?;
    let broker = || Towpath::start(Options { prefix: machine::server_prefix(), ..Options::broker() });
    let (from, to) = (broker()?, broker()?);
    let ends = (from.kafka_address(), to.kafka_address());
    let mut mirrors = Vec::new();
    if arguments.wants(Side::Towpath) {
        mirrors.push(ours(ends.0, ends.1)?);
    }
    if arguments.wants(Side::Peer) {
        mirrors.push(Mirror::Theirs(Box::new(MirrorMaker::start(ends.0, ends.1, "theirs-")?)));
    }
    ensure!(!mirrors.is_empty(), "this workload has no floor");
    let (source, target) = (Admin::connect(ends.0)?, Admin::connect(ends.1)?);
    let mut stage = Stage { from, _to: to, source, target, mirrors, topics: 0 };
    let records = arguments.records(1_000_000);
    for at in 0..stage.mirrors.len() {
        say(&format!("warming up {}", stage.mirrors[at].name()));
        let begin = Instant::now();
        while begin.elapsed() < arguments.warm_up() {
            stage.once(at, records / 4)?;
            if matches!(stage.mirrors[at], Mirror::Ours(_)) {
                break;
            }
        }
    }
    let names: Vec<String> = stage.mirrors.iter().map(Mirror::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = [lower("CPU of the mirror", "s/GB"), higher("throughput", "MB/s")];
    let title = format!("mirror {records} × {VALUE_BYTES} B, {PARTITIONS} partitions");
    let report = Report::measure(title, &figures, &names, arguments.pairs(), |at, _| {
        let (cpu, rate) = stage.once(at, records)?;
        Ok(vec![cpu, rate])
    })?;
    machine::unpin_load()?;
    Ok(vec![
        report
            .note("between two brokers of Towpath, both on core 0, mirror and load on core 1; records come while it mirrors")
            .note("CPU from the topic's creation to the last record at the target; throughput from the first record there on")
            .note("GB are of record values; a new topic for each run"),
    ])
}

impl Stage {
    /// Mirrors a topic of its own: CPU seconds for a GB, MB a second.
    fn once(&mut self, at: usize, records: u64) -> Result<(f64, f64)> {
        let mirror = self.mirrors.get_mut(at).context("no subject")?;
        self.topics += 1;
        let load = ProduceLoad {
            topic: format!("{}{}", mirror.prefix(), self.topics),
            partitions: PARTITIONS,
            records,
            value_bytes: VALUE_BYTES,
            batch_bytes: BATCH_BYTES,
            in_flight: IN_FLIGHT,
        };
        let meter = Meter::start(mirror.pid()?)?;
        self.source.create_topic(&load.topic, PARTITIONS)?;
        let records = produce(self.from.kafka_address(), &load)?;
        let there = format!("us.{}", load.topic);
        let (mut first, mut before, mut moved) = (None, 0, Instant::now());
        loop {
            // Nothing as long as there is no such topic.
            let count = self.target.records(&there, PARTITIONS);
            if count >= records {
                break;
            }
            if count > 0 && first.is_none() {
                first = Some((Instant::now(), count));
            }
            if count > before {
                (before, moved) = (count, Instant::now());
            }
            if moved.elapsed() > STALL.max(mirror_maker::START_WITHIN) {
                bail!("{} stands still at {count} of {records} records", mirror.name());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let spent = meter.spent()?;
        mirror.pid()?;
        let bytes = records as f64 * VALUE_BYTES as f64;
        let rate = match first {
            Some((begin, count)) if count < records => {
                (records - count) as f64 * VALUE_BYTES as f64 / 1e6 / begin.elapsed().as_secs_f64()
            }
            // All of it was there before anybody looked.
            _ => spent.rate(bytes / 1e6),
        };
        self.source.delete_topic(&load.topic)?;
        self.target.delete_topic(&there)?;
        Ok((spent.cpu_s_per(bytes / 1e9), rate))
    }
}
