//! Whether what is stored makes anything dearer: the same work on a small log and on a large one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use towpath_harness::{Guarded, Towpath, process};
use towpath_wire::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};

use super::produce::{BATCH_BYTES, IN_FLIGHT};
use crate::admin::Admin;
use crate::broker::wait_metadata;
use crate::cli::{Arguments, Side};
use crate::load::{ConsumeLoad, Link, ProduceLoad, consume_from, fill, produce_from};
use crate::machine;
use crate::meter::Meter;
use crate::report::{Report, lower, say};

const TOPIC: &str = "stored";
const VALUE_BYTES: usize = 1024;
/// Records of one run, and look-ups.
const RECORDS: u64 = 100_000;
const LOOKUPS: u64 = 500;
/// How often what was produced is read: once takes too little time to be told from chance.
const READS: u64 = 10;
const TIMEOUT: Duration = Duration::from_secs(120);
/// As elsewhere in this program.
const LIST_OFFSETS_VERSION: i16 = 5;
const LATEST: i64 = -1;
/// How much is written before the holes of what is closed are given back to the disk.
const STEP_BYTES: u64 = 1 << 30;

/// The workload.
pub(crate) fn stored(arguments: &Arguments) -> Result<Vec<Report>> {
    if !arguments.wants(Side::Towpath) {
        bail!("this workload compares Towpath with itself");
    }
    let gigabytes: [u64; 2] = if arguments.quick { [1, 3] } else { [1, 50] };
    machine::pin_load()?;
    let mut brokers = gigabytes.into_iter().map(Filled::start).collect::<Result<Vec<_>>>()?;
    let names = gigabytes.map(|size| format!("{size} GB stored"));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let figures = [
        lower("produce, broker CPU", "s/GB"),
        lower("fetch what was just produced, broker CPU", "s/GB"),
        lower("look-up by time, median", "µs"),
        lower("look-up by time, broker CPU", "µs"),
        lower("clean stop", "ms"),
        lower("ready after it", "ms"),
    ];
    let title = "the same work with little and with much stored".to_owned();
    let report = Report::measure(title, &figures, &names, arguments.pairs(), |subject, pair| {
        brokers.get_mut(subject).context("no subject")?.run(pair as u64)
    })?;
    machine::unpin_load()?;
    Ok(vec![
        report
            .note("the second column over the first is the last one: 1.2 at most is what we hold ourselves to")
            .note(format!(
                "one partition with its defaults; filled through the broker with records of zeros, whose pages are given \
                 back to the disk as holes when a segment is closed; then {RECORDS} records of {VALUE_BYTES} B, read back {READS} times, \
                 and {LOOKUPS} look-ups at times spread over the whole log, \
                 each once before it counts"
            ))
            .note("durability: page cache; broker on core 0, load on core 1"),
    ])
}

/// A broker whose topic was filled.
struct Filled {
    towpath: Box<Towpath>,
    admin: Admin,
    /// When the first and the last record were written (ms).
    times: (i64, i64),
    end: i64,
}

fn now_ms() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

impl Filled {
    fn start(gigabytes: u64) -> Result<Self> {
        say(&format!("filling a log with {gigabytes} GB"));
        let options = process::Options { prefix: machine::server_prefix(), ..process::Options::broker() };
        let towpath = Box::new(Towpath::start(options)?);
        let admin = Admin::connect(towpath.kafka_address())?;
        admin.create_topic(TOPIC, 1)?;
        let mut filled = Self { towpath, admin, times: (now_ms()?, 0), end: 0 };
        let mut sparse = BTreeSet::new();
        let mut left = gigabytes * 1_000_000_000;
        while left > 0 {
            let step = left.min(STEP_BYTES);
            filled.end = fill(filled.address(), TOPIC, step, filled.end)?;
            filled.dig_holes(&mut sparse)?;
            left -= step;
        }
        filled.times.1 = now_ms()?;
        Ok(filled)
    }

    fn address(&self) -> SocketAddr {
        self.towpath.kafka_address()
    }

    /// Gives the pages of zeros in closed segments back to the disk; what is read from there stays the same.
    fn dig_holes(&self, done: &mut BTreeSet<PathBuf>) -> Result<()> {
        let mut segments = machine::segments(&self.towpath.data_dir())?;
        segments.retain(|path| path.to_string_lossy().contains(&format!("/{TOPIC}-0/")));
        segments.sort();
        segments.pop();
        for path in segments {
            if done.contains(&path) {
                continue;
            }
            let mut fallocate = Command::new("fallocate");
            fallocate.arg("--dig-holes").arg(&path);
            Guarded::run("fallocate", fallocate, TIMEOUT)?;
            done.insert(path);
        }
        Ok(())
    }

    fn run(&mut self, seed: u64) -> Result<Vec<f64>> {
        let load = ProduceLoad {
            topic: TOPIC.to_owned(),
            partitions: 1,
            records: RECORDS,
            value_bytes: VALUE_BYTES,
            batch_bytes: BATCH_BYTES,
            in_flight: IN_FLIGHT,
        };
        let pid = self.towpath.pid().context("towpath does not run")?;
        machine::warm_page_cache(RECORDS * (VALUE_BYTES as u64 + 16))?;
        let meter = Meter::start(pid)?;
        let records = produce_from(self.address(), &load, &[0], self.end)?;
        let gb = records as f64 * VALUE_BYTES as f64 / 1e9;
        let mut figures = vec![meter.spent()?.cpu_s_per(gb)];
        let from = self.end;
        self.end += i64::try_from(records)?;
        let meter = Meter::start(pid)?;
        for _ in 0..READS {
            consume_from(self.address(), &ConsumeLoad { topic: TOPIC.to_owned(), records }, from)?;
        }
        figures.push(meter.spent()?.cpu_s_per(gb * READS as f64));
        // The pages that they read are in the page cache then, as those of the small log are anyhow.
        self.look_up(seed)?;
        let meter = Meter::start(pid)?;
        let median = self.look_up(seed)?;
        figures.extend([median, meter.spent()?.cpu_us_per(LOOKUPS as f64)]);
        figures.extend(self.restart()?);
        Ok(figures)
    }

    /// Offsets of times all over the log; gives the median time in µs.
    fn look_up(&self, seed: u64) -> Result<f64> {
        let mut link = Link::connect(self.address(), 16 << 10)?;
        let (first, last) = self.times;
        let mut taken = Vec::new();
        for number in 0..LOOKUPS {
            // Spread evenly, and other ones in every run.
            let part = (number * 7 + seed) % LOOKUPS;
            let timestamp = first + (last - first) * i64::try_from(part)? / i64::try_from(LOOKUPS)?;
            let begin = Instant::now();
            let offset = offset_at(&mut link, timestamp)?;
            taken.push(begin.elapsed().as_secs_f64() * 1e6);
            if offset < 0 || offset >= self.end {
                bail!("the first record at or after {timestamp} is said to be at {offset}");
            }
        }
        taken.sort_by(f64::total_cmp);
        taken.get(taken.len() / 2).copied().context("no look-ups")
    }

    fn restart(&mut self) -> Result<[f64; 2]> {
        let begin = Instant::now();
        let status = self.towpath.terminate(TIMEOUT)?;
        if !status.success() {
            bail!("towpath ended with {status}");
        }
        let stop = begin.elapsed().as_secs_f64() * 1e3;
        let begin = Instant::now();
        self.towpath.spawn()?;
        wait_metadata(self.address())?;
        let mut link = Link::connect(self.address(), 16 << 10)?;
        let end = offset_at(&mut link, LATEST)?;
        let ready = begin.elapsed().as_secs_f64() * 1e3;
        if end != self.end {
            bail!("the log ends at {end} after a restart, and ended at {} before", self.end);
        }
        self.admin = Admin::connect(self.address())?;
        self.admin.verify_records(TOPIC, 1, u64::try_from(end)?)?;
        Ok([stop, ready])
    }
}

fn offset_at(link: &mut Link, timestamp: i64) -> Result<i64> {
    let partition = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp };
    let topics = vec![ListOffsetsTopic { name: TOPIC.to_owned(), partitions: vec![partition] }];
    let request = ListOffsetsRequest { replica_id: -1, isolation_level: 0, topics, timeout_ms: 0 };
    let response = link.ask(&request, LIST_OFFSETS_VERSION)?;
    let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let answer = answer.context("an answer without the partition")?;
    if answer.error_code != 0 {
        bail!("ListOffsets failed with error {}", answer.error_code);
    }
    Ok(answer.offset)
}
