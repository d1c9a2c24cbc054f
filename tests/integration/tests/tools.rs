//! Apache Kafka's own command-line tools against our broker, and its dump tool over the files that our broker has
//! written: what administrators have in their fingers works here.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use towpath_harness::{Towpath, kafka};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const GROUPS: &str = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";
const PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// One run of one tool; what it said, on both outputs.
fn run(broker: &Towpath, class: &str, arguments: &[&str]) -> String {
    let bootstrap = broker.bootstrap();
    let arguments = [&["--bootstrap-server", &bootstrap], arguments].concat();
    let output = kafka::tool(class, &arguments, Duration::from_secs(120)).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(
        output.status.success(),
        "{class} {arguments:?}: {}\n{said}\n{}",
        output.status,
        broker.log_tail()
    );
    // Some tools say what went wrong and end with 0 all the same.
    for complaint in ["Error", "Exception", "WARN"] {
        assert!(!said.contains(complaint), "{class} {arguments:?}\n{said}\n{}", broker.log_tail());
    }
    said
}

/// The words of the line that begins with these.
fn line<'a>(said: &'a str, begins: &[&str]) -> Vec<&'a str> {
    let lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found: Vec<_> = lines.filter(|words| words.starts_with(begins)).collect();
    assert_eq!(found.len(), 1, "one line with {begins:?} in\n{said}");
    found[0].clone()
}

#[test]
fn topics_and_their_configurations() {
    let broker = Towpath::broker().unwrap();
    let run = |class: &str, arguments: &[&str]| run(&broker, class, arguments);
    let config = ["--config", "retention.ms=3600000", "--config", "cleanup.policy=compact,delete"];
    let create = [&["--create", "--topic", "orders", "--partitions", "3"], &config[..]].concat();
    assert!(run(TOPICS, &create).contains("Created topic orders."));
    assert!(run(TOPICS, &["--list"]).lines().any(|line| line == "orders"));
    let described = run(TOPICS, &["--describe", "--topic", "orders"]);
    assert!(described.contains("PartitionCount: 3\tReplicationFactor: 1"), "{described}");
    assert!(described.contains("Configs: cleanup.policy=compact,delete,retention.ms=3600000"), "{described}");
    assert_eq!(described.matches("Leader: 1\tReplicas: 1\tIsr: 1").count(), 3, "{described}");
    run(TOPICS, &["--alter", "--topic", "orders", "--partitions", "5"]);
    assert_eq!(run(OFFSETS, &["--topic", "orders"]).lines().filter(|line| line.ends_with(":0")).count(), 5);

    let topic = ["--entity-type", "topics", "--entity-name", "orders"];
    let alter =
        [&["--alter", "--add-config", "retention.ms=7200000,segment.bytes=2000000"], &topic[..]].concat();
    assert!(run(CONFIGS, &alter).contains("Completed updating config for topic orders."));
    run(CONFIGS, &[&["--alter", "--delete-config", "cleanup.policy"], &topic[..]].concat());
    let described = run(CONFIGS, &[&["--describe"], &topic[..]].concat());
    assert!(!described.contains("cleanup.policy"), "{described}");
    assert!(
        described.contains(
            "retention.ms=7200000 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=7200000}"
        ),
        "{described}"
    );
    let all = run(CONFIGS, &[&["--describe", "--all"], &topic[..]].concat());
    assert!(all.matches("sensitive=false").count() > 30, "{all}");
    let brokers = ["--describe", "--all", "--entity-type", "brokers", "--entity-name", "1"];
    let described = run(CONFIGS, &brokers);
    assert!(described.contains("  socket.request.max.bytes=104857600 "), "{described}");
    run(TOPICS, &["--delete", "--topic", "orders"]);
    assert!(!run(TOPICS, &["--list"]).lines().any(|line| line == "orders"));
}

#[test]
fn groups_and_offsets() {
    let broker = Towpath::broker().unwrap();
    let run = |class: &str, arguments: &[&str]| run(&broker, class, arguments);
    run(TOPICS, &["--create", "--topic", "t", "--partitions", "1"]);
    let produced = run(PRODUCER, &["--topic", "t", "--max-messages", "20"]);
    assert!(produced.contains("\"sent\":20,\"acked\":20"), "{produced}");
    let consume = ["--topic", "t", "--group", "g", "--from-beginning", "--max-messages", "20"];
    assert!(run(CONSUMER, &consume).contains("Processed a total of 20 messages"));
    assert_eq!(line(&run(GROUPS, &["--list"]), &["g"]), ["g"]);
    assert_eq!(line(&run(GROUPS, &["--list", "--state"]), &["g"]), ["g", "Empty"]);
    let described = run(GROUPS, &["--describe", "--group", "g"]);
    assert_eq!(line(&described, &["g", "t", "0"])[3..6], ["20", "20", "0"], "{described}");
    let state = run(GROUPS, &["--describe", "--group", "g", "--state"]);
    assert_eq!(line(&state, &["g"])[1..], [&broker.bootstrap(), "(1)", "-", "Empty", "0"], "{state}");
    let reset = ["--reset-offsets", "--group", "g", "--topic", "t", "--shift-by", "-5", "--execute"];
    assert_eq!(line(&run(GROUPS, &reset), &["g", "t", "0"])[3], "15");
    let described = run(GROUPS, &["--describe", "--group", "g"]);
    assert_eq!(line(&described, &["g", "t", "0"])[3..6], ["15", "20", "5"], "{described}");
    let deleted = run(GROUPS, &["--delete-offsets", "--group", "g", "--topic", "t"]);
    assert_eq!(line(&deleted, &["t", "0"])[2], "Successful");
    let deleted = run(GROUPS, &["--delete", "--group", "g"]);
    assert!(deleted.contains("was successful"), "{deleted}");
    assert!(!run(GROUPS, &["--list"]).lines().any(|line| line.trim() == "g"));

    let json = broker.folder().join("delete.json");
    std::fs::write(&json, r#"{"version":1,"partitions":[{"topic":"t","partition":0,"offset":7}]}"#).unwrap();
    let delete = ["--offset-json-file", json.to_str().unwrap()];
    let deleted = run("org.apache.kafka.tools.DeleteRecordsCommand", &delete);
    assert!(deleted.contains("partition: t-0\tlow_watermark: 7"), "{deleted}");
    assert_eq!(run(OFFSETS, &["--topic", "t", "--time", "earliest"]).trim(), "t:0:7");
    assert_eq!(run(OFFSETS, &["--topic", "t", "--time", "latest"]).trim(), "t:0:20");
    let dirs = run("org.apache.kafka.tools.LogDirsCommand", &["--describe", "--topic-list", "t"]);
    assert!(dirs.contains(r#""partition":"t-0""#) && dirs.contains(r#""error":null"#), "{dirs}");
}

/// Files of a partition with this extension.
fn files(partition: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(partition).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

fn dump(arguments: &[&str], files: &[PathBuf]) -> String {
    let names: Vec<&str> = files.iter().map(|file| file.to_str().unwrap()).collect();
    let names = names.join(",");
    let arguments = [arguments, &["--files", &names]].concat();
    let class = "org.apache.kafka.tools.DumpLogSegments";
    let output = kafka::tool(class, &arguments, Duration::from_secs(120)).unwrap();
    assert!(output.status.success(), "{arguments:?}\n{}{}", output.stdout, output.stderr);
    output.stdout
}

/// The files of a broker that was killed, recovered and stopped, after clients of other people have used it: segments
/// and indexes, and the topic of the groups with Kafka's own decoder.
#[test]
fn kafkas_dump_tool_reads_what_the_broker_leaves_behind() {
    let mut broker = Towpath::broker().unwrap();
    let create = ["--create", "--topic", "t", "--partitions", "1", "--config", "segment.bytes=1048576"];
    run(&broker, TOPICS, &create);
    // The tool itself forbids retries, and with them idempotence.
    let config = broker.folder().join("producer.properties");
    std::fs::write(&config, "retries=100\nenable.idempotence=true\n").unwrap();
    let config = config.to_str().unwrap();
    let produce = ["--topic", "t", "--max-messages", "20000", "--command-config", config];
    let produced = run(&broker, PRODUCER, &produce);
    assert!(produced.contains("\"sent\":20000,\"acked\":20000"), "{produced}");
    broker.kill9().unwrap();
    broker.start_again().unwrap();
    let produced = run(&broker, PRODUCER, &produce);
    assert!(produced.contains("\"sent\":20000,\"acked\":20000"), "{produced}");
    let consume = ["--topic", "t", "--group", "g", "--from-beginning", "--max-messages", "40000"];
    assert!(run(&broker, CONSUMER, &consume).contains("Processed a total of 40000 messages"));
    broker.terminate(Duration::from_secs(30)).unwrap();

    let partition = broker.data_dir().join("t-0");
    let logs = files(&partition, "log");
    let said = dump(&["--deep-iteration"], &logs);
    assert!(!said.contains("isvalid: false"), "{said}");
    assert_eq!(said.matches("| offset: ").count(), 40_000, "every record is there once");
    let indexes = [files(&partition, "index"), files(&partition, "timeindex")].concat();
    assert_eq!(indexes.len(), 2 * logs.len());
    let checked = dump(&["--index-sanity-check"], &indexes);
    assert_eq!(checked.matches("passed sanity check").count(), indexes.len(), "{checked}");
    let verified = dump(&["--verify-index-only"], &indexes);
    for complaint in ["ismatch", "ut of order", "not found"] {
        assert!(!verified.contains(complaint), "{verified}");
    }
    let snapshots = dump(&[], &files(&partition, "snapshot"));
    assert!(snapshots.contains("producerId: "), "idempotent producers are remembered: {snapshots}");

    let entries = std::fs::read_dir(broker.data_dir()).unwrap().map(|entry| entry.unwrap().path());
    let is_offsets = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with("__consumer_offsets-"))
    };
    let offsets: Vec<_> = entries.filter(is_offsets).flat_map(|dir| files(&dir, "log")).collect();
    let said = dump(&["--offsets-decoder", "--print-data-log"], &offsets);
    assert!(said.contains(r#""group":"g","topic":"t","partition":0"#), "{said}");
    assert!(said.contains(r#""offset":40000"#), "{said}");
    assert!(said.contains(r#""protocolType":"consumer""#), "{said}");
}
