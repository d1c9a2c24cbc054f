//! The stream: every kind of change.

use serde_json::json;
use towpath_api::Op;

use super::support::{Cell, Runner, database, expected, pairs};

fn value(text: &str) -> Cell {
    Cell::Value(text.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_and_deletes_come_in_order_with_keys_images_and_source() {
    let db = database("ops", "CREATE TABLE t (id int PRIMARY KEY, name text NOT NULL, note text)");
    let mut run = Runner::new(&db, "ops", json!({"tables": ["public.t"], "snapshot": "never"}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO t VALUES (1, 'a', NULL); UPDATE t SET name = 'b'; DELETE FROM t");
    run.catch_up().await;
    assert_eq!(run.ops("t"), "cud-");
    let records = run.of_table("t");
    let create = records[0];
    assert_eq!(create.after.as_ref().unwrap().len(), 3);
    assert_eq!((create.after("id"), create.after("note")), (&value("1"), &Cell::Null));
    assert_eq!(create.key.as_ref().unwrap()["id"], value("1"));
    assert_eq!(create.schema.name(), "public.t");
    assert!(create.timestamp_ms > 1_600_000_000_000, "commit time in milliseconds");
    assert_eq!(create.source["snapshot"], value("false"));
    assert!(matches!(create.source["txId"], Cell::Value(_)));
    assert_eq!(records[1].before, None, "the old row is not told under the default identity");
    let delete = records[2].before.as_ref().unwrap();
    assert_eq!((&delete["id"], &delete["name"]), (&value("1"), &Cell::Absent));
    assert!(records[2].after.is_none() && records[3].before.is_none());
    let fields: Vec<_> =
        create.schema.value().fields.iter().map(|field| (field.name.as_str(), field.nullable)).collect();
    assert_eq!(fields, [("id", false), ("name", false), ("note", true)]);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_key_is_delete_tombstone_create_and_loses_no_large_value() {
    let db = database(
        "keys",
        "CREATE TABLE t (a int, b text, big text, PRIMARY KEY (a, b)); \
         ALTER TABLE t ALTER big SET STORAGE EXTERNAL; \
         CREATE TABLE f (id int PRIMARY KEY, big text); ALTER TABLE f ALTER big SET STORAGE EXTERNAL; \
         ALTER TABLE f REPLICA IDENTITY FULL",
    );
    let mut run = Runner::new(&db, "keys", json!({"tables": ["t", "f"], "snapshot": "never"}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(
        "INSERT INTO t VALUES (1, 'it''s', repeat('x', 9000)); INSERT INTO f VALUES (1, repeat('y', 9000)); \
         UPDATE t SET a = 2; UPDATE f SET id = 2",
    );
    run.catch_up().await;
    assert_eq!((run.ops("t"), run.ops("f")), ("cd-c".to_owned(), "cd-c".to_owned()));
    for (table, letter) in [("t", "x"), ("f", "y")] {
        let records = run.of_table(table);
        assert_eq!(
            records[3].text("big"),
            letter.repeat(9000),
            "{table}: read from the table or the old row"
        );
    }
    let records = run.of_table("t");
    let key = records[1].key.as_ref().unwrap();
    assert_eq!((&key["a"], &key["b"]), (&value("1"), &value("it's")));
    assert_eq!(records[3].key.as_ref().unwrap()["a"], value("2"));
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unchanged_large_values_are_absent_or_taken_from_the_old_row() {
    let db = database(
        "toast",
        "CREATE TABLE d (id int PRIMARY KEY, n int, big text); ALTER TABLE d ALTER big SET STORAGE EXTERNAL; \
         CREATE TABLE f (id int PRIMARY KEY, n int, big text); ALTER TABLE f ALTER big SET STORAGE EXTERNAL; \
         ALTER TABLE f REPLICA IDENTITY FULL",
    );
    let mut run = Runner::new(&db, "toast", json!({"tables": ["public.*"], "snapshot": "never"}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    for table in ["d", "f"] {
        db.sql(&format!("INSERT INTO {table} VALUES (1, 1, repeat('z', 9000)); UPDATE {table} SET n = 2"));
    }
    run.catch_up().await;
    assert_eq!(run.of_table("d")[1].after("big"), &Cell::Absent, "absent is not NULL");
    assert_eq!(run.of_table("f")[1].text("big").len(), 9000);
    assert_eq!(run.of_table("f")[1].before.as_ref().unwrap()["n"], value("1"));
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncates_and_tables_without_a_key() {
    let db = database(
        "trunc",
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY REFERENCES a); \
         CREATE TABLE bag (n int, t text); ALTER TABLE bag REPLICA IDENTITY FULL; CREATE TABLE log (n int)",
    );
    let mut run = Runner::new(
        &db,
        "trunc",
        json!({"tables": ["public.*"], "insert_only": ["log"], "tombstones": false}),
    );
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(
        "INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); TRUNCATE a CASCADE; INSERT INTO a VALUES (2); \
         INSERT INTO bag VALUES (1, NULL), (1, NULL), (2, 'x'); UPDATE bag SET n = 3 WHERE n = 2; \
         DELETE FROM bag WHERE ctid = '(0,1)'; \
         INSERT INTO log VALUES (1); UPDATE log SET n = 2; DELETE FROM log; INSERT INTO log VALUES (3); \
         TRUNCATE log; DELETE FROM a",
    );
    run.catch_up().await;
    assert_eq!(
        (run.ops("a"), run.ops("b")),
        ("ctcd".to_owned(), "ct".to_owned()),
        "no tombstone when not wanted"
    );
    assert_eq!((run.ops("bag"), run.ops("log")), ("cccud".to_owned(), "cct".to_owned()));
    assert!(run.of_table("bag").iter().all(|record| record.key.is_none() && record.schema.key().is_none()));
    let bag: Vec<_> = run.as_bag("bag").iter().map(|row| row["n"].clone()).collect();
    assert_eq!(bag, [value("1"), value("3")]);
    let truncate = run.of_table("a")[1];
    assert!(truncate.key.is_none() && truncate.after.is_none() && truncate.op == Op::Truncate);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_go_and_are_renamed_while_rows_are_written() {
    let db = database("ddl", "CREATE TABLE t (id serial PRIMARY KEY, a int)");
    let mut run = Runner::new(&db, "ddl", json!({"tables": ["t"], "snapshot": "never"}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql("INSERT INTO t (a) VALUES (1)");
    db.sql("ALTER TABLE t ADD b text DEFAULT 'new'; INSERT INTO t (a) VALUES (2)");
    // An initial value is known as long as the column is as it was added.
    run.catch_up().await;
    db.sql("ALTER TABLE t RENAME a TO c; INSERT INTO t (c, b) VALUES (3, 'x')");
    db.sql("ALTER TABLE t DROP b; INSERT INTO t (c) VALUES (4)");
    db.sql("ALTER TABLE t ALTER c TYPE numeric(8,2); INSERT INTO t (c) VALUES (5)");
    db.sql("INSERT INTO t (c) VALUES (6); ANALYZE t; INSERT INTO t (c) VALUES (7)");
    run.catch_up().await;
    let records = run.of_table("t");
    let columns: Vec<Vec<&str>> = records
        .iter()
        .map(|record| record.schema.value().fields.iter().map(|field| field.name.as_str()).collect())
        .collect();
    assert_eq!(columns[..4], [vec!["id", "a"], vec!["id", "a", "b"], vec!["id", "c", "b"], vec!["id", "c"]]);
    assert_eq!(records[1].text("b"), "new");
    let field = |record: usize, name: &str| {
        let schema = records[record].schema.value();
        schema.fields[schema.index_of(name).unwrap()].clone()
    };
    assert_eq!(field(1, "b").initial.as_deref(), Some("new"), "old rows have the default");
    assert_eq!(field(2, "c").renamed_from.as_deref(), Some("a"));
    assert_eq!(field(2, "b").initial.as_deref(), Some("new"), "as long as the column is there");
    assert_eq!((field(0, "a").id, field(3, "c").id), (field(2, "c").id, field(2, "c").id));
    assert!(field(0, "a").id.is_some() && field(0, "a").id != field(0, "id").id);
    assert_eq!(field(3, "c").renamed_from, None, "told once");
    assert_eq!(records[4].text("c"), "5.00");
    assert_eq!(records[4].schema.value().fields[1].source_type.as_deref(), Some("postgres:numeric(8,2)"));
    assert_eq!(records[5].schema.id(), records[6].schema.id(), "a description sent again is no change");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renaming_is_told_across_a_restart_and_a_replay() {
    let db =
        database("renames", "CREATE TABLE t (id serial PRIMARY KEY, a int); INSERT INTO t (a) VALUES (0)");
    let mut run = Runner::new(&db, "renames", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    run.close().await;
    db.sql("ALTER TABLE t RENAME a TO b; ALTER TABLE t ADD c int[] DEFAULT '{1,2}'; INSERT INTO t (b) VALUES (1)");
    // The first time it is not stored.
    for stored in [false, true] {
        run.store_every = if stored { 1 } else { usize::MAX };
        run.open().await.unwrap();
        run.budget.records = 1;
        let before = run.count;
        run.until("the row", |run| run.count > before).await;
        if !stored {
            run.topic.pop();
            run.kill();
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
    }
    let fields = run.of_table("t")[1].schema.value().fields.clone();
    assert_eq!(fields[1].renamed_from.as_deref(), Some("a"));
    assert_eq!(fields[2].initial.as_deref(), Some("[1,2]"), "in the carried form");
    run.close().await;
    run.open().await.unwrap();
    db.sql("INSERT INTO t (b) VALUES (2)");
    run.catch_up().await;
    assert_eq!(run.of_table("t")[2].schema.value().fields[1].renamed_from, None, "it was told before");
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_with_quotes_capitals_and_dots_and_partitions_under_their_root() {
    let odd = r#"Odd Näme.with "quotes""#;
    let quoted = r#""Odd Näme.with ""quotes""""#;
    let db = database(
        "Odd \"Db\"",
        &format!(
            "CREATE SCHEMA \"Big.Schema\"; \
             CREATE TABLE \"Big.Schema\".{quoted} (\"Id \"\"x\"\"\" int PRIMARY KEY, \"Ünï\" text); \
             INSERT INTO \"Big.Schema\".{quoted} VALUES (1, 'ä\\b'); \
             CREATE TABLE part (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); \
             CREATE TABLE part_a PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01'); \
             CREATE TABLE part_b (at date NOT NULL, id int NOT NULL); \
             ALTER TABLE part ATTACH PARTITION part_b FOR VALUES FROM ('2025-01-01') TO ('2026-01-01'); \
             INSERT INTO part VALUES (1, '2024-05-05'), (2, '2025-05-05')"
        ),
    );
    let url = towpath_url(&db.name);
    let tables = json!({"tables": [format!("\"Big.Schema\".{quoted}"), "part"]});
    let mut run = Runner::with_url(&url, "Odd-Pipe", tables);
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(&format!(
        "UPDATE \"Big.Schema\".{quoted} SET \"Ünï\" = 'b'; INSERT INTO part VALUES (3, '2025-06-06'); \
         UPDATE part SET at = '2024-02-02' WHERE id = 2"
    ));
    run.catch_up().await;
    assert_eq!(run.ops(odd), "ru");
    let record = run.of_table(odd)[0];
    assert_eq!((record.text("Id \"x\""), record.text("Ünï")), ("1", "ä\\b"));
    assert_eq!(record.schema.name(), format!("Big.Schema.{odd}"));
    let ids = pairs(run.by_key("part").values(), "id", "at");
    assert_eq!(ids, expected(&db, "SELECT id, at FROM part ORDER BY id"));
    assert!(run.of_table("part_a").is_empty(), "partitions speak as their root");
    run.close().await;
}

fn towpath_url(database: &str) -> String {
    let encoded: String = database.bytes().map(|byte| format!("%{byte:02x}")).collect();
    super::support::server().url(&encoded)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_database_advances_its_slot_and_other_tables_do_not_hold_it_back() {
    let db = database("idle", "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE noise (n int)");
    let mut run = Runner::new(&db, "idle", json!({"tables": ["t"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    let confirmed = || {
        db.sql(
            "SELECT confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = 'towpath_idle'",
        )
    };
    let before: u64 = confirmed().parse().unwrap();
    db.sql("INSERT INTO noise SELECT generate_series(1, 20000)");
    run.until("the slot moves", |_| confirmed().parse::<u64>().unwrap() > before + 500_000).await;
    let after: u64 = confirmed().parse().unwrap();
    // Without a single change: heartbeats.
    run.until("heartbeats move it", |_| confirmed().parse::<u64>().unwrap() > after).await;
    assert_eq!(run.topic.len(), 0);
    run.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_created_later_are_copied_and_followed() {
    let db = database("later", "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1)");
    let mut run = Runner::new(&db, "later", json!({"tables": ["public.*"]}));
    run.open().await.unwrap();
    run.until("streaming", |run| run.source().status().starts_with("streaming")).await;
    db.sql(
        "CREATE TABLE b (id int PRIMARY KEY); INSERT INTO b SELECT generate_series(1, 100); \
         CREATE TABLE hopeless (n int); INSERT INTO a VALUES (2)",
    );
    run.until("the new table", |run| run.of_table("b").len() >= 100).await;
    db.sql("INSERT INTO b VALUES (101); INSERT INTO a VALUES (3); UPDATE hopeless SET n = 1");
    run.catch_up().await;
    assert_eq!((run.by_key("a").len(), run.by_key("b").len()), (3, 101));
    assert_eq!(run.ops("a"), "rcc");
    run.close().await;
}
