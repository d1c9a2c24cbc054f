//! Apache Kafka's own command-line tools against three nodes of ours: what administrators of clusters have in their
//! fingers works here, through any node.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use towpath_harness::TempDir;
use towpath_harness::cluster::{Cluster, Options, Peer};
use towpath_harness::kafka;

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const REASSIGN: &str = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand";
const ELECTION: &str = "org.apache.kafka.tools.LeaderElectionCommand";
const QUORUM: &str = "org.apache.kafka.tools.MetadataQuorumCommand";
const LOG_DIRS: &str = "org.apache.kafka.tools.LogDirsCommand";
const CLUSTER: &str = "org.apache.kafka.tools.ClusterTool";
const PRODUCER: &str = "org.apache.kafka.tools.VerifiableProducer";
const CONSUMER: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

/// One run of one tool through one node; what it said, on both outputs.
fn run(cluster: &Cluster, node: u8, class: &str, arguments: &[&str]) -> String {
    run_command(cluster, node, class, &[], arguments)
}

/// The same with words before the bootstrap server, as some tools want their command.
fn run_command(cluster: &Cluster, node: u8, class: &str, command: &[&str], rest: &[&str]) -> String {
    let bootstrap = cluster.node(node).unwrap().kafka_address().to_string();
    let arguments = [command, &["--bootstrap-server", &bootstrap], rest].concat();
    let output = kafka::tool(class, &arguments, Duration::from_secs(120)).unwrap();
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(
        output.status.success(),
        "{class} {arguments:?}: {}\n{said}\n{}",
        output.status,
        cluster.log_tails()
    );
    said
}

fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(seen) = is_so() {
        assert!(Instant::now() < deadline, "{what}: {seen}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn reassignments_elections_and_the_quorum() {
    let mut cluster = Cluster::start(Options::three(Peer::Towpath)).unwrap();
    let folder = TempDir::new("tools").unwrap();
    run(&cluster, 2, TOPICS, &["--create", "--topic", "t", "--replica-assignment", "1:2,2:1"]);
    let produced = run(&cluster, 3, PRODUCER, &["--topic", "t", "--max-messages", "50"]);
    assert!(produced.contains("\"sent\":50,\"acked\":50"), "{produced}");

    let status = run(&cluster, 1, QUORUM, &["describe", "--status"]);
    for voter in ["\"id\": 1", "\"id\": 2", "\"id\": 3"] {
        assert!(status.contains(voter), "{status}");
    }
    let replication = run(&cluster, 2, QUORUM, &["describe", "--replication"]);
    assert_eq!(replication.matches("Follower").count(), 2, "{replication}");

    let plan = folder.join("plan.json");
    std::fs::write(
        &plan,
        r#"{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[3,2]},{"topic":"t","partition":1,"replicas":[3,1]}]}"#,
    )
    .unwrap();
    let plan = plan.to_str().unwrap();
    let begun = run(&cluster, 3, REASSIGN, &["--reassignment-json-file", plan, "--execute"]);
    assert!(begun.contains("Successfully started partition reassignments"), "{begun}");
    until("the reassignment is complete", || {
        let said = run(
            &cluster,
            1,
            REASSIGN,
            &["--reassignment-json-file", plan, "--verify", "--preserve-throttles"],
        );
        if said.matches("is completed").count() == 2 { Ok(()) } else { Err(said) }
    });
    assert!(run(&cluster, 2, REASSIGN, &["--list"]).contains("No partition reassignments found"));
    let described = run(&cluster, 1, TOPICS, &["--describe", "--topic", "t"]);
    assert!(described.contains("Replicas: 3,2") && described.contains("Replicas: 3,1"), "{described}");

    // What was written is where it was moved to.
    let consume = ["--topic", "t", "--from-beginning", "--max-messages", "50", "--timeout-ms", "60000"];
    assert!(run(&cluster, 2, CONSUMER, &consume).contains("Processed a total of 50 messages"));
    let dirs = run(&cluster, 1, LOG_DIRS, &["--describe", "--broker-list", "3", "--topic-list", "t"]);
    assert!(dirs.contains("\"partition\":\"t-0\"") && dirs.contains("\"partition\":\"t-1\""), "{dirs}");

    // The preferred leaders lead again after they were away.
    cluster.node_mut(3).unwrap().restart().unwrap();
    cluster.wait_whole(Duration::from_secs(60)).unwrap();
    run(&cluster, 1, ELECTION, &["--election-type", "PREFERRED", "--all-topic-partitions"]);
    until("the preferred leaders lead", || {
        let said = run(&cluster, 2, TOPICS, &["--describe", "--topic", "t"]);
        if said.matches("Leader: 3").count() == 2 { Ok(()) } else { Err(said) }
    });

    assert!(run_command(&cluster, 1, CLUSTER, &["cluster-id"], &[]).contains("Cluster ID: "));
}
