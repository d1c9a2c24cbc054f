//! Rows, keys and moments that are not the usual ones.

use std::time::{Duration, Instant};

use crate::world::{BUDGET, World, connector, drain};
use async_trait::async_trait;
use serde_json::json;
use towpath_api::conformance::{self, SourceWorld};
use towpath_api::{Budget, Poll, SourceConnector, SourceFactory as _, SourceOffsets, Value};
use towpath_source_sqlite_cdc::SqliteCdc;

struct Contract(World, i64);

#[async_trait]
impl SourceWorld for Contract {
    fn connector(&self) -> Box<dyn SourceConnector> {
        connector(&self.0.directory.path().join("shop.db"), json!({}))
    }

    async fn produce(&mut self, count: usize) {
        for _ in 0..count {
            self.1 += 1;
            let (table, id) = (if self.1 % 2 == 0 { "a" } else { "b" }, self.1);
            self.0.run(&format!("INSERT INTO {table} VALUES ({id}, 'row {id}')")).await;
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }
}

#[tokio::test]
async fn it_keeps_the_contract() {
    conformance::descriptor(SqliteCdc::default().descriptor()).unwrap();
    let tables =
        "CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE b (id INTEGER PRIMARY KEY, v TEXT);";
    conformance::source(&mut Contract(World::new(tables).await, 0)).await.unwrap();
}

#[tokio::test]
async fn replacing_a_row_leaves_its_last_state_with_and_without_recursive_triggers() {
    for recursive in ["OFF", "ON"] {
        let mut world =
            World::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');")
                .await;
        let mut offsets = SourceOffsets::default();
        let mut source = world.open(&offsets, json!({})).await.unwrap();
        drain(&mut *source, &mut offsets).await;
        world.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        world
            .run(
                "REPLACE INTO t VALUES (1, 'b'); INSERT INTO t VALUES (1, 'c') ON CONFLICT DO UPDATE SET v = excluded.v;
                 INSERT OR IGNORE INTO t VALUES (1, 'd'); UPDATE OR REPLACE t SET v = 'e';",
            )
            .await;
        let lines = drain(&mut *source, &mut offsets).await;
        assert_eq!(lines.last().unwrap(), "u t [1] 1,c > 1,e");
        assert!(lines.contains(&"c t [1] - > 1,b".to_owned()), "{lines:?}");
        let told = lines.contains(&"d t [1] 1,a > -".to_owned());
        assert_eq!(told, recursive == "ON", "{lines:?}");
    }
}

/// Applies what was captured to a copy, as a sink does.
fn apply(lines: &[String], rows: &mut std::collections::BTreeMap<String, String>) {
    for line in lines {
        let (key, rest) = line.split_once('[').unwrap().1.split_once(']').unwrap();
        match line.split(' ').next().unwrap() {
            "d" | "tombstone" => drop(rows.remove(key)),
            _ => drop(rows.insert(key.to_owned(), rest.split_once("> ").unwrap().1.to_owned())),
        }
    }
}

#[tokio::test]
async fn rows_that_a_replace_displaces_by_another_key_are_told_as_deleted() {
    for (recursive, key, kind) in [
        ("OFF", "INTEGER PRIMARY KEY", ""),
        ("ON", "INTEGER PRIMARY KEY", ""),
        ("OFF", "TEXT PRIMARY KEY", ""),
        ("OFF", "TEXT PRIMARY KEY", "WITHOUT ROWID"),
    ] {
        let mut world = World::new(&format!(
            "CREATE TABLE t (id {key}, a TEXT UNIQUE, b INTEGER, c TEXT, n INTEGER, UNIQUE (b, c)) {kind};
             INSERT INTO t (id, a, b, c) VALUES (1, 'x', 1, 'p'), (2, 'y', 2, 'q'), (3, 'z', NULL, 'r'), (4, NULL, NULL, 'r');"
        ))
        .await;
        world.run(&format!("PRAGMA recursive_triggers = {recursive}")).await;
        let mut offsets = SourceOffsets::default();
        let mut source = world.open(&offsets, json!({})).await.unwrap();
        let mut rows = std::collections::BTreeMap::new();
        apply(&drain(&mut *source, &mut offsets).await, &mut rows);
        world.run("INSERT OR REPLACE INTO t (id, a, b, c) VALUES (5, 'x', 2, 'q')").await;
        let lines = drain(&mut *source, &mut offsets).await;
        // Two rows at once make room for it.
        let mut deleted: Vec<_> = lines.iter().filter(|line| line.starts_with("d ")).cloned().collect();
        deleted.sort();
        assert_eq!(deleted, ["d t [1] 1,x,1,p,null > -", "d t [2] 2,y,2,q,null > -"], "{lines:?}");
        assert_eq!(lines.last().unwrap(), "c t [5] - > 5,x,2,q,null");
        apply(&lines, &mut rows);
        for statement in [
            // Refused, ignored, rolled back: nothing is displaced.
            "INSERT OR IGNORE INTO t (id, a, b, c) VALUES (6, 'x', 9, 'w')",
            // What was ignored is of no meaning for the next row, whatever is written of it.
            "UPDATE t SET n = 1 WHERE id = 3",
            "INSERT INTO t (id, a, b, c) VALUES (6, 'x', 9, 'w') ON CONFLICT DO NOTHING; UPDATE t SET n = 2 WHERE id = 4",
            "INSERT INTO t (id, a, b, c) VALUES (7, 'x', 9, 'w')",
            "BEGIN; INSERT OR REPLACE INTO t (id, a, b, c) VALUES (8, 'x', 9, 'w'); ROLLBACK",
            "INSERT INTO t (id, a, b, c) VALUES (9, 'z', 9, 'w') ON CONFLICT (a) DO UPDATE SET b = 77",
            "INSERT INTO t (id, a, b, c) VALUES (9, 'z', 9, 'w') ON CONFLICT (a) DO UPDATE SET n = 3",
            "UPDATE OR REPLACE t SET a = 'x' WHERE id = 4",
            "INSERT OR REPLACE INTO t (id, a, b, c) VALUES (4, 'x', 5, 's')",
            "REPLACE INTO t SELECT id + 10, a, b, c, n FROM t",
            "UPDATE t SET c = 'new'",
            "INSERT INTO t (id, a, b, c) VALUES (99, 'last', 99, 'last')",
        ] {
            drop(world.try_run(statement).await);
            apply(&drain(&mut *source, &mut offsets).await, &mut rows);
            let all = "SELECT coalesce(group_concat(r, ';'), '') FROM (SELECT id || ',' || coalesce(a, 'null') || ',' || \
                       coalesce(b, 'null') || ',' || c || ',' || coalesce(n, 'null') AS r FROM t ORDER BY CAST(id AS TEXT))";
            let now: String = sqlx::query_scalar(all).fetch_one(&mut world.application).await.unwrap();
            assert_eq!(
                rows.values().cloned().collect::<Vec<_>>().join(";"),
                now,
                "{key} {kind}: {statement}"
            );
        }
        assert_eq!(world.count("SELECT count(*) FROM _towpath_p_displaced").await, 0);
        // A unique key that comes later is watched as well, and nothing is copied again for it.
        world.run("CREATE UNIQUE INDEX later ON t (c, b); INSERT INTO t (id, a, b, c) VALUES (100, 'o', 100, 'o')").await;
        let lines = drain(&mut *source, &mut offsets).await;
        assert_eq!(lines, ["c t [100] - > 100,o,100,o,null"]);
    }
}

#[tokio::test]
async fn composite_keys_without_rowids_are_copied_and_resumed_in_their_order() {
    let mut world = World::new(
        "CREATE TABLE t (b BLOB, a TEXT, n INTEGER, v REAL, PRIMARY KEY (a, n DESC, b)) WITHOUT ROWID;
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2999)
           INSERT INTO t SELECT CAST(char(i % 7) AS BLOB), 'it''s ' || char(97 + i % 5) || char(0) || 'x', i, i / 4.0 FROM n;",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut seen = std::collections::BTreeSet::new();
    // Killed after every page.
    for round in 0..20 {
        let mut source = world.open(&offsets, json!({})).await.unwrap();
        match source.poll(Budget { bytes: 1 << 20, records: 700 }).await.unwrap() {
            Poll::Batch(batch) => {
                for record in batch.batch.records() {
                    let row = record.after().unwrap();
                    let Value::Int(n) = row.get(2) else { panic!("{:?}", row.get(2)) };
                    let Value::Text(a) = row.get(1) else { panic!("{:?}", row.get(1)) };
                    assert_eq!(a.len(), 8, "with its NUL: {a:?}");
                    assert!(seen.insert(n), "{n} came twice in round {round}");
                }
                offsets.merge(batch.offsets);
            }
            Poll::Idle(moved) => offsets.merge(moved),
            Poll::End => panic!("it has no end"),
        }
    }
    assert_eq!(seen.len(), 3000);
    world.run("UPDATE t SET n = -1 WHERE n = 7; DELETE FROM t WHERE n = 8;").await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let lines = drain(&mut *source, &mut offsets).await;
    let ops: Vec<_> = lines.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(ops, ["d", "tombstone", "c", "d", "tombstone"], "{lines:?}");
}

#[tokio::test]
async fn text_with_nuls_is_whole_and_text_that_is_none_goes_to_the_dead_letters() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         INSERT INTO t VALUES (1, 'a' || char(0) || 'ü'), (2, CAST(x'ff41' AS TEXT)), (3, char(0)), (4, '');",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("rows are there") };
    let rows: Vec<_> = batch.batch.records().map(crate::world::shown).collect();
    assert_eq!(rows, ["r t [1] - > 1,a\0ü", "r t [3] - > 3,\0", "r t [4] - > 4,"]);
    let rejected = &batch.rejected[0];
    assert_eq!((rejected.error.code(), batch.rejected.len()), ("SQLITE_NOT_UTF8", 1));
    assert_eq!(rejected.position, "table t, row 2");
    assert_eq!(rejected.bytes, b"2,'\xffA'");
    offsets.merge(batch.offsets);
    drain(&mut *source, &mut offsets).await;
    world
        .run(
            "INSERT INTO t VALUES (5, CAST(x'fe' AS TEXT)); UPDATE t SET v = 'whole' WHERE id = 2;
             UPDATE t SET v = 'x' || char(0) || 'y' WHERE id = 4;",
        )
        .await;
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("changes are there") };
    let rows: Vec<_> = batch.batch.records().map(crate::world::shown).collect();
    assert_eq!(rows, ["c t [2] - > 2,whole", "u t [4] 4, > 4,x\0y"]);
    assert_eq!(batch.rejected.len(), 1);
    assert!(batch.rejected[0].position.starts_with("outbox row"), "{}", batch.rejected[0].position);
}

#[tokio::test]
async fn large_rows_come_in_pieces_of_the_budget() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
           INSERT INTO t SELECT i, zeroblob(1000000) FROM n;",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let budget = Budget { bytes: 4 << 20, records: 10_000 };
    for phase in ["the copy", "the changes"] {
        let mut count = 0;
        while count < 60 {
            match source.poll(budget).await.unwrap() {
                Poll::Batch(batch) => {
                    let bytes = batch.batch.size_in_bytes();
                    assert!(bytes <= (4 << 20) + 3_000_000, "{phase}: {bytes} bytes in one batch");
                    count += batch.batch.len();
                    offsets.merge(batch.offsets);
                }
                Poll::Idle(moved) => offsets.merge(moved),
                Poll::End => panic!("it has no end"),
            }
        }
        assert_eq!(count, 60, "{phase}");
        world.run("UPDATE t SET v = zeroblob(1000001)").await;
    }
}

#[tokio::test]
async fn a_large_backlog_comes_whole_and_in_order() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    drop(source);
    world
        .run(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
               INSERT INTO t SELECT i, 'row ' || i FROM n;",
        )
        .await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let lines = drain(&mut *source, &mut offsets).await;
    assert_eq!(lines.len(), 100_000);
    assert!(lines.iter().zip(1..).all(|(line, id)| *line == format!("c t [{id}] - > {id},row {id}")));
    source.close().await.unwrap();
    // What is durable is deleted sooner or later.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    world.run("INSERT INTO t VALUES (100001, 'x')").await;
    drain(&mut *source, &mut offsets).await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    source.commit(&offsets).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM _towpath_p_outbox").await, 0);
}

#[tokio::test]
async fn a_writer_that_keeps_its_lock_holds_up_neither_reading_nor_acknowledging() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    world.run("INSERT INTO t VALUES (1); BEGIN IMMEDIATE; INSERT INTO t VALUES (2);").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let begun = Instant::now();
    assert_eq!(drain(&mut *source, &mut offsets).await, ["c t [1] - > 1"], "what is committed, and no more");
    source.commit(&offsets).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.run("COMMIT").await;
    assert_eq!(drain(&mut *source, &mut offsets).await, ["c t [2] - > 2"]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    source.commit(&offsets).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM _towpath_p_outbox").await, 0, "it is cleaned later");
}

#[tokio::test]
async fn a_database_without_wal_is_captured_as_well() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    world.run("PRAGMA journal_mode = DELETE").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(drain(&mut *source, &mut offsets).await, ["r t [1] - > 1"]);
    world.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(drain(&mut *source, &mut offsets).await, ["c t [2] - > 2"]);
}
