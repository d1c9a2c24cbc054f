//! Copies that run to their end.

use std::time::Duration;

use serde_json::json;
use towpath_api::Op;

use super::support::{Cell, Runner, database, expected, pairs, server};

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_load_and_the_stream_after_it_end_up_equal() {
    let db = database(
        "load",
        "CREATE TABLE t (id serial PRIMARY KEY, n int NOT NULL DEFAULT 0, pad text DEFAULT repeat('p', 150)); \
         INSERT INTO t (n) SELECT g FROM generate_series(1, 30000) g; \
         CREATE TABLE log (id serial, n int); INSERT INTO log (n) SELECT g FROM generate_series(1, 5000) g",
    );
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        script.path(),
        "\\set id random(1, 30000)\n\
         UPDATE t SET n = n + 1, pad = repeat('q', 100 + :id % 100) WHERE id = :id;\n\
         INSERT INTO t (n) VALUES (:id); DELETE FROM t WHERE id = (:id * 7) % 30000;\n\
         INSERT INTO log (n) VALUES (:id);\n",
    )
    .unwrap();
    let load = server().pgbench(&db.name, 2, 2, &["-f", script.path().to_str().unwrap()]).unwrap();
    let mut run = Runner::new(
        &db,
        "load",
        json!({"tables": ["t", "log"], "insert_only": ["log"], "snapshot_chunk_bytes": 262_144, "snapshot_connections": 3}),
    );
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    let result = load.wait(Duration::from_secs(60)).unwrap();
    assert!(result.whole && result.transactions > 50, "{}", result.text);
    run.catch_up().await;
    let rows = run.by_key("t");
    assert_eq!(pairs(rows.values(), "id", "n"), sorted(expected(&db, "SELECT id, n FROM t")));
    assert_eq!(pairs(rows.values(), "id", "pad"), sorted(expected(&db, "SELECT id, pad FROM t")));
    assert_eq!(pairs(&run.as_bag("log"), "id", "n"), sorted(expected(&db, "SELECT id, n FROM log")));
    let read = run.of_table("t").iter().filter(|record| record.op == Op::Read).count();
    assert!(read > 25_000, "the copy took part: {read}");
    let lanes: std::collections::BTreeSet<u64> = run.of_table("t").iter().map(|record| record.lane).collect();
    assert!(lanes.len() > 10, "chunks have lanes of their own: {}", lanes.len());
    run.close().await;
}

fn sorted(mut rows: Vec<(String, String)>) -> Vec<(String, String)> {
    rows.sort();
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_copy_ends_and_leaves_nothing_behind() {
    let db = database(
        "only",
        "CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 1000); \
         CREATE TABLE none (id int PRIMARY KEY); CREATE TABLE bare (); INSERT INTO bare DEFAULT VALUES; \
         CREATE TABLE view_base (n int); CREATE VIEW v AS SELECT 1 AS n; CREATE UNLOGGED TABLE u (n int)",
    );
    let options = json!({
        "tables": ["public.*"], "exclude_tables": ["view_*"], "insert_only": ["bare"], "snapshot": "only",
    });
    let mut run = Runner::new(&db, "only", options);
    run.open().await.unwrap();
    while run.poll().await.unwrap() {}
    assert_eq!(
        (run.of_table("t").len(), run.of_table("bare").len(), run.of_table("none").len()),
        (1000, 1, 0)
    );
    let record = run.of_table("t")[0].clone();
    assert_eq!((record.op, &record.source["snapshot"]), (Op::Read, &Cell::Value("true".into())));
    assert_eq!(record.position, [0, 0, 0, 0, 0, 1], "block and tuple");
    run.close().await;
    assert_eq!(db.sql("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'towpath_only%'"), "0");
    assert_eq!(db.sql("SELECT count(*) FROM pg_publication"), "0");
    // Started again, it has nothing left to do.
    let before = run.topic.len();
    run.open().await.unwrap();
    while run.poll().await.unwrap() {}
    assert_eq!(run.topic.len(), before);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_carried_is_rejected_and_stalls_nothing() {
    let db = database(
        "poison",
        "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'good'), (2, repeat('x', 70000000)), (3, 'good')",
    );
    let mut run = Runner::new(&db, "poison", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("UPDATE t SET v = repeat('y', 70000000) WHERE id = 3; UPDATE t SET v = 'better' WHERE id = 1");
    run.catch_up().await;
    assert_eq!((run.rejected, run.ops("t").as_str()), (2, "rru"));
    run.close().await;
}
