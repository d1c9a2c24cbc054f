//! What the stream does not tell of rows that are there: columns that change with no row after them, rewritten tables,
//! columns that cannot be told apart any more, and partitions that come and go with their rows.

use serde_json::json;
use towpath_api::{Field, Op};

use super::support::{Cell, Database, Fields, Recorded, Runner, database, pairs};

async fn streaming(name: &str, setup: &str, options: serde_json::Value) -> (Database, Runner) {
    let db = database(name, setup);
    let mut run = Runner::new(&db, name, options);
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    run.catch_up().await;
    (db, run)
}

fn field<'a>(record: &'a Recorded, name: &str) -> &'a Field {
    let schema = record.schema.value();
    &schema.fields[schema.index_of(name).unwrap()]
}

/// `key_field` and `field` of the source's rows.
fn expected(db: &Database, table: &str, key: &str, field: &str) -> Vec<(String, String)> {
    let text = db.sql(&format!("SELECT {key}, {field} FROM {table}"));
    let mut pairs: Vec<_> = text
        .lines()
        .map(|line| line.split_once('|').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap())
        .collect();
    pairs.sort();
    pairs
}

/// What a sink holds that follows the last shape; announcements are no rows.
fn held(run: &mut Runner, table: &str, key: &str, field: &str) -> Vec<(String, String)> {
    run.topic.retain(|record| record.op != Op::Tombstone || record.key.is_some());
    let rows = run.by_key(table);
    let with: Vec<&Fields> = rows.values().filter(|row| row.contains_key(field)).collect();
    assert_eq!(with.len(), rows.len(), "every row was told {field}");
    pairs(with, key, field)
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_no_row_follows_are_told_by_themselves() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a int, b int); INSERT INTO t VALUES (1, 2, 3)";
    let (db, mut run) = streaming("silent", setup, json!({"tables": ["public.*"]})).await;
    db.sql("ALTER TABLE t RENAME a TO tmp; ALTER TABLE t RENAME b TO a; ALTER TABLE t RENAME tmp TO b");
    db.sql("ALTER TABLE t ADD c text DEFAULT 'x'");
    run.catch_up().await;
    let told = *run.of_table("t").last().unwrap();
    assert!(told.op == Op::Tombstone && told.key.is_none() && told.after.is_none());
    assert_eq!(field(told, "b").renamed_from.as_deref(), Some("a"));
    assert_eq!(field(told, "b").id, field(run.of_table("t")[0], "a").id);
    assert_eq!(field(told, "c").initial.as_deref(), Some("x"));
    let count = run.count;
    // Nothing is told twice, neither after a restart nor by the rows that come at last.
    run.kill();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    run.open().await.unwrap();
    run.catch_up().await;
    assert_eq!(run.count, count);
    // A column that goes is told by the rows that do without it.
    db.sql("ALTER TABLE t DROP a");
    run.catch_up().await;
    assert_eq!(run.count, count);
    db.sql("INSERT INTO t VALUES (2, 0, 'y')");
    run.catch_up().await;
    let last = *run.of_table("t").last().unwrap();
    assert_eq!((last.op, last.text("c"), last.schema.value().fields.len()), (Op::Create, "y", 3));
    assert_eq!(field(last, "c").initial.as_deref(), Some("x"), "for whoever has not heard of it yet");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_tables_are_copied_anew() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t SELECT g, g FROM generate_series(1, 50) g; \
                 CREATE TABLE other (id int PRIMARY KEY)";
    let (db, mut run) = streaming("rewritten", setup, json!({"tables": ["t", "other"]})).await;
    // No row follows, then some do, then they come in the same transaction.
    db.sql("ALTER TABLE t ADD r double precision DEFAULT random()");
    run.catch_up().await;
    assert_eq!(held(&mut run, "t", "id", "r"), expected(&db, "t", "id", "r"));
    db.sql("ALTER TABLE t ALTER a TYPE int USING a * 2; INSERT INTO t VALUES (60, 60)");
    db.sql("UPDATE t SET r = 0 WHERE id < 9; DELETE FROM t WHERE id = 10; INSERT INTO other VALUES (1)");
    run.catch_up().await;
    assert_eq!(held(&mut run, "t", "id", "a"), expected(&db, "t", "id", "a"));
    db.sql(
        "BEGIN; UPDATE t SET a = 0 WHERE id = 1; ALTER TABLE t ADD s serial; UPDATE t SET a = -1 WHERE id = 2; \
            INSERT INTO other VALUES (2); COMMIT",
    );
    db.sql("UPDATE t SET a = 7 WHERE id = 3; INSERT INTO other VALUES (3)");
    run.catch_up().await;
    assert_eq!(held(&mut run, "t", "id", "s"), expected(&db, "t", "id", "s"));
    assert_eq!(run.ops("t").matches('t').count(), 3, "{}", run.ops("t"));
    assert_eq!(run.ops("other"), "ccc", "others go on as they were");
    db.sql("VACUUM FULL t");
    db.sql("INSERT INTO t VALUES (70, 70)");
    run.catch_up().await;
    assert_eq!(run.ops("t").matches('t').count(), 3, "a file alone is no reason");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_due_survives_a_kill_before_it_began() {
    let setup =
        "CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t SELECT g, g FROM generate_series(1, 50) g";
    let (db, mut run) = streaming("due", setup, json!({"tables": ["t"]})).await;
    run.close().await;
    // Dropped and added again, or renamed and then dropped: who should know.
    db.sql("ALTER TABLE t DROP x");
    db.sql("ALTER TABLE t ADD x text DEFAULT 'new'");
    db.sql("INSERT INTO t SELECT g, 'row' FROM generate_series(51, 300) g; DELETE FROM t WHERE id = 5");
    run.budget.records = 10;
    for polls in 1..12 {
        run.open().await.unwrap();
        for _ in 0..polls {
            run.poll().await.unwrap();
        }
        run.kill();
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    run.open().await.unwrap();
    run.catch_up().await;
    assert_eq!(held(&mut run, "t", "id", "x"), expected(&db, "t", "id", "x"));
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_come_and_go_with_their_rows() {
    let setup = "CREATE TABLE p (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
                 CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                 CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); \
                 INSERT INTO p SELECT g, g FROM generate_series(0, 19) g";
    let (db, mut run) = streaming("partitions", setup, json!({"tables": ["p"]})).await;
    let check = async |run: &mut Runner, copies: usize| {
        run.catch_up().await;
        assert_eq!(held(run, "p", "id", "day"), expected(&db, "p", "id", "day"));
        assert_eq!(run.ops("p").matches('t').count(), copies, "{}", run.ops("p"));
    };
    // Born as a partition: the stream has its rows.
    db.sql("CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (20) TO (30)");
    db.sql("INSERT INTO p SELECT g, g FROM generate_series(20, 29) g");
    check(&mut run, 0).await;
    let reads = run.ops("p").matches('r').count();
    assert_eq!(reads, 20);
    db.sql("CREATE TABLE p4 (day int, id int, PRIMARY KEY (id, day)); INSERT INTO p4 SELECT g, g FROM generate_series(30, 39) g");
    db.sql(
        "ALTER TABLE p ATTACH PARTITION p4 FOR VALUES FROM (30) TO (40); UPDATE p SET day = 31 WHERE id = 30",
    );
    check(&mut run, 0).await;
    assert_eq!(run.ops("p").matches('r').count(), 30, "only the new one was read");
    db.sql("ALTER TABLE p DETACH PARTITION p2");
    check(&mut run, 1).await;
    db.sql("VACUUM FULL p1");
    check(&mut run, 1).await;
    db.sql("TRUNCATE p1; INSERT INTO p VALUES (1, 1)");
    check(&mut run, 2).await;
    db.sql("DROP TABLE p3");
    check(&mut run, 3).await;
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_dropped_partitions_may_stay() {
    let setup = "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
                 CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); \
                 CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20); INSERT INTO p VALUES (1), (11)";
    let options = json!({"tables": ["p"], "dropped_partitions": "keep"});
    let (db, mut run) = streaming("kept", setup, options).await;
    db.sql("DROP TABLE p1; INSERT INTO p VALUES (12)");
    run.catch_up().await;
    assert_eq!(run.ops("p"), "rrc");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_get_other_names_and_are_replaced() {
    let setup = "CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a VALUES (1, 'x'); \
                 CREATE TABLE b (id int PRIMARY KEY, v text); INSERT INTO b VALUES (1, 'old')";
    let (db, mut run) = streaming("renamed_tables", setup, json!({"tables": ["public.*"]})).await;
    db.sql("ALTER TABLE a RENAME TO c; INSERT INTO c VALUES (2, 'y')");
    db.sql("DROP TABLE b; CREATE TABLE b (v text, id int PRIMARY KEY); INSERT INTO b VALUES ('new', 5)");
    run.catch_up().await;
    assert_eq!(held(&mut run, "c", "id", "v"), expected(&db, "c", "id", "v"));
    assert_eq!(held(&mut run, "b", "id", "v"), expected(&db, "b", "id", "v"));
    db.sql("DROP TABLE c; INSERT INTO b VALUES ('last', 6)");
    run.catch_up().await;
    assert_eq!(held(&mut run, "b", "id", "v"), expected(&db, "b", "id", "v"));
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_copy_the_stream_goes_on_and_says_so() {
    let (db, mut run) = streaming(
        "uncopied",
        "CREATE TABLE t (id int PRIMARY KEY, x int)",
        json!({"tables": ["t"], "snapshot": "never"}),
    )
    .await;
    db.sql("INSERT INTO t VALUES (1, 1)");
    db.sql("ALTER TABLE t DROP x; ALTER TABLE t ADD x text; INSERT INTO t VALUES (2, 'two')");
    run.catch_up().await;
    let records = run.of_table("t");
    assert_eq!(records.iter().filter(|record| record.op == Op::Create).count(), 2);
    let last = records.iter().rfind(|record| record.op == Op::Create).unwrap();
    assert_eq!(last.after("x"), &Cell::Value("two".into()));
    run.close().await;
}
