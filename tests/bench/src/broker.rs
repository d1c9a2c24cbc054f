//! The brokers under measurement: Towpath's (the whole binary, or the broker alone) and Apache Kafka.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use towpath_harness::{Guarded, Kafka, TempDir, Towpath, kafka, paths, peers, ports, process};

use crate::cli::{Arguments, Side};
use crate::machine;

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// A running broker.
#[derive(Debug)]
pub(crate) enum Broker {
    /// `towpath up` of a configuration without pipelines.
    Towpath(Box<Towpath>),
    /// The broker alone.
    Example(Box<Example>),
    /// Apache Kafka.
    Kafka(Box<Kafka>),
}

/// The example program of the broker's crate.
#[derive(Debug)]
pub(crate) struct Example {
    child: Option<Guarded>,
    address: SocketAddr,
    folder: TempDir,
}

impl Example {
    /// A folder and a port; nothing runs yet.
    pub(crate) fn prepare() -> Result<Self> {
        let address = (Ipv4Addr::LOCALHOST, ports::free_port()?).into();
        Ok(Self { child: None, address, folder: TempDir::new("broker")? })
    }

    /// Starts it and returns at once.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let binary = paths::profile_dir()?.join("examples/broker");
        if !binary.is_file() {
            bail!("run `cargo build --release -p towpath-broker --example broker` first");
        }
        let mut words = machine::server_prefix();
        words.push(binary.display().to_string());
        let (program, rest) = words.split_first().context("a command has words")?;
        let mut command = Command::new(program);
        command.args(rest).arg(self.folder.join("data")).arg(self.address.to_string());
        let log = self.folder.join("log");
        self.child = Some(Guarded::spawn("the broker example", command, &log, &log)?);
        Ok(())
    }

    /// Its listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        self.child.as_ref().map(Guarded::pid).context("the broker example was not started")
    }

    /// Stops it cleanly.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.signal(Signal::INT)?;
            child.wait(READY_TIMEOUT)?;
        }
        Ok(())
    }
}

/// How Apache Kafka is set up: its defaults with a heap of 1 GB, on core 0, deleting files soon.
pub(crate) fn kafka_options(pinned: bool) -> kafka::Options {
    let prefix = if pinned { machine::server_prefix() } else { Vec::new() };
    kafka::Options { prefix, ..kafka::Options::default() }
        .heap_mib(1024)
        .set("log.segment.delete.delay.ms", "1000")
}

/// The name of the peer in tables.
pub(crate) fn kafka_name() -> String {
    format!("Apache Kafka {}", peers::KAFKA_VERSION)
}

/// Waits until a broker answers a metadata request, asking often.
pub(crate) fn wait_metadata(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match kafka::brokers(address, Duration::from_secs(5)) {
            Ok(n) if n > 0 => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error),
            Ok(_) if Instant::now() >= deadline => bail!("{address} names no broker"),
            _ => std::thread::sleep(Duration::from_micros(500)),
        }
    }
}

impl Broker {
    /// Starts the brokers that take part, each on core 0: Towpath's first.
    pub(crate) fn start_all(arguments: &Arguments) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        if arguments.wants(Side::Towpath) {
            all.push(Self::towpath(arguments)?);
        }
        if arguments.wants(Side::Peer) {
            all.push(Self::Kafka(Box::new(Kafka::start(&kafka_options(true))?)));
        }
        if all.is_empty() {
            bail!("this workload has no floor");
        }
        Ok(all)
    }

    fn towpath(arguments: &Arguments) -> Result<Self> {
        if arguments.broker_example {
            let mut example = Example::prepare()?;
            example.spawn()?;
            wait_metadata(example.address())?;
            return Ok(Self::Example(Box::new(example)));
        }
        let options = process::Options { prefix: machine::server_prefix(), ..process::Options::broker() };
        Ok(Self::Towpath(Box::new(Towpath::start(options)?)))
    }

    /// Its name in tables.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Towpath(_) => "towpath".to_owned(),
            Self::Example(_) => "towpath (broker alone)".to_owned(),
            Self::Kafka(_) => kafka_name(),
        }
    }

    /// Whether it needs a long warm-up.
    pub(crate) fn on_jvm(&self) -> bool {
        matches!(self, Self::Kafka(_))
    }

    /// Its listener.
    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Towpath(towpath) => towpath.kafka_address(),
            Self::Example(example) => example.address(),
            Self::Kafka(kafka) => kafka.address(),
        }
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Result<u32> {
        match self {
            Self::Towpath(towpath) => towpath.pid().context("towpath does not run"),
            Self::Example(example) => example.pid(),
            Self::Kafka(kafka) => kafka.pid().context("Apache Kafka does not run"),
        }
    }

    /// Where its logs are.
    pub(crate) fn data_dir(&self) -> PathBuf {
        match self {
            Self::Towpath(towpath) => towpath.data_dir(),
            Self::Example(example) => example.folder.join("data"),
            Self::Kafka(kafka) => kafka.data_dir(),
        }
    }
}
