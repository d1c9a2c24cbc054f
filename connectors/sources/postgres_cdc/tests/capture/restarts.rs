//! Crashes at every stage, and what is lost upstream meanwhile.

use std::time::{Duration, Instant};

use serde_json::json;
use towpath_api::{ConnectorError, ErrorKind};
use towpath_harness::child::Guarded;

use super::support::{Database, Runner, database, expected, pairs, server};

fn sorted(mut rows: Vec<(String, String)>) -> Vec<(String, String)> {
    rows.sort();
    rows
}

fn assert_equal(run: &Runner, db: &Database, keyed: &[&str], bags: &[&str]) {
    for table in keyed {
        let rows = run.by_key(table);
        let wanted = sorted(expected(db, &format!("SELECT id, coalesce(md5(v), '') FROM {table}")));
        let hashed = sorted(
            pairs(rows.values(), "id", "v").into_iter().map(|(id, v)| (id, md5(&v))).collect::<Vec<_>>(),
        );
        assert_eq!(hashed.len(), wanted.len(), "{table}: number of rows");
        assert_eq!(hashed, wanted, "{table}");
    }
    for table in bags {
        let rows = run.as_bag(table);
        let found: Vec<_> = pairs(&rows, "id", "v").into_iter().map(|(id, v)| (id, md5(&v))).collect();
        let wanted = expected(db, &format!("SELECT id, md5(v) FROM {table}"));
        assert_eq!(sorted(found), sorted(wanted), "{table}");
    }
}

/// By the database, which knows how.
fn md5(text: &str) -> String {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};
    static KNOWN: LazyLock<Mutex<HashMap<String, String>>> = LazyLock::new(Mutex::default);
    let mut known = KNOWN.lock().unwrap();
    if let Some(hash) = known.get(text) {
        return hash.clone();
    }
    // Values are one letter repeated, so that the text stays small.
    let letter = &text[..1];
    assert!(text.chars().all(|char| char.to_string() == letter), "an unexpected value");
    let hash = server().psql("postgres", &format!("SELECT md5(repeat('{letter}', {}))", text.len())).unwrap();
    known.insert(text.to_owned(), hash.clone());
    hash
}

const TABLES: &str = "\
    CREATE TABLE keyed (id int PRIMARY KEY, n int DEFAULT 0, v text); \
    ALTER TABLE keyed ALTER v SET STORAGE EXTERNAL; \
    CREATE TABLE log (id int, v text); \
    CREATE TABLE bag (id int, v text); ALTER TABLE bag REPLICA IDENTITY FULL; \
    INSERT INTO keyed (id, v) SELECT g, repeat(chr(97 + g % 26), 40 + (g % 40 = 0)::int * 3000) FROM generate_series(1, 4000) g; \
    INSERT INTO log SELECT g, repeat(chr(97 + g % 26), 40) FROM generate_series(1, 4000) g; \
    INSERT INTO bag SELECT g, repeat(chr(97 + g % 26), 40) FROM generate_series(1, 1500) g";

/// Changes of every kind; moves rows to other pages, without touching large values.
fn stir(db: &Database, round: i32) {
    let from = 5000 + round * 50;
    db.sql(&format!(
        "UPDATE keyed SET n = n + 1 WHERE id % 9 = {round} % 9; \
         DELETE FROM keyed WHERE id % 97 = {round}; \
         UPDATE keyed SET id = -id WHERE id % 89 = {round} AND id > 0; \
         INSERT INTO keyed (id, v) SELECT g, repeat('k', 50) FROM generate_series({from}, {from} + 49) g; \
         UPDATE keyed SET v = repeat('w', 3000) WHERE id % 101 = {round}; \
         INSERT INTO log SELECT g, repeat('l', 30) FROM generate_series({from}, {from} + 49) g; \
         UPDATE bag SET v = repeat('u', 20) WHERE id % 61 = {round}; DELETE FROM bag WHERE id % 83 = {round}; \
         INSERT INTO bag SELECT 1, repeat('d', 10) FROM generate_series(1, 3)"
    ));
}

fn runner(db: &Database, pipeline: &str) -> Runner {
    let options = json!({
        "tables": ["public.*"], "insert_only": ["log"], "snapshot_chunk_bytes": 65_536, "snapshot_connections": 2,
    });
    let mut run = Runner::new(db, pipeline, options);
    run.budget.records = 150;
    run
}

/// When a round ends with a kill.
#[derive(Clone, Copy)]
enum Until {
    Polls(usize),
    Records(usize),
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_ends_up_equal() {
    use Until::{Polls, Records};
    let db = database("kills", TABLES);
    let mut run = runner(&db, "kills");
    // Through setting up, the copy, and the stream.
    let rounds = [
        Polls(1),
        Polls(2),
        Polls(6),
        Records(700),
        Records(1500),
        Records(2300),
        Records(900),
        Records(3000),
        Records(1200),
        Records(9000),
        Records(700),
        Records(300),
        Records(2000),
    ];
    for (round, until) in rounds.into_iter().enumerate() {
        run.store_every = 1 + round % 4;
        open_soon(&mut run).await;
        stir(&db, round as i32);
        let (before, started) = (run.count, Instant::now());
        for poll in 0.. {
            let over = match until {
                Polls(polls) => poll >= polls,
                Records(records) => {
                    run.count >= before + records || started.elapsed() > Duration::from_secs(4)
                }
            };
            if over {
                break;
            }
            if let Err(error) = run.poll().await {
                assert!(matches!(error.kind(), ErrorKind::RetryAfter(_)), "round {round}: {error}");
                break;
            }
        }
        run.kill();
    }
    run.store_every = 1;
    open_soon(&mut run).await;
    stir(&db, 20);
    run.catch_up().await;
    assert!(run.replayed > 0, "something was replayed");
    assert_equal(&run, &db, &["keyed"], &["log", "bag"]);
    run.close().await;
}

/// Opens, giving the server a moment to notice that our predecessor is gone.
async fn open_soon(run: &mut Runner) {
    for _ in 0..50 {
        match run.open().await {
            Ok(()) => return,
            Err(error) if matches!(error.kind(), ErrorKind::RetryAfter(_)) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not opened");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_made_anew_is_emptied_wherever_it_is_killed() {
    const ROWS: &str = "INSERT INTO t SELECT g, repeat('a', 40) FROM generate_series";
    for polls in 1..10 {
        let db = database(
            &format!("anew{polls}"),
            &format!("CREATE TABLE t (id int PRIMARY KEY, v text); {ROWS}(1, 300) g"),
        );
        let mut run = Runner::new(&db, &format!("anew{polls}"), json!({"tables": ["public.*"]}));
        run.open().await.unwrap();
        run.catch_up().await;
        run.kill();
        db.sql(&format!("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text); {ROWS}(200, 500) g"));
        open_soon(&mut run).await;
        for _ in 0..polls {
            run.poll().await.unwrap();
        }
        run.kill();
        open_soon(&mut run).await;
        run.catch_up().await;
        assert_equal(&run, &db, &["t"], &[]);
        run.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_rewritten_during_a_broken_copy_are_copied_anew() {
    let db = database("rewrite", TABLES);
    let mut run = runner(&db, "rewrite");
    run.open().await.unwrap();
    run.until("a part of the copy", |run| run.topic.len() > 2000).await;
    run.kill();
    db.sql("TRUNCATE log; INSERT INTO log VALUES (1, 'aaa'); DELETE FROM keyed WHERE id < 500; INSERT INTO keyed (id, v) VALUES (1, 'bbb')");
    db.sql("VACUUM FULL keyed");
    db.sql("ALTER TABLE bag ALTER id TYPE bigint; UPDATE bag SET v = 'zz' WHERE id = 7");
    open_soon(&mut run).await;
    run.until("more of the copy", |run| run.ops("keyed").matches('r').count() > 3000).await;
    // While it runs, too.
    db.sql("VACUUM FULL bag");
    db.sql("ALTER TABLE keyed ADD extra int; INSERT INTO keyed VALUES (9999, 1, 'ccc', 5)");
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    stir(&db, 3);
    run.catch_up().await;
    assert!(run.ops("log").contains('t'), "the restart begins with a truncate");
    assert_equal(&run, &db, &["keyed"], &["log", "bag"]);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_taken_in_pieces_and_resumed_within() {
    let db = database("pieces", "CREATE TABLE t (id int PRIMARY KEY, v text)");
    let mut run = Runner::new(&db, "pieces", json!({"tables": ["t"]}));
    run.budget.records = 150;
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(
        "BEGIN; INSERT INTO t SELECT g, 'a' FROM generate_series(1, 3000) g; UPDATE t SET id = id + 10000 WHERE id <= 500; \
         DELETE FROM t WHERE id BETWEEN 1000 AND 1200; COMMIT",
    );
    let mut within = 0;
    for round in 1..=8 {
        run.store_every = 1 + round % 2;
        run.until("a part", |run| run.topic.len() > round * 450).await;
        within += usize::from(run.stored.partitions["stream"].get("transaction").is_some());
        run.kill();
        open_soon(&mut run).await;
    }
    assert!(within >= 5, "positions within the transaction were stored: {within}");
    run.store_every = 1;
    run.catch_up().await;
    assert!(run.stored.partitions["stream"].get("transaction").is_none());
    assert_eq!(run.topic.len(), 3000 + 3 * 500 + 2 * 201, "no record is missing, none is there twice");
    assert_equal(&run, &db, &["t"], &[]);
    run.close().await;
}

async fn opening_fails(run: &mut Runner) -> ConnectorError {
    run.kill();
    for _ in 0..100 {
        match run.open().await {
            Err(error) if matches!(error.kind(), ErrorKind::RetryAfter(_)) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => return error,
            Ok(()) => panic!("it was opened"),
        }
    }
    panic!("it goes on retrying");
}

async fn streaming(db: &Database, pipeline: &str) -> Runner {
    let mut run = Runner::new(db, pipeline, json!({"tables": ["t"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO t VALUES (1)");
    run.catch_up().await;
    run.close().await;
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone_new_or_ahead_stops_the_task() {
    let db = database("gone", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut run = streaming(&db, "gone").await;
    db.sql("INSERT INTO t VALUES (2)");
    db.sql("SELECT pg_replication_slot_advance('towpath_gone', pg_current_wal_lsn())");
    let error = opening_fails(&mut run).await;
    assert_eq!((error.code(), error.kind()), ("PG_SLOT_AHEAD", ErrorKind::Terminal));
    assert!(error.message().contains("bytes of log"), "{error}");
    db.sql("SELECT pg_drop_replication_slot('towpath_gone')");
    let error = opening_fails(&mut run).await;
    assert_eq!((error.code(), error.kind()), ("PG_SLOT_MISSING", ErrorKind::Terminal));
    db.sql("SELECT pg_create_logical_replication_slot('towpath_gone', 'pgoutput')");
    assert_eq!(opening_fails(&mut run).await.code(), "PG_SLOT_AHEAD", "a new slot does not know the past");
    db.sql("SELECT pg_drop_replication_slot('towpath_gone'), pg_create_logical_replication_slot('towpath_gone', 'test_decoding')");
    assert_eq!(opening_fails(&mut run).await.code(), "PG_SLOT_FOREIGN");
    // A first start finds it: it could be anybody's.
    let mut other = Runner::new(&db, "gone", json!({"tables": ["t"]}));
    let error = opening_fails(&mut other).await;
    assert_eq!(error.code(), "PG_SLOT_EXISTS");
    assert!(error.hint().unwrap().contains("SELECT pg_drop_replication_slot('towpath_gone')"));
    db.sql("SELECT pg_drop_replication_slot('towpath_gone')");
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_of_another_server_database_or_version_are_refused() {
    let db = database("foreign", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut run = streaming(&db, "foreign").await;
    let good = run.stored.clone();
    for (field, value, code) in [
        ("system_id", json!("1"), "PG_OTHER_SERVER"),
        ("database", json!("x"), "PG_OTHER_DATABASE"),
        ("timeline", json!(7), "PG_TIMELINE"),
        ("slot", json!("x"), "PG_SLOT_RENAMED"),
        ("v", json!(2), "PG_OFFSETS"),
        ("end_lsn", json!("what"), "PG_OFFSETS"),
    ] {
        run.stored = good.clone();
        run.stored.partitions.get_mut("stream").unwrap()[field] = value;
        let error = opening_fails(&mut run).await;
        assert_eq!((error.code(), error.kind()), (code, ErrorKind::Terminal), "{field}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_still_active_is_waited_for() {
    let db = database("active", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut run = streaming(&db, "active").await;
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = server().program("pg_recvlogical");
    command.args([
        "-d",
        "active",
        "-S",
        "towpath_active",
        "--start",
        "-f",
        "/dev/null",
        "-o",
        "proto_version=1",
    ]);
    command.args(["-o", "publication_names=towpath_active"]);
    let mut holder = Guarded::spawn("pg_recvlogical", command, log.path(), log.path()).unwrap();
    let active =
        || db.sql("SELECT active FROM pg_replication_slots WHERE slot_name = 'towpath_active'") == "t";
    while !active() {
        assert!(holder.is_running().unwrap(), "{}", holder.log_tail());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.open().await.unwrap();
    for _ in 0..5 {
        run.poll().await.unwrap();
    }
    assert_eq!(run.source().status(), "starting the stream");
    holder.kill9().unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO t VALUES (2)");
    run.catch_up().await;
    assert_eq!(run.topic.len(), 2);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_stored_is_acknowledged() {
    let db = database("ack", "CREATE TABLE t (id int PRIMARY KEY)");
    let mut run = Runner::new(&db, "ack", json!({"tables": ["t"], "heartbeat_ms": 0}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    run.store_every = usize::MAX;
    db.sql("INSERT INTO t SELECT generate_series(1, 500)");
    let end = db.sql("SELECT pg_current_wal_lsn()");
    run.until("the rows", |run| run.topic.len() >= 500).await;
    let passed = || {
        let sql =
            "SELECT confirmed_flush_lsn >= '{}' FROM pg_replication_slots WHERE slot_name = 'towpath_ack'";
        db.sql(&sql.replace("{}", &end)) == "t"
    };
    for _ in 0..10 {
        run.poll().await.unwrap();
    }
    assert!(!passed(), "R4: nothing is acknowledged before it is stored");
    run.store_every = 1;
    run.until("the acknowledgement", |_| passed()).await;
    run.close().await;
}
