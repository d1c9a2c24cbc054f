//! The harness itself against the real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::time::{Duration, Instant};

use towpath_harness::connect::{self, Connect};
use towpath_harness::peers::Plugin;
use towpath_harness::{Kafka, Postgres, Redis, envs, kafka, postgres};

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
fn redis_keeps_what_it_answered_over_a_kill() {
    let mut server = Redis::with_password("let me in").unwrap();
    assert_eq!(server.cli(&["SET", "a", "two words"]).unwrap(), "OK");
    server.kill9().unwrap();
    assert!(server.cli(&["GET", "a"]).is_err());
    server.start_again().unwrap();
    assert_eq!(server.cli(&["GET", "a"]).unwrap(), "two words");
    let error = server.cli(&["INCR", "a"]).unwrap_err();
    assert!(format!("{error:#}").contains("not an integer"), "{error:#}");
    assert_eq!(Redis::start().unwrap().cli(&["DBSIZE"]).unwrap(), "0");
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

/// The peer of the benches, whole: PostgreSQL → Debezium → Apache Kafka → Debezium's JDBC sink → PostgreSQL.
#[test]
#[ignore = "shows that the benches' peers work; fetches 100 MB of jars and takes a minute"]
fn debezium_copies_a_table() {
    let server = Postgres::start(&postgres::Options::logical()).unwrap();
    server.create_database("a").unwrap();
    server.create_database("b").unwrap();
    server
        .psql("a", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' || i FROM generate_series(1, 500) i")
        .unwrap();
    let broker = Kafka::start(&kafka::Options::default()).unwrap();
    let lines = |list: &[(&str, &str)]| {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>()
    };
    let port = server.port().to_string();
    let jdbc = format!("jdbc:postgresql://127.0.0.1:{port}/b");
    let source = lines(&[
        ("name", "capture"),
        ("connector.class", Plugin::DebeziumPostgres.class()),
        ("database.hostname", "127.0.0.1"),
        ("database.port", &port),
        ("database.user", "postgres"),
        ("database.dbname", "a"),
        ("plugin.name", "pgoutput"),
        ("topic.prefix", "shop"),
    ]);
    let sink = lines(&[
        ("name", "deliver"),
        ("connector.class", Plugin::DebeziumJdbc.class()),
        ("topics", "shop.public.t"),
        ("connection.url", &jdbc),
        ("connection.username", "postgres"),
        ("connection.password", ""),
        ("insert.mode", "upsert"),
        ("primary.key.mode", "record_key"),
        ("schema.evolution", "basic"),
        ("collection.name.format", "t"),
    ]);
    let mut worker = Connect::start(&connect::Options {
        bootstrap: broker.bootstrap(),
        heap_mib: 768,
        plugins: vec![Plugin::DebeziumPostgres, Plugin::DebeziumJdbc],
        worker: Vec::new(),
        connectors: vec![source, sink],
    })
    .unwrap();
    worker.wait_running("capture", Duration::from_secs(60)).unwrap();
    worker.wait_running("deliver", Duration::from_secs(60)).unwrap();
    server.psql("a", "UPDATE t SET v = 'changed' WHERE id <= 10; DELETE FROM t WHERE id > 490").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let sum = "SELECT count(*), sum(id), count(*) FILTER (WHERE v = 'changed') FROM t";
    loop {
        let (from, to) = (server.psql("a", sum).unwrap(), server.psql("b", sum));
        // Debezium's sink leaves deleted rows unless it is told otherwise: the changed ones have to be there.
        if to.as_ref().is_ok_and(|to| to.ends_with("|10") && to.starts_with("500|"))
            && from.starts_with("490|")
        {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{from} in the source, {to:?} in the target\n{}",
            worker.log_tail()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
