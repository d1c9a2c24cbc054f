//! Whole suites of other people's clients. `.ci/run` runs a few cases of each against our broker; all of them:
//!
//! `TOWPATH_SUITE=java cargo test --release -p towpath-integration --test suites -- --ignored --nocapture`, or
//! `tests/soak/suite java`; `TOWPATH_SUITE_PEER=kafka` judges the suite itself, against Apache Kafka.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use towpath_harness::cluster::{self, Peer};
use towpath_harness::{Cluster, Kafka, Towpath, envs, kafka, paths, process};
use towpath_integration::suite::{self, Verdict, Which};

const SMOKE_TIMEOUT: Duration = Duration::from_secs(400);
const WHOLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A suite by its folder in `tests/interop`, the folder of its lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// Apache Kafka's Java client, with cases of our own.
    Java,
    /// Apache Kafka's command-line tools, with cases of our own.
    Tools,
    /// franz-go and sarama, with cases of our own.
    Go,
    /// franz-go's own tests.
    FranzGo,
    /// aiokafka's own tests, from its repository.
    Aiokafka,
    /// kafkajs's own specs, from its repository.
    Kafkajs,
    /// @platformatic/kafka's own tests, from its repository.
    Platformatic,
}

impl Suite {
    const ALL: [Self; 7] =
        [Self::Java, Self::Tools, Self::Go, Self::FranzGo, Self::Aiokafka, Self::Kafkajs, Self::Platformatic];

    fn name(self) -> &'static str {
        match self {
            Self::Java => "java",
            Self::Tools => "tools",
            Self::Go => "go",
            Self::FranzGo => "franz_go",
            Self::Aiokafka => "aiokafka_suite",
            Self::Kafkajs => "kafkajs_suite",
            Self::Platformatic => "platformatic_suite",
        }
    }

    /// The brokers' settings, as the suite's own environment has them.
    fn settings(self) -> Vec<(&'static str, &'static str)> {
        let partitions = match self {
            Self::Java | Self::Tools | Self::Go | Self::FranzGo => "4",
            Self::Aiokafka => "2",
            Self::Kafkajs | Self::Platformatic => "1",
        };
        let mut settings = vec![("num.partitions", partitions), ("group.min.session.timeout.ms", "1000")];
        if self == Self::Platformatic {
            settings.push(("group.consumer.min.heartbeat.interval.ms", "100"));
            settings.push(("group.consumer.heartbeat.interval.ms", "200"));
        }
        settings
    }

    fn folder(self) -> PathBuf {
        envs::interop().join(self.name())
    }

    /// The program, without the broker's address.
    fn command(self, sources: Option<&Path>, address: &str) -> Result<Command> {
        let script = |mut command: Command, more: &Path| {
            command.arg(self.folder().join("run.py")).arg(address).arg(more);
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        Ok(match self {
            Self::Java => java("client", address)?,
            Self::Tools => java("tools", address)?,
            Self::Go => {
                let mut command = Command::new(envs::go()?.join("suite"));
                command.arg(address);
                command
            }
            Self::FranzGo => script(Command::new(envs::python()?), &envs::go()?.join("kgo.test")),
            Self::Aiokafka | Self::Kafkajs | Self::Platformatic => {
                let sources = sources
                    .context("TOWPATH_SUITE_SOURCES has to name a clone of the client's repository")?;
                let mut command = script(Command::new(envs::python()?), sources);
                if self != Self::Aiokafka {
                    command.arg(envs::node()?.binary);
                }
                command
            }
        })
    }
}

fn java(what: &str, address: &str) -> Result<Command> {
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]);
    command.args([
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
        "-cp",
        &envs::java()?,
        "Suite",
        what,
        address,
    ]);
    Ok(command)
}

/// What the suites run against; ends with the value.
enum Server {
    Towpath(Towpath),
    Kafka(Kafka),
    Cluster(Box<Cluster>),
}

impl Server {
    fn start(peer: Peer, nodes: u8, suite: Suite) -> Result<Self> {
        Ok(match peer {
            _ if nodes > 1 => {
                let mut options = cluster::Options::three(peer);
                options.nodes = nodes;
                for (name, value) in suite.settings() {
                    options.settings.push((name.to_owned(), value.to_owned()));
                }
                options.settings.push(("transaction.state.log.min.isr".to_owned(), "2".to_owned()));
                Self::Cluster(Box::new(Cluster::start(options)?))
            }
            Peer::Towpath => {
                let mut options = process::Options::broker();
                options.node_yaml = "  more_data_dirs: [data-2]\n  settings:\n".to_owned();
                for (name, value) in suite.settings() {
                    options.node_yaml.push_str(&format!("    {name}: {value}\n"));
                }
                Self::Towpath(Towpath::start(options)?)
            }
            Peer::Kafka => {
                // As kafka-python's suite sets its brokers up; two directories for what moves replicas between them.
                let mut options = kafka::Options::default().heap_mib(768);
                for (name, value) in suite.settings() {
                    options = options.set(name, value);
                }
                let options = options.set("share.coordinator.state.topic.num.partitions", "4");
                Self::Kafka(Kafka::start(&kafka::Options { log_dirs: 2, ..options })?)
            }
        })
    }

    /// One address: some suites take no list.
    fn bootstrap(&self) -> String {
        match self {
            Self::Towpath(broker) => broker.bootstrap(),
            Self::Kafka(broker) => broker.bootstrap(),
            Self::Cluster(cluster) => cluster.bootstrap().split(',').next().unwrap_or_default().to_owned(),
        }
    }

    fn folder(&self) -> PathBuf {
        match self {
            Self::Towpath(broker) => broker.folder().to_owned(),
            Self::Kafka(broker) => broker.folder().to_owned(),
            Self::Cluster(cluster) => cluster.folder().path().to_owned(),
        }
    }

    fn log_tail(&self) -> String {
        match self {
            Self::Towpath(broker) => broker.log_tail(),
            Self::Kafka(broker) => broker.log_tail(),
            Self::Cluster(cluster) => cluster.log_tails(),
        }
    }
}

fn run(suite: Suite, which: Which, server: &Server, peer: Peer, sources: Option<&Path>) -> Result<Verdict> {
    let command = || {
        let mut command = suite.command(sources, &server.bootstrap())?;
        command.env("SUITE_DATA_DIR", server.folder()).env("SUITE_CACHE", paths::peers()?);
        Ok(command)
    };
    let timeout = if which == Which::Smoke { SMOKE_TIMEOUT } else { WHOLE_TIMEOUT };
    let verdict = suite::run(&suite.folder(), which, peer == Peer::Kafka, timeout, command)?;
    println!("{}:\n{verdict}", suite.name());
    Ok(verdict)
}

fn smoke(suite: Suite) {
    let server = Server::start(Peer::Towpath, 1, suite).unwrap();
    let verdict = run(suite, Which::Smoke, &server, Peer::Towpath, None).unwrap();
    assert!(verdict.broken.is_empty() && verdict.passed > 0, "{verdict}\n{}", server.log_tail());
}

#[test]
fn java_smoke() {
    smoke(Suite::Java);
}

#[test]
fn tools_smoke() {
    smoke(Suite::Tools);
}

#[test]
fn go_smoke() {
    smoke(Suite::Go);
}

#[test]
fn franz_go_smoke() {
    smoke(Suite::FranzGo);
}

/// Every list can be read.
#[test]
fn lists_are_sound() {
    for suite in Suite::ALL {
        suite::Lists::read(&suite.folder()).unwrap();
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// All cases of the suite that `TOWPATH_SUITE` names (several by commas) against `TOWPATH_SUITE_PEER` (`towpath` or
/// `kafka`) of `TOWPATH_SUITE_NODES` nodes. `TOWPATH_SUITE_CASES=required` leaves out those that need not pass.
#[test]
#[ignore = "takes minutes for each suite; see tests/soak"]
fn whole() {
    let names = variable("TOWPATH_SUITE").unwrap_or_else(|| "java,tools,go,franz_go".to_owned());
    let peer = match variable("TOWPATH_SUITE_PEER").as_deref() {
        None | Some("towpath") => Peer::Towpath,
        Some("kafka") => Peer::Kafka,
        Some(other) => panic!("TOWPATH_SUITE_PEER is {other}; it may be towpath or kafka"),
    };
    let nodes = variable("TOWPATH_SUITE_NODES").map_or(1, |text| text.parse().unwrap());
    let sources = variable("TOWPATH_SUITE_SOURCES").map(PathBuf::from);
    let which = match variable("TOWPATH_SUITE_CASES").as_deref() {
        Some("required") => Which::Required,
        _ => Which::All,
    };
    let mut broken = 0;
    for name in names.split(',') {
        let found = Suite::ALL.into_iter().find(|suite| suite.name() == name);
        let suite = found.with_context(|| format!("there is no suite {name}")).unwrap();
        let server = Server::start(peer, nodes, suite).unwrap();
        let verdict = run(suite, which, &server, peer, sources.as_deref()).unwrap();
        if !verdict.broken.is_empty() {
            println!("{}", server.log_tail());
        }
        broken += verdict.broken.len();
    }
    assert_eq!(broken, 0, "see above");
}
