//! The harness itself against the real servers.

use std::time::Duration;

use towpath_harness::{Kafka, Postgres, envs, kafka, postgres};

#[test]
fn postgres_survives_restart_and_kill() {
    let mut server = Postgres::start(&postgres::Options::logical().set("work_mem", "5MB")).unwrap();
    server.create_database("Odd \"name\"").unwrap();
    assert_eq!(server.psql("Odd \"name\"", "SHOW work_mem").unwrap(), "5MB");
    assert_eq!(server.psql("postgres", "SHOW wal_level").unwrap(), "logical");
    server.psql("postgres", "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1)").unwrap();
    server.restart().unwrap();
    server.psql("postgres", "INSERT INTO t VALUES (2)").unwrap();
    server.kill9().unwrap();
    assert!(server.psql("postgres", "SELECT 1").is_err());
    server.start_again().unwrap();
    assert_eq!(server.psql("postgres", "SELECT a FROM t ORDER BY a").unwrap(), "1\n2");
    let error = server.psql("postgres", "SELECT nothing").unwrap_err();
    assert!(format!("{error:#}").contains("does not exist"), "{error:#}");
    server.psql("postgres", "CREATE ROLE reader LOGIN").unwrap();
    assert!(server.url_as("reader", "postgres").starts_with("postgres://reader@127.0.0.1:"));
}

#[test]
fn pgbench_runs_in_the_background() {
    let server = Postgres::start(&postgres::Options::logical().without_fsync()).unwrap();
    server.create_database("bench").unwrap();
    server.pgbench_init("bench", 1).unwrap();
    let mut load = server.pgbench("bench", 2, 2, &[]).unwrap();
    assert!(load.is_running().unwrap());
    let result = load.wait(Duration::from_secs(60)).unwrap();
    assert!(result.whole && result.transactions > 0, "{}", result.text);
    let rows: u64 = server.psql("bench", "SELECT count(*) FROM pgbench_history").unwrap().parse().unwrap();
    assert_eq!(rows, result.transactions);
}

#[test]
fn a_server_that_cannot_start_shows_its_log() {
    let error = Postgres::start(&postgres::Options::logical().set("shared_buffers", "lots")).unwrap_err();
    assert!(format!("{error:#}").contains("shared_buffers"), "{error:#}");
}

#[test]
fn kafka_keeps_its_topics_over_a_kill() {
    let mut server = Kafka::start(&kafka::Options::default()).unwrap();
    let bootstrap = server.bootstrap();
    let topics = "org.apache.kafka.tools.TopicCommand";
    let timeout = Duration::from_secs(60);
    let made = kafka::tool(
        topics,
        &["--bootstrap-server", &bootstrap, "--create", "--topic", "kept", "--partitions", "3"],
        timeout,
    )
    .unwrap();
    assert!(made.status.success(), "{}{}", made.stdout, made.stderr);
    server.kill9().unwrap();
    assert!(kafka::brokers(server.address(), Duration::from_secs(1)).is_err());
    server.start_again().unwrap();
    let listed = kafka::tool(topics, &["--bootstrap-server", &bootstrap, "--list"], timeout).unwrap();
    assert!(listed.stdout.lines().any(|line| line == "kept"), "{}{}", listed.stdout, listed.stderr);
}

#[test]
fn the_environments_of_other_clients_can_be_made() {
    assert!(envs::python().unwrap().is_file());
    assert!(envs::node().unwrap().modules.join("kafkajs").is_dir());
    assert!(envs::java().unwrap().contains("classes"));
}
