//! Other people's clients against our broker, one test each. The scripts are in `tests/interop/<client>`; each runs
//! its cases in order and ends with 1 at the first failure.
//!
//! `cargo test --release -p towpath-integration --test interop -- --ignored --nocapture` runs the same scripts against
//! a real Apache Kafka: what fails there is the script's fault, not ours.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "helpers of tests, which may")]

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use towpath_client::{Client, ClientConfig, NewTopic};
use towpath_harness::{Guarded, Kafka, Towpath, envs, kafka, process};
use towpath_types::TopicName;

const TIMEOUT: Duration = Duration::from_secs(300);

/// What the brokers have beyond the least, for the scripts' cases that want it: `transactions`, `groups` (KIP-848).
const BROKERS_HAVE: &str = "transactions,groups";

/// The brokers' settings as kafka-python's suite sets its own up.
const SUITE_SETTINGS: [(&str, &str); 2] = [("num.partitions", "4"), ("group.min.session.timeout.ms", "1000")];

/// The clients, by the folder of their script.
const CLIENTS: [&str; 7] = [
    "confluent_kafka",
    "kafka_python",
    "aiokafka",
    "kafkajs",
    "platformatic_kafka",
    "kcat",
    "kafka_python_suite",
];

fn command(client: &str) -> Result<Command> {
    let folder = envs::interop().join(client);
    let mut command = match client {
        "confluent_kafka" | "kafka_python" | "aiokafka" => {
            let mut command = Command::new(envs::python()?);
            command.arg(folder.join("interop.py"));
            command
        }
        "kafka_python_suite" => {
            let mut command = Command::new(envs::python()?);
            command.arg(folder.join("run.py"));
            command
        }
        "kafkajs" | "platformatic_kafka" => envs::node()?.script(&folder.join("interop.js")),
        "kcat" => Command::new(folder.join("interop.sh")),
        other => bail!("no such client: {other}"),
    };
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// A topic of four partitions: kcat makes none itself whose number of partitions it chooses.
fn topic_of_four(bootstrap: &str) -> Result<&'static str> {
    const NAME: &str = "kcat-group";
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let config =
            ClientConfig { bootstrap_servers: vec![bootstrap.to_owned()], ..ClientConfig::default() };
        let client = Client::connect(config).await?;
        let new = NewTopic { partitions: Some(4), ..NewTopic::new(TopicName::new(NAME)?) };
        let mut created = client.admin().create_topics(std::slice::from_ref(&new), false).await?;
        created.remove(&new.name).context("no answer about the topic")??;
        Ok(NAME)
    })
}

/// Runs a client's script; what it printed is shown either way.
fn run(client: &str, bootstrap: &str, has: &str) -> Result<()> {
    let mut command = command(client)?;
    command.env("INTEROP_WITH", has);
    if client == "kcat" {
        command.env("KCAT_TOPIC", topic_of_four(bootstrap)?);
    }
    command.arg(bootstrap);
    if client == "kafka_python_suite" {
        command.arg(envs::python_sdist("kafka-python")?);
    }
    let start = Instant::now();
    let output = Guarded::output(client, command, TIMEOUT)?;
    print!("{}", output.stdout);
    println!("{client}: {:.1} s", start.elapsed().as_secs_f64());
    if !output.status.success() {
        bail!("{client} ended with {}\n{}", output.status, output.stderr);
    }
    let all_passed = |line: &str| line.strip_suffix(" passed, 0 failed").is_some_and(|n| n.parse() != Ok(0));
    if !output.stdout.lines().any(all_passed) {
        bail!("{client} did not say how many cases passed\n{}", output.stderr);
    }
    Ok(())
}

/// For a client that sometimes stands still by itself on a busy machine: the third failure is ours.
fn against_towpath_patiently(client: &str) {
    for _ in 0..2 {
        let broker = Towpath::broker().unwrap();
        match run(client, &broker.bootstrap(), BROKERS_HAVE) {
            Ok(()) => return,
            Err(error) => {
                println!("{client} failed and is tried once more: {error:#}\n{}", broker.log_tail())
            }
        }
    }
    against_towpath(client);
}

fn against_towpath(client: &str) {
    against(&Towpath::broker().unwrap(), client);
}

fn against(broker: &Towpath, client: &str) {
    let result = run(client, &broker.bootstrap(), BROKERS_HAVE);
    if let Err(error) = result {
        panic!("{error:#}\n{}", broker.log_tail());
    }
}

#[test]
fn confluent_kafka() {
    against_towpath("confluent_kafka");
}

#[test]
fn kafka_python() {
    // Its 3.0.12 loses a wake-up between its own threads now and then: a member waits in `ensure_coordinator_ready` for ever,
    // with no request open at the broker, until its session is over.
    against_towpath_patiently("kafka_python");
}

#[test]
fn aiokafka() {
    against_towpath("aiokafka");
}

#[test]
fn kafkajs() {
    against_towpath("kafkajs");
}

#[test]
fn platformatic_kafka() {
    against_towpath("platformatic_kafka");
}

#[test]
fn kcat() {
    against_towpath("kcat");
}

#[test]
fn kafka_python_suite() {
    let mut options = process::Options::broker();
    options.node_yaml = "  more_data_dirs: [data-2]\n  settings:\n".to_owned();
    for (name, value) in SUITE_SETTINGS {
        options.node_yaml.push_str(&format!("    {name}: {value}\n"));
    }
    against(&Towpath::start(options).unwrap(), "kafka_python_suite");
}

/// Judges the scripts, not Towpath: all of them have to pass against the broker whose protocol it is.
#[test]
#[ignore = "judges the scripts, not Towpath"]
fn the_scripts_pass_against_apache_kafka() {
    let mut options = kafka::Options { log_dirs: 2, ..kafka::Options::default() };
    for (name, value) in SUITE_SETTINGS {
        options = options.set(name, value);
    }
    let server = Kafka::start(&options).unwrap();
    let mut failures = Vec::new();
    for client in CLIENTS {
        if let Err(error) = run(client, &server.bootstrap(), BROKERS_HAVE).context(client) {
            failures.push(format!("{error:#}"));
        }
    }
    assert!(failures.is_empty(), "{}\n{}", failures.join("\n"), server.log_tail());
}
