//! Tables that change while they are captured, and while they are not.

use crate::world::{BUDGET, World, drain};
use serde_json::json;
use towpath_api::{Poll, SourceOffsets};

fn at(lines: &[String], wanted: &str) -> Option<usize> {
    lines.iter().position(|line| line == wanted)
}

#[tokio::test]
async fn a_column_that_came_while_nobody_listened_is_not_lost() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    drop(source);
    // The triggers of before know nothing of the column, and write what they know.
    world.run("ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 7; UPDATE t SET n = 8 WHERE id = 1; DELETE FROM t WHERE id = 3;").await;
    let before = offsets.clone();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let lines = drain(&mut *source, &mut offsets).await;
    let expected = [
        "u t [1] 1,a > 1,a",
        "d t [3] 3,c > -",
        "tombstone t [3] - > -",
        "r t [1] - > 1,a,8",
        "r t [2] - > 2,b,7",
    ];
    assert_eq!(lines, expected, "what the old triggers wrote comes first: the newest record has all columns");
    // A crash before any of it was stored: the triggers are new already, and the rows come all the same.
    drop(source);
    let mut offsets = before;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(drain(&mut *source, &mut offsets).await, expected);
    world.run("INSERT INTO t VALUES (4, 'd', 9)").await;
    assert_eq!(drain(&mut *source, &mut offsets).await, ["c t [4] - > 4,d,9"]);
    drop(source);
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(drain(&mut *source, &mut offsets).await, Vec::<String>::new(), "once is enough");
}

#[tokio::test]
async fn a_column_that_comes_is_read_again_behind_what_older_triggers_wrote() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    world
        .run(
            "UPDATE t SET v = 'z' WHERE id = 1; ALTER TABLE t ADD COLUMN n INTEGER; UPDATE t SET n = 5 WHERE id = 1;
             DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (3, 'c', 6);",
        )
        .await;
    let lines = drain(&mut *source, &mut offsets).await;
    let last = |key: &str| lines.iter().rev().find(|line| line.contains(key)).cloned();
    assert_eq!(last("t [1]").as_deref(), Some("r t [1] - > 1,z,5"), "{lines:?}");
    assert_eq!(last("t [2]").as_deref(), Some("tombstone t [2] - > -"), "{lines:?}");
    assert_eq!(last("t [3]").as_deref(), Some("r t [3] - > 3,c,6"), "{lines:?}");
    assert!(at(&lines, "u t [1] 1,a > 1,z").is_some(), "{lines:?}");
}

#[tokio::test]
async fn a_dropped_column_costs_the_triggers_and_the_table_is_copied_anew() {
    let mut world = World::new(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, n INTEGER);
         INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    drain(&mut *source, &mut offsets).await;
    let refused = world.try_run("ALTER TABLE t DROP COLUMN n").await.unwrap_err();
    assert!(refused.contains("_towpath_p_"), "SQLite names the trigger: {refused}");
    world.run("UPDATE t SET v = 'z' WHERE id = 1").await;
    assert_eq!(drain(&mut *source, &mut offsets).await, ["u t [1] 1,a,1 > 1,z,1"], "capture goes on");
    // What is left to the application.
    world
        .run(
            "BEGIN; DROP TRIGGER _towpath_p_1_c; DROP TRIGGER _towpath_p_1_u; DROP TRIGGER _towpath_p_1_d;
             ALTER TABLE t DROP COLUMN n; DELETE FROM t WHERE id = 2; UPDATE t SET v = 'y' WHERE id = 3; COMMIT;",
        )
        .await;
    let before = offsets.clone();
    let lines = drain(&mut *source, &mut offsets).await;
    let expected = ["t t [-] - > -", "r t [1] - > 1,z", "r t [3] - > 3,y"];
    assert_eq!(lines, expected, "nobody told of the delete: everything is forgotten first");
    drop(source);
    let mut again = before;
    let mut source = world.open(&again, json!({})).await.unwrap();
    assert_eq!(
        drain(&mut *source, &mut again).await,
        expected,
        "a crash before it was stored changes nothing"
    );
    world.run("INSERT INTO t VALUES (4, 'd')").await;
    assert_eq!(drain(&mut *source, &mut again).await, ["c t [4] - > 4,d"]);
}

#[tokio::test]
async fn a_table_made_anew_under_its_name_is_copied_anew_with_and_without_a_key() {
    for key in ["id INTEGER PRIMARY KEY", "id INTEGER"] {
        let mut world =
            World::new(&format!("CREATE TABLE t ({key}, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b');"))
                .await;
        let mut offsets = SourceOffsets::default();
        let mut source = world.open(&offsets, json!({})).await.unwrap();
        drain(&mut *source, &mut offsets).await;
        // As migration tools do it where ALTER TABLE does not suffice.
        world
            .run(&format!(
                "BEGIN; CREATE TABLE new_t ({key}, v TEXT); INSERT INTO new_t SELECT id, upper(v) FROM t WHERE id = 1;
                 DROP TABLE t; ALTER TABLE new_t RENAME TO t; COMMIT; INSERT INTO t VALUES (3, 'c');"
            ))
            .await;
        let lines = drain(&mut *source, &mut offsets).await;
        let keys = if key.contains("PRIMARY") { ["[1]", "[3]"] } else { ["[-]", "[-]"] };
        let expected = [
            "t t [-] - > -".to_owned(),
            format!("r t {} - > 1,A", keys[0]),
            format!("r t {} - > 3,c", keys[1]),
        ];
        assert_eq!(lines, expected);
        world.run("DROP TABLE t").await;
        assert_eq!(drain(&mut *source, &mut offsets).await, Vec::<String>::new());
        source.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_table_that_goes_before_it_was_copied_holds_up_nobody() {
    let mut world = World::new(
        "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (id INTEGER PRIMARY KEY);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500) INSERT INTO a SELECT i FROM n;
         INSERT INTO b SELECT id FROM a;",
    )
    .await;
    let mut offsets = SourceOffsets::default();
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    let Poll::Batch(batch) = source.poll(BUDGET).await.unwrap() else { panic!("rows of a") };
    offsets.merge(batch.offsets);
    drop(source);
    world
        .run("DROP TABLE a; DROP TABLE b; CREATE TABLE c (id INTEGER PRIMARY KEY); INSERT INTO c VALUES (1);")
        .await;
    let mut source = world.open(&offsets, json!({})).await.unwrap();
    assert_eq!(drain(&mut *source, &mut offsets).await, ["r c [1] - > 1"]);
}

#[tokio::test]
async fn pipelines_with_similar_names_leave_each_others_triggers_alone() {
    let mut world = World::new("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);").await;
    let (mut short, mut long) = (SourceOffsets::default(), SourceOffsets::default());
    let mut first = world.open_as("p_1", &long, json!({})).await.unwrap();
    drain(&mut *first, &mut long).await;
    let mut second = world.open_as("p", &short, json!({})).await.unwrap();
    drain(&mut *second, &mut short).await;
    world.run("INSERT INTO t VALUES (2)").await;
    assert_eq!(drain(&mut *first, &mut long).await, ["c t [2] - > 2"]);
    assert_eq!(drain(&mut *second, &mut short).await, ["c t [2] - > 2"]);
    world.run("ALTER TABLE t ADD COLUMN v TEXT").await;
    drain(&mut *second, &mut short).await;
    world.run("INSERT INTO t VALUES (3, 'c')").await;
    let lines = drain(&mut *first, &mut long).await;
    assert!(at(&lines, "c t [3] - > 3").is_some() || at(&lines, "r t [3] - > 3,c").is_some(), "{lines:?}");
    assert_eq!(at(&lines, "t t [-] - > -"), None, "nobody took its triggers away: {lines:?}");
}
