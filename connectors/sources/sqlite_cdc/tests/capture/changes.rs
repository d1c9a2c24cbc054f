//! Rows that are there, and changes in their order.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::world::{BUDGET, World, connector, drain};
use serde_json::json;
use towpath_api::{Op, Poll, SourceOffsets, TaskContext};

#[tokio::test]
async fn rows_that_are_there_then_changes_in_order() {
    let mut world = World::new(
        "CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, price DECIMAL(10,2), raw BLOB, w REAL);
         INSERT INTO orders VALUES (1, 'it''s', 9.5, x'00ff', 1), (2, NULL, NULL, NULL, NULL);",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(
        drain(&mut *source, &mut offsets).await,
        ["r orders [1] - > 1,it's,9.5,[0, 255],1.0", "r orders [2] - > 2,null,null,null,null"]
    );
    world
        .run(
            "BEGIN; INSERT INTO orders VALUES (3, 'c', 1, NULL, NULL); UPDATE orders SET name = 'b' WHERE id = 2;
             UPDATE orders SET id = 9 WHERE id = 1; DELETE FROM orders WHERE id = 3; COMMIT;
             BEGIN; DELETE FROM orders; ROLLBACK;",
        )
        .await;
    assert_eq!(
        drain(&mut *source, &mut offsets).await,
        [
            "c orders [3] - > 3,c,1,null,null",
            "u orders [2] 2,null,null,null,null > 2,b,null,null,null",
            "d orders [1] 1,it's,9.5,[0, 255],1.0 > -",
            "tombstone orders [1] - > -",
            "c orders [9] - > 9,it's,9.5,[0, 255],1.0",
            "d orders [3] 3,c,1,null,null > -",
            "tombstone orders [3] - > -",
        ]
    );
    source.close().await.unwrap();
}

#[tokio::test]
async fn changes_made_while_nobody_listens_are_not_lost_and_none_comes_twice() {
    let mut world =
        World::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(drain(&mut *source, &mut offsets).await.len(), 1);
    drop(source);
    world.run("INSERT INTO t VALUES (2, 'b'); UPDATE t SET v = 'z';").await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(
        drain(&mut *source, &mut offsets).await,
        ["c t [2] - > 2,b", "u t [1] 1,a > 1,z", "u t [2] 2,b > 2,z"]
    );
}

#[tokio::test]
async fn durable_outbox_rows_are_deleted_and_no_others() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    world.run("INSERT INTO t VALUES (1), (2), (3)").await;
    // R4: what was polled but not committed stays.
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("three rows are there") };
    assert_eq!(batch.batch.len(), 3);
    let left = "SELECT count(*) FROM _towpath_p_outbox";
    let count: i64 = sqlx::query_scalar(left).fetch_one(&mut world.application).await.unwrap();
    assert_eq!(count, 3);
    offsets.merge(batch.offsets);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    source.commit(&offsets).await.unwrap();
    let count: i64 = sqlx::query_scalar(left).fetch_one(&mut world.application).await.unwrap();
    assert_eq!(count, 0);
}

#[tokio::test]
async fn a_copy_resumes_where_it_was_and_later_changes_win() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) INSERT INTO t SELECT i, 'a' FROM n;",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let Poll::Batch(first) = source.poll(BUDGET).await.unwrap() else { panic!("rows are there") };
    assert_eq!(first.batch.len(), 1000);
    offsets.merge(first.offsets);
    drop(source);
    world.run("UPDATE t SET v = 'b' WHERE id IN (5, 2500); DELETE FROM t WHERE id = 2999;").await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let lines = drain(&mut *source, &mut offsets).await;
    let copied: Vec<_> = lines.iter().filter(|line| line.starts_with("r ")).collect();
    assert_eq!((copied.len(), copied[0].as_str()), (1999, "r t [1001] - > 1001,a"));
    let changes: Vec<_> = lines.iter().filter(|line| !line.starts_with("r ")).map(String::as_str).collect();
    assert_eq!(
        changes,
        [
            "u t [5] 5,a > 5,b",
            "u t [2500] 2500,a > 2500,b",
            "d t [2999] 2999,a > -",
            "tombstone t [2999] - > -"
        ]
    );
}

#[tokio::test]
async fn a_table_without_a_key_is_copied_from_its_beginning_after_a_truncate() {
    let mut world =
        World::new("CREATE TABLE log (line TEXT); INSERT INTO log VALUES ('a'), ('a'), ('b');").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let Poll::Idle(intent) = source.poll(BUDGET).await.unwrap() else {
        panic!("nothing before the beginning is stored")
    };
    assert_eq!(intent.partitions["table log"]["done"], json!(false));
    assert!(matches!(source.poll(BUDGET).await.unwrap(), Poll::Idle(_)), "still waiting for durability");
    offsets.merge(intent);
    source.commit(&offsets).await.unwrap();
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("now the rows come") };
    assert_eq!(batch.batch.len(), 3);
    let lane = batch.batch.record(0).lane();
    drop(source);
    world.run("INSERT INTO log VALUES ('c')").await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let Poll::Idle(intent) = source.poll(BUDGET).await.unwrap() else {
        panic!("the next attempt is stored first")
    };
    offsets.merge(intent);
    source.commit(&offsets).await.unwrap();
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("the rows come again") };
    assert_eq!(batch.batch.record(0).op(), Some(Op::Truncate));
    assert_eq!(batch.batch.len(), 5);
    assert_ne!(batch.batch.record(1).lane(), lane, "another attempt, another lane");
    offsets.merge(batch.offsets);
    assert_eq!(drain(&mut *source, &mut offsets).await, Vec::<String>::new(), "the insert is in the copy");
    world.run("UPDATE log SET line = 'z' WHERE line = 'b'").await;
    assert_eq!(drain(&mut *source, &mut offsets).await, ["u log [] b > z".replace("[]", "[-]")]);
}

#[tokio::test]
async fn columns_and_tables_that_come_are_noticed() {
    let mut world =
        World::new("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    world
        .run(
            "UPDATE t SET v = 'b'; ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 7; UPDATE t SET n = 8;
             CREATE TABLE \"odd. \"\"näme\" (\"K\" TEXT PRIMARY KEY) WITHOUT ROWID; INSERT INTO \"odd. \"\"näme\" VALUES ('x');",
        )
        .await;
    let lines = drain(&mut *source, &mut offsets).await;
    assert!(lines.contains(&"r t [1] - > 1,b,8".to_owned()), "{lines:?}");
    assert!(lines.contains(&"u t [1] 1,a > 1,b".to_owned()), "{lines:?}");
    assert!(lines.contains(&"r odd. \"näme [x] - > x".to_owned()), "{lines:?}");
    world.run("INSERT INTO t VALUES (2, 'c', 9); ALTER TABLE t RENAME COLUMN v TO w; UPDATE t SET w = 'd' WHERE id = 2").await;
    let lines = drain(&mut *source, &mut offsets).await;
    assert!(lines.iter().any(|line| line == "u t [2] 2,c,9 > 2,d,9"), "{lines:?}");
}

#[tokio::test]
async fn a_lost_outbox_stops_the_task_loudly() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    world.run("INSERT INTO t VALUES (1)").await;
    drain(&mut *source, &mut offsets).await;
    source.close().await.unwrap();
    // R7: every one of these would otherwise lose changes silently.
    world.run("DELETE FROM sqlite_sequence WHERE name = '_towpath_p_outbox'").await;
    let error = world.open(&offsets, json!({})).await.map(|_| ()).unwrap_err();
    assert_eq!(error.code(), "SQLITE_POSITION_LOST");
    world.run("UPDATE _towpath_p_meta SET instance = 'other'").await;
    let error = world.open(&offsets, json!({})).await.map(|_| ()).unwrap_err();
    assert!(error.message().contains("made again"), "{error}");
    world.run("DROP TABLE _towpath_p_meta").await;
    let error = world.open(&offsets, json!({})).await.map(|_| ()).unwrap_err();
    assert!(error.message().contains("gone"), "{error}");
    let mut broken = offsets.clone();
    broken.partitions.insert("outbox".into(), json!({ "v": 1 }));
    assert_eq!(world.open(&broken, json!({})).await.map(|_| ()).unwrap_err().code(), "SQLITE_OFFSET");
}

#[tokio::test]
async fn check_says_what_is_missing() {
    let world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY)").await;
    let context = TaskContext::new("p", 0);
    let lines = world.connector(json!({})).check(&context).await.unwrap();
    assert!(
        lines.iter().any(|line| line.contains("table t")) && lines.iter().any(|line| line.contains("wal"))
    );
    let errors = world.connector(json!({ "tables": ["nope"] })).check(&context).await.unwrap_err();
    assert_eq!((errors[0].code(), errors[0].path()), ("SQLITE_NO_TABLES", Some("tables")));
    let nowhere = connector(Path::new("/nonexistent/x.db"), json!({})).check(&context).await.unwrap_err();
    assert_eq!(nowhere[0].code(), "SQLITE_NO_FILE");
    let text = world.directory.path().join("text.db");
    std::fs::write(
        &text,
        "this is no database, but long enough to look like a file with something in it".repeat(20),
    )
    .unwrap();
    let errors = connector(&text, json!({})).check(&context).await.unwrap_err();
    assert_eq!(errors[0].code(), "SQLITE_CORRUPT");
    assert_eq!(world.connector(json!({})).plan(NonZeroU32::new(4).unwrap()).await.unwrap().len(), 1);
}
