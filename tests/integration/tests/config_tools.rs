//! `kafka-configs.sh` and `kafka-log-dirs.sh` of Apache Kafka against a broker with two data directories: what
//! administrators type when they change brokers that run, or look where replicas are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use towpath_harness::process::Options;
use towpath_harness::{Towpath, kafka};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";

/// One run of one tool; whether it went well, and what it said on both outputs.
fn try_run(broker: &Towpath, class: &str, arguments: &[&str]) -> (bool, String) {
    let bootstrap = broker.bootstrap();
    let arguments = [&["--bootstrap-server", &bootstrap], arguments].concat();
    let output = kafka::tool(class, &arguments, Duration::from_secs(120)).unwrap();
    (output.status.success(), format!("{}{}", output.stdout, output.stderr))
}

fn run(broker: &Towpath, class: &str, arguments: &[&str]) -> String {
    let (is_well, said) = try_run(broker, class, arguments);
    assert!(is_well && !said.contains("Exception"), "{class} {arguments:?}\n{said}\n{}", broker.log_tail());
    said
}

#[test]
fn brokers_change_while_they_run() {
    let broker = Towpath::broker().unwrap();
    let run = |arguments: &[&str]| run(&broker, CONFIGS, arguments);
    let one = ["--entity-type", "brokers", "--entity-name", "1"];
    let all = ["--entity-type", "brokers", "--entity-default"];
    let add =
        ["--alter", "--add-config", "log.retention.ms=7200000,follower.replication.throttled.rate=1000"];
    assert!(run(&[&add[..], &all].concat()).contains("Completed updating default config for brokers"));
    let add = ["--alter", "--add-config", "log.retention.ms=3600000"];
    assert!(run(&[&add[..], &one].concat()).contains("Completed updating config for broker 1."));
    let described = run(&[&["--describe"], &all[..]].concat());
    assert!(
        described.contains(
            "log.retention.ms=7200000 sensitive=false synonyms={DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7200000}"
        ),
        "{described}"
    );
    let described = run(&[&["--describe"], &one[..]].concat());
    assert!(
        described.contains(
            "log.retention.ms=3600000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:log.retention.ms=3600000, \
             DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=7200000, DEFAULT_CONFIG:log.retention.hours=168}"
        ),
        "{described}"
    );
    // What is set for all brokers is shown with all of a broker's.
    let described = run(&[&["--describe", "--all"], &one[..]].concat());
    assert!(described.contains("  follower.replication.throttled.rate=1000 sensitive=false"), "{described}");
    // Topics follow, and say so.
    self::run(&broker, TOPICS, &["--create", "--topic", "t", "--partitions", "1"]);
    let topic = ["--entity-type", "topics", "--entity-name", "t"];
    let described = run(&[&["--describe", "--all"], &topic[..]].concat());
    assert!(
        described.contains("  retention.ms=3600000 sensitive=false synonyms={DYNAMIC_BROKER_CONFIG:"),
        "{described}"
    );
    let delete = ["--alter", "--delete-config", "log.retention.ms"];
    run(&[&delete[..], &one].concat());
    let described = run(&[&["--describe", "--all"], &topic[..]].concat());
    assert!(described.contains("  retention.ms=7200000 sensitive=false"), "{described}");
    // What means nothing here is refused with words.
    let add = ["--alter", "--add-config", "background.threads=20"];
    let (is_well, said) = try_run(&broker, CONFIGS, &[&add[..], &all].concat());
    assert!(!is_well || said.contains("Error"), "{said}");
    assert!(said.contains("background.threads"), "{said}");
}

#[test]
fn groups_have_configurations_and_client_metrics_are_refused() {
    let broker = Towpath::broker().unwrap();
    let group = ["--entity-type", "groups", "--entity-name", "g"];
    let add = ["--alter", "--add-config", "consumer.session.timeout.ms=50000"];
    let said = run(&broker, CONFIGS, &[&add[..], &group].concat());
    assert!(said.contains("Completed updating config for group g."), "{said}");
    let described = run(&broker, CONFIGS, &[&["--describe"], &group[..]].concat());
    assert!(
        described
            .contains("consumer.session.timeout.ms=50000 sensitive=false synonyms={DYNAMIC_GROUP_CONFIG:"),
        "{described}"
    );
    let add = ["--alter", "--add-config", "consumer.session.timeout.ms=1"];
    let (is_well, said) = try_run(&broker, CONFIGS, &[&add[..], &group].concat());
    assert!(!is_well || said.contains("Error"), "{said}");
    let metrics = ["--entity-type", "client-metrics", "--entity-name", "m"];
    let add = ["--alter", "--add-config", "interval.ms=1000"];
    let (is_well, said) = try_run(&broker, CONFIGS, &[&add[..], &metrics].concat());
    assert!(!is_well || said.contains("Error"), "{said}");
    assert!(said.contains("takes no metrics from"), "{said}");
}

#[test]
fn replicas_are_found_and_moved_between_directories() {
    // Beside the file, in the folder that the process runs in.
    let node_yaml = "  more_data_dirs: [./second-disk]\n".to_owned();
    let broker = Towpath::start(Options { node_yaml, ..Options::broker() }).unwrap();
    run(&broker, TOPICS, &["--create", "--topic", "t", "--partitions", "1"]);
    let produced = run(&broker, PRODUCER, &["--topic", "t", "--max-messages", "1000"]);
    assert!(produced.contains("\"sent\":1000,\"acked\":1000"), "{produced}");
    // One line for each directory, with the partition in one of them.
    let place = || {
        let said = run(&broker, LOG_DIRS, &["--describe", "--topic-list", "t"]);
        let told = said.lines().find(|line| line.starts_with('{')).unwrap();
        let told: serde_json::Value = serde_json::from_str(told).unwrap();
        let dirs = told["brokers"][0]["logDirs"].as_array().unwrap().clone();
        assert_eq!(dirs.len(), 2, "{said}");
        let has = |dir: &&serde_json::Value| {
            dir["partitions"].as_array().unwrap().iter().any(|it| it["isFuture"] == serde_json::json!(false))
        };
        let there: Vec<_> =
            dirs.iter().filter(has).map(|dir| dir["logDir"].as_str().unwrap().to_owned()).collect();
        assert_eq!(there.len(), 1, "{said}");
        let other = dirs.iter().map(|dir| dir["logDir"].as_str().unwrap()).find(|dir| *dir != there[0]);
        (there[0].clone(), other.unwrap().to_owned())
    };
    let (from, to) = place();
    let plan = broker.folder().join("plan.json");
    let text = serde_json::json!({ "version": 1, "partitions": [
        { "topic": "t", "partition": 0, "replicas": [1], "log_dirs": [to] }
    ] });
    std::fs::write(&plan, text.to_string()).unwrap();
    let plan = plan.to_str().unwrap();
    let said = run(&broker, REASSIGN, &["--reassignment-json-file", plan, "--execute"]);
    assert!(said.contains("Successfully started moving log directory to"), "{said}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while place().0 == from {
        assert!(Instant::now() < deadline, "it does not move");
    }
    let said = run(&broker, REASSIGN, &["--reassignment-json-file", plan, "--verify"]);
    assert!(said.contains("completed successfully"), "{said}");
    let produced = run(&broker, PRODUCER, &["--topic", "t", "--max-messages", "10"]);
    assert!(produced.contains("\"sent\":10,\"acked\":10"), "{produced}");
}
