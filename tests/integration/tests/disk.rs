//! A full disk under the real binary: the segment of a topic is `/dev/full`, so that a write really ends in ENOSPC.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::time::Duration;

use towpath_harness::{Towpath, kafka};

/// Kafka's producer with few retries; what it said.
fn produce(broker: &Towpath, topic: &str) -> String {
    let config = broker.folder().join("producer.properties");
    std::fs::write(&config, "retries=2\ndelivery.timeout.ms=8000\nrequest.timeout.ms=4000\n").unwrap();
    let bootstrap = broker.bootstrap();
    let arguments = [
        "--bootstrap-server",
        &bootstrap,
        "--topic",
        topic,
        "--max-messages",
        "3",
        "--command-config",
        config.to_str().unwrap(),
    ];
    let class = "org.apache.kafka.tools.VerifiableProducer";
    let output = kafka::tool(class, &arguments, Duration::from_secs(120)).unwrap();
    format!("{}{}", output.stdout, output.stderr)
}

fn create(broker: &Towpath, topic: &str) -> (bool, String) {
    let bootstrap = broker.bootstrap();
    let arguments = ["--bootstrap-server", &bootstrap, "--create", "--topic", topic, "--partitions", "1"];
    let output =
        kafka::tool("org.apache.kafka.tools.TopicCommand", &arguments, Duration::from_secs(120)).unwrap();
    (output.status.success(), format!("{}{}", output.stdout, output.stderr))
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost() {
    let mut broker = Towpath::broker().unwrap();
    for topic in ["kept", "full"] {
        let (created, said) = create(&broker, topic);
        assert!(created, "{said}");
    }
    assert!(produce(&broker, "kept").contains("\"sent\":3,\"acked\":3"));
    broker.terminate(Duration::from_secs(30)).unwrap();
    let segment = broker.data_dir().join("full-0/00000000000000000000.log");
    std::fs::remove_file(&segment).unwrap();
    std::os::unix::fs::symlink("/dev/full", &segment).unwrap();
    broker.start_again().unwrap();

    let said = produce(&broker, "full");
    assert!(said.contains("\"acked\":0"), "{said}");
    assert!(said.contains("KafkaStorageException") || said.contains("TimeoutException"), "{said}");
    let health = broker.get("/health").unwrap();
    assert_eq!(health.status, 503, "{}", health.body);
    assert!(health.body.contains("No space left on device"), "R14: {}", health.body);
    // R14: all of the directory is offline, and says so.
    let said = produce(&broker, "kept");
    assert!(said.contains("\"acked\":0"), "{said}");
    let (created, said) = create(&broker, "new");
    assert!(!created && said.contains("offline"), "{said}");
    broker.terminate(Duration::from_secs(30)).ok();

    std::fs::remove_file(&segment).unwrap();
    std::fs::write(&segment, "").unwrap();
    broker.start_again().unwrap();
    assert_eq!(broker.get("/health").unwrap().status, 200);
    for (topic, expected) in [("kept", 3), ("full", 0)] {
        let offsets = kafka::tool(
            "org.apache.kafka.tools.GetOffsetShell",
            &["--bootstrap-server", &broker.bootstrap(), "--topic", topic],
            Duration::from_secs(120),
        )
        .unwrap();
        assert_eq!(offsets.stdout.trim(), format!("{topic}:0:{expected}"), "{}", broker.log_tail());
    }
    assert!(produce(&broker, "full").contains("\"sent\":3,\"acked\":3"));
}
