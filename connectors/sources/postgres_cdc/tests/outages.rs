//! Servers that are set up in their own ways, or that go away: one for each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

#[path = "capture/support.rs"]
#[allow(dead_code, reason = "each test binary uses its part of it")]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use support::Runner;
use towpath_api::ErrorKind;
use towpath_harness::Postgres;
use towpath_harness::postgres::Options;

async fn streaming(run: &mut Runner) {
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_of_the_server_are_survived() {
    let mut server = Postgres::start(&Options::logical()).unwrap();
    server.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (0)").unwrap();
    let mut run = Runner::with_url(&server.url("postgres"), "restart", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    streaming(&mut run).await;
    for round in 1..=4 {
        server.psql("postgres", &format!("INSERT INTO t VALUES ({round})")).unwrap();
        run.until("the row", |run| run.topic.len() > round).await;
        if round % 2 == 0 {
            server.kill9().unwrap();
        } else {
            // A fast shutdown waits until we have confirmed everything: it must not hang.
            let polling = async {
                loop {
                    if let Err(error) = run.poll().await {
                        return error;
                    }
                }
            };
            let (error, stopped) = tokio::join!(polling, async {
                tokio::task::spawn_blocking(move || {
                    let stopped = server.stop();
                    (server, stopped)
                })
                .await
                .unwrap()
            });
            assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "{error}");
            server = stopped.0;
            stopped.1.unwrap();
        }
        run.kill();
        assert!(matches!(run.open().await.unwrap_err().kind(), ErrorKind::RetryAfter(_)), "it is down");
        server.start_again().unwrap();
        run.open().await.unwrap();
    }
    server.psql("postgres", "INSERT INTO t VALUES (99)").unwrap();
    run.catch_up().await;
    assert_eq!(run.topic.len(), 6, "each row once");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_wal_level_and_full_slots_are_told() {
    let server = Postgres::start(&Options::replica().set("max_replication_slots", "1")).unwrap();
    server
        .psql(
            "postgres",
            "CREATE TABLE t (id int PRIMARY KEY); SELECT pg_create_physical_replication_slot('p')",
        )
        .unwrap();
    let mut run = Runner::with_url(&server.url("postgres"), "level", json!({"tables": ["t"]}));
    let problems = run.connector.check(&run.context).await.unwrap_err();
    let codes: Vec<_> = problems.iter().map(towpath_api::ConnectorError::code).collect();
    assert_eq!(codes, ["PG_WAL_LEVEL", "PG_SLOTS_FULL"]);
    assert!(problems[0].hint().unwrap().contains("ALTER SYSTEM SET wal_level = 'logical'"));
    run.open().await.unwrap();
    let error = loop {
        if let Err(error) = run.poll().await {
            break error;
        }
    };
    assert_eq!((error.code(), error.kind()), ("PG_WAL_LEVEL", ErrorKind::NeedsOperator));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_log_was_removed_stops_the_task() {
    let server = Postgres::start(
        &Options::logical()
            .without_fsync()
            .set("max_slot_wal_keep_size", "1MB")
            .set("max_wal_size", "32MB")
            .set("min_wal_size", "32MB"),
    )
    .unwrap();
    server.psql("postgres", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE noise (v text)").unwrap();
    let mut run = Runner::with_url(&server.url("postgres"), "lost", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    streaming(&mut run).await;
    run.close().await;
    for _ in 0..4 {
        server
            .psql("postgres", "INSERT INTO noise SELECT repeat('x', 1000) FROM generate_series(1, 25000)")
            .unwrap();
        server.psql("postgres", "SELECT pg_switch_wal(); CHECKPOINT").unwrap();
    }
    let error = run.open().await.unwrap_err();
    assert_eq!((error.code(), error.kind()), ("PG_SLOT_LOST", ErrorKind::Terminal), "{error}");
    assert!(error.hint().unwrap().contains("max_slot_wal_keep_size"));
}

/// What `openssl` says when it makes a certificate for `localhost`.
fn certificate(server: &Postgres) -> std::path::PathBuf {
    let data = server.data_dir();
    let (key, cert) = (data.join("server.key"), data.join("server.crt"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&data).unwrap());
    for file in [&key, &cert] {
        std::os::unix::fs::chown(file, Some(owner), None).unwrap();
    }
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    cert
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_password_tls_and_sockets_work_and_wrong_ones_are_refused() {
    let server = Postgres::start(&Options::logical().without_fsync()).unwrap();
    let cert = certificate(&server);
    server
        .psql(
            "postgres",
            "SET password_encryption = 'md5'; CREATE ROLE hashed SUPERUSER LOGIN PASSWORD 'p@ss:w/d'; \
             SET password_encryption = 'scram-sha-256'; CREATE ROLE salted SUPERUSER LOGIN PASSWORD 'p@ss:w/d'; \
             CREATE ROLE plain SUPERUSER LOGIN PASSWORD 'p@ss:w/d'; CREATE TABLE t (id int PRIMARY KEY)",
        )
        .unwrap();
    std::fs::write(
        server.data_dir().join("pg_hba.conf"),
        "local all postgres trust\nhost all postgres all trust\nhost all hashed all md5\n\
         hostssl all salted all scram-sha-256\nhost all plain all password\n",
    )
    .unwrap();
    server.psql("postgres", "ALTER SYSTEM SET ssl = on").unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()").unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let port = server.port();
    let url = |role: &str, password: &str, rest: &str| {
        format!("postgres://{role}:{password}@localhost:{port}/postgres{rest}")
    };
    let check = |url: String| async move {
        let run = Runner::with_url(&url, "auth", json!({"tables": ["t"]}));
        run.connector.check(&run.context).await.map_err(|problems| {
            assert!(
                !format!("{problems:?}").contains("p@ss") && !format!("{problems:?}").contains("wr0ng"),
                "R13"
            );
            problems[0].code()
        })
    };
    let good = "p%40ss%3Aw%2Fd";
    let ca = format!("?sslmode=verify-full&sslrootcert={}", cert.display());
    for (role, rest) in [
        ("hashed", "?sslmode=disable"),
        ("hashed", ""),
        ("plain", "?sslmode=require"),
        ("salted", "?sslmode=require"),
        ("salted", &ca),
        ("salted", &ca.replace("verify-full", "verify-ca")),
    ] {
        check(url(role, good, rest)).await.unwrap_or_else(|code| panic!("{role} {rest}: {code}"));
    }
    check(format!("postgres://postgres@/postgres?host={}&port={port}", server.socket_dir().display()))
        .await
        .unwrap();
    for role in ["hashed", "plain", "salted"] {
        assert_eq!(check(url(role, "wr0ng", "")).await, Err("PG_AUTH"), "{role}");
    }
    assert_eq!(check(url("salted", good, "?sslmode=disable")).await, Err("PG_AUTH"), "pg_hba wants TLS");
    assert_eq!(
        check(url("salted", good, "?sslmode=verify-full")).await,
        Err("PG_TLS"),
        "an unknown authority"
    );
    let by_address = url("salted", good, &ca).replace("localhost", "127.0.0.1");
    assert_eq!(check(by_address).await, Err("PG_TLS"), "the certificate is for another name");
    // And a whole capture over TLS.
    let mut run = Runner::with_url(&url("salted", good, &ca), "tls", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    streaming(&mut run).await;
    server.psql("postgres", "INSERT INTO t SELECT generate_series(1, 2000)").unwrap();
    run.catch_up().await;
    assert_eq!(run.topic.len(), 2000);
    run.close().await;
}
